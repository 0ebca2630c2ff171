//! Where metrics are collected.
//!
//! Not for naming metrics: each part names its own, beginning with `bookend_`. Must hold: one recorder per process;
//! no listener of its own, an HTTP route renders it; no label holds an id or personal data.

use std::fmt;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{Error, Tasks};

/// Buckets of everything measured in seconds: from a commit to a saga that waited for a retry.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// Histograms gather samples until somebody asks; this often at the latest they are put into buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's metrics.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Installs the recorder of this process and keeps its memory bounded until `tasks` stop.
    ///
    /// # Errors
    /// When one is installed already.
    pub fn install(tasks: &Tasks) -> Result<Self, Error> {
        let handle = builder()?.install_recorder().map_err(Error::Metrics)?;
        let (upkeep, stop) = (handle.clone(), tasks.clone());
        tasks.spawn(async move {
            while stop.sleep(UPKEEP).await {
                upkeep.run_upkeep();
            }
        });
        Ok(Self(handle))
    }

    /// A recorder that nothing records into, for a router in a test.
    #[must_use]
    pub fn unshared() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// All metrics as Prometheus reads them.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

fn builder() -> Result<PrometheusBuilder, Error> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS).map_err(Error::Metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_buckets() {
        let recorder = builder().unwrap().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            ::metrics::histogram!("bookend_test_seconds").record(0.003);
            ::metrics::counter!("bookend_test_total").increment(2);
        });
        let text = Recorder(recorder.handle()).render();
        assert!(text.contains("bookend_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("bookend_test_total 2"), "{text}");
    }

    #[tokio::test]
    async fn a_second_recorder_is_refused() {
        let tasks = Tasks::new();
        Recorder::install(&tasks).unwrap();
        assert!(matches!(Recorder::install(&tasks), Err(Error::Metrics(_))));
        assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, 0);
    }
}
