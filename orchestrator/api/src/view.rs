//! Sagas as the API shows them.
//!
//! Must hold: nothing here holds personal data: outputs and inputs are not shown.

use orchestrator::Snapshot;
use runtime::clock::rfc3339;
use runtime::http::Principal;
use saga_core::state::Waiting;
use saga_core::view::{self, ActionView};
use saga_core::{Decision, Status};
use saga_defs::Timestamp;
use saga_store::Summary;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A saga as it is at one version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SagaView {
    pub(crate) id: Uuid,
    /// `name@version`.
    definition: String,
    /// Business key.
    key: Option<String>,
    /// `running`, `compensating`, `stuck`, `completed`, `compensated` or `closed`.
    #[schema(value_type = String)]
    status: Status,
    /// What you may rely on, once set: `committed`, `refused`, `undone` or `abandoned`.
    #[schema(value_type = Option<String>)]
    decision: Option<Decision>,
    /// Counts transitions; also the ETag.
    version: u64,
    created_at: String,
    decided_at: Option<String>,
    deadline_at: Option<String>,
    /// Why it does not go the forward way.
    failure: Option<FailureView>,
    cancel: Option<CancelView>,
    /// Why it needs a person.
    stuck: Option<StuckView>,
    /// What it waits for by itself.
    waiting: Option<WaitingView>,
    steps: Vec<StepView>,
    /// What can be asked of it, and why the rest can't.
    actions: Vec<ActionsView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureView {
    step: Option<String>,
    code: String,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelView {
    requested_at: String,
    /// `pending`, `granted` or `too_late`.
    #[schema(value_type = String)]
    outcome: saga_core::state::CancelOutcome,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StuckView {
    #[schema(value_type = String)]
    cause: saga_core::state::Cause,
    step: String,
    /// What a retry would send: `execute` or `compensate`.
    #[schema(value_type = String)]
    verb: saga_defs::Verb,
    since: String,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WaitingView {
    step: String,
    participant: String,
    #[schema(value_type = String)]
    verb: saga_defs::Verb,
    /// `reply`, or `backoff` before the next attempt.
    #[serde(rename = "for")]
    what: &'static str,
    until: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    name: String,
    participant: String,
    /// `compensatable`, `without_effect`, `pivot` or `retriable`.
    kind: &'static str,
    /// `pending`, `unknown`, `succeeded`, `refused`, `skipped`, `compensating`, `compensated` or `fenced`.
    status: &'static str,
    execute_attempts: u32,
    compensate_attempts: u32,
    /// Refusal code.
    code: Option<String>,
    /// Whether its effect stands; null when that is not known.
    holds_effect: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionsView {
    pub(crate) name: &'static str,
    pub(crate) allowed: bool,
    /// Why not.
    pub(crate) reason: Option<&'static str>,
}

/// A saga in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryView {
    pub(crate) id: Uuid,
    definition: String,
    key: Option<String>,
    #[schema(value_type = String)]
    status: Status,
    #[schema(value_type = Option<String>)]
    decision: Option<Decision>,
    failure_code: Option<String>,
    version: u64,
    created_at: String,
    updated_at: String,
    decided_at: Option<String>,
}

impl SagaView {
    /// The saga as `principal` may see and change it.
    pub(crate) fn new(snapshot: &Snapshot, principal: &Principal) -> Self {
        let Snapshot { header, saga, loaded } = snapshot;
        let definition = &loaded.definition;
        Self {
            id: header.id,
            definition: definition.reference(),
            key: header.key.clone(),
            status: saga.status(),
            decision: saga.decision,
            version: saga.version,
            created_at: rfc3339(header.created_at),
            decided_at: saga.decided_at.map(rfc3339),
            deadline_at: saga.deadline_at.map(rfc3339),
            failure: saga.failure.as_ref().map(|failure| FailureView {
                step: failure.step.clone(),
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
            cancel: saga
                .cancel
                .as_ref()
                .map(|cancel| CancelView { requested_at: rfc3339(cancel.requested_at), outcome: cancel.outcome }),
            stuck: saga.stuck.as_ref().map(|stuck| StuckView {
                cause: stuck.cause,
                step: stuck.step.clone(),
                verb: stuck.verb,
                since: rfc3339(stuck.since),
                message: stuck.message.clone(),
            }),
            waiting: waiting(snapshot),
            steps: view::steps(definition, saga).iter().map(StepView::from).collect(),
            actions: actions(snapshot, principal),
        }
    }
}

fn waiting(snapshot: &Snapshot) -> Option<WaitingView> {
    let view = view::waiting(&snapshot.saga)?;
    let participant = snapshot.loaded.definition.step(view.step).map(|step| step.participant.clone());
    let what = match view.waiting {
        Waiting::Reply { .. } => "reply",
        Waiting::Backoff { .. } => "backoff",
    };
    Some(WaitingView {
        step: view.step.to_owned(),
        participant: participant.unwrap_or_default(),
        verb: view.verb,
        what,
        until: rfc3339(view.until),
    })
}

/// What `principal` can ask of a saga, with reasons for the rest.
pub(crate) fn actions(snapshot: &Snapshot, principal: &Principal) -> Vec<ActionsView> {
    let view = |ActionView { name, denied }: ActionView| {
        let role = (name != "cancel" && !principal.is_admin()).then_some("only an admin can do this");
        let reason = denied.or(role);
        ActionsView { name, allowed: reason.is_none(), reason }
    };
    view::actions(&snapshot.saga).into_iter().map(view).collect()
}

impl From<&view::StepView<'_>> for StepView {
    fn from(step: &view::StepView<'_>) -> Self {
        Self {
            name: step.name.to_owned(),
            participant: step.participant.to_owned(),
            kind: step.kind.as_str(),
            status: step.status.as_str(),
            execute_attempts: step.execute_attempts,
            compensate_attempts: step.compensate_attempts,
            code: step.code.map(str::to_owned),
            holds_effect: step.holds_effect,
        }
    }
}

impl From<Summary> for SummaryView {
    fn from(summary: Summary) -> Self {
        let Summary { header, status, decision, failure_code, version, updated_at, decided_at } = summary;
        let time = |at: Timestamp| rfc3339(at);
        Self {
            id: header.id,
            definition: format!("{}@{}", header.definition, header.definition_version),
            key: header.key,
            status,
            decision,
            failure_code,
            version,
            created_at: time(header.created_at),
            updated_at: time(updated_at),
            decided_at: decided_at.map(time),
        }
    }
}
