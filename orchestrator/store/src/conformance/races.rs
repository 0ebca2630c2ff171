//! Several parties on the same rows at the same time.
//!
//! Must hold: parties meet at a barrier right before they write, so that each run has its races.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Races;
use super::world::World;
use crate::{Batch, Outcome, Store, Transition};

const PARTIES: usize = 8;
const SAGAS: usize = 20;
const ROUNDS: usize = 5;

/// Runs every race, each in a world of its own.
pub(super) async fn run<F: AsyncFn() -> World>(world: F) -> Races {
    let races = Races {
        commits_lost: each_version_has_one_winner(&world().await).await,
        starts_lost: each_start_key_has_one_saga(&world().await).await,
        claims_short: each_due_row_has_one_claimant(&world().await).await,
    };
    assert!(races.commits_lost > 0 && races.starts_lost > 0 && races.claims_short > 0, "no race was met: {races:?}");
    races
}

/// Has every party commit its batch at the same moment.
async fn meet(world: &World, batches: Vec<Batch>) -> Vec<(Vec<Uuid>, Vec<Outcome>)> {
    let barrier = Arc::new(Barrier::new(batches.len()));
    let mut parties = JoinSet::new();
    for batch in batches {
        let (store, barrier) = (Arc::clone(&world.store), Arc::clone(&barrier));
        let ids: Vec<Uuid> = batch.transitions.iter().map(|next| next.header.id).collect();
        parties.spawn(async move {
            barrier.wait().await;
            (ids, store.commit(batch).await.expect("the store commits").outcomes)
        });
    }
    parties.join_all().await
}

async fn each_version_has_one_winner(world: &World) -> usize {
    let mut last = world.started(SAGAS).await;
    let mut lost = 0;
    for round in 0..ROUNDS {
        let next: Vec<Transition> = last.iter().map(|last| world.bump(last)).collect();
        let mut batches: Vec<Batch> = (0..PARTIES).map(|_| world.batch(&next)).collect();
        // Parties name the sagas in different orders, as they would when they met them in different orders.
        for (party, batch) in batches.iter_mut().enumerate() {
            batch.transitions.rotate_left(party * 2);
        }
        let mut winners: BTreeMap<Uuid, usize> = BTreeMap::new();
        for (id, outcome) in
            meet(world, batches).await.into_iter().flat_map(|(ids, outcomes)| ids.into_iter().zip(outcomes))
        {
            match outcome {
                Outcome::Committed => *winners.entry(id).or_default() += 1,
                Outcome::Lost => lost += 1,
                Outcome::KeyTaken { .. } | Outcome::BusinessKeyTaken { .. } => unreachable!("nothing was started"),
            }
        }
        assert_eq!(winners, next.iter().map(|next| (next.header.id, 1)).collect(), "round {round}");
        last = next;
    }
    for last in &last {
        let seqs: Vec<u64> = world.history(last.header.id).await.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (1..=last.saga.version).collect::<Vec<_>>());
    }
    assert_eq!(lost, ROUNDS * SAGAS * (PARTIES - 1));
    lost
}

async fn each_start_key_has_one_saga(world: &World) -> usize {
    let keys: Vec<Transition> = (0..SAGAS).map(|_| world.start()).collect();
    let with_key = |key: &Transition| Transition { guard: key.guard.clone(), ..world.start() };
    let batches = (0..PARTIES).map(|_| world.batch(&keys.iter().map(with_key).collect::<Vec<_>>())).collect();
    let mut owners: Vec<BTreeSet<Uuid>> = vec![BTreeSet::new(); SAGAS];
    let (mut won, mut lost) = (0, 0);
    for (ids, outcomes) in meet(world, batches).await {
        for ((id, outcome), owners) in ids.into_iter().zip(outcomes).zip(&mut owners) {
            match outcome {
                Outcome::Committed => {
                    won += 1;
                    owners.insert(id);
                }
                Outcome::KeyTaken { saga_id, .. } => {
                    lost += 1;
                    owners.insert(saga_id);
                }
                Outcome::Lost | Outcome::BusinessKeyTaken { .. } => unreachable!("all are starts without such a key"),
            }
        }
    }
    assert_eq!((won, lost), (SAGAS, SAGAS * (PARTIES - 1)));
    assert!(owners.iter().all(|owners| owners.len() == 1), "all are told of the same saga");
    let ids: Vec<Uuid> = owners.into_iter().flatten().collect();
    assert_eq!(world.store.load(&ids).await.expect("the store loads").sagas.len(), SAGAS);
    lost
}

async fn each_due_row_has_one_claimant(world: &World) -> usize {
    for _ in 0..SAGAS {
        world.started_one().await;
    }
    world.clock.pass(1_000);
    let barrier = Arc::new(Barrier::new(PARTIES));
    let mut parties = JoinSet::new();
    for _ in 0..PARTIES {
        let (store, barrier) = (Arc::clone(&world.store), Arc::clone(&barrier));
        parties.spawn(async move {
            barrier.wait().await;
            claim(&*store).await
        });
    }
    let claims = parties.join_all().await;
    let short = claims.iter().filter(|claim| claim.len() < CLAIM).count();
    let claimed: Vec<Uuid> = claims.into_iter().flatten().collect();
    let distinct: BTreeSet<Uuid> = claimed.iter().copied().collect();
    assert_eq!((claimed.len(), distinct.len()), (SAGAS, SAGAS), "a row was claimed twice or by nobody");
    short
}

/// Rows that each party asks for: together more than there are.
const CLAIM: usize = SAGAS / 2;

async fn claim(store: &dyn Store) -> Vec<Uuid> {
    let claimed = store.claim_outbox(CLAIM as u64, 60_000).await.expect("the store claims");
    claimed.into_iter().map(|message| message.id).collect()
}
