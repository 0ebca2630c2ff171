//! The definitions in use: all that are published, by this build or by another.
//!
//! Must hold: a published definition never changes, so what was read once stays true; a saga whose definition is not
//! known here is looked for in the store before anything is said about it, but not over and over; nobody is told that
//! there is no such definition on the word of a look that came too early or failed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use saga_core::FORMAT;
use saga_defs::Definition;
use saga_defs::catalog::{Catalog, Loaded};
use saga_store::{PublishedDefinition, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Error;

/// The least time between two looks into the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for a look of one's own.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// What is known of the published definitions.
#[derive(Debug)]
pub(crate) struct Definitions {
    known: RwLock<Arc<Catalog>>,
    looked: Mutex<Looked>,
}

/// When somebody looked, and when somebody looked and saw.
#[derive(Debug)]
struct Looked {
    begun: Instant,
    seen: Instant,
}

impl Definitions {
    /// Publishes the given definitions and reads all that are published.
    pub(crate) async fn publish(store: &dyn Store, catalog: &Catalog) -> Result<Self, Error> {
        let ours: Vec<PublishedDefinition> = catalog
            .iter()
            .map(|loaded| PublishedDefinition {
                name: loaded.definition.name.clone(),
                version: loaded.definition.version,
                digest: loaded.digest.clone(),
                body: serde_json::to_string(&loaded.definition).expect("definitions are JSON"),
            })
            .collect();
        store.publish_definitions(&ours).await?;
        let all = read(store).await?;
        tracing::info!(definitions = all.iter().count(), format = FORMAT, "definitions are published");
        let now = Instant::now();
        Ok(Self { known: RwLock::new(Arc::new(all)), looked: Mutex::new(Looked { begun: now, seen: now }) })
    }

    /// All that are known.
    pub(crate) fn known(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks into the store for what others published meanwhile, unless that was done or begun just now. For those who
    /// can leave what they do not know to others.
    pub(crate) async fn look_again(&self, store: &dyn Store) {
        let Ok(mut looked) = self.looked.try_lock() else { return };
        if looked.begun.elapsed() < LOOK_EVERY {
            return;
        }
        if let Err(error) = self.look(&mut looked, store).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the published definitions could not be read");
        }
    }

    /// Afterwards all is known that was published before the call, which may have to wait for its turn to look. For those
    /// who say that there is no such definition.
    pub(crate) async fn catch_up(&self, store: &dyn Store) -> Result<(), Error> {
        let asked = Instant::now();
        let look = async {
            let mut looked = self.looked.lock().await;
            if looked.seen > asked {
                return Ok(());
            }
            tokio::time::sleep_until(looked.begun + LOOK_EVERY).await;
            self.look(&mut looked, store).await
        };
        tokio::time::timeout(CATCH_UP_MAX, look).await.unwrap_or(Err(Error::NoAnswer))
    }

    async fn look(&self, looked: &mut Looked, store: &dyn Store) -> Result<(), Error> {
        looked.begun = Instant::now();
        let all = read(store).await?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        looked.seen = looked.begun;
        Ok(())
    }
}

async fn read(store: &dyn Store) -> Result<Catalog, Error> {
    let mut all = Catalog::default();
    for published in store.definitions().await? {
        let loaded = Definition::from_json(&published.body).and_then(Loaded::new);
        if let Err(error) = loaded.and_then(|loaded| all.add(loaded)) {
            let (name, version) = (&published.name, published.version);
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "definition {name}@{version} can't be read by this build; left to others"
            );
        }
    }
    Ok(all)
}
