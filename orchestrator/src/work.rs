//! What is put to a worker, and the receipts that travel with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use saga_core::{Operation, Refusal};
use saga_defs::{Reply, catalog::Loaded};
use saga_store::StartKey;
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
}

/// What a receipt of a dead letter tells.
const SETTLED: u64 = 0;
const GAVE_UP: u64 = 1;

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
pub(crate) struct TriedAgain(mpsc::Receiver<u64>);

impl TriedAgain {
    /// Waits for what came of it; none when that is not known.
    pub(crate) async fn recv(&mut self) -> Option<Tried> {
        self.0.recv().await.map(|told| if told == GAVE_UP { Tried::GaveUp } else { Tried::Settled })
    }
}

/// Acknowledges a delivery once all its items are settled. Dropped unsettled, the delivery comes again.
#[derive(Clone, Debug)]
pub(crate) struct Receipt(Arc<ReceiptInner>);

#[derive(Debug)]
struct ReceiptInner {
    tag: u64,
    /// Not of a delivery, but of a dead letter that is tried again.
    again: bool,
    open: AtomicUsize,
    acknowledge: mpsc::Sender<u64>,
}

impl Receipt {
    /// A receipt for `items` items of the delivery `tag`.
    pub(crate) fn new(tag: u64, items: usize, acknowledge: mpsc::Sender<u64>) -> Self {
        Self(Arc::new(ReceiptInner { tag, again: false, open: AtomicUsize::new(items), acknowledge }))
    }

    /// A receipt for `items` items of a dead letter, and where it is told what came of them. Nothing is told when the
    /// receipt is dropped unsettled.
    pub(crate) fn again(items: usize) -> (Self, TriedAgain) {
        let (acknowledge, told) = mpsc::channel(1);
        let inner = ReceiptInner { tag: SETTLED, again: true, open: AtomicUsize::new(items), acknowledge };
        (Self(Arc::new(inner)), TriedAgain(told))
    }

    /// An item can't be committed. Of a dead letter that is tried again this is told, and the letter stays what it is.
    /// False for a delivery: its item is to be set aside.
    pub(crate) fn give_up(&self) -> bool {
        if self.0.again {
            // Whoever asked has gone, or was told before.
            let _ = self.0.acknowledge.try_send(GAVE_UP);
        }
        self.0.again
    }

    /// One item needs the delivery no more.
    pub(crate) fn settle(&self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The channel holds as many tags as may be unacknowledged; if it is gone, so is the consumer.
            let _ = self.0.acknowledge.try_send(self.0.tag);
        }
    }
}
