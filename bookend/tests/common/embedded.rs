//! The embedded stack: as a process, and within the test.

use std::path::PathBuf;

use bookend::dev::{ADMIN_TOKEN, CLIENT_TOKEN};
use bookend::settings::Settings;
use bookend::stack::{Parts, Stack};
use runtime::http::auth::sha256;
use runtime::http::{Role, Token};
use runtime::metrics::Recorder;
use saga_defs::Definition;
use tempfile::TempDir;
use testkit::free_port;
use testkit::process::{Process, Program};
use transport::in_process::Faults;

use super::{Api, BIN, audit, definitions, ready};

/// `bookend dev` as a process of its own.
pub(crate) struct Dev {
    pub(crate) process: Process,
    pub(crate) api: Api,
    pub(crate) data: PathBuf,
    _dir: TempDir,
}

impl Dev {
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let mut program = Program::new(BIN, ["dev", "--port", "0", "--data", &data.display().to_string()]);
        for (name, value) in env {
            program = program.with_env(name, value);
        }
        let process = Process::start(program).expect("the product starts");
        let api = ready(&process).await;
        Self { process, api, data, _dir: dir }
    }

    /// kill -9, and a new start on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.restart().expect("the product starts again");
        self.api = ready(&self.process).await;
    }

    /// Everything adds up, by the product's own audit in a process of its own.
    pub(crate) async fn audit(&self) {
        audit(&["--data", &self.data.display().to_string()]).await;
    }
}

/// The product within the test, where the transport's faults can be set and counted.
pub(crate) struct Local {
    pub(crate) stack: Stack,
    pub(crate) api: Api,
    pub(crate) data: PathBuf,
    _dir: TempDir,
}

impl Local {
    pub(crate) async fn start(
        faults: Option<Faults>,
        definition: Option<&Definition>,
        flags: &[(&'static str, i64)],
        gateway: &str,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut all: Vec<(&'static str, config::Value)> =
            flags.iter().map(|(name, value)| (*name, config::Value::from(*value))).collect();
        if let Some(definition) = definition {
            let folder = definitions(dir.path(), definition).display().to_string();
            all.push(("definitions.dir", folder.into()));
        }
        all.push(("payment.gateway_url", gateway.into()));
        let settings = Settings::read(None, all).expect("the settings fit");
        let token = |name: &str, role, token| Token { name: name.to_owned(), role, sha256: sha256(token) };
        let data = dir.path().join("data");
        let parts = Parts {
            dir: data.clone(),
            tokens: vec![token("a", Role::Admin, ADMIN_TOKEN), token("c", Role::Client, CLIENT_TOKEN)],
            faults,
            recorder: Recorder::unshared(),
        };
        let stack = Stack::start(&settings, parts).await.expect("the stack starts");
        let (listener, address) = free_port().await.expect("a port");
        stack.serve(listener);
        Self { stack, api: Api::new(&format!("http://{address}")), data, _dir: dir }
    }

    pub(crate) async fn audit(&self) {
        audit(&["--data", &self.data.display().to_string()]).await;
    }
}
