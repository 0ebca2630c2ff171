//! A program under test: started, watched, killed without warning, started again.
//!
//! Must hold: nothing it starts outlives it; the program's output is kept, bounded, and shown when a wait fails.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::eventually;

/// Lines of output kept; older ones are forgotten.
const LINES_MAX: usize = 1_000;
/// Of an answer to a readiness question, only the status line matters.
const STATUS_BYTES: usize = 12;

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Program {
    /// A binary with these arguments.
    pub fn new<A: Into<OsString>>(path: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        Self { path: path.into(), args: args.into_iter().map(Into::into).collect(), env: Vec::new() }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
    lines: Lines,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When the binary can't be started.
    pub fn start(program: Program) -> io::Result<Self> {
        let lines = Lines::default();
        let child = spawn(&program, &lines)?;
        Ok(Self { program, child, lines })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        // Fails only if it has ended by itself, which the wait below tells.
        let _ = self.child.kill();
        self.child.wait()
    }

    /// Kills it and starts it again with the same arguments, its earlier output forgotten.
    ///
    /// # Errors
    /// When the binary can't be started.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        // A new list: readers of the killed process's pipes may still be adding to the old one.
        self.lines = Lines::default();
        self.child = spawn(&self.program, &self.lines)?;
        Ok(())
    }

    /// Asks it to end, as service managers do.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal("-TERM")
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal("-INT")
    }

    /// Stops it in the middle of whatever it does. Its connections stay open.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Lets a frozen one go on as if nothing had happened.
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        let status = Command::new("kill").arg(signal).arg(self.id().to_string()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("the signal was not sent")) }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let (child, lines) = (&mut self.child, &self.lines);
        eventually(limit, "the process ends", async || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("still running; output:\n{}", text(lines))),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Waits for a line of output that `wanted` turns into a value.
    ///
    /// # Panics
    /// When there is none within `limit`.
    pub async fn line<T>(&self, limit: Duration, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        eventually(limit, what, async || {
            let found = lock(&self.lines).iter().find_map(|line| wanted(line));
            found.ok_or_else(|| self.output())
        })
        .await
    }

    /// Waits until `GET path` at `address` is answered with 200.
    ///
    /// # Panics
    /// When it is not within `limit`.
    pub async fn ready(&self, limit: Duration, address: SocketAddr, path: &str) {
        eventually(limit, "the process is ready", async || match status_line(address, path).await {
            Ok(line) if line == "HTTP/1.1 200" => Ok(()),
            Ok(line) => Err(format!("{line}; output:\n{}", self.output())),
            Err(error) => Err(format!("{error}; output:\n{}", self.output())),
        })
        .await;
    }

    /// What it wrote so far to standard output and standard error.
    #[must_use]
    pub fn output(&self) -> String {
        text(&self.lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure leaves nothing to do; the test's own verdict matters more.
        let _ = self.kill();
    }
}

fn spawn(program: &Program, lines: &Lines) -> io::Result<Child> {
    let mut child = Command::new(&program.path)
        .args(&program.args)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        gather(stdout, Arc::clone(lines));
    }
    if let Some(stderr) = child.stderr.take() {
        gather(stderr, Arc::clone(lines));
    }
    Ok(child)
}

/// A thread per pipe, ended by the pipe's end: a full pipe would stop the program under test.
fn gather(pipe: impl Read + Send + 'static, lines: Lines) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            let mut lines = lock(&lines);
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

fn lock(lines: &Lines) -> MutexGuard<'_, VecDeque<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(lines: &Lines) -> String {
    lock(lines).iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}

async fn status_line(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; STATUS_BYTES];
    stream.read_exact(&mut start).await?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::free_port;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh", ["-c", script])
    }

    async fn number(process: &Process) -> u32 {
        process.line(LIMIT, "a number", |line| line.strip_prefix("pid ")?.parse().ok()).await
    }

    #[tokio::test]
    async fn a_killed_process_can_be_started_again() {
        let mut process = Process::start(shell("echo pid $$; exec tail -f /dev/null")).unwrap();
        let first = number(&process).await;
        assert_eq!(first, process.id());
        process.restart().unwrap();
        let second = number(&process).await;
        assert_eq!(second, process.id());
        assert_ne!(first, second);
        assert!(!process.kill().unwrap().success());
    }

    #[tokio::test]
    async fn a_process_can_be_asked_to_end() {
        let script = "trap 'echo bye; kill $!; exit 3' TERM; tail -f /dev/null & echo \"$WORD\" >&2; wait";
        let mut process = Process::start(shell(script).with_env("WORD", "up")).unwrap();
        process.line(LIMIT, "the trap is set", |line| (line == "up").then_some(())).await;
        process.terminate().unwrap();
        assert_eq!(process.ended(LIMIT).await.code(), Some(3));
        process.line(LIMIT, "the last word", |line| (line == "bye").then_some(())).await;
    }

    #[tokio::test]
    async fn readiness_is_waited_for() {
        let (listener, address) = free_port().await.unwrap();
        let process = Process::start(shell("exec tail -f /dev/null")).unwrap();
        let server = async {
            for status in ["503 Busy", "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
        };
        tokio::join!(process.ready(LIMIT, address, "/readyz"), server);
    }

    #[tokio::test]
    #[should_panic(expected = "only this")]
    async fn a_line_that_never_comes_shows_the_output() {
        let process = Process::start(shell("echo only this")).unwrap();
        process.line(LIMIT, "the line", |line| (line == "only this").then_some(())).await;
        process.line(Duration::from_millis(50), "another line", |line| (line == "that").then_some(())).await;
    }
}
