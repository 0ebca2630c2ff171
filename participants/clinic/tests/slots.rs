//! Seeding and reading slots, directly and over HTTP.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use clinic::query::{SlotFilter, SlotPlace, slots};
use clinic::seed::{doctor_id, slot_id};
use clinic::{Asked, Hold, reserve, seed};
use db::Db;
use fixture::{Owned, Stack};
use runtime::http::{Role, Token, Tokens, auth, identify};
use saga_defs::Timestamp;
use saga_defs::contract::Patient;
use saga_defs::contract::booking::Reserve;
use serde_json::Value;
use tower::ServiceExt as _;
use uuid::Uuid;

/// 2026-11-21T09:30:00Z.
const NOW: Timestamp = Timestamp(1_795_253_400_000_000);

async fn clinic_with(stack: Stack, count: u32) -> Owned {
    let owned = Owned::open::<migrations::Clinic>(stack).await;
    assert_eq!(seed(&owned.db, count, NOW).await.unwrap(), u64::from(count));
    owned
}

async fn hold(db: &Db, slot_id: Uuid) {
    db.transaction(move |tx| {
        let patient =
            Patient { name: "Ada".to_owned(), phone: "+15005550006".to_owned(), email: "ada@example.org".to_owned() };
        let asked = Reserve { slot_id, patient };
        let hold = Hold { key: Uuid::from_u128(1), saga_id: Uuid::from_u128(2) };
        Box::pin(async move { reserve(tx, NOW, &[Asked { hold, reserve: &asked }]).await })
    })
    .await
    .unwrap();
}

fixture::on_every_stack! {
    seeding_again_adds_what_is_missing_and_touches_nothing,
    pages_hold_every_slot_once_and_in_order,
    slots_are_listed_by_filter_and_page,
    bad_questions_and_strangers_are_refused,
    admins_find_appointments_and_no_patient,
}

async fn seeding_again_adds_what_is_missing_and_touches_nothing(stack: Stack) {
    let clinic = clinic_with(stack, 1_200).await;
    hold(&clinic.db, slot_id(0)).await;
    let before = slots(&clinic.db, &SlotFilter::default(), None, 5_000).await.unwrap();
    assert!(before.iter().all(|slot| slot.starts_at > NOW.0));
    let times: BTreeSet<(Uuid, i64)> = before.iter().map(|slot| (slot.doctor_id, slot.starts_at)).collect();
    assert_eq!(times.len(), 1_200, "no doctor is in two places");

    let later = NOW.plus_ms(7 * 24 * 3_600_000);
    assert_eq!(seed(&clinic.db, 1_200, later).await.unwrap(), 0);
    assert_eq!(slots(&clinic.db, &SlotFilter::default(), None, 5_000).await.unwrap(), before);
    assert_eq!(seed(&clinic.db, 1_201, later).await.unwrap(), 1);
}

async fn pages_hold_every_slot_once_and_in_order(stack: Stack) {
    let clinic = clinic_with(stack, 100).await;
    let all = slots(&clinic.db, &SlotFilter::default(), None, 1_000).await.unwrap();
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = slots(&clinic.db, &SlotFilter::default(), after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(SlotPlace { starts_at: Timestamp(last.starts_at), id: last.id });
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(all.len(), 100);
}

async fn get(router: &Router, token: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn served(db: &Db) -> Router {
    let token = |name: &str, role| Token { name: name.to_owned(), role, sha256: auth::sha256(name) };
    let tokens = Tokens::new(vec![token("client", Role::Client), token("admin", Role::Admin)]);
    identify(clinic::router(db.clone()), Arc::new(tokens))
}

async fn slots_are_listed_by_filter_and_page(stack: Stack) {
    let clinic = clinic_with(stack, 40).await;
    hold(&clinic.db, slot_id(0)).await;
    let router = served(&clinic.db);
    let doctor = doctor_id(0);
    let (status, first) =
        get(&router, "client", &format!("/v1/clinic/slots?doctor_id={doctor}&status=free&limit=3")).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (3, &Value::Bool(true)));
    let slot = &first["data"][0];
    assert_eq!(slot["starts_at"], "2026-11-22T08:30:00Z", "the first half hour is held: {slot}");
    assert_eq!((&slot["price"]["amount_minor"], &slot["status"]), (&4_500.into(), &"free".into()));
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/v1/clinic/slots?doctor_id={doctor}&status=free&limit=3&cursor={cursor}");
    let (_, second) = get(&router, "client", &path).await;
    assert_eq!((second["data"].as_array().unwrap().len(), &second["has_more"]), (1, &Value::Bool(false)));
    let (status, narrow) =
        get(&router, "client", "/v1/clinic/slots?from=2026-11-22T09:00:00Z&to=2026-11-22T09:30:00Z").await;
    assert_eq!((status, narrow["data"].as_array().unwrap().len()), (StatusCode::OK, 8));
}

async fn bad_questions_and_strangers_are_refused(stack: Stack) {
    let clinic = clinic_with(stack, 1).await;
    let router = served(&clinic.db);
    for query in ["from=yesterday", "limit=0", "limit=201", "cursor=zz", "colour=red", "status=gone"] {
        let (status, body) = get(&router, "client", &format!("/v1/clinic/slots?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
    }
    assert_eq!(get(&router, "nobody", "/v1/clinic/slots").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&router, "client", "/v1/clinic/appointments").await.0, StatusCode::FORBIDDEN);
}

async fn admins_find_appointments_and_no_patient(stack: Stack) {
    let clinic = clinic_with(stack, 2).await;
    hold(&clinic.db, slot_id(1)).await;
    let router = served(&clinic.db);
    let saga = Uuid::from_u128(2);
    let (status, found) = get(&router, "admin", &format!("/v1/clinic/appointments?saga_id={saga}")).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(found["data"][0]["slot_id"], slot_id(1).to_string());
    assert_eq!(found["data"][0]["status"], "pending");
    assert!(!found.to_string().contains("Ada"), "{found}");
    let (_, none) = get(&router, "admin", &format!("/v1/clinic/appointments?slot_id={}", slot_id(0))).await;
    assert_eq!(none["data"], Value::Array(vec![]));
}
