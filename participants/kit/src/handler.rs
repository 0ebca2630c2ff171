//! What a participant's shapes have in common towards the queue: commands come in with a ticket, replies leave with
//! it, and a delivery is acknowledged when all its tickets came back. Announcements of ended sagas bring a ticket, too.
//!
//! Not for moving messages: that is [`crate::serve()`]. Must hold: a handler that failed has answered nothing, so that
//! the very same batch can be handled again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use runtime::Tasks;
use saga_defs::{Command, DeadLetter, Reply};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::Error;

/// Names a delivery among those in hand. One goes out with each command and must come back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A command in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The command.
    pub command: Command,
    /// Its ticket.
    pub ticket: Ticket,
}

/// What a handler says. A ticket comes back once what is said with it is safe.
#[derive(Debug)]
pub enum Answered {
    /// The answer to a command in hand.
    Reply(Reply, Ticket),
    /// A reply that nobody in hand asked for. Told once it is safe; dropped when that will not be known.
    Announcement(Reply, oneshot::Sender<()>),
    /// What was in hand can't be handled.
    Letter(DeadLetter, Ticket),
    /// Nothing to be published.
    Silence(Ticket),
}

/// Where replies are handed over. Bounded: sending waits for room.
#[derive(Clone, Debug)]
pub struct Replies(mpsc::Sender<Answered>);

impl Replies {
    /// Both ends of a queue for `capacity` answers.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Answered>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Answers a command in hand.
    pub async fn send(&self, reply: Reply, ticket: Ticket) {
        self.hand_over(Answered::Reply(reply, ticket)).await;
    }

    /// Says what nobody in hand asked for. The receiver hears when that is safe, or an error when nobody will know.
    pub async fn announce(&self, reply: Reply) -> oneshot::Receiver<()> {
        let (told, safe) = oneshot::channel();
        self.hand_over(Answered::Announcement(reply, told)).await;
        safe
    }

    /// Gives a ticket back without an answer. The attempt of a command stays unknown to the engine, which asks again; of an
    /// announcement everything is done.
    pub async fn give_back(&self, ticket: Ticket) {
        self.hand_over(Answered::Silence(ticket)).await;
    }

    /// Sets aside what was in hand. Its ticket comes back once the dead letter is safe.
    pub async fn set_aside(&self, letter: DeadLetter, ticket: Ticket) {
        self.hand_over(Answered::Letter(letter, ticket)).await;
    }

    async fn hand_over(&self, answered: Answered) {
        // A closed queue means that serving ended: the delivery stays unacknowledged and comes again.
        let _ = self.0.send(answered).await;
    }
}

/// One serving of a participant: where its answers go, and how it starts tasks.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where answers go.
    pub replies: Replies,
    /// Starts tasks, and tells of shutdown.
    pub tasks: Tasks,
}

/// A participant of any shape, as the queue sees it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The participant's name: its queue.
    fn participant(&self) -> &'static str;

    /// Called before the first batch of a run; called again until it succeeds.
    ///
    /// # Errors
    /// When the database failed.
    async fn start(&self, run: &Run) -> Result<(), Error>;

    /// Handles a batch; each command is answered through `run`, now or when its call is done.
    ///
    /// # Errors
    /// When the database failed; then nothing was answered and nothing was started.
    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error>;

    /// Forgets the effects of sagas for which no command comes any more: rows in which nothing is open and nothing is
    /// owed. How many rows that were; repeating it does no harm.
    ///
    /// # Errors
    /// When the database failed.
    async fn forget(&self, sagas: &[Uuid]) -> Result<u64, Error>;
}

/// Splits a batch so that no round has a key twice, each key's commands stay in arrival order, and as much as
/// possible happens at once. Items are positions in the batch.
pub(crate) fn rounds(keys: impl IntoIterator<Item = Uuid>) -> Vec<Vec<usize>> {
    let mut seen: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (position, key) in keys.into_iter().enumerate() {
        let round = seen.entry(key).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(position);
        *round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_each_key_once_and_keys_keep_their_order() {
        let keys = [1, 2, 1, 3, 1, 2].map(Uuid::from_u128);
        assert_eq!(rounds(keys), [vec![0, 1, 3], vec![2, 5], vec![4]]);
        assert_eq!(rounds([]), Vec::<Vec<usize>>::new());
    }
}
