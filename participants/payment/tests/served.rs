//! The participant behind the kit: inbox, intents, ledger and the gateway simulator together.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;
use std::time::Duration;

use fixture::{Owned, Stack};
use participant_kit::conformance;
use participant_kit::external::{ExternalHandler, ExternalOptions};
use participant_kit::handler::{Answered, Handler, Received, Replies, Run, Ticket};
use payment::{Options, Payment, query};
use providers::Providers;
use runtime::http::serve_here;
use runtime::{SystemClock, Tasks};
use saga_defs::contract::payment::CHARGE;
use saga_defs::ids::effect_key;
use saga_defs::{Command, Outcome, Verb};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Longest wait for something that must come.
const LIMIT: Duration = Duration::from_secs(30);

struct Served {
    handler: ExternalHandler<Payment>,
    run: Run,
    answers: mpsc::Receiver<Answered>,
    providers: Providers,
    owned: Owned,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.run.tasks.stop();
    }
}

async fn served(stack: Stack) -> Served {
    let tasks = Tasks::new();
    let slow = providers::Options { slow_ms: 600, ..providers::Options::default() };
    let providers = Providers::new(slow, Arc::new(SystemClock), tasks.clone());
    let gateway_url = serve_here(providers::router(providers.clone()), &tasks).await.unwrap();

    let owned = Owned::open::<migrations::Payment>(stack).await;
    let payment = Payment::new(&Options { gateway_url, timeout_ms: 200 }).unwrap();
    let options = ExternalOptions { sweep_every: Duration::from_millis(50), ..ExternalOptions::default() };
    let handler = ExternalHandler::new(owned.db.clone(), payment, options);
    let (replies, answers) = Replies::channel(64);
    let run = Run { replies, tasks };
    handler.start(&run).await.unwrap();
    Served { handler, run, answers, providers, owned }
}

fn saga_id() -> Uuid {
    Uuid::from_u128(1)
}

fn command(verb: Verb, attempt: u32, payload: Value) -> Received {
    let key = effect_key(saga_id(), "payment", 0);
    let command = conformance::command("payment", key, verb, attempt, payload);
    let command = Command { saga_id: saga_id(), command: CHARGE.to_owned(), ..command };
    Received { command, ticket: Ticket(u64::from(attempt)) }
}

fn charge(token: &str, attempt: u32) -> Received {
    let amount = json!({"amount_minor": 4_500, "currency": "EUR"});
    command(Verb::Execute, attempt, json!({"amount": amount, "payment_method": token}))
}

impl Served {
    /// The first outcome of `verb` that is more than "ask again".
    async fn outcome(&mut self, verb: Verb) -> Outcome {
        let waiting = async {
            loop {
                let (Answered::Reply(reply, _) | Answered::Announcement(reply, _)) = self.answers.recv().await.unwrap()
                else {
                    continue;
                };
                if reply.verb == verb && !matches!(reply.outcome, Outcome::Retry { .. }) {
                    return reply.outcome;
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("every effect is settled in the end")
    }

    async fn handle(&self, received: Received) {
        self.handler.handle(&self.run, &[received]).await.unwrap();
    }

    async fn net(&self) -> Option<(usize, usize, i64)> {
        let payments = query::of_saga(&self.owned.db, saga_id()).await.unwrap();
        payments.first().map(|one| (one.charges.len(), one.refunds.len(), one.net.amount_minor))
    }
}

fixture::on_every_stack! {
    a_charge_without_an_answer_is_booked_once_and_answered_alike_again,
    a_compensation_that_meets_a_slow_charge_ends_with_the_money_given_back,
}

async fn a_charge_without_an_answer_is_booked_once_and_answered_alike_again(stack: Stack) {
    let mut served = served(stack).await;
    served.handle(charge("tok_timeout", 1)).await;
    let first = served.outcome(Verb::Execute).await;
    assert_eq!(first.as_str(), "succeeded");
    served.handle(charge("tok_timeout", 2)).await;
    assert_eq!(served.outcome(Verb::Execute).await, first);
    assert_eq!(served.net().await, Some((1, 0, 4_500)));
    assert_eq!(served.providers.summary().accepted.charge, 1);
}

async fn a_compensation_that_meets_a_slow_charge_ends_with_the_money_given_back(stack: Stack) {
    let mut served = served(stack).await;
    served.handle(charge("tok_slow", 1)).await;
    served.handle(command(Verb::Compensate, 2, Value::Null)).await;
    let undone = served.outcome(Verb::Compensate).await;
    match undone {
        Outcome::Succeeded { output } => assert_eq!(output["undone"], "refunded", "{output}"),
        Outcome::Refused { .. } | Outcome::Retry { .. } => panic!("expected an undo, got {undone:?}"),
    }
    assert_eq!(served.net().await, Some((1, 1, 0)));
    let accepted = served.providers.summary().accepted;
    assert_eq!((accepted.charge, accepted.refund), (1, 1));
    served.handle(charge("tok_slow", 3)).await;
    match served.outcome(Verb::Execute).await {
        Outcome::Refused { code, .. } => assert_eq!(code, "fenced"),
        // The slow charge's own answer may arrive first.
        Outcome::Succeeded { .. } => assert_eq!(served.outcome(Verb::Execute).await.as_str(), "refused"),
        other @ Outcome::Retry { .. } => panic!("not an outcome: {other:?}"),
    }
}
