//! Dead letters through a whole engine on a store in memory, in paused time: nothing is dropped, nothing is done twice,
//! neighbours go through.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use orchestrator::{Engine, LetterAction, LetterAnswer, LetterRefusal, LetterRequest, Options, StartAnswer};
use runtime::Tasks;
use saga_core::Status;
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Outcome, Reply, Timestamp, message};
use saga_store::{Fault, KeptLetter, LetterFilter, LetterState, LetterSummary, MemoryStore, Store};
use serde_json::json;
use support::{LIMIT, World, request};
use testkit::eventually;
use transport::{Consumer, Handed, Message, Publisher, Queue, Settled, Transport};
use uuid::Uuid;

/// An engine, and the test in the place of its first participant and of everybody who puts messages into queues.
struct Desk {
    engine: Engine,
    store: Arc<MemoryStore>,
    publisher: Arc<dyn Publisher>,
    booking: Box<dyn Consumer>,
    _tasks: Tasks,
}

impl Desk {
    async fn new() -> Self {
        let World { engine, store, transport, tasks } = World::new(&["booking", "payment"], Options::default()).await;
        let booking = transport.consumer(&Queue::Participant("booking".to_owned()), 8);
        Self { engine, store, publisher: transport.publisher(), booking, _tasks: tasks }
    }

    /// A new saga, and the command of its first step.
    async fn start(&mut self, key: &str) -> Command {
        assert!(matches!(self.engine.begin(request(key)).await.unwrap(), StartAnswer::Started(_)));
        let body = self.received().await;
        message::decode::<Command>(body.as_bytes()).unwrap().remove(0).unwrap()
    }

    /// The body of the next message to booking.
    async fn received(&mut self) -> String {
        let deliveries =
            tokio::time::timeout(LIMIT, self.booking.receive(1)).await.expect("a command in time").unwrap();
        self.booking.acknowledge(&[deliveries[0].tag]).await;
        String::from_utf8(deliveries[0].body.to_vec()).unwrap()
    }

    fn put(&self, queue: Queue, body: &str) -> Uuid {
        let message = Message::new(Uuid::new_v4(), queue, body);
        assert_eq!(self.publisher.publish(std::slice::from_ref(&message)), [Handed::Over]);
        message.id
    }

    async fn acknowledged(&self, id: Uuid) {
        let fates = tokio::time::timeout(LIMIT, self.publisher.settled()).await.expect("a fate in time");
        assert_eq!(fates, [Settled { id, confirmed: true }]);
    }

    /// The letters that wait, once there are so many.
    async fn waiting(&self, count: usize) -> Vec<LetterSummary> {
        eventually(LIMIT, &format!("{count} dead letters wait"), async || {
            let filter = LetterFilter { state: Some(LetterState::Waiting), ..LetterFilter::default() };
            let found = self.store.dead_letters(&filter, 100).await.unwrap();
            if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    async fn letter(&self, id: Uuid) -> KeptLetter {
        self.store.dead_letter(id).await.unwrap().unwrap()
    }

    async fn ask(&self, id: Uuid, action: LetterAction) -> LetterAnswer {
        let request = LetterRequest { id, actor: "admin:chief".to_owned(), reason: "a test".to_owned(), action };
        self.engine.settle_letter(request).await.unwrap()
    }

    /// Settles a letter; whether that had been done before.
    async fn settled(&self, id: Uuid, action: LetterAction) -> bool {
        match self.ask(id, action).await {
            LetterAnswer::Settled { letter, repeated } => {
                assert_eq!(letter.summary.state, action.leads_to());
                repeated
            }
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, id: Uuid, action: LetterAction) -> LetterRefusal {
        match self.ask(id, action).await {
            LetterAnswer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    async fn version(&self, saga_id: Uuid) -> u64 {
        self.engine.get(saga_id).await.unwrap().unwrap().saga.version
    }
}

fn refusal(command: &Command) -> String {
    message::encode(&[command.reply(Outcome::refused("slot_taken", "taken"))]).concat()
}

#[tokio::test(start_paused = true)]
async fn a_bad_reply_is_kept_before_it_is_acknowledged_and_its_neighbours_go_through() {
    let mut desk = Desk::new().await;
    let (one, two) = (desk.start("one").await, desk.start("two").await);
    desk.store.fail_keeps(4);
    let bad = r#"{"v": 1,  "command_id": "Ada Lovelace"}"#;
    let sent = desk.put(Queue::Replies, &format!("[{}, {bad}, {}]", refusal(&one), refusal(&two)));
    for saga in [one.saga_id, two.saga_id] {
        let ended = desk.engine.wait(saga, LIMIT).await.unwrap().unwrap();
        assert_eq!(ended.saga.status(), Status::Compensated);
    }
    desk.acknowledged(sent).await;
    assert_eq!(desk.store.keeps_to_fail(), 0, "acknowledged before the store was back");
    let letters = desk.waiting(1).await;
    let kept = desk.letter(letters[0].id).await;
    assert_eq!(
        (letters[0].queue.as_str(), letters[0].reason, kept.body.as_str()),
        ("bookend.replies", Reason::BadJson, bad)
    );
    assert!(!format!("{kept:?}{letters:?}").contains("Ada"), "{letters:?}");

    let whole = desk.put(Queue::Replies, "[1,");
    desk.acknowledged(whole).await;
    desk.waiting(2).await;
    assert!(matches!(desk.refused(letters[0].id, LetterAction::Replay).await, LetterRefusal::StillUnreadable(_)));
    assert!(!desk.settled(letters[0].id, LetterAction::Discard).await);
    desk.waiting(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_no_store_could_keep_is_a_dead_letter_and_its_saga_goes_on() {
    let mut desk = Desk::new().await;
    let command = desk.start("one").await;
    let output = |output: &str| {
        let text = message::encode(&[command.reply(Outcome::succeeded(json!("HERE")))]).concat();
        text.replace("\"HERE\"", output)
    };
    let bad = [
        output(&format!("{}{}", "[".repeat(125), "]".repeat(125))),
        output(r#"{"a": 1, "$serde_json::private::RawValue": "no JSON"}"#),
        output(r#"{"$serde_json::private::RawValue": "[]"}"#),
        message::encode(&[command.reply(Outcome::refused("slot_taken\0", "taken"))]).concat(),
    ];
    for (n, item) in bad.iter().enumerate() {
        let sent = desk.put(Queue::Replies, item);
        desk.acknowledged(sent).await;
        let letters = desk.waiting(n + 1).await;
        assert!(letters.iter().all(|letter| letter.reason == Reason::BadJson), "{letters:?}");
    }
    let many = vec!["{}"; message::BATCH_ITEMS_MAX + 1].join(",");
    let sent = desk.put(Queue::Replies, &format!("[{many}]"));
    desk.acknowledged(sent).await;
    let letters = desk.waiting(bad.len() + 1).await;
    assert_eq!(letters.iter().filter(|letter| letter.reason == Reason::Oversized).count(), 1, "as a whole");

    desk.put(Queue::Replies, &refusal(&command));
    let ended = desk.engine.wait(command.saga_id, LIMIT).await.unwrap().unwrap();
    assert_eq!(ended.saga.status(), Status::Compensated);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_can_not_be_committed_waits_and_is_applied_once_when_it_can() {
    let mut desk = Desk::new().await;
    let command = desk.start("one").await;
    let refuse = |times| (0..times).for_each(|_| desk.store.fail_next(Fault::Refused));
    refuse(3);
    let sent = desk.put(Queue::Replies, &refusal(&command));
    desk.acknowledged(sent).await;
    let letter = desk.waiting(1).await.remove(0);
    assert_eq!((letter.reason, letter.attempts, desk.store.fired(Fault::Refused)), (Reason::Failed, 3, 3));

    refuse(3);
    assert_eq!(desk.refused(letter.id, LetterAction::Replay).await, LetterRefusal::StillFailing);
    assert_eq!(desk.store.fired(Fault::Refused), 6);
    desk.waiting(1).await;

    assert!(!desk.settled(letter.id, LetterAction::Replay).await);
    let ended = desk.engine.wait(command.saga_id, LIMIT).await.unwrap().unwrap();
    assert_eq!(ended.saga.status(), Status::Compensated);
    let version = desk.version(command.saga_id).await;
    assert!(desk.settled(letter.id, LetterAction::Replay).await, "the second time it says that it was done before");
    assert_eq!(desk.version(command.saga_id).await, version, "applied once");
    let other = desk.refused(letter.id, LetterAction::Discard).await;
    assert_eq!(other, LetterRefusal::AlreadySettled(LetterState::Replayed));
    desk.waiting(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_sent_again_as_it_was_and_not_after_its_window() {
    let mut desk = Desk::new().await;
    let command = desk.start("one").await;
    let item = serde_json::to_string_pretty(&command).unwrap();
    // Found in another's queue, it goes to whom it names.
    let letter = DeadLetter::new("bookend.payment", Reason::WrongParticipant, item.as_bytes());
    let sent = desk.put(Queue::DeadLetters, &letter.encode());
    desk.acknowledged(sent).await;
    desk.waiting(1).await;
    assert!(!desk.settled(letter.id(), LetterAction::Replay).await);
    assert!(desk.settled(letter.id(), LetterAction::Replay).await);
    assert_eq!(desk.received().await, item, "byte for byte");

    let again = desk.put(Queue::DeadLetters, &letter.encode());
    desk.acknowledged(again).await;
    let back = desk.waiting(1).await.remove(0);
    assert_eq!(back.settled.map(|settled| settled.by), Some("admin:chief".to_owned()), "it died again");

    let over = Command { dedupe_until: Timestamp(1_699_999_999_000_000), ..command };
    let item = message::encode(std::slice::from_ref(&over)).concat();
    let late = DeadLetter::new("bookend.booking", Reason::Failed, item.as_bytes());
    let sent = desk.put(Queue::DeadLetters, &late.encode());
    desk.acknowledged(sent).await;
    let refused = desk.refused(late.id(), LetterAction::Replay).await;
    assert_eq!(refused, LetterRefusal::DedupeWindowOver { until: over.dedupe_until });
    desk.waiting(2).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_replay_can_mend_says_so_and_can_be_discarded() {
    let desk = Desk::new().await;
    let long = "x".repeat(saga_defs::dead_letter::ITEM_BYTES_MAX + 1);
    let dead = [
        DeadLetter::new("bookend.booking", Reason::Oversized, long.as_bytes()),
        DeadLetter::new("bookend.booking", Reason::BadJson, b"\xff\x00"),
        DeadLetter::new("somebody.else", Reason::Failed, b"{}"),
    ];
    for letter in &dead {
        let sent = desk.put(Queue::DeadLetters, &letter.encode());
        desk.acknowledged(sent).await;
    }
    // Whoever wrote this did not know how.
    let sent = desk.put(Queue::DeadLetters, "no dead letter");
    desk.acknowledged(sent).await;
    for letter in desk.waiting(4).await {
        let refused = desk.refused(letter.id, LetterAction::Replay).await;
        assert!(matches!(refused, LetterRefusal::StillUnreadable(_)), "{letter:?}: {refused:?}");
        assert!(!desk.settled(letter.id, LetterAction::Discard).await);
        assert!(desk.settled(letter.id, LetterAction::Discard).await);
    }
    desk.waiting(0).await;
    assert!(matches!(desk.ask(Uuid::nil(), LetterAction::Discard).await, LetterAnswer::NotFound));
}

#[tokio::test(start_paused = true)]
async fn letters_that_the_store_refused_are_kept_when_it_takes_them_again() {
    let desk = Desk::new().await;
    desk.store.refuse_letters(true);
    // More than are in hand at a time.
    let sent: Vec<Uuid> = (0..50).map(|n| desk.put(Queue::DeadLetters, &format!("no JSON: {n}"))).collect();
    // Each stays where it is however often it is tried.
    assert!(tokio::time::timeout(Duration::from_secs(600), desk.publisher.settled()).await.is_err());
    desk.store.refuse_letters(false);
    let mut acknowledged = 0;
    while acknowledged < sent.len() {
        let fates = tokio::time::timeout(Duration::from_secs(600), desk.publisher.settled()).await;
        acknowledged += fates.expect("a fate in time").iter().filter(|fate| fate.confirmed).count();
    }
    desk.waiting(sent.len()).await;
}

#[tokio::test(start_paused = true)]
async fn a_fact_that_the_store_refuses_is_set_aside_and_its_neighbours_are_kept() {
    let mut desk = Desk::new().await;
    let command = desk.start("one").await;
    let orphan = |n: u128| Command { saga_id: Uuid::from_u128(n), command_id: Uuid::from_u128(n), ..command.clone() };
    let replies = [1, 2, 3].map(|n| orphan(n).reply(Outcome::succeeded(json!({}))));
    desk.store.refuse_late(Uuid::from_u128(2));
    let sent = desk.put(Queue::Replies, &message::encode(&replies).concat());
    desk.acknowledged(sent).await;
    let waiting = desk.waiting(1).await;
    let kept = desk.letter(waiting[0].id).await;
    let item = kept.encoding.bytes(&kept.body).unwrap();
    let reply: Reply = message::read(std::str::from_utf8(&item).unwrap()).unwrap();
    assert_eq!((waiting[0].reason, reply.saga_id), (Reason::Failed, Uuid::from_u128(2)));
    for n in [1, 3] {
        assert_eq!(desk.store.late(Uuid::from_u128(n)).await.unwrap().len(), 1);
    }
}
