//! What is known of the two messages that a notice may go out by, as a pure function: which provider is asked next.
//!
//! Not for asking. Must hold: every combination has one entry; what may have gone out is never taken for unsent again; a
//! provider that refused is not asked again.

use participant_kit::Effect;
use saga_defs::contract::notify::Channel;

/// What is known of one message. In the order in which knowledge grows: no later answer leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It did not go out: it was never asked for, or its provider was down.
    Unsent,
    /// It may have gone out.
    Unknown,
    /// Its provider refused it for good. Said under the key of an unknown message this is the word on that one, too.
    Refused,
}

/// What is known of a notice's two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) sms: Fate,
    pub(crate) mail: Fate,
}

/// How a row notes what is known, one word each. What is unsent has none.
const WORDS: [(Channel, Fate, &str); 4] = [
    (Channel::Sms, Fate::Unknown, "sms_unknown"),
    (Channel::Sms, Fate::Refused, "sms_refused"),
    (Channel::Mail, Fate::Unknown, "mail_unknown"),
    (Channel::Mail, Fate::Refused, "mail_refused"),
];

impl Fates {
    const UNSENT: Self = Self { sms: Fate::Unsent, mail: Fate::Unsent };

    /// What is known before a call for `effect`. One that was interrupted asked whom the table says.
    pub(crate) fn before(effect: &Effect) -> Self {
        let noted = effect.provider_ref.as_deref().map_or(Self::UNSENT, Self::read);
        if !effect.interrupted {
            return noted;
        }
        noted.to_ask().iter().fold(noted, |fates, channel| fates.learn(*channel, Fate::Unknown))
    }

    /// The table: which providers to ask, one after the other until one takes its message. None: it is undeliverable.
    pub(crate) fn to_ask(self) -> &'static [Channel] {
        match (self.sms, self.mail) {
            (Fate::Unsent, Fate::Unsent) => &[Channel::Sms, Channel::Mail],
            // The mail goes out instead, and may tell the patient a second time.
            (Fate::Unknown | Fate::Refused, Fate::Unsent) => &[Channel::Mail],
            // Its provider can tell by the key that it has it. An SMS could only tell the patient once more.
            (Fate::Unsent | Fate::Unknown | Fate::Refused, Fate::Unknown) => &[Channel::Mail],
            // Nothing else is left, so an SMS that may have gone out is asked for again: rather told twice than never.
            (Fate::Unsent | Fate::Unknown, Fate::Refused) => &[Channel::Sms],
            (Fate::Refused, Fate::Refused) => &[],
        }
    }

    /// What is known after an answer on `channel`.
    pub(crate) fn learn(self, channel: Channel, fate: Fate) -> Self {
        match channel {
            Channel::Sms => Self { sms: self.sms.max(fate), ..self },
            Channel::Mail => Self { mail: self.mail.max(fate), ..self },
        }
    }

    /// What the row is to note, if there is anything.
    pub(crate) fn note(self) -> Option<String> {
        let known = WORDS.iter().filter(|(channel, fate, _)| self.of(*channel) == *fate);
        let words: Vec<&str> = known.map(|(.., word)| *word).collect();
        if words.is_empty() { None } else { Some(words.join(" ")) }
    }

    /// A word that this build does not know may mean anything: both may have gone out.
    fn read(note: &str) -> Self {
        note.split(' ').fold(Self::UNSENT, |fates, word| match WORDS.iter().find(|known| known.2 == word) {
            Some((channel, fate, _)) => fates.learn(*channel, *fate),
            None => fates.learn(Channel::Sms, Fate::Unknown).learn(Channel::Mail, Fate::Unknown),
        })
    }

    fn of(self, channel: Channel) -> Fate {
        match channel {
            Channel::Sms => self.sms,
            Channel::Mail => self.mail,
        }
    }
}

#[cfg(test)]
mod tests {
    use participant_kit::conformance;
    use serde_json::Value;
    use uuid::Uuid;

    use super::Channel::{Mail, Sms};
    use super::Fate::{Refused, Unknown, Unsent};
    use super::*;

    /// The table once more: what is known of the SMS and of the mail, how a row notes it, whom it leads to.
    const TABLE: [(Fate, Fate, Option<&str>, &[Channel]); 9] = [
        (Unsent, Unsent, None, &[Sms, Mail]),
        (Unsent, Unknown, Some("mail_unknown"), &[Mail]),
        (Unsent, Refused, Some("mail_refused"), &[Sms]),
        (Unknown, Unsent, Some("sms_unknown"), &[Mail]),
        (Unknown, Unknown, Some("sms_unknown mail_unknown"), &[Mail]),
        (Unknown, Refused, Some("sms_unknown mail_refused"), &[Sms]),
        (Refused, Unsent, Some("sms_refused"), &[Mail]),
        (Refused, Unknown, Some("sms_refused mail_unknown"), &[Mail]),
        (Refused, Refused, Some("sms_refused mail_refused"), &[]),
    ];

    fn effect(note: Option<&str>, interrupted: bool) -> Effect {
        let effect = conformance::effect("notify", Uuid::from_u128(1), Value::Null);
        Effect { provider_ref: note.map(str::to_owned), interrupted, ..effect }
    }

    #[test]
    fn every_combination_is_noted_read_and_decided_as_written() {
        for (sms, mail, note, to_ask) in TABLE {
            let fates = Fates { sms, mail };
            assert_eq!(fates.to_ask(), to_ask, "{fates:?}");
            assert_eq!(fates.note().as_deref(), note, "{fates:?}");
            assert_eq!(Fates::before(&effect(note, false)), fates);
        }
    }

    #[test]
    fn what_was_known_is_never_forgotten() {
        for before in [Unsent, Unknown, Refused] {
            for learnt in [Unsent, Unknown, Refused] {
                let expected = match (before, learnt) {
                    (Unsent, learnt) => learnt,
                    (Unknown, Unsent | Unknown) => Unknown,
                    (Unknown, Refused) | (Refused, Unsent | Unknown | Refused) => Refused,
                };
                assert_eq!(
                    Fates { sms: before, mail: Unsent }.learn(Sms, learnt),
                    Fates { sms: expected, mail: Unsent }
                );
                assert_eq!(
                    Fates { sms: Unsent, mail: before }.learn(Mail, learnt),
                    Fates { sms: Unsent, mail: expected }
                );
            }
        }
    }

    #[test]
    fn an_interrupted_call_leaves_unknown_whom_it_may_have_asked() {
        for (note, sms, mail) in [
            (None, Unknown, Unknown),
            (Some("sms_unknown"), Unknown, Unknown),
            (Some("mail_unknown"), Unsent, Unknown),
            (Some("mail_refused"), Unknown, Refused),
            (Some("sms_refused"), Refused, Unknown),
        ] {
            assert_eq!(Fates::before(&effect(note, true)), Fates { sms, mail }, "{note:?}");
        }
    }

    #[test]
    fn an_unreadable_note_says_that_both_may_have_gone_out() {
        for note in ["", "fax_unknown", "sms_sent"] {
            assert_eq!(Fates::before(&effect(Some(note), false)), Fates { sms: Unknown, mail: Unknown }, "{note:?}");
        }
        let refused_at_least = Fates { sms: Unknown, mail: Refused };
        assert_eq!(Fates::before(&effect(Some("fax_unknown mail_refused"), false)), refused_at_least);
    }
}
