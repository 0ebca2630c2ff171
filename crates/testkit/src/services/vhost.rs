//! A virtual host of a test's own: its queues meet no other test's, and it can be disturbed from outside.
//!
//! Figures come from the management API, which is a second or two late: wait for one with [`eventually`], also before
//! a fault that needs it, such as closing connections that have just been opened.
//!
//! [`eventually`]: crate::eventually

use std::io;

use serde_json::{Value, json};

use super::management::{Answer, Management, base64, encode};
use super::{blocking, unique};

/// A virtual host; deleted, with all that is in it, when dropped.
#[derive(Debug)]
pub struct Vhost {
    host: Host,
    url: String,
}

/// What a question needs, for the thread that asks it.
#[derive(Clone, Debug)]
struct Host {
    management: Management,
    name: String,
}

impl Vhost {
    /// Makes one on the broker at `amqp_url`.
    pub(super) fn create(management: Management, amqp_url: &str) -> io::Result<Self> {
        let host = Host { management, name: unique() };
        let url = format!("{}/{}", amqp_url.trim_end_matches('/'), encode(&host.name));
        let user = encode(host.management.user());
        host.ask("PUT", &format!("vhosts/{}", encode(&host.name)), Some(&json!({})))?.done()?;
        // From here on, a failure deletes it again.
        let vhost = Self { host, url };
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        vhost.host.ask("PUT", &vhost.host.path("permissions", &user), Some(&everything))?.done()?;
        Ok(vhost)
    }

    /// Its address: that of the broker, with the virtual host.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the broker.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// How many clients are connected.
    ///
    /// # Errors
    /// When the broker does not say.
    pub async fn connections(&self) -> io::Result<usize> {
        self.with(|host| host.connections().map(|names| names.len())).await
    }

    /// Closes every connection the broker lists by now, as an administrator does; says how many there were.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn close_connections(&self) -> io::Result<usize> {
        self.with(|host| {
            let mut closed = 0;
            for name in host.connections()? {
                let answer = host.ask("DELETE", &format!("connections/{}", encode(&name)), None)?;
                // Not found: it has just ended by itself.
                if answer.status != 404 {
                    answer.done()?;
                    closed += 1;
                }
            }
            Ok(closed)
        })
        .await
    }

    /// Deletes a queue with its messages; its consumers are cancelled by the broker.
    ///
    /// # Errors
    /// When there is no such queue: a fault that did not happen must not go unseen.
    pub async fn delete_queue(&self, queue: &str) -> io::Result<()> {
        let path = self.host.path("queues", queue);
        self.with(move |host| host.ask("DELETE", &path, None)?.done().map(|_| ())).await
    }

    /// Messages in a queue, ready or unacknowledged; none if there is no such queue.
    ///
    /// # Errors
    /// When the broker does not say, as in the first second of a queue.
    pub async fn queue_depth(&self, queue: &str) -> io::Result<Option<u64>> {
        let path = self.host.path("queues", queue);
        self.with(move |host| {
            let answer = host.ask("GET", &path, None)?;
            if answer.status == 404 {
                return Ok(None);
            }
            let depth = answer.done()?.get("messages").and_then(Value::as_u64);
            depth.map(Some).ok_or_else(|| io::Error::other("the broker has no figures of the queue yet"))
        })
        .await
    }

    /// Messages in all queues, ready or unacknowledged.
    ///
    /// # Errors
    /// When the broker does not say.
    pub async fn messages(&self) -> io::Result<u64> {
        let path = format!("queues/{}?columns=messages", encode(&self.host.name));
        self.with(move |host| {
            let listed = host.ask("GET", &path, None)?.done()?;
            // A queue that is too new has no figures, and nothing that would be missed.
            let queues = listed.as_array().into_iter().flatten();
            Ok(queues.filter_map(|queue| queue.get("messages")?.as_u64()).sum())
        })
        .await
    }

    /// Messages that were published so far, as far as the broker has counted.
    ///
    /// # Errors
    /// When the broker does not say.
    pub async fn published(&self) -> io::Result<u64> {
        let path = format!("vhosts/{}", encode(&self.host.name));
        self.with(move |host| {
            let counted = host.ask("GET", &path, None)?.done()?;
            Ok(counted.pointer("/message_stats/publish").and_then(Value::as_u64).unwrap_or(0))
        })
        .await
    }

    /// Publishes a persistent message that no code of ours has written; says whether it reached a queue.
    ///
    /// # Errors
    /// When the broker refuses, as without such an exchange.
    pub async fn publish_raw(&self, exchange: &str, routing_key: &str, body: &[u8]) -> io::Result<bool> {
        self.publish(exchange, routing_key, body, &json!({"delivery_mode": 2})).await
    }

    /// As [`Vhost::publish_raw`], a message that the broker gives up when nobody has taken it within `ms` milliseconds.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn publish_expiring(&self, exchange: &str, key: &str, body: &[u8], ms: u32) -> io::Result<bool> {
        self.publish(exchange, key, body, &json!({"delivery_mode": 2, "expiration": ms.to_string()})).await
    }

    async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: &Value) -> io::Result<bool> {
        // The management API knows the nameless exchange by this name only.
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        let path = format!("{}/publish", self.host.path("exchanges", exchange));
        let message = json!({
            "properties": properties,
            "routing_key": key,
            "payload": base64(body),
            "payload_encoding": "base64",
        });
        self.with(move |host| {
            let answer = host.ask("POST", &path, Some(&message))?.done()?;
            Ok(answer.get("routed").and_then(Value::as_bool).unwrap_or(false))
        })
        .await
    }

    /// Asks without holding up the test's own tasks.
    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Host) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let host = self.host.clone();
        blocking(move || ask(&host)).await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // A failure leaves nothing to do: a private broker may be gone already.
        let _ = self.host.ask("DELETE", &format!("vhosts/{}", encode(&self.host.name)), None);
    }
}

impl Host {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        self.management.ask(method, path, body)
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{}", encode(&self.name), encode(name))
    }

    /// The names of the connections.
    fn connections(&self) -> io::Result<Vec<String>> {
        let path = format!("vhosts/{}/connections?columns=name", encode(&self.name));
        let listed = self.ask("GET", &path, None)?.done()?;
        let names = listed.as_array().into_iter().flatten();
        Ok(names.filter_map(|connection| Some(connection.get("name")?.as_str()?.to_owned())).collect())
    }
}
