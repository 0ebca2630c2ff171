//! A client or an admin at a server.

use std::time::Duration;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use testkit::eventually;

use super::LIMIT;

/// A client or an admin at a server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    pub(crate) url: String,
    /// Where an owner's API is, by the start of its paths, when it is not at `url`.
    owners: Vec<(&'static str, String)>,
}

/// What the server said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Api {
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(75)).build().expect("a client");
        Self { client, url: url.to_owned(), owners: Vec::new() }
    }

    /// The same client, with owners that answer elsewhere.
    pub(crate) fn with_owners(self, owners: Vec<(&'static str, String)>) -> Self {
        Self { owners, ..self }
    }

    /// The same client at another orchestrator.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    fn base(&self, path: &str) -> &str {
        let owner = self.owners.iter().find(|(start, _)| path.starts_with(start));
        owner.map_or(&self.url, |(_, url)| url)
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.base(path))).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    /// Starts a saga as the client; `wait` in seconds.
    pub(crate) async fn start(
        &self,
        definition: &str,
        key: &str,
        input: &Value,
        wait: u32,
    ) -> Result<Answer, reqwest::Error> {
        let body = json!({"definition": definition, "input": input});
        let prefer = format!("wait={wait}");
        let mut headers = vec![("idempotency-key", key)];
        if wait > 0 {
            headers.push(("prefer", &prefer));
        }
        self.ask(Method::POST, "/v1/sagas", CLIENT_TOKEN, &headers, Some(&body)).await
    }

    /// Starts a saga that must be accepted, and returns its id.
    pub(crate) async fn accepted(&self, definition: &str, key: &str, input: &Value) -> String {
        let answer = self.start(definition, key, input, 0).await.expect("an answer");
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        answer.text("id").to_owned()
    }

    /// Asks as admin.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, ADMIN_TOKEN, &[], None).await.expect("an answer")
    }

    pub(crate) async fn saga(&self, id: &str) -> Answer {
        self.get(&format!("/v1/sagas/{id}")).await
    }

    /// An admin's operation at the given version.
    pub(crate) async fn operate(&self, id: &str, action: &str, etag: &str, key: &str) -> Answer {
        let headers = [("if-match", etag), ("idempotency-key", key)];
        let body = json!({"reason": "a test of this story"});
        let path = format!("/v1/sagas/{id}/{action}");
        self.ask(Method::POST, &path, ADMIN_TOKEN, &headers, Some(&body)).await.expect("an answer")
    }

    /// Waits until a saga has this status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Answer {
        eventually(LIMIT, &format!("saga {id} is {status}"), async || {
            let answer = self.saga(id).await;
            if answer.text("status") == status { Ok(answer) } else { Err(answer.body.to_string()) }
        })
        .await
    }

    /// Ids of free slots.
    pub(crate) async fn free_slots(&self, count: usize) -> Vec<String> {
        let mut slots = Vec::new();
        let mut cursor = String::new();
        while slots.len() < count {
            let page = self.get(&format!("/v1/clinic/slots?status=free&limit=200{cursor}")).await;
            let data = page.body["data"].as_array().expect("a page").clone();
            slots.extend(data.iter().map(|slot| slot["id"].as_str().expect("an id").to_owned()));
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(slots.len() >= count, "only {} of {count} slots are free", slots.len());
        slots.truncate(count);
        slots
    }

    /// How many sagas have this status.
    pub(crate) async fn count(&self, status: &str) -> usize {
        let mut count = 0;
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/sagas?status={status}&limit=200{cursor}")).await;
            count += page.body["data"].as_array().expect("a page").len();
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return count,
            }
        }
    }

    /// Waits until no saga is under way.
    pub(crate) async fn all_ended(&self, limit: Duration) {
        eventually(limit, "every saga has ended", async || {
            let open = (self.count("running").await, self.count("compensating").await);
            if open == (0, 0) { Ok(()) } else { Err(format!("running and compensating: {open:?}")) }
        })
        .await;
    }

    /// Sum of a counter over the labels that fit.
    pub(crate) async fn counter(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await.body.as_str().expect("metrics are text").to_owned();
        let fitting = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        fitting.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// What was charged and not refunded for a saga, in minor units.
    pub(crate) async fn net(&self, saga: &str) -> i64 {
        let page = self.get(&format!("/v1/payments?saga_id={saga}")).await;
        let entries = page.body["data"].as_array().expect("a page").clone();
        entries.iter().map(|entry| entry["net"]["amount_minor"].as_i64().expect("an amount")).sum()
    }
}
