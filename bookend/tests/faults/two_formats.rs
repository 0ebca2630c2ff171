//! Two orchestrators of different builds, as during an upgrade: the older one leaves what it can't read to the newer, and
//! parks nothing.

use std::sync::Arc;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use bookend::serve::{Parts, Server};
use bookend::settings::Settings;
use runtime::Tasks;
use runtime::http::auth::sha256;
use runtime::http::{Role, Token};
use runtime::metrics::Recorder;
use saga_core::FORMAT;
use saga_store::SqlStore;
use serde_json::json;
use testkit::free_port;
use testkit::services::Services;

use crate::common::{Api, Cluster, LIMIT, Shape, Simulators, input};
use crate::load::until_decided;

const SAGAS: usize = 80;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn two_formats() {
    let simulators = Simulators::start(&[]).await;
    let shape = Shape { servers: 1, ..Shape::default() };
    let cluster = Cluster::start(&Services::shared(), &shape, &simulators, &[]).await;
    let older = &cluster.api;
    let (newer, server) = newer(&cluster).await;
    let slots = older.free_slots(2 * SAGAS).await;

    let mut at_newer = Vec::new();
    let mut all = Vec::new();
    for (n, pair) in slots.chunks(2).enumerate() {
        let payment_method = if n % 3 == 0 { "tok_declined" } else { "tok_visa" };
        at_newer.push(newer.accepted("booking", &format!("newer-{n}"), &input(&pair[0], payment_method)).await);
        all.push(older.accepted("booking", &format!("older-{n}"), &input(&pair[1], payment_method)).await);
    }
    all.extend(at_newer.iter().cloned());
    until_decided(&newer, &all, LIMIT).await;
    newer.all_ended(LIMIT).await;

    for id in &all {
        let history = newer.get(&format!("/v1/sagas/{id}/history")).await;
        assert_eq!(history.body["late_replies"], json!([]), "no reply was kept apart: {history:?}");
    }
    for id in &at_newer {
        let unread = older.saga(id).await;
        assert_eq!((unread.status, unread.text("code")), (503, "written_by_another_build"), "{unread:?}");
    }
    let handed_over = older.counter("bookend_replies_handed_over_total", "").await;
    println!("{} sagas by two builds at once; the older gave {handed_over} replies back to the queue", all.len());
    assert!(handed_over > 0.0, "the older met no saga of the newer: proves nothing");
    for status in ["stuck", "closed"] {
        assert_eq!(newer.count(status).await, 0, "{status}");
    }
    server.shutdown(LIMIT).await;
}

/// An orchestrator of a build that writes the next format, within the test.
async fn newer(cluster: &Cluster) -> (Api, Server) {
    let settings = Settings::read(Some(cluster.config()), Vec::new()).expect("the settings fit");
    let token = |name: &str, role, token| Token { name: name.to_owned(), role, sha256: sha256(token) };
    let parts = Parts {
        tokens: vec![token("operator", Role::Admin, ADMIN_TOKEN), token("frontdesk", Role::Client, CLIENT_TOKEN)],
        recorder: Recorder::unshared(),
        tasks: Tasks::new(),
    };
    let tasks = parts.tasks.clone();
    let db = cluster.open("engine").await;
    let store = Arc::new(SqlStore::new(db.clone()).with_format(FORMAT + 1));
    let server = Server::on(&settings, parts, db, store).await.expect("the newer build starts");
    let (listener, address) = free_port().await.expect("a port");
    bookend::process::serve(listener, server.router.clone(), &tasks);
    (cluster.api.at(&format!("http://{address}")), server)
}
