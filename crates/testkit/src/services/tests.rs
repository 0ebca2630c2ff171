//! The services themselves: what needs none is tested without, the rest is left to `scripts/test`.

use std::net::TcpStream;
use std::time::Duration;

use super::schemas::psql;
use super::*;
use crate::eventually;

const LIMIT: Duration = Duration::from_secs(30);

/// What a client says first; the broker answers with a frame of its own.
fn answers(amqp_url: &str) -> io::Result<()> {
    use std::io::{Read, Write};

    let address = amqp_url.rsplit('@').next().unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    stream.read_exact(&mut [0; 7])
}

#[test]
fn the_printed_variables_are_read() {
    let services = Services::from_script(
        "export BOOKEND_TEST_POSTGRES_URL=postgres://a@b:1/c?d=e\nexport BOOKEND_TEST_AMQP_URL=amqp://f\n",
    );
    assert_eq!(services.postgres_url(), "postgres://a@b:1/c?d=e");
    assert_eq!(services.amqp_url(), "amqp://f");
}

#[test]
#[should_panic(expected = "BOOKEND_TEST_POSTGRES_URL is not set: run scripts/test, or eval")]
fn a_missing_service_says_how_to_start_it() {
    let _ = Services::from_variables(|_| None).schemas();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn schemas_are_dropped_and_nothing_else() {
    let services = Services::shared();
    let (ended, other) = (services.schemas(), services.schemas());
    for name in [ended.name("engine"), ended.name("clinic"), other.name("engine")] {
        psql(services.postgres_url(), &format!("create schema {name}; create table {name}.rows (id int);")).unwrap();
    }
    let names = format!("'{}', '{}', '{}'", ended.name("engine"), ended.name("clinic"), other.name("engine"));
    let question = format!("select nspname from pg_namespace where nspname in ({names});");
    assert_eq!(psql(services.postgres_url(), &question).unwrap().lines().count(), 3);
    drop(ended);
    assert_eq!(psql(services.postgres_url(), &question).unwrap().trim(), other.name("engine"));
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_virtual_host_is_there_and_gone() {
    let services = Services::shared();
    let vhost = services.vhost().await;
    assert_eq!(vhost.url(), format!("{}/{}", services.amqp_url(), vhost.name()));
    assert_eq!(vhost.connections().await.unwrap(), 0);
    assert_eq!(vhost.close_connections().await.unwrap(), 0);
    assert_eq!(vhost.queue_depth("none").await.unwrap(), None);
    assert!(!vhost.publish_raw("", "nobody", b"\xff").await.unwrap());
    vhost.delete_queue("none").await.unwrap_err();

    let management = Management::parse(services.management.as_deref().unwrap()).unwrap();
    let path = format!("vhosts/{}", vhost.name());
    assert_eq!(management.ask("GET", &path, None).unwrap().status, 200);
    drop(vhost);
    assert_eq!(management.ask("GET", &path, None).unwrap().status, 404);
}

#[tokio::test]
#[ignore = "needs RabbitMQ: scripts/test"]
async fn a_queue_can_be_filled_watched_and_deleted() {
    let services = Services::shared();
    let vhost = services.vhost().await;
    let management = Management::parse(services.management.as_deref().unwrap()).unwrap();
    let quorum = serde_json::json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    management.ask("PUT", &format!("queues/{}/bookend.a", vhost.name()), Some(&quorum)).unwrap().done().unwrap();

    assert!(vhost.publish_raw("", "bookend.a", b"{").await.unwrap());
    eventually(LIMIT, "the message is counted", async || match vhost.queue_depth("bookend.a").await {
        Ok(Some(1)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(vhost.messages().await.unwrap(), 1);
    vhost.delete_queue("bookend.a").await.unwrap();
    assert_eq!(vhost.queue_depth("bookend.a").await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs RabbitMQ of its own: scripts/test"]
async fn a_private_broker_can_be_killed_and_started() {
    let services = Services::private_rabbitmq().await;
    let vhost = services.vhost().await;
    answers(services.amqp_url()).unwrap();
    services.broker().kill().await.unwrap();
    answers(services.amqp_url()).unwrap_err();
    services.broker().start().await.unwrap();
    answers(services.amqp_url()).unwrap();
    assert_eq!(vhost.connections().await.unwrap(), 0, "the virtual host survived");

    let management = Management::parse(services.management.as_deref().unwrap()).unwrap();
    let alarms = || management.ask("GET", "health/checks/local-alarms", None).unwrap().status;
    assert_eq!(alarms(), 200);
    services.broker().alarm(true).await.unwrap();
    assert_ne!(alarms(), 200);
    services.broker().alarm(false).await.unwrap();
    assert_eq!(alarms(), 200);
    services.broker().stop().await.unwrap();
    answers(services.amqp_url()).unwrap_err();
}

#[tokio::test]
#[ignore = "needs PostgreSQL of its own: scripts/test"]
async fn a_private_database_can_be_stopped_and_started() {
    let services = Services::private_postgres().await;
    let url = services.postgres_url();
    psql(url, "create table kept (id int); insert into kept values (7);").unwrap();
    services.database().stop_immediate().await.unwrap();
    psql(url, "select id from kept;").unwrap_err();
    services.database().start().await.unwrap();
    assert_eq!(psql(url, "select id from kept;").unwrap().trim(), "7");
}
