//! Claims of sagas that are due.

use uuid::Uuid;

use super::world::{TIMEOUT_MS, World};

pub(super) async fn a_due_saga_is_claimed_without_a_new_version(world: &World) {
    let start = world.started_one().await;
    let id = start.header.id;
    world.clock.pass(TIMEOUT_MS - 1);
    assert!(world.claim_timers(10, 500).await.is_empty());
    world.clock.pass(1);
    assert_eq!(world.claim_timers(10, 500).await, [id]);
    assert!(world.claim_timers(10, 500).await.is_empty());
    world.clock.pass(500);
    assert_eq!(world.claim_timers(10, 500).await, [id]);
    assert_eq!(world.state(id).await, start.saga);
    world.win(&[world.succeed(&start)]).await;
}

pub(super) async fn a_timer_is_rearmed_only_at_its_version(world: &World) {
    let start = world.started_one().await;
    let id = start.header.id;
    world.clock.pass(TIMEOUT_MS);
    let now = world.store.load(&[]).await.expect("the store loads").now;
    assert_eq!(world.claim_timers(10, 60_000).await, [id]);
    let rearm = async |version, ms| {
        world.store.rearm_timers(&[(id, version, now.plus_ms(ms))]).await.expect("the store rearms");
    };
    rearm(2, 0).await;
    assert!(world.claim_timers(10, 60_000).await.is_empty(), "another version");
    rearm(1, 20).await;
    assert!(world.claim_timers(10, 60_000).await.is_empty());
    world.clock.pass(20);
    assert_eq!(world.claim_timers(10, 60_000).await, [id]);
    world.store.rearm_timers(&[]).await.expect("nothing to rearm is no error");

    let end = world.refuse(&start);
    world.win(&[end]).await;
    rearm(2, 0).await;
    assert!(world.claim_timers(10, 60_000).await.is_empty(), "an ended saga has no timer");
}

pub(super) async fn a_commit_pulls_the_timer_nearer_or_takes_it_away(world: &World) {
    let started = world.started(3).await;
    let ids = [0, 1, 2].map(|n: usize| started[n].header.id);
    world.clock.pass(TIMEOUT_MS / 2);
    let (goes_on, ends) = (world.succeed(&started[0]), world.refuse(&started[1]));
    world.win(&[goes_on, ends]).await;
    assert!(world.claim_timers(10, 500).await.is_empty());
    world.clock.pass(TIMEOUT_MS / 2);
    // The first is not due before another half. It is looked at all the same, and set again.
    let mut early = world.claim_timers(10, 10 * TIMEOUT_MS).await;
    early.sort_unstable();
    assert_eq!(early, [ids[0], ids[2]]);
    // A claim has pushed it far ahead; what a commit wants sooner comes sooner.
    world.win(&[world.succeed(&started[2])]).await;
    assert!(world.claim_timers(10, 500).await.is_empty());
    world.clock.pass(TIMEOUT_MS);
    assert_eq!(world.claim_timers(10, 500).await, [ids[2]]);
}

pub(super) async fn the_longest_due_are_claimed_first(world: &World) {
    let mut ids: Vec<Uuid> = Vec::new();
    for _ in 0..5 {
        ids.push(world.started_one().await.header.id);
        world.clock.pass(10);
    }
    world.clock.pass(TIMEOUT_MS);
    let mut claimed = Vec::new();
    for expected in [2, 2, 1, 0] {
        let mut page = world.claim_timers(2, 60_000).await;
        assert_eq!(page.len(), expected);
        page.sort_unstable();
        claimed.extend(page);
    }
    assert_eq!(claimed, ids);
}
