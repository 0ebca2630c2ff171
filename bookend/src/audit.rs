//! `bookend audit`: adds up what all owners hold, and says what does not add up.
//!
//! Reads only. Must hold: every rule looks at the owners' own tables, not at what the engine believes about them. A
//! saga that is still open is judged only by what must hold at every moment.

use std::fmt::Display;
use std::ops::RangeInclusive;

use anyhow::Context;
use clinic::appointments::Status as AppointmentStatus;
use clinic::query::{Appointment, AppointmentFilter};
use saga_core::{Decision, Saga, Status};
use saga_defs::Timestamp;
use saga_defs::contract::Money;
use saga_defs::contract::booking::Reserved;
use saga_store::{Filter, Mismatch, Retention as _, SqlStore, State, Store};
use serde::Serialize;
use uuid::Uuid;

use crate::databases::Databases;

/// Rows read at once.
const PAGE: u64 = 200;

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The broken rule.
    pub rule: &'static str,
    /// The saga or slot concerned.
    pub subject: String,
    /// What was found.
    pub detail: String,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Sagas looked at.
    pub sagas: u64,
    /// Sagas that have not ended and are not stuck.
    pub open: u64,
    /// Payments whose saga may have been deleted after its end. They can't be judged any more, and are no finding.
    pub forgotten: u64,
    /// Dead letters that wait for a person. No finding: they are in plain sight.
    pub dead_letters: u64,
    /// What does not add up.
    pub findings: Vec<Finding>,
}

impl Report {
    fn find(&mut self, rule: &'static str, subject: impl Display, detail: impl Into<String>) {
        self.findings.push(Finding { rule, subject: format!("{subject}"), detail: detail.into() });
    }
}

/// Audits one saga, or everything.
///
/// # Errors
/// When a database can't be read.
pub async fn run(databases: &Databases, only: Option<Uuid>) -> anyhow::Result<Report> {
    let store = SqlStore::new(databases.engine.clone());
    let mut report = Report::default();
    if let Some(id) = only {
        let mut loaded = store.load(&[id]).await?;
        match loaded.sagas.remove(&id) {
            Some(stored) => saga(databases, &store, id, &stored.state, &mut report).await?,
            None => report.find("saga_exists", id, "there is no such saga, or it has ended and was deleted"),
        }
        contradictions(&store, id..=id, &mut report).await?;
        return Ok(report);
    }
    slots(databases, &mut report).await?;
    sagas(databases, &store, &mut report).await?;
    causes(databases, &store, &mut report).await?;
    report.dead_letters = store.dead_letters_waiting().await?;
    let outbox = store.outbox_load().await?;
    if outbox.rows > 0 {
        report.find(
            "outbox_empty",
            "outbox",
            format!("{} rows left, the oldest {} ms old", outbox.rows, outbox.oldest_ms),
        );
    }
    contradictions(&store, Uuid::nil()..=Uuid::max(), &mut report).await?;
    Ok(report)
}

/// No late reply speaks against its saga. A saga's history shows the replies.
async fn contradictions(store: &SqlStore, mut ids: RangeInclusive<Uuid>, report: &mut Report) -> anyhow::Result<()> {
    loop {
        let page = store.contradictions(ids.clone(), PAGE).await?;
        for (id, replies) in &page {
            report.find("no_contradiction", id, format!("late replies that contradict it: {replies}"));
        }
        match page.last().and_then(|(id, _)| id.as_u128().checked_add(1)) {
            Some(next) => ids = Uuid::from_u128(next)..=*ids.end(),
            None => return Ok(()),
        }
    }
}

/// No slot has two active appointments, and each slot's status tells the truth.
async fn slots(databases: &Databases, report: &mut Report) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let found = clinic::audit::double_booked_slots(&databases.clinic, after, PAGE).await?;
        for slot in &found {
            report.find("one_appointment_per_slot", slot, "two active appointments");
        }
        after = found.last().copied();
        if after.is_none() {
            break;
        }
    }
    loop {
        let found = clinic::audit::contradicting_slots(&databases.clinic, after, PAGE).await?;
        for slot in &found {
            report.find("slot_status", slot, "the slot's status contradicts its appointments");
        }
        after = found.last().copied();
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn sagas(databases: &Databases, store: &SqlStore, report: &mut Report) -> anyhow::Result<()> {
    let mut filter = Filter { tenant: "default".to_owned(), ..Filter::default() };
    loop {
        let page = store.list(&filter, PAGE).await?;
        let ids: Vec<Uuid> = page.iter().map(|summary| summary.header.id).collect();
        for (id, stored) in store.load(&ids).await?.sagas {
            saga(databases, store, id, &stored.state, report).await?;
        }
        filter.before = ids.last().copied();
        if filter.before.is_none() {
            return Ok(());
        }
    }
}

/// One saga: its history explains its state, and its effects fit its decision.
async fn saga(
    databases: &Databases,
    store: &SqlStore,
    id: Uuid,
    state: &State,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.sagas += 1;
    let saga = match state {
        State::Known(saga) => saga,
        State::Foreign(_) => {
            report.find("readable", id, "written by a build with another format");
            return Ok(());
        }
        State::Unreadable(unreadable) => {
            report.find("readable", id, &*unreadable.why);
            return Ok(());
        }
    };
    match saga_store::check_replay(store, id).await {
        Ok(()) => {}
        Err(Mismatch::Store(error)) => return Err(error).context("reading history"),
        Err(mismatch) => report.find("history_explains_state", id, mismatch.to_string()),
    }
    let paid = payment::query::of_saga(&databases.payment, id).await?;
    let net: Vec<Money> = paid.into_iter().map(|paid| paid.net).filter(|net| net.amount_minor != 0).collect();
    let of_saga = AppointmentFilter { saga_id: Some(id), slot_id: None };
    let appointments = clinic::query::appointments(&databases.clinic, &of_saga, None, PAGE).await?;
    judge(id, saga, &net, &appointments, report);
    Ok(())
}

fn judge(id: Uuid, saga: &Saga, net: &[Money], appointments: &[Appointment], report: &mut Report) {
    let held =
        |status: AppointmentStatus| appointments.iter().filter(|appointment| appointment.status == status).count();
    let (pending, confirmed) = (held(AppointmentStatus::Pending), held(AppointmentStatus::Confirmed));
    match (saga.status(), saga.decision) {
        (_, Some(Decision::Committed)) => {
            // A saga that never held a slot owes nothing, and may have taken nothing.
            let price = price(saga);
            if price.as_slice() != net {
                report.find("money_committed", id, format!("paid {}, price {}", told(net), told(price.as_slice())));
            }
            if confirmed != usize::from(price.is_some()) {
                report.find("appointment_committed", id, format!("{confirmed} confirmed appointments"));
            }
        }
        (Status::Compensated, _) => {
            if !net.is_empty() {
                report.find("money_returned", id, format!("{} kept for a saga that failed", told(net)));
            }
            if pending + confirmed > 0 {
                report.find("slot_released", id, "an appointment of a saga that failed is active");
            }
        }
        // What a stuck or closed saga holds is in plain sight of a person.
        (Status::Stuck | Status::Closed, _) => {}
        (Status::Running | Status::Compensating | Status::Completed, _) => report.open += 1,
    }
}

/// What the clinic asked for when it held the slot.
fn price(saga: &Saga) -> Option<Money> {
    let output = saga.step("booking")?.output()?.clone();
    serde_json::from_value::<Reserved>(output).ok().map(|reserved| reserved.price)
}

fn told(money: &[Money]) -> String {
    let amounts: Vec<String> = money.iter().map(ToString::to_string).collect();
    if amounts.is_empty() { "nothing".to_owned() } else { amounts.join(" and ") }
}

/// No effect without cause: whoever paid has a saga, or had one that is kept no longer.
async fn causes(databases: &Databases, store: &SqlStore, report: &mut Report) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = payment::query::page(&databases.payment, after, PAGE).await?;
        let ids: Vec<Uuid> = page.payments.iter().map(|paid| paid.saga_id).collect();
        let known = store.load(&ids).await?.sagas;
        // Later than the look at the sagas: one may have been deleted in between.
        let deleted_ended_by = store.deleted_ended_by().await?;
        for id in ids.iter().filter(|id| !known.contains_key(id)) {
            if may_be_forgotten(*id, deleted_ended_by) {
                report.forgotten += 1;
            } else {
                report.find("payment_has_cause", id, "money moved for a saga that does not exist");
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Whether a saga that is not there may be one that was deleted: it was born before the last of those had ended.
fn may_be_forgotten(id: Uuid, deleted_ended_by: Option<Timestamp>) -> bool {
    let born_ms = id
        .get_timestamp()
        .map(|born| born.to_unix())
        .map(|(seconds, nanos)| seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000)));
    match (born_ms, deleted_ended_by) {
        (Some(born_ms), Some(by)) => born_ms <= Timestamp(0).ms_until(by),
        // An id that says no time is none of the engine's.
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(status: AppointmentStatus, decision: Option<Decision>, ended: bool, net: i64) -> Vec<&'static str> {
        let mut text = serde_json::json!({
            "version": 3, "seed": 1, "phase": if ended { serde_json::json!({"ended": "compensated"}) } else { "forward".into() },
            "decision": decision,
            "steps": {"booking": {"execute": {"sent": 1}, "effect": {"succeeded": {
                "appointment_id": Uuid::nil(), "slot_id": Uuid::nil(), "starts_at": 0,
                "price": {"amount_minor": 4500, "currency": "EUR"}
            }}}}
        });
        if decision.is_none() {
            text.as_object_mut().unwrap().remove("decision");
        }
        let saga: Saga = serde_json::from_value(text).unwrap();
        let appointment = Appointment {
            id: Uuid::nil(),
            slot_id: Uuid::nil(),
            saga_id: Uuid::nil(),
            status,
            created_at: 0,
            updated_at: 0,
        };
        let mut report = Report::default();
        let net = Money { amount_minor: net, currency: "EUR".into() };
        let net: Vec<Money> = Some(net).into_iter().filter(|net| net.amount_minor != 0).collect();
        judge(Uuid::nil(), &saga, &net, &[appointment], &mut report);
        report.findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn what_adds_up_is_no_finding() {
        assert!(findings(AppointmentStatus::Confirmed, Some(Decision::Committed), false, 4500).is_empty());
        assert!(findings(AppointmentStatus::Released, Some(Decision::Undone), true, 0).is_empty());
        assert!(findings(AppointmentStatus::Pending, None, false, 4500).is_empty());
    }

    #[test]
    fn what_does_not_add_up_is_found() {
        let committed = Some(Decision::Committed);
        assert_eq!(findings(AppointmentStatus::Confirmed, committed, false, 9000), ["money_committed"]);
        assert_eq!(findings(AppointmentStatus::Released, committed, false, 4500), ["appointment_committed"]);
        assert_eq!(findings(AppointmentStatus::Released, Some(Decision::Undone), true, 4500), ["money_returned"]);
        assert_eq!(findings(AppointmentStatus::Pending, Some(Decision::Undone), true, 0), ["slot_released"]);
    }

    #[test]
    fn a_saga_that_is_gone_is_forgotten_only_if_it_is_older_than_what_was_deleted() {
        let born_ms = 1_795_253_400_000;
        let id = uuid::Builder::from_unix_timestamp_millis(born_ms, &[7; 10]).into_uuid();
        let at = |ms: u64| Some(Timestamp(0).plus_ms(ms));
        assert!(may_be_forgotten(id, at(born_ms)) && may_be_forgotten(id, at(born_ms + 1)));
        assert!(!may_be_forgotten(id, at(born_ms - 1)) && !may_be_forgotten(id, None));
        assert!(!may_be_forgotten(Uuid::from_u128(3), at(born_ms)), "no saga's id");
    }
}
