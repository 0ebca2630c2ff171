//! The definitions in use: all that are published, by this build or by another.
//!
//! Must hold: a published definition never changes, so what was read once stays true; a saga whose definition is not
//! known here is looked for in the store before anything is said about it, but not over and over.

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

/// What is known of the published definitions.
#[derive(Debug)]
pub(crate) struct Definitions {
    known: RwLock<Arc<Catalog>>,
    looked: Mutex<Instant>,
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
        Ok(Self { known: RwLock::new(Arc::new(all)), looked: Mutex::new(Instant::now()) })
    }

    /// All that are known.
    pub(crate) fn known(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks into the store for what others published meanwhile, unless that was done just now.
    pub(crate) async fn look_again(&self, store: &dyn Store) {
        let mut looked = self.looked.lock().await;
        if looked.elapsed() < LOOK_EVERY {
            return;
        }
        *looked = Instant::now();
        match read(store).await {
            Ok(all) => *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all),
            Err(error) => tracing::warn!(%error, "the published definitions could not be read"),
        }
    }
}

async fn read(store: &dyn Store) -> Result<Catalog, Error> {
    let mut all = Catalog::default();
    for published in store.definitions().await? {
        let loaded = Definition::from_json(&published.body).and_then(Loaded::new);
        if let Err(error) = loaded.and_then(|loaded| all.add(loaded)) {
            let (name, version) = (&published.name, published.version);
            tracing::warn!(%error, "definition {name}@{version} can't be read by this build; left to others");
        }
    }
    Ok(all)
}
