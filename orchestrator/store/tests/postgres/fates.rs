//! Commits whose answer is lost: before they arrive, while they run, and after they are done.

use saga_store::{Error, Outcome, Store};
use testkit::proxy::{Cut, Plan, Proxy};
use uuid::Uuid;

use crate::world::{World, begin, outcome, version};

/// What only the commit's text has.
const COMMIT: &str = "insert into history";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_commit_whose_answer_is_lost_is_found_or_never_happens() {
    let world = World::new().await;
    let proxy = Proxy::before(world.schemas.url()).await.unwrap();
    let one = world.instance_at(&proxy.url(world.schemas.url()), "one").await;
    let started = world.started(&one, 2).await;
    for (cut, arrives) in [(Cut::Before, false), (Cut::Answered, true)] {
        let batch = world.batch(&[world.next(&started[usize::from(arrives)]), world.start()]);
        proxy.plan(Plan::next(COMMIT, cut));
        let error = one.commit(batch.clone()).await.unwrap_err();
        assert!(matches!(error, Error::UnknownCommit(_)), "{error:?}");
        assert_eq!(proxy.bites(), 1);
        let found = testkit::eventually(crate::world::LIMIT, "the fate", async || {
            one.committed(batch.commit_id, &batch.ids()).await
        });
        let found = found.await;
        assert_eq!(found, if arrives { batch.ids() } else { Vec::new() });
        // What was not found is decided again, and what was found is not done twice.
        let again = world.commit(&one, &batch.transitions).await;
        let fresh = batch.transitions[1].header.id;
        let known = Outcome::KeyTaken { saga_id: fresh, fingerprint: "asked".to_owned() };
        let expected = if arrives { [Outcome::Lost, known] } else { [Outcome::Committed, Outcome::Committed] };
        assert_eq!(again, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn who_asks_for_a_lost_commit_that_still_runs_waits_for_its_end() {
    // What is alone has a text of its own, and others one that counts on everybody to win.
    for (fails, company) in [(false, false), (true, false), (false, true), (true, true)] {
        let world = World::new().await;
        let proxy = Proxy::before(world.schemas.url()).await.unwrap();
        let one = world.instance_at(&proxy.url(world.schemas.url()), "one").await;
        let other = world.instance("other").await;
        let start = world.start();
        let mut transitions = vec![start.clone()];
        transitions.extend(company.then(|| world.start()));
        let batch = world.batch(&transitions);
        let mut holder = world.holder().await;
        holder.take_history(start.header.id, 1).await;
        proxy.plan(Plan::next(COMMIT, Cut::Sent));
        let error = outcome(begin(&one, batch.clone())).await.unwrap_err();
        assert!(matches!(error, Error::UnknownCommit(_)), "{error:?}");
        assert_eq!(proxy.bites(), 1);
        // The client is gone, and its statement goes on.
        holder.waits("one", 1).await;

        let ids = batch.ids();
        let asked = other.committed(batch.commit_id, &ids);
        let look = async {
            holder.waits("other", 1).await;
            assert!(holder.waits_for("other", "one").await);
            if fails { holder.commit().await } else { holder.roll_back().await }
        };
        let (found, ()) = tokio::join!(asked, look);
        assert_eq!(found.unwrap(), if fails { Vec::new() } else { batch.ids() });
        assert_eq!(version(&other, start.header.id).await.is_some(), !fails);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_commit_that_comes_after_it_was_asked_for_changes_nothing() {
    let world = World::new().await;
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    let start = world.started(&one, 1).await.remove(0);
    let mut holder = world.holder().await;
    // What is alone has texts of its own, one for a start and one for a change.
    for transitions in [vec![world.start()], vec![world.next(&start)], vec![world.next(&start), world.start()]] {
        let batch = world.batch(&transitions);
        let before = holder.rows().await;
        assert_eq!(other.committed(batch.commit_id, &batch.ids()).await.unwrap(), Vec::<Uuid>::new());
        let late = one.commit(batch.clone()).await.unwrap();
        assert!(late.outcomes.iter().all(|outcome| *outcome == Outcome::Lost), "{:?}", late.outcomes);
        assert!(late.messages.is_empty());
        assert_eq!(holder.rows().await, before);
        let asked = other.committed(batch.commit_id, &batch.ids()).await.unwrap();
        assert_eq!(asked, Vec::<Uuid>::new(), "and it stays so");
    }
    let batch = [world.next(&start), world.start()];
    assert_eq!(world.commit(&one, &batch).await, [Outcome::Committed, Outcome::Committed]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn fates_that_everybody_knows_do_not_pile_up() {
    let world = World::new().await;
    let one = world.instance("one").await;
    for _ in 0..200 {
        world.started(&one, 1).await;
    }
    let mut holder = world.holder().await;
    assert!(holder.count("commit_fates").await < 100);
    // What an instance left behind when it died goes when somebody asks, an hour later.
    world.clock.pass(2 * 3_600_000);
    assert_eq!(one.committed(Uuid::now_v7(), &[]).await.unwrap(), Vec::<Uuid>::new());
    assert_eq!(holder.count("commit_fates").await, 1);
}
