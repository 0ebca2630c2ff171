//! Delays between attempts: exponential with full jitter, from the saga's seed.
//!
//! Must hold: the same saga, step, verb and attempt give the same delay, so that a replayed decision is the same.
//! Full jitter spreads retries best: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use saga_defs::{Retry, Verb};

/// Delay in milliseconds before the attempt that follows `spent` used-up ones.
#[must_use]
pub fn delay_ms(policy: &Retry, seed: u64, step: &str, verb: Verb, spent: u32) -> u64 {
    let doubled = policy.backoff_ms.saturating_mul(1_u64.checked_shl(spent.saturating_sub(1)).unwrap_or(u64::MAX));
    let bound = doubled.min(policy.backoff_max_ms);
    let mut state = seed ^ u64::from(spent);
    for byte in step.bytes().chain(verb.as_str().bytes()) {
        state = mix(state ^ u64::from(byte));
    }
    mix(state) % (bound + 1)
}

/// SplitMix64's finalizer: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_use_its_whole_width() {
        let policy = Retry { backoff_ms: 500, backoff_max_ms: 8_000, ..Retry::default() };
        for (spent, bound) in [(1, 500), (2, 1_000), (5, 8_000), (40, 8_000), (200, 8_000)] {
            let delays: Vec<u64> =
                (0..500).map(|seed| delay_ms(&policy, seed, "payment", Verb::Execute, spent)).collect();
            assert!(delays.iter().all(|delay| *delay <= bound), "{spent}");
            assert!(delays.iter().any(|delay| *delay < bound / 5) && delays.iter().any(|delay| *delay > bound / 5 * 4));
        }
    }

    #[test]
    fn the_same_question_has_the_same_answer() {
        let policy = Retry::default();
        let ask = || delay_ms(&policy, 42, "payment", Verb::Compensate, 3);
        assert_eq!(ask(), ask());
    }
}
