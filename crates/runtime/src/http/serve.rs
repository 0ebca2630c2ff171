//! Accepts connections and ends them in good order.
//!
//! The framework's own loop has no limit on connections and none on how long a client may take to send a request's
//! head, so the loop is here. Must hold: every connection is a task of [`Tasks`]; a shutdown lets requests under way
//! finish and takes no new ones.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Tasks;

/// What a client may take of the server.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once; more wait in the listener's backlog.
    connections_max: usize,
    /// How long a client may take to send a request's head; an idle connection is closed after it, too.
    head_wait_max: Duration,
}

const LIMITS: Limits = Limits { connections_max: 4_096, head_wait_max: Duration::from_secs(30) };
/// The wait after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `tasks` stop. Requests under way are waited for by [`Tasks::shutdown`].
pub async fn serve(listener: TcpListener, router: Router, tasks: &Tasks) {
    accept(listener, router, tasks, LIMITS).await;
}

/// Serves `router` for this machine alone, on a port that was free, until `tasks` stop; its URL.
///
/// # Errors
/// When no port can be listened on.
pub async fn serve_here(router: Router, tasks: &Tasks) -> std::io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let stop = tasks.clone();
    tasks.spawn(async move { serve(listener, router, &stop).await });
    Ok(url)
}

async fn accept(listener: TcpListener, router: Router, tasks: &Tasks, limits: Limits) {
    let seats = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let next = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            next = seat_and_stream(&seats, &listener) => next,
        };
        match next {
            Some((seat, stream)) => {
                let (router, stop) = (router.clone(), tasks.clone());
                tasks.spawn(async move {
                    converse(stream, router, &stop, limits).await;
                    drop(seat);
                });
            }
            None => {
                tasks.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn seat_and_stream(seats: &Arc<Semaphore>, listener: &TcpListener) -> Option<(OwnedSemaphorePermit, TcpStream)> {
    let seat = Arc::clone(seats).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((seat, stream)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn converse(stream: TcpStream, router: Router, tasks: &Tasks, limits: Limits) {
    // Answers are small and complete: waiting to fill a packet only delays them. Failing here costs only speed.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_wait_max)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.into_service()));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn started(router: Router, tasks: &Tasks, limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = tasks.clone();
        tasks.spawn(async move { accept(listener, router, &stop, limits).await });
        address
    }

    async fn read_all(mut stream: TcpStream) -> String {
        let mut text = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_at_shutdown() {
        let (tasks, begun, go_on) = (Tasks::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside, gate) = (Arc::clone(&begun), Arc::clone(&go_on));
        let slow = get(async move || {
            inside.notify_one();
            gate.notified().await;
            "done"
        });
        let address = started(Router::new().route("/", slow), &tasks, LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::timeout(LIMIT, begun.notified()).await.unwrap();
        tasks.stop();
        go_on.notify_one();
        let answer = read_all(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        assert_eq!(tasks.shutdown(LIMIT).await, 0);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_head_is_disconnected() {
        let tasks = Tasks::new();
        let limits = Limits { head_wait_max: Duration::from_millis(50), ..LIMITS };
        let address = started(Router::new(), &tasks, limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let answer = read_all(stream).await;
        assert!(!answer.contains("200"), "{answer}");
        assert_eq!(tasks.shutdown(LIMIT).await, 0);
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_a_seat() {
        let tasks = Tasks::new();
        let limits = Limits { connections_max: 1, ..LIMITS };
        let address = started(Router::new().route("/", get(async || "hi")), &tasks, limits).await;
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(ask).await.unwrap();
        first.write_all(ask).await.unwrap();
        assert!(read_all(first).await.ends_with("hi"));
        assert!(read_all(second).await.ends_with("hi"));
        assert_eq!(tasks.shutdown(LIMIT).await, 0);
    }
}
