//! Stuck sagas and the people who repair them, over the real API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use providers::Providers;
use runtime::{SystemClock, Tasks};
use saga_defs::{Definition, Retry};
use serde_json::json;
use testkit::free_port;
use tokio::net::TcpListener;

use crate::common::{Local, booking_as, input};

/// The confirmation's payload refers to something that is not there: the saga is stuck once the money is taken.
fn broken_at_the_pivot() -> Definition {
    let mut definition = booking_as("broken");
    definition.steps[2].payload = json!({"appointment_id": "${steps.payment.output.no_such_thing}"});
    definition.steps[1].compensate_retry = Retry { timeout_ms: 300, attempts: 2, backoff_ms: 10, backoff_max_ms: 10 };
    definition
}

/// A gateway that can be taken away and given back, with all that it knows.
struct Gateway {
    providers: Providers,
    address: SocketAddr,
    serving: Tasks,
}

impl Gateway {
    async fn start() -> Self {
        let providers = Providers::new(providers::Options::default(), Arc::new(SystemClock), Tasks::new());
        let (listener, address) = free_port().await.expect("a port");
        let mut gateway = Self { providers, address, serving: Tasks::new() };
        gateway.serve(listener);
        gateway
    }

    fn serve(&mut self, listener: TcpListener) {
        self.serving = Tasks::new();
        let (router, stop) = (providers::router(self.providers.clone()), self.serving.clone());
        self.serving.spawn(async move { runtime::http::serve(listener, router, &stop).await });
    }

    async fn take_away(&self) {
        self.serving.shutdown(Duration::from_secs(10)).await;
    }

    async fn give_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.serve(listener);
    }
}

async fn stuck_with_money(local: &Local, key: &str) -> (String, String) {
    let slot = local.api.free_slots(1).await.remove(0);
    let id = local.api.accepted("broken", key, &input(&slot, "tok_visa")).await;
    let stuck = local.api.until(&id, "stuck").await;
    assert_eq!(stuck.body["stuck"]["cause"], "payload_mapping", "{stuck:?}");
    assert_eq!(local.api.net(&id).await, 4_500, "the money is held, in plain sight");
    (id, stuck.header("etag").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_refund_retried_by_admin() {
    let mut gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address);
    let local = Local::start(None, Some(&broken_at_the_pivot()), &[("payment.timeout_ms", 300)], &url).await;
    let (id, etag) = stuck_with_money(&local, "refund").await;
    gateway.take_away().await;
    let answer = local.api.operate(&id, "compensate", &etag, "undo-it").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let stuck = local.api.until(&id, "stuck").await;
    assert_eq!(stuck.body["stuck"]["cause"], "compensation_exhausted", "{stuck:?}");
    let attempts = stuck.body["steps"][1]["compensate_attempts"].as_u64().expect("a number");
    println!("refunds that got no verdict before a person was asked: {attempts}");
    assert!(attempts > 0, "no refund failed: proves nothing");
    gateway.give_back().await;
    let answer = local.api.operate(&id, "retry", stuck.header("etag"), "try-again").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ended = local.api.until(&id, "compensated").await;
    assert_eq!(ended.text("decision"), "undone");
    assert_eq!(local.api.net(&id).await, 0);
    assert_eq!(gateway.providers.summary().doubles, providers::Counts::default());
    local.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_one_wins() {
    let local = Local::start(None, Some(&broken_at_the_pivot()), &[], "").await;
    let (id, etag) = stuck_with_money(&local, "admins").await;
    let (first, second) = tokio::join!(
        local.api.operate(&id, "compensate", &etag, "admin-1"),
        local.api.operate(&id, "compensate", &etag, "admin-2"),
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    println!("two admins at one version: {statuses:?}");
    assert_eq!(statuses, [202, 412], "{first:?} {second:?}");
    let (winner, key) = if first.status == 202 { (first, "admin-1") } else { (second, "admin-2") };
    let again = local.api.operate(&id, "compensate", &etag, key).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{again:?}");
    assert_eq!(again.text("operation_id"), winner.text("operation_id"));
    let ended = local.api.until(&id, "compensated").await;
    let late = local.api.operate(&id, "retry", ended.header("etag"), "too-late").await;
    assert_eq!(late.status, 409, "{late:?}");
    assert_eq!(local.api.net(&id).await, 0);
    local.audit().await;
}
