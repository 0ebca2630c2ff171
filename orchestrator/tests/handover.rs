//! Replies to sagas that this build can't read wait for others, and nobody waits for them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use orchestrator::{Options, StartAnswer};
use saga_defs::{Outcome, Reply, Verb, message};
use saga_store::{Batch, Guard, Header, StartKey, State, Store, Transition};
use serde_json::json;
use support::{LIMIT, World, request};
use tokio::time::timeout;
use transport::{Message, Queue, Transport};
use uuid::Uuid;

/// More messages than are handed over at once, and as many again.
const MESSAGES: usize = 12;

/// How long nothing is settled, in paused time: many rounds.
const SILENCE: Duration = Duration::from_secs(10);

/// The twin of a saga, by a version of its definition that nobody has.
async fn unreadable(store: &dyn Store, like: Uuid) -> Uuid {
    let mut loaded = store.load(&[like]).await.expect("readable");
    let like = loaded.sagas.remove(&like).expect("there");
    let State::Known(saga) = like.state else { panic!("{like:?}") };
    let header = Header { id: Uuid::new_v4(), definition_version: 99, ..Header::clone(&like.header) };
    let key = "its twin".to_owned();
    let start_key = StartKey { tenant: header.tenant.clone(), principal: header.principal.clone(), key };
    let transition = Transition {
        guard: Guard::Start { start_key, fingerprint: String::new(), input: Arc::new(json!({})) },
        header: Arc::new(header),
        saga,
        history: Vec::new(),
        commands: Vec::new(),
    };
    let id = transition.header.id;
    let batch =
        Batch { commit_id: Uuid::new_v4(), now: loaded.now, transitions: vec![transition], confirmed: Vec::new() };
    store.commit(batch).await.expect("committed");
    id
}

fn replies(saga_id: Uuid) -> String {
    let reply = |_| Reply {
        v: message::VERSION,
        command_id: Uuid::new_v4(),
        key: Uuid::new_v4(),
        saga_id,
        verb: Verb::Execute,
        outcome: Outcome::succeeded(json!({})),
    };
    message::encode(&(0..message::BATCH_ITEMS_MAX).map(reply).collect::<Vec<_>>()).concat()
}

/// Here a copy is safe only once somebody could read it, which is never: as when the broker is out of reach.
#[tokio::test(start_paused = true)]
async fn replies_that_nobody_takes_back_hold_up_nobody() {
    let world = World::new(&["booking"], Options::default()).await;
    let StartAnswer::Started(started) = world.engine.begin(request("one")).await.expect("an answer") else {
        panic!("no start")
    };
    let saga_id = unreadable(&*world.store, started.snapshot.header.id).await;
    let publisher = world.transport.publisher();
    let messages: Vec<Message> =
        (0..MESSAGES).map(|_| Message::new(Uuid::new_v4(), Queue::Replies, replies(saga_id))).collect();
    publisher.publish(&messages);
    assert!(timeout(SILENCE, publisher.settled()).await.is_err(), "a reply was settled that nobody could read");
    let again = timeout(LIMIT, world.engine.begin(request("another"))).await.expect("in time").expect("an answer");
    assert!(matches!(again, StartAnswer::Started(_)), "{again:?}");
    world.tasks.stop();
}
