//! Declares exchanges, queues and bindings, identically from every process.
//!
//! All of it is durable; declaring what is there changes nothing. Must hold: the arguments are valid from RabbitMQ
//! 3.10 to 4.x; the queue of dead letters has no target of its own, because there is nowhere further to go, and a delivery limit
//! that nothing reaches: from 4.0 on a queue that names none has one, behind which it would drop letters.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::options::Options;
use crate::{Error, Queue};

/// Messages enter here; the routing key is [`key`].
pub(super) const EXCHANGE: &str = "bookend";
/// What the broker gave up on enters here.
pub(super) const DEAD: &str = "bookend.dead";
/// Hints enter here and reach every queue of hints.
pub(super) const HINTS: &str = "bookend.hints";
/// More deliveries than there will be of any message.
const NEVER: i32 = i32::MAX;
/// Hints that a slow listener may leave waiting in the broker.
const HINTS_MAX: i32 = 1_024;

/// Where a message for `queue` enters, and with which routing key.
pub(super) fn route(queue: &Queue) -> (&'static str, String) {
    let exchange = match queue {
        Queue::Participant(_) | Queue::Replies => EXCHANGE,
        Queue::DeadLetters => DEAD,
    };
    (exchange, key(queue))
}

/// The queue's name without the product's.
fn key(queue: &Queue) -> String {
    let name = queue.name();
    name.strip_prefix("bookend.").unwrap_or(&name).to_owned()
}

/// Whether the queue behind this routing key is declared here.
pub(super) fn declares(options: &Options, routing_key: &str) -> bool {
    options.queues.iter().chain([&Queue::DeadLetters]).any(|queue| key(queue) == routing_key)
}

/// Declares everything.
pub(super) async fn declare(connection: &Connection, options: &Options) -> Result<(), Error> {
    let channel = connection.create_channel().await.map_err(Error::Broker)?;
    exchange(&channel, DEAD, ExchangeKind::Fanout).await?;
    exchange(&channel, EXCHANGE, ExchangeKind::Topic).await?;
    exchange(&channel, HINTS, ExchangeKind::Fanout).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NEVER.into()));
    queue(&channel, &Queue::DeadLetters, arguments).await?;
    for known in options.queues.iter().filter(|queue| **queue != Queue::DeadLetters) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(options.delivery_limit.into()));
        arguments.insert("x-dead-letter-exchange".into(), text(DEAD));
        queue(&channel, known, arguments).await?;
    }
    // What is declared stays; a channel that does not close in order is gone with its connection.
    let _ = channel.close(lapin::protocol::constants::REPLY_SUCCESS, "declared".into()).await;
    Ok(())
}

async fn exchange(channel: &Channel, name: &'static str, kind: ExchangeKind) -> Result<(), Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
    declared.map_err(|source| Error::Declare { what: format!("the exchange {name}"), source })
}

async fn queue(channel: &Channel, queue: &Queue, mut arguments: FieldTable) -> Result<(), Error> {
    let name = queue.name();
    let failed = |source| Error::Declare { what: format!("the queue {name}"), source };
    arguments.insert("x-queue-type".into(), text("quorum"));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.map_err(failed)?;
    let (exchange, key) = route(queue);
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), options, arguments).await.map_err(failed)
}

/// Declares a queue of hints for this channel's connection alone, gone with its consumer; returns its name.
pub(super) async fn declare_hints(channel: &Channel) -> Result<lapin::types::ShortString, Error> {
    let mut arguments = FieldTable::default();
    // Said explicitly: only this type may be exclusive, and a virtual host may have another default.
    arguments.insert("x-queue-type".into(), text("classic"));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(HINTS_MAX));
    arguments.insert("x-overflow".into(), text("drop-head"));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let failed = |source| Error::Declare { what: "a queue of hints".to_owned(), source };
    let queue = channel.queue_declare("".into(), options, arguments).await.map_err(failed)?;
    let name = queue.name().clone();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.clone(), HINTS.into(), "".into(), options, arguments).await.map_err(failed)?;
    Ok(name)
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_routed_by_its_queue() {
        let payment = Queue::Participant("payment".to_owned());
        assert_eq!(route(&payment), ("bookend", "payment".to_owned()));
        assert_eq!(route(&Queue::Replies), ("bookend", "replies".to_owned()));
        assert_eq!(route(&Queue::DeadLetters), ("bookend.dead", "dead".to_owned()));
    }
}
