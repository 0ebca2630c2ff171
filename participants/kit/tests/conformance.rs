//! Every shape of participant passes the contract's suite.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fixture::Stack;
use participant_kit::conformance::{self, Harness};
use participant_kit::{ExternalHandler, ExternalOptions, Handler, InMemory, TransactionalHandler};
use saga_defs::{Command, Outcome, Verb};
use support::{Counts, Desk, Provider, Table, database};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

struct Subject {
    desk: Desk,
    name: &'static str,
    undoable: bool,
    counts: Arc<Counts>,
}

impl Subject {
    async fn new(handler: Arc<dyn Handler>, undoable: bool, counts: &Arc<Counts>) -> Self {
        let name = handler.participant();
        Self { desk: Desk::open(handler).await, name, undoable, counts: Arc::clone(counts) }
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

    fn made(&self, key: Uuid) -> usize {
        usize::try_from(self.counts.get(key, "made")).unwrap()
    }

    fn undone(&self, key: Uuid) -> usize {
        usize::try_from(self.counts.get(key, "undone")).unwrap()
    }
}

fixture::on_every_stack! {
    transactional_participants_keep_the_contract,
    external_participants_keep_the_contract,
}

async fn transactional_participants_keep_the_contract(stack: Stack) {
    for undoable in [true, false] {
        let owned = database(stack).await;
        let counts = Arc::new(Counts::default());
        let table = Table { counts: Arc::clone(&counts), undoable };
        let handler = Arc::new(TransactionalHandler::new(owned.db.clone(), table));
        let subject = Subject::new(handler, undoable, &counts).await;
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
        let subject = Subject::new(handler, undoable, &counts).await;
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
        conformance::all(&Subject::new(handler, undoable, &counts).await).await;
    }
}
