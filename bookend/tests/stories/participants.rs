//! The contract of two verbs and one key, on the participants of this repository over their real databases.

use std::sync::Arc;

use booking::Booking;
use clinic::seed::slot_id;
use participant_kit::TransactionalHandler;
use saga_defs::contract::{Patient, booking::Reserve};
use saga_defs::{Command, Outcome, Timestamp, Verb, ids, message};
use tempfile::TempDir;
use uuid::Uuid;

struct Clinic {
    booking: Arc<TransactionalHandler<Booking>>,
    db: db::Db,
    _dir: TempDir,
}

impl Clinic {
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let db = db::Db::open_sqlite(&dir.path().join("clinic.sqlite")).await.expect("a database");
        migrations::up::<migrations::Clinic>(db.unlimited()).await.expect("tables");
        clinic::seed::seed(&db, 4, db.now()).await.expect("slots");
        Self { booking: Arc::new(TransactionalHandler::new(db.clone(), Booking)), db, _dir: dir }
    }

    async fn apply(&self, commands: &[&Command]) -> Vec<Outcome> {
        self.booking.apply(commands).await.expect("the database works")
    }

    async fn active(&self) -> usize {
        let all = clinic::query::appointments(&self.db, &clinic::query::AppointmentFilter::default(), None, 100).await;
        let active = |status| !matches!(status, clinic::appointments::Status::Released);
        all.expect("readable").iter().filter(|appointment| active(appointment.status)).count()
    }
}

fn command(saga: u128, verb: Verb, attempt: u32, slot: Uuid) -> Command {
    let saga_id = Uuid::from_u128(saga);
    let key = ids::effect_key(saga_id, "booking", 0);
    let patient = Patient { name: "Ada".into(), phone: "+15005550006".into(), email: "ada@example.org".into() };
    let payload = match verb {
        Verb::Execute => serde_json::to_value(Reserve { slot_id: slot, patient }).expect("JSON"),
        Verb::Compensate => serde_json::json!({}),
    };
    Command {
        v: message::VERSION,
        command_id: ids::command_id(key, verb, attempt),
        key,
        saga_id,
        tenant: "default".into(),
        definition: "booking@1".into(),
        step: "booking".into(),
        participant: "booking".into(),
        verb,
        command: "booking.reserve".into(),
        attempt,
        first_sent_at: Timestamp(0),
        dedupe_until: Timestamp(i64::MAX),
        deadline: Timestamp(i64::MAX),
        payload,
    }
}

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused { code, .. } => code,
        Outcome::Succeeded { .. } => "succeeded",
        Outcome::Retry { .. } => "retry",
    }
}

#[tokio::test]
async fn undo_before_do() {
    let clinic = Clinic::open().await;
    let slot = slot_id(1);
    let undone = clinic.apply(&[&command(1, Verb::Compensate, 1, slot)]).await;
    assert_eq!(undone[0], Outcome::succeeded(serde_json::json!({"nothing_to_undo": true})));
    let mut fenced = 0;
    for attempt in 1..=3 {
        let late = clinic.apply(&[&command(1, Verb::Execute, attempt, slot)]).await;
        assert_eq!(code(&late[0]), message::FENCED);
        fenced += 1;
    }
    println!("commands that met a tombstone: {fenced}");
    assert!(fenced > 0);
    assert_eq!(clinic.active().await, 0, "nothing was reserved");
    let other = clinic.apply(&[&command(2, Verb::Execute, 1, slot)]).await;
    assert_eq!(code(&other[0]), "succeeded", "the slot is free for others");
}

#[tokio::test]
async fn both_verbs_in_one_batch() {
    let clinic = Clinic::open().await;
    let slot = slot_id(1);
    let (reserve, release) = (command(1, Verb::Execute, 1, slot), command(1, Verb::Compensate, 1, slot));
    let outcomes = clinic.apply(&[&reserve, &release]).await;
    assert_eq!((code(&outcomes[0]), code(&outcomes[1])), ("succeeded", "succeeded"));
    assert_eq!(clinic.active().await, 0, "reserved and released");
    let (reserve, release) = (command(2, Verb::Execute, 1, slot), command(2, Verb::Compensate, 1, slot));
    let outcomes = clinic.apply(&[&release, &reserve]).await;
    assert_eq!((code(&outcomes[0]), code(&outcomes[1])), ("succeeded", message::FENCED));
    assert_eq!(clinic.active().await, 0, "never reserved");
    let outcomes = clinic.apply(&[&reserve, &release, &reserve, &release]).await;
    let codes: Vec<&str> = outcomes.iter().map(code).collect();
    assert_eq!(codes, [message::FENCED, "succeeded", message::FENCED, "succeeded"]);
    println!("batches with both verbs of one key: 3, commands in them: 8");
}

#[tokio::test]
async fn refusal_is_sticky() {
    let clinic = Clinic::open().await;
    let slot = slot_id(1);
    assert_eq!(code(&clinic.apply(&[&command(1, Verb::Execute, 1, slot)]).await[0]), "succeeded");
    assert_eq!(code(&clinic.apply(&[&command(2, Verb::Execute, 1, slot)]).await[0]), "slot_taken");
    clinic.apply(&[&command(1, Verb::Compensate, 1, slot)]).await;
    assert_eq!(clinic.active().await, 0, "the slot is free again");
    let mut hits = 0;
    for attempt in 1..=3 {
        let again = clinic.apply(&[&command(2, Verb::Execute, attempt, slot)]).await;
        assert_eq!(code(&again[0]), "slot_taken", "once refused, refused for ever");
        hits += 1;
    }
    println!("refusals answered from the inbox: {hits}");
    assert_eq!(clinic.active().await, 0);
}
