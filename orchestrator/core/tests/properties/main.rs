//! Random worlds: participants that keep the contract or contradict themselves, a network that loses, repeats and reorders,
//! people who press buttons. The invariants are checked after every step, and every world must end well once it heals.

#[path = "../common/mod.rs"]
mod common;

mod world;

mod participants;

mod oracle;

use std::collections::BTreeMap;

use proptest::prelude::*;
use saga_core::Input;
use saga_core::event::Event;
use saga_core::state::Phase;
use saga_core::step::StepState;
use saga_defs::Command;

use world::{Confirming, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_world_keeps_the_invariants_and_ends_once_healed(
        choices in prop::collection::vec(any::<u16>(), 0..300),
        steps in 0_usize..120,
        deadline_ms in prop::option::of(1_000_u64..200_000),
        confirming in prop::sample::select(vec![Confirming::Undoable, Confirming::Final, Confirming::Ordinary]),
        lying in any::<bool>(),
        checking in any::<bool>(),
    ) {
        let mut world = World::new(choices, deadline_ms, confirming, lying, checking);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
    }

    #[test]
    fn two_words_about_an_effect_are_kept_alike_in_either_order(
        choices in prop::collection::vec(any::<u16>(), 0..300),
        steps in 0_usize..60,
        confirming in prop::sample::select(vec![Confirming::Undoable, Confirming::Final, Confirming::Ordinary]),
    ) {
        let mut world = World::new(choices, None, confirming, true, false);
        for _ in 0..steps {
            world.step();
        }
        let of = world.choose(world.desk.sent.len());
        let key = world.desk.sent[of].key;
        let asked: Vec<Command> = world.desk.sent.iter().filter(|sent| sent.key == key).cloned().collect();
        let (first, second) = (world.choose(asked.len()), world.choose(asked.len()));
        let words = [&asked[first], &asked[second]].map(|command| world.say(command));
        let either = [[0, 1], [1, 0]].map(|order| {
            let mut desk = world.desk.clone();
            let running = order.iter().all(|index| {
                let running = !desk.saga.is_ended();
                desk.put(&Input::Reply(words[*index].clone())).expect("replies are never turned down");
                running
            });
            // What is asked about anew in between is another matter.
            let new = desk.history[world.desk.history.len()..].iter().flatten();
            let asks = new.filter(|event| matches!(event, Event::FenceStarted { .. } | Event::Renewed { .. })).count() > 0;
            (running && !asks).then(|| desk.saga.steps[&asked[first].step].clone())
        });
        if let [Some(one), Some(other)] = &either {
            let kept = |state: &StepState| (std::mem::discriminant(&state.effect), state.said.clone(), state.before.clone());
            assert_eq!(kept(one), kept(other), "{words:?} {:#?}", world.desk.saga);
        }
    }
}

/// The worlds above are worth something only if they go everywhere.
#[test]
fn random_worlds_reach_every_end() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0_u64..800 {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from(state >> 48).expect("sixteen bits")
        };
        let choices = (0..300).map(|_| next()).collect();
        let confirming = if seed.is_multiple_of(2) { Confirming::Undoable } else { Confirming::Final };
        let mut world = World::new(choices, None, confirming, false, false);
        for _ in 0..60 {
            world.step();
            if let Some(stuck) = &world.desk.saga.stuck {
                *seen.entry(format!("stuck {:?}", stuck.cause)).or_default() += 1;
            }
            if world.desk.saga.phase == Phase::Fencing {
                *seen.entry("fencing".to_owned()).or_default() += 1;
            }
        }
        world.heal();
        *seen.entry(format!("{:?} {:?}", world.desk.saga.status(), world.desk.saga.decision)).or_default() += 1;
    }
    println!("reached: {seen:#?}");
    for place in [
        "Completed Some(Committed)",
        "Compensated Some(Refused)",
        "Compensated Some(Undone)",
        "Closed Some(Abandoned)",
        "fencing",
        "stuck AttemptsExhausted",
        "stuck CompensationExhausted",
        "stuck RefusedAfterPivot",
    ] {
        assert!(seen.contains_key(place), "never reached {place}: {seen:#?}");
    }
}
