//! The participant against the SMS and mail simulators, over a loopback socket.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use notify::{BreakerOptions, Notify};
use participant_kit::{Effect, External, Verdict};
use providers::{Filter, Kind};
use runtime::breaker::State;
use runtime::http::serve_here;
use saga_defs::Outcome;
use serde_json::{Value, json};
use support::{LIMIT, PHONE, PHONE_DOWN, PHONE_SILENT, World, channel, code, effect, noted, nowhere};
use tokio::sync::Semaphore;

/// Failures that open the breaker in these tests.
const FAILURES: u32 = 3;

/// An SMS provider made for one test: it counts, and does as it is told.
struct Script {
    asked: AtomicU64,
    up: AtomicBool,
    /// Answers wait for a permit here.
    gate: Semaphore,
}

impl Script {
    async fn serve(world: &World, failure: StatusCode) -> (Arc<Self>, String) {
        let script =
            Arc::new(Self { asked: AtomicU64::new(0), up: AtomicBool::new(false), gate: Semaphore::new(1_000) });
        let shared = Arc::clone(&script);
        let answer = move || {
            let script = Arc::clone(&shared);
            async move {
                script.asked.fetch_add(1, Ordering::SeqCst);
                let _permit = script.gate.acquire().await;
                if script.up.load(Ordering::SeqCst) {
                    axum::Json(json!({"id": "sms_scripted"})).into_response()
                } else {
                    failure.into_response()
                }
            }
        };
        let url = serve_here(Router::new().route("/sms/messages", post(answer)), &world.tasks).await.unwrap();
        (script, url)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Tells patients, one after another, until `done`.
async fn tell_until(notify: &Notify, from: u128, done: impl Fn() -> bool) {
    let telling = async {
        let mut saga = from;
        while !done() {
            notify.execute(&effect(saga, PHONE)).await;
            saga += 1;
        }
    };
    let state = || notify.breaker_state();
    assert!(tokio::time::timeout(LIMIT, telling).await.is_ok(), "still waiting, the breaker is {:?}", state());
}

#[tokio::test]
async fn an_sms_is_enough() {
    let world = World::new().await;
    assert_eq!(channel(&world.notify(|_| ()).execute(&effect(1, PHONE)).await), "sms");
    assert_eq!(world.accepted(), (1, 0));
    let key = format!("{}:sms", effect(1, PHONE).provider_key);
    let filter = Filter { kind: Some(Kind::Sms), key: Some(key) };
    assert_eq!(world.providers.accepted(&filter, 0, 10).len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_or_out_of_reach_means_mail_at_once() {
    let world = World::new().await;
    let notify = world.notify(|_| ());
    assert_eq!(channel(&notify.execute(&effect(1, PHONE_DOWN)).await), "mail");
    let sms_url = nowhere().await;
    let unreachable = world.notify(|options| options.sms_url = sms_url);
    assert_eq!(channel(&unreachable.execute(&effect(2, PHONE)).await), "mail");
    assert_eq!(world.accepted(), (0, 2));
    assert_eq!(notify.switches_after_unknown() + unreachable.switches_after_unknown(), 0);
}

#[tokio::test]
async fn an_unacknowledged_sms_means_mail_too_and_is_counted() {
    let world = World::new().await;
    let notify = world.notify(|options| options.timeout_ms = 200);
    assert_eq!(channel(&notify.execute(&effect(1, PHONE_SILENT)).await), "mail");
    assert_eq!(world.accepted(), (1, 1));
    assert_eq!(notify.switches_after_unknown(), 1);
}

#[tokio::test]
async fn an_sms_that_may_have_gone_out_is_not_sent_again_by_a_later_try() {
    let world = World::new().await;
    let mail_url = nowhere().await;
    let cut_off = world.notify(|options| (options.timeout_ms, options.mail_url) = (200, mail_url));
    let first = cut_off.execute(&effect(1, PHONE_SILENT)).await;
    assert_eq!(noted(&first).as_deref(), Some("sms_unknown"));
    let mut again = effect(1, PHONE);
    again.provider_ref = noted(&first);
    assert_eq!(noted(&cut_off.execute(&again).await).as_deref(), Some("sms_unknown"), "the note must survive");
    let mended = world.notify(|_| ());
    assert_eq!(channel(&mended.execute(&again).await), "mail");
    assert_eq!(world.accepted(), (1, 1));
    assert_eq!(mended.switches_after_unknown(), 1);
}

#[tokio::test]
async fn after_an_interrupted_call_the_notice_goes_by_mail() {
    let world = World::new().await;
    let notify = world.notify(|_| ());
    let interrupted = Effect { interrupted: true, ..effect(1, PHONE) };
    assert_eq!(channel(&notify.execute(&interrupted).await), "mail");
    assert_eq!((world.accepted(), notify.switches_after_unknown()), ((0, 1), 1));
}

#[tokio::test]
async fn when_both_fail_for_sure_the_next_try_begins_with_the_sms() {
    let world = World::new().await;
    let mail_url = nowhere().await;
    let cut_off = world.notify(|options| options.mail_url = mail_url);
    world.providers.set_sms_down(true);
    let first = cut_off.execute(&effect(1, PHONE)).await;
    assert_eq!(noted(&first), None);
    world.providers.set_sms_down(false);
    assert_eq!(channel(&cut_off.execute(&effect(1, PHONE)).await), "sms");
    assert_eq!(world.accepted(), (1, 0));
}

#[tokio::test]
async fn a_command_of_another_name_or_shape_is_refused() {
    let world = World::new().await;
    let (mut shapeless, mut misnamed) = (effect(1, PHONE), effect(2, PHONE));
    shapeless.command.payload = json!({"patient": "Ada"});
    misnamed.command.command = "notify.sned".to_owned();
    for wrong in [shapeless, misnamed] {
        assert_eq!(code(&world.notify(|_| ()).execute(&wrong).await), "contract_violation");
    }
    assert_eq!(world.accepted(), (0, 0));
}

#[tokio::test]
async fn the_breaker_opens_after_failures_in_a_row_and_mail_goes_out() {
    let world = World::new().await;
    let (script, sms_url) = Script::serve(&world, StatusCode::SERVICE_UNAVAILABLE).await;
    let notify = world.notify(|options| {
        options.sms_url = sms_url;
        options.breaker.failures = FAILURES;
    });
    for saga in 1..=10 {
        assert_eq!(channel(&notify.execute(&effect(saga, PHONE)).await), "mail");
    }
    assert_eq!(notify.breaker_state(), State::Open);
    assert_eq!(script.asked(), u64::from(FAILURES), "an open breaker lets nothing through");
    assert_eq!(world.accepted(), (0, 10));
}

#[tokio::test]
async fn messages_refused_for_their_own_sake_do_not_open_the_breaker() {
    let world = World::new().await;
    let (script, sms_url) = Script::serve(&world, StatusCode::BAD_REQUEST).await;
    let notify = world.notify(|options| {
        options.sms_url = sms_url;
        options.breaker.failures = FAILURES;
    });
    for saga in 1..=10 {
        assert_eq!(channel(&notify.execute(&effect(saga, PHONE)).await), "mail");
    }
    assert_eq!((notify.breaker_state(), script.asked()), (State::Closed, 10));
}

#[tokio::test]
async fn half_open_lets_one_probe_through_and_its_success_closes_the_breaker() {
    let world = World::new().await;
    let (script, sms_url) = Script::serve(&world, StatusCode::SERVICE_UNAVAILABLE).await;
    let notify = Arc::new(world.notify(|options| {
        options.sms_url = sms_url;
        options.breaker = BreakerOptions { failures: FAILURES, open_ms: 100 };
    }));
    let failures = u64::from(FAILURES);
    tell_until(&notify, 1, || script.asked() == failures).await;
    script.up.store(true, Ordering::SeqCst);

    // The probe hangs at the provider while everybody else goes on by mail.
    let closed_gate = script.gate.acquire_many(1_000).await.unwrap();
    let probe = {
        let notify = Arc::clone(&notify);
        let (script, tasks) = (Arc::clone(&script), world.tasks.clone());
        let (answer, answered) = tokio::sync::oneshot::channel();
        tasks.spawn(async move {
            let mut saga = 1_000;
            let verdict = loop {
                let verdict = notify.execute(&effect(saga, PHONE)).await;
                if script.asked() > failures {
                    break verdict;
                }
                saga += 1;
            };
            answer.send(channel(&verdict)).unwrap();
        });
        answered
    };
    let at_the_gate = async {
        while script.asked() == failures {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, at_the_gate).await.expect("the breaker lets a probe through in the end");
    for saga in 2_000..2_010 {
        assert_eq!(channel(&notify.execute(&effect(saga, PHONE)).await), "mail");
    }
    assert_eq!(script.asked(), failures + 1, "one probe at a time");
    drop(closed_gate);
    assert_eq!(tokio::time::timeout(LIMIT, probe).await.unwrap().unwrap(), "sms");
    assert_eq!(notify.breaker_state(), State::Closed);
    assert_eq!(channel(&notify.execute(&effect(3_000, PHONE)).await), "sms");
}

#[tokio::test]
async fn nothing_shown_holds_the_patient() {
    let world = World::new().await;
    let notify = world.notify(|options| options.timeout_ms = 200);
    let verdicts = [notify.execute(&effect(1, PHONE)).await, notify.execute(&effect(2, PHONE_SILENT)).await];
    let outputs: Vec<Value> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Definite(Outcome::Succeeded { output }) => output.clone(),
            other @ (Verdict::Definite(_) | Verdict::Unknown { .. }) => panic!("expected a success, got {other:?}"),
        })
        .collect();
    let shown = format!("{notify:?} {verdicts:?} {outputs:?} {:?}", effect(1, PHONE));
    for secret in ["1500555", "Ada", "Lovelace", "ada@", "example.org"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
