//! Trouble on purpose: at-least-once means more than once, out of order and sometimes not at all.
//!
//! Must hold: the same seed and the same calls give the same trouble; every bite is counted, so that a test can show
//! that it was bitten.

/// Which trouble to make; percentages of deliveries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Equal seeds give equal trouble.
    pub seed: u64,
    /// How often a message is delivered a second time.
    pub redeliver_percent: u8,
    /// How often a later message overtakes.
    pub reorder_percent: u8,
    /// How often a message vanishes instead of being delivered; its publisher hears that it is not confirmed.
    pub lose_percent: u8,
}

/// How often each fault bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bites {
    /// Messages delivered a second time.
    pub redelivered: u64,
    /// Messages that overtook others.
    pub reordered: u64,
    /// Messages that vanished.
    pub lost: u64,
}

/// Rolls for trouble.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    state: u64,
    pub(super) bites: Bites,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, state: faults.seed, bites: Bites::default() }
    }

    /// Which of `waiting` messages comes next.
    pub(super) fn position(&mut self, waiting: usize) -> usize {
        if waiting < 2 || !self.hit(self.faults.reorder_percent) {
            return 0;
        }
        self.bites.reordered += 1;
        1 + self.below(waiting - 1)
    }

    pub(super) fn loses(&mut self) -> bool {
        let hit = self.hit(self.faults.lose_percent);
        self.bites.lost += u64::from(hit);
        hit
    }

    /// Whether to deliver again, and if so, whether at once rather than behind all that waits.
    pub(super) fn redelivers(&mut self) -> Option<bool> {
        let hit = self.hit(self.faults.redeliver_percent);
        self.bites.redelivered += u64::from(hit);
        hit.then(|| self.hit(50))
    }

    fn hit(&mut self, percent: u8) -> bool {
        // Certainty and impossibility roll too, so that changing one percentage leaves the other rolls alone.
        self.below(100) < usize::from(percent)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    /// SplitMix64: tiny, seeded, good enough to make trouble.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
