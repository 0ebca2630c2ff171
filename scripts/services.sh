#!/usr/bin/env bash
# Private PostgreSQL and RabbitMQ for tests and for trying things out, from the system's packages.
#
#   scripts/services.sh up      installs what is missing, starts what does not run, waits until it answers
#   scripts/services.sh env     prints the variables the tests read: eval "$(scripts/services.sh env)"
#   scripts/services.sh status  exits 0 when both run
#   scripts/services.sh down    stops both; --purge removes the directory too
#   scripts/services.sh start|stop|kill postgres|rabbitmq    faults: `stop postgres` is an immediate stop,
#                                                            `kill` is kill -9, `start` waits for answers
#   scripts/services.sh alarm on|off    the broker's memory alarm, which blocks all that publish
#
# --dir DIR       where they live; by default one directory per checkout. Its path must be short and free of blanks.
# --only SERVICE  with up, down and status: postgres or rabbitmq alone
# --owner PID     with up: when this process is gone, the services are taken down and the directory is removed
#
# Must hold: everything lives in the one directory and listens on 127.0.0.1 (epmd on ::1 too), on ports recorded
# there; no process is touched but those that were started from it; servers never run as root; every wait is limited.
set -euo pipefail
umask 022

readonly POSTGRES_VERSION_MIN=15
readonly START_LIMIT=120 STOP_LIMIT=60 LOCK_LIMIT=300
# A unix socket's path may have 107 bytes; the longest name below the directory has 30.
readonly DIR_LENGTH_MAX=75
# Below the ports that the system gives to outgoing connections: none of those can take the port of a stopped server.
readonly PORT_FIRST=20000 PORT_BLOCKS=2400 PORTS=5

script=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/services.sh
checkout=$(dirname "$(dirname "$script")")

fail() {
    echo "services: $*" >&2
    exit 1
}

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$script" >&2
    exit 2
}

# Runs a command as an account; only root changes accounts: as_account NAME COMMAND…
as_account() {
    local name=$1
    shift
    if ((EUID == 0)); then
        setpriv --reuid="$name" --regid="$(id -g "$name")" --clear-groups "$@"
    else
        "$@"
    fi
}

# Starts a process that outlives this script and holds none of its files: background NAME ACCOUNT COMMAND…
background() {
    local name=$1 account=$2 drop=()
    shift 2
    if ((EUID == 0)); then
        drop=(setpriv "--reuid=$account" "--regid=$(id -g "$account")" --clear-groups)
    fi
    # The shell writes its own id, and becomes the command.
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ >"$1"; shift; exec "$@"' _ "$dir/$name.pid" "${drop[@]}" "$@" \
        </dev/null >>"$dir/$name.log" 2>&1 9>&- &
}

# Whether the process of a pid file runs and was started from here: its arguments say so, or its environment while a
# script is on its way to become the server. runs FILE ARGUMENT
runs() {
    local pid told
    read -r pid 2>/dev/null <"$1" || return 1
    told=$(cat "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null | tr '\0' ' ') || true
    [[ $told == *"$2"* ]]
}

postgres_runs() { runs "$dir/postgres/data/postmaster.pid" "-D $dir/postgres/data"; }
rabbitmq_runs() { runs "$dir/rabbitmq.pid" "$dir/rabbitmq/home"; }
epmd_runs() { runs "$dir/epmd.pid" "epmd -port $epmd_port"; }
postgres_gone() { ! postgres_runs; }
rabbitmq_gone() { ! rabbitmq_runs; }

# Tries until a command succeeds: await SECONDS COMMAND…
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# One verb at a time in one directory; what is started in the background must not inherit the lock.
lock() {
    exec 9>"$dir/lock"
    flock --wait "$LOCK_LIMIT" 9 || fail "another run holds $dir/lock"
}

# --- packages

find_postgres() {
    local bin
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) "$(pg_config --bindir 2>/dev/null)"; do
        if [[ -x $bin/initdb && -x $bin/postgres ]] \
            && (($("$bin/postgres" --version | grep -oE '[0-9]+' | head -1) >= POSTGRES_VERSION_MIN)); then
            postgres_bin=$bin
            return
        fi
    done
    return 1
}

# The wrappers on the PATH are not used: they change the account and drop every setting of ours.
find_rabbitmq() {
    local bin
    for bin in /usr/lib/rabbitmq/bin /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin /opt/rabbitmq/sbin; do
        if [[ -x $bin/rabbitmq-server ]] && command -v epmd >/dev/null; then
            rabbitmq_bin=$bin
            return
        fi
    done
    return 1
}

# Installs packages; what they bring is not started now, nor at the next boot. install PACKAGE…
install() (
    [[ -r /etc/debian_version ]] || fail "install $* (PostgreSQL >= $POSTGRES_VERSION_MIN, RabbitMQ >= 3.10), then run this again"
    sudo=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "run as root: apt-get install --no-install-recommends $*"
        sudo=(sudo)
    fi
    policy=/usr/sbin/policy-rc.d mark="# placed by bookend's services.sh while it installs"
    if [[ ! -e $policy ]] || grep -qxF "$mark" "$policy"; then
        # A signal must not leave the policy behind either.
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod 755 "$policy"
    fi
    apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 --quiet --yes)
    echo "installing: $*"
    if ! "${apt[@]}" install --no-install-recommends "$@" </dev/null >"$dir/install.log" 2>&1; then
        # A fresh machine has no lists, an old one lists of packages that are gone.
        "${apt[@]}" update </dev/null >>"$dir/install.log" 2>&1 || true
        "${apt[@]}" install --no-install-recommends "$@" </dev/null >>"$dir/install.log" 2>&1 \
            || fail "$* could not be installed: $(tail -n 5 "$dir/install.log")"
    fi
    if command -v systemctl >/dev/null; then
        "${sudo[@]}" systemctl --quiet disable "$@" >/dev/null 2>&1 || true
    fi
)

find_programs() {
    local service
    for service in "${wanted[@]}"; do
        "find_$service" || return 1
    done
}

install_missing() {
    local missing=()
    [[ ${wanted[*]} != *postgres* ]] || find_postgres || missing+=(postgresql)
    [[ ${wanted[*]} != *rabbitmq* ]] || find_rabbitmq || missing+=(rabbitmq-server)
    ((${#missing[@]} == 0)) || install "${missing[@]}"
    find_programs || fail "PostgreSQL >= $POSTGRES_VERSION_MIN or RabbitMQ was not found after the installation"
}

# --- the directory

# /root is closed to the servers' accounts, so root's directory is elsewhere. Not below the checkout: its path may be
# too long for a socket, or closed too.
default_dir() {
    local base=${XDG_CACHE_HOME:-$HOME/.cache}
    ((EUID != 0)) || base=/var/cache
    echo "$base/bookend/services-$(printf %s "$checkout" | cksum | cut -d ' ' -f 1)"
}

port_taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

any_port_taken() {
    local port
    for port in "$@"; do
        ! port_taken "$port" || return 0
    done
    return 1
}

# Two that choose at the same moment have other process ids, and so look at other blocks first.
choose_ports() {
    local block=$(($$ % PORT_BLOCKS)) tries first
    for ((tries = 0; tries < PORT_BLOCKS; tries++)); do
        first=$((PORT_FIRST + (block + tries) % PORT_BLOCKS * PORTS))
        # shellcheck disable=SC2046
        if ! any_port_taken $(seq $first $((first + PORTS - 1))); then
            seq -s ' ' $first $((first + PORTS - 1)) >"$dir/ports"
            return
        fi
    done
    fail "no free ports"
}

read_ports() {
    read -r postgres_port amqp_port management_port dist_port epmd_port 2>/dev/null <"$dir/ports"
}

# Ports are kept for as long as they are free: clients come back to where the server was.
prepare_dir() {
    chmod 711 "$dir"
    if ! read_ports; then
        choose_ports
    elif postgres_gone && rabbitmq_gone && ! epmd_runs; then
        # shellcheck disable=SC2046
        ! any_port_taken $(<"$dir/ports") || choose_ports
    fi
    read_ports
}

# A directory of the servers' account: owned_dir ACCOUNT PATH
owned_dir() {
    mkdir -p "$2"
    ((EUID != 0)) || chown "$1" "$2"
    chmod 700 "$2"
    as_account "$1" test -x "$2" || fail "the account $1 can't enter $2: choose another --dir"
}

# --- PostgreSQL

configure_postgres() {
    local data=$dir/postgres/data
    owned_dir postgres "$dir/postgres"
    if [[ ! -e $data/PG_VERSION ]]; then
        # What a killed run left half made.
        rm -rf "$data"
        as_account postgres "$postgres_bin/initdb" --auth=trust --username=postgres --encoding=UTF8 --locale=C \
            --no-sync --pgdata="$data" >"$dir/postgres.log" 2>&1 </dev/null \
            || fail "PostgreSQL can't make a database: $(tail -n 5 "$dir/postgres.log")"
    fi
    cat >"$data/postgresql.auto.conf" <<-CONF
	listen_addresses = '127.0.0.1'
	port = $postgres_port
	unix_socket_directories = '$dir/postgres'
	max_connections = 400
	shared_buffers = '128MB'
	min_wal_size = '512MB'
	CONF
    # What each statement costs, for whoever measures; part of the server's package where it is at hand.
    if [[ -r $("$postgres_bin/pg_config" --sharedir 2>/dev/null)/extension/pg_stat_statements.control ]]; then
        echo "shared_preload_libraries = 'pg_stat_statements'" >>"$data/postgresql.auto.conf"
    fi
}

postgres_try() {
    as_account postgres "$postgres_bin/pg_ctl" start --wait --timeout="$START_LIMIT" --silent \
        --pgdata="$dir/postgres/data" --log="$dir/postgres/server.log" >/dev/null 2>&1 </dev/null 9>&-
}

start_postgres() {
    local data=$dir/postgres/data pid client
    if ! postgres_runs; then
        configure_postgres
        # The id may have gone to another process since; then the server would refuse to start.
        if read -r pid 2>/dev/null <"$data/postmaster.pid" && [[ -e /proc/$pid ]]; then
            rm -f "$data/postmaster.pid"
        fi
        # Not at the first try when a killed server's own children are still going.
        await "$START_LIMIT" postgres_try || fail "PostgreSQL does not start: $(tail -n 5 "$dir/postgres/server.log")"
    fi
    await "$START_LIMIT" "$postgres_bin/pg_isready" -q -h 127.0.0.1 -p "$postgres_port" \
        || fail "PostgreSQL does not answer: $dir/postgres/server.log"
    client=(as_account postgres "$postgres_bin/psql" -XAtq -h "$dir/postgres" -p "$postgres_port" -U postgres)
    if [[ -z $("${client[@]}" -c "select 1 from pg_database where datname = 'bookend'") ]]; then
        "${client[@]}" -c 'create database bookend' || fail "PostgreSQL can't make the database"
    fi
    echo "postgres: 127.0.0.1:$postgres_port"
}

stop_postgres() {
    postgres_runs || return 0
    as_account postgres "$postgres_bin/pg_ctl" stop --mode="$stop_mode" --wait --timeout="$STOP_LIMIT" --silent \
        --pgdata="$dir/postgres/data" >/dev/null || kill_postgres
}

kill_postgres() {
    local pid
    postgres_runs || return 0
    read -r pid <"$dir/postgres/data/postmaster.pid"
    kill -KILL "$pid"
    await "$STOP_LIMIT" postgres_gone || fail "PostgreSQL is still running"
}

# --- RabbitMQ

# The environment of the server and of its tools, nothing inherited: array broker_env.
broker_environment() {
    local home=$dir/rabbitmq
    broker_env=(env -i "PATH=$PATH" LANG=C.UTF-8 "HOME=$home/home"
        "RABBITMQ_NODENAME=bookend-$(printf %s "$dir" | cksum | cut -d ' ' -f 1)@localhost"
        "RABBITMQ_MNESIA_BASE=$home/data" "RABBITMQ_LOG_BASE=$home/log"
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 "RABBITMQ_NODE_PORT=$amqp_port" "RABBITMQ_DIST_PORT=$dist_port"
        "RABBITMQ_CONFIG_FILE=$home/rabbitmq" "RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins"
        # Does not exist: the system's own is not read.
        "RABBITMQ_CONF_ENV_FILE=$home/none"
        "ERL_EPMD_PORT=$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
        # The server's script becomes the server, instead of waiting for it.
        RUNNING_UNDER_SYSTEMD=true
        # Quorum queues count every second. One scheduler that does not spin while it is idle: on a small machine each
        # further one costs the tests' time, and messages wait for it to wake.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-rabbit quorum_tick_interval 1000 -kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none")
}

configure_rabbitmq() {
    local home=$dir/rabbitmq part
    for part in "$home" "$home/home" "$home/data" "$home/log"; do
        owned_dir rabbitmq "$part"
    done
    echo '[rabbitmq_management].' >"$home/enabled_plugins"
    # Figures of the management API are a second old at most: the tests wait for them.
    cat >"$home/rabbitmq.conf" <<-CONF
	management.tcp.ip = 127.0.0.1
	management.tcp.port = $management_port
	vm_memory_high_watermark.absolute = 1GB
	disk_free_limit.absolute = 50MB
	collect_statistics_interval = 1000
	CONF
    chmod 644 "$home/enabled_plugins" "$home/rabbitmq.conf"
}

# Says 200 when the AMQP listener is up, which comes last.
rabbitmq_answers() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$management_port"
        printf 'GET /api/health/checks/port-listener/%s HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n' "$amqp_port" >&3
        read -r -t 5 line <&3 && [[ $line == *' 200 '* ]]
    ) 2>/dev/null
}

rabbitmq_answers_or_died() { rabbitmq_answers || rabbitmq_gone; }

start_rabbitmq() {
    broker_environment
    if ! rabbitmq_runs; then
        configure_rabbitmq
        epmd_runs || background epmd rabbitmq env -i "PATH=$PATH" epmd -port "$epmd_port" -address 127.0.0.1
        # What the shell allows at most, up to the figure the broker was measured with.
        ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -H -n)"
        background rabbitmq rabbitmq "${broker_env[@]}" "$rabbitmq_bin/rabbitmq-server"
        await 10 rabbitmq_runs || fail "RabbitMQ does not start: $(tail -n 5 "$dir/rabbitmq.log")"
    fi
    if ! await "$START_LIMIT" rabbitmq_answers_or_died || rabbitmq_gone; then
        fail "RabbitMQ does not answer: $(tail -n 5 "$dir/rabbitmq.log")"
    fi
    echo "rabbitmq: 127.0.0.1:$amqp_port, management 127.0.0.1:$management_port"
}

signal_rabbitmq() {
    local pid
    rabbitmq_runs || return 0
    read -r pid <"$dir/rabbitmq.pid"
    kill "-$1" "$pid"
}

stop_rabbitmq() {
    signal_rabbitmq TERM
    await "$STOP_LIMIT" rabbitmq_gone || kill_rabbitmq
}

kill_rabbitmq() {
    signal_rabbitmq KILL
    await "$STOP_LIMIT" rabbitmq_gone || fail "RabbitMQ is still running"
}

stop_epmd() {
    local pid
    ! epmd_runs || { read -r pid <"$dir/epmd.pid" && kill "$pid"; }
}

# --- verbs

# Runs a function for each wanted service side by side: each FUNCTION_PREFIX
each() {
    local service pids=() pid failed=0
    for service in "${wanted[@]}"; do
        "$1_$service" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    return "$failed"
}

up() {
    mkdir -p "$dir"
    [[ -O $dir ]] || fail "$dir belongs to somebody else"
    lock
    install_missing
    prepare_dir
    if [[ -n $owner ]]; then
        # shellcheck disable=SC2016
        background owner "$(id -un)" bash -c 'tail --pid="$1" -f /dev/null; exec "$2" down --purge --dir "$3"' \
            _ "$owner" "$script" "$dir"
    fi
    each start
}

down() {
    [[ -r $dir/ports ]] || return 0
    lock
    read_ports
    # A server that runs was found before; one that does not needs no program.
    find_programs || true
    if ((purge)); then
        each kill
    else
        stop_mode=fast
        each stop
    fi
    rabbitmq_runs || stop_epmd
    if ((purge)) && postgres_gone && rabbitmq_gone; then
        rm -rf "$dir"
    fi
}

status() {
    local service answer=0
    read_ports || true
    for service in "${wanted[@]}"; do
        if "${service}_runs"; then
            echo "$service: running in $dir"
        else
            echo "$service: not running"
            answer=1
        fi
    done
    return "$answer"
}

print_env() {
    read_ports || fail "there are no services in $dir: run scripts/services.sh up"
    if [[ -d $dir/postgres ]]; then
        echo "export BOOKEND_TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$postgres_port/bookend"
    fi
    if [[ -d $dir/rabbitmq ]]; then
        echo "export BOOKEND_TEST_AMQP_URL=amqp://guest:guest@127.0.0.1:$amqp_port"
        echo "export BOOKEND_TEST_AMQP_MANAGEMENT_URL=http://guest:guest@127.0.0.1:$management_port"
    fi
    echo "export BOOKEND_TEST_SERVICES_DIR=$dir"
}

# Runs start, stop or kill for one service of a directory that is there.
fault() {
    read_ports || fail "there are no services in $dir: run scripts/services.sh up"
    lock
    find_programs || fail "${wanted[*]} is not installed"
    "$1_${wanted[0]}"
}

alarm() {
    local mark=(absolute 1GB)
    [[ $1 != on ]] || mark=(0)
    if ! read_ports || rabbitmq_gone; then
        fail "RabbitMQ does not run in $dir"
    fi
    find_rabbitmq || fail "rabbitmq is not installed"
    broker_environment
    # A node that accepts connections may not count as started yet for a moment.
    await "$START_LIMIT" mark_memory "${mark[@]}" || fail "the memory mark can't be set: ${said:-no answer}"
}

mark_memory() {
    said=$(as_account rabbitmq "${broker_env[@]}" "$rabbitmq_bin/rabbitmqctl" --quiet set_vm_memory_high_watermark "$@" 2>&1)
}

verb=${1:-} noun="" dir="" only="" owner="" purge=0 stop_mode=immediate
(($# == 0)) || shift
case $verb in
start | stop | kill | alarm)
    noun=${1:-}
    (($# == 0)) || shift
    ;;
esac
while (($# > 0)); do
    case $1 in
    --purge) purge=1 ;;
    --dir | --only | --owner)
        (($# > 1)) || usage
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    *) usage ;;
    esac
    shift
done

[[ -d /proc/self ]] || fail "needs Linux; elsewhere start PostgreSQL and RabbitMQ by hand and set the variables of \`env\`"
dir=$(realpath -m "${dir:-$(default_dir)}")
if [[ $dir == *[[:space:]]* ]] || ((${#dir} > DIR_LENGTH_MAX)); then
    fail "the path of the directory is too long or has blanks: $dir"
fi
case $only in
"") wanted=(postgres rabbitmq) ;;
postgres | rabbitmq) wanted=("$only") ;;
*) usage ;;
esac
# The servers' accounts can't enter every directory.
[[ $verb == status || $verb == env ]] || cd /

case "$verb $noun" in
"up " | "down " | "status ") "$verb" ;;
"env ") print_env ;;
"start postgres" | "start rabbitmq" | "stop postgres" | "stop rabbitmq" | "kill postgres" | "kill rabbitmq")
    wanted=("$noun")
    fault "$verb"
    ;;
"alarm on" | "alarm off") alarm "$noun" ;;
*) usage ;;
esac
