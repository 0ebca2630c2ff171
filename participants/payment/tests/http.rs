//! The payment routes, asked as an admin and as a client.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use fixture::{Owned, Stack};
use runtime::http::{Role, Token, Tokens, auth, identify};
use sea_orm::{ConnectionTrait, sea_query::Query};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

async fn routes(stack: Stack) -> (Router, Owned) {
    let owned = Owned::open::<migrations::Payment>(stack).await;
    for saga in 1..=3_u128 {
        let row = Query::insert()
            .into_table("charges")
            .columns(["key", "saga_id", "charge_id", "amount_minor", "currency", "created_at"])
            .values_panic([
                Uuid::from_u128(saga + 100).into(),
                Uuid::from_u128(saga).into(),
                "ch_1".into(),
                4_500_i64.into(),
                "EUR".into(),
                1_000_000_i64.into(),
            ])
            .to_owned();
        owned.db.writer().execute(&row).await.unwrap();
    }
    let token = |name: &str, role| Token { name: name.to_owned(), role, sha256: auth::sha256(name) };
    let tokens = Tokens::new(vec![token("admin", Role::Admin), token("client", Role::Client)]);
    (identify(payment::http::router(owned.db.clone()), Arc::new(tokens)), owned)
}

async fn get(router: &Router, token: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fixture::on_every_stack! {
    an_admin_reads_the_payments_of_one_saga,
    the_list_is_paged,
    only_admins_read_and_only_what_exists_may_be_asked,
}

async fn an_admin_reads_the_payments_of_one_saga(stack: Stack) {
    let (router, _owned) = routes(stack).await;
    let path = format!("/v1/payments?saga_id={}", Uuid::from_u128(2));
    let (status, body) = get(&router, "admin", &path).await;
    assert_eq!(status, StatusCode::OK);
    let money = json!({"amount_minor": 4_500, "currency": "EUR"});
    let charge = json!({
        "key": Uuid::from_u128(102), "charge_id": "ch_1", "amount": money, "created_at": "1970-01-01T00:00:01Z",
    });
    let saga = json!({"saga_id": Uuid::from_u128(2), "charges": [charge], "refunds": [], "net": money});
    assert_eq!((&body["data"], &body["has_more"]), (&json!([saga]), &json!(false)));
}

async fn the_list_is_paged(stack: Stack) {
    let (router, _owned) = routes(stack).await;
    let (_, first) = get(&router, "admin", "/v1/payments?limit=2").await;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &json!(true)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = get(&router, "admin", &format!("/v1/payments?limit=2&cursor={cursor}")).await;
    assert_eq!(second["data"][0]["saga_id"], json!(Uuid::from_u128(3)));
    assert_eq!((second["data"].as_array().unwrap().len(), &second["has_more"]), (1, &json!(false)));
}

async fn only_admins_read_and_only_what_exists_may_be_asked(stack: Stack) {
    let (router, _owned) = routes(stack).await;
    assert_eq!(get(&router, "client", "/v1/payments").await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&router, "nobody", "/v1/payments").await.0, StatusCode::UNAUTHORIZED);
    for query in ["colour=red", "saga_id=x", "cursor=x", "limit=0", "limit=201"] {
        assert_eq!(get(&router, "admin", &format!("/v1/payments?{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}
