//! Effects in the participant's own database.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Transactional, TransactionalHandler};
use saga_defs::message::{ALREADY_EXECUTED, FENCED, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::{DatabaseTransaction, DbErr};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::row;
use crate::support::{Counts, database};

/// Keeps a transaction open where effects are made.
struct Hold {
    entered: Semaphore,
    go: Semaphore,
    fails: AtomicBool,
}

impl Default for Hold {
    fn default() -> Self {
        Self { entered: Semaphore::new(0), go: Semaphore::new(0), fails: AtomicBool::new(false) }
    }
}

impl Hold {
    /// Waits until a transaction is inside.
    async fn entered(&self) {
        tokio::time::timeout(LIMIT, self.entered.acquire()).await.expect("a transaction inside").unwrap().forget();
    }

    async fn pass(&self) -> Result<(), DbErr> {
        self.entered.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        if self.fails.load(Ordering::SeqCst) { Err(DbErr::Custom("as the test asked".to_owned())) } else { Ok(()) }
    }
}

/// A participant whose effects are only counted, and which can be held while it makes them.
struct Slow {
    counts: Arc<Counts>,
    undoable: bool,
    hold: Option<Arc<Hold>>,
}

#[async_trait]
impl Transactional for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn undoable(&self) -> bool {
        self.undoable
    }

    async fn execute(
        &self,
        _tx: &DatabaseTransaction,
        _now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        let outcomes = commands.iter().map(|command| self.counts.execute(command)).collect();
        if let Some(hold) = &self.hold {
            hold.pass().await?;
        }
        Ok(outcomes)
    }

    async fn undo(
        &self,
        _tx: &DatabaseTransaction,
        _now: Timestamp,
        commands: &[&Command],
    ) -> Result<Vec<Outcome>, DbErr> {
        Ok(commands.iter().map(|command| self.counts.undo(command.key)).collect())
    }
}

/// Two instances: the first can be held inside its transaction.
struct World {
    owned: Owned,
    counts: Arc<Counts>,
    hold: Arc<Hold>,
    undoable: bool,
    first: TransactionalHandler<Slow>,
    second: TransactionalHandler<Slow>,
}

impl World {
    async fn new(undoable: bool) -> Self {
        let owned = database(Stack::Postgres).await;
        let (counts, hold) = (Arc::new(Counts::default()), Arc::new(Hold::default()));
        let slow = |hold| Slow { counts: Arc::clone(&counts), undoable, hold };
        let first = TransactionalHandler::new(owned.db.clone(), slow(Some(Arc::clone(&hold))));
        let second = TransactionalHandler::new(owned.instance("second").await, slow(None));
        Self { owned, counts, hold, undoable, first, second }
    }

    /// Lets the second instance begin when the first is inside its transaction, and the first end when the second was
    /// seen waiting for it.
    async fn race(&self, first: &[&Command], second: &[&Command]) -> (Option<Vec<Outcome>>, Vec<Outcome>) {
        let after = self.after_the_first(async { self.second.apply(second).await.unwrap() });
        let (first, second) = tokio::join!(self.first.apply(first), after);
        (first.ok(), second)
    }

    async fn after_the_first<T>(&self, second: impl Future<Output = T>) -> T {
        self.hold.entered().await;
        let seen = async {
            self.owned.blocked("second", "first").await;
            self.hold.go.add_permits(1);
        };
        tokio::join!(second, seen).0
    }

    fn counted(&self, key: u128) -> [u64; 2] {
        ["made", "undone"].map(|what| self.counts.get(Uuid::from_u128(key), what))
    }
}

fn execute(key: u128) -> Command {
    command("slow", Uuid::from_u128(key), Verb::Execute, 1, json!({"n": 5}))
}

fn compensate(key: u128) -> Command {
    command("slow", Uuid::from_u128(key), Verb::Compensate, 1, Value::Null)
}

fn made() -> Outcome {
    Outcome::succeeded(json!({"n": 5}))
}

fn refused(outcome: &Outcome, expected: &str) {
    assert!(matches!(outcome, Outcome::Refused { code, .. } if code == expected), "{outcome:?} is not {expected}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_compensate_waits_for_an_execute_under_way_and_undoes_it() {
    let world = World::new(true).await;
    let (first, second) = world.race(&[&execute(1)], &[&compensate(1)]).await;
    assert_eq!(first, Some(vec![made()]));
    assert_eq!(second, [Outcome::succeeded(json!({}))], "something was undone");
    assert_eq!(world.counted(1), [1, 1]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_fence_waits_for_an_execute_under_way_and_learns_that_it_stands() {
    let world = World::new(false).await;
    let (first, second) = world.race(&[&execute(1)], &[&compensate(1)]).await;
    assert_eq!(first, Some(vec![made()]));
    refused(&second[0], ALREADY_EXECUTED);
    assert_eq!(world.counted(1), [1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn an_execute_waits_for_a_compensate_under_way_and_is_fenced() {
    for undoable in [true, false] {
        let world = World::new(undoable).await;
        // The other command keeps the tombstone's transaction open.
        let (first, second) = world.race(&[&compensate(1), &execute(2)], &[&execute(1)]).await;
        assert_eq!(first, Some(vec![Outcome::succeeded(json!({ NOTHING_TO_UNDO: true })), made()]));
        refused(&second[0], FENCED);
        assert_eq!(world.counted(1), [0, 0], "undoable: {}", world.undoable);
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn one_execute_at_two_instances_is_one_effect_with_two_equal_answers() {
    let world = World::new(true).await;
    let (first, second) = world.race(&[&execute(1)], &[&execute(1)]).await;
    assert_eq!(first, Some(vec![made()]));
    assert_eq!(second, [made()]);
    assert_eq!(world.counted(1), [1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn what_was_rolled_back_leaves_the_effect_to_who_waited() {
    for (second, answer) in
        [(execute(1), made()), (compensate(1), Outcome::succeeded(json!({ NOTHING_TO_UNDO: true })))]
    {
        let world = World::new(true).await;
        world.hold.fails.store(true, Ordering::SeqCst);
        let (first, outcomes) = world.race(&[&execute(1)], &[&second]).await;
        assert_eq!(first, None);
        assert_eq!(outcomes, [answer]);
        // What the inbox says now, it says for ever.
        assert_eq!(world.second.apply(&[&second]).await.unwrap(), outcomes);
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_retry_leaves_the_effect_to_who_waited() {
    let world = World::new(true).await;
    let later = command("slow", Uuid::from_u128(1), Verb::Execute, 1, json!({"n": 5, "retries": 1}));
    let (first, second) = world.race(&[&later], &[&later]).await;
    assert_eq!(first, Some(vec![Outcome::Retry { after_ms: 1 }]));
    assert_eq!(second, [made()]);
    assert_eq!(world.counted(1), [1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn keys_are_claimed_in_one_order_whatever_order_they_come_in() {
    let world = World::new(true).await;
    let third = TransactionalHandler::new(
        world.owned.instance("third").await,
        Slow { counts: Arc::clone(&world.counts), undoable: true, hold: None },
    );
    let [low, middle, high] = [execute(10), execute(20), execute(30)];
    // The first holds the middle key. The second comes as far as it; the third must stop at the lowest, for if it had
    // the highest by then, the second and the third would wait for each other.
    let (alone, up, down) = ([&middle], [&low, &middle, &high], [&high, &middle, &low]);
    let others = async {
        world.hold.entered().await;
        let seen = async {
            world.owned.blocked("second", "first").await;
            let seen = async {
                world.owned.blocked("third", "second").await;
                world.hold.go.add_permits(1);
            };
            tokio::join!(third.apply(&down), seen).0.unwrap()
        };
        let (second, third) = tokio::join!(world.second.apply(&up), seen);
        (second.unwrap(), third)
    };
    let (first, (second, third)) = tokio::join!(world.first.apply(&alone), others);
    assert_eq!((first.unwrap().len(), second, third), (1, vec![made(); 3], vec![made(); 3]));
    assert_eq!([10, 20, 30].map(|key| world.counted(key)), [[1, 0]; 3]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn rows_that_are_there_already_are_locked_in_one_order() {
    let world = World::new(true).await;
    let keys = [10, 20, 30];
    // The table has them in the opposite order.
    for key in keys.into_iter().rev() {
        world.second.apply(&[&execute(key)]).await.unwrap();
    }
    let third = TransactionalHandler::new(
        world.owned.instance("third").await,
        Slow { counts: Arc::clone(&world.counts), undoable: true, hold: None },
    );
    let middle = world.owned.hold(&row(Uuid::from_u128(20))).await;
    let [low, middle_again, high] = keys.map(compensate);
    let (up, down) = ([&low, &middle_again, &high], [&high, &middle_again, &low]);
    let seen = async {
        world.owned.blocked("second", "watch").await;
        let seen = async {
            world.owned.blocked("third", "second").await;
            world.owned.free(&row(Uuid::from_u128(30))).await;
            middle.commit().await.unwrap();
        };
        tokio::join!(third.apply(&down), seen).0.unwrap()
    };
    let (second, third) = tokio::join!(world.second.apply(&up), seen);
    assert_eq!(
        (second.unwrap(), third),
        (vec![Outcome::succeeded(json!({})); 3], vec![Outcome::succeeded(json!({})); 3])
    );
    assert_eq!(keys.map(|key| world.counted(key)), [[1, 1]; 3]);
}
