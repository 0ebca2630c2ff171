//! Claims, pushes and confirms of outbox rows.

use uuid::Uuid;

use super::world::World;
use crate::{OutboxLoad, OutboxMessage};

fn ids(messages: &[OutboxMessage]) -> Vec<Uuid> {
    messages.iter().map(|message| message.id).collect()
}

pub(super) async fn a_message_has_a_head_start(world: &World) {
    let born = world.win(&[world.start()]).await;
    world.clock.pass(999);
    assert!(world.claim(10, 100).await.is_empty());
    world.clock.pass(1);
    let claimed = world.claim(10, 100).await;
    assert_eq!(ids(&claimed), ids(&born));
    assert!(claimed[0].body == born[0].body && claimed[0].participant == born[0].participant);
}

pub(super) async fn a_claim_pushes_further_each_time(world: &World) {
    world.started_one().await;
    world.clock.pass(1_000);
    for (attempts, pause_ms) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_600), (6, 3_200), (7, 3_200)] {
        let claimed = world.claim(10, 100).await;
        let attempt: Vec<u32> = claimed.iter().map(|message| message.attempts).collect();
        assert_eq!(attempt, [attempts]);
        world.clock.pass(pause_ms - 1);
        assert!(world.claim(10, 100).await.is_empty(), "claimed again within {pause_ms} ms");
        world.clock.pass(1);
    }
}

pub(super) async fn the_oldest_due_are_claimed_first(world: &World) {
    let mut born = Vec::new();
    for _ in 0..5 {
        born.extend(ids(&world.win(&[world.start()]).await));
        world.clock.pass(10);
    }
    world.clock.pass(1_000);
    let mut claimed = Vec::new();
    for expected in [2, 2, 1, 0] {
        let page = ids(&world.claim(2, 60_000).await);
        assert_eq!(page.len(), expected);
        claimed.extend(page);
    }
    assert_eq!(claimed, born);
}

pub(super) async fn released_rows_are_due_at_once(world: &World) {
    let born = ids(&world.win(&[world.start()]).await);
    assert!(world.claim(10, 60_000).await.is_empty(), "born with a head start");
    world.store.release_outbox().await.expect("the store releases");
    assert_eq!(ids(&world.claim(10, 60_000).await), born);
    assert!(world.claim(10, 60_000).await.is_empty(), "a claim still pushes");
}

pub(super) async fn extended_rows_wait_and_confirmed_rows_are_gone(world: &World) {
    let mut born = Vec::new();
    for _ in 0..3 {
        born.extend(ids(&world.win(&[world.start()]).await));
    }
    world.store.extend_outbox(&born[..2], 5_000).await.expect("the store extends");
    world.store.confirm_outbox(&[born[0], world.id()]).await.expect("the store confirms");
    world.store.extend_outbox(&[], 1).await.expect("nothing to extend is no error");
    world.store.confirm_outbox(&[]).await.expect("nothing to confirm is no error");
    world.clock.pass(1_500);
    let load = world.store.outbox_load().await.expect("the store answers");
    assert_eq!(load, OutboxLoad { rows: 2, oldest_ms: 1_500 });
    assert_eq!(ids(&world.claim(10, 60_000).await), [born[2]]);
    world.clock.pass(3_500);
    assert_eq!(ids(&world.claim(10, 60_000).await), [born[1]]);
    world.store.extend_outbox(&born[1..], 100).await.expect("the store extends");
    world.clock.pass(1_000);
    assert!(world.claim(10, 60_000).await.is_empty(), "nothing is pulled nearer");
    world.store.confirm_outbox(&born).await.expect("the store confirms");
    assert_eq!(world.store.outbox_load().await.expect("the store answers"), OutboxLoad::default());
}
