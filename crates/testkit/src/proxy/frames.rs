//! Messages of PostgreSQL's protocol, version 3, as far as the proxy looks into them.
//!
//! Must hold: a message is passed on byte for byte.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer messages are taken for a broken connection.
const LENGTH_MAX: u32 = 64 * 1024 * 1024;
/// What a client may ask for before it starts: encryption by TLS, by GSSAPI.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

/// A message with its type and length.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
}

/// What a message of the client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A statement gets a name.
    Parse { name: Vec<u8>, text: String },
    /// The statement of this name is about to be executed.
    Bind { name: Vec<u8> },
    /// A statement is executed as it is.
    Query { text: String },
    /// The word that the server is ready.
    Sync,
    /// Anything else.
    Other,
}

impl Frame {
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let kind = from.read_u8().await?;
        let mut bytes = vec![kind];
        read_rest(from, &mut bytes).await?;
        Ok(Self { bytes })
    }

    fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// The words of the message, each ended by a zero.
    fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.get(5..).unwrap_or_default().split(|byte| *byte == 0)
    }

    pub(super) fn asked(&self) -> Asked {
        let text = |word: Option<&[u8]>| String::from_utf8_lossy(word.unwrap_or_default()).into_owned();
        let mut words = self.words();
        match self.kind() {
            b'P' => {
                let name = words.next().unwrap_or_default().to_vec();
                Asked::Parse { name, text: text(words.next()) }
            }
            // A portal's name comes first.
            b'B' => Asked::Bind { name: words.nth(1).unwrap_or_default().to_vec() },
            b'Q' => Asked::Query { text: text(words.next()) },
            b'S' => Asked::Sync,
            _ => Asked::Other,
        }
    }

    /// Whether the server answers it, and all before it, with the word that it is ready.
    pub(super) fn asks_for_ready(&self) -> bool {
        matches!(self.kind(), b'S' | b'Q')
    }

    /// Of a message of the server: whether it is that word.
    pub(super) fn is_ready(&self) -> bool {
        self.kind() == b'Z'
    }
}

/// Reads a length and what it announces.
async fn read_rest(from: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = from.read_u32().await?;
    if !(4..=LENGTH_MAX).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no message of the protocol"));
    }
    bytes.extend(length.to_be_bytes());
    let body = bytes.len();
    bytes.resize(body + length as usize - 4, 0);
    from.read_exact(&mut bytes[body..]).await.map(|_| ())
}

/// Passes on what comes before the first real message: requests to encrypt, which the server turns down with one byte,
/// and the start.
pub(super) async fn start(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut bytes = Vec::new();
        read_rest(client, &mut bytes).await?;
        server.write_all(&bytes).await?;
        let code = bytes.get(4..8).and_then(|code| <[u8; 4]>::try_from(code).ok()).map(u32::from_be_bytes);
        if !code.is_some_and(|code| ENCRYPTION.contains(&code)) {
            return Ok(());
        }
        let answer = server.read_u8().await?;
        if answer != b'N' {
            return Err(io::Error::other("the proxy can't read encrypted connections; switch TLS off"));
        }
        client.write_u8(answer).await?;
    }
}
