//! Start keys and business keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use saga_core::state::{End, Phase};

use super::world::World;
use crate::{Guard, Outcome, StartKey, Transition};

fn start_key(transition: &mut Transition) -> &mut StartKey {
    let Guard::Start { start_key, .. } = &mut transition.guard else { unreachable!("it is a start") };
    start_key
}

pub(super) async fn a_start_key_is_taken_once(world: &World) {
    let first = world.started_one().await;
    let mut again = world.start();
    again.guard = first.guard.clone();
    if let Guard::Start { fingerprint, .. } = &mut again.guard {
        *fingerprint = "asked otherwise".to_owned();
    }
    let committed = world.commit(std::slice::from_ref(&again)).await;
    let taken = Outcome::KeyTaken { saga_id: first.header.id, fingerprint: "asked".to_owned() };
    assert_eq!(committed.outcomes, std::slice::from_ref(&taken));
    assert!(committed.messages.is_empty());
    assert!(world.load(again.header.id).await.is_none() && world.history(again.header.id).await.is_empty());
    assert_eq!(world.commit_one(&again).await, taken, "the first one's fingerprint stays");

    let changes: [fn(&mut StartKey); 3] =
        [|key| key.tenant.push('x'), |key| key.principal.push('x'), |key| key.key.push('x')];
    for change in changes {
        let mut other = world.start();
        other.guard = first.guard.clone();
        change(start_key(&mut other));
        assert_eq!(world.commit_one(&other).await, Outcome::Committed);
    }
    world.win(&[world.refuse(&first)]).await;
    assert_eq!(world.commit_one(&again).await, taken, "a start key outlives its saga");

    let started = async |key: &StartKey| world.store.started(key).await.expect("the store answers");
    assert_eq!(started(start_key(&mut again)).await, Some((first.header.id, "asked".to_owned())));
    assert_eq!(started(start_key(&mut world.start())).await, None, "nothing was started with it");
}

pub(super) async fn a_business_key_is_taken_while_its_saga_is_open(world: &World) {
    let first = world.start_with("visit 1");
    world.win(std::slice::from_ref(&first)).await;
    let second = world.start_with("visit 1");
    let taken = Outcome::BusinessKeyTaken { saga_id: first.header.id };
    let committed = world.commit(std::slice::from_ref(&second)).await;
    assert_eq!(committed.outcomes, [taken]);
    assert!(committed.messages.is_empty());
    assert!(world.load(second.header.id).await.is_none() && world.history(second.header.id).await.is_empty());

    let mut repeated = world.start_with("visit 1");
    repeated.guard = first.guard.clone();
    let known = Outcome::KeyTaken { saga_id: first.header.id, fingerprint: "asked".to_owned() };
    assert_eq!(world.commit_one(&repeated).await, known, "a repeated start is known by its start key first");
    let mut elsewhere = world.start_with("visit 1");
    Arc::make_mut(&mut elsewhere.header).tenant = "other".to_owned();
    start_key(&mut elsewhere).tenant = "other".to_owned();
    world.win(&[elsewhere, world.start_with("visit 2"), world.start(), world.start()]).await;
}

pub(super) async fn a_start_that_met_a_business_key_can_come_again(world: &World) {
    let first = world.start_with("visit");
    world.win(std::slice::from_ref(&first)).await;
    let second = world.start_with("visit");
    let taken = Outcome::BusinessKeyTaken { saga_id: first.header.id };
    assert_eq!(world.commit_one(&second).await, taken);
    assert_eq!(world.commit_one(&second).await, taken, "its start key is still free");
    world.win(&[world.refuse(&first)]).await;
    assert_eq!(world.commit_one(&second).await, Outcome::Committed);
}

pub(super) async fn an_end_frees_its_business_key_within_one_commit(world: &World) {
    let first = world.start_with("visit");
    world.win(std::slice::from_ref(&first)).await;
    world.win(&[world.start_with("visit"), world.refuse(&first)]).await;
}

pub(super) async fn of_two_starts_in_one_commit_the_older_gets_the_business_key(world: &World) {
    let (older, newer) = (world.start_with("visit"), world.start_with("visit"));
    let committed = world.commit(&[newer.clone(), older.clone()]).await;
    let taken = Outcome::BusinessKeyTaken { saga_id: older.header.id };
    assert_eq!(committed.outcomes, [taken, Outcome::Committed]);
    assert!(world.load(newer.header.id).await.is_none());
}

pub(super) async fn a_start_that_ends_at_once_meets_a_business_key_all_the_same(world: &World) {
    let first = world.start_with("visit");
    world.win(std::slice::from_ref(&first)).await;
    let mut second = world.start_with("visit");
    let saga = Arc::make_mut(&mut second.saga);
    (saga.phase, saga.steps) = (Phase::Ended(End::Completed), BTreeMap::new());
    second.commands.clear();
    assert_eq!(world.commit_one(&second).await, Outcome::BusinessKeyTaken { saga_id: first.header.id });
}
