//! The breaker's states. Open periods are either short or endless: its clock can't be moved.

use tokio::sync::oneshot;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const ENDLESS: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(20);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("down")]
    Down,
    #[error("declined")]
    Declined,
}

fn breaker(open_period: Duration) -> Breaker {
    Breaker::new(Options { name: "test", failures_to_open: 2, open_period, call_timeout: Duration::from_secs(1) })
}

async fn call(breaker: &Breaker, call: impl Future<Output = Result<(), Trouble>>) -> Result<(), BreakerError<Trouble>> {
    breaker.call(|error| *error == Trouble::Down, call).await
}

async fn answer(breaker: &Breaker, result: Result<(), Trouble>) -> Result<(), BreakerError<Trouble>> {
    call(breaker, std::future::ready(result)).await
}

async fn open(breaker: &Breaker) {
    for _ in 0..2 {
        assert_eq!(answer(breaker, Err(Trouble::Down)).await, Err(BreakerError::Call(Trouble::Down)));
    }
    assert_eq!(breaker.state(), State::Open);
}

/// Waits until the open period is over and holds the one call that is let through.
async fn probing(breaker: &Breaker) -> (impl Future<Output = Result<(), BreakerError<Trouble>>> + use<>, Answer) {
    testkit::eventually(LIMIT, "the breaker admits a call", async || {
        // Admitted and dropped: counts as nothing.
        breaker.admit().map(drop).ok_or_else(|| format!("{:?}", breaker.state()))
    })
    .await;
    assert_eq!(breaker.state(), State::HalfOpen);
    let (tell, told) = oneshot::channel();
    let breaker = breaker.clone();
    let probe = async move { call(&breaker, async { told.await.expect("answered") }).await };
    (probe, tell)
}

type Answer = oneshot::Sender<Result<(), Trouble>>;

/// Polls once.
async fn begin<F: Future + Unpin>(future: &mut F) {
    assert!(futures_util::future::poll_immediate(future).await.is_none(), "the call is under way");
}

#[tokio::test]
async fn failures_in_a_row_open_it_and_calls_are_rejected() {
    let breaker = breaker(ENDLESS);
    assert_eq!(answer(&breaker, Err(Trouble::Down)).await, Err(BreakerError::Call(Trouble::Down)));
    assert_eq!(answer(&breaker, Ok(())).await, Ok(()));
    open(&breaker).await;
    let untouched = async { panic!("an open breaker makes no call") };
    assert_eq!(call(&breaker, untouched).await, Err(BreakerError::Open));
}

#[tokio::test]
async fn an_answer_that_is_no_outage_does_not_count() {
    let breaker = breaker(ENDLESS);
    for _ in 0..10 {
        assert_eq!(answer(&breaker, Err(Trouble::Declined)).await, Err(BreakerError::Call(Trouble::Declined)));
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_as_a_failure() {
    let breaker = breaker(ENDLESS);
    for _ in 0..2 {
        assert_eq!(call(&breaker, std::future::pending()).await, Err(BreakerError::TimedOut));
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test]
async fn half_open_lets_one_call_through_and_its_success_closes() {
    let breaker = breaker(SHORT);
    open(&breaker).await;
    let (probe, tell) = probing(&breaker).await;
    let mut probe = Box::pin(probe);
    begin(&mut probe).await;
    assert_eq!(answer(&breaker, Ok(())).await, Err(BreakerError::Open));
    tell.send(Ok(())).unwrap();
    assert_eq!(probe.await, Ok(()));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(answer(&breaker, Ok(())).await, Ok(()));
}

#[tokio::test]
async fn a_failing_probe_opens_again() {
    let breaker = breaker(SHORT);
    open(&breaker).await;
    let (probe, tell) = probing(&breaker).await;
    tell.send(Err(Trouble::Down)).unwrap();
    assert_eq!(probe.await, Err(BreakerError::Call(Trouble::Down)));
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test]
async fn a_dropped_probe_leaves_the_way_free() {
    let breaker = breaker(SHORT);
    open(&breaker).await;
    let (probe, _tell) = probing(&breaker).await;
    let mut probe = Box::pin(probe);
    begin(&mut probe).await;
    drop(probe);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(answer(&breaker, Ok(())).await, Ok(()));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn a_late_success_from_before_the_outage_does_not_close() {
    let breaker = breaker(SHORT);
    let (tell, told) = oneshot::channel();
    let early = breaker.clone();
    let mut early = Box::pin(async move { call(&early, async { told.await.expect("answered") }).await });
    begin(&mut early).await;
    open(&breaker).await;
    let (probe, _tell) = probing(&breaker).await;
    tell.send(Ok(())).unwrap();
    assert_eq!(early.await, Ok(()));
    assert_eq!(breaker.state(), State::HalfOpen);
    drop(probe);
}

#[test]
fn metrics_tell_the_state() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let breaker = breaker(ENDLESS);
        for _ in 0..2 {
            let admission = breaker.admit().unwrap();
            breaker.record(&admission, false, "failed");
        }
    });
    let text = recorder.handle().render();
    for line in [
        r#"bookend_breaker_state{breaker="test",state="open"} 1"#,
        r#"bookend_breaker_state{breaker="test",state="closed"} 0"#,
        r#"bookend_breaker_calls_total{breaker="test",result="failed"} 2"#,
        r#"bookend_breaker_transitions_total{breaker="test",to="open"} 1"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}
