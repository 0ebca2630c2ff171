//! Sorts what a delivery holds into commands for this participant, announcements of ended sagas, and dead letters of
//! everything else.
//!
//! Not for commands that contradict what the inbox knows: those are answered. Must hold: every item of a delivery is
//! one of the three, so that nothing is dropped; nothing of what an item says is logged.

use saga_defs::dead_letter::{DeadLetter, Reason};
use saga_defs::{Command, Ended, message};
use transport::Queue;

use crate::{Error, inbox};

/// What a delivery holds.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// To be handled, in order.
    pub(crate) commands: Vec<Command>,
    /// Sagas whose effects may be forgotten.
    pub(crate) ended: Vec<Ended>,
    /// To be set aside.
    pub(crate) letters: Vec<DeadLetter>,
}

/// Sorts the items of a message body that came to `participant`.
pub(crate) fn sort(participant: &'static str, body: &[u8]) -> Sorted {
    let queue = Queue::Participant(participant.to_owned()).name();
    let mut sorted = Sorted::default();
    let items = match message::items(body) {
        Ok(items) => items,
        Err(error) => {
            sorted.letters.push(DeadLetter::unreadable(&queue, &error, body));
            Vec::new()
        }
    };
    for item in items {
        match message::read::<Command>(item) {
            Ok(command) if command.participant == participant => sorted.commands.push(command),
            Ok(_) => sorted.letters.push(
                DeadLetter::new(&queue, Reason::WrongParticipant, item.as_bytes())
                    .saying("a command for another participant came to this queue"),
            ),
            Err(error) => match message::read::<Ended>(item) {
                Ok(ended) if ended.participant == participant => sorted.ended.push(ended),
                Ok(_) => sorted.letters.push(
                    DeadLetter::new(&queue, Reason::WrongParticipant, item.as_bytes())
                        .saying("an announcement to another participant came to this queue"),
                ),
                Err(_) => sorted.letters.push(DeadLetter::unreadable(&queue, &error, item.as_bytes())),
            },
        }
    }
    for letter in &sorted.letters {
        let (reason, detail) = (letter.reason.as_str(), letter.detail.as_str());
        tracing::error!(participant, reason, detail, "an item of a message is set aside");
        inbox::count(participant, "invalid");
    }
    sorted
}

/// The dead letter of an announcement that was tried `attempts` times in vain.
pub(crate) fn unheard(participant: &'static str, ended: &Ended, attempts: u32, error: &Error) -> DeadLetter {
    let error = error as &dyn std::error::Error;
    tracing::error!(participant, sagas = ended.ended.len(), attempts, error, "ended sagas can't be forgotten");
    let queue = Queue::Participant(participant.to_owned()).name();
    let item = message::encode(std::slice::from_ref(ended)).concat();
    DeadLetter::new(&queue, Reason::Failed, item.as_bytes()).saying(&error.to_string()).after(attempts)
}

/// The dead letter of a command that was tried `attempts` times in vain.
pub(crate) fn failed(participant: &'static str, command: &Command, attempts: u32, error: &Error) -> DeadLetter {
    tracing::error!(
        participant,
        ?command,
        attempts,
        error = error as &dyn std::error::Error,
        "a command can't be handled and is set aside"
    );
    inbox::count(participant, "invalid");
    let queue = Queue::Participant(participant.to_owned()).name();
    let item = message::encode(std::slice::from_ref(command)).concat();
    DeadLetter::new(&queue, Reason::Failed, item.as_bytes()).saying(&error.to_string()).after(attempts)
}
