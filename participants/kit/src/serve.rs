//! Serves a participant's queue: receive, handle, publish replies, await their confirms, acknowledge.
//!
//! Not for what a command means: that is the [`Handler`]'s. Must hold: a delivery is acknowledged only when every
//! reply it asked for is confirmed, and every dead letter of what can't be handled; receiving and acknowledging never wait for handling, and nothing here waits for
//! the engine while the engine waits for it; every queue between the three tasks is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use saga_defs::{DeadLetter, Ended, Outcome, message};
use tokio::sync::mpsc;
use transport::{Consumer, Delivery, Queue, Transport};

use crate::aside::{self, Sorted};
use crate::handler::{Handler, Received, Replies, Run, Ticket};
use crate::publish::Outgoing;
use crate::{Error, inbox};

/// When a command is asked again that others blocked, at the earliest.
const BLOCKED_RETRY_MS: u64 = 2_000;

/// How a participant's queue is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most deliveries in hand.
    pub prefetch: usize,
    /// Most deliveries handled as one batch.
    pub batch_max: usize,
    /// Most replies waiting for the publisher, and most of its messages waiting for their confirms.
    pub replies_max: usize,
    /// Most replies in one message.
    pub reply_items_max: usize,
    /// Wait before a batch that met a failed database is handled again; doubled each time up to the maximum.
    pub backoff: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// How often a single command is tried that fails for a reason that waiting does not mend, before it is set aside.
    pub poison_attempts_max: u32,
    /// How long a shutdown waits for the confirms of replies that were handed over.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefetch: 64,
            batch_max: 32,
            replies_max: 256,
            reply_items_max: message::BATCH_ITEMS_MAX,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            poison_attempts_max: 5,
            drain: Duration::from_secs(5),
        }
    }
}

/// Starts serving; ends by itself when `tasks` stop and what is in hand is done.
pub fn serve(handler: Arc<dyn Handler>, transport: &dyn Transport, tasks: &Tasks, options: Options) {
    let participant = handler.participant();
    let consumer = transport.consumer(&Queue::Participant(participant.to_owned()), options.prefetch);
    let (replies, answered) = Replies::channel(options.replies_max);
    let (batches, work) = mpsc::channel(options.prefetch.max(1));
    let (confirm, confirmed) = mpsc::channel(options.replies_max);
    let run = Run { replies, tasks: tasks.clone() };
    let intake = Intake { participant, consumer, open: Open::default(), batch_max: options.batch_max };
    tasks.spawn_vital("intake", intake.run(tasks.clone(), batches, confirmed));
    tasks.spawn_vital("participant", Worker { handler, run, options }.run(work));
    tasks.spawn_vital("outgoing", Outgoing::new(transport.publisher(), confirm, options).run(answered, tasks.clone()));
}

/// What some deliveries held.
#[derive(Debug, Default)]
struct Batch {
    deliveries: usize,
    commands: Vec<Received>,
    ended: Vec<(Ended, Ticket)>,
    letters: Vec<(DeadLetter, Ticket)>,
}

impl Batch {
    fn extend(&mut self, later: Self) {
        let Self { deliveries, commands, ended, letters } = later;
        self.deliveries += deliveries;
        self.commands.extend(commands);
        self.ended.extend(ended);
        self.letters.extend(letters);
    }
}

/// Deliveries in hand: for each its tag and how many answers are still owed.
#[derive(Debug, Default)]
struct Open {
    last: u64,
    deliveries: BTreeMap<Ticket, (u64, usize)>,
}

impl Open {
    fn begin(&mut self, tag: u64, answers: usize) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.deliveries.insert(ticket, (tag, answers));
        ticket
    }

    /// Takes answers back; the tags of deliveries that are complete.
    fn settle(&mut self, tickets: Vec<Ticket>) -> Vec<u64> {
        let mut complete = Vec::new();
        for ticket in tickets {
            let Some((tag, owed)) = self.deliveries.get_mut(&ticket) else { continue };
            *owed = owed.saturating_sub(1);
            if *owed == 0 {
                complete.push(*tag);
                self.deliveries.remove(&ticket);
            }
        }
        complete
    }
}

/// Receives and acknowledges.
struct Intake {
    participant: &'static str,
    consumer: Box<dyn Consumer>,
    open: Open,
    batch_max: usize,
}

impl Intake {
    async fn run(mut self, tasks: Tasks, batches: mpsc::Sender<Batch>, mut confirmed: mpsc::Receiver<Vec<Ticket>>) {
        loop {
            tokio::select! {
                biased;
                tickets = confirmed.recv() => match tickets {
                    Some(tickets) => self.acknowledge(tickets).await,
                    None => return,
                },
                () = tasks.stopping() => break,
                received = receive(&mut self.consumer, &batches, self.batch_max) => match received {
                    Some((permit, deliveries)) => {
                        let (batch, empty) = self.sort(&deliveries);
                        permit.send(batch);
                        if !empty.is_empty() {
                            self.consumer.acknowledge(&empty).await;
                        }
                    }
                    None => break,
                },
            }
        }
        drop(batches);
        while let Some(tickets) = confirmed.recv().await {
            self.acknowledge(tickets).await;
        }
    }

    async fn acknowledge(&mut self, tickets: Vec<Ticket>) {
        let tags = self.open.settle(tickets);
        if !tags.is_empty() {
            self.consumer.acknowledge(&tags).await;
        }
    }

    /// What `deliveries` hold, and the tags of those that hold nothing.
    fn sort(&mut self, deliveries: &[Delivery]) -> (Batch, Vec<u64>) {
        let (mut batch, mut empty) = (Batch { deliveries: deliveries.len(), ..Batch::default() }, Vec::new());
        for delivery in deliveries {
            let Sorted { commands, ended, letters } = aside::sort(self.participant, &delivery.body);
            let items = commands.len() + ended.len() + letters.len();
            if items == 0 {
                empty.push(delivery.tag);
                continue;
            }
            let ticket = self.open.begin(delivery.tag, items);
            batch.commands.extend(commands.into_iter().map(|command| Received { command, ticket }));
            batch.ended.extend(ended.into_iter().map(|ended| (ended, ticket)));
            batch.letters.extend(letters.into_iter().map(|letter| (letter, ticket)));
        }
        (batch, empty)
    }
}

/// Waits for room, then for deliveries. Cancel-safe.
async fn receive<'a>(
    consumer: &mut Box<dyn Consumer>,
    batches: &'a mpsc::Sender<Batch>,
    max: usize,
) -> Option<(mpsc::Permit<'a, Batch>, Vec<Delivery>)> {
    let permit = batches.reserve().await.ok()?;
    let deliveries = consumer.receive(max).await?;
    Some((permit, deliveries))
}

/// Handles batches, one at a time.
struct Worker {
    handler: Arc<dyn Handler>,
    run: Run,
    options: Options,
}

impl Worker {
    async fn run(self, mut work: mpsc::Receiver<Batch>) {
        let mut backoff = self.options.backoff;
        while let Err(error) = self.handler.start(&self.run).await {
            if !self.pause(&error, &mut backoff).await {
                return;
            }
        }
        // What did not fit into the last batch.
        let mut held = None;
        while let Some(mut batch) = if held.is_some() { held.take() } else { work.recv().await } {
            // A batch is what arrived while the last one was handled.
            while held.is_none()
                && let Ok(later) = work.try_recv()
            {
                if batch.deliveries + later.deliveries > self.options.batch_max {
                    held = Some(later);
                } else {
                    batch.extend(later);
                }
            }
            let Batch { commands, ended, letters, deliveries: _ } = batch;
            for (letter, ticket) in letters {
                self.run.replies.set_aside(letter, ticket).await;
            }
            if !commands.is_empty() && !self.handle(commands).await {
                return;
            }
            for (ended, ticket) in ended {
                if !self.forget(&ended, ticket).await {
                    return;
                }
            }
        }
    }

    /// Handles a batch until it is done. Waiting mends a database that is out of reach; any other failure is traced to the guilty
    /// command by halving the batch, so that the others go through: one that others block is put off, one that fails for a
    /// lasting reason is tried again some times and then set aside. False when shutdown came first.
    async fn handle(&self, batch: Vec<Received>) -> bool {
        let mut parts = vec![batch];
        let (mut backoff, mut failures, mut blocked) = (self.options.backoff, 0, 0);
        while let Some(mut part) = parts.pop() {
            let Err(error) = self.handler.handle(&self.run, &part).await else {
                (backoff, failures, blocked) = (self.options.backoff, 0, 0);
                continue;
            };
            let traceable = error.is_blocked() || !error.is_transient();
            if traceable && part.len() > 1 {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
                continue;
            }
            if error.is_blocked() {
                blocked += 1;
                // The second in a row: it is nobody's fault, and each of the others would wait as long.
                let rest = if blocked > 1 { std::mem::take(&mut parts) } else { Vec::new() };
                part.extend(rest.into_iter().rev().flatten());
                self.put_off(&part, &error).await;
                continue;
            }
            if !error.is_transient() {
                failures += 1;
                if failures >= self.options.poison_attempts_max {
                    self.give_up(&part, failures, &error).await;
                    (backoff, failures) = (self.options.backoff, 0);
                    continue;
                }
            }
            parts.push(part);
            if !self.pause(&error, &mut backoff).await {
                return false;
            }
        }
        true
    }

    /// Forgets what belonged to ended sagas; false when shutdown came first.
    async fn forget(&self, ended: &Ended, ticket: Ticket) -> bool {
        let participant = self.handler.participant();
        let (mut backoff, mut failures) = (self.options.backoff, 0);
        loop {
            let error = match self.handler.forget(&ended.ended).await {
                Ok(rows) => {
                    metrics::counter!("bookend_inbox_forgotten_total", "participant" => participant).increment(rows);
                    self.run.replies.give_back(ticket).await;
                    return true;
                }
                Err(error) => error,
            };
            failures += u32::from(!error.is_transient());
            if failures >= self.options.poison_attempts_max {
                let letter = aside::unheard(participant, ended, failures, &error);
                self.run.replies.set_aside(letter, ticket).await;
                return true;
            }
            if !self.pause(&error, &mut backoff).await {
                return false;
            }
        }
    }

    async fn put_off(&self, part: &[Received], error: &Error) {
        self.warn(error);
        for Received { command, ticket } in part {
            inbox::count(self.handler.participant(), inbox::BLOCKED);
            self.run.replies.send(command.reply(Outcome::Retry { after_ms: BLOCKED_RETRY_MS }), *ticket).await;
        }
    }

    async fn give_up(&self, part: &[Received], attempts: u32, error: &Error) {
        for Received { command, ticket } in part {
            let letter = aside::failed(self.handler.participant(), command, attempts, error);
            self.run.replies.set_aside(letter, *ticket).await;
        }
    }

    async fn pause(&self, error: &Error, backoff: &mut Duration) -> bool {
        let wait = *backoff;
        *backoff = (wait * 2).min(self.options.backoff_max);
        self.warn(error);
        self.run.tasks.sleep(wait).await
    }

    fn warn(&self, error: &Error) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, participant = self.handler.participant(), "the database failed; again soon");
    }
}
