//! The proxy before a server that remembers what it was asked and says after each question that it is ready.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Serves connections; returns what each message's type was.
async fn server() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let (listener, address) = crate::free_port().await.unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(listen(stream, Arc::clone(&hears)));
        }
    });
    (address, heard)
}

async fn listen(mut stream: TcpStream, hears: Arc<Mutex<Vec<u8>>>) {
    let mut start = [0; 8];
    stream.read_exact(&mut start).await.unwrap();
    stream.write_all(&frame(b'Z', b"I")).await.unwrap();
    while let Ok(asked) = Frame::read(&mut stream).await {
        lock(&hears).push(asked.bytes[0]);
        if asked.asks_for_ready() {
            stream.write_all(&[frame(b'C', b"done\0"), frame(b'Z', b"I")].concat()).await.unwrap();
        }
    }
}

struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &Proxy) -> Self {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(&[8_u32.to_be_bytes(), 196_608_u32.to_be_bytes()].concat()).await.unwrap();
        let mut client = Self(stream);
        client.ready().await.unwrap();
        client
    }

    /// Waits for the word that the server is ready.
    async fn ready(&mut self) -> io::Result<()> {
        loop {
            if timeout(LIMIT, Frame::read(&mut self.0)).await.unwrap()?.is_ready() {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        self.0.write_all(&frames.concat()).await?;
        self.ready().await
    }

    async fn prepare(&mut self, name: &str, text: &str) {
        let body = format!("{name}\0{text}\0\0\0");
        self.send(&[frame(b'P', body.as_bytes()), frame(b'S', b"")]).await.unwrap();
    }

    async fn execute(&mut self, name: &str) -> io::Result<()> {
        let bind = frame(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
        self.send(&[bind, frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")]).await
    }
}

#[tokio::test]
async fn a_named_statement_is_cut_before_it_arrives() {
    let (address, heard) = server().await;
    let proxy = Proxy::start(address.to_string()).await.unwrap();
    let mut client = Client::connect(&proxy).await;
    client.prepare("one", "insert into history").await;
    client.prepare("two", "select 1").await;
    proxy.plan(Plan::next("history", Cut::Before));
    client.execute("two").await.unwrap();
    assert_eq!(proxy.bites(), 0);
    client.execute("one").await.unwrap_err();
    assert_eq!((proxy.bites(), lock(&heard).as_slice()), (1, b"PSPSBES".as_slice()));

    let mut client = Client::connect(&proxy).await;
    client.prepare("one", "insert into history").await;
    client.execute("one").await.unwrap();
    assert_eq!(proxy.bites(), 1, "once was planned");
}

#[tokio::test]
async fn an_answer_is_swallowed_after_the_server_gave_it() {
    let (address, heard) = server().await;
    let proxy = Proxy::start(address.to_string()).await.unwrap();
    let mut client = Client::connect(&proxy).await;
    client.send(&[frame(b'Q', b"BEGIN\0")]).await.unwrap();
    proxy.plan(Plan { every: 2, ..Plan::next("COMMIT", Cut::Answered) });
    client.send(&[frame(b'Q', b"COMMIT\0")]).await.unwrap();
    client.send(&[frame(b'Q', b"COMMIT\0")]).await.unwrap_err();
    assert_eq!((proxy.bites(), lock(&heard).as_slice()), (1, b"QQQ".as_slice()));
}

#[tokio::test]
async fn a_frozen_line_goes_on_where_it_was() {
    let (address, heard) = server().await;
    let proxy = Proxy::start(address.to_string()).await.unwrap();
    let mut client = Client::connect(&proxy).await;
    proxy.freeze();
    client.0.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    // Whether bytes do not come can only be seen over time.
    assert!(timeout(Duration::from_millis(50), client.ready()).await.is_err());
    assert!(lock(&heard).is_empty());
    proxy.unfreeze();
    client.ready().await.unwrap();
    proxy.cut_all();
    client.ready().await.unwrap_err();
}

#[tokio::test]
async fn what_is_swallowed_never_arrives_and_others_are_served() {
    let (address, heard) = server().await;
    let proxy = Proxy::start(address.to_string()).await.unwrap();
    let mut lost = Client::connect(&proxy).await;
    proxy.swallow();
    lost.0.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    let mut other = Client::connect(&proxy).await;
    other.0.write_all(&frame(b'Q', b"select 2\0")).await.unwrap();
    other.ready().await.unwrap();
    assert!(timeout(Duration::from_millis(50), lost.ready()).await.is_err(), "it stays open");
    assert_eq!(lock(&heard).len(), 1);
}

#[test]
fn an_address_is_led_through_the_proxy() {
    let host_of = |url: &'static str| host(url).map(|range| &url[range]);
    assert_eq!(host_of("postgres://user@127.0.0.1:5432/bookend"), Some("127.0.0.1:5432"));
    assert_eq!(host_of("postgres://user:p@ss@db:1"), Some("db:1"));
    assert_eq!(host_of("postgres://localhost:2/x?a=b@c/d"), Some("localhost:2"));
    assert_eq!(host_of("nothing"), None);
}
