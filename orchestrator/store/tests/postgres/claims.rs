//! Instances that claim at the same time as others hold rows.

use std::collections::BTreeSet;

use saga_store::{State, Store};
use uuid::Uuid;

use crate::world::{LATER_MS, World};

const SAGAS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_claim_of_messages_passes_by_what_others_hold() {
    let world = World::new().await;
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    for start in (0..SAGAS).map(|_| world.start()) {
        world.commit(&one, &[start]).await;
    }
    world.clock.pass(1_000);
    let all: Vec<Uuid> = one.claim_outbox(100, 0).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(all.len(), SAGAS);
    let (held, free) = all.split_at(2);

    let mut holder = world.holder().await;
    holder.lock("outbox", held).await;
    let half = one.claim_outbox(free.len() as u64 - 1, 60_000).await.unwrap();
    let rest = other.claim_outbox(100, 60_000).await.unwrap();
    let claimed: Vec<Uuid> = half.iter().chain(&rest).map(|row| row.id).collect();
    assert_eq!(claimed.len(), free.len(), "none twice");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), free.iter().copied().collect());
    holder.roll_back().await;

    let late: BTreeSet<Uuid> = other.claim_outbox(100, 60_000).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(late, held.iter().copied().collect());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_claim_of_timers_passes_by_what_others_hold() {
    let world = World::new().await;
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    let ids: Vec<Uuid> = world.started(&one, SAGAS).await.iter().map(|start| start.header.id).collect();
    world.clock.pass(LATER_MS);
    let mut holder = world.holder().await;
    holder.lock("sagas", &ids[..2]).await;
    let first = one.claim_timers(1, 60_000).await.unwrap();
    let rest = other.claim_timers(100, 60_000).await.unwrap();
    assert_eq!(first.len() + rest.len(), SAGAS - 2);
    assert_eq!(first.iter().chain(&rest).copied().collect::<BTreeSet<_>>(), ids[2..].iter().copied().collect());
    holder.roll_back().await;
    assert_eq!(one.claim_timers(100, 60_000).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn two_that_push_and_confirm_the_same_messages_never_wait_in_a_circle() {
    let world = World::new().await;
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    for start in (0..2).map(|_| world.start()) {
        world.commit(&one, &[start]).await;
    }
    world.clock.pass(1_000);
    let mut ids: Vec<Uuid> = one.claim_outbox(100, 0).await.unwrap().iter().map(|row| row.id).collect();
    ids.sort_unstable();
    let reversed: Vec<Uuid> = ids.iter().rev().copied().collect();
    let mut holder = world.holder().await;
    holder.lock("outbox", &ids[1..]).await;
    let extend = one.extend_outbox(&ids, 60_000);
    let look = async {
        holder.waits("one", 1).await;
        let confirm = other.confirm_outbox(&reversed);
        let look = async {
            holder.waits("other", 1).await;
            assert!(holder.waits_for("other", "one").await);
            holder.roll_back().await;
        };
        let (confirmed, ()) = tokio::join!(confirm, look);
        confirmed.unwrap();
    };
    let (extended, ()) = tokio::join!(extend, look);
    extended.unwrap();
    assert_eq!(one.outbox_load().await.unwrap().rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn builds_of_two_formats_leave_each_other_s_sagas_alone() {
    let world = World::new().await;
    let old = world.instance("old").await;
    let new = world.instance("new").await.with_format(saga_core::FORMAT + 1);
    let of_old = world.started(&old, 1).await.remove(0).header.id;
    let of_new = world.started(&new, 1).await.remove(0).header.id;
    world.clock.pass(LATER_MS);
    let seen = old.load(&[of_old, of_new]).await.unwrap().sagas;
    assert!(matches!(seen[&of_old].state, State::Known(_)));
    assert_eq!(seen[&of_new].state, State::Foreign(saga_core::FORMAT + 1));
    assert_eq!(old.claim_timers(10, 60_000).await.unwrap(), [of_old]);
    assert_eq!(new.claim_timers(10, 60_000).await.unwrap(), [of_new]);
}
