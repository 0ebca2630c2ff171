//! What leaves with a commit: the winners' commands, one participant's together.
//!
//! Must hold: what is laid out for many and left to some has the bytes of what is laid out for those; the ids are
//! functions of the commit, so that a commit tried twice names its messages alike; they sort by time, so that new rows
//! lie side by side.

use std::collections::BTreeMap;

use saga_defs::{Command, Ended, Timestamp, ended, message};
use uuid::{Builder, Uuid};

use crate::{Leaving, OutboxMessage};

/// How long whoever committed has for publishing before anyone may.
pub(crate) const HEAD_START_MS: u64 = 1_000;
/// Attempts after which the pause between two of them grows no more.
pub(crate) const BACKOFF_DOUBLINGS_MAX: u32 = 5;

/// How long a message that was claimed `attempts` times before is left alone.
pub(crate) fn backoff_ms(push_ms: u64, attempts: u32) -> u64 {
    push_ms.saturating_mul(1 << attempts.min(BACKOFF_DOUBLINGS_MAX))
}

/// A message that is laid out before anybody knows who wins: each item stands for itself, and a loser's is left out.
pub(crate) struct Planned {
    pub(crate) id: Uuid,
    pub(crate) participant: String,
    /// Who asks, and the command as `saga_defs::message` writes it, in order.
    pub(crate) items: Vec<(Uuid, String)>,
    bytes: usize,
}

impl Planned {
    fn has_room(&self, item: &str) -> bool {
        self.items.len() < message::BATCH_ITEMS_MAX && self.bytes + item.len() < message::BATCH_BYTES_MAX
    }

    /// What is left of the message without the losers' commands; none when nothing is.
    pub(crate) fn message(&self, wins: impl Fn(Uuid) -> bool) -> Option<OutboxMessage> {
        let items: Vec<&str> = self.items.iter().filter(|(id, _)| wins(*id)).map(|(_, item)| item.as_str()).collect();
        let body = match items[..] {
            [] => return None,
            [alone] => alone.to_owned(),
            [..] => format!("[{}]", items.join(",")),
        };
        let participant = self.participant.clone();
        Some(OutboxMessage { id: self.id, participant, body: body.into(), attempts: 0 })
    }
}

/// The messages that carry `commands`, whose order is kept within each participant.
pub(crate) fn plan<'a>(
    commit_id: Uuid,
    now: Timestamp,
    commands: impl IntoIterator<Item = &'a Command>,
) -> Vec<Planned> {
    let mut by_participant: BTreeMap<&str, Vec<&Command>> = BTreeMap::new();
    for command in commands {
        by_participant.entry(&command.participant).or_default().push(command);
    }
    let mut planned: Vec<Planned> = Vec::new();
    for (participant, commands) in by_participant {
        let first = planned.len();
        for command in commands {
            let item = message::encode(std::slice::from_ref(command)).concat();
            if planned.len() == first || !planned.last().is_some_and(|last| last.has_room(&item)) {
                let id = message_id(commit_id, now, planned.len());
                planned.push(Planned { id, participant: participant.to_owned(), items: Vec::new(), bytes: 2 });
            }
            if let Some(last) = planned.last_mut() {
                last.bytes += item.len() + 1;
                last.items.push((command.saga_id, item));
            }
        }
    }
    planned
}

/// The messages that carry `commands` of winners.
pub(crate) fn group<'a>(
    commit_id: Uuid,
    now: Timestamp,
    commands: impl IntoIterator<Item = &'a Command>,
) -> Vec<OutboxMessage> {
    plan(commit_id, now, commands).iter().filter_map(|planned| planned.message(|_| true)).collect()
}

/// The messages that tell each participant of those of `leaving` that name it.
pub(crate) fn announcements(batch: Uuid, now: Timestamp, leaving: &[Leaving]) -> Vec<OutboxMessage> {
    let mut by_participant: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    for Leaving { saga_id, participants } in leaving {
        for participant in participants {
            by_participant.entry(participant).or_default().push(*saga_id);
        }
    }
    let told = by_participant.iter().flat_map(|(participant, sagas)| {
        sagas.chunks(ended::SAGAS_MAX).map(|sagas| Ended::new(participant, sagas)).collect::<Vec<_>>()
    });
    let message = |(index, told): (usize, Ended)| OutboxMessage {
        id: message_id(batch, now, index),
        body: message::encode(std::slice::from_ref(&told)).concat().into(),
        participant: told.participant,
        attempts: 0,
    };
    told.enumerate().map(message).collect()
}

/// A UUIDv7 whose random part is derived.
fn message_id(commit_id: Uuid, now: Timestamp, index: usize) -> Uuid {
    let derived = Uuid::new_v5(&commit_id, &index.to_be_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&derived.as_bytes()[..10]);
    Builder::from_unix_timestamp_millis(Timestamp(0).ms_until(now), &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_repeat_for_a_commit_and_differ_between_commits_and_messages() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let now = Timestamp(1_795_253_400_000_000);
        assert_eq!(message_id(one, now, 0), message_id(one, now, 0));
        assert_ne!(message_id(one, now, 0), message_id(one, now, 1));
        assert_ne!(message_id(one, now, 0), message_id(other, now, 0));
        assert_eq!(message_id(one, now, 0).get_version_num(), 7);
        assert!(message_id(one, now, 0) < message_id(other, now.plus_ms(1), 0));
    }

    #[test]
    fn a_participant_hears_only_of_sagas_that_touched_it() {
        let leaving = |id, participants: &[&str]| Leaving {
            saga_id: Uuid::from_u128(id),
            participants: participants.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut all: Vec<Leaving> = (0..300).map(|id| leaving(id, &["alpha"])).collect();
        all.extend([leaving(300, &["alpha", "beta"]), leaving(301, &[])]);
        let messages = announcements(Uuid::from_u128(1), Timestamp(0), &all);
        let told: Vec<Ended> = messages.iter().map(|message| message::read(&message.body).unwrap()).collect();
        let counts: Vec<(&str, usize)> =
            told.iter().map(|told| (told.participant.as_str(), told.ended.len())).collect();
        assert_eq!(counts, [("alpha", 256), ("alpha", 45), ("beta", 1)]);
        assert!(messages[0].id != messages[1].id && messages[0].participant == "alpha");
    }

    #[test]
    fn pauses_double_five_times() {
        let pauses: Vec<u64> = [0, 1, 5, 6, 400].map(|attempts| backoff_ms(100, attempts)).to_vec();
        assert_eq!(pauses, [100, 200, 3_200, 3_200, 3_200]);
    }
}
