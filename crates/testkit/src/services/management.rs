//! The broker's management API, as far as tests need it.
//!
//! Not a client of HTTP: one request per connection, asked in HTTP/1.0 so that the answer ends with the connection.
//! Blocking, since what a test made must also be removed in `Drop`. Must hold: every wait has a limit.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

/// For one connection, and for each read and write on it.
const LIMIT: Duration = Duration::from_secs(30);
/// Of an answer, no more is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the API is, and as whom it is asked.
#[derive(Clone)]
pub(super) struct Management {
    address: String,
    user: String,
    password: String,
}

/// Says nothing of the password.
impl std::fmt::Debug for Management {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Management").field("address", &self.address).field("user", &self.user).finish_non_exhaustive()
    }
}

/// What was answered.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    /// The body, of a request that was carried out.
    pub(super) fn done(self) -> io::Result<Value> {
        match self.status {
            200..=299 => Ok(self.body),
            status => Err(io::Error::other(format!("the broker answered {status}: {}", self.body))),
        }
    }
}

impl Management {
    /// From `http://user:password@host:port`.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (login, address) = url.strip_prefix("http://")?.trim_end_matches('/').rsplit_once('@')?;
        let (user, password) = login.split_once(':')?;
        Some(Self { address: address.to_owned(), user: user.to_owned(), password: password.to_owned() })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// One request; `path` names what is below `/api/`, each part already [`encode`]d.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = self.connect()?;
        write!(
            stream,
            "{method} /api/{path} HTTP/1.0\r\nhost: {}\r\nauthorization: Basic {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            base64(format!("{}:{}", self.user, self.password).as_bytes()),
            body.len(),
        )?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        parse_answer(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the broker's answer can't be read"))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let address = self.address.to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the broker has no address"))?;
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }
}

fn parse_answer(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Not every answer is JSON: that of a refused login is not, and most are empty.
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Some(Answer { status, body })
}

/// A name as one part of a path, or as the virtual host of an address.
pub(super) fn encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Base64 with padding, as logins and message bodies are sent.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |position: usize| u32::from(chunk.get(position).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position)) & 0x3f;
            encoded.push(if position > chunk.len() { '=' } else { char::from(ALPHABET[index as usize]) });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    /// Answers one request, and gives what was asked.
    fn broker(answer: &'static str) -> (Management, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://guest:secret@{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let mut length = 0;
            while !asked[..length].ends_with(b"}") {
                length += stream.read(&mut asked[length..]).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (Management::parse(&url).unwrap(), served)
    }

    #[test]
    fn a_request_is_asked_and_its_answer_read() {
        let (management, served) = broker("HTTP/1.1 200 OK\r\nserver: x\r\n\r\n{\"routed\":true}");
        let answer = management.ask("POST", "exchanges/%2F/e/publish", Some(&json!({"a": 1}))).unwrap();
        assert_eq!(answer.done().unwrap(), json!({"routed": true}));
        let asked = served.join().unwrap();
        assert!(asked.starts_with("POST /api/exchanges/%2F/e/publish HTTP/1.0\r\n"), "{asked}");
        assert!(asked.contains("\r\nauthorization: Basic Z3Vlc3Q6c2VjcmV0\r\n"), "{asked}");
        assert!(asked.ends_with("\r\ncontent-length: 7\r\n\r\n{\"a\":1}"), "{asked}");
    }

    #[test]
    fn a_refusal_is_an_error_that_shows_the_answer() {
        let (management, served) = broker("HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"Object Not Found\"}");
        let error = management.ask("DELETE", "queues/a/b", Some(&json!({}))).unwrap().done().unwrap_err();
        assert_eq!(error.to_string(), "the broker answered 404: {\"error\":\"Object Not Found\"}");
        served.join().unwrap();
    }

    #[test]
    fn the_password_is_not_shown() {
        let management = Management::parse("http://guest:secret@127.0.0.1:1/").unwrap();
        assert!(!format!("{management:?}").contains("secret"));
        assert_eq!(Management::parse("http://127.0.0.1:1").map(|management| management.address), None);
    }

    #[test]
    fn base64_pads() {
        let encoded: Vec<String> = ["", "f", "fo", "foo", "foob"].iter().map(|text| base64(text.as_bytes())).collect();
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a/b c.d-é"), "a%2Fb%20c.d-%C3%A9");
    }
}
