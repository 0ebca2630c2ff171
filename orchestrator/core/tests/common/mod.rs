//! A desk at which a saga is played by hand: given a saga, when a reply, then a command.
#![allow(dead_code, reason = "each test file uses its part")]

use saga_core::event::Event;
use saga_core::state::Cause;
use saga_core::{Action, Answer, Context, Decision, Ignored, Input, Operation, Refusal, Saga, Status};
use saga_defs::{Command, Definition, Outcome, Timestamp, Verb, catalog};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) definition: Definition,
    pub(crate) input: Value,
    pub(crate) saga: Saga,
    pub(crate) now: Timestamp,
    pub(crate) history: Vec<Vec<Event>>,
    pub(crate) sent: Vec<Command>,
}

pub(crate) fn id() -> Uuid {
    Uuid::from_u128(0x5a6a)
}

pub(crate) fn input() -> Value {
    json!({
        "slot_id": "0190f5fe-7c00-7a00-8000-000000000001",
        "patient": {"name": "Ada", "phone": "+15005550006", "email": "ada@example.org"},
        "payment_method": "tok_visa"
    })
}

pub(crate) fn outputs(step: &str) -> Value {
    match step {
        "booking" => json!({
            "appointment_id": "a", "slot_id": "s", "starts_at": 7, "price": {"amount_minor": 4500, "currency": "EUR"}
        }),
        _ => json!({"step": step}),
    }
}

pub(crate) fn nothing_to_undo() -> Outcome {
    Outcome::succeeded(json!({"nothing_to_undo": true}))
}

/// A booking whose pivot is under way.
pub(crate) fn at_pivot() -> Desk {
    let mut desk = Desk::booking();
    desk.succeed("booking");
    desk.succeed("payment");
    desk.expect("confirmation", Verb::Execute);
    desk
}

/// A saga whose fence was asked, and whose first step is in hand.
pub(crate) fn fenced_with_another_in_hand() -> (Desk, Command, Command) {
    let mut desk = at_pivot();
    let (reserve, confirm) = (desk.sent[0].clone(), desk.expect("confirmation", Verb::Execute));
    desk.operate(Action::Cancel).expect("is stored");
    let fence = desk.expect("confirmation", Verb::Compensate);
    desk.reply(&reserve, Outcome::refused("slot_taken", ""));
    desk.stuck(Cause::ContractViolation, "booking");
    (desk, confirm, fence)
}

impl Desk {
    pub(crate) fn booking() -> Self {
        Self::with(catalog::booking())
    }

    pub(crate) fn with(definition: Definition) -> Self {
        let input = input();
        let now = Timestamp(1_000_000);
        let context = Context { saga_id: id(), tenant: "default", definition: &definition, input: &input };
        let applied = saga_core::start(&context, "digest", 42, now);
        Self { saga: applied.saga, now, history: vec![applied.events], sent: applied.commands, definition, input }
    }

    pub(crate) fn put(&mut self, input: &Input) -> Result<Option<Ignored>, Refusal> {
        let definition = self.definition.clone();
        let document = self.input.clone();
        let context = Context { saga_id: id(), tenant: "default", definition: &definition, input: &document };
        match saga_core::apply(&context, &self.saga, input, self.now)? {
            Answer::Ignored(ignored) => Ok(Some(ignored)),
            Answer::Applied(applied) => {
                self.saga = applied.saga;
                self.history.push(applied.events);
                self.sent.extend(applied.commands);
                Ok(None)
            }
        }
    }

    /// The newest command, which must be for this step and verb.
    pub(crate) fn expect(&mut self, step: &str, verb: Verb) -> Command {
        let command = self.sent.last().expect("nothing was sent").clone();
        assert_eq!((command.step.as_str(), command.verb), (step, verb));
        command
    }

    pub(crate) fn reply(&mut self, command: &Command, outcome: Outcome) -> Option<Ignored> {
        self.put(&Input::Reply(command.reply(outcome))).expect("replies are never turned down")
    }

    /// The newest command is for this step and verb, and is answered.
    pub(crate) fn answer(&mut self, step: &str, verb: Verb, outcome: Outcome) -> Option<Ignored> {
        let command = self.expect(step, verb);
        self.reply(&command, outcome)
    }

    pub(crate) fn succeed(&mut self, step: &str) -> Command {
        let command = self.expect(step, Verb::Execute);
        assert_eq!(self.reply(&command, Outcome::succeeded(outputs(step))), None);
        command
    }

    pub(crate) fn undo(&mut self, step: &str) -> Command {
        let command = self.expect(step, Verb::Compensate);
        assert_eq!(self.reply(&command, Outcome::succeeded(json!({}))), None);
        command
    }

    pub(crate) fn operate(&mut self, action: Action) -> Result<Option<Ignored>, Refusal> {
        let id = Uuid::from_u128(self.saga.version.into());
        self.put(&Input::Operation(Operation {
            id,
            digest: action.as_str().to_owned(),
            expected_version: None,
            action,
        }))
    }

    /// Lets time pass to the next wake-up.
    pub(crate) fn wake(&mut self) {
        self.now = self.saga.wake_at().expect("nothing is waited for").max(self.now);
        assert_eq!(self.put(&Input::Tick), Ok(None));
    }

    /// Lets every attempt of the newest command end in silence, until something else happens.
    pub(crate) fn silence(&mut self, step: &str, verb: Verb) {
        let phase = (self.saga.phase.clone(), self.saga.stuck.is_some());
        while (self.saga.phase.clone(), self.saga.stuck.is_some()) == phase && self.saga.wake_at().is_some() {
            let waiting = self.saga.waiting().map(|(name, verb, _)| (name.to_owned(), verb));
            if waiting != Some((step.to_owned(), verb)) {
                return;
            }
            self.wake();
        }
    }

    pub(crate) fn ends(&self, status: Status, decision: Option<Decision>) {
        assert_eq!((self.saga.status(), self.saga.decision), (status, decision), "{:#?}", self.saga);
        self.check();
    }

    pub(crate) fn stuck(&self, cause: Cause, step: &str) {
        let stuck = self.saga.stuck.as_ref().expect("not stuck");
        assert_eq!((stuck.cause, stuck.step.as_str()), (cause, step));
        self.check();
    }

    /// What must hold at every moment.
    pub(crate) fn check(&self) {
        let replayed = saga_core::replay(self.history.iter().map(Vec::as_slice)).expect("history is sound");
        assert_eq!(replayed, self.saga, "folding history gives the stored state");
        let waits = self.saga.wake_at().is_some();
        let held = self.saga.stuck.is_some() || self.saga.is_ended();
        assert!(waits != held, "waits for something with an instant, or ended, or stuck: {:#?}", self.saga);
        let stored = serde_json::to_string(&self.saga).expect("state is JSON");
        assert_eq!(serde_json::from_str::<Saga>(&stored).expect("state reads back"), self.saga);
    }
}
