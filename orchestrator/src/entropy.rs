//! Where new ids and seeds come from, as a port.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use saga_defs::Timestamp;
use uuid::{Builder, Uuid};

/// Gives random bits.
pub trait Entropy: Send + Sync + fmt::Debug + 'static {
    /// Sixty-four of them.
    fn bits(&self) -> u64;

    /// A UUIDv7 for this instant.
    fn id(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.0 / 1_000).unwrap_or(0);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.bits().to_be_bytes());
        random[8..].copy_from_slice(&self.bits().to_be_bytes()[..2]);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// The operating system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomEntropy;

impl Entropy for RandomEntropy {
    fn bits(&self) -> u64 {
        Uuid::new_v4().as_u64_pair().1
    }
}

/// A fixed sequence, for the simulator.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn bits(&self) -> u64 {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &n.to_be_bytes()).as_u64_pair().0
    }
}
