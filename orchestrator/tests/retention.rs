//! Ended sagas leave in this order and no other: told, archived, deleted. In paused time, with a participant that the
//! test plays by hand.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator::archive::{Archive, Folder};
use orchestrator::{Engine, Options, Retention, SeededEntropy, StartAnswer};
use runtime::Tasks;
use runtime::clock::TokioClock;
use saga_core::Status;
use saga_defs::catalog::{Catalog, Loaded, booking};
use saga_defs::{Command, Definition, Ended, Outcome, Timestamp, message};
use saga_store::conformance::Part;
use saga_store::{MemoryStore, State, Store};
use serde_json::Value;
use support::request;
use transport::in_process::InProcess;
use transport::{Consumer, Delivery, Message, Publisher, Queue, Transport};
use uuid::Uuid;

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

const WINDOW: Duration = Duration::from_secs(60);

/// An archive that can be out of order.
#[derive(Debug, Default)]
struct Shelf {
    broken: AtomicBool,
    lines: Mutex<Vec<String>>,
    synced: AtomicBool,
}

#[async_trait]
impl Archive for Shelf {
    async fn append(&self, line: String) -> io::Result<()> {
        self.synced.store(false, Ordering::SeqCst);
        self.lines.lock().expect("nobody panicked").push(line);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is full"));
        }
        self.synced.store(true, Ordering::SeqCst);
        Ok(())
    }
}

struct Desk {
    engine: Engine,
    store: Arc<MemoryStore>,
    shelf: Arc<Shelf>,
    tasks: Tasks,
    consumer: Box<dyn Consumer>,
    publisher: Arc<dyn Publisher>,
}

impl Desk {
    async fn new() -> Self {
        Self::with(16, true).await
    }

    /// With so many sagas at once, and an archive or none.
    async fn with(batch_max: usize, archived: bool) -> Self {
        let transport = InProcess::new(&transport::in_process::Options {
            queues: transport::topology::queues(["booking", "payment", "confirmation", "notify"]),
            capacity: 64,
            faults: None,
        });
        let clock = TokioClock::starting_at(Timestamp(1_700_000_000_000_000));
        let store = Arc::new(MemoryStore::new(Arc::new(clock)));
        let (tasks, shelf) = (Tasks::new(), Arc::new(Shelf::default()));
        let window = u64::try_from(WINDOW.as_millis()).expect("short");
        let definition = Definition { dedupe_window_ms: window, ..booking() };
        let mut catalog = Catalog::default();
        catalog.add(Loaded::new(definition).expect("a definition")).expect("the only one");
        let retention = Retention {
            after_ms: 1_000,
            keys_after_ms: Some(600_000),
            every: Duration::from_secs(1),
            batch_max,
            told: ["booking", "payment"].map(str::to_owned).into(),
            archive: archived.then(|| Arc::clone(&shelf) as Arc<dyn Archive>),
        };
        let options = Options { retention: Some(retention), ..Options::default() };
        let entropy = Arc::new(SeededEntropy::new(7));
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let engine = Engine::start(shared, &transport, &catalog, entropy, &tasks, options).await.expect("it starts");
        let consumer = transport.consumer(&Queue::Participant("booking".to_owned()), 8);
        Self { engine, store, shelf, tasks, consumer, publisher: transport.publisher() }
    }

    /// The next message to the participant, if one comes in time.
    async fn received(&mut self, within: Duration) -> Option<Delivery> {
        let deliveries = tokio::time::timeout(within, self.consumer.receive(1)).await.ok()?;
        Some(deliveries.expect("the transport is open").remove(0))
    }

    /// A saga that its first participant refused, and the delivery with its only command.
    async fn refused(&mut self, key: &str) -> (Uuid, Delivery) {
        let StartAnswer::Started(started) = self.engine.begin(request(key)).await.expect("an answer") else {
            panic!("it is new");
        };
        let delivery = self.received(WINDOW).await.expect("a command");
        let command: Command = message::read(std::str::from_utf8(&delivery.body).expect("a text")).expect("a command");
        let reply = command.reply(Outcome::refused("slot_taken", "Taken."));
        let reply = Message::new(Uuid::new_v4(), Queue::Replies, message::encode(&[reply]).remove(0));
        self.publisher.publish(&[reply]);
        let ended = self.engine.follow_to_end(*started, WINDOW).await.expect("an answer").expect("it exists");
        assert_eq!(ended.saga.status(), Status::Compensated);
        (ended.header.id, delivery)
    }

    async fn exists(&self, id: Uuid) -> bool {
        self.store.load(&[id]).await.expect("the store answers").sagas.contains_key(&id)
    }

    async fn pass(&self, seconds: u64) {
        assert!(self.tasks.sleep(Duration::from_secs(seconds)).await);
    }
}

fn told(delivery: &Delivery) -> Ended {
    message::read(std::str::from_utf8(&delivery.body).expect("a text")).expect("an announcement")
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_told_of_then_archived_then_deleted() {
    let mut desk = Desk::new().await;
    let (id, delivery) = desk.refused("one").await;
    desk.consumer.acknowledge(&[delivery.tag]).await;
    assert!(desk.received(WINDOW - Duration::from_secs(5)).await.is_none(), "its window is not over");
    let announced = desk.received(WINDOW).await.expect("an announcement");
    assert_eq!(told(&announced), Ended::new("booking", &[id]));
    desk.shelf.broken.store(true, Ordering::SeqCst);
    desk.pass(20).await;
    assert!(desk.exists(id).await && desk.shelf.lines.lock().expect("whole").is_empty(), "nobody confirmed that");
    desk.consumer.acknowledge(&[announced.tag]).await;
    desk.pass(100).await;
    assert!(desk.exists(id).await && !desk.shelf.lines.lock().expect("whole").is_empty(), "it is not on disk");
    desk.shelf.broken.store(false, Ordering::SeqCst);
    desk.pass(200).await;
    assert!(!desk.exists(id).await && desk.shelf.synced.load(Ordering::SeqCst));
    let line: Value = serde_json::from_str(desk.shelf.lines.lock().expect("whole").last().expect("one")).expect("JSON");
    assert_eq!(
        (line["saga"]["id"].as_str(), line["history"].as_array().map(Vec::len)),
        (Some(&*id.to_string()), Some(2))
    );

    let again = desk.engine.begin(request("one")).await.expect("an answer");
    assert!(matches!(again, StartAnswer::Gone { saga_id } if saga_id == id), "{again:?}");
    desk.pass(300).await;
    let (other, _) = desk.refused("one").await;
    assert_ne!(other, id, "its start key is old enough to be used again");
    assert_eq!(desk.tasks.shutdown(WINDOW).await, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_while_a_command_may_still_lie_in_the_outbox() {
    let mut desk = Desk::new().await;
    let (first, unacknowledged) = desk.refused("one").await;
    let (second, delivery) = desk.refused("two").await;
    desk.consumer.acknowledge(&[delivery.tag]).await;
    assert!(desk.received(10 * WINDOW).await.is_none(), "the first one's command is not confirmed");
    desk.consumer.acknowledge(&[unacknowledged.tag]).await;
    let announced = desk.received(WINDOW).await.expect("an announcement");
    let mut both = told(&announced).ended;
    both.sort_unstable();
    assert_eq!(both, [first, second]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_stays_whatever_its_age() {
    let mut desk = Desk::new().await;
    let StartAnswer::Started(started) = desk.engine.begin(request("one")).await.expect("an answer") else {
        panic!("it is new");
    };
    let id = started.snapshot.header.id;
    // Nobody ever answers: attempts, then the undo, then a person.
    for _ in 0..500 {
        if let Some(delivery) = desk.received(Duration::from_secs(10)).await {
            assert!(message::read::<Ended>(std::str::from_utf8(&delivery.body).expect("a text")).is_err());
            desk.consumer.acknowledge(&[delivery.tag]).await;
        }
    }
    let loaded = desk.store.load(&[id]).await.expect("the store answers");
    let State::Known(saga) = &loaded.sagas[&id].state else { panic!("this build wrote it") };
    assert_eq!(saga.status(), Status::Stuck);
}

/// More than are taken at once, and the oldest.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_is_passed_over_until_it_is_mended() {
    let mut desk = Desk::with(2, true).await;
    let mut ids = Vec::new();
    for key in ["one", "two", "three", "four"] {
        let (id, delivery) = desk.refused(key).await;
        desk.consumer.acknowledge(&[delivery.tag]).await;
        ids.push(id);
    }
    let whole = ids.pop().expect("four");
    for (id, part) in ids.iter().zip([Part::State, Part::Input, Part::State]) {
        desk.store.make_unreadable(*id, part);
    }
    let announced = desk.received(3 * WINDOW).await.expect("an announcement");
    assert_eq!(told(&announced), Ended::new("booking", &[whole]));
    desk.consumer.acknowledge(&[announced.tag]).await;
    desk.pass(70).await;
    assert!(!desk.exists(whole).await);
    for id in &ids {
        assert!(desk.exists(*id).await);
        desk.store.mend(*id);
    }
    while let Some(announced) = desk.received(Duration::from_secs(5)).await {
        desk.consumer.acknowledge(&[announced.tag]).await;
    }
    desk.pass(70).await;
    for id in ids {
        assert!(!desk.exists(id).await);
    }
    assert_eq!(desk.tasks.shutdown(WINDOW).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_any_more_is_not_deleted() {
    for archived in [true, false] {
        let mut desk = Desk::with(16, archived).await;
        let mut ids = Vec::new();
        for key in ["one", "two"] {
            let (id, delivery) = desk.refused(key).await;
            desk.consumer.acknowledge(&[delivery.tag]).await;
            ids.push(id);
        }
        let announced = desk.received(3 * WINDOW).await.expect("an announcement");
        desk.store.make_unreadable(ids[0], Part::State);
        desk.consumer.acknowledge(&[announced.tag]).await;
        while let Some(announced) = desk.received(Duration::from_secs(5)).await {
            desk.consumer.acknowledge(&[announced.tag]).await;
        }
        desk.pass(70).await;
        assert!(desk.exists(ids[0]).await && !desk.exists(ids[1]).await, "archived: {archived}");
        desk.store.mend(ids[0]);
        desk.pass(100).await;
        assert!(!desk.exists(ids[0]).await);
        assert_eq!(desk.tasks.shutdown(WINDOW).await, 0);
    }
}

#[tokio::test]
async fn a_file_holds_whole_lines_and_belongs_to_one_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("new/archive");
    for name in ["one", "other"] {
        let folder = Folder::new(&path, name).expect("a folder");
        folder.sync().await.expect("nothing to write is no error");
        for line in ["{\"n\":1}", "{\"n\":2}"] {
            folder.append(line.to_owned()).await.expect("it is written");
        }
        folder.sync().await.expect("it is on disk");
        let text = std::fs::read_to_string(path.join(format!("sagas-{name}-0001.jsonl"))).expect("a file");
        assert_eq!(text, "{\"n\":1}\n{\"n\":2}\n");
    }
    let again = Folder::new(&path, "one").expect("a folder");
    assert!(again.append("{}".to_owned()).await.is_err(), "another run's file is not touched");
    again.append("{}".to_owned()).await.expect("the next one is its own");
}
