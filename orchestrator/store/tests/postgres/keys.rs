//! Two instances that start the same thing at the same time, in both orders, and when the first one fails; with each text of the
//! commit.

use std::sync::Arc;

use saga_store::{Error, Outcome, SqlStore, Store, Transition};

use crate::world::{World, outcome, version};

/// A text of the commit.
#[derive(Clone, Copy, PartialEq)]
enum Text {
    /// Of one transition.
    Alone,
    /// Of several that count on nobody to lose.
    Smooth,
    /// Of several, which finds out who wins.
    Careful,
}

const TEXTS: [Text; 3] = [Text::Alone, Text::Smooth, Text::Careful];

impl Text {
    async fn world(self) -> World {
        World::with(self == Self::Careful).await
    }

    /// A batch that is written by this text, and is about this start first.
    fn batch(self, world: &World, start: &Transition) -> Vec<Transition> {
        match self {
            Self::Alone | Self::Careful => vec![start.clone()],
            Self::Smooth => vec![start.clone(), world.start()],
        }
    }
}

/// Has `first` commit up to its last table, `second` wait for it, and then lets the first go on or fail.
async fn race(
    (world, text): (&World, Text),
    first: &Transition,
    second: &Transition,
    fails: bool,
) -> [Result<Outcome, Error>; 2] {
    let (one, other) = (world.instance("one").await, world.instance("other").await);
    let mut holder = world.holder().await;
    holder.take_history(first.header.id, 1).await;
    let first = world.begin(&one, &text.batch(world, first));
    holder.waits("one", 1).await;
    let second = world.begin(&other, &text.batch(world, second));
    holder.waits("other", 1).await;
    assert!(holder.waits_for("other", "one").await);
    if fails {
        holder.commit().await
    } else {
        holder.roll_back().await
    }
    let alone = |outcomes: Vec<Outcome>| outcomes.into_iter().next().unwrap();
    [outcome(first).await.map(alone), outcome(second).await.map(alone)]
}

/// Whether this start failed; or, as a second text is tried for it, met the one that had waited for it.
fn failed(first: &Result<Outcome, Error>, second: &Transition, text: Text) -> bool {
    let id = second.header.id;
    match first {
        Err(error) => matches!(error, Error::Bug(_)),
        Ok(Outcome::KeyTaken { saga_id, .. } | Outcome::BusinessKeyTaken { saga_id }) => {
            *saga_id == id && text == Text::Smooth
        }
        Ok(Outcome::Committed | Outcome::Lost) => false,
    }
}

/// The sagas that a start key and an input lead to.
async fn leads_somewhere(world: &World) {
    let mut holder = world.holder().await;
    assert_eq!(holder.count("start_keys where saga_id not in (select id from sagas)").await, 0);
    assert_eq!(holder.count("sagas where id not in (select saga_id from start_keys)").await, 0);
    assert_eq!(holder.count("saga_inputs").await, holder.count("sagas").await);
}

async fn known(store: &SqlStore, start: &Transition) -> bool {
    version(store, start.header.id).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_starts_with_one_start_key_the_first_wins_and_the_second_learns_of_it() {
    for text in TEXTS {
        for older_first in [true, false] {
            let world = text.world().await;
            let store = world.instance("reader").await;
            let (mut first, mut second) = (world.start(), world.start());
            second.guard = first.guard.clone();
            if !older_first {
                std::mem::swap(&mut first, &mut second);
            }
            let [won, lost] = race((&world, text), &first, &second, false).await;
            assert_eq!(won.unwrap(), Outcome::Committed);
            let taken = Outcome::KeyTaken { saga_id: first.header.id, fingerprint: "asked".to_owned() };
            assert_eq!(lost.unwrap(), taken);
            assert!(known(&store, &first).await && !known(&store, &second).await);
            leads_somewhere(&world).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_start_key_is_free_again_when_the_first_start_fails() {
    for text in TEXTS {
        let world = text.world().await;
        let store = world.instance("reader").await;
        let first = world.start();
        let second = world.start_like(&first);
        let [lost, won] = race((&world, text), &first, &second, true).await;
        assert!(failed(&lost, &second, text), "{lost:?}");
        assert_eq!(won.unwrap(), Outcome::Committed);
        assert!(!known(&store, &first).await && known(&store, &second).await);
        leads_somewhere(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_starts_with_one_business_key_the_first_wins_and_the_second_keeps_its_start_key_free() {
    for text in TEXTS {
        for older_first in [true, false] {
            let world = text.world().await;
            let store = world.instance("reader").await;
            let (mut first, mut second) = (world.start_about("visit"), world.start_about("visit"));
            if !older_first {
                std::mem::swap(&mut first, &mut second);
            }
            let [won, lost] = race((&world, text), &first, &second, false).await;
            assert_eq!(won.unwrap(), Outcome::Committed);
            assert_eq!(lost.unwrap(), Outcome::BusinessKeyTaken { saga_id: first.header.id });
            assert!(known(&store, &first).await && !known(&store, &second).await);
            leads_somewhere(&world).await;

            Arc::make_mut(&mut second.header).key = None;
            assert_eq!(world.commit(&store, &[second]).await, [Outcome::Committed], "its start key is free");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_business_key_is_free_again_when_the_first_start_fails() {
    for text in TEXTS {
        let world = text.world().await;
        let (first, second) = (world.start_about("visit"), world.start_about("visit"));
        let [lost, won] = race((&world, text), &first, &second, true).await;
        assert!(failed(&lost, &second, text), "{lost:?}");
        assert_eq!(won.unwrap(), Outcome::Committed);
        leads_somewhere(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_start_never_waits_for_a_saga_with_its_business_key_that_is_moving() {
    for text in TEXTS {
        let world = text.world().await;
        let (one, other) = (world.instance("one").await, world.instance("other").await);
        let first = world.start_about("visit");
        assert_eq!(world.commit(&one, std::slice::from_ref(&first)).await, [Outcome::Committed]);
        let mut holder = world.holder().await;
        let next = world.next(&first);
        holder.take_history(first.header.id, 2).await;
        let moving = world.begin(&one, &[next]);
        holder.waits("one", 1).await;
        // Else two instances, each moving one saga and starting about the other's, would wait in a circle.
        let taken = Outcome::BusinessKeyTaken { saga_id: first.header.id };
        let outcomes = world.commit(&other, &text.batch(&world, &world.start_about("visit"))).await;
        assert_eq!(outcomes[0], taken);
        holder.roll_back().await;
        assert_eq!(outcome(moving).await.unwrap(), [Outcome::Committed]);
        let others = outcomes.len() as u64 - 1;
        assert_eq!(one.count_open().await.unwrap().iter().map(|(_, sagas)| sagas).sum::<u64>(), 1 + others);
    }
}
