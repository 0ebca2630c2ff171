//! The engine's face: start it, start sagas, ask for operations, read, wait.

use std::sync::Arc;

use runtime::Tasks;
use saga_core::{Action, Operation};
use saga_defs::catalog::{Catalog, Loaded};
use saga_defs::ids;
use saga_store::{StartKey, State, Store};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use transport::{Queue, Transport};
use uuid::Uuid;

use crate::definitions::Definitions;
use crate::entropy::Entropy;
use crate::gauges::Held;
use crate::hints::Hints;
use crate::hot::Hot;
use crate::options::Options;
use crate::outbound::Outbound;
use crate::replay::{LetterAnswer, LetterRequest};
use crate::request::{OperateRequest, Operated, Snapshot, StartAnswer, StartRequest, Started};
use crate::shared::Shared;
use crate::work::{OperateVerdict, OperateWork, StartVerdict, StartWork, Work};
use crate::worker::Worker;
use crate::{Error, dead_letters, gauges, handover, hints, relay, replay, replies, retention, timers, unreadable};

/// A running engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl Engine {
    /// Publishes and loads definitions, then starts the engine's tasks.
    ///
    /// # Errors
    /// When the store fails or a published definition was changed.
    pub async fn start(
        store: Arc<dyn Store>,
        transport: &dyn Transport,
        catalog: &Catalog,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
        options: Options,
    ) -> Result<Self, Error> {
        let definitions = Definitions::publish(&*store, catalog).await?;
        if options.alone {
            store.release_outbox().await?;
        }
        let (workers, queues): (Vec<_>, Vec<_>) =
            (0..options.workers.max(1)).map(|_| mpsc::channel(options.queue)).unzip();
        let consumer = transport.consumer(&Queue::Replies, options.prefetch);
        let (foreign, given) = mpsc::channel(handover::room(&options));
        let (aside, set_aside) = mpsc::channel(dead_letters::KEEP_MAX);
        let dead_consumer = transport.consumer(&Queue::DeadLetters, dead_letters::KEEP_MAX);
        let shared = Arc::new(Shared {
            outbound: Outbound::new(transport.publisher(), &options),
            hints: Hints::default(),
            hot: Hot::new(options.hot_max),
            foreign,
            aside,
            tasks: tasks.clone(),
            store,
            definitions,
            entropy,
            options,
            workers,
        });
        for queue in queues {
            tasks.spawn_vital("worker", Worker::new(Arc::clone(&shared), queue).run());
        }
        tasks.spawn_vital("confirm", relay::confirm(Arc::clone(&shared)));
        tasks.spawn_vital("relay", relay::run(Arc::clone(&shared)));
        tasks.spawn_vital("timers", timers::run(Arc::clone(&shared)));
        // Alone, every commit is this process's own, and tells by itself.
        if !shared.options.alone {
            tasks.spawn_vital("hints", hints::run(Arc::clone(&shared)));
        }
        if shared.options.hints && !shared.options.alone {
            tasks.spawn_vital("hear", hints::hear(Arc::clone(&shared), transport.hints()));
        }
        tasks.spawn_vital("handover", handover::run(Arc::clone(&shared), transport.publisher(), given));
        tasks.spawn_vital("dead_letters", dead_letters::run(Arc::clone(&shared), dead_consumer, set_aside));
        tasks.spawn_vital("gauges", gauges::run(Arc::clone(&shared)));
        if let Some(retention) = shared.options.retention.clone() {
            tasks.spawn_vital("retention", retention::run(Arc::clone(&shared), retention));
        }
        tasks.spawn_vital("replies", replies::run(Arc::clone(&shared), consumer));
        Ok(Self { shared })
    }

    /// The definitions in use.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.definitions.known()
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// What is held in memory at this moment.
    #[must_use]
    pub fn held(&self) -> Held {
        Held::by(&self.shared)
    }

    /// The definition of this reference; another instance may have published it just now.
    async fn find(&self, reference: &str) -> Result<Option<Arc<Loaded>>, Error> {
        if let Some(loaded) = self.catalog().find(reference) {
            return Ok(Some(loaded));
        }
        self.shared.definitions.catch_up(&*self.shared.store).await?;
        Ok(self.catalog().find(reference))
    }

    /// Starts a saga, or finds the one that an equal request started.
    ///
    /// # Errors
    /// When there was no answer; ask again with the same key.
    pub async fn begin(&self, request: StartRequest) -> Result<StartAnswer, Error> {
        let Some(loaded) = self.find(&request.definition).await? else {
            return Ok(StartAnswer::UnknownDefinition);
        };
        let problems = loaded.input_problems(&request.input);
        let (answer, verdict) = oneshot::channel();
        let work = start_work(request, loaded, answer);
        if !problems.is_empty() {
            // It may have fitted the version that was the newest when it was asked first.
            return match self.shared.store.started(&work.start_key).await? {
                Some((saga_id, fingerprint)) => self.known(saga_id, fingerprint == work.fingerprint).await,
                None => Ok(StartAnswer::BadInput(problems)),
            };
        }
        // Replies and timers of sagas under way come before new sagas.
        let worker = self.shared.worker(route(&work.start_key));
        if worker.capacity() <= self.shared.options.queue / 4 {
            return Err(Error::Overloaded);
        }
        worker.try_send(Work::Start(Box::new(work))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopping,
        })?;
        match self.answer(verdict).await? {
            StartVerdict::Created(snapshot, watch) => {
                Ok(StartAnswer::Started(Box::new(Started { snapshot: *snapshot, replayed: false, watch })))
            }
            StartVerdict::KeyTaken { saga_id, same } => self.known(saga_id, same).await,
            StartVerdict::BusinessKeyTaken { saga_id } => Ok(StartAnswer::BusinessKeyTaken { saga_id }),
        }
    }

    /// What becomes of a start whose key started this saga before, by the same request or by another.
    async fn known(&self, saga_id: Uuid, same: bool) -> Result<StartAnswer, Error> {
        if !same {
            return Ok(StartAnswer::KeyReused);
        }
        let watch = self.shared.hints.watch(saga_id);
        Ok(match self.get(saga_id).await? {
            Some(snapshot) => StartAnswer::Started(Box::new(Started { snapshot, replayed: true, watch })),
            None => StartAnswer::Gone { saga_id },
        })
    }

    /// Puts an operation to a saga.
    ///
    /// # Errors
    /// When there was no answer; ask again with the same key.
    pub async fn operate(&self, request: OperateRequest) -> Result<Operated, Error> {
        let operation_id = ids::operation_id(request.saga_id, &request.principal, &request.idempotency_key);
        let output = match &request.action {
            Action::Skip(output) => Some(output),
            Action::Retry | Action::Compensate | Action::Cancel | Action::Close => None,
        };
        let asked = json!({"action": request.action.as_str(), "reason": request.reason, "output": output});
        let (answer, verdict) = oneshot::channel();
        let operation = Operation {
            id: operation_id,
            digest: ids::digest(&asked),
            expected_version: request.expected_version,
            action: request.action,
        };
        let work =
            OperateWork { saga_id: request.saga_id, operation, actor: request.actor, reason: request.reason, answer };
        let sent = self.shared.worker(request.saga_id).try_send(Work::Operate(Box::new(work)));
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopping,
        })?;
        Ok(match self.answer(verdict).await? {
            OperateVerdict::Applied { snapshot, repeated } => {
                Operated::Applied { snapshot, operation_id, replayed: repeated }
            }
            OperateVerdict::Refused { snapshot, refusal } => Operated::Refused { snapshot, refusal },
            OperateVerdict::NotFound => Operated::NotFound,
            OperateVerdict::Foreign => return Err(Error::Foreign),
            OperateVerdict::Unreadable(header, what) => return Err(unreadable::error(header, &what)),
        })
    }

    /// Settles a dead letter: sends its item again, or throws it away.
    ///
    /// # Errors
    /// When there was no answer; ask again.
    pub async fn settle_letter(&self, request: LetterRequest) -> Result<LetterAnswer, Error> {
        replay::settle(&self.shared, request).await
    }

    async fn answer<T>(&self, verdict: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.shared.options.answer_within, verdict).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Stopping),
            Err(_) => Err(Error::NoAnswer),
        }
    }

    /// The saga as it is now; none when there is no such saga.
    ///
    /// # Errors
    /// When the store fails, or this build can't read the saga.
    pub async fn get(&self, saga_id: Uuid) -> Result<Option<Snapshot>, Error> {
        let mut loaded = self.shared.store.load(&[saga_id]).await?;
        let Some(stored) = loaded.sagas.remove(&saga_id) else { return Ok(None) };
        if self.shared.definition(&stored.header).is_none() {
            self.shared.definitions.catch_up(&*self.shared.store).await?;
        }
        match (stored.state, self.shared.definition(&stored.header)) {
            (State::Known(saga), Some(loaded)) => Ok(Some(Snapshot { header: stored.header, saga, loaded })),
            (State::Known(_), None) | (State::Foreign(_), _) => Err(Error::Foreign),
            (State::Unreadable(what), _) => {
                unreadable::count("read", 1);
                Err(unreadable::error(stored.header, &what))
            }
        }
    }
}

fn start_work(
    request: StartRequest,
    loaded: Arc<Loaded>,
    answer: oneshot::Sender<Result<StartVerdict, Error>>,
) -> StartWork {
    // As it was asked, not as it was understood: `booking` may mean a newer version when the request comes again.
    let asked = json!({"definition": request.definition, "key": request.key, "input": request.input});
    StartWork {
        business_key: request.key,
        actor: request.actor,
        start_key: StartKey { tenant: request.tenant, principal: request.principal, key: request.idempotency_key },
        fingerprint: ids::digest(&asked),
        input: Arc::new(request.input),
        loaded,
        answer,
    }
}

/// Equal start keys go to one worker, so that equal starts meet in one batch.
fn route(key: &StartKey) -> Uuid {
    ids::operation_id(Uuid::nil(), &key.principal, &key.key)
}
