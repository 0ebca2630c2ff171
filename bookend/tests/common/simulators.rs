//! The simulators of gateway, SMS and mail.

use serde_json::Value;
use testkit::process::{Process, Program};

use super::{Api, BIN, LIMIT};

/// `bookend providers` as a process of its own, so that its list survives the product's death.
pub(crate) struct Simulators {
    _process: Process,
    pub(crate) api: Api,
}

impl Simulators {
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let mut program = Program::new(BIN, ["providers", "--listen", "127.0.0.1:0"]);
        for (name, value) in env {
            program = program.with_env(name, value);
        }
        let process = Process::start(program).expect("the simulators start");
        let url = |line: &str| line.rsplit_once(" on ").map(|(_, url)| url.to_owned());
        let api = Api::new(&process.line(LIMIT, "the simulators say where they listen", url).await);
        Self { _process: process, api }
    }

    /// Environment that points the product here.
    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        ["BOOKEND_PAYMENT__GATEWAY_URL", "BOOKEND_NOTIFY__SMS_URL", "BOOKEND_NOTIFY__MAIL_URL"]
            .into_iter()
            .map(|name| (name, self.api.url.as_str()))
            .collect()
    }

    pub(crate) async fn summary(&self) -> Value {
        self.api.get("/accepted/summary").await.body
    }
}
