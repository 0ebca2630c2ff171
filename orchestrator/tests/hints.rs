//! Hints that are not true, in paused time: whoever waits looks, and not without a pause.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::time::Duration;

use orchestrator::{Options, StartAnswer};
use saga_core::Status;
use support::{LIMIT, World, request};
use tokio::time::timeout;
use transport::Transport as _;

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_ahead_of_the_row_keeps_nobody_busy() {
    let World { engine, store: _store, transport, tasks: _tasks } = World::new(&["booking"], Options::default()).await;
    let StartAnswer::Started(started) = engine.begin(request("one")).await.unwrap() else { panic!("not started") };
    let saga_id = started.snapshot.header.id;
    drop(started);
    let mut waiting = Box::pin(engine.wait(saga_id, Duration::from_secs(2)));
    assert!(timeout(Duration::from_millis(10), &mut waiting).await.is_err());
    // Time stands still while anybody is busy.
    transport.publisher().hint(&format!(r#"[["{saga_id}", 1000]]"#));
    let running = timeout(LIMIT, waiting).await.expect("it ends within its limit").unwrap().unwrap();
    assert_eq!(running.saga.status(), Status::Running);
}
