//! Keeps facts that nobody may lose: late replies and dead letters.
//!
//! Not for what they mean. Must hold: a store that is out of reach is waited for; what the store refuses is halved until the
//! guilty one stands alone, is logged, and holds up no other; what is not kept when the engine stops was not acknowledged.

use std::fmt::Debug;
use std::time::Duration;

use runtime::Pause;
use saga_store::Error as StoreError;

use crate::shared::Shared;

/// Wait after the store failed, doubled up to its bound.
const PAUSE: Pause = Pause::new(Duration::from_millis(50), Duration::from_secs(1));

/// What is to be kept. `Debug` shows no personal data.
pub(crate) trait Fact: Debug + Send + Sync + Sized {
    /// Puts some into the store, all or none. Putting one twice does no harm.
    fn put(shared: &Shared, part: &[Self]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// It is kept.
    fn kept(&self);
}

/// Puts parts into the store, the last one first. Returns what the store refuses.
pub(crate) async fn keep<T: Fact>(shared: &Shared, mut parts: Vec<Vec<T>>) -> Vec<T> {
    let (mut pause, mut refused) = (PAUSE, Vec::new());
    while let Some(mut part) = parts.pop() {
        match T::put(shared, &part).await {
            Ok(()) => part.iter().for_each(T::kept),
            Err(error @ (StoreError::Unavailable(_) | StoreError::UnknownCommit(_))) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    facts = part.len(),
                    "facts could not be kept; again soon"
                );
                parts.push(part);
                if !pause.wait(&shared.tasks).await {
                    return refused;
                }
            }
            Err(StoreError::Bug(_) | StoreError::Corrupt(_) | StoreError::DefinitionChanged(_)) if part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            }
            Err(error @ (StoreError::Bug(_) | StoreError::Corrupt(_) | StoreError::DefinitionChanged(_))) => {
                tracing::error!(error = &error as &dyn std::error::Error, fact = ?part, "a fact can't be kept");
                refused.append(&mut part);
            }
        }
    }
    refused
}
