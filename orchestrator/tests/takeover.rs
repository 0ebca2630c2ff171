//! What an instance has taken up and not done when it dies is taken up by another, after a pause that is short enough for
//! every saga to be decided within two seconds of a kill.

mod support;

use std::time::Duration;

use orchestrator::{Options, StartAnswer};
use runtime::Tasks;
use saga_defs::{Command, Outcome, message};
use saga_store::{Fault, MemoryStore};
use support::{LIMIT, World, request, start};
use tokio::time::{Instant, timeout};
use transport::in_process::InProcess;
use transport::{Consumer, Message, Queue, Transport};
use uuid::Uuid;

/// The longest pause: what a dead one claimed falls due after a second, and is looked for four times in it.
const TAKEN_UP_WITHIN: Duration = Duration::from_millis(1_300);

/// Two instances, one after the other.
struct Succession {
    world: World,
    booking: Box<dyn Consumer>,
}

impl Succession {
    async fn new() -> Self {
        let world = World::new(&["booking"], Options::default()).await;
        let booking = world.transport.consumer(&Queue::Participant("booking".to_owned()), 8);
        Self { world, booking }
    }

    async fn begin(&self) -> Uuid {
        match self.world.engine.begin(request("one")).await.expect("an answer") {
            StartAnswer::Started(started) => started.snapshot.header.id,
            other => panic!("{other:?}"),
        }
    }

    /// The first instance goes, and all that it has in memory; the second comes.
    async fn take_over(&self) -> Tasks {
        assert_eq!(self.world.tasks.shutdown(LIMIT).await, 0);
        let tasks = Tasks::new();
        let _ = start(&self.world.store, &self.world.transport, &tasks, 8, Options::default()).await;
        tasks
    }

    async fn command(&mut self) -> Command {
        let deliveries = timeout(LIMIT, self.booking.receive(1)).await.expect("a command in time").expect("open");
        self.booking.acknowledge(&[deliveries[0].tag]).await;
        let mut commands = message::decode::<Command>(&deliveries[0].body).expect("commands are JSON");
        commands.remove(0).expect("commands can be read")
    }
}

async fn until_fired(store: &MemoryStore, fault: Fault) {
    testkit::eventually(LIMIT, "the fault", async || if store.fired(fault) > 0 { Ok(()) } else { Err("not yet") })
        .await;
}

async fn put_off(transport: &InProcess, command: &Command) {
    let publisher = transport.publisher();
    let body = message::encode(&[command.reply(Outcome::Retry { after_ms: 5_000 })]).remove(0);
    publisher.publish(&[Message::new(Uuid::new_v4(), Queue::Replies, body)]);
    timeout(LIMIT, publisher.settled()).await.expect("the engine takes the reply");
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_died_with_its_claimer_is_soon_claimed_again() {
    let mut two = Succession::new().await;
    let saga_id = two.begin().await;
    let command = two.command().await;
    put_off(&two.world.transport, &command).await;
    // The first claims the saga when it is due, can't commit, and dies with it.
    two.world.store.fail_with(Some(saga_id));
    until_fired(&two.world.store, Fault::Unavailable).await;
    let claimed = Instant::now();
    two.world.store.fail_with(None);
    let tasks = two.take_over().await;
    assert_eq!(two.command().await.key, command.key);
    assert!(claimed.elapsed() <= TAKEN_UP_WITHIN, "taken up after {:?}", claimed.elapsed());
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_died_with_its_publisher_is_soon_sent() {
    let two = Succession::new().await;
    // The commit's answer is lost, so its message lies in the outbox only, and whoever wrote it dies.
    two.world.store.fail_next(Fault::CommittedUnknown);
    two.begin().await;
    let committed = Instant::now();
    let mut two = two;
    let tasks = two.take_over().await;
    two.command().await;
    assert!(committed.elapsed() <= TAKEN_UP_WITHIN, "sent after {:?}", committed.elapsed());
    tasks.stop();
}
