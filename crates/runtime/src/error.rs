//! What can go wrong while the surroundings are set up.

/// Why a part of the surroundings could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another metrics recorder is installed, or a metric's buckets are wrong.
    #[error("the metrics recorder can't be installed")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// The log filter has a wrong directive.
    #[error("the log filter is not valid")]
    LogFilter(#[source] tracing_subscriber::filter::ParseError),
    /// Logging was set up before.
    #[error("logging is set up already")]
    LogTwice(#[source] tracing_subscriber::util::TryInitError),
}
