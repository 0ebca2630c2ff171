//! Effects in the participant's own database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use db::Transaction;
use fixture::{LIMIT, Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Transactional, TransactionalHandler};
use saga_defs::message::{ALREADY_EXECUTED, FENCED, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::DbErr;
use sea_orm::sea_query::{InsertStatement, Query};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::row;
use crate::support::{Counts, Table, create_effects, database, effects};

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

    /// Lets everybody through from now on.
    fn open(&self) {
        self.go.add_permits(100);
    }

    async fn pass(&self) -> Result<(), DbErr> {
        self.entered.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        if self.fails.load(Ordering::SeqCst) { Err(DbErr::Custom("as the test asked".to_owned())) } else { Ok(()) }
    }
}

/// A participant whose effects are rows, and which can be held while it makes them.
struct Slow {
    table: Table,
    hold: Option<Arc<Hold>>,
}

#[async_trait]
impl Transactional for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn undoable(&self) -> bool {
        self.table.undoable
    }

    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let outcomes = self.table.execute(tx, now, commands).await?;
        if let Some(hold) = &self.hold {
            hold.pass().await?;
        }
        Ok(outcomes)
    }

    async fn undo(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        self.table.undo(tx, now, commands).await
    }
}

/// A key after all others, which the first instance writes last.
const LAST: u128 = u128::MAX;

/// Two instances: the first can be held inside its transaction.
struct World {
    owned: Owned,
    calls: Arc<Counts>,
    hold: Arc<Hold>,
    first: TransactionalHandler<Slow>,
    second: TransactionalHandler<Slow>,
}

impl World {
    async fn new(undoable: bool) -> Self {
        let owned = database(Stack::Postgres).await;
        create_effects(&owned.db).await;
        let (calls, hold) = (Arc::new(Counts::default()), Arc::new(Hold::default()));
        let slow = |hold| Slow { table: Table { counts: Arc::clone(&calls), undoable }, hold };
        let first = TransactionalHandler::new(owned.db.clone(), slow(Some(Arc::clone(&hold))));
        let second = TransactionalHandler::new(owned.instance("second").await, slow(None));
        Self { owned, calls, hold, first, second }
    }

    /// The second instance goes through while the first is making its effects.
    async fn while_making(&self, first: &[&Command], second: &[&Command]) -> (Vec<Outcome>, Vec<Outcome>) {
        let after = async {
            self.hold.entered().await;
            let second = self.second.apply(second).await.unwrap();
            self.hold.open();
            second
        };
        let (first, second) = tokio::join!(self.first.apply(first), after);
        (first.unwrap(), second)
    }

    /// The second instance comes when the first has written its rows and is not committed. Then the first commits, or,
    /// where it is `beaten`, is rolled back and begins again.
    async fn when_written(
        &self,
        first: &[&Command],
        second: &[&Command],
        beaten: bool,
    ) -> (Vec<Outcome>, Vec<Outcome>) {
        self.hold.open();
        // The last row of the first is one that somebody else is just writing.
        let last = self.owned.write(&inbox_row(LAST)).await;
        let (extra, mut longer) = (execute(LAST), first.to_vec());
        longer.push(&extra);
        let after = async {
            self.owned.blocked("first", "watch").await;
            let seen = async {
                self.owned.blocked("second", "first").await;
                if beaten { last.commit().await } else { last.rollback().await }.unwrap();
            };
            tokio::join!(self.second.apply(second), seen).0.unwrap()
        };
        let (outcomes, second) = tokio::join!(self.first.apply(&longer), after);
        let mut outcomes = outcomes.unwrap();
        outcomes.truncate(first.len());
        (outcomes, second)
    }

    /// Effects made and undone.
    async fn counted(&self, key: u128) -> [usize; 2] {
        let (db, key) = (&self.owned.db, Uuid::from_u128(key));
        [effects(db, key, "made").await, effects(db, key, "undone").await]
    }
}

/// A row of another participant.
fn inbox_row(key: u128) -> InsertStatement {
    let key = Uuid::from_u128(key);
    let columns =
        ["key", "participant", "saga_id", "tenant", "state", "undo_requested", "calls", "created_at", "updated_at"];
    let row = [
        key.into(),
        "watch".into(),
        key.into(),
        "default".into(),
        "executed".into(),
        false.into(),
        0.into(),
        0_i64.into(),
        0_i64.into(),
    ];
    Query::insert().into_table("inbox").columns(columns).values_panic(row).to_owned()
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

fn nothing_to_undo() -> Outcome {
    Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }))
}

fn refused(outcome: &Outcome, expected: &str) {
    assert!(matches!(outcome, Outcome::Refused { code, .. } if code == expected), "{outcome:?} is not {expected}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_compensate_waits_for_an_execute_that_is_written_and_undoes_it() {
    let world = World::new(true).await;
    let (first, second) = world.when_written(&[&execute(1)], &[&compensate(1)], false).await;
    assert_eq!(first, [made()]);
    assert_eq!(second, [Outcome::succeeded(json!({}))], "something was undone");
    assert_eq!(world.counted(1).await, [1, 1]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_fence_waits_for_an_execute_that_is_written_and_learns_that_it_stands() {
    let world = World::new(false).await;
    let (first, second) = world.when_written(&[&execute(1)], &[&compensate(1)], false).await;
    assert_eq!(first, [made()]);
    refused(&second[0], ALREADY_EXECUTED);
    assert_eq!(world.counted(1).await, [1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_compensate_that_overtakes_an_execute_fences_it() {
    for undoable in [true, false] {
        let world = World::new(undoable).await;
        let (first, second) = world.while_making(&[&execute(1)], &[&compensate(1)]).await;
        refused(&first[0], FENCED);
        assert_eq!(second, [nothing_to_undo()]);
        assert_eq!(world.counted(1).await, [0, 0], "undoable: {undoable}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn an_execute_waits_for_a_compensate_that_is_written_and_is_fenced() {
    for undoable in [true, false] {
        let world = World::new(undoable).await;
        let (first, second) = world.when_written(&[&compensate(1)], &[&execute(1)], false).await;
        assert_eq!(first, [nothing_to_undo()]);
        refused(&second[0], FENCED);
        assert_eq!(world.counted(1).await, [0, 0], "undoable: {undoable}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn an_execute_that_overtakes_a_compensate_is_undone_or_stands() {
    for undoable in [true, false] {
        let world = World::new(undoable).await;
        // The other command keeps the tombstone's transaction open.
        let (first, second) = world.while_making(&[&compensate(1), &execute(2)], &[&execute(1)]).await;
        assert_eq!(second, [made()]);
        if undoable {
            assert_eq!(first, [Outcome::succeeded(json!({})), made()]);
        } else {
            refused(&first[0], ALREADY_EXECUTED);
        }
        assert_eq!(world.counted(1).await, [1, usize::from(undoable)]);
        assert_eq!(world.counted(2).await, [1, 0], "what was rolled back with it is made once");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn one_execute_at_two_instances_is_one_effect_with_two_equal_answers() {
    for key in [1, 2, 3] {
        let (world, command) = (World::new(true).await, execute(key));
        let (first, second) = match key {
            1 => world.while_making(&[&command], &[&command]).await,
            2 => world.when_written(&[&command], &[&command], false).await,
            // Rolled back, and so made by who waited.
            _ => world.when_written(&[&command], &[&command], true).await,
        };
        assert_eq!((first, second), (vec![made()], vec![made()]));
        assert_eq!(world.counted(key).await, [1, 0]);
        assert!(world.calls.get(command.key, "called") >= 2, "both have tried");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn what_failed_leaves_the_effect_to_who_comes_next() {
    for (second, answer) in [(execute(1), made()), (compensate(1), nothing_to_undo())] {
        let world = World::new(true).await;
        world.hold.fails.store(true, Ordering::SeqCst);
        world.hold.open();
        world.first.apply(&[&execute(1)]).await.unwrap_err();
        let outcomes = world.second.apply(&[&second]).await.unwrap();
        assert_eq!(outcomes, [answer]);
        // What the inbox says now, it says for ever.
        assert_eq!(world.second.apply(&[&second]).await.unwrap(), outcomes);
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_retry_stores_nothing_and_stops_nobody() {
    let world = World::new(true).await;
    let later = command("slow", Uuid::from_u128(1), Verb::Execute, 1, json!({"n": 5, "retries": 1}));
    let (first, second) = world.while_making(&[&later], &[&later]).await;
    // It was put off, but looks before it says so.
    assert_eq!(first, [made()]);
    assert_eq!(second, [made()]);
    assert_eq!(world.counted(1).await, [1, 0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn new_rows_are_written_in_one_order_whatever_order_their_commands_come_in() {
    let world = World::new(true).await;
    let third = TransactionalHandler::new(
        world.owned.instance("third").await,
        Slow { table: Table { counts: Arc::clone(&world.calls), undoable: true }, hold: None },
    );
    let middle_row = world.owned.write(&inbox_row(20)).await;
    let [low, middle, high] = [execute(10), execute(20), execute(30)];
    // Somebody is writing the middle key. The second comes as far as it; the third must stop at the lowest, for if it
    // had written the highest by then, the second and the third would wait for each other.
    let (up, down) = ([&low, &middle, &high], [&high, &middle, &low]);
    let seen = async {
        world.owned.blocked("second", "watch").await;
        let seen = async {
            world.owned.blocked("third", "second").await;
            middle_row.rollback().await.unwrap();
        };
        tokio::join!(third.apply(&down), seen).0.unwrap()
    };
    let (second, third) = tokio::join!(world.second.apply(&up), seen);
    assert_eq!((second.unwrap(), third), (vec![made(); 3], vec![made(); 3]));
    for key in [10, 20, 30] {
        assert_eq!(world.counted(key).await, [1, 0]);
    }
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
        Slow { table: Table { counts: Arc::clone(&world.calls), undoable: true }, hold: None },
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
    for key in keys {
        assert_eq!(world.counted(key).await, [1, 1]);
    }
}
