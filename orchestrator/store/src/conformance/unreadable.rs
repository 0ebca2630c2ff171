//! Sagas whose rows are not what was written.

use saga_core::Status;
use saga_defs::Timestamp;
use uuid::Uuid;

use super::Part;
use super::world::{TENANT, TIMEOUT_MS, World};
use crate::{Filter, State, Transition, Unreadable};

async fn spoiled(world: &World, start: &Transition, part: Part) -> Uuid {
    world.rows.spoil(start.header.id, part).await;
    start.header.id
}

/// What is wrong with a saga; none for one that can be read.
async fn wrong(world: &World, id: Uuid) -> Option<Unreadable> {
    match world.load(id).await.expect("the saga exists").state {
        State::Unreadable(unreadable) => Some(unreadable),
        State::Known(_) => None,
        State::Foreign(format) => unreachable!("this build wrote it, and not in format {format}"),
    }
}

pub(super) async fn what_can_not_be_read_spares_its_neighbours(world: &World) {
    let started = world.started(3).await;
    let ids: Vec<Uuid> = started.iter().map(|start| start.header.id).collect();
    spoiled(world, &started[0], Part::State).await;
    spoiled(world, &started[1], Part::Input).await;
    let mut loaded = world.store.load(&ids).await.expect("the others can be read").sagas;
    assert_eq!(loaded.len(), 3);
    for (start, part) in started.iter().zip(["state", "input"]) {
        let stored = loaded.remove(&start.header.id).expect("it exists");
        let State::Unreadable(Unreadable { version, why }) = stored.state else { unreachable!("it is spoiled") };
        assert_eq!((&stored.header, version), (&start.header, 1), "whose it is can be read");
        assert!(why.contains(part) && !why.contains("bread"), "{why}");
    }
    assert_eq!(loaded.remove(&ids[2]).map(|stored| stored.state), Some(State::Known(started[2].saga.clone())));
}

pub(super) async fn what_can_not_be_read_is_listed_found_and_put_off(world: &World) {
    let started = world.started(2).await;
    let id = spoiled(world, &started[0], Part::State).await;
    let ended = world.refuse(&started[1]);
    world.win(std::slice::from_ref(&ended)).await;
    spoiled(world, &ended, Part::State).await;
    let filter = Filter { tenant: TENANT.to_owned(), ..Filter::default() };
    let listed = world.store.list(&filter, 10).await.expect("a list reads columns");
    assert_eq!(listed.iter().map(|summary| summary.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(world.store.count_open().await.expect("columns are counted"), [(Status::Running, 1)]);
    assert_eq!(world.history(id).await, started[0].history);

    world.clock.pass(TIMEOUT_MS);
    assert_eq!(world.claim_timers(10, 500).await, [id]);
    let (now, version) =
        (world.store.load(&[]).await.expect("the time").now, wrong(world, id).await.map(|it| it.version));
    let wake = (id, version.expect("it can't be read"), now.plus_ms(60_000));
    world.store.rearm_timers(&[wake]).await.expect("the store rearms");
    world.clock.pass(59_999);
    assert!(world.claim_timers(10, 500).await.is_empty());
    world.clock.pass(1);
    assert_eq!(world.claim_timers(10, 500).await, [id]);
}

/// Whoever still holds the saga in memory knows better.
pub(super) async fn what_is_committed_over_it_can_be_read(world: &World) {
    let start = world.started_one().await;
    let id = spoiled(world, &start, Part::State).await;
    assert!(wrong(world, id).await.is_some());
    let next = world.succeed(&start);
    world.win(std::slice::from_ref(&next)).await;
    assert_eq!(world.state(id).await, next.saga);
}

pub(super) async fn what_is_passed_over_hides_no_other(world: &World) {
    let started = world.started(3).await;
    let mut ids = Vec::new();
    for start in &started {
        world.clock.pass(1);
        world.win(&[world.refuse(start)]).await;
        ids.push(start.header.id);
    }
    let header = &started[0].header;
    let ended = async |passed: &[Uuid]| {
        let definition = (header.definition.as_str(), header.definition_version);
        world.store.ended(definition, Timestamp(i64::MAX), passed, 2).await.expect("the store finds")
    };
    assert_eq!(ended(&[]).await, ids[..2]);
    assert_eq!(ended(&ids[..1]).await, ids[1..]);
    assert_eq!(ended(&ids[..2]).await, ids[2..]);
    assert!(ended(&ids).await.is_empty());
}
