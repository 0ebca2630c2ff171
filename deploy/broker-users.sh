#!/bin/sh
# Makes RabbitMQ's users for Bookend: one for the orchestrators, one for each participant, each allowed what it does.
# Repeatable: whatever is there is brought to what stands here. docs/operations.md has the table and the reasons.
#
#   MANAGEMENT_URL                      the management API, as in http://rabbitmq:15672
#   ADMIN_USER, ADMIN_PASSWORD          an administrator of the broker
#   VHOST                               the virtual host, made where it is missing; letters, digits, - and _ only
#   PASSWORD_ORCHESTRATOR, PASSWORD_BOOKING, PASSWORD_PAYMENT, PASSWORD_CONFIRMATION, PASSWORD_NOTIFY
#
# Must hold: no password is an argument of a process; nobody but the orchestrators may send commands.
set -eu

: "${MANAGEMENT_URL:?}" "${ADMIN_USER:?}" "${ADMIN_PASSWORD:?}" "${VHOST:?}"
: "${PASSWORD_ORCHESTRATOR:?}" "${PASSWORD_BOOKING:?}" "${PASSWORD_PAYMENT:?}" "${PASSWORD_CONFIRMATION:?}"
: "${PASSWORD_NOTIFY:?}"

# put PATH BODY
put() {
    {
        printf 'user = "%s:%s"\n' "$ADMIN_USER" "$ADMIN_PASSWORD"
        printf 'data = "%s"\n' "$(printf %s "$2" | sed 's/[\\"]/\\&/g')"
    } | curl --silent --show-error --fail --max-time 10 --retry 10 --retry-connrefused --config - \
        --request PUT --header 'Content-Type: application/json' --output /dev/null "$MANAGEMENT_URL/api/$1"
}

# user NAME PASSWORD CONFIGURE WRITE READ
user() {
    case $2 in
    *[!A-Za-z0-9_.~-]*)
        # It is a part of a URL too.
        echo "the password of $1 may have letters, digits and . _ ~ - only" >&2
        exit 2
        ;;
    esac
    put "users/$1" "{\"password\": \"$2\", \"tags\": \"\"}"
    put "permissions/$VHOST/$1" "{\"configure\": \"$3\", \"write\": \"$4\", \"read\": \"$5\"}"
}

# Backslashes are JSON's too. amq.gen-… is a queue of hints, which the broker names.
orchestrators() {
    all='^(bookend(\\..+)?|amq\\.gen-.+)$'
    user bookend-orchestrator "$1" "$all" "$all" "$all"
}

# Declares and binds what it shares with the orchestrators, consumes its own queue, publishes replies and dead letters.
participant() {
    user "bookend-$1" "$2" \
        "^bookend(\\\\.(dead|hints|replies|$1))?\$" "^bookend(\\\\.(dead|replies|$1))?\$" "^bookend(\\\\.(dead|$1))?\$"
    put "topic-permissions/$VHOST/bookend-$1" \
        "{\"exchange\": \"bookend\", \"write\": \"^replies\$\", \"read\": \"^(replies|$1)\$\"}"
}

put "vhosts/$VHOST" '{}'
orchestrators "$PASSWORD_ORCHESTRATOR"
participant booking "$PASSWORD_BOOKING"
participant payment "$PASSWORD_PAYMENT"
participant confirmation "$PASSWORD_CONFIRMATION"
participant notify "$PASSWORD_NOTIFY"
echo "users and permissions are in place"
