//! Helpers for tests: waiting for a condition, free ports, processes that can be killed, PostgreSQL and RabbitMQ.
//!
//! Only ever a dev-dependency. Must hold: every wait has a limit, and a wait that fails shows what it saw last.

pub mod process;

pub mod proxy;
pub mod services;

pub use process::Process;
pub use services::Services;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until `look` returns a value; between two looks it pauses briefly.
///
/// # Panics
/// When `limit` is over, with the last error; also when one look alone takes longer.
pub async fn eventually<T, E: Display>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    let mut last = "never looked".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => panic!("{what}: a look did not end within {limit:?}; before it: {last}"),
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}; last: {last}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A listener on a free port of this machine: keeping it is the only way to keep the port.
///
/// # Errors
/// When the machine has no free port.
pub async fn free_port() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_waited_for() {
        let mut looks = 0;
        let seen = eventually(LIMIT, "three looks", async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });
        assert_eq!(seen.await, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the door: not within 1s; last: still closed")]
    async fn a_condition_that_never_holds_shows_what_was_seen_last() {
        eventually(LIMIT, "the door", async || Err::<(), _>("still closed")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the door: a look did not end within 1s")]
    async fn a_look_that_hangs_ends() {
        eventually(LIMIT, "the door", async || std::future::pending::<Result<(), String>>().await).await;
    }
}
