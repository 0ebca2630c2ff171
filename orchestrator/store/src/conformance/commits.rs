//! What a commit does to winners and to losers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::world::{World, commands};
use crate::{Error, Guard, HistoryRow, Mismatch, OutboxMessage, Outcome, State, Stored, Transition, check_replay};

/// Everything that JSON, SQL or an encoding could stumble over, but for U+0000, which no edge lets in.
const HARD: &str = " [ {\"a\":\t\"\\\"'\\\\ \\u0007 %_;--$1?? äß 漢字 🦀 \u{1} \u{feff}\" , \"n\": 1.0e2 } ]\r\n";

pub(super) async fn a_winner_is_whole(world: &World) {
    let start = world.start();
    let batch = world.batch(std::slice::from_ref(&start));
    let (commit_id, ids) = (batch.commit_id, batch.ids());
    let committed = world.store.commit(batch).await.expect("the store commits");
    assert_eq!(committed.outcomes, [Outcome::Committed]);

    let Guard::Start { input, .. } = &start.guard else { unreachable!("it is a start") };
    let (header, state) = (Arc::clone(&start.header), State::Known(Arc::clone(&start.saga)));
    let id = header.id;
    let stored = world.load(id).await.expect("the saga exists");
    assert!(stored == Stored { header, state, input: Arc::clone(input) }, "{stored:?} is not what was written");
    assert_eq!(world.history(id).await, start.history);
    assert_eq!(world.store.committed(commit_id, &ids).await.expect("the store answers"), [id]);
    assert_eq!(commands(&committed.messages)["alpha"], start.commands);
    assert!(world.store.committed(world.id(), &ids).await.expect("the store answers").is_empty());

    let next = world.succeed(&start);
    world.win(std::slice::from_ref(&next)).await;
    assert_eq!(world.state(id).await, next.saga);
    assert_eq!(world.history(id).await, [start.history, next.history].concat());
}

pub(super) async fn a_loser_leaves_no_trace(world: &World) {
    let started = world.started(2).await;
    let (winner, mut loser) = (world.succeed(&started[0]), world.succeed(&started[1]));
    loser.guard = Guard::Version(7);
    let mut stranger = world.bump(&world.start());
    stranger.commands = loser.commands.clone();
    let batch = world.batch(&[winner.clone(), loser.clone(), stranger.clone()]);
    let (commit_id, ids) = (batch.commit_id, batch.ids());
    let committed = world.store.commit(batch).await.expect("the store commits");
    assert_eq!(committed.outcomes, [Outcome::Committed, Outcome::Lost, Outcome::Lost]);

    assert_eq!(world.state(loser.header.id).await, started[1].saga);
    assert_eq!(world.history(loser.header.id).await, started[1].history);
    assert!(world.load(stranger.header.id).await.is_none() && world.history(stranger.header.id).await.is_empty());
    assert_eq!(world.store.committed(commit_id, &ids).await.expect("the store answers"), [winner.header.id]);
    assert_eq!(commands(&committed.messages)["beta"], winner.commands);
    world.clock.pass(1_000);
    let outbox = world.claim(100, 60_000).await;
    assert_eq!(commands(&outbox)["beta"], winner.commands, "the outbox holds winners' commands only");
}

pub(super) async fn outcomes_are_in_the_order_of_the_transitions(world: &World) {
    let started = world.started(6).await;
    let loses = |index: usize| index.is_multiple_of(3);
    let next = |(index, last): (usize, &Transition)| {
        let mut next = world.bump(last);
        if loses(index) {
            next.guard = Guard::Version(9);
        }
        next
    };
    let mut transitions: Vec<Transition> = started.iter().enumerate().map(next).collect();
    transitions.insert(2, world.start());
    transitions.reverse();
    let committed = world.commit(&transitions).await;
    let lost: Vec<bool> = committed.outcomes.iter().map(|outcome| *outcome == Outcome::Lost).collect();
    let expected: Vec<bool> = transitions.iter().map(|next| matches!(next.guard, Guard::Version(9))).collect();
    assert_eq!(lost, expected);
    assert!(expected.contains(&true) && expected.contains(&false));
}

pub(super) async fn texts_come_back_byte_for_byte(world: &World) {
    let mut start = world.start_with(HARD);
    let document = Arc::new(json!({HARD: HARD, "n": [0.1, -0.0, 1e300, u64::MAX, i64::MIN]}));
    let Guard::Start { input, fingerprint, start_key } = &mut start.guard else { unreachable!("it is a start") };
    *input = Arc::clone(&document);
    *fingerprint = HARD.to_owned();
    start_key.key = HARD.to_owned();
    let row = HistoryRow {
        actor: format!("admin:{HARD}"),
        reason: Some(HARD.to_owned()),
        operation_id: Some(Uuid::from_u128(u128::MAX - 5)),
        events: HARD.to_owned(),
        ..start.history[0].clone()
    };
    start.history = vec![row.clone()];
    start.commands[0].payload = json!({ "text": HARD });
    let messages = world.win(std::slice::from_ref(&start)).await;

    assert_eq!(world.history(start.header.id).await, [row]);
    let stored = world.load(start.header.id).await.expect("the saga exists");
    assert!(stored.header == start.header && stored.input == document, "header or input changed");
    assert_eq!(commands(&messages)["alpha"], start.commands);
    world.clock.pass(1_000);
    let claimed = world.claim(1, 1).await;
    assert!(claimed[0].body == messages[0].body, "the body changed");
    let mut again = world.start();
    again.guard = start.guard.clone();
    let taken = Outcome::KeyTaken { saga_id: start.header.id, fingerprint: HARD.to_owned() };
    assert_eq!(world.commit_one(&again).await, taken);
}

pub(super) async fn a_refused_batch_leaves_no_trace(world: &World) {
    let started = world.started(2).await;
    let (innocent, mut guilty) = (world.succeed(&started[0]), world.succeed(&started[1]));
    // Its number is taken.
    guilty.history[0].seq = 1;
    let fresh = world.start();
    let batch = world.batch(&[innocent.clone(), guilty, fresh.clone()]);
    let (commit_id, ids) = (batch.commit_id, batch.ids());
    let error = world.store.commit(batch).await.expect_err("history is never overwritten");
    assert!(matches!(error, Error::Bug(_)), "{error:?}");

    assert_eq!(world.state(innocent.header.id).await, started[0].saga);
    assert!(world.load(fresh.header.id).await.is_none());
    assert!(world.store.committed(commit_id, &ids).await.expect("the store answers").is_empty());
    // The others go through without the guilty one.
    world.win(&[innocent, fresh]).await;
}

pub(super) async fn a_big_batch_is_committed_whole(world: &World) {
    const SAGAS: usize = 500;
    let started = world.started(SAGAS).await;
    let next: Vec<Transition> = started.iter().map(|start| world.succeed(start)).collect();
    let messages = world.win(&next).await;
    assert!(messages.len() >= 2, "500 commands do not fit one message");
    let sent: BTreeSet<Uuid> = commands(&messages)["beta"].iter().map(|command| command.saga_id).collect();
    let ids: Vec<Uuid> = started.iter().map(|start| start.header.id).collect();
    assert_eq!(sent, ids.iter().copied().collect());
    world.clock.pass(1_000);
    let bodies = |messages: &[OutboxMessage]| -> BTreeMap<Uuid, String> {
        messages.iter().map(|message| (message.id, message.body.to_string())).collect()
    };
    let (claimed, sent) = (bodies(&world.claim(1_000, 60_000).await), bodies(&messages));
    assert!(sent.iter().all(|(id, body)| claimed.get(id) == Some(body)), "the outbox has what was sent");
    let loaded = world.store.load(&ids).await.expect("the store loads");
    assert_eq!(loaded.sagas.len(), SAGAS);
    for next in &next {
        let state = State::Known(Arc::clone(&next.saga));
        assert_eq!(loaded.sagas[&next.header.id].state, state);
    }
}

pub(super) async fn winners_share_messages(world: &World) {
    let started = world.started(3).await;
    let mut batch: Vec<Transition> = started.iter().map(|start| world.succeed(start)).collect();
    batch[1].guard = Guard::Version(5);
    batch.extend([world.start(), world.start()]);
    let committed = world.commit(&batch).await;
    let participants: Vec<&str> = committed.messages.iter().map(|message| message.participant.as_str()).collect();
    assert_eq!(participants, ["alpha", "beta"]);
    let sent = commands(&committed.messages);
    assert_eq!(sent["alpha"], [batch[3].commands.clone(), batch[4].commands.clone()].concat());
    assert_eq!(sent["beta"], [batch[0].commands.clone(), batch[2].commands.clone()].concat());
    assert!(committed.messages.iter().all(|message| message.attempts == 0));
}

pub(super) async fn history_leads_to_the_state(world: &World) {
    let start = world.started_one().await;
    let id = start.header.id;
    let second = world.succeed(&start);
    let mut third = world.succeed(&second);
    world.win(&[second]).await;
    check_replay(&*world.store, id).await.expect("history leads to the state");
    Arc::make_mut(&mut third.saga).seed += 1;
    world.win(&[third]).await;
    let mismatch = check_replay(&*world.store, id).await.expect_err("the state is not what history leads to");
    assert!(matches!(mismatch, Mismatch::State { stored: 3, replayed: 3, .. }), "{mismatch:?}");
    let missing = check_replay(&*world.store, world.id()).await.expect_err("there is no such saga");
    assert!(matches!(missing, Mismatch::Missing(_)), "{missing:?}");
}
