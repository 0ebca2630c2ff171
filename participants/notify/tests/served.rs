//! The participant behind the kit: what its rows keep between calls, and when they are closed.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Owned, Stack};
use participant_kit::handler::{Answered, Handler, Received, Replies, Run, Ticket};
use participant_kit::{ExternalHandler, ExternalOptions, conformance};
use runtime::Tasks;
use saga_defs::contract::notify::SEND;
use saga_defs::ids::effect_key;
use saga_defs::{Command, Outcome, Verb};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::Query;
use support::{LIMIT, PHONE, Script, payload};
use tokio::sync::mpsc;
use uuid::Uuid;

struct Served {
    handler: ExternalHandler<notify::Notify>,
    run: Run,
    answers: mpsc::Receiver<Answered>,
    script: Arc<Script>,
    owned: Owned,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.run.tasks.stop();
    }
}

async fn served(stack: Stack) -> Served {
    let tasks = Tasks::new();
    let (script, notify) = Script::serve(&tasks).await;
    let owned = Owned::open::<migrations::Notify>(stack).await;
    let options = ExternalOptions { sweep_every: Duration::from_millis(20), ..ExternalOptions::default() };
    let handler = ExternalHandler::new(owned.db.clone(), notify, options);
    let (replies, answers) = Replies::channel(64);
    let run = Run { replies, tasks };
    handler.start(&run).await.unwrap();
    Served { handler, run, answers, script, owned }
}

impl Served {
    async fn ask(&self, attempt: u32) {
        let key = effect_key(Uuid::from_u128(1), "notify", 0);
        let command = conformance::command("notify", key, Verb::Execute, attempt, payload(PHONE));
        let command = Command { saga_id: Uuid::from_u128(1), command: SEND.to_owned(), ..command };
        let received = Received { command, ticket: Ticket(u64::from(attempt)) };
        self.handler.handle(&self.run, &[received]).await.unwrap();
    }

    /// The next answer.
    async fn outcome(&mut self) -> Outcome {
        let answer = async {
            loop {
                if let Answered::Reply(reply, _) | Answered::Announcement(reply, _) = self.answers.recv().await.unwrap()
                {
                    return reply.outcome;
                }
            }
        };
        tokio::time::timeout(LIMIT, answer).await.expect("an answer comes")
    }

    /// The row's state, and whether it holds its command, which holds the patient.
    async fn stored(&self) -> (String, bool) {
        let select = Query::select().columns(["state", "command"]).from("inbox").to_owned();
        let row = self.owned.db.reader().query_one(&select).await.unwrap().unwrap();
        let command: Option<String> = row.try_get_by_index(1).unwrap();
        (row.try_get_by_index(0).unwrap(), command.is_some())
    }
}

fixture::on_every_stack! {
    a_notice_that_nobody_takes_is_over_and_forgets_the_patient,
    what_a_call_taught_reaches_the_next_one,
}

async fn a_notice_that_nobody_takes_is_over_and_forgets_the_patient(stack: Stack) {
    let mut served = served(stack).await;
    served.script.say(400, 400);
    served.ask(1).await;
    let first = served.outcome().await;
    match &first {
        Outcome::Refused { code, .. } => assert_eq!(code, "undeliverable"),
        Outcome::Succeeded { .. } | Outcome::Retry { .. } => panic!("expected a refusal, got {first:?}"),
    }
    assert_eq!(served.stored().await, ("refused".to_owned(), false));
    served.ask(2).await;
    assert_eq!(served.outcome().await, first, "it is answered from the row");
    assert_eq!(served.script.asked().0, ["sms", "mail"], "nobody is asked again");
    assert!(notify::query::page(&served.owned.db, None, None, 10).await.unwrap().is_empty());
}

async fn what_a_call_taught_reaches_the_next_one(stack: Stack) {
    let mut served = served(stack).await;
    served.script.say(503, 500);
    served.ask(1).await;
    assert_eq!(served.outcome().await.as_str(), "retry");
    served.script.say(200, 200);
    // The attempt that was told to come again hears of the verdict when the sweep has it.
    served.ask(2).await;
    let verdict = loop {
        match served.outcome().await {
            Outcome::Retry { .. } => {}
            outcome @ (Outcome::Succeeded { .. } | Outcome::Refused { .. }) => break outcome,
        }
    };
    match verdict {
        Outcome::Succeeded { output } => assert_eq!(output["channel"], "mail"),
        Outcome::Refused { .. } | Outcome::Retry { .. } => panic!("expected a success, got {verdict:?}"),
    }
    let (asked, keys) = served.script.asked();
    assert_eq!(asked, ["sms", "mail", "mail"]);
    assert_eq!(keys[1], keys[2]);
}
