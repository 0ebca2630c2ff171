//! The store in memory fails as it is told to.
#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;

use saga_defs::{Timestamp, catalog};
use saga_store::conformance::ManualClock;
use saga_store::{Batch, Error, Fault, Guard, Header, HistoryRow, MemoryStore, Outcome, StartKey, Store, Transition};
use serde_json::json;
use uuid::Uuid;

fn start(id: u128) -> Transition {
    let definition = catalog::booking();
    let header = Arc::new(Header {
        id: Uuid::from_u128(id),
        tenant: "default".to_owned(),
        principal: "clerk".to_owned(),
        key: None,
        definition: definition.name.clone(),
        definition_version: definition.version,
        digest: definition.digest(),
        created_at: Timestamp(0),
    });
    let input = Arc::new(json!({"slot_id": Uuid::nil(), "patient": {}}));
    let context =
        saga_core::Context { saga_id: header.id, tenant: &header.tenant, definition: &definition, input: &input };
    let applied = saga_core::start(&context, &header.digest, 1, Timestamp(0));
    let history = vec![row(1)];
    let start_key =
        StartKey { tenant: header.tenant.clone(), principal: header.principal.clone(), key: id.to_string() };
    let guard = Guard::Start { start_key, fingerprint: String::new(), input };
    Transition { header, guard, saga: applied.saga.into(), history, commands: applied.commands }
}

fn next(last: &Transition) -> Transition {
    let mut next = last.clone();
    next.guard = Guard::Version(last.saga.version);
    Arc::make_mut(&mut next.saga).version += 1;
    next.history = vec![row(next.saga.version)];
    next
}

fn row(seq: u64) -> HistoryRow {
    HistoryRow {
        seq,
        at: Timestamp(0),
        actor: "engine".to_owned(),
        reason: None,
        operation_id: None,
        format: saga_core::FORMAT,
        events: "[]".to_owned(),
    }
}

fn batch(commit_id: u128, transitions: &[Transition]) -> Batch {
    Batch {
        commit_id: Uuid::from_u128(commit_id),
        now: Timestamp(0),
        transitions: transitions.to_vec(),
        confirmed: Vec::new(),
    }
}

fn store() -> MemoryStore {
    MemoryStore::new(Arc::new(ManualClock::default()))
}

async fn is_there(store: &MemoryStore, commit_id: u128) -> bool {
    !store.committed(Uuid::from_u128(commit_id), &[start(1).header.id]).await.unwrap().is_empty()
}

#[tokio::test]
async fn faults_are_met_in_order_and_once() {
    let store = store();
    for fault in [Fault::Unavailable, Fault::DroppedUnknown, Fault::CommittedUnknown] {
        store.fail_next(fault);
    }
    let begin = |commit_id| store.commit(batch(commit_id, &[start(1)]));
    assert!(matches!(begin(1).await, Err(Error::Unavailable(_))));
    assert!(matches!(begin(2).await, Err(Error::UnknownCommit(_))));
    assert!(!is_there(&store, 1).await && !is_there(&store, 2).await);
    assert!(matches!(begin(3).await, Err(Error::UnknownCommit(_))));
    assert!(is_there(&store, 3).await);
    let again = begin(4).await.unwrap();
    assert!(matches!(again.outcomes[..], [Outcome::KeyTaken { .. }]));
    let fired = [Fault::Unavailable, Fault::DroppedUnknown, Fault::CommittedUnknown, Fault::Lost];
    assert_eq!(fired.map(|fault| store.fired(fault)), [1, 1, 1, 0]);
}

#[tokio::test]
async fn a_lost_swap_leaves_no_trace_and_waits_for_a_swap() {
    let store = store();
    let (one, two) = (start(1), start(2));
    store.fail_next(Fault::Lost);
    let committed = store.commit(batch(1, &[one.clone(), two.clone()])).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Committed, Outcome::Committed]);
    assert_eq!(store.fired(Fault::Lost), 0);

    let both = [start(3), next(&one), next(&two)];
    let committed = store.commit(batch(2, &both)).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Committed, Outcome::Lost, Outcome::Committed]);
    assert_eq!(store.fired(Fault::Lost), 1);
    assert!(matches!(
        &store.load(&[one.header.id]).await.unwrap().sagas[&one.header.id].state,
        saga_store::State::Known(saga) if saga.version == 1
    ));
    assert_eq!(store.history(one.header.id, 0, 10).await.unwrap().len(), 1);
    assert!(committed.messages.iter().all(|message| !message.body.contains(&one.header.id.to_string())));
    let committed = store.commit(batch(3, &[next(&one)])).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Committed]);
}
