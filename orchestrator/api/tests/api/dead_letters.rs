//! Dead letters, over HTTP as admins ask for them.

use axum::http::Method;
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Outcome, Timestamp, Verb, message};
use saga_store::Store;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Answer, CHIEF, DESK, Desk, reason};

const REPLIES: &str = "bookend.replies";

async fn keep(desk: &Desk, letter: &DeadLetter) -> String {
    desk.store.keep_dead_letters(std::slice::from_ref(letter)).await.expect("the store keeps");
    letter.id().to_string()
}

fn command(n: u128, dedupe_until: Timestamp) -> Command {
    let id = Uuid::from_u128(n);
    Command {
        v: message::VERSION,
        command_id: id,
        key: id,
        saga_id: id,
        tenant: "default".to_owned(),
        definition: "booking@1".to_owned(),
        step: "booking".to_owned(),
        participant: "booking".to_owned(),
        verb: Verb::Execute,
        command: "booking.reserve".to_owned(),
        attempt: 1,
        first_sent_at: Timestamp(0),
        dedupe_until,
        deadline: dedupe_until,
        payload: json!({"patient": {"name": "Ada Lovelace"}}),
    }
}

fn dead(item: &str, reason: Reason) -> DeadLetter {
    DeadLetter::new("bookend.booking", reason, item.as_bytes()).saying("a test").after(2)
}

fn dead_command(n: u128, dedupe_until: Timestamp) -> DeadLetter {
    dead(&message::encode(&[command(n, dedupe_until)]).concat(), Reason::Failed)
}

async fn settle(desk: &Desk, id: &str, action: &str) -> Answer {
    desk.ask(Method::POST, &format!("/v1/dead-letters/{id}/{action}"), CHIEF, &[], Some(&reason())).await
}

async fn list(desk: &Desk, query: &str) -> Vec<String> {
    let page = desk.get(&format!("/v1/dead-letters{query}"), CHIEF).await;
    assert_eq!(page.status, 200, "{page:?}");
    let letters = page.body["data"].as_array().expect("a page");
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_item_is_shown_with_its_letter_and_not_in_lists() {
    let desk = Desk::new().await;
    let id = keep(&desk, &dead_command(1, Timestamp(i64::MAX))).await;
    let page = desk.get("/v1/dead-letters", CHIEF).await;
    let expected = json!({
        "id": id, "queue": "bookend.booking", "reason": "failed", "detail": "a test", "attempts": 2, "bytes": null,
        "state": "waiting", "settled": null, "at": page.body["data"][0]["at"],
    });
    assert_eq!(page.body["data"], json!([expected]));
    assert!(page.body["data"][0]["at"].as_str().unwrap().starts_with("2023-11-14T22:13:"), "{page:?}");
    let read = desk.get(&format!("/v1/dead-letters/{id}"), CHIEF).await;
    assert_eq!((read.status.as_u16(), &read.body["encoding"]), (200, &json!("utf8")));
    assert!(read.body["body"].as_str().unwrap().contains("Ada Lovelace"));
    let bytes = keep(&desk, &DeadLetter::new("q", Reason::Rejected, b"\xff")).await;
    let read = desk.get(&format!("/v1/dead-letters/{bytes}"), CHIEF).await;
    assert_eq!((&read.body["encoding"], &read.body["body"]), (&json!("base64"), &json!("/w==")));
    for unknown in ["0190f5fe-7c00-7a00-8000-000000000001", "none"] {
        assert_eq!(desk.get(&format!("/v1/dead-letters/{unknown}"), CHIEF).await.problem(), (404, "not_found"));
        assert_eq!(settle(&desk, unknown, "discard").await.problem(), (404, "not_found"));
    }
}

#[tokio::test(start_paused = true)]
async fn lists_are_filtered_and_paged() {
    let desk = Desk::new().await;
    let bad = keep(&desk, &dead("{", Reason::BadJson)).await;
    let other = keep(&desk, &DeadLetter::new(REPLIES, Reason::Oversized, b"[")).await;
    let gone = keep(&desk, &dead("[", Reason::BadJson)).await;
    assert_eq!(settle(&desk, &gone, "discard").await.status, 200);
    assert_eq!(list(&desk, "?reason=bad_json").await, std::slice::from_ref(&bad));
    assert_eq!(list(&desk, "?queue=bookend.replies").await, std::slice::from_ref(&other));
    assert_eq!(list(&desk, "?state=discarded").await, std::slice::from_ref(&gone));
    assert!(list(&desk, "?state=replayed").await.is_empty());
    let mut paged = Vec::new();
    let mut path = "/v1/dead-letters?state=all&limit=1".to_owned();
    loop {
        let page = desk.get(&path, CHIEF).await;
        paged.push(page.body["data"][0]["id"].as_str().unwrap().to_owned());
        match page.header("link").split_once('>') {
            Some((next, _)) => path = next.trim_start_matches('<').to_owned(),
            None => break,
        }
    }
    paged.sort();
    let mut all = [bad, other, gone];
    all.sort();
    assert_eq!(paged, all);
    for (query, code) in [("?state=lost", "bad_parameter"), ("?cursor=x", "bad_cursor"), ("?limit=0", "bad_limit")] {
        let answer = desk.get(&format!("/v1/dead-letters{query}"), CHIEF).await;
        assert_eq!(answer.problem(), (400, code), "{query}");
    }
    let long = format!("/v1/dead-letters?queue={}", "q".repeat(256));
    assert_eq!(desk.get(&long, CHIEF).await.problem(), (400, "bad_parameter"));
}

#[tokio::test(start_paused = true)]
async fn settling_is_done_once_and_repeats_its_answer() {
    let desk = Desk::new().await;
    let orphan = command(1, Timestamp(i64::MAX)).reply(Outcome::Retry { after_ms: 1 });
    let reply = DeadLetter::new(REPLIES, Reason::Failed, message::encode(&[orphan]).concat().as_bytes());
    for letter in [dead_command(1, Timestamp(i64::MAX)), reply] {
        let id = keep(&desk, &letter).await;
        let first = settle(&desk, &id, "replay").await;
        assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (200, ""), "{first:?}");
        assert_eq!((&first.body["state"], &first.body["settled"]["by"]), (&json!("replayed"), &json!("admin:chief")));
        assert_eq!((first.body.get("body"), &first.body["settled"]["reason"]), (None, &json!("a test")));
        let again = settle(&desk, &id, "replay").await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"), "{again:?}");
        assert_eq!(again.body, first.body);
        let other = settle(&desk, &id, "discard").await;
        assert_eq!((other.problem(), &other.body["state"]), ((409, "already_settled"), &json!("replayed")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_sent_again_says_why_and_stays() {
    let desk = Desk::new().await;
    let late = Timestamp(1_600_000_000_000_000);
    let cases: [(DeadLetter, &str); 3] = [
        (dead_command(1, late), "dedupe_window_over"),
        (dead(r#"{"v": 1}"#, Reason::BadJson), "still_unreadable"),
        (dead(&"x".repeat(saga_defs::dead_letter::ITEM_BYTES_MAX + 1), Reason::Oversized), "still_unreadable"),
    ];
    for (letter, code) in cases {
        let id = keep(&desk, &letter).await;
        let refused = settle(&desk, &id, "replay").await;
        assert_eq!(refused.problem(), (409, code), "{refused:?}");
        assert_eq!(list(&desk, "").await, std::slice::from_ref(&id));
        assert_eq!(settle(&desk, &id, "discard").await.body["state"], "discarded");
    }
    let refused = settle(&desk, &keep(&desk, &dead_command(2, late)).await, "replay").await;
    assert_eq!(refused.body["dedupe_until"], "2020-09-13T12:26:40Z");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_for_admins_who_say_why() {
    let desk = Desk::new().await;
    let id = keep(&desk, &dead("{", Reason::BadJson)).await;
    let path = format!("/v1/dead-letters/{id}");
    for asked in ["/v1/dead-letters", path.as_str()] {
        assert_eq!(desk.get(asked, DESK).await.problem(), (403, "forbidden"), "{asked}");
    }
    for action in ["replay", "discard"] {
        let ask = async |token: &str, body: &Value| {
            desk.ask(Method::POST, &format!("{path}/{action}"), token, &[], Some(body)).await
        };
        assert_eq!(ask(DESK, &reason()).await.problem(), (403, "forbidden"));
        for silent in [json!({}), json!({"reason": " "}), json!({"reason": "x".repeat(501)})] {
            assert_eq!(ask(CHIEF, &silent).await.problem(), (422, "invalid_body"), "{silent}");
        }
    }
    assert_eq!(list(&desk, "").await, [id], "nothing was done");
}
