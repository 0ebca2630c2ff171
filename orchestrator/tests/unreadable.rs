//! Sagas whose rows can't be read hold up nobody, are said aloud, and go on once they are mended. In paused time, with a
//! participant that the test plays by hand.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

#[path = "support/log.rs"]
mod log;

use std::time::Duration;

use log::Warnings;
use orchestrator::{
    Error, LetterAction, LetterAnswer, LetterRefusal, LetterRequest, OperateRequest, Options, StartAnswer,
};
use saga_core::{Action, Status};
use saga_defs::dead_letter::Reason;
use saga_defs::{Command, Outcome, message};
use saga_store::conformance::Part;
use saga_store::{Filter, LetterFilter, LetterSummary, Store};
use support::{LIMIT, World, request};
use testkit::eventually;
use transport::{Consumer, Message, Queue, Transport};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);

struct Desk {
    world: World,
    booking: Box<dyn Consumer>,
}

impl Desk {
    /// Nothing is kept in memory, so that every input finds the row.
    async fn new() -> Self {
        let often = Duration::from_millis(500);
        let options = Options { hot_max: 0, relay_every: often, timers_every: often, ..Options::default() };
        let world = World::new(&["booking"], options).await;
        let booking = world.transport.consumer(&Queue::Participant("booking".to_owned()), 8);
        Self { world, booking }
    }

    /// A new saga, and the command of its first step.
    async fn start(&mut self, key: &str) -> Command {
        assert!(matches!(self.world.engine.begin(request(key)).await.unwrap(), StartAnswer::Started(_)));
        self.command().await
    }

    async fn command(&mut self) -> Command {
        let deliveries = tokio::time::timeout(2 * HOUR, self.booking.receive(1)).await.expect("in time").unwrap();
        self.booking.acknowledge(&[deliveries[0].tag]).await;
        message::decode::<Command>(&deliveries[0].body).unwrap().remove(0).unwrap()
    }

    /// Refuses what these commands ask for, in one message.
    async fn refuse(&self, commands: &[&Command]) {
        let refused = |command: &&Command| command.reply(Outcome::refused("slot_taken", "taken"));
        let body = message::encode(&commands.iter().map(refused).collect::<Vec<_>>()).concat();
        let publisher = self.world.transport.publisher();
        publisher.publish(&[Message::new(Uuid::new_v4(), Queue::Replies, body)]);
        let fates = tokio::time::timeout(LIMIT, publisher.settled()).await.expect("it is acknowledged in time");
        assert!(fates[0].confirmed);
    }

    /// Whatever its rows are, it ends.
    async fn shut_down(self) {
        assert_eq!(self.world.tasks.shutdown(LIMIT).await, 0, "no task is left");
    }

    async fn ended(&self, id: Uuid) -> bool {
        let saga = self.world.engine.wait(id, LIMIT).await.unwrap().unwrap().saga;
        saga.status() == Status::Compensated
    }

    async fn letters(&self, count: usize) -> Vec<LetterSummary> {
        eventually(LIMIT, "dead letters", async || {
            let found = self.world.store.dead_letters(&LetterFilter::default(), 10).await.unwrap();
            if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    async fn replay(&self, id: Uuid) -> LetterAnswer {
        let (actor, reason) = ("admin:chief".to_owned(), "a test".to_owned());
        let request = LetterRequest { id, actor, reason, action: LetterAction::Replay };
        self.world.engine.settle_letter(request).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_for_it_is_set_aside_and_its_neighbours_go_through() {
    for part in [Part::State, Part::Input] {
        let mut desk = Desk::new().await;
        let (torn, whole) = (desk.start("one").await, desk.start("two").await);
        desk.world.store.make_unreadable(torn.saga_id, part);
        desk.refuse(&[&torn, &whole]).await;
        assert!(desk.ended(whole.saga_id).await);
        let letter = desk.letters(1).await.remove(0);
        assert_eq!((letter.reason, letter.attempts), (Reason::Failed, 1), "no batch was refused for it");
        assert!(letter.detail.contains("its saga can't be read: its "), "{}", letter.detail);
        let refused = desk.replay(letter.id).await;
        assert!(matches!(refused, LetterAnswer::Refused(LetterRefusal::StillFailing)), "{refused:?}");

        desk.world.store.mend(torn.saga_id);
        let replayed = desk.replay(letter.id).await;
        assert!(matches!(replayed, LetterAnswer::Settled { repeated: false, .. }), "{replayed:?}");
        assert!(desk.ended(torn.saga_id).await);
        desk.shut_down().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_put_off_for_an_hour_and_goes_on_once_it_is_mended() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let mut desk = Desk::new().await;
    let torn = desk.start("one").await;
    desk.world.store.make_unreadable(torn.saga_id, Part::State);
    // Its first timeout, and then once an hour.
    tokio::time::sleep(2 * HOUR + HOUR / 2).await;
    let told = warnings.with("a due saga can't be read and is put off");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains(&torn.saga_id.to_string()));

    let whole = desk.start("two").await;
    desk.refuse(&[&whole]).await;
    assert!(desk.ended(whole.saga_id).await);

    desk.world.store.mend(torn.saga_id);
    let again = desk.command().await;
    assert_eq!((again.saga_id, again.key), (torn.saga_id, torn.key), "it is asked again");
    desk.refuse(&[&again]).await;
    assert!(desk.ended(torn.saga_id).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_it_is_told_and_the_lists_show_it() {
    let mut desk = Desk::new().await;
    let id = desk.start("one").await.saga_id;
    desk.world.store.make_unreadable(id, Part::State);
    let operation = OperateRequest {
        saga_id: id,
        principal: "desk".to_owned(),
        actor: "client:desk".to_owned(),
        idempotency_key: "cancel".to_owned(),
        expected_version: None,
        reason: "a test".to_owned(),
        action: Action::Cancel,
    };
    let engine = &desk.world.engine;
    let answers = [
        engine.get(id).await.map(drop),
        engine.wait(id, LIMIT).await.map(drop),
        engine.begin(request("one")).await.map(drop),
        engine.operate(operation).await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(&answer, Err(Error::Unreadable { header, .. }) if header.id == id), "{answer:?}");
    }
    let filter = Filter { tenant: "default".to_owned(), ..Filter::default() };
    let listed = desk.world.store.list(&filter, 10).await.unwrap();
    assert_eq!(listed.iter().map(|summary| summary.header.id).collect::<Vec<_>>(), [id]);
}
