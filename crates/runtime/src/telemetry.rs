//! Logs: set up once, by the binary.
//!
//! Not for metrics. Must hold: logs go to standard error, because standard output belongs to the command's answer;
//! no personal data is logged, which is the duty of whoever logs.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Error;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Pretty,
    /// For machines: a JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directives such as `info,sqlx=warn`.
    pub filter: String,
    /// How a line looks.
    pub format: Format,
    /// Whether lines for people are coloured.
    pub colour: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Pretty, colour: false }
    }
}

/// The AMQP library logs the whole body of a message that comes back, with all personal data in it.
const NEVER: &str = "lapin::returned_messages=off";

/// Sets up the process's logs. Nothing that the filter says brings personal data into them.
///
/// # Errors
/// When the filter has a wrong directive or logs are set up already.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = EnvFilter::builder().parse(&options.filter).map_err(Error::LogFilter)?;
    let filter = filter.add_directive(NEVER.parse().map_err(Error::LogFilter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(options.colour);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match options.format {
        Format::Pretty => registry.with(lines).try_init(),
        // Colour codes would end up inside the JSON text.
        Format::Json => registry.with(lines.with_ansi(false).json()).try_init(),
    };
    installed.map_err(Error::LogTwice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_and_logs_are_set_up_once() {
        let wrong = Options { filter: "info,=nonsense=".to_owned(), ..Options::default() };
        assert!(matches!(init(&wrong), Err(Error::LogFilter(_))));
        let json = Options { filter: "trace,lapin=trace".to_owned(), format: Format::Json, ..Options::default() };
        init(&json).unwrap();
        assert!(matches!(init(&json), Err(Error::LogTwice(_))));
        assert!(tracing::enabled!(target: "lapin::channel", tracing::Level::WARN));
        assert!(!tracing::enabled!(target: "lapin::returned_messages", tracing::Level::ERROR));
    }
}
