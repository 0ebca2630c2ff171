//! What nobody can handle is kept in plain sight, harms no neighbour, and takes effect once when it is sent again.

use std::process::{Command as Program, Output};
use std::sync::Arc;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use reqwest::Method;
use saga_defs::contract::{Patient, booking::Reserve};
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Outcome, Retry, Timestamp, Verb, ids, message};
use serde_json::{Value, json};
use testkit::{eventually, free_port};
use transport::{Handed, Message, Publisher, Queue, Transport as _};
use uuid::Uuid;

use testkit::services::Services;

use crate::common::{Answer, Api, BIN, Cluster, LIMIT, Local, Shape, Simulators, booking_as, input};

/// The embedded product, and somebody who puts whatever they like into its queues.
struct Town {
    local: Local,
    publisher: Arc<dyn Publisher>,
}

impl Town {
    fn of(local: Local) -> Self {
        let publisher = local.stack.transport.publisher();
        Self { local, publisher }
    }

    /// Puts a message into a queue and waits until nobody holds it any more.
    async fn put(&self, queue: Queue, body: &str) {
        let message = Message::new(Uuid::new_v4(), queue, body);
        assert_eq!(self.publisher.publish(std::slice::from_ref(&message)), [Handed::Over]);
        let fates = tokio::time::timeout(LIMIT, self.publisher.settled()).await.expect("a fate in time");
        assert!(fates.iter().all(|fate| fate.confirmed), "{fates:?}");
    }

    async fn put_command(&self, queue: &str, item: &str) {
        self.put(Queue::Participant(queue.to_owned()), item).await;
    }

    async fn settle(&self, id: &str, action: &str) -> Answer {
        let (path, body) = (format!("/v1/dead-letters/{id}/{action}"), json!({"reason": "a test of this story"}));
        self.local.api.ask(Method::POST, &path, ADMIN_TOKEN, &[], Some(&body)).await.expect("an answer")
    }

    async fn taken(&self) -> usize {
        let page = self.local.api.get("/v1/clinic/appointments?limit=200").await;
        page.body["data"].as_array().expect("a page").len()
    }

    /// Waits until so many appointments were made.
    async fn until_taken(&self, count: usize) {
        eventually(LIMIT, &format!("{count} appointments"), async || {
            let taken = self.taken().await;
            if taken == count { Ok(()) } else { Err(taken.to_string()) }
        })
        .await;
    }
}

/// The dead letters that wait, once there are so many: queue, reason and id of each, in order of these.
async fn waiting(api: &Api, count: usize) -> Vec<(String, String, String)> {
    eventually(LIMIT, &format!("{count} dead letters wait"), async || {
        let page = api.get("/v1/dead-letters").await;
        let letters = page.body["data"].as_array().expect("a page");
        let text = |letter: &Value, name: &str| letter[name].as_str().expect("a text").to_owned();
        let mut found: Vec<_> =
            letters.iter().map(|one| (text(one, "queue"), text(one, "reason"), text(one, "id"))).collect();
        found.sort();
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// A command to reserve a slot, for a saga that the engine does not know.
fn reserve(saga: u128, slot: &str) -> Command {
    let saga_id = Uuid::from_u128(saga);
    let key = ids::effect_key(saga_id, "booking", 0);
    let patient = Patient { name: "Ada".into(), phone: "+15005550006".into(), email: "ada@example.org".into() };
    let slot_id = slot.parse().expect("an id");
    Command {
        v: message::VERSION,
        command_id: ids::command_id(key, Verb::Execute, 1),
        key,
        saga_id,
        tenant: "default".into(),
        definition: "booking@1".into(),
        step: "booking".into(),
        participant: "booking".into(),
        verb: Verb::Execute,
        command: "booking.reserve".into(),
        attempt: 1,
        first_sent_at: Timestamp(0),
        dedupe_until: Timestamp(i64::MAX),
        deadline: Timestamp(i64::MAX),
        payload: serde_json::to_value(Reserve { slot_id, patient }).expect("JSON"),
    }
}

fn text(command: &Command) -> String {
    serde_json::to_string(command).expect("JSON")
}

fn pairs(letters: &[(String, String, String)]) -> Vec<(&str, &str)> {
    letters.iter().map(|(queue, reason, _)| (queue.as_str(), reason.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_handled_is_kept_and_harms_no_neighbour() {
    let town = Town::of(Local::start(None, None, &[], "").await);
    let slots = town.local.api.free_slots(3).await;
    let (one, two, stray) = (reserve(1, &slots[0]), reserve(2, &slots[1]), reserve(3, &slots[2]));
    let future = r#"{"v": 2, "verb": "forget"}"#;
    town.put_command("booking", &format!(r#"[{}, {{"v": 1}}, {future}, {}]"#, text(&one), text(&two))).await;
    town.put_command("payment", &text(&stray)).await;
    town.put_command("notify", &" ".repeat(message::BODY_BYTES_MAX + 1)).await;
    let good = message::encode(&[one.reply(Outcome::Retry { after_ms: 1 })]).concat();
    town.put(Queue::Replies, &format!("[{good}, 7]")).await;
    town.until_taken(2).await;
    let letters = waiting(&town.local.api, 5).await;
    let expected = [
        ("bookend.booking", "bad_json"),
        ("bookend.booking", "unknown_version"),
        ("bookend.notify", "oversized"),
        ("bookend.payment", "wrong_participant"),
        ("bookend.replies", "bad_json"),
    ];
    assert_eq!(pairs(&letters), expected);

    // The stray one takes effect once, where it belongs, however often it is sent again.
    for replayed in ["", "true", "true"] {
        let answer = town.settle(&letters[3].2, "replay").await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, replayed), "{answer:?}");
    }
    town.put_command("booking", &text(&stray)).await;
    town.until_taken(3).await;
    for (_, reason, id) in &letters {
        let whole = town.local.api.get(&format!("/v1/dead-letters/{id}")).await;
        assert_eq!((whole.status, whole.text("reason")), (200, reason.as_str()));
        if reason != "wrong_participant" {
            let refused = town.settle(id, "replay").await;
            assert_eq!((refused.status, refused.text("code")), (409, "still_unreadable"), "{refused:?}");
            assert_eq!(town.settle(id, "discard").await.text("state"), "discarded");
        }
    }
    waiting(&town.local.api, 0).await;
    assert_eq!(town.taken().await, 3);
    println!("dead letters: {}, neighbours that went through: 3", letters.len());
}

/// A gateway that takes calls and never answers leaves a saga waiting for its payment.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_set_aside_takes_effect_once() {
    let (silence, address) = free_port().await.expect("a port");
    let mut definition = booking_as("patient");
    definition.steps[1].retry = Retry { timeout_ms: 600_000, ..Retry::default() };
    let flags = [("payment.timeout_ms", 120_000)];
    let town = Town::of(Local::start(None, Some(&definition), &flags, &format!("http://{address}")).await);
    let slot = town.local.api.free_slots(1).await.remove(0);
    let id = town.local.api.accepted("patient", "waits", &input(&slot, "tok_visa")).await;
    let version = eventually(LIMIT, "the payment was asked for", async || {
        let saga = town.local.api.saga(&id).await;
        let asked = saga.body["waiting"]["step"] == "payment";
        if asked { Ok(saga.body["version"].clone()) } else { Err(saga.body.to_string()) }
    })
    .await;
    // As a consumer in another language would set it aside.
    let key = ids::effect_key(id.parse().expect("an id"), "payment", 0);
    let item = json!({
        "v": 1, "command_id": ids::command_id(key, Verb::Execute, 1), "key": key, "saga_id": id, "verb": "execute",
        "outcome": "refused", "code": "card_declined", "message": "the issuer declined the card",
    });
    let letter = DeadLetter::new("bookend.replies", Reason::Failed, item.to_string().as_bytes());
    town.put(Queue::DeadLetters, &letter.encode()).await;
    let letters = waiting(&town.local.api, 1).await;
    assert_eq!(pairs(&letters), [("bookend.replies", "failed")]);
    assert_eq!(town.local.api.saga(&id).await.body["version"], version, "a dead letter changes nothing");

    assert_eq!(town.settle(&letters[0].2, "replay").await.status, 200);
    let ended = town.local.api.until(&id, "compensated").await;
    assert_eq!((&ended.body["failure"]["code"], ended.text("decision")), (&json!("card_declined"), "undone"));
    let again = town.settle(&letters[0].2, "replay").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(town.local.api.saga(&id).await.body["version"], ended.body["version"], "once");
    println!("replies replayed: 2, taken: 1");
    drop(silence);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_from_the_command_line() {
    let town = Town::of(Local::start(None, None, &[], "").await);
    town.put_command("booking", "no JSON").await;
    let id = waiting(&town.local.api, 1).await.remove(0).2;
    let (url, id) = (town.local.api.url.as_str(), id.as_str());
    let run = async |token: &str, arguments: &[&str]| -> Output {
        let mut program = Program::new(BIN);
        program.arg("dead-letters").args(arguments).args(["--server", url, "--token", token]);
        tokio::task::spawn_blocking(move || program.output()).await.expect("it ends").expect("it runs")
    };
    let out = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let list = run(ADMIN_TOKEN, &["list"]).await;
    assert!(out(&list).contains(id) && out(&list).contains("bad_json") && !out(&list).contains("no JSON\n"));
    assert!(out(&run(ADMIN_TOKEN, &["get", id]).await).ends_with("item (utf8):\nno JSON\n"));
    let cases: [(&str, &[&str], i32); 7] = [
        (CLIENT_TOKEN, &["list"], 4),
        (ADMIN_TOKEN, &["get", "00000000-0000-0000-0000-000000000000"], 3),
        (ADMIN_TOKEN, &["replay", id, "--reason", "a test"], 5),
        (ADMIN_TOKEN, &["discard", id], 2),
        (ADMIN_TOKEN, &["discard", id, "--reason", "a test"], 0),
        (ADMIN_TOKEN, &["discard", id, "--reason", "a test"], 0),
        (ADMIN_TOKEN, &["replay", id, "--reason", "a test"], 5),
    ];
    for (token, arguments, code) in cases {
        let output = run(token, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    let json = run(ADMIN_TOKEN, &["list", "--state", "all", "-o", "json"]).await;
    let page: Value = serde_json::from_str(&out(&json)).expect("JSON");
    assert_eq!(
        (&page["data"][0]["state"], &page["data"][0]["settled"]["by"]),
        (&json!("discarded"), &json!("admin:a"))
    );
    town.local.audit().await;
}

/// Poison that comes through the broker from somebody unknown, and a message that the broker itself gives up.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn dead_letters_on_services() {
    // Nobody takes the messages for `notify`.
    let shape = Shape { sites: vec![vec!["booking", "payment", "confirmation"]], ..Shape::default() };
    let simulators = Simulators::start(&[]).await;
    let cluster = Cluster::start(&Services::shared(), &shape, &simulators, &[]).await;
    let (api, vhost) = (&cluster.api, &cluster.vhost);
    let slot = api.ask(Method::GET, "/v1/clinic/slots?status=free&limit=1", ADMIN_TOKEN, &[], None).await;
    let slot = slot.expect("an answer").body["data"][0]["id"].as_str().expect("an id").to_owned();
    let batch = format!(r#"[{}, {{"v": 1}}]"#, text(&reserve(1, &slot)));
    for (key, body) in
        [("booking", batch.as_bytes()), ("payment", b"\xff\x00".as_slice()), ("replies", b"{".as_slice())]
    {
        assert!(vhost.publish_raw("bookend", key, body).await.expect("the broker takes it"), "{key} reaches a queue");
    }
    assert!(vhost.publish_expiring("bookend", "notify", b"{}", 1).await.expect("the broker takes it"));
    let letters = waiting(api, 4).await;
    let expected = [
        ("bookend.booking", "bad_json"),
        ("bookend.notify", "expired"),
        ("bookend.payment", "bad_json"),
        ("bookend.replies", "bad_json"),
    ];
    assert_eq!(pairs(&letters), expected);
    eventually(LIMIT, "the neighbour was handled", async || {
        let page = api.get("/v1/clinic/appointments?limit=10").await;
        if page.body["data"].as_array().is_some_and(|all| all.len() == 1) { Ok(()) } else { Err(page.body.to_string()) }
    })
    .await;
    println!("dead letters through the broker: {}, one of them given up by it", letters.len());
}
