//! The simulators, asked over their routers.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use providers::{Options, Providers, router};
use runtime::{SystemClock, Tasks};
use serde_json::{Value, json};
use tower::ServiceExt;

fn gateway() -> (Router, Tasks) {
    let tasks = Tasks::new();
    (router(Providers::new(Options::default(), Arc::new(SystemClock), tasks.clone())), tasks)
}

async fn ask(router: &Router, method: &str, path: &str, key: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn post(router: &Router, path: &str, key: &str, body: Value) -> (StatusCode, Value) {
    ask(router, "POST", path, key, body).await
}

async fn get(router: &Router, path: &str) -> Value {
    ask(router, "GET", path, "", Value::Null).await.1
}

async fn create(router: &Router, key: &str, amount: i64, token: &str) -> (StatusCode, Value) {
    let body = json!({"amount_minor": amount, "currency": "EUR", "payment_method": token});
    post(router, "/gateway/intents", key, body).await
}

async fn created(router: &Router, key: &str, token: &str) -> String {
    let (status, body) = create(router, key, 4_500, token).await;
    assert_eq!((status, body["status"].as_str()), (StatusCode::OK, Some("created")));
    format!("/gateway/intents/{}", body["id"].as_str().unwrap())
}

#[tokio::test]
async fn one_key_is_one_intent_of_one_amount() {
    let (router, _tasks) = gateway();
    let first = created(&router, "k", "tok_visa").await;
    assert_eq!(created(&router, "k", "tok_visa").await, first);
    assert_ne!(created(&router, "other", "tok_visa").await, first);
    let (status, body) = create(&router, "k", 4_501, "tok_visa").await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("amount_mismatch")));
    let (status, body) = create(&router, "zero", 0, "tok_visa").await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("amount_invalid")));
    let (status, body) = create(&router, "", 1, "tok_visa").await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("idempotency_key_required")));
    let found = get(&router, "/gateway/intents?key=k").await;
    assert_eq!(format!("/gateway/intents/{}", found["data"][0]["id"].as_str().unwrap()), first);
    assert_eq!(get(&router, "/gateway/intents?key=never").await, json!({"data": []}));
}

#[tokio::test]
async fn a_confirmed_intent_is_charged_once_and_refunded_once() {
    let (router, _tasks) = gateway();
    let intent = created(&router, "k", "tok_visa").await;
    let (status, first) = post(&router, &format!("{intent}/confirm"), "", json!({})).await;
    assert_eq!((status, &first["status"]), (StatusCode::OK, &json!("charged")));
    assert_eq!(post(&router, &format!("{intent}/confirm"), "", json!({})).await.1, first);
    let (status, body) = post(&router, &format!("{intent}/cancel"), "", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("already_charged")));
    let (status, refund) = post(&router, &format!("{intent}/refund"), "r", json!({})).await;
    assert_eq!((status, &refund["amount_minor"]), (StatusCode::OK, &json!(4_500)));
    assert_eq!(post(&router, &format!("{intent}/refund"), "again", json!({})).await.1, refund);
    let summary = get(&router, "/accepted/summary").await;
    assert_eq!(summary["accepted"], json!({"charge": 1, "refund": 1, "sms": 0, "mail": 0}));
}

#[tokio::test]
async fn a_canceled_intent_is_never_charged() {
    let (router, _tasks) = gateway();
    let intent = created(&router, "k", "tok_visa").await;
    for _ in 0..2 {
        let (status, body) = post(&router, &format!("{intent}/cancel"), "", json!({})).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("canceled")));
    }
    let (status, body) = post(&router, &format!("{intent}/confirm"), "", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("canceled")));
    let (status, body) = post(&router, &format!("{intent}/refund"), "r", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("not_charged")));
    assert_eq!(get(&router, "/accepted/summary").await["accepted"]["charge"], 0);
}

#[tokio::test]
async fn declined_and_unknown_tokens_are_refused_every_time() {
    let (router, _tasks) = gateway();
    for token in ["tok_declined", "tok_nobody_knows"] {
        let intent = created(&router, token, token).await;
        for _ in 0..2 {
            let (status, body) = post(&router, &format!("{intent}/confirm"), "", json!({})).await;
            assert_eq!((status, &body["code"]), (StatusCode::PAYMENT_REQUIRED, &json!("card_declined")));
        }
        assert_eq!(get(&router, &intent).await["status"], "declined");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_charge_lands_after_its_caller_hung_up() {
    let (router, _tasks) = gateway();
    let intent = created(&router, "k", "tok_slow").await;
    let path = format!("{intent}/confirm");
    let hung_up = tokio::time::timeout(Duration::from_secs(1), post(&router, &path, "", json!({}))).await;
    assert!(hung_up.is_err(), "the confirmation answered before the charge landed");
    assert_eq!(get(&router, &intent).await["status"], "processing");
    let (status, body) = post(&router, &format!("{intent}/cancel"), "", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("processing")));
    assert_eq!(get(&router, "/accepted/summary").await["accepted"]["charge"], 0);
    let (status, body) = post(&router, &path, "", json!({})).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("charged")));
    assert_eq!(get(&router, "/accepted/summary").await["accepted"]["charge"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_charge_takes_the_money_and_answers_only_when_asked_again() {
    let (router, _tasks) = gateway();
    let intent = created(&router, "k", "tok_timeout").await;
    let path = format!("{intent}/confirm");
    let silence = tokio::time::timeout(Duration::from_secs(600), post(&router, &path, "", json!({}))).await;
    assert!(silence.is_err(), "the gateway answered");
    let read = get(&router, &intent).await;
    assert_eq!(read["status"], "charged");
    let (status, body) = post(&router, &path, "", json!({})).await;
    assert_eq!((status, &body["charge_id"]), (StatusCode::OK, &read["charge_id"]));
    assert_eq!(get(&router, "/accepted/summary").await["accepted"]["charge"], 1);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_when_the_server_stops() {
    let (router, tasks) = gateway();
    let intent = created(&router, "k", "tok_timeout").await;
    tasks.stop();
    let (status, body) = post(&router, &format!("{intent}/confirm"), "", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("stopping")));
}

#[tokio::test]
async fn one_phone_and_one_address_are_refused_for_good() {
    let (router, _tasks) = gateway();
    let sms = json!({"to": "+15005550001", "text": "hello"});
    let mail = json!({"to": "nobody@example.org", "subject": "hi", "text": "hello"});
    for (path, message) in [("/sms/messages", sms), ("/mail/messages", mail)] {
        let (status, body) = post(&router, path, "k", message).await;
        assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("recipient_invalid")));
    }
    let accepted = get(&router, "/accepted/summary").await["accepted"].clone();
    assert_eq!(accepted, json!({"charge": 0, "refund": 0, "sms": 0, "mail": 0}));
}

#[tokio::test]
async fn sms_can_be_switched_off_and_on_and_one_number_is_always_down() {
    let (router, _tasks) = gateway();
    let sms = |to: &str| json!({"to": to, "text": "hello"});
    assert_eq!(post(&router, "/sms/messages", "k", sms("+15005550006")).await.0, StatusCode::OK);
    assert_eq!(post(&router, "/sms/messages", "k", sms("+15005550009")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&router, "PUT", "/control/sms", "", json!({"down": true})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(post(&router, "/sms/messages", "k", sms("+15005550006")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let mail = json!({"to": "ada@example.org", "subject": "hi", "text": "hello"});
    assert_eq!(post(&router, "/mail/messages", "k", mail).await.0, StatusCode::OK);
    assert_eq!(ask(&router, "PUT", "/control/sms", "", json!({"down": false})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(post(&router, "/sms/messages", "k", sms("+15005550006")).await.0, StatusCode::OK);
    let summary = get(&router, "/accepted/summary").await;
    assert_eq!(summary["accepted"], json!({"charge": 0, "refund": 0, "sms": 2, "mail": 1}));
    assert_eq!(summary["doubles"], json!({"charge": 0, "refund": 0, "sms": 1, "mail": 0}));
}

#[tokio::test]
async fn the_list_is_paged_filtered_and_masked() {
    let (router, _tasks) = gateway();
    for key in ["a", "b", "c"] {
        let body = json!({"to": "+15005550006", "text": "hello"});
        post(&router, "/sms/messages", key, body).await;
        let body = json!({"to": "ada@example.org", "subject": "hi", "text": "hello"});
        post(&router, "/mail/messages", key, body).await;
    }
    let first = get(&router, "/accepted?kind=sms&limit=2").await;
    assert_eq!(first["has_more"], true);
    let keys = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&first), ["a", "b"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = get(&router, &format!("/accepted?kind=sms&limit=2&cursor={cursor}")).await;
    assert_eq!((keys(&second), &second["has_more"]), (vec!["c".to_owned()], &json!(false)));
    let of_key = get(&router, "/accepted?key=b").await;
    assert_eq!(of_key["data"].as_array().unwrap().len(), 2);
    let text = get(&router, "/accepted").await.to_string();
    assert!(!text.contains("15005550006") && !text.contains("ada@"), "{text}");
    assert_eq!(ask(&router, "GET", "/accepted?cursor=x", "", Value::Null).await.0, StatusCode::BAD_REQUEST);
}
