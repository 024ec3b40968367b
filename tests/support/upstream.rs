//! A backend that records what it receives and answers with a description of it. Speaks WebSocket as far as a
//! gateway can see: it accepts the upgrade, and sends back whatever follows.

use super::client::{header_lines, latin1};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The head, from the request line to the empty line, byte for byte (as the characters of those numbers).
    pub(crate) head: String,
    /// The body, decoded where it was chunked.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    fn request_line(&self) -> Vec<&str> {
        self.head.lines().next().unwrap_or_default().split(' ').collect()
    }

    /// The method.
    pub(crate) fn method(&self) -> &str {
        self.request_line().first().copied().unwrap_or_default()
    }

    /// The request target as it was written.
    pub(crate) fn target(&self) -> &str {
        self.request_line().get(1).copied().unwrap_or_default()
    }

    /// Header lines in their order.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        header_lines(self.head.trim_end().split("\r\n").skip(1))
    }

    /// Every value of a header.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let ours = |(n, value): (String, String)| n.eq_ignore_ascii_case(name).then_some(value);
        self.headers().into_iter().filter_map(ours).collect()
    }

    /// Whether a header is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }
}

/// The backend; its thread ends with the process that started it.
pub(crate) struct Upstream {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Starts listening on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a bound listener").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::clone(&record);
                // A broken connection is the gateway's business; the tests see what arrived.
                thread::spawn(move || drop(serve(stream, &record)));
            }
        });
        Self { port, seen }
    }

    /// Everything received since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The only request received since the last look.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "requests that reached the backend: {seen:#?}");
        seen.remove(0)
    }
}

fn serve(stream: TcpStream, record: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let mut seen = Seen { head: latin1(&head), body: Vec::new() };
        if seen.values("Transfer-Encoding").iter().any(|value| value == "chunked") {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_default();
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk)?;
                seen.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = seen.values("Content-Length").first().and_then(|text| text.parse().ok())
        {
            seen.body.resize(length, 0);
            reader.read_exact(&mut seen.body)?;
        }
        let body = describe(&seen);
        // `X-Echo-Status` chooses the answer, for tests of error pages.
        let status = seen.values("X-Echo-Status").first().cloned().unwrap_or_else(|| "200".to_owned());
        let upgrade = seen.values("Upgrade").iter().any(|value| value.eq_ignore_ascii_case("websocket"));
        let keep = seen.request_line().last() == Some(&"HTTP/1.1")
            && !seen.values("Connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
        record.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        if upgrade {
            writer.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            std::io::copy(&mut reader, &mut writer)?;
            return Ok(());
        }
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(head.as_bytes())?;
        writer.write_all(body.as_bytes())?;
        if !keep {
            return Ok(());
        }
    }
}

fn describe(seen: &Seen) -> String {
    let headers: Vec<_> =
        seen.headers().into_iter().map(|(name, value)| serde_json::json!([name, value])).collect();
    let body = String::from_utf8_lossy(&seen.body);
    serde_json::json!({"method": seen.method(), "target": seen.target(), "headers": headers, "body": body})
        .to_string()
}
