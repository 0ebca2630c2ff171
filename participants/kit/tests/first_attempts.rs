//! A first attempt is not looked for in the inbox, and comes to the same when it should have been.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use db::Transaction;
use fixture::{Owned, Stack, on_every_stack};
use participant_kit::conformance::command;
use participant_kit::{Transactional, TransactionalHandler};
use saga_defs::message::FENCED;
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::sea_query::{Asterisk, Expr, ExprTrait as _, Query};
use sea_orm::{ConnectionTrait as _, DbErr};
use serde_json::json;
use support::{Shelf, database, keep};
use uuid::Uuid;

/// The shelf, and every statement that it made.
struct Desk {
    owned: Owned,
    shelf: TransactionalHandler<Shelf>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Desk {
    async fn new(stack: Stack) -> Self {
        let owned = database(stack).await;
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let telling = Arc::clone(&told);
        let db = owned.db.clone().telling(move |text| telling.lock().unwrap().push(text.to_owned()));
        Self { owned, shelf: TransactionalHandler::new(db, Shelf), told }
    }

    /// The outcomes, and how often the inbox was read for them.
    async fn send(&self, commands: &[Command]) -> (Vec<Outcome>, usize) {
        self.told.lock().unwrap().clear();
        let outcomes = self.shelf.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap();
        let told = self.told.lock().unwrap();
        (outcomes, told.iter().filter(|text| text.starts_with("select key, participant")).count())
    }

    async fn kept(&self) -> i64 {
        let count = Query::select().expr(Expr::col(Asterisk).count()).from("slots").to_owned();
        self.owned.db.reader().query_one(&count).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }
}

fn done() -> Outcome {
    Outcome::succeeded(json!({}))
}

on_every_stack!(
    nobody_looks_for_what_was_never_asked,
    a_first_attempt_that_comes_twice_is_answered_from_the_inbox,
    an_undo_that_came_first_fences_the_first_attempt,
    a_later_attempt_looks_first,
    who_is_put_off_by_its_own_effect_is_answered_from_the_inbox,
);

async fn nobody_looks_for_what_was_never_asked(stack: Stack) {
    let desk = Desk::new(stack).await;
    assert_eq!(desk.send(&[keep(1, "EUR"), keep(2, "EUR")]).await, (vec![done(), done()], 0));
    assert_eq!(desk.kept().await, 2);
}

async fn a_first_attempt_that_comes_twice_is_answered_from_the_inbox(stack: Stack) {
    let desk = Desk::new(stack).await;
    desk.send(&[keep(1, "EUR")]).await;
    assert_eq!(desk.send(&[keep(1, "EUR"), keep(2, "EUR")]).await, (vec![done(), done()], 1));
    assert_eq!(desk.kept().await, 2);
}

async fn an_undo_that_came_first_fences_the_first_attempt(stack: Stack) {
    let desk = Desk::new(stack).await;
    desk.send(&[command("shelf", Uuid::from_u128(1), Verb::Compensate, 1, json!({}))]).await;
    let (outcomes, looks) = desk.send(&[keep(1, "EUR")]).await;
    let Outcome::Refused { code, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((code.as_str(), looks), (FENCED, 1));
    assert_eq!(desk.kept().await, 0, "what it did before it looked is rolled back");
}

async fn a_later_attempt_looks_first(stack: Stack) {
    let desk = Desk::new(stack).await;
    let again = Command { attempt: 2, ..keep(1, "EUR") };
    assert_eq!(desk.send(std::slice::from_ref(&again)).await, (vec![done()], 1));
    assert_eq!(desk.send(&[again]).await, (vec![done()], 1));
    assert_eq!(desk.kept().await, 1);
}

/// Says "later" as long as the text is there, whoever wrote it.
struct OneCopy;

#[async_trait]
impl Transactional for OneCopy {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn undoable(&self) -> bool {
        false
    }

    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let there = Query::select().column("id").from("slots").to_owned();
        match tx.query_one(&there).await? {
            Some(_) => Ok(vec![Outcome::Retry { after_ms: 1 }; commands.len()]),
            None => Shelf.execute(tx, now, commands).await,
        }
    }

    async fn undo(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        Shelf.undo(tx, now, commands).await
    }
}

async fn who_is_put_off_by_its_own_effect_is_answered_from_the_inbox(stack: Stack) {
    let owned = database(stack).await;
    let shelf = TransactionalHandler::new(owned.db.clone(), OneCopy);
    assert_eq!(shelf.apply(&[&keep(1, "EUR")]).await.unwrap(), [done()]);
    assert_eq!(shelf.apply(&[&keep(1, "EUR")]).await.unwrap(), [done()]);
    assert_eq!(shelf.apply(&[&keep(2, "EUR")]).await.unwrap(), [Outcome::Retry { after_ms: 1 }]);
}
