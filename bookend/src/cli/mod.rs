//! The command line: `bookend <noun> <verb>`.
//!
//! Must hold: data goes to standard output, everything else to standard error; exit codes are those of
//! [`exit::Exit`]; only here and in `settings` the environment is read.

pub mod exit;

pub mod output;

mod client;

mod dead_letters;

mod definitions;

mod owner;

mod sagas;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::databases::Owner;
use crate::settings::{Flags, Settings};
use exit::Exit;

/// Runs multi-service bookings so that every step either finishes or is put back, and shows which.
#[derive(Debug, Parser)]
#[command(name = "bookend", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file, TOML. Every key is documented by `bookend config`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How data is printed.
    #[arg(short, long, global = true, value_enum, default_value_t = output::Format::Table)]
    output: output::Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play three stories with real sagas, then keep serving.
    #[command(after_help = "Examples:\n  bookend demo\n  bookend demo --exit")]
    Demo {
        /// End after the stories; the exit code says whether they ended as told.
        #[arg(long)]
        exit: bool,
        /// Port to serve on; the next free one is used if it is taken.
        #[arg(long)]
        port: Option<u16>,
    },
    /// Run everything in one process: engine, participants, simulated providers, API.
    #[command(after_help = "Examples:\n  bookend dev\n  bookend dev --data ./data --port 8080 --token secret")]
    Dev {
        /// Port to serve on.
        #[arg(long)]
        port: Option<u16>,
        /// Folder that keeps the data; without it everything is gone at exit.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The admin's bearer token.
        #[arg(long)]
        token: Option<String>,
    },
    /// Run an orchestrator on PostgreSQL and RabbitMQ, beside any number of others.
    #[command(after_help = "Examples:\n  bookend migrate --config bookend.toml\n  bookend serve --config bookend.toml")]
    Serve {
        /// Address to listen on.
        #[arg(long)]
        listen: Option<SocketAddr>,
    },
    /// Run participants on PostgreSQL and RabbitMQ, beside any number of others.
    #[command(after_help = "Examples:\n  bookend participant booking confirmation\n  bookend participant payment")]
    Participant {
        /// booking, payment, confirmation, notify.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Address to listen on.
        #[arg(long)]
        listen: Option<SocketAddr>,
    },
    /// Run the simulators of card gateway, SMS and mail on their own.
    Providers {
        /// Address to listen on.
        #[arg(long)]
        listen: Option<SocketAddr>,
    },
    /// Create or update the tables, in a data folder or on PostgreSQL.
    Migrate {
        #[command(flatten)]
        data: DataDir,
        /// Only the tables of this owner; may be given several times.
        #[arg(long = "owner", value_name = "OWNER", value_enum)]
        owners: Vec<Owner>,
    },
    /// Create free slots; repeating it creates no more.
    Seed {
        #[command(flatten)]
        data: DataDir,
        /// How many.
        #[arg(long, default_value_t = 200)]
        slots: u32,
    },
    /// Add up what all owners hold; exits 1 when it does not add up.
    Audit {
        #[command(flatten)]
        data: DataDir,
        /// Only this saga.
        #[arg(long, value_name = "ID")]
        saga: Option<uuid::Uuid>,
    },
    /// Start, read and repair sagas on a server.
    #[command(visible_aliases = ["saga", "sg"])]
    Sagas(sagas::Sagas),
    /// Look at messages that could not be handled; send them again or throw them away.
    #[command(visible_aliases = ["dead-letter", "dl"])]
    DeadLetters(dead_letters::DeadLetters),
    /// Look at saga definitions.
    #[command(visible_alias = "definition")]
    Definitions(definitions::Definitions),
    /// Print the manual of every configuration key, with its default.
    Config,
}

impl Command {
    /// Whether the process leaves most of the work to a database server and a broker.
    fn is_beside_services(&self) -> bool {
        match self {
            Self::Serve { .. } | Self::Participant { .. } => true,
            Self::Demo { .. }
            | Self::Dev { .. }
            | Self::Providers { .. }
            | Self::Migrate { .. }
            | Self::Seed { .. }
            | Self::Audit { .. }
            | Self::Sagas(_)
            | Self::DeadLetters(_)
            | Self::Definitions(_)
            | Self::Config => false,
        }
    }

    /// Whether the configuration says anything to it.
    fn is_configured(&self) -> bool {
        match self {
            Self::Sagas(_) | Self::DeadLetters(_) | Self::Config => false,
            Self::Demo { .. }
            | Self::Dev { .. }
            | Self::Serve { .. }
            | Self::Participant { .. }
            | Self::Providers { .. }
            | Self::Migrate { .. }
            | Self::Seed { .. }
            | Self::Audit { .. }
            | Self::Definitions(_) => true,
        }
    }
}

#[derive(Debug, Args)]
struct DataDir {
    /// Folder that holds the data.
    #[arg(long = "data", value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the program.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if cli.command.is_beside_services() {
        runtime.worker_threads(runtime::threads::beside_services());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("the runtime can't be started: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(dispatch(cli));
    let exit = exit.unwrap_or_else(|error| {
        output::error(&output::chain(&error));
        Exit::Failed
    });
    runtime.shutdown_background();
    match output::finish() {
        None => exit.into(),
        Some(error) => {
            output::error(&format!("standard output can't be written: {error}"));
            Exit::Failed.into()
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    let file = global.config.as_deref();
    if file.is_some() && !command.is_configured() {
        output::error("this command reads no configuration: leave out --config. Clients take --server and --token");
        return Ok(Exit::Usage);
    }
    match command {
        Command::Demo { exit, port } => {
            let settings = Settings::read(file, port_flag(port))?;
            crate::demo::run(&settings, exit).await
        }
        Command::Dev { port, data, token } => {
            let settings = Settings::read(file, [port_flag(port), data_flag(data)].concat())?;
            crate::dev::run(&settings, token).await
        }
        Command::Serve { listen } => crate::serve::run(&Settings::read(file, listen_flag("api.listen", listen))?).await,
        Command::Participant { names, listen } => {
            let settings = Settings::read(file, listen_flag("participants.listen", listen))?;
            crate::participant::run(&settings, &names).await
        }
        Command::Providers { listen } => {
            owner::providers(&Settings::read(file, listen_flag("providers.listen", listen))?).await
        }
        Command::Migrate { data, owners } => owner::migrate(&Settings::read(file, data_flag(data.dir))?, &owners).await,
        Command::Seed { data, slots } => owner::seed(&Settings::read(file, data_flag(data.dir))?, slots).await,
        Command::Audit { data, saga } => {
            owner::audit(&Settings::read(file, data_flag(data.dir))?, saga, global.output).await
        }
        Command::Sagas(sagas) => sagas.run(global.output).await,
        Command::DeadLetters(letters) => letters.run(global.output).await,
        Command::Definitions(definitions) => definitions.run(&Settings::read(file, Flags::new())?, global.output),
        Command::Config => {
            output::text(crate::settings::DEFAULTS);
            Ok(Exit::Done)
        }
    }
}

fn listen_flag(key: &'static str, address: Option<SocketAddr>) -> Flags {
    address.map(|address| (key, config::Value::from(address.to_string()))).into_iter().collect()
}

fn port_flag(port: Option<u16>) -> Flags {
    port.map(|port| ("api.listen", config::Value::from(format!("127.0.0.1:{port}")))).into_iter().collect()
}

fn data_flag(dir: Option<PathBuf>) -> Flags {
    dir.map(|dir| ("data.dir", config::Value::from(dir.display().to_string()))).into_iter().collect()
}
