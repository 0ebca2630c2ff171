//! A busy participant waits a moment for company, and one that is alone for nobody.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use participant_kit::conformance::command;
use participant_kit::handler::{Received, Run};
use participant_kit::{Error, Handler, Options, serve};
use runtime::Tasks;
use saga_defs::{Outcome, Verb, message};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use transport::in_process::{InProcess, Options as Queues};
use transport::{Handed, Message, Publisher, Queue, Transport as _};
use uuid::Uuid;

/// How long a batch takes.
const TURN: Duration = Duration::from_millis(8);
/// Longest the test waits, in paused time.
const LIMIT: Duration = Duration::from_secs(60);

/// Takes its time, and tells how many commands it is given at once.
struct Slow {
    told: mpsc::Sender<usize>,
}

#[async_trait]
impl Handler for Slow {
    fn participant(&self) -> &'static str {
        "slow"
    }

    async fn start(&self, _run: &Run) -> Result<(), Error> {
        Ok(())
    }

    async fn handle(&self, run: &Run, batch: &[Received]) -> Result<(), Error> {
        tokio::time::sleep(TURN).await;
        for received in batch {
            run.replies.send(received.command.reply(Outcome::succeeded(json!({}))), received.ticket).await;
        }
        self.told.send(batch.len()).await.unwrap();
        Ok(())
    }

    async fn forget(&self, _sagas: &[Uuid]) -> Result<u64, Error> {
        Ok(0)
    }
}

/// Sends commands, each in a message of its own.
fn send(publisher: &dyn Publisher, keys: std::ops::Range<u128>) {
    for key in keys {
        let command = command("slow", Uuid::from_u128(key), Verb::Execute, 1, json!({}));
        let body = message::encode(&[command]).remove(0);
        let message = Message::new(Uuid::from_u128(key), Queue::Participant("slow".to_owned()), body);
        assert_eq!(publisher.publish(&[message]), [Handed::Over]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_a_moment_later_comes_along_where_the_last_batch_was_worth_it() {
    let queues = vec![Queue::Participant("slow".to_owned()), Queue::Replies, Queue::DeadLetters];
    let transport = InProcess::new(&Queues { queues, capacity: 100, faults: None });
    let tasks = Tasks::new();
    let (told, mut batches) = mpsc::channel(8);
    serve(Arc::new(Slow { told }), &transport, &tasks, Options::default());
    let publisher = transport.publisher();
    let mut next = async || timeout(LIMIT, batches.recv()).await.expect("a batch in time").expect("it serves");

    send(&*publisher, 0..8);
    assert_eq!(next().await, 8);
    // Three are not what the last batch was like: they wait, for at most half of what that took.
    send(&*publisher, 8..11);
    assert!(timeout(TURN / 4, next()).await.is_err());
    send(&*publisher, 11..14);
    assert_eq!(next().await, 6);
    // Six are not worth waiting for.
    send(&*publisher, 14..15);
    assert!(timeout(TURN / 4, next()).await.is_err());
    send(&*publisher, 15..16);
    assert_eq!((next().await, next().await), (1, 1));
}
