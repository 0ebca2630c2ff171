//! One batch is with the store, the next is being put together: commits are held, so that every moment of it is forced.

mod support;

use std::time::Duration;

use orchestrator::{Engine, OperateRequest, Operated, Options, StartAnswer};
use saga_core::Action;
use saga_store::{Fault, Filter, Store};
use support::{LIMIT, World, request};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

const STEPS: [&str; 4] = ["booking", "payment", "confirmation", "notify"];

async fn world() -> World {
    World::new(&STEPS, Options { workers: 1, ..Options::default() }).await
}

type Starts = JoinSet<(Uuid, bool)>;

/// Starts a saga: which it is, and whether an equal request had started it before.
fn start(starts: &mut Starts, engine: &Engine, key: &'static str) {
    let engine = engine.clone();
    starts.spawn(async move {
        match engine.begin(request(key)).await.expect("an answer") {
            StartAnswer::Started(started) => (started.snapshot.header.id, started.replayed),
            other => panic!("{other:?}"),
        }
    });
}

/// Waits until so many sagas were decided to be born, which is before they are.
async fn decided(world: &World, sagas: usize) {
    testkit::eventually(LIMIT, "decided", async || match world.engine.held().waits {
        waits if waits == sagas => Ok(()),
        waits => Err(format!("{waits} are")),
    })
    .await;
}

/// One start is with the store, which does not answer, and two more are decided.
async fn one_under_way_and_two_decided(world: &World) -> Starts {
    world.store.hold_commits(true);
    let mut starts = Starts::new();
    start(&mut starts, &world.engine, "one");
    decided(world, 1).await;
    start(&mut starts, &world.engine, "two");
    start(&mut starts, &world.engine, "three");
    decided(world, 3).await;
    starts
}

/// All three are born, each once.
async fn all_are_born(world: &World, starts: Starts) {
    world.store.hold_commits(false);
    let mut born = timeout(LIMIT, starts.join_all()).await.expect("answers in time");
    assert!(born.iter().all(|(_, replayed)| !replayed));
    born.sort_unstable();
    let filter = Filter { tenant: "default".to_owned(), ..Filter::default() };
    let mut listed: Vec<Uuid> =
        world.store.list(&filter, 10).await.expect("readable").into_iter().map(|summary| summary.header.id).collect();
    listed.sort_unstable();
    assert_eq!(listed, born.iter().map(|(id, _)| *id).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_decided_while_one_is_with_the_store() {
    let world = world().await;
    let mut starts = one_under_way_and_two_decided(&world).await;
    assert!(timeout(Duration::from_secs(1), starts.join_next()).await.is_err(), "nothing is told before its commit");
    all_are_born(&world, starts).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_takes_nobody_along() {
    for fault in [Fault::Unavailable, Fault::Refused, Fault::DroppedUnknown] {
        let world = world().await;
        world.store.fail_next(fault);
        let starts = one_under_way_and_two_decided(&world).await;
        all_are_born(&world, starts).await;
        assert_eq!(world.store.fired(fault), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_long_ago_is_decided_again() {
    let world = world().await;
    let starts = one_under_way_and_two_decided(&world).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let released = world.store.load(&[]).await.expect("the time").now;
    all_are_born(&world, starts).await;
    let filter = Filter { tenant: "default".to_owned(), ..Filter::default() };
    let listed = world.store.list(&filter, 10).await.expect("readable");
    let later = listed.iter().filter(|summary| summary.header.created_at >= released).count();
    assert_eq!(later, 2, "their timeouts would have run for five seconds");
}

/// Time is lost with the store's refusal, not with the commit itself: what was refused is tried again while the others wait.
#[tokio::test(start_paused = true)]
async fn what_waited_while_others_were_tried_again_is_decided_again() {
    let world = world().await;
    world.store.fail_next(Fault::Refused);
    let starts = one_under_way_and_two_decided(&world).await;
    world.store.hold_commits(false);
    while world.store.fired(Fault::Refused) == 0 {
        tokio::task::yield_now().await;
    }
    world.store.hold_commits(true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let released = world.store.load(&[]).await.expect("the time").now;
    all_are_born(&world, starts).await;
    let filter = Filter { tenant: "default".to_owned(), ..Filter::default() };
    let listed = world.store.list(&filter, 10).await.expect("readable");
    let later = listed.iter().filter(|summary| summary.header.created_at >= released).count();
    assert_eq!(later, 2, "their timeouts would have run for five seconds");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_batch_with_the_store_is_decided_after_it() {
    let world = world().await;
    world.store.hold_commits(true);
    let mut starts = Starts::new();
    start(&mut starts, &world.engine, "one");
    decided(&world, 1).await;
    start(&mut starts, &world.engine, "one");
    start(&mut starts, &world.engine, "two");
    decided(&world, 2).await;
    world.store.hold_commits(false);
    let mut born = timeout(LIMIT, starts.join_all()).await.expect("answers in time");
    born.sort_unstable();
    let again: Vec<_> = born.iter().filter(|(_, replayed)| *replayed).collect();
    assert_eq!(again.len(), 1, "{born:?}");
    assert_eq!(born.iter().filter(|(id, _)| *id == again[0].0).count(), 2, "{born:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_on_a_saga_under_way_finds_what_was_committed() {
    let world = world().await;
    let mut starts = Starts::new();
    start(&mut starts, &world.engine, "one");
    let (saga_id, _) = starts.join_next().await.expect("one").expect("an answer");
    world.store.hold_commits(true);
    let operate = |key: &'static str, expected_version| {
        let engine = world.engine.clone();
        let request = OperateRequest {
            saga_id,
            principal: "desk".to_owned(),
            actor: "admin:desk".to_owned(),
            idempotency_key: key.to_owned(),
            expected_version,
            reason: "a test".to_owned(),
            action: Action::Cancel,
        };
        async move { engine.operate(request).await.expect("an answer") }
    };
    let mut asked = JoinSet::new();
    asked.spawn(operate("first", Some(1)));
    assert!(timeout(Duration::from_secs(1), asked.join_next()).await.is_err());
    asked.spawn(operate("second", Some(1)));
    assert!(
        timeout(Duration::from_secs(1), asked.join_next()).await.is_err(),
        "it was decided on what was there before"
    );
    world.store.hold_commits(false);
    let answers = timeout(LIMIT, asked.join_all()).await.expect("answers in time");
    let count = |wanted: fn(&Operated) -> bool| answers.iter().filter(|answer| wanted(answer)).count();
    assert_eq!(count(|answer| matches!(answer, Operated::Applied { .. })), 1, "{answers:?}");
    assert_eq!(count(|answer| matches!(answer, Operated::Refused { .. })), 1, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_with_the_store_at_shutdown_is_told() {
    let world = world().await;
    let starts = one_under_way_and_two_decided(&world).await;
    let World { tasks, store, transport: _transport, engine: _engine } = world;
    let stopping = tasks.clone();
    let mut stopped = JoinSet::new();
    stopped.spawn(async move { stopping.shutdown(Duration::from_secs(60)).await });
    assert!(timeout(Duration::from_secs(1), stopped.join_next()).await.is_err());
    store.hold_commits(false);
    assert_eq!(timeout(LIMIT, starts.join_all()).await.expect("answers in time").len(), 3);
    assert_eq!(stopped.join_all().await, [0], "no task is left");
}
