//! Services of a test's own, for tests that stop, kill and disturb them.
//!
//! Must hold: what a test starts is gone when the test is, also when it was killed: `scripts/services.sh` watches the
//! test's process.

use std::ffi::OsString;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Services, blocking};

/// What starts and stops services, for people and for tests.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/services.sh");

/// Services that no other test uses; taken down when dropped.
#[derive(Debug)]
pub struct PrivateServices {
    services: Services,
    directory: Directory,
}

impl PrivateServices {
    /// Starts one service, or both.
    pub(super) async fn start(only: Option<&'static str>) -> io::Result<Self> {
        let directory = Directory::new()?;
        let path = directory.path().to_owned();
        let printed = blocking(move || {
            let owner = std::process::id().to_string();
            let mut arguments = vec!["--owner", &owner];
            arguments.extend(only.map(|service| ["--only", service]).into_iter().flatten());
            script(&path, &["up"], &arguments)?;
            script(&path, &["env"], &[])
        })
        .await?;
        Ok(Self { services: Services::from_script(&printed), directory })
    }

    /// The broker's switches.
    #[must_use]
    pub fn broker(&self) -> PrivateBroker<'_> {
        PrivateBroker { directory: self.directory.path() }
    }

    /// Where they are: part of the servers' arguments.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The database's switches.
    #[must_use]
    pub fn database(&self) -> PrivateDatabase<'_> {
        PrivateDatabase { directory: self.directory.path() }
    }
}

impl Deref for PrivateServices {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// The switches of a private RabbitMQ.
#[derive(Clone, Copy, Debug)]
pub struct PrivateBroker<'a> {
    directory: &'a Path,
}

impl PrivateBroker<'_> {
    /// Stops it in good order and waits until it is gone, about six seconds.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(&self) -> io::Result<()> {
        switch(self.directory, ["stop", "rabbitmq"]).await
    }

    /// Ends its machine at once, as `kill -9` does.
    ///
    /// # Errors
    /// When it is still running.
    pub async fn kill(&self) -> io::Result<()> {
        switch(self.directory, ["kill", "rabbitmq"]).await
    }

    /// Starts it again on the same ports and waits until it answers, about four seconds.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start(&self) -> io::Result<()> {
        switch(self.directory, ["start", "rabbitmq"]).await
    }

    /// Raises or clears its memory alarm; while it is raised, connections that publish are blocked.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn alarm(&self, on: bool) -> io::Result<()> {
        switch(self.directory, ["alarm", if on { "on" } else { "off" }]).await
    }
}

/// The switches of a private PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub struct PrivateDatabase<'a> {
    directory: &'a Path,
}

impl PrivateDatabase<'_> {
    /// Stops it as a crash would: sessions are cut off, and the next start recovers from its log.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop_immediate(&self) -> io::Result<()> {
        switch(self.directory, ["stop", "postgres"]).await
    }

    /// Starts it again on the same port and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start(&self) -> io::Result<()> {
        switch(self.directory, ["start", "postgres"]).await
    }
}

async fn switch(directory: &Path, verb: [&'static str; 2]) -> io::Result<()> {
    let directory = directory.to_owned();
    blocking(move || script(&directory, &verb, &[]).map(|_| ())).await
}

/// Runs the script on a directory; gives what it printed.
fn script(directory: &Path, verb: &[&str], options: &[&str]) -> io::Result<String> {
    let output = Command::new(SCRIPT)
        .args(verb)
        .args([OsString::from("--dir"), directory.into()])
        .args(options)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("scripts/services.sh {}: {}", verb.join(" "), said.trim())))
}

/// A directory with services in it; both go when it is dropped.
#[derive(Debug)]
struct Directory(TempDir);

impl Directory {
    fn new() -> io::Result<Self> {
        // Resolved, as the script does: its path is part of the servers' arguments.
        let below: PathBuf = std::env::temp_dir().canonicalize()?;
        tempfile::Builder::new().prefix("bookend-").tempdir_in(below).map(Self)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A failure leaves nothing to do; the script's own watch tries once more.
        let _ = script(self.path(), &["down"], &["--purge"]);
    }
}
