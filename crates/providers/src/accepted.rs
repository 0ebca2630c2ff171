//! What the providers accepted, in order: the independent witness of demos and tests.
//!
//! Not for surviving a restart: the journal replays this list. Must hold: nothing is ever removed or changed;
//! recipients are kept masked; messages are bounded here, charges and refunds by the number of intents.

use std::collections::BTreeMap;

use saga_defs::Timestamp;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// What sort of effect was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Money was taken.
    Charge,
    /// Money was given back.
    Refund,
    /// A text message went out.
    Sms,
    /// A mail went out.
    Mail,
}

/// One accepted effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// 1 for the first effect that was accepted.
    pub sequence: u64,
    /// What it was.
    pub kind: Kind,
    /// The idempotency key that it was asked for with.
    pub key: String,
    /// The provider's id of it.
    pub provider_ref: String,
    /// Money: how much, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    /// Money: in which currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Messages: to whom, masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// When, in microseconds since 1970.
    pub at: Timestamp,
}

/// Which records are asked for; an absent field matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this idempotency key.
    pub key: Option<String>,
}

/// One number per kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of charges.
    pub charge: u64,
    /// Of refunds.
    pub refund: u64,
    /// Of text messages.
    pub sms: u64,
    /// Of mails.
    pub mail: u64,
}

/// Counts over everything accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Accepted effects.
    pub accepted: Counts,
    /// Idempotency keys under which more than one effect of the kind was accepted.
    pub doubles: Counts,
}

impl Counts {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Charge => &mut self.charge,
            Kind::Refund => &mut self.refund,
            Kind::Sms => &mut self.sms,
            Kind::Mail => &mut self.mail,
        }
    }
}

/// A message that went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) key: String,
    /// Masked.
    pub(crate) recipient: String,
    pub(crate) at: Timestamp,
}

/// The list and its counters.
#[derive(Debug)]
pub(crate) struct Accepted {
    records: Vec<Record>,
    keys: BTreeMap<(Kind, String), u32>,
    summary: Summary,
    messages_max: usize,
}

/// Money that moved.
pub(crate) struct Money<'a> {
    pub(crate) amount_minor: i64,
    pub(crate) currency: &'a str,
}

impl Accepted {
    pub(crate) fn new(messages_max: usize) -> Self {
        Self { records: Vec::new(), keys: BTreeMap::new(), summary: Summary::default(), messages_max }
    }

    /// Notes money that moved. The caller bounds how often: once per intent and kind.
    pub(crate) fn money(&mut self, kind: Kind, key: &str, provider_ref: &str, money: &Money<'_>, at: Timestamp) {
        self.push(Record {
            sequence: 0,
            kind,
            key: key.to_owned(),
            provider_ref: provider_ref.to_owned(),
            amount_minor: Some(money.amount_minor),
            currency: Some(money.currency.to_owned()),
            recipient: None,
            at,
        });
    }

    /// Whether one more message of this kind may be accepted.
    pub(crate) fn has_room(&self, kind: Kind) -> Result<(), Refusal> {
        let mut counts = self.summary.accepted;
        if *counts.of(kind) < self.messages_max as u64 { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Notes a message that went out.
    pub(crate) fn message(&mut self, kind: Kind, message: Message) {
        self.push(Record {
            sequence: 0,
            kind,
            key: message.key,
            provider_ref: message.id,
            amount_minor: None,
            currency: None,
            recipient: Some(message.recipient),
            at: message.at,
        });
    }

    fn push(&mut self, mut record: Record) {
        record.sequence = self.records.len() as u64 + 1;
        let times = self.keys.entry((record.kind, record.key.clone())).or_insert(0);
        *times = times.saturating_add(1);
        if *times == 2 {
            *self.summary.doubles.of(record.kind) += 1;
        }
        *self.summary.accepted.of(record.kind) += 1;
        self.records.push(record);
    }

    pub(crate) fn summary(&self) -> Summary {
        self.summary
    }

    pub(crate) fn list(&self, filter: &Filter, after: u64, limit: usize) -> Vec<Record> {
        // Sequence numbers are positions plus one, so a cursor is where to go on.
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(self.records.len());
        let fits = |record: &&Record| {
            filter.kind.is_none_or(|kind| kind == record.kind)
                && filter.key.as_ref().is_none_or(|key| *key == record.key)
        };
        self.records[from..].iter().filter(fits).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, id: &str) -> Message {
        Message { id: id.to_owned(), key: key.to_owned(), recipient: "***".to_owned(), at: Timestamp(0) }
    }

    #[test]
    fn doubles_count_keys_not_messages() {
        let mut accepted = Accepted::new(10);
        for (key, id) in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4")] {
            accepted.message(Kind::Sms, message(key, id));
        }
        accepted.message(Kind::Mail, message("a", "5"));
        let summary = accepted.summary();
        assert_eq!((summary.accepted.sms, summary.accepted.mail), (4, 1));
        assert_eq!((summary.doubles.sms, summary.doubles.mail), (1, 0));
    }

    #[test]
    fn a_full_channel_refuses_and_leaves_the_other_alone() {
        let mut accepted = Accepted::new(1);
        assert_eq!(accepted.has_room(Kind::Sms), Ok(()));
        accepted.message(Kind::Sms, message("a", "1"));
        assert_eq!(accepted.has_room(Kind::Sms), Err(Refusal::Full));
        assert_eq!(accepted.has_room(Kind::Mail), Ok(()));
    }
}
