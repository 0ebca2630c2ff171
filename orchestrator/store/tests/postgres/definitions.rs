//! Two who publish the same version of a definition at once.

use saga_store::{Error, PublishedDefinition, SqlStore, Store};

use crate::world::{LIMIT, World};

fn definition(name: &str, content: &str) -> PublishedDefinition {
    PublishedDefinition { name: name.to_owned(), version: 1, digest: content.to_owned(), body: content.to_owned() }
}

/// Publishes beside the test.
#[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn publish(store: &SqlStore, all: Vec<PublishedDefinition>) -> tokio::task::JoinHandle<Result<(), Error>> {
    let store = store.clone();
    tokio::spawn(async move { store.publish_definitions(&all).await })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_contents_that_are_published_at_once_one_is_refused_whole() {
    for (content, refused) in [("mine", true), ("theirs", false)] {
        let world = World::new().await;
        let one = world.instance("one").await;
        let mut holder = world.holder().await;
        holder
            .run(
                "insert into definitions (name, version, digest, body, published_at) \
                 values ('errand', 1, 'theirs', 'theirs', 0)",
            )
            .await;
        let publishing = publish(&one, vec![definition("checkout", "mine"), definition("errand", content)]);
        holder.waits("one", 1).await;
        holder.commit().await;
        let published = tokio::time::timeout(LIMIT, publishing).await.expect("it ends").unwrap();
        let there: Vec<String> =
            one.definitions().await.unwrap().into_iter().map(|it| it.name + "=" + &it.body).collect();
        if refused {
            assert!(matches!(&published, Err(Error::DefinitionChanged(of)) if of == "errand@1"), "{published:?}");
            assert_eq!(there, ["errand=theirs"], "all or nothing");
        } else {
            published.unwrap();
            assert_eq!(there, ["checkout=mine", "errand=theirs"]);
        }
    }
}
