//! Late replies and published definitions.

use runtime::Clock;
use uuid::Uuid;

use super::world::World;
use crate::{Error, LateReason, LateReply, PublishedDefinition};

fn late(world: &World, saga_id: Uuid, reason: LateReason) -> LateReply {
    LateReply {
        saga_id,
        command_id: world.id(),
        reason,
        reply: r#"{"v":1}"#.to_owned(),
        received_at: world.clock.now(),
    }
}

async fn keep(world: &World, replies: &[LateReply]) {
    world.store.keep_late(replies).await.expect("the store keeps");
}

pub(super) async fn a_late_reply_is_kept_once(world: &World) {
    let saga_id = world.started_one().await.header.id;
    let first = late(world, saga_id, LateReason::Ended);
    world.clock.pass(1);
    let second = late(world, saga_id, LateReason::Contradiction);
    let orphan = late(world, world.id(), LateReason::Orphan);
    keep(world, &[second.clone(), first.clone(), orphan.clone()]).await;
    let again = LateReply { reply: "{}".to_owned(), received_at: world.clock.now(), ..first.clone() };
    keep(world, &[again]).await;
    keep(world, &[]).await;
    let read = async |saga_id| world.store.late(saga_id).await.expect("the store reads");
    assert_eq!(read(saga_id).await, [first.clone(), second]);
    assert_eq!(read(orphan.saga_id).await, [orphan]);

    let many: Vec<LateReply> = (0..600).map(|_| late(world, saga_id, LateReason::Ended)).collect();
    keep(world, &many).await;
    let shown = read(saga_id).await;
    assert_eq!((shown.len(), &shown[0]), (200, &first));
}

pub(super) async fn contradictions_are_told_by_saga(world: &World) {
    let within = async |ids, limit| world.store.contradictions(ids, limit).await.expect("the store reads");
    let all = Uuid::nil()..=Uuid::max();
    assert_eq!(within(all.clone(), 10).await, []);
    let mut ids = [world.id(), world.id(), world.id()];
    ids.sort_unstable();
    let [first, second, third] = ids;
    let reasons = [LateReason::Ended, LateReason::Contradiction, LateReason::Orphan, LateReason::Contradiction];
    keep(world, &reasons.map(|reason| late(world, third, reason))).await;
    keep(world, &[late(world, first, LateReason::Contradiction), late(world, second, LateReason::Overruled)]).await;
    assert_eq!(within(all.clone(), 10).await, [(first, 1), (third, 2)]);
    assert_eq!(within(all, 1).await, [(first, 1)]);
    assert_eq!(within(second..=third, 10).await, [(third, 2)]);
    assert_eq!(within(second..=second, 10).await, []);
}

fn definition(name: &str, version: u32, content: &str) -> PublishedDefinition {
    PublishedDefinition {
        name: name.to_owned(),
        version,
        digest: format!("digest of {content}"),
        body: content.to_owned(),
    }
}

async fn published(world: &World) -> Vec<PublishedDefinition> {
    world.store.definitions().await.expect("the store reads")
}

pub(super) async fn publishing_again_changes_nothing(world: &World) {
    let all = [definition("checkout", 1, "{}"), definition("errand", 2, "[]"), definition("errand", 10, "1")];
    for _ in 0..2 {
        world.store.publish_definitions(&all).await.expect("the store publishes");
        assert_eq!(published(world).await, all);
    }
    world.store.publish_definitions(&[]).await.expect("nothing to publish is no error");
}

pub(super) async fn changed_content_is_refused_whole(world: &World) {
    let first = [definition("errand", 1, "{}")];
    world.store.publish_definitions(&first).await.expect("the store publishes");
    let changed = [definition("checkout", 1, "{}"), definition("errand", 1, "[]")];
    let error = world.store.publish_definitions(&changed).await.expect_err("a published definition never changes");
    assert!(matches!(&error, Error::DefinitionChanged(reference) if reference == "errand@1"), "{error:?}");
    assert_eq!(published(world).await, first);
}

pub(super) async fn the_store_can_be_written(world: &World) {
    let saga = world.started_one().await;
    world.store.check_writable().await.expect("the store can be written");
    assert_eq!(world.state(saga.header.id).await, saga.saga);
    assert_eq!(world.store.outbox_load().await.expect("the store answers").rows, 1);
}
