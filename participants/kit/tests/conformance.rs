//! Every shape of participant passes the contract's suite.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use db::Db;
use fixture::Stack;
use participant_kit::conformance::{self, Harness};
use participant_kit::{ExternalHandler, ExternalOptions, Handler, InMemory, TransactionalHandler};
use saga_defs::{Command, Outcome, Verb};
use support::{Counts, Desk, Provider, Table, create_effects, database, effects};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

struct Subject {
    desk: Desk,
    name: &'static str,
    undoable: bool,
    made: Made,
}

/// Where it is known how often an effect was made.
enum Made {
    /// Rows.
    Rows(Box<Db>),
    /// Calls, where none is ever taken back.
    Calls(Arc<Counts>),
}

impl Made {
    async fn count(&self, key: Uuid, what: &'static str) -> usize {
        match self {
            Self::Rows(db) => effects(db, key, what).await,
            Self::Calls(counts) => usize::try_from(counts.get(key, what)).unwrap(),
        }
    }
}

impl Subject {
    async fn new(handler: Arc<dyn Handler>, undoable: bool, made: Made) -> Self {
        let name = handler.participant();
        Self { desk: Desk::open(handler).await, name, undoable, made }
    }
}

#[async_trait]
impl Harness for Subject {
    fn participant(&self) -> &'static str {
        self.name
    }

    fn undoable(&self) -> bool {
        self.undoable
    }

    async fn send(&self, commands: &[Command]) -> Vec<Outcome> {
        self.desk.send(commands).await
    }

    async fn forget(&self, sagas: &[Uuid]) -> u64 {
        self.desk.forget(sagas).await
    }

    async fn made(&self, key: Uuid) -> usize {
        self.made.count(key, "made").await
    }

    async fn undone(&self, key: Uuid) -> usize {
        self.made.count(key, "undone").await
    }
}

fixture::on_every_stack! {
    transactional_participants_keep_the_contract,
    external_participants_keep_the_contract,
}

async fn transactional_participants_keep_the_contract(stack: Stack) {
    for undoable in [true, false] {
        let owned = database(stack).await;
        create_effects(&owned.db).await;
        let handler = Arc::new(TransactionalHandler::new(owned.db.clone(), Table { counts: Arc::default(), undoable }));
        let subject = Subject::new(handler, undoable, Made::Rows(Box::new(owned.db.clone()))).await;
        conformance::all(&subject).await;
        conformance::an_effect_is_not_made_after_its_window(&subject).await;
    }
}

async fn external_participants_keep_the_contract(stack: Stack) {
    for undoable in [true, false] {
        let owned = database(stack).await;
        let counts = Arc::new(Counts::default());
        let provider = Provider {
            counts: Arc::clone(&counts),
            undoable,
            gate: Arc::new(Semaphore::new(10_000)),
            began: mpsc::channel(1).0,
            recorded: Arc::default(),
        };
        let options = ExternalOptions { sweep_every: Duration::from_millis(20), ..ExternalOptions::default() };
        let handler = Arc::new(ExternalHandler::new(owned.db.clone(), provider, options));
        let subject = Subject::new(handler, undoable, Made::Calls(counts)).await;
        conformance::all(&subject).await;
        conformance::an_effect_is_not_made_after_its_window(&subject).await;
        assert_eq!(subject.desk.shutdown().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn participants_in_memory_keep_the_contract() {
    for undoable in [true, false] {
        let counts = Arc::new(Counts::default());
        let inner = Arc::clone(&counts);
        let handler = Arc::new(InMemory::new("memory", undoable, move |command| match command.verb {
            Verb::Execute => inner.execute(command),
            Verb::Compensate => inner.undo(command.key),
        }));
        conformance::all(&Subject::new(handler, undoable, Made::Calls(counts)).await).await;
    }
}
