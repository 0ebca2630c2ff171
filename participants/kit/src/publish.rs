//! Publishes a participant's replies and dead letters and tells the intake when they are safe.
//!
//! A participant has no outbox: an unconfirmed reply is published again from memory, and a reply lost with this
//! process is given again from the inbox, because its delivery was not acknowledged, or its announcement not forgotten. Must hold: what is in hand is
//! bounded, and fates are listened to whatever else is waited for; no queue that is full holds up the other.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use saga_defs::{DeadLetter, Reply, message};
use tokio::sync::{mpsc, oneshot};
use transport::{Handed, Message, Publisher, Queue, Settled};
use uuid::Uuid;

use crate::handler::{Answered, Ticket};
use crate::serve::Options;

/// Pause after a publisher had no room, in case it says at once that it has.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// Messages that give tickets back, and tell who announced, once all of them are safe.
#[derive(Debug)]
struct Group {
    owed: Owed,
    unconfirmed: usize,
}

/// Who hears of a group.
#[derive(Debug, Default)]
struct Owed {
    tickets: Vec<Ticket>,
    announced: Vec<oneshot::Sender<()>>,
}

/// The publishing end.
pub(crate) struct Outgoing {
    publisher: Arc<dyn Publisher>,
    confirm: mpsc::Sender<Vec<Ticket>>,
    options: Options,
    /// Waits for room.
    waiting: VecDeque<Message>,
    /// Handed over, waits for its fate.
    sent: BTreeMap<Uuid, Message>,
    groups: BTreeMap<u64, Group>,
    /// Messages that are not confirmed yet, waiting or sent, and the group of each.
    group_of: BTreeMap<Uuid, u64>,
    last: u64,
}

impl Outgoing {
    pub(crate) fn new(publisher: Arc<dyn Publisher>, confirm: mpsc::Sender<Vec<Ticket>>, options: Options) -> Self {
        Self {
            publisher,
            confirm,
            options,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            groups: BTreeMap::new(),
            group_of: BTreeMap::new(),
            last: 0,
        }
    }

    /// Runs until nobody can answer any more and all replies are safe, or shutdown's patience ends.
    pub(crate) async fn run(mut self, mut answered: mpsc::Receiver<Answered>, tasks: Tasks) {
        let mut open = true;
        let mut buffer = Vec::new();
        // One patience for all that is left, however often it is looked at.
        let mut patience = pin!(patience(tasks, self.options.drain));
        while open || !self.group_of.is_empty() {
            let room = self.group_of.len() < self.options.replies_max;
            let wanted = [Queue::Replies, Queue::DeadLetters].map(|queue| self.waits_for(&queue));
            let publisher = Arc::clone(&self.publisher);
            tokio::select! {
                biased;
                fates = publisher.settled(), if !self.sent.is_empty() => {
                    if !self.settle(fates).await {
                        return;
                    }
                }
                taken = answered.recv_many(&mut buffer, message::BATCH_ITEMS_MAX), if open && room => {
                    open = taken > 0;
                    if !self.accept(std::mem::take(&mut buffer)).await {
                        return;
                    }
                }
                () = wait_for_room(&*publisher, wanted), if !self.waiting.is_empty() => self.publish(),
                () = &mut patience, if !open => {
                    tracing::warn!(replies = self.group_of.len(), "stopped before all replies were confirmed");
                    return;
                }
            }
        }
    }

    /// Encodes answers and hands them over. False when the intake is gone.
    async fn accept(&mut self, answers: Vec<Answered>) -> bool {
        let (mut replies, mut owed, mut silent) = (Vec::new(), Owed::default(), Vec::new());
        for answer in answers {
            match answer {
                Answered::Reply(reply, ticket) => {
                    replies.push(reply);
                    owed.tickets.push(ticket);
                }
                Answered::Announcement(reply, told) => {
                    replies.push(reply);
                    owed.announced.push(told);
                }
                Answered::Letter(letter, ticket) => self.queue_letter(&letter, ticket),
                Answered::Silence(ticket) => silent.push(ticket),
            }
        }
        self.queue_replies(&replies, owed);
        self.publish();
        self.give_back(silent).await
    }

    fn queue_replies(&mut self, replies: &[Reply], owed: Owed) {
        let Some(first) = replies.first() else { return };
        let bodies = replies.chunks(self.options.reply_items_max.max(1)).flat_map(|part| {
            message::encode(part).into_iter().map(|body| (part.first().map(|reply| reply.saga_id), body))
        });
        self.queue(first.command_id, owed, bodies.collect(), |id, (about, body)| Message {
            about,
            ..Message::new(id, Queue::Replies, body)
        });
    }

    /// Each on its own: nobody's reply waits for a dead letter.
    fn queue_letter(&mut self, letter: &DeadLetter, ticket: Ticket) {
        let owed = Owed { tickets: vec![ticket], announced: Vec::new() };
        self.queue(letter.id(), owed, vec![letter.encode()], |id, body| Message::new(id, Queue::DeadLetters, body));
    }

    /// Puts a group's messages in line.
    fn queue<T>(&mut self, origin: Uuid, owed: Owed, bodies: Vec<T>, message: impl Fn(Uuid, T) -> Message) {
        self.last += 1;
        self.groups.insert(self.last, Group { owed, unconfirmed: bodies.len() });
        for (n, body) in bodies.into_iter().enumerate() {
            // Unlike any other of this publisher, and the same whenever it is handed over again.
            let id = Uuid::new_v5(&origin, format!("{}/{n}", self.last).as_bytes());
            self.group_of.insert(id, self.last);
            self.waiting.push_back(message(id, body));
        }
    }

    fn waits_for(&self, queue: &Queue) -> bool {
        self.waiting.iter().any(|message| message.queue == *queue)
    }

    fn publish(&mut self) {
        let messages: Vec<Message> = self.waiting.drain(..).collect();
        let handed = self.publisher.publish(&messages);
        for (message, handed) in messages.into_iter().zip(handed) {
            match handed {
                Handed::Over => {
                    self.sent.insert(message.id, message);
                }
                Handed::NoRoom => self.waiting.push_back(message),
            }
        }
    }

    /// Takes note of fates. False when the intake is gone.
    async fn settle(&mut self, fates: Vec<Settled>) -> bool {
        let mut tickets = Vec::new();
        for fate in fates {
            let Some(message) = self.sent.remove(&fate.id) else { continue };
            if fate.confirmed {
                tickets.extend(self.confirmed(fate.id));
            } else {
                self.waiting.push_back(message);
            }
        }
        self.publish();
        self.give_back(tickets).await
    }

    /// The tickets of the message's group, when it was the last of them. Who announced is told here.
    fn confirmed(&mut self, id: Uuid) -> Vec<Ticket> {
        let Some(number) = self.group_of.remove(&id) else { return Vec::new() };
        let Some(group) = self.groups.get_mut(&number) else { return Vec::new() };
        group.unconfirmed -= 1;
        if group.unconfirmed > 0 {
            return Vec::new();
        }
        let Some(Group { owed, unconfirmed: _ }) = self.groups.remove(&number) else { return Vec::new() };
        for told in owed.announced {
            // Whoever does not listen any more ended, and its announcement is repeated.
            let _ = told.send(());
        }
        owed.tickets
    }

    async fn give_back(&self, tickets: Vec<Ticket>) -> bool {
        tickets.is_empty() || self.confirm.send(tickets).await.is_ok()
    }
}

/// Waits for room in one of the queues that are wanted: replies, dead letters. At least one is.
async fn wait_for_room(publisher: &dyn Publisher, [replies, letters]: [bool; 2]) {
    tokio::select! {
        biased;
        () = publisher.room(&Queue::Replies), if replies => {}
        () = publisher.room(&Queue::DeadLetters), if letters => {}
    }
    tokio::time::sleep(ROOM_PAUSE).await;
}

async fn patience(tasks: Tasks, drain: Duration) {
    tasks.stopping().await;
    tokio::time::sleep(drain).await;
}
