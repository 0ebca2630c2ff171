//! Lists, counts, versions and pages of history.

use std::sync::Arc;

use saga_core::state::Cause;
use saga_core::{Decision, Status};
use uuid::Uuid;

use super::world::{PRINCIPAL, TENANT, World};
use crate::{Filter, Summary, Transition};

fn everything() -> Filter {
    Filter { tenant: TENANT.to_owned(), ..Filter::default() }
}

async fn list(world: &World, filter: &Filter, limit: u64) -> Vec<Summary> {
    world.store.list(filter, limit).await.expect("the store lists")
}

async fn ids(world: &World, filter: Filter) -> Vec<Uuid> {
    list(world, &filter, 100).await.into_iter().map(|summary| summary.header.id).collect()
}

fn newest_first(transitions: &[Transition]) -> Vec<Uuid> {
    transitions.iter().rev().map(|transition| transition.header.id).collect()
}

pub(super) async fn pages_have_no_gaps_and_no_doubles(world: &World) {
    let started = world.started(23).await;
    let mut seen: Vec<Uuid> = Vec::new();
    let mut filter = everything();
    loop {
        let page = list(world, &filter, 5).await;
        seen.extend(page.iter().map(|summary| summary.header.id));
        // What begins between two pages is on neither.
        world.started_one().await;
        match page.last() {
            Some(last) if page.len() == 5 => filter.before = Some(last.header.id),
            Some(_) | None => break,
        }
    }
    assert_eq!(seen, newest_first(&started));
}

pub(super) async fn a_list_respects_every_filter(world: &World) {
    let plain = world.started(2).await;
    let keyed = world.start_with("visit");
    let mut theirs = world.start();
    Arc::make_mut(&mut theirs.header).principal = "other".to_owned();
    let mut elsewhere = world.start();
    Arc::make_mut(&mut elsewhere.header).tenant = "other".to_owned();
    let mut odd = world.start();
    Arc::make_mut(&mut odd.header).definition = "stroll".to_owned();
    world.win(&[keyed.clone(), theirs.clone(), elsewhere.clone(), odd.clone()]).await;
    world.win(&[world.refuse(&plain[0])]).await;

    let id = |transition: &Transition| transition.header.id;
    let all = [plain[0].clone(), plain[1].clone(), keyed.clone(), theirs.clone(), odd.clone()];
    assert_eq!(ids(world, everything()).await, newest_first(&all));
    let other = Filter { tenant: "other".to_owned(), ..Filter::default() };
    assert_eq!(ids(world, other).await, [id(&elsewhere)]);
    let by_principal = Filter { principal: Some("other".to_owned()), ..everything() };
    assert_eq!(ids(world, by_principal).await, [id(&theirs)]);
    let by_status = Filter { status: Some(Status::Compensated), ..everything() };
    assert_eq!(ids(world, by_status).await, [id(&plain[0])]);
    let by_definition = Filter { definition: Some("stroll".to_owned()), ..everything() };
    assert_eq!(ids(world, by_definition).await, [id(&odd)]);
    let by_key = Filter { key: Some("visit".to_owned()), ..everything() };
    assert_eq!(ids(world, by_key).await, [id(&keyed)]);
    let together = Filter {
        principal: Some(PRINCIPAL.to_owned()),
        status: Some(Status::Running),
        definition: Some("errand".to_owned()),
        before: Some(id(&keyed)),
        ..everything()
    };
    assert_eq!(ids(world, together).await, [id(&plain[1])]);
    let none = Filter { key: Some("visit".to_owned()), principal: Some("other".to_owned()), ..everything() };
    assert!(ids(world, none).await.is_empty());
}

pub(super) async fn a_summary_tells_what_the_state_says(world: &World) {
    let start = world.start_with("visit");
    world.win(std::slice::from_ref(&start)).await;
    let summary = |decision, decided_at| Summary {
        header: (*start.header).clone(),
        status: Status::Running,
        decision,
        failure_code: None,
        stuck: None,
        version: 1,
        updated_at: start.header.created_at,
        decided_at,
    };
    assert_eq!(list(world, &everything(), 10).await, [summary(None, None)]);

    world.clock.pass(40);
    let end = world.refuse(&start);
    let now = end.history[0].at;
    world.win(&[end]).await;
    let ended = Summary {
        status: Status::Compensated,
        failure_code: Some("closed".to_owned()),
        version: 2,
        updated_at: now,
        ..summary(Some(Decision::Refused), Some(now))
    };
    assert_eq!(list(world, &everything(), 10).await, [ended]);

    let start = world.started_one().await;
    world.win(&[world.stick(&start)]).await;
    let held = list(world, &Filter { status: Some(Status::Stuck), ..everything() }, 10).await;
    let held: Vec<_> = held.into_iter().map(|summary| (summary.header.id, summary.stuck)).collect();
    assert_eq!(held, [(start.header.id, Some((Cause::ContractViolation, "here".to_owned())))]);
}

pub(super) async fn open_sagas_are_counted_by_status(world: &World) {
    let count = async || world.store.count_open().await.expect("the store counts");
    assert_eq!(count().await, []);
    let started = world.started(5).await;
    let second: Vec<Transition> = started[..2].iter().map(|start| world.succeed(start)).collect();
    world.win(&second).await;
    world.win(&[world.succeed(&second[0]), world.refuse(&second[1]), world.refuse(&started[2])]).await;
    assert_eq!(count().await, [(Status::Running, 2), (Status::Compensating, 1)], "two have ended");
}

pub(super) async fn history_is_paged(world: &World) {
    let mut last = world.started_one().await;
    let id = last.header.id;
    for _ in 0..6 {
        last = world.bump(&last);
        world.win(std::slice::from_ref(&last)).await;
    }
    let page = async |after, limit| {
        let rows = world.store.history(id, after, limit).await.expect("the store reads history");
        rows.into_iter().map(|row| row.seq).collect::<Vec<u64>>()
    };
    assert_eq!(page(0, 3).await, [1, 2, 3]);
    assert_eq!(page(3, 3).await, [4, 5, 6]);
    assert_eq!(page(6, 3).await, [7]);
    assert!(page(7, 3).await.is_empty());
}

pub(super) async fn answers_are_of_those_that_have_one(world: &World) {
    let started = world.started(2).await;
    world.win(&[world.refuse(&started[1])]).await;
    let (first, second) = (started[0].header.id, started[1].header.id);
    let asked = [second, world.id(), first];
    let answered = world.store.answered(&asked).await.expect("the store answers");
    assert_eq!(answered, [(second, 2)], "the first goes on");
    assert_eq!(world.store.answered(&[]).await.expect("the store answers"), []);
    let loaded = world.store.load(&asked).await.expect("the store loads");
    assert_eq!(loaded.sagas.into_keys().collect::<Vec<_>>(), [first, second]);
}
