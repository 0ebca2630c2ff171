//! What all parts of one engine hold in common.

use std::sync::Arc;

use runtime::Tasks;
use saga_defs::catalog::Loaded;
use saga_store::{Header, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::dead_letters::Aside;
use crate::definitions::Definitions;
use crate::entropy::Entropy;
use crate::handover::Foreign;
use crate::hints::Hints;
use crate::hot::Hot;
use crate::options::Options;
use crate::outbound::Outbound;
use crate::work::Work;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) definitions: Definitions,
    pub(crate) outbound: Outbound,
    pub(crate) hints: Hints,
    pub(crate) hot: Hot,
    /// Replies that instances of another build must apply.
    pub(crate) foreign: mpsc::Sender<Foreign>,
    /// What can't be handled.
    pub(crate) aside: mpsc::Sender<Aside>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) options: Options,
    pub(crate) tasks: Tasks,
    pub(crate) workers: Vec<mpsc::Sender<Work>>,
}

impl Shared {
    /// The queue of the worker that looks after this id. Routing saves conflicts; safety does not depend on it.
    pub(crate) fn worker(&self, id: Uuid) -> &mpsc::Sender<Work> {
        let spread = id.as_u64_pair().1 ^ id.as_u64_pair().0;
        let count = self.workers.len() as u64;
        &self.workers[usize::try_from(spread % count).expect("less than the number of workers")]
    }

    /// The very definition that a saga was started with.
    pub(crate) fn definition(&self, header: &Header) -> Option<Arc<Loaded>> {
        self.definitions.known().pinned(&header.definition, header.definition_version, &header.digest)
    }
}
