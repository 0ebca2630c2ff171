//! A proxy before PostgreSQL that cuts connections at chosen messages, or holds everything up, at one of them or at once.
//!
//! It reads the protocol on plaintext connections, so that a fault hits one statement and not one moment: named
//! statements are followed from their Parse to every Bind. Not for encrypted connections, and not a tool for load.
//! Must hold: what is cut before forwarding never reached the server; what is cut after the answer was carried out;
//! every bite is counted.

mod frames;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use frames::{Asked, Frame};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the statement is forwarded: the server never hears of it.
    Before,
    /// As soon as it is forwarded: the server carries it out, or not, while nobody listens.
    Sent,
    /// When the server has answered: it is carried out, and the client never learns of it.
    Answered,
    /// Nowhere: as soon as it is forwarded everything is held up, until [`Proxy::unfreeze`].
    Held,
}

/// Which executions are cut off, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Part of the statement's text.
    pub contains: String,
    /// Where it is cut.
    pub cut: Cut,
    /// The first execution that is cut, counted from 1, and then each that is as many later.
    pub every: usize,
    /// How many are cut at most.
    pub times: usize,
}

impl Plan {
    /// Cuts the next execution of a statement whose text contains `contains`.
    #[must_use]
    pub fn next(contains: impl Into<String>, cut: Cut) -> Self {
        Self { contains: contains.into(), cut, every: 1, times: 1 }
    }
}

/// A plan at work.
#[derive(Debug, Default)]
struct Active {
    plan: Option<Plan>,
    seen: usize,
    bites: usize,
}

impl Active {
    /// Where this execution is cut, if it is.
    fn meet(&mut self, text: &str) -> Option<Cut> {
        let plan = self.plan.as_ref().filter(|plan| text.contains(&plan.contains))?;
        self.seen += 1;
        let bites = self.seen.is_multiple_of(plan.every.max(1)) && self.bites < plan.times;
        self.bites += usize::from(bites);
        bites.then_some(plan.cut)
    }
}

/// A proxy before one server. Its connections are cut when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    active: Arc<Mutex<Active>>,
    frozen: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
    losses: watch::Sender<u64>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens on a free port of this machine, before the server at `target`: `host:port`.
    ///
    /// # Errors
    /// When the machine has no free port.
    #[allow(clippy::disallowed_methods, reason = "ends with the proxy")]
    pub async fn start(target: impl Into<String>) -> io::Result<Self> {
        let (listener, address) = crate::free_port().await?;
        let (frozen, is_frozen) = watch::channel(false);
        let (cuts, is_cut) = watch::channel(0);
        let (losses, is_lost) = watch::channel(0);
        let (target, active) = (target.into(), Arc::<Mutex<Active>>::default());
        let line = Line {
            target,
            active: Arc::clone(&active),
            freeze: frozen.clone(),
            frozen: is_frozen,
            cut: is_cut,
            lost: is_lost,
        };
        let task = tokio::spawn(accept(listener, line)).abort_handle();
        Ok(Self { address, active, frozen, cuts, losses, task })
    }

    /// Before the server of an address like `postgres://user@host:port/database`.
    ///
    /// # Errors
    /// When the machine has no free port, or the address has no host and port.
    pub async fn before(url: &str) -> io::Result<Self> {
        let host = host(url).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an address without a host"))?;
        Self::start(&url[host]).await
    }

    /// The same address, through the proxy.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        host(url).map_or_else(
            || url.to_owned(),
            |host| format!("{}{}{}", &url[..host.start], self.address, &url[host.end..]),
        )
    }

    /// Cuts as planned from now on; replaces an earlier plan and counts its bites anew.
    pub fn plan(&self, plan: Plan) {
        *lock(&self.active) = Active { plan: Some(plan), ..Active::default() };
    }

    /// Lets everything pass again; bites stay counted.
    pub fn pass(&self) {
        lock(&self.active).plan = None;
    }

    /// How many executions the plan has cut.
    #[must_use]
    pub fn bites(&self) -> usize {
        lock(&self.active).bites
    }

    /// Holds up every byte in both directions, as a network does that lost its way. Connections stay.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Lets the bytes go on.
    pub fn unfreeze(&self) {
        self.frozen.send_replace(false);
    }

    /// Swallows every further byte of the connections that there are, which stay open. New ones are served.
    pub fn swallow(&self) {
        self.losses.send_modify(|losses| *losses += 1);
    }

    /// Cuts every connection that there is.
    pub fn cut_all(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Where `host:port` is in an address.
fn host(url: &str) -> Option<std::ops::Range<usize>> {
    let login = url.find("://")? + 3;
    let end = url[login..].find('/').map_or(url.len(), |slash| login + slash);
    let start = url[login..end].rfind('@').map_or(login, |at| login + at + 1);
    (start < end).then_some(start..end)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every connection knows.
#[derive(Clone)]
struct Line {
    target: String,
    active: Arc<Mutex<Active>>,
    freeze: watch::Sender<bool>,
    frozen: watch::Receiver<bool>,
    cut: watch::Receiver<u64>,
    lost: watch::Receiver<u64>,
}

impl Line {
    /// Waits while the proxy is frozen, and for ever once the connection is lost. Fails when there is no proxy any more.
    async fn thaw(&mut self) -> io::Result<()> {
        if self.lost.has_changed().unwrap_or(true) {
            std::future::pending::<()>().await;
        }
        let thawed = self.frozen.wait_for(|frozen| !*frozen).await;
        thawed.map(|_| ()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

async fn accept(listener: TcpListener, line: Line) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let mut line = line.clone();
        line.cut.mark_unchanged();
        line.lost.mark_unchanged();
        connections.spawn(async move {
            let mut cut = line.cut.clone();
            // However a connection ends, both its sides are closed.
            tokio::select! {
                _ = serve(client, line) => {}
                _ = cut.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, mut line: Line) -> io::Result<()> {
    line.thaw().await?;
    let mut server = TcpStream::connect(&line.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    frames::start(&mut client, &mut server).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let state = Arc::new(Mutex::new(State::default()));
    tokio::select! {
        ended = ask(from_client, to_server, line.clone(), Arc::clone(&state)) => ended,
        ended = answer(from_server, to_client, line, state) => ended,
    }
}

/// How far client and server of one connection are.
#[derive(Default)]
struct State {
    /// Times the client has asked for the word that the server is ready, beside the start's.
    asked: u64,
    /// Times the server has said it, beside the start's.
    ready: Option<u64>,
    /// The answer that the client must not get, by its number.
    swallow: Option<u64>,
}

async fn ask(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mut line: Line,
    state: Arc<Mutex<State>>,
) -> io::Result<()> {
    let mut statements: HashMap<Vec<u8>, String> = HashMap::new();
    let mut leave_after_sync = false;
    loop {
        let frame = Frame::read(&mut client).await?;
        let text = match frame.asked() {
            Asked::Parse { name, text } => {
                statements.insert(name, text);
                None
            }
            Asked::Bind { name } => statements.get(&name).cloned(),
            Asked::Query { text } => Some(text),
            Asked::Sync | Asked::Other => None,
        };
        let bite = text.and_then(|text| lock(&line.active).meet(&text));
        match bite {
            Some(Cut::Before) => return Ok(()),
            Some(Cut::Sent) => leave_after_sync = true,
            Some(Cut::Answered) => {
                let mut state = lock(&state);
                state.swallow = Some(state.asked + 1);
            }
            Some(Cut::Held) | None => {}
        }
        line.thaw().await?;
        if bite == Some(Cut::Held) {
            line.freeze.send_replace(true);
        }
        let ends = frame.asks_for_ready();
        lock(&state).asked += u64::from(ends);
        server.write_all(&frame.bytes).await?;
        if ends && leave_after_sync {
            return Ok(());
        }
    }
}

async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut line: Line,
    state: Arc<Mutex<State>>,
) -> io::Result<()> {
    loop {
        let frame = Frame::read(&mut server).await?;
        let (swallowed, over) = {
            let mut state = lock(&state);
            let swallowed = state.swallow.is_some_and(|number| number == state.ready.unwrap_or(0) + 1);
            if frame.is_ready() {
                state.ready = Some(state.ready.map_or(0, |ready| ready + 1));
            }
            (swallowed, swallowed && frame.is_ready())
        };
        if over {
            return Ok(());
        }
        if !swallowed {
            line.thaw().await?;
            client.write_all(&frame.bytes).await?;
        }
    }
}

#[cfg(test)]
mod tests;
