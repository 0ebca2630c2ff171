//! A server that goes away and comes back, and callers that go away.

use saga_store::{Error, Outcome, Store};
use testkit::Services;

use crate::world::{LIMIT, World};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_restart_of_the_server_costs_transient_errors_and_nothing_else() {
    let services = Services::private_postgres().await;
    let world = World::on(&services).await;
    let one = world.instance("one").await;
    let start = world.started(&one, 1).await.remove(0);

    services.database().stop_immediate().await.unwrap();
    let error = one.load(&[start.header.id]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let error = one.commit(world.batch(&[world.next(&start)])).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_) | Error::UnknownCommit(_)), "{error:?}");
    assert!(matches!(one.check_writable().await, Err(Error::Unavailable(_) | Error::UnknownCommit(_))));

    services.database().start().await.unwrap();
    let outcomes = testkit::eventually(LIMIT, "a commit", async || {
        let committed = one.commit(world.batch(&[world.next(&start)])).await;
        committed.map(|committed| committed.outcomes)
    });
    assert_eq!(outcomes.await, [Outcome::Committed], "the store was not opened again");
    one.check_writable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn callers_that_go_away_leave_no_session_in_a_transaction() {
    let world = World::new().await;
    let one = world.instance("one").await;
    let started = world.started(&one, 1).await.remove(0);
    let id = started.header.id;
    let ids = [id];
    let batch = world.batch(&[world.next(&started)]);
    let commit_id = batch.commit_id;
    // Each is begun, and dropped at its first wait.
    for _ in 0..8 {
        tokio::select! { biased; _ = one.load(&ids) => {} () = std::future::ready(()) => {} }
        tokio::select! { biased; _ = one.claim_outbox(1, 0) => {} () = std::future::ready(()) => {} }
        tokio::select! { biased; _ = one.check_writable() => {} () = std::future::ready(()) => {} }
        tokio::select! { biased; _ = one.publish_definitions(&[]) => {} () = std::future::ready(()) => {} }
    }
    tokio::select! { biased; _ = one.commit(batch) => {} () = std::future::ready(()) => {} }

    // Seen from outside first: to ask for a commit that has not arrived yet forbids it.
    let mut holder = world.holder().await;
    testkit::eventually(LIMIT, "the commit happens all the same", async || {
        match holder.count("history where seq = 2").await {
            1 => Ok(()),
            count => Err(format!("{count} rows tell of it")),
        }
    })
    .await;
    assert_eq!(one.committed(commit_id, &ids).await.unwrap(), [id]);
    let idle = format!(
        "pg_stat_activity where application_name = '{}' and state like 'idle in transaction%'",
        world.application("one")
    );
    testkit::eventually(LIMIT, "no session is left in a transaction", async || match holder.count(&idle).await {
        0 => Ok(()),
        count => Err(format!("{count} are")),
    })
    .await;
    // What is written now is seen from outside.
    world.started(&one, 3).await;
    assert_eq!(holder.count("sagas").await, 4);
}
