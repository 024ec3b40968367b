//! An HTTP/1.1 client that sends exactly the bytes it is given, and reads answers.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A request under construction; nothing is added but `Host`, and `Content-Length` where there is a body.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    target: Vec<u8>,
    headers: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    /// A request line without headers. `target`: written as it is.
    pub(crate) fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.as_ref().to_vec(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A GET.
    pub(crate) fn get(target: impl AsRef<[u8]>) -> Self {
        Self::new("GET", target)
    }

    /// Adds one header line, whatever is there already.
    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(b": ");
        self.headers.extend_from_slice(value.as_ref());
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    /// Asks for this tenant, or these.
    #[must_use]
    pub(crate) fn tenant(self, tenant: &str) -> Self {
        self.header("X-Scope-OrgID", tenant)
    }

    /// Presents a token as Grafana does.
    #[must_use]
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("X-Id-Token", token)
    }

    /// Adds a Cookie line.
    #[must_use]
    pub(crate) fn cookie(self, line: impl AsRef<[u8]>) -> Self {
        self.header("Cookie", line)
    }

    /// Adds a body with its length.
    #[must_use]
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", length)
    }

    /// Asks for the WebSocket protocol.
    #[must_use]
    pub(crate) fn websocket(self) -> Self {
        self.header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// The bytes that go over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} ", self.method).into_bytes();
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(b" HTTP/1.1\r\nHost: gateway.test\r\n");
        bytes.extend_from_slice(&self.headers);
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends the request over a connection of its own.
    pub(crate) fn send(&self, port: u16) -> Answer {
        let mut client = Client::connect(port);
        client.send(&self.bytes());
        client.answer_to(&self.method)
    }
}

/// An answer, read whole.
#[derive(Clone)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Header lines in order, decoded byte by byte.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, decoded where it was chunked.
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    /// Shows the body as text: a failed test prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (headers, body) = (&self.headers, self.text());
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", headers)
            .field("body", &body)
            .finish()
    }
}

impl Answer {
    /// The value of a header that occurs at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` occurs more than once: {self:?}");
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Why the gateway denied; empty where it did not.
    pub(crate) fn reason(&self) -> &str {
        self.header("X-Tenantauth-Reason").unwrap_or_default()
    }
}

/// A connection that is kept.
pub(crate) struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening server");
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, pending: Vec::new() }
    }

    /// Sends bytes. A server that has already answered and closed is no error: its answer can still be read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends our half of the connection.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads the answer to a GET.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads the answer to a GET; none where the server ended the connection without one.
    pub(crate) fn answer_or_end(&mut self) -> Option<Answer> {
        while !self.pending.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if !self.fill() {
                return None;
            }
        }
        Some(self.answer())
    }

    /// Reads the answer to a request of this method.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(end) = self.pending.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill(), "the connection ended before an answer: {:?}", latin1(&self.pending));
        };
        let head = latin1(&self.take(end));
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = header_lines(lines);
        let mut answer = Answer { status: status.expect("a status line"), headers, body: Vec::new() };
        if method == "HEAD" || answer.status == 204 || answer.status == 304 || answer.status == 101 {
            return answer;
        }
        answer.body = if answer.header("Transfer-Encoding") == Some("chunked") {
            self.chunks()
        } else if let Some(length) = answer.header("Content-Length") {
            self.exactly(length.parse().expect("a length"))
        } else {
            while self.fill() {}
            self.take(self.pending.len())
        };
        answer
    }

    /// Reads exactly so many bytes, as behind a 101.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.fill(), "the connection ended early: {:?}", latin1(&self.pending));
        }
        self.take(count)
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = self.pending.windows(2).position(|bytes| bytes == b"\r\n") {
                    break end + 2;
                }
                assert!(self.fill(), "the connection ended inside a chunked body");
            };
            let line = latin1(&self.take(end));
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
            body.extend(self.exactly(size));
            self.exactly(2);
            if size == 0 {
                return body;
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.pending.drain(..count).collect()
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; so far {:?}", latin1(&self.pending)),
        }
    }
}

/// Bytes as the characters of the same numbers: nothing is lost, and ASCII reads as itself.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Splits header lines at their colon, and trims the value.
pub(crate) fn header_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        .collect()
}
