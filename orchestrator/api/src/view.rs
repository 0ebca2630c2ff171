//! A saga as clients see it, whole and in a list.
//!
//! Must hold: `null` says that there is nothing, a missing member does not occur; instants are RFC 3339; actions say
//! what this very caller may do; nothing here comes from a saga's input.

use orchestrator::Snapshot;
use runtime::clock::rfc3339;
use runtime::http::Principal;
use saga_core::view::{self as core_view, ActionView, WaitView};
use saga_store::Summary;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access;
use crate::words::{CancelOutcome, Cause, Decision, Kind, Status, StepStatus, Verb, WaitsFor};

/// A saga as it is at one version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Saga)]
pub(crate) struct SagaView {
    id: Uuid,
    /// `name@version` of its definition.
    #[schema(example = "booking@1")]
    definition: String,
    /// Business key, unique while the saga is open.
    key: Option<String>,
    status: Status,
    decision: Option<Decision>,
    /// Counts changes; the number in `ETag`.
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
    /// Undecided then, the saga is undone.
    #[schema(format = DateTime)]
    deadline_at: Option<String>,
    /// Name of the token that started it.
    principal: String,
    /// Why it does not go the forward way; the first cause.
    failure: Option<Failure>,
    /// A request to cancel.
    cancel: Option<Cancel>,
    /// Why it needs a person.
    stuck: Option<Stuck>,
    /// What it waits for by itself.
    waiting: Option<Wait>,
    /// In the definition's order.
    steps: Vec<Step>,
    /// What may be asked of it, and by this caller.
    actions: Vec<Action>,
    links: Links,
}

/// Why a saga does not go the forward way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// The step it came from; none for a cancel or a deadline.
    step: Option<String>,
    /// A refusal code of the step, or `attempts_exhausted`, `cancelled`, `deadline_passed`, `compensate_requested`.
    code: String,
    /// A sentence for a person.
    message: String,
}

/// A request to cancel.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cancel {
    #[schema(format = DateTime)]
    requested_at: String,
    outcome: CancelOutcome,
}

/// Why a saga needs a person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stuck {
    cause: Cause,
    step: String,
    /// What `retry` sends again.
    verb: Verb,
    #[schema(format = DateTime)]
    since: String,
    /// A sentence for a person.
    message: String,
}

/// What a saga waits for by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Wait {
    step: String,
    verb: Verb,
    #[serde(rename = "for")]
    waits_for: WaitsFor,
    #[schema(format = DateTime)]
    until: String,
}

/// A step as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Step {
    name: String,
    participant: String,
    kind: Kind,
    status: StepStatus,
    /// Commands sent to execute it.
    execute_attempts: u32,
    /// Commands sent to compensate it.
    compensate_attempts: u32,
    /// Its refusal code.
    code: Option<String>,
    /// Whether its effect stands; null where that is not known.
    holds_effect: Option<bool>,
}

/// An action and whether the caller may ask for it now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Action {
    name: &'static str,
    allowed: bool,
    /// Why not.
    reason: Option<&'static str>,
}

/// Where to go from here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    this: String,
    history: String,
    definition: String,
}

/// A saga in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SagaSummary)]
pub(crate) struct SummaryView {
    id: Uuid,
    /// `name@version` of its definition.
    #[schema(example = "booking@1")]
    definition: String,
    key: Option<String>,
    principal: String,
    status: Status,
    decision: Option<Decision>,
    /// Why it does not go the forward way, for machines.
    failure_code: Option<String>,
    /// Why it needs a person.
    stuck: Option<StuckSummary>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
}

/// Why a saga needs a person, in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StuckSummary {
    cause: Cause,
    step: String,
}

impl SagaView {
    /// The saga as `principal` sees it.
    pub(crate) fn new(snapshot: &Snapshot, principal: &Principal) -> Self {
        let Snapshot { header, saga, loaded } = snapshot;
        let definition = loaded.definition.reference();
        Self {
            id: header.id,
            key: header.key.clone(),
            principal: header.principal.clone(),
            status: saga.status().into(),
            decision: saga.decision.map(Decision::from),
            created_at: rfc3339(header.created_at),
            decided_at: saga.decided_at.map(rfc3339),
            deadline_at: saga.deadline_at.map(rfc3339),
            version: saga.version,
            failure: saga.failure.clone().map(Failure::from),
            cancel: saga.cancel.as_ref().map(Cancel::from),
            stuck: saga.stuck.clone().map(Stuck::from),
            waiting: core_view::waiting(saga).map(Wait::from),
            steps: core_view::steps(&loaded.definition, saga).into_iter().map(Step::from).collect(),
            actions: core_view::actions(saga).into_iter().map(|action| Action::new(action, principal)).collect(),
            links: Links {
                this: location(header.id),
                history: format!("{}/history", location(header.id)),
                definition: format!("/v1/definitions/{definition}"),
            },
            definition,
        }
    }

    /// Names of the actions that the caller may ask for now.
    pub(crate) fn possible_actions(&self) -> Vec<&'static str> {
        self.actions.iter().filter(|action| action.allowed).map(|action| action.name).collect()
    }
}

/// The path of a saga.
pub(crate) fn location(id: Uuid) -> String {
    format!("/v1/sagas/{id}")
}

impl Action {
    fn new(action: ActionView, principal: &Principal) -> Self {
        let reason = access::denied(action.name, principal).or(action.denied);
        Self { name: action.name, allowed: reason.is_none(), reason }
    }
}

impl From<saga_core::state::Failure> for Failure {
    fn from(failure: saga_core::state::Failure) -> Self {
        Self { step: failure.step, code: failure.code, message: failure.message }
    }
}

impl From<&saga_core::state::Cancel> for Cancel {
    fn from(cancel: &saga_core::state::Cancel) -> Self {
        Self { requested_at: rfc3339(cancel.requested_at), outcome: cancel.outcome.into() }
    }
}

impl From<saga_core::state::Stuck> for Stuck {
    fn from(stuck: saga_core::state::Stuck) -> Self {
        Self {
            cause: stuck.cause.into(),
            step: stuck.step,
            verb: stuck.verb.into(),
            since: rfc3339(stuck.since),
            message: stuck.message,
        }
    }
}

impl From<WaitView<'_>> for Wait {
    fn from(wait: WaitView<'_>) -> Self {
        Self {
            step: wait.step.to_owned(),
            verb: wait.verb.into(),
            waits_for: wait.waiting.into(),
            until: rfc3339(wait.until),
        }
    }
}

impl From<core_view::StepView<'_>> for Step {
    fn from(step: core_view::StepView<'_>) -> Self {
        Self {
            name: step.name.to_owned(),
            participant: step.participant.to_owned(),
            kind: step.kind.into(),
            status: step.status.into(),
            execute_attempts: step.execute_attempts,
            compensate_attempts: step.compensate_attempts,
            code: step.code.map(str::to_owned),
            holds_effect: step.holds_effect,
        }
    }
}

impl From<Summary> for SummaryView {
    fn from(summary: Summary) -> Self {
        let header = summary.header;
        Self {
            id: header.id,
            definition: format!("{}@{}", header.definition, header.definition_version),
            key: header.key,
            principal: header.principal,
            status: summary.status.into(),
            decision: summary.decision.map(Decision::from),
            failure_code: summary.failure_code,
            stuck: summary.stuck.map(|(cause, step)| StuckSummary { cause: cause.into(), step }),
            version: summary.version,
            created_at: rfc3339(header.created_at),
            updated_at: rfc3339(summary.updated_at),
            decided_at: summary.decided_at.map(rfc3339),
        }
    }
}
