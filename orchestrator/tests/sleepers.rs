//! Sagas that sleep cost rows and nothing else: while thousands wait for a timer, the engine holds no more of them in
//! memory than it may, nobody waits for a message, and no task is theirs.

mod support;

use std::time::Duration;

use orchestrator::{Options, StartAnswer};
use saga_defs::{Command, Outcome, message};
use support::{LIMIT, World, request};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use transport::{Consumer, Handed, Message, Publisher, Queue, Transport};
use uuid::Uuid;

const SLEEPERS: usize = 5_000;
const AT_ONCE: usize = 100;
const HOT_MAX: usize = 256;
/// How long each step is put off.
const NAP: Duration = Duration::from_secs(60);

/// A participant that puts everybody off.
struct Snooze {
    consumer: Box<dyn Consumer>,
    publisher: std::sync::Arc<dyn Publisher>,
}

impl Snooze {
    /// Takes commands until so many were put off; the first of them.
    async fn put_off(&mut self, sagas: usize) -> Command {
        let (mut commands, mut first) = (0, None);
        while commands < sagas {
            let deliveries =
                timeout(NAP + LIMIT, self.consumer.receive(64)).await.expect("commands in time").expect("open");
            for delivery in deliveries {
                let items = message::decode::<Command>(&delivery.body).expect("commands are JSON");
                let asked: Vec<Command> = items.into_iter().map(|item| item.expect("commands can be read")).collect();
                self.reply(&asked).await;
                commands += asked.len();
                first.get_or_insert_with(|| asked[0].clone());
                self.consumer.acknowledge(&[delivery.tag]).await;
            }
        }
        first.expect("at least one")
    }

    /// Returns when all is committed: only then a reply is acknowledged.
    async fn reply(&self, commands: &[Command]) {
        let after_ms = u64::try_from(NAP.as_millis()).expect("a minute");
        let replies: Vec<_> = commands.iter().map(|command| command.reply(Outcome::Retry { after_ms })).collect();
        for body in message::encode(&replies) {
            let handed = self.publisher.publish(&[Message::new(Uuid::new_v4(), Queue::Replies, body)]);
            assert_eq!(handed, [Handed::Over]);
            timeout(LIMIT, self.publisher.settled()).await.expect("the engine takes the reply");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sleeping_sagas_cost_rows_and_nothing_else() {
    let options = Options { hot_max: HOT_MAX, ..Options::default() };
    let World { engine, store, transport, tasks } = World::new(&["booking"], options).await;
    let mut booking = Snooze {
        consumer: transport.consumer(&Queue::Participant("booking".to_owned()), 64),
        publisher: transport.publisher(),
    };
    let awake = tasks.running();
    let sleepers = async {
        for first in (0..SLEEPERS).step_by(AT_ONCE) {
            let begin = |number: usize| {
                let engine = engine.clone();
                async move { engine.begin(request(&number.to_string())).await.expect("an answer") }
            };
            let begun: JoinSet<StartAnswer> = (first..first + AT_ONCE).map(begin).collect();
            let all = begun.join_all().await;
            assert!(all.iter().all(|answer| matches!(answer, StartAnswer::Started(_))));
        }
    };
    let (command, ()) = tokio::join!(booking.put_off(SLEEPERS), sleepers);

    let asleep = engine.get(command.saga_id).await.expect("readable").expect("there");
    assert!(asleep.saga.version == 2 && asleep.saga.wake_at().is_some(), "{:#?}", asleep.saga);
    saga_store::check_replay(&*store, command.saga_id).await.expect("history explains the state");
    // The last confirmation is heard a moment later.
    let quiet = async || match engine.held() {
        held if held.on_their_way == 0 => Ok(held),
        held => Err(format!("{held:?}")),
    };
    let held = testkit::eventually(LIMIT, "no message is under way", quiet).await;
    assert!(held.hot <= HOT_MAX, "{held:?}");
    assert_eq!(held.waits, 0, "{held:?}");
    assert_eq!(tasks.running(), awake);

    // They are not forgotten either: all wake when it is over, and not before.
    let began = Instant::now();
    booking.put_off(SLEEPERS).await;
    assert!(began.elapsed() >= NAP - Duration::from_secs(1), "woken after {:?}", began.elapsed());
    assert!(engine.held().hot <= HOT_MAX);
    assert_eq!(tasks.running(), awake);
}
