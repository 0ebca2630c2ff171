//! What a person does with a dead letter: send its item again, or throw it away.
//!
//! Must hold: nothing is lost between "replayed" and on its way: commands lie in the outbox in the transaction that
//! says so, and replies are applied before it is said. Both may happen twice, which inbox and core know from once.
//! A command is not sent after its dedupe window, because its participant may have forgotten the effect.

use saga_defs::dead_letter::explain;
use saga_defs::{Command, Reply, Timestamp, message};
use saga_store::{KeptLetter, LetterState, OutboxMessage, Settlement, Settling};
use transport::Queue;
use uuid::Uuid;

use crate::Error;
use crate::shared::Shared;
use crate::work::{Receipt, Tried, Work};

/// What a person wants of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterAction {
    /// Send its item again.
    Replay,
    /// Throw it away.
    Discard,
}

impl LetterAction {
    /// Where the letter stands afterwards.
    #[must_use]
    pub fn leads_to(self) -> LetterState {
        match self {
            Self::Replay => LetterState::Replayed,
            Self::Discard => LetterState::Discarded,
        }
    }
}

/// A person's wish about a dead letter.
#[derive(Clone, Debug)]
pub struct LetterRequest {
    /// The letter.
    pub id: Uuid,
    /// `admin:NAME`.
    pub actor: String,
    /// Why, in the asker's words.
    pub reason: String,
    /// What is wished.
    pub action: LetterAction,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum LetterAnswer {
    /// It is settled as wished.
    Settled {
        /// The letter as it is now.
        letter: Box<KeptLetter>,
        /// It was settled like this before.
        repeated: bool,
    },
    /// It is not, and nothing was changed.
    Refused(LetterRefusal),
    /// There is no such letter.
    NotFound,
}

/// Why a dead letter is not settled as wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterRefusal {
    /// It was settled the other way, or died again just now.
    AlreadySettled(LetterState),
    /// A command in it must not be sent any more.
    DedupeWindowOver {
        /// Until when it could be.
        until: Timestamp,
    },
    /// This build can't read the item either.
    StillUnreadable(String),
    /// A reply in it can't be committed, still.
    StillFailing,
}

/// How a letter's item is sent again.
enum Plan {
    Commands { participant: String, body: String },
    Replies(Vec<Reply>),
}

pub(crate) async fn settle(shared: &Shared, request: LetterRequest) -> Result<LetterAnswer, Error> {
    let LetterRequest { id, actor, reason, action } = request;
    let Some(letter) = shared.store.dead_letter(id).await? else { return Ok(LetterAnswer::NotFound) };
    if letter.summary.state != LetterState::Waiting {
        return Ok(settled_before(letter, action));
    }
    let how = match action {
        LetterAction::Discard => Settling::Discard,
        LetterAction::Replay => {
            let now = shared.store.load(&[]).await?.now;
            match plan(&letter, now) {
                Err(refusal) => return Ok(LetterAnswer::Refused(refusal)),
                Ok(Plan::Commands { participant, .. }) if !is_commanded(shared, &participant).await? => {
                    let why = format!("no definition has a participant {participant:?}");
                    return Ok(LetterAnswer::Refused(LetterRefusal::StillUnreadable(why)));
                }
                Ok(Plan::Commands { participant, body }) => {
                    let id = shared.entropy.id(now);
                    Settling::Replay(Some(OutboxMessage { id, participant, body: body.into(), attempts: 0 }))
                }
                Ok(Plan::Replies(replies)) => match apply(shared, replies).await? {
                    Tried::Settled => Settling::Replay(None),
                    Tried::GaveUp => return Ok(LetterAnswer::Refused(LetterRefusal::StillFailing)),
                },
            }
        }
    };
    let won = shared.store.settle_dead_letter(id, &Settlement { how, by: actor.clone(), reason }).await?;
    let Some(letter) = shared.store.dead_letter(id).await? else { return Ok(LetterAnswer::NotFound) };
    if !won {
        return Ok(settled_before(letter, action));
    }
    tracing::info!(letter = %id, by = actor, ?action, "a dead letter is settled");
    Ok(LetterAnswer::Settled { letter: Box::new(letter), repeated: false })
}

fn settled_before(letter: KeptLetter, action: LetterAction) -> LetterAnswer {
    let state = letter.summary.state;
    if state == action.leads_to() {
        LetterAnswer::Settled { letter: Box::new(letter), repeated: true }
    } else {
        LetterAnswer::Refused(LetterRefusal::AlreadySettled(state))
    }
}

/// Whether any definition commands this participant. A message for another would wait in the outbox for ever.
async fn is_commanded(shared: &Shared, participant: &str) -> Result<bool, Error> {
    let named = || {
        let known = shared.definitions.known();
        known.iter().any(|loaded| loaded.definition.steps.iter().any(|step| step.participant == participant))
    };
    if !named() {
        shared.definitions.catch_up(&*shared.store).await?;
    }
    Ok(named())
}

fn plan(letter: &KeptLetter, now: Timestamp) -> Result<Plan, LetterRefusal> {
    let unreadable = |why: &str| LetterRefusal::StillUnreadable(why.to_owned());
    if letter.summary.bytes.is_some() {
        return Err(unreadable("only its beginning was kept"));
    }
    let misread = |error: saga_defs::Error| LetterRefusal::StillUnreadable(explain(&error).1);
    let item = letter.encoding.bytes(&letter.body).map_err(misread)?;
    match Queue::named(&letter.summary.queue) {
        Some(Queue::Participant(name)) => {
            let commands = read::<Command>(&item).map_err(misread)?;
            let late = commands.iter().map(|command| command.dedupe_until).filter(|until| *until < now).min();
            if let Some(until) = late {
                return Err(LetterRefusal::DedupeWindowOver { until });
            }
            let body = String::from_utf8(item).map_err(|_| unreadable("it is no text"))?;
            Ok(Plan::Commands { participant: addressee(&commands).unwrap_or(name), body })
        }
        Some(Queue::Replies) => Ok(Plan::Replies(read(&item).map_err(misread)?)),
        Some(Queue::DeadLetters) | None => Err(unreadable("its queue is none that it could go back to")),
    }
}

fn read<T: message::Item>(item: &[u8]) -> Result<Vec<T>, saga_defs::Error> {
    message::decode(item)?.into_iter().collect()
}

/// Whom all commands name: it may be another than the one whose queue they were in.
fn addressee(commands: &[Command]) -> Option<String> {
    let first = &commands.first()?.participant;
    commands.iter().all(|command| command.participant == *first).then(|| first.clone())
}

/// Puts replies to their sagas and waits until they are committed or known to change nothing.
async fn apply(shared: &Shared, replies: Vec<Reply>) -> Result<Tried, Error> {
    if replies.is_empty() {
        return Ok(Tried::Settled);
    }
    let (receipt, mut tried) = Receipt::again(replies.len());
    let applied = async {
        for reply in replies {
            let worker = shared.worker(reply.saga_id);
            let work = Work::Reply { reply: Box::new(reply), receipt: receipt.clone() };
            worker.send(work).await.map_err(|_| Error::Stopping)?;
        }
        drop(receipt);
        // Dropped unsettled: the engine stops, or the store failed.
        tried.recv().await.ok_or(Error::NoAnswer)
    };
    tokio::time::timeout(shared.options.answer_within, applied).await.unwrap_or(Err(Error::NoAnswer))
}
