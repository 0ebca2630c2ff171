//! The table of notices and the routes over it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use db::Db;
use fixture::{Owned, Stack};
use notify::{Notify, Options};
use participant_kit::{Definite, Effect, External, conformance};
use runtime::http::{Role, Token, Tokens, auth, identify};
use saga_defs::{Outcome, Timestamp, Verb};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

async fn database(stack: Stack) -> Owned {
    Owned::open::<migrations::Notify>(stack).await
}

fn effect(saga: u128) -> Effect {
    let payload = json!({
        "patient": {"name": "Ada Lovelace", "phone": "+15005550006", "email": "ada@example.org"},
        "appointment_id": Uuid::from_u128(saga + 1_000),
        "starts_at": 0,
    });
    conformance::effect("notify", Uuid::from_u128(saga), payload)
}

async fn record(db: &Db, saga: u128, at: i64, outcome: Outcome) {
    record_all(db, at, vec![(saga, Verb::Execute, outcome)]).await;
}

async fn record_all(db: &Db, at: i64, slice: Vec<(u128, Verb, Outcome)>) {
    let (notify, slice) = (Arc::new(Notify::new(&Options::default()).unwrap()), Arc::new(slice));
    db.transaction(move |tx| {
        let (notify, slice) = (Arc::clone(&notify), Arc::clone(&slice));
        Box::pin(async move {
            let effects: Vec<_> = slice.iter().map(|(saga, ..)| effect(*saga)).collect();
            let verdicts: Vec<Definite<'_>> = effects
                .iter()
                .zip(slice.iter())
                .map(|(effect, (_, verb, outcome))| Definite { effect, verb: *verb, outcome })
                .collect();
            notify.record(tx, Timestamp(at), &verdicts).await
        })
    })
    .await
    .unwrap();
}

fn sent(channel: &str) -> Outcome {
    Outcome::succeeded(json!({"channel": channel, "provider_ref": "ref_1"}))
}

fn routes(db: &Db) -> Router {
    let token = |name: &str, role| Token { name: name.to_owned(), role, sha256: auth::sha256(name) };
    let tokens = Tokens::new(vec![token("admin", Role::Admin), token("client", Role::Client)]);
    identify(notify::http::router(db.clone()), Arc::new(tokens))
}

async fn get(router: &Router, token: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fixture::on_every_stack! {
    a_notice_is_written_once_and_a_refusal_not_at_all,
    notices_of_a_slice_are_written_at_once_and_each_once,
    the_list_is_paged_by_time_and_filtered_by_saga,
    only_admins_read_and_only_what_exists_may_be_asked,
}

async fn a_notice_is_written_once_and_a_refusal_not_at_all(stack: Stack) {
    let owned = database(stack).await;
    record(&owned.db, 1, 1_000_000, sent("sms")).await;
    record(&owned.db, 1, 2_000_000, sent("mail")).await;
    record(&owned.db, 2, 1_000_000, Outcome::refused("contract_violation", "")).await;
    let (status, body) = get(&routes(&owned.db), "admin", "/v1/notices").await;
    let notice = json!({
        "key": effect(1).command.key,
        "saga_id": Uuid::from_u128(1),
        "appointment_id": Uuid::from_u128(1_001),
        "channel": "sms",
        "provider_ref": "ref_1",
        "created_at": "1970-01-01T00:00:01Z",
    });
    assert_eq!((status, &body["data"]), (StatusCode::OK, &json!([notice])));
}

async fn notices_of_a_slice_are_written_at_once_and_each_once(stack: Stack) {
    let owned = database(stack).await;
    let statements: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&statements);
    let db = owned.db.clone().telling(move |text| told.lock().unwrap().push(text.to_owned()));
    record(&owned.db, 3, 1, sent("mail")).await;
    let mut slice: Vec<_> = (1..=100).map(|saga| (saga, Verb::Execute, sent("sms"))).collect();
    slice.push((200, Verb::Execute, Outcome::refused("contract_violation", "")));
    slice.push((201, Verb::Compensate, Outcome::succeeded(json!({"nothing_to_undo": true}))));
    record_all(&db, 2, slice).await;
    assert_eq!(statements.lock().unwrap().len(), 1, "one statement for all");
    let notices = notify::query::page(&owned.db, None, None, 200).await.unwrap();
    assert_eq!(notices.len(), 100);
    assert_eq!((notices[0].saga_id, notices[0].channel.as_str()), (Uuid::from_u128(3), "mail"), "it stays as it was");
    assert!(notices[1..].iter().all(|notice| notice.channel == "sms" && notice.created_at == Timestamp(2)));
}

async fn the_list_is_paged_by_time_and_filtered_by_saga(stack: Stack) {
    let owned = database(stack).await;
    // Two of the same instant, so that the key must break the tie.
    for (saga, at) in [(5, 1), (4, 2), (3, 2), (2, 3), (1, 4)] {
        record(&owned.db, saga, at, sent("mail")).await;
    }
    let router = routes(&owned.db);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _page in 0..3 {
        let (_, body) = get(&router, "admin", &format!("/v1/notices?limit=2{cursor}")).await;
        let page = body["data"].as_array().unwrap();
        seen.extend(page.iter().map(|notice| notice["saga_id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128()));
        cursor = body["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    }
    assert!(cursor.is_empty());
    assert_eq!((seen[0], seen[3], seen[4]), (5, 2, 1));
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let (_, body) = get(&router, "admin", &format!("/v1/notices?saga_id={}", Uuid::from_u128(3))).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1);
}

async fn only_admins_read_and_only_what_exists_may_be_asked(stack: Stack) {
    let owned = database(stack).await;
    let router = routes(&owned.db);
    assert_eq!(get(&router, "client", "/v1/notices").await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&router, "nobody", "/v1/notices").await.0, StatusCode::UNAUTHORIZED);
    for query in ["colour=red", "saga_id=x", "cursor=x", "limit=0", "limit=201"] {
        assert_eq!(get(&router, "admin", &format!("/v1/notices?{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}
