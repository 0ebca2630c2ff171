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

use crate::common::{Api, Product, Simulators, Stack, booking_as, definitions, input};

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

/// The product with that definition, and its gateway at `gateway`, or simulated.
async fn start(stack: Stack, simulators: &Simulators, gateway: Option<&str>) -> Product {
    let dir = tempfile::tempdir().expect("a folder");
    // Definitions are read when the product starts, and published.
    let folder = definitions(dir.path(), &broken_at_the_pivot()).display().to_string();
    let mut env = vec![("BOOKEND_DEFINITIONS__DIR", folder.as_str()), ("BOOKEND_PAYMENT__TIMEOUT_MS", "300")];
    env.extend(gateway.map(|url| ("BOOKEND_PAYMENT__GATEWAY_URL", url)));
    Product::start(stack, simulators, &env).await
}

async fn stuck_with_money(api: &Api, key: &str) -> (String, String) {
    let slot = api.free_slots(1).await.remove(0);
    let id = api.accepted("broken", key, &input(&slot, "tok_visa")).await;
    let stuck = api.until(&id, "stuck").await;
    assert_eq!(stuck.body["stuck"]["cause"], "payload_mapping", "{stuck:?}");
    assert_eq!(api.net(&id).await, 4_500, "the money is held, in plain sight");
    (id, stuck.header("etag").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_refund_retried_by_admin() {
    refund_retried(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn stuck_refund_retried_by_admin_on_services() {
    refund_retried(Stack::Services).await;
}

async fn refund_retried(stack: Stack) {
    let mut gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address);
    let simulators = Simulators::start(&[]).await;
    let product = start(stack, &simulators, Some(&url)).await;
    let api = product.api();
    let (id, etag) = stuck_with_money(api, "refund").await;
    gateway.take_away().await;
    let answer = api.operate(&id, "compensate", &etag, "undo-it").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let stuck = api.until(&id, "stuck").await;
    assert_eq!(stuck.body["stuck"]["cause"], "compensation_exhausted", "{stuck:?}");
    let attempts = stuck.body["steps"][1]["compensate_attempts"].as_u64().expect("a number");
    println!("refunds that got no verdict before a person was asked: {attempts}");
    assert!(attempts > 0, "no refund failed: proves nothing");
    gateway.give_back().await;
    let answer = api.operate(&id, "retry", stuck.header("etag"), "try-again").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ended = api.until(&id, "compensated").await;
    assert_eq!(ended.text("decision"), "undone");
    assert_eq!(api.net(&id).await, 0);
    assert_eq!(gateway.providers.summary().doubles, providers::Counts::default());
    product.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_one_wins() {
    two_admins(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn two_admins_one_wins_on_services() {
    two_admins(Stack::Services).await;
}

async fn two_admins(stack: Stack) {
    let simulators = Simulators::start(&[]).await;
    let product = start(stack, &simulators, None).await;
    let (api, other) = (product.api(), product.other_api());
    let (id, etag) = stuck_with_money(api, "admins").await;
    let (first, second) = tokio::join!(
        api.operate(&id, "compensate", &etag, "admin-1"),
        other.operate(&id, "compensate", &etag, "admin-2"),
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    println!("two admins at one version: {statuses:?}");
    assert_eq!(statuses, [202, 412], "{first:?} {second:?}");
    let (winner, key) = if first.status == 202 { (first, "admin-1") } else { (second, "admin-2") };
    let again = api.operate(&id, "compensate", &etag, key).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"), "{again:?}");
    assert_eq!(again.text("operation_id"), winner.text("operation_id"));
    let ended = api.until(&id, "compensated").await;
    let late = api.operate(&id, "retry", ended.header("etag"), "too-late").await;
    assert_eq!(late.status, 409, "{late:?}");
    assert_eq!(api.net(&id).await, 0);
    product.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undeliverable_notice_is_held_for_a_person() {
    undeliverable_notice(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn undeliverable_notice_is_held_for_a_person_on_services() {
    undeliverable_notice(Stack::Services).await;
}

async fn undeliverable_notice(stack: Stack) {
    let simulators = Simulators::start(&[]).await;
    let product = Product::start(stack, &simulators, &[]).await;
    let api = product.api();
    let mut input = input(&api.free_slots(1).await.remove(0), "tok_visa");
    // A landline, and a mail address that does not exist.
    input["patient"]["phone"] = json!("+15005550001");
    input["patient"]["email"] = json!("nobody@example.org");
    let id = api.accepted("booking", "undeliverable", &input).await;
    let stuck = api.until(&id, "stuck").await;
    let (why, decision) = (&stuck.body["stuck"], stuck.text("decision"));
    assert_eq!((&why["cause"], &why["step"]), (&json!("refused_after_pivot"), &json!("notify")), "{stuck:?}");
    assert!(why["message"].as_str().is_some_and(|message| message.contains("`undeliverable`")), "{stuck:?}");
    assert_eq!((decision, api.net(&id).await), ("committed", 4_500), "the booking stands, and is paid");
    let answer = api.operate(&id, "skip", stuck.header("etag"), "told-by-hand").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ended = api.until(&id, "completed").await;
    assert_eq!(ended.text("decision"), "committed");
    let accepted = simulators.summary().await["accepted"].clone();
    assert_eq!((&accepted["sms"], &accepted["mail"]), (&json!(0), &json!(0)), "nobody was told");
    println!("notices that no provider took: 1, bookings undone for it: 0");
    product.audit().await;
}
