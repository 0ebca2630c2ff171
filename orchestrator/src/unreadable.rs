//! Sagas whose rows can't be read: each is left alone, said aloud, and keeps no other from being decided.
//!
//! Not for mending them: a person does that. Must hold: nothing is written to such a row but when it is looked at again; what
//! came for it is not lost; nothing of what it holds is logged.

use std::sync::Arc;

use saga_defs::Timestamp;
use saga_store::{Header, State, Stored, Unreadable};
use uuid::Uuid;

use crate::Error;
use crate::settle::set_aside;
use crate::shared::Shared;
use crate::work::{OperateVerdict, Work};

/// How long a due one is left alone.
const AGAIN_MS: u64 = 3_600_000;

/// A saga that can't be read, and what came for it.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) header: Arc<Header>,
    pub(crate) what: Unreadable,
    pub(crate) works: Vec<Work>,
}

/// What somebody is told who asks for such a saga.
pub(crate) fn error(header: Arc<Header>, what: &Unreadable) -> Error {
    Error::Unreadable { header, why: what.why.clone() }
}

/// Counts sagas that were met.
pub(crate) fn count(by: &'static str, sagas: usize) {
    metrics::counter!("bookend_sagas_unreadable_total", "by" => by).increment(sagas as u64);
}

/// Those of these ended sagas that nobody can read. One of them is named in the log, each of them by the audit.
pub(crate) fn staying<'a>(sagas: impl Iterator<Item = &'a Stored>) -> Vec<Uuid> {
    let torn = |stored: &'a Stored| match &stored.state {
        State::Known(_) | State::Foreign(_) => None,
        State::Unreadable(what) => Some((stored.header.id, &what.why)),
    };
    let torn: Vec<(Uuid, &String)> = sagas.filter_map(torn).collect();
    if let Some((saga_id, why)) = torn.first() {
        count("retention", torn.len());
        tracing::error!(%saga_id, sagas = torn.len(), "ended sagas can't be read and stay; of the first, {why}");
    }
    torn.into_iter().map(|(id, _)| id).collect()
}

/// Sets replies aside, answers operations, and puts off what is due.
pub(crate) async fn settle(shared: &Shared, met: Vec<Met>, now: Timestamp) {
    let mut later = Vec::new();
    for Met { header, what, works } in met {
        let saga_id = header.id;
        for work in works {
            match work {
                Work::Reply { reply, receipt } => {
                    count("reply", 1);
                    set_aside(shared, &reply, receipt, &format!("its saga can't be read: {}", what.why), 1).await;
                }
                Work::Tick { .. } => {
                    count("timer", 1);
                    tracing::error!(%saga_id, "a due saga can't be read and is put off for an hour: {}", what.why);
                    later.push((saga_id, what.version, now.plus_ms(AGAIN_MS)));
                }
                Work::Operate(work) => {
                    count("operation", 1);
                    let verdict = OperateVerdict::Unreadable(Arc::clone(&header), what.clone());
                    let _ = work.answer.send(Ok(verdict));
                }
                Work::Start(_) => unreachable!("a start has no saga yet"),
            }
        }
    }
    if !later.is_empty()
        && let Err(error) = shared.store.rearm_timers(&later).await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "sagas that can't be read are due again in a moment");
    }
}
