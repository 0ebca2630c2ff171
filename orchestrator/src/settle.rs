//! After the commit: acknowledge, answer, hint. Everything here is derived from the winners.

use saga_core::{Ignored, Status};
use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Reply, Timestamp, message};
use saga_store::{Error as StoreError, LateReason, LateReply, Outcome};
use transport::Queue;

use crate::Error;
use crate::dead_letters::Aside;
use crate::fold::{Group, Said, StartGroup};
use crate::hints;
use crate::keep::{self, Fact};
use crate::request::Snapshot;
use crate::shared::Shared;
use crate::work::{OperateVerdict, Receipt, StartVerdict, Work};

/// Tells everyone what came of a commit. Returns the inputs that lost and must be decided again.
pub(crate) async fn committed(
    shared: &Shared,
    moving: Vec<Group>,
    for_moving: &[Outcome],
    starting: Vec<StartGroup>,
    for_starting: &[Outcome],
    now: Timestamp,
) -> Vec<Work> {
    let mut again = Vec::new();
    let mut won = Vec::new();
    for (group, outcome) in moving.into_iter().zip(for_moving) {
        match outcome {
            Outcome::Committed => won.push(group),
            // Only starts have keys.
            Outcome::Lost | Outcome::KeyTaken { .. } | Outcome::BusinessKeyTaken { .. } => {
                metrics::counter!("bookend_store_conflicts_total").increment(1);
                again.extend(group.said.into_iter().map(|(work, _)| work));
            }
        }
    }
    won.iter().for_each(report);
    let answered = won.iter().filter(|group| group.snapshot.saga.is_answered());
    hints::tell(shared, answered.map(|group| (&group.snapshot, !group.answered_before)));
    groups(shared, won, now).await;
    for (group, outcome) in starting.into_iter().zip(for_starting) {
        again.extend(started(group, outcome));
    }
    again
}

/// Answers equal starts; gives them back when they must be decided again.
fn started(group: StartGroup, outcome: &Outcome) -> Vec<Work> {
    let StartGroup { snapshot, starts, watch, .. } = group;
    let mut watch = Some(watch);
    let (saga_id, fingerprint, created) = match outcome {
        Outcome::Lost => return starts.into_iter().map(|start| Work::Start(Box::new(start))).collect(),
        Outcome::BusinessKeyTaken { saga_id } => {
            for start in starts {
                count_start(&start.loaded.definition.name, "business_key_taken");
                let _ = start.answer.send(Ok(StartVerdict::BusinessKeyTaken { saga_id: *saga_id }));
            }
            return Vec::new();
        }
        Outcome::Committed => (snapshot.header.id, starts[0].fingerprint.clone(), true),
        Outcome::KeyTaken { saga_id, fingerprint } => (*saga_id, fingerprint.clone(), false),
    };
    for (index, start) in starts.into_iter().enumerate() {
        let verdict = if let Some(watch) = watch.take_if(|_| created && index == 0) {
            count_start(&start.loaded.definition.name, "new");
            StartVerdict::Created(Box::new(snapshot.clone()), watch)
        } else {
            let same = start.fingerprint == fingerprint;
            count_start(&start.loaded.definition.name, if same { "replayed" } else { "conflict" });
            StartVerdict::KeyTaken { saga_id, same }
        };
        // A client that went away gets the same answer when it comes again with its key.
        let _ = start.answer.send(Ok(verdict));
    }
    Vec::new()
}

/// Settles inputs whose saga is committed or did not move.
pub(crate) async fn groups(shared: &Shared, groups: Vec<Group>, now: Timestamp) {
    let mut late = Vec::new();
    let mut rearm = Vec::new();
    let mut receipts = Vec::new();
    for Group { snapshot, said, .. } in groups {
        for (work, said) in said {
            match (work, said) {
                (Work::Reply { reply, receipt }, Said::Ignored(ignored)) => match late_reason(ignored) {
                    Some(reason) => late.push(Late { reason, reply, receipt, received_at: now }),
                    None => receipts.push(receipt),
                },
                (Work::Reply { receipt, .. }, Said::Applied | Said::Refused(_)) => receipts.push(receipt),
                (Work::Tick { saga_id }, Said::Ignored(_)) => {
                    rearm.extend(snapshot.saga.wake_at().map(|at| (saga_id, snapshot.saga.version, at)));
                }
                (Work::Tick { .. }, Said::Applied | Said::Refused(_)) => {}
                (Work::Operate(work), said) => {
                    let snapshot = Box::new(snapshot.clone());
                    let verdict = match said {
                        Said::Applied => OperateVerdict::Applied { snapshot, repeated: false },
                        Said::Ignored(_) => OperateVerdict::Applied { snapshot, repeated: true },
                        Said::Refused(refusal) => OperateVerdict::Refused { snapshot, refusal },
                    };
                    let _ = work.answer.send(Ok(verdict));
                }
                (Work::Start(_), _) => unreachable!("starts are settled by themselves"),
            }
        }
    }
    keep_late(shared, late).await;
    receipts.iter().for_each(Receipt::settle);
    if !rearm.is_empty()
        && let Err(error) = shared.store.rearm_timers(&rearm).await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "timers could not be set back; they fire a little later"
        );
    }
}

/// Leaves inputs of sagas that this build can't read to those that can.
pub(crate) async fn foreign(shared: &Shared, works: Vec<Work>, now: Timestamp) {
    let mut alone = Vec::new();
    for work in works {
        match work {
            // There are no others: a reply is kept as a fact until this folder is opened by a build that knows more.
            work @ Work::Reply { .. } if shared.options.alone => alone.push(work),
            Work::Reply { reply, receipt } => {
                // A closed channel means that the engine stops: the delivery comes again.
                let _ = shared.foreign.send((reply, receipt)).await;
            }
            Work::Tick { saga_id } => {
                tracing::warn!(%saga_id, "a due saga can't be read by this build; left to others");
            }
            Work::Operate(work) => {
                let _ = work.answer.send(Ok(OperateVerdict::Foreign));
            }
            Work::Start(_) => unreachable!("a start has no saga yet"),
        }
    }
    orphans(shared, alone, now).await;
}

/// Settles inputs of sagas that do not exist: a reply is kept as a fact.
pub(crate) async fn orphans(shared: &Shared, works: Vec<Work>, now: Timestamp) {
    let mut late = Vec::new();
    for work in works {
        match work {
            Work::Reply { reply, receipt } => {
                late.push(Late { reason: LateReason::Orphan, reply, receipt, received_at: now })
            }
            Work::Tick { saga_id } => tracing::error!(%saga_id, "a due saga does not exist"),
            Work::Operate(work) => {
                let _ = work.answer.send(Ok(OperateVerdict::NotFound));
            }
            Work::Start(_) => unreachable!("a start has no saga yet"),
        }
    }
    keep_late(shared, late).await;
}

/// Inputs that the store refuses, tried so often: turned down or set aside, so that the others go on.
pub(crate) async fn poison(shared: &Shared, works: Vec<Work>, attempts: u32) {
    metrics::counter!("bookend_poison_inputs_total").increment(works.len() as u64);
    for work in works {
        match work {
            Work::Start(start) => {
                let _ = start.answer.send(Err(Error::Poison));
            }
            Work::Operate(work) => {
                let _ = work.answer.send(Err(Error::Poison));
            }
            Work::Reply { reply, receipt } => {
                set_aside(shared, &reply, receipt, "its saga could not be committed with it", attempts).await;
            }
            Work::Tick { saga_id } => tracing::error!(%saga_id, "a due saga can't be committed"),
        }
    }
}

/// A reply that the engine refuses, tried so often. A dead letter that is tried again stays what it is.
pub(crate) async fn set_aside(shared: &Shared, reply: &Reply, receipt: Receipt, why: &str, attempts: u32) {
    if receipt.give_up() {
        return;
    }
    tracing::error!(saga_id = %reply.saga_id, "a reply is set aside: {why}");
    let item = message::encode(std::slice::from_ref(reply)).concat();
    let letter = DeadLetter::new(&Queue::Replies.name(), Reason::Failed, item.as_bytes()).saying(why).after(attempts);
    // A closed channel means that the engine stops: the delivery comes again.
    let _ = shared.aside.send(Aside { letter, receipt }).await;
}

/// A reply that changes nothing any more and is kept as a fact.
#[derive(Debug)]
struct Late {
    reason: LateReason,
    reply: Box<Reply>,
    receipt: Receipt,
    received_at: Timestamp,
}

/// Keeps late replies, then acknowledges them; a store that is out of reach is waited for, and what the store refuses is
/// set aside: a fact that speaks against its saga is not lost.
async fn keep_late(shared: &Shared, late: Vec<Late>) {
    if late.is_empty() {
        return;
    }
    metrics::counter!("bookend_replies_late_total").increment(late.len() as u64);
    for late in keep::keep(shared, vec![late]).await {
        set_aside(shared, &late.reply, late.receipt, "it came too late and could not be kept as a fact", 1).await;
    }
}

impl Fact for Late {
    async fn put(shared: &Shared, part: &[Self]) -> Result<(), StoreError> {
        let rows: Vec<LateReply> = part.iter().map(late_reply).collect();
        shared.store.keep_late(&rows).await
    }

    fn kept(&self) {
        self.receipt.settle();
    }
}

fn late_reason(ignored: Ignored) -> Option<LateReason> {
    match ignored {
        Ignored::Duplicate | Ignored::NotDue | Ignored::Repeated => None,
        Ignored::Orphan => Some(LateReason::Orphan),
        Ignored::Overruled => Some(LateReason::Overruled),
        Ignored::LateFact => Some(LateReason::Ended),
        Ignored::LateContradiction => Some(LateReason::Contradiction),
    }
}

fn late_reply(Late { reason, reply, receipt: _, received_at }: &Late) -> LateReply {
    let code = match &reply.outcome {
        saga_defs::Outcome::Refused { code, .. } => Some(code.as_str()),
        saga_defs::Outcome::Succeeded { .. } | saga_defs::Outcome::Retry { .. } => None,
    };
    let text = serde_json::json!({
        "key": reply.key, "verb": reply.verb, "outcome": reply.outcome.as_str(), "code": code
    });
    LateReply {
        saga_id: reply.saga_id,
        command_id: reply.command_id,
        reason: *reason,
        reply: text.to_string(),
        received_at: *received_at,
    }
}

fn count_start(definition: &str, result: &'static str) {
    metrics::counter!("bookend_sagas_started_total", "definition" => definition.to_owned(), "result" => result)
        .increment(1);
}

/// Says in logs and metrics what people want to hear of.
fn report(group: &Group) {
    let Snapshot { header, saga, .. } = &group.snapshot;
    let status = saga.status();
    tracing::debug!(saga_id = %header.id, version = saga.version, ?status, "saga moved");
    match status {
        Status::Running | Status::Compensating => {}
        Status::Stuck => {
            // A stuck saga moves, too: what is said of it late is written down.
            if let Some(stuck) = saga.stuck.as_ref().filter(|_| saga.stuck != group.stuck_before) {
                let (cause, step, verb) = (stuck.cause.as_str(), stuck.step.as_str(), stuck.verb.as_str());
                tracing::warn!(saga_id = %header.id, cause, step, verb, "saga needs a person");
            }
        }
        Status::Completed | Status::Compensated | Status::Closed => {
            let decision = saga.decision;
            tracing::info!(saga_id = %header.id, ?status, ?decision, "saga ended");
            metrics::counter!("bookend_sagas_ended_total", "definition" => header.definition.clone(), "status" => status.as_str())
                .increment(1);
        }
    }
}
