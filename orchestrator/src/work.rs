//! What is put to a worker, and the receipts that travel with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use saga_core::{Operation, Refusal};
use saga_defs::{Reply, catalog::Loaded};
use saga_store::{Header, StartKey, Unreadable};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::Error;
use crate::hints::Watch;
use crate::request::Snapshot;

/// One input on its way to its saga.
#[derive(Debug)]
pub(crate) enum Work {
    Start(Box<StartWork>),
    Reply { reply: Box<Reply>, receipt: Receipt },
    Tick { saga_id: Uuid },
    Operate(Box<OperateWork>),
}

impl Work {
    /// The saga that must be loaded for it; none for a start.
    pub(crate) fn saga_id(&self) -> Option<Uuid> {
        match self {
            Self::Start(_) => None,
            Self::Reply { reply, .. } => Some(reply.saga_id),
            Self::Tick { saga_id } => Some(*saga_id),
            Self::Operate(work) => Some(work.saga_id),
        }
    }
}

/// A new saga.
pub(crate) struct StartWork {
    pub(crate) business_key: Option<String>,
    pub(crate) actor: String,
    pub(crate) start_key: StartKey,
    pub(crate) fingerprint: String,
    pub(crate) input: Arc<Value>,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) answer: oneshot::Sender<Result<StartVerdict, Error>>,
}

impl std::fmt::Debug for StartWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartWork({})", self.loaded.definition.name)
    }
}

/// What came of a start.
#[derive(Debug)]
pub(crate) enum StartVerdict {
    Created(Box<Snapshot>, Watch),
    KeyTaken { saga_id: Uuid, same: bool },
    BusinessKeyTaken { saga_id: Uuid },
}

/// A request of a person or client.
#[derive(Debug)]
pub(crate) struct OperateWork {
    pub(crate) saga_id: Uuid,
    pub(crate) operation: Operation,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) answer: oneshot::Sender<Result<OperateVerdict, Error>>,
}

/// What came of an operation.
#[derive(Debug)]
pub(crate) enum OperateVerdict {
    Applied {
        snapshot: Box<Snapshot>,
        repeated: bool,
    },
    Refused {
        snapshot: Box<Snapshot>,
        refusal: Refusal,
    },
    /// There is no such saga.
    NotFound,
    /// This build can't read it.
    Foreign,
    /// Nobody can.
    Unreadable(Arc<Header>, Unreadable),
}

/// What came of trying a dead letter again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// Every item is committed, or known to change nothing.
    Settled,
    /// An item can't be committed.
    GaveUp,
}

/// Where a dead letter's receipt tells.
#[derive(Debug)]
pub(crate) struct TriedAgain(mpsc::Receiver<Tried>);

impl TriedAgain {
    /// Waits for what came of it; none when that is not known.
    pub(crate) async fn recv(&mut self) -> Option<Tried> {
        self.0.recv().await
    }
}

/// Tells once all items are settled: of a delivery, which is acknowledged then and comes again if not, or of a dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Receipt(Arc<Owed>);

#[derive(Debug)]
struct Owed {
    open: AtomicUsize,
    to: To,
}

#[derive(Debug)]
enum To {
    Delivery { tag: u64, acknowledge: mpsc::Sender<u64> },
    DeadLetter(mpsc::Sender<Tried>),
}

impl Receipt {
    /// A receipt for `items` items of the delivery `tag`.
    pub(crate) fn new(tag: u64, items: usize, acknowledge: mpsc::Sender<u64>) -> Self {
        Self::to(items, To::Delivery { tag, acknowledge })
    }

    /// A receipt for `items` items of a dead letter, and where it is told what came of them. Nothing is told when the
    /// receipt is dropped unsettled.
    pub(crate) fn again(items: usize) -> (Self, TriedAgain) {
        let (tell, told) = mpsc::channel(1);
        (Self::to(items, To::DeadLetter(tell)), TriedAgain(told))
    }

    fn to(items: usize, to: To) -> Self {
        Self(Arc::new(Owed { open: AtomicUsize::new(items), to }))
    }

    /// An item can't be committed. Of a dead letter that is tried again this is told, and the letter stays what it is.
    /// False for a delivery: its item is to be set aside.
    pub(crate) fn give_up(&self) -> bool {
        match &self.0.to {
            To::Delivery { .. } => false,
            To::DeadLetter(tell) => {
                // Whoever asked has gone, or was told before.
                let _ = tell.try_send(Tried::GaveUp);
                true
            }
        }
    }

    /// One item needs the delivery no more.
    pub(crate) fn settle(&self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        match &self.0.to {
            // The channel holds as many tags as may be unacknowledged; if it is gone, so is the consumer.
            To::Delivery { tag, acknowledge } => drop(acknowledge.try_send(*tag)),
            // Whoever asked has gone, or was told that it was given up.
            To::DeadLetter(tell) => drop(tell.try_send(Tried::Settled)),
        }
    }
}
