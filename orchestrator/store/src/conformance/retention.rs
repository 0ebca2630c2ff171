//! Ended sagas are found, announced and deleted; nothing else is.

use std::collections::BTreeSet;
use std::sync::Arc;

use runtime::Clock;
use saga_core::state::{Cause, Stuck};
use saga_defs::{Ended, Timestamp, Verb, message};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::world::World;
use crate::{LateReason, LateReply, Leaving, OutboxMessage, Outcome, Transition};

const ERRAND: (&str, u32) = ("errand", 3);

/// Sagas that ended one after the other, a second apart, with an empty outbox; their starts.
async fn ended(world: &World, count: usize) -> Vec<Transition> {
    let mut starts = Vec::new();
    for _ in 0..count {
        let start = world.started_one().await;
        world.win(&[world.refuse(&start)]).await;
        world.clock.pass(1_000);
        starts.push(start);
    }
    confirm_all(world).await;
    starts
}

fn ids(starts: &[Transition]) -> Vec<Uuid> {
    starts.iter().map(|start| start.header.id).collect()
}

fn leaving(ids: &[Uuid], participants: &[&str]) -> Vec<Leaving> {
    let participants: BTreeSet<String> = participants.iter().map(|name| (*name).to_owned()).collect();
    ids.iter().map(|id| Leaving { saga_id: *id, participants: participants.clone() }).collect()
}

async fn confirm_all(world: &World) {
    world.clock.pass(1_000);
    let rows: Vec<Uuid> = world.claim(1_000, 1).await.iter().map(|row| row.id).collect();
    world.store.confirm_outbox(&rows).await.expect("the store confirms");
}

async fn found(world: &World, ended_by: Timestamp, limit: u64) -> Vec<Uuid> {
    world.store.ended(ERRAND, ended_by, &[], limit).await.expect("the store looks")
}

async fn announce(world: &World, leaving: &[Leaving]) -> BTreeSet<Uuid> {
    let marked = world.store.announce_ended(world.id(), leaving).await.expect("the store announces");
    marked.into_iter().collect()
}

async fn departures(world: &World) -> Vec<Uuid> {
    let mut claimed = world.store.claim_departures(100, 1_000).await.expect("the store claims");
    claimed.sort_unstable();
    claimed
}

async fn delete(world: &World, ids: &[Uuid]) -> u64 {
    world.store.delete_departed(ids).await.expect("the store deletes")
}

fn told(messages: &[OutboxMessage]) -> Vec<Ended> {
    messages.iter().map(|one| message::read(&one.body).expect("an announcement")).collect()
}

pub(super) async fn ended_sagas_are_found_by_definition_and_age(world: &World) {
    let began = world.clock.now();
    let all = ids(&ended(world, 5).await);
    let now = world.clock.now();
    assert_eq!(found(world, now, 100).await, all);
    assert_eq!(found(world, now, 2).await, all[..2]);
    assert_eq!(found(world, began.plus_ms(2_000), 100).await, all[..3], "to the very instant");
    assert!(found(world, Timestamp(began.0 - 1), 100).await.is_empty());
    for other in [("errand", 2), ("errands", 3)] {
        assert!(world.store.ended(other, now, &[], 100).await.expect("the store looks").is_empty());
    }
}

pub(super) async fn what_is_open_stuck_or_contradicted_stays(world: &World) {
    let open = world.started_one().await;
    let mut stuck = world.bump(&world.started_one().await);
    Arc::make_mut(&mut stuck.saga).stuck = Some(Stuck {
        cause: Cause::ContractViolation,
        since: world.clock.now(),
        step: "here".to_owned(),
        verb: Verb::Execute,
        message: String::new(),
    });
    world.win(std::slice::from_ref(&stuck)).await;
    let contradicted = ids(&ended(world, 1).await)[0];
    let reply = |saga_id, reason| LateReply {
        saga_id,
        command_id: world.id(),
        reason,
        reply: "{}".to_owned(),
        received_at: world.clock.now(),
    };
    let over = ids(&ended(world, 1).await)[0];
    let late = [reply(contradicted, LateReason::Contradiction), reply(over, LateReason::Ended)];
    world.store.keep_late(&late).await.expect("the store keeps");
    world.clock.pass(3_600_000);
    assert_eq!(found(world, world.clock.now(), 100).await, [over]);

    // Not even on the engine's word.
    let asked = leaving(&[open.header.id, stuck.header.id, world.id()], &["alpha"]);
    assert!(announce(world, &asked).await.is_empty());
    assert_eq!(delete(world, &[open.header.id, stuck.header.id, contradicted, over]).await, 0);
    for id in [open.header.id, stuck.header.id, contradicted, over] {
        assert!(world.load(id).await.is_some() && !world.history(id).await.is_empty());
    }
    assert_eq!(world.store.deleted_ended_by().await.expect("the store answers"), None);
}

pub(super) async fn an_announcement_tells_who_was_touched_and_once(world: &World) {
    let all = ids(&ended(world, 3).await);
    let mut asked = leaving(&all[..2], &["alpha", "beta"]);
    asked.extend(leaving(&all[2..], &[]));
    assert_eq!(announce(world, &asked).await, all.iter().copied().collect());
    assert!(found(world, world.clock.now(), 100).await.is_empty(), "they are on their way");
    assert!(announce(world, &asked).await.is_empty());
    let mut messages = world.claim(10, 60_000).await;
    messages.sort_by(|one, other| one.participant.cmp(&other.participant));
    assert_eq!(told(&messages), [Ended::new("alpha", &all[..2]), Ended::new("beta", &all[..2])]);
    assert_eq!(messages.iter().map(|one| one.participant.as_str()).collect::<Vec<_>>(), ["alpha", "beta"]);
    assert!(announce(world, &[]).await.is_empty());
}

pub(super) async fn a_saga_is_deleted_when_its_announcement_is_confirmed(world: &World) {
    let all = ids(&ended(world, 4).await);
    announce(world, &leaving(&all[..2], &["alpha", "beta"])).await;
    announce(world, &leaving(&all[2..3], &[])).await;
    assert_eq!(departures(world).await, all[2..3], "nobody had to be told");
    let messages = world.claim(10, 1).await;
    assert_eq!(messages.len(), 2);
    world.store.confirm_outbox(&[messages[0].id]).await.expect("the store confirms");
    world.clock.pass(1_000);
    assert_eq!(departures(world).await, all[2..3], "it was claimed, and comes again");
    assert_eq!(delete(world, &all).await, 1);
    assert!(world.load(all[0]).await.is_some() && world.load(all[2]).await.is_none());
    world.store.confirm_outbox(&[messages[1].id]).await.expect("the store confirms");
    assert_eq!(departures(world).await, all[..2]);
    assert!(departures(world).await.is_empty(), "they are claimed");
    assert_eq!(delete(world, &all).await, 2);
    assert_eq!(delete(world, &all).await, 0);
    assert!(world.load(all[3]).await.is_some(), "it was never announced");
}

pub(super) async fn a_saga_that_is_contradicted_on_its_way_out_stays(world: &World) {
    let [one, other] = *ids(&ended(world, 2).await) else { panic!("two have ended") };
    announce(world, &leaving(&[one, other], &[])).await;
    let contradiction = LateReply {
        saga_id: one,
        command_id: world.id(),
        reason: LateReason::Contradiction,
        reply: "{}".to_owned(),
        received_at: world.clock.now(),
    };
    world.store.keep_late(&[contradiction]).await.expect("the store keeps");
    assert_eq!(departures(world).await, [other]);
    assert_eq!(delete(world, &[one, other]).await, 1);
    assert!(world.load(one).await.is_some() && world.load(other).await.is_none());
    assert_eq!(world.store.late_page(one, 0, 10).await.expect("the store reads").len(), 1);
}

pub(super) async fn a_deleted_saga_leaves_its_start_key_and_nothing_else(world: &World) {
    let starts = ended(world, 2).await;
    let all = ids(&starts);
    let kept = LateReply {
        saga_id: all[0],
        command_id: world.id(),
        reason: LateReason::Ended,
        reply: "{}".to_owned(),
        received_at: world.clock.now(),
    };
    world.store.keep_late(std::slice::from_ref(&kept)).await.expect("the store keeps");
    announce(world, &leaving(&all[..1], &["alpha"])).await;
    confirm_all(world).await;
    let ended_by = world.store.ended(ERRAND, world.clock.now(), &[], 1).await.expect("the store looks");
    assert_eq!(ended_by, all[1..]);
    assert_eq!(delete(world, &departures(world).await).await, 1);
    assert!(world.load(all[0]).await.is_none() && world.history(all[0]).await.is_empty());
    assert!(world.store.late(all[0]).await.expect("the store reads").is_empty());
    let mark = world.store.deleted_ended_by().await.expect("the store answers").expect("one was deleted");
    assert_eq!(mark, starts[0].header.created_at, "it ended in the instant in which it was made");
    let again = Transition { guard: starts[0].guard.clone(), ..world.start() };
    let taken = Outcome::KeyTaken { saga_id: all[0], fingerprint: "asked".to_owned() };
    assert_eq!(world.commit_one(&again).await, taken);
    assert!(world.load(all[1]).await.is_some() && world.history(all[1]).await.len() == 2);
    // A reply that comes now is kept like any that speaks of no saga.
    world.store.keep_late(&[LateReply { reason: LateReason::Orphan, ..kept }]).await.expect("the store keeps");
    assert_eq!(world.store.late(all[0]).await.expect("the store reads").len(), 1);
}

pub(super) async fn start_keys_go_by_their_age_and_never_before_their_sagas(world: &World) {
    let starts = ended(world, 3).await;
    let all = ids(&starts);
    let delete_keys = async |by: Timestamp, limit| world.store.delete_start_keys(by, limit).await.expect("it deletes");
    world.clock.pass(3_600_000);
    assert_eq!(delete_keys(world.clock.now(), 100).await, 0, "their sagas are there");
    announce(world, &leaving(&all[..2], &[])).await;
    delete(world, &departures(world).await).await;
    assert_eq!(delete_keys(Timestamp(starts[0].header.created_at.0 - 1), 100).await, 0);
    assert_eq!(delete_keys(world.clock.now(), 1).await, 1, "the oldest first");
    let again = |n: usize| Transition { guard: starts[n].guard.clone(), ..world.start() };
    assert_eq!(world.commit_one(&again(0)).await, Outcome::Committed);
    assert!(matches!(world.commit_one(&again(1)).await, Outcome::KeyTaken { .. }));
    assert_eq!(delete_keys(world.clock.now(), 100).await, 1);
    assert!(matches!(world.commit_one(&again(2)).await, Outcome::KeyTaken { .. }));
}

pub(super) async fn of_two_who_announce_one_does(world: &World) {
    let all = ids(&ended(world, 20).await);
    let barrier = Arc::new(Barrier::new(2));
    let mut parties = JoinSet::new();
    for reversed in [false, true] {
        let (store, barrier, batch) = (Arc::clone(&world.store), Arc::clone(&barrier), world.id());
        let mut asked = leaving(&all, &["alpha"]);
        if reversed {
            asked.reverse();
        }
        parties.spawn(async move {
            barrier.wait().await;
            store.announce_ended(batch, &asked).await.expect("the store announces")
        });
    }
    let mut marked = parties.join_all().await.concat();
    marked.sort_unstable();
    assert_eq!(marked, all);
    let mut heard: Vec<Uuid> = told(&world.claim(10, 1).await).into_iter().flat_map(|told| told.ended).collect();
    heard.sort_unstable();
    assert_eq!(heard, all, "each is told of once");
}

pub(super) async fn late_replies_are_paged(world: &World) {
    let saga_id = world.started_one().await.header.id;
    let reply = |_| LateReply {
        saga_id,
        command_id: world.id(),
        reason: LateReason::Ended,
        reply: "{}".to_owned(),
        received_at: world.clock.now(),
    };
    let all: Vec<LateReply> = (0..300).map(reply).collect();
    world.store.keep_late(&all).await.expect("the store keeps");
    let page = async |skip, limit| world.store.late_page(saga_id, skip, limit).await.expect("the store reads");
    let paged = [page(0, 200).await, page(200, 200).await, page(300, 200).await].concat();
    assert_eq!(paged, all);
}
