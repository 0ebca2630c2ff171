//! An engine on a store in memory and queues in memory, for tests in paused time.

use std::sync::Arc;
use std::time::Duration;

use orchestrator::{Engine, Options, SeededEntropy, StartRequest};
use runtime::Tasks;
use runtime::clock::TokioClock;
use saga_defs::Timestamp;
use saga_defs::catalog::Catalog;
use saga_store::{MemoryStore, Store};
use serde_json::json;
use transport::in_process::InProcess;
use uuid::Uuid;

/// Longest that anything may take, in paused time.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// An engine, and what it works on.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) transport: InProcess,
    pub(crate) tasks: Tasks,
}

impl World {
    /// With the queues of these participants.
    pub(crate) async fn new(participants: &[&str], options: Options) -> Self {
        let transport = InProcess::new(&transport::in_process::Options {
            queues: transport::topology::queues(participants.iter().copied()),
            capacity: 64,
            faults: None,
        });
        let clock = TokioClock::starting_at(Timestamp(1_700_000_000_000_000));
        let store = Arc::new(MemoryStore::new(Arc::new(clock)));
        let tasks = Tasks::new();
        let engine = start(&store, &transport, &tasks, 7, options).await;
        Self { engine, store, transport, tasks }
    }
}

/// An engine on these.
pub(crate) async fn start(
    store: &Arc<MemoryStore>,
    transport: &InProcess,
    tasks: &Tasks,
    seed: u64,
    options: Options,
) -> Engine {
    let (store, entropy) = (Arc::clone(store) as Arc<dyn Store>, Arc::new(SeededEntropy::new(seed)));
    Engine::start(store, transport, &Catalog::built_in(), entropy, tasks, options).await.expect("the engine starts")
}

/// A booking under this idempotency key.
pub(crate) fn request(key: &str) -> StartRequest {
    StartRequest {
        tenant: "default".to_owned(),
        principal: "desk".to_owned(),
        actor: "client:desk".to_owned(),
        idempotency_key: key.to_owned(),
        definition: "booking".to_owned(),
        key: None,
        input: json!({
            "slot_id": Uuid::nil(),
            "patient": {"name": "Ada", "phone": "+15005550006", "email": "ada@example.org"},
            "payment_method": "tok_visa"
        }),
    }
}
