//! Two instances that commit at the same time.

use std::sync::Arc;

use saga_store::{Error, Guard, Outcome, Store};
use uuid::Uuid;

use crate::world::{World, outcome, version};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn two_that_name_the_same_sagas_in_opposite_order_never_wait_in_a_circle() {
    let world = World::new().await;
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    let started = world.started(&one, 2).await;
    let next: Vec<_> = started.iter().map(|last| world.next(last)).collect();
    let reversed: Vec<_> = next.iter().rev().cloned().collect();

    let mut holder = world.holder().await;
    holder.lock("sagas", &[started[1].header.id]).await;
    let first = world.begin(&one, &next);
    holder.waits("one", 1).await;
    let second = world.begin(&other, &reversed);
    holder.waits("other", 1).await;
    // Both want the older saga first: the second waits for the first, and holds nothing that it needs.
    assert!(holder.waits_for("other", "one").await);
    holder.roll_back().await;

    assert_eq!(outcome(first).await.unwrap(), [Outcome::Committed, Outcome::Committed]);
    assert_eq!(outcome(second).await.unwrap(), [Outcome::Lost, Outcome::Lost]);
    for next in &next {
        assert_eq!(version(&one, next.header.id).await, Some(next.saga.version));
    }
    let mut holder = world.holder().await;
    assert_eq!(holder.count("history where seq = 2").await, 2);
    assert_eq!(holder.count("outbox").await, 2, "of the starts and of the winner");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn who_wins_is_asked_only_once_somebody_loses() {
    let world = World::new().await;
    let one = world.instance("one").await;
    let mut holder = world.holder().await;
    // What a session ran last, as far as the server shows it: the longer statement goes around a fate that is decided.
    let sessions = format!("pg_stat_activity where application_name = '{}'", world.application("one"));
    let asked = format!("{sessions} and query like '%commit_fates%on conflict do nothing%'");
    let started = world.started(&one, 2).await;
    let next: Vec<_> = started.iter().map(|last| world.next(last)).collect();
    assert_eq!(world.commit(&one, &next).await, [Outcome::Committed, Outcome::Committed]);
    assert_eq!(holder.count(&asked).await, 0);
    assert!(holder.count(&format!("{sessions} and query like '%commit_fates%'")).await > 0);

    assert_eq!(world.commit(&one, &[next[0].clone(), world.start()]).await, [Outcome::Lost, Outcome::Committed]);
    assert!(holder.count(&asked).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_timer_that_is_set_meanwhile_makes_nobody_lose() {
    let world = World::new().await;
    let one = world.instance("one").await;
    let start = world.started(&one, 1).await.remove(0);
    let mut holder = world.holder().await;
    holder.run("update sagas set wake_at = wake_at + 1").await;
    let commit = world.begin(&one, &[world.next(&start)]);
    holder.waits("one", 1).await;
    holder.commit().await;
    assert_eq!(outcome(commit).await.unwrap(), [Outcome::Committed]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_poisonous_item_spoils_its_batch_and_nothing_else() {
    let world = World::new().await;
    let one = world.instance("one").await;
    let started = world.started(&one, 2).await;
    let mut holder = world.holder().await;
    let before = holder.rows().await;
    let (innocent, mut taken, fresh) = (world.next(&started[0]), world.next(&started[1]), world.start());
    taken.history[0].seq = 1;
    let mut zero = world.start();
    Arc::make_mut(&mut zero.header).principal = "\0".to_owned();
    for guilty in [taken, zero] {
        let batch = world.batch(&[innocent.clone(), guilty, fresh.clone()]);
        let error = one.commit(batch.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Bug(_)), "{error:?}");
        assert_eq!(holder.rows().await, before);
        assert_eq!(one.committed(batch.commit_id, &batch.ids()).await.unwrap(), Vec::<Uuid>::new());
    }
    assert_eq!(world.commit(&one, &[innocent, fresh]).await, [Outcome::Committed, Outcome::Committed]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_lock_that_is_never_given_back_is_no_reason_to_wait_for_ever() {
    let world = World::new().await;
    let usual = db::PostgresOptions::new(world.schemas.url(), world.schema());
    let one = saga_store::SqlStore::new(db::Db::open_postgres(&usual).await.unwrap());
    let start = world.started(&one, 1).await.remove(0);
    let mut holder = world.holder().await;
    holder.lock("sagas", &[start.header.id]).await;
    let error = one.commit(world.batch(&[world.next(&start)])).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    holder.roll_back().await;
    assert_eq!(world.commit(&one, &[world.next(&start)]).await, [Outcome::Committed]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_commit_that_loses_sends_nothing() {
    let world = World::new().await;
    let one = world.instance("one").await;
    let started = world.started(&one, 3).await;
    let mut next: Vec<_> = started.iter().map(|last| world.next(last)).collect();
    next[1].guard = Guard::Version(9);
    let committed = one.commit(world.batch(&next)).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Committed, Outcome::Lost, Outcome::Committed]);
    world.clock.pass(1_000);
    let stored = one.claim_outbox(10, 1).await.unwrap();
    let stored: Vec<_> = stored.iter().filter(|row| committed.messages.iter().any(|sent| sent.id == row.id)).collect();
    assert_eq!((stored.len(), committed.messages.len()), (1, 1));
    for (stored, sent) in stored.iter().zip(&committed.messages) {
        assert!(stored.body == sent.body && stored.participant == sent.participant, "the outbox has other bytes");
        assert!(!sent.body.contains(&started[1].header.id.to_string()));
    }
}
