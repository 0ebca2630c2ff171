//! Hundreds of clients that go away in the middle of a request.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::{LIMIT, Product, Simulators, Stack, input};
use bookend::dev::CLIENT_TOKEN;

const CLIENTS: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn slow_client() {
    story(Stack::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: scripts/test"]
async fn slow_client_on_services() {
    story(Stack::Services).await;
}

async fn story(stack: Stack) {
    let simulators = Simulators::start(&[]).await;
    let product = Product::start(stack, &simulators, &[("BOOKEND_SEED__SLOTS", "500")]).await;
    let api = product.api();
    let slots = api.free_slots(CLIENTS + 20).await;
    let address: SocketAddr = api.url.trim_start_matches("http://").parse().expect("an address");
    let mut leaving = JoinSet::new();
    for (n, slot) in slots.iter().enumerate().take(CLIENTS) {
        let request = request(n, slot);
        leaving.spawn(async move { leave(address, &request, n).await });
    }
    let left = leaving.join_all().await;
    let (half, sent) = (left.iter().filter(|whole| !**whole).count(), left.iter().filter(|whole| **whole).count());
    // The pool is not poisoned: writes of others are durable, and reads see them.
    let mut accepted = 0;
    for (n, slot) in slots.iter().enumerate().skip(CLIENTS) {
        let answer =
            api.start("booking", &format!("after-{n}"), &input(slot, "tok_visa"), 30).await.expect("an answer");
        assert_eq!((answer.status, answer.text("decision")), (201, "committed"), "{answer:?}");
        accepted += 1;
    }
    // Whoever went away comes back with its key: every request that arrived whole is one saga, and it is decided.
    let mut replayed = 0;
    for (n, slot) in slots.iter().enumerate().take(CLIENTS) {
        let answer =
            api.start("booking", &format!("leave-{n}"), &input(slot, "tok_visa"), 30).await.expect("an answer");
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        assert_eq!(answer.text("decision"), "committed", "{answer:?}");
        replayed += usize::from(answer.header("idempotent-replayed") == "true");
    }
    println!(
        "{half} went away in mid-request, {sent} without their answer; {replayed} of those sagas were there; {accepted} after them"
    );
    assert!(half > 0 && sent > 0 && replayed > 0, "nobody went away: proves nothing");
    assert_eq!(api.get("/readyz").await.status, 200);
    api.all_ended(LIMIT).await;
    product.terminate();
    product.audit().await;
}

fn request(n: usize, slot: &str) -> String {
    let body = json!({"definition": "booking", "input": input(slot, "tok_visa")}).to_string();
    format!(
        "POST /v1/sagas HTTP/1.1\r\nhost: bookend\r\nauthorization: Bearer {CLIENT_TOKEN}\r\nidempotency-key: leave-{n}\r\n\
         prefer: wait=30\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Goes away: every other client in the middle of its request, the others while they wait for the answer.
/// True when the whole request was sent.
async fn leave(address: SocketAddr, request: &str, n: usize) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let whole = n.is_multiple_of(2);
    let bytes = if whole { request.as_bytes() } else { &request.as_bytes()[..request.len() * (1 + n % 9) / 10] };
    stream.write_all(bytes).await.expect("written");
    if n.is_multiple_of(4) {
        // Stays for the first byte of the answer, then goes.
        let _ = stream.read(&mut [0; 1]).await;
    }
    whole
}
