//! An HTTP/2 client for one request on a connection without TLS, by prior knowledge (RFC 9113, section 3.3): header
//! lines are sent as they are given, those too that no well-behaved client sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const LARGEST_FRAME: usize = 16_384;

/// Sends a GET with these header lines, and returns the status of the answer once all of it is there.
///
/// # Panics
/// Where there is no answer.
pub(crate) fn get(port: u16, path: &str, lines: &[(&str, &str)]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut block = Vec::new();
    let head = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "gateway.test")];
    for (name, value) in head.iter().chain(lines) {
        // A literal without indexing, with a new name (RFC 7541, section 6.2.2).
        block.push(0);
        push_string(&mut block, name);
        push_string(&mut block, value);
    }
    assert!(block.len() <= LARGEST_FRAME, "one frame holds all lines");
    stream.write_all(PREFACE).expect("an open connection");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("an open connection");
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).expect("an open connection");
    let mut status = None;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame of the answer");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).expect("a whole frame");
        assert_ne!(head[3], GOAWAY, "nginx ends the connection: {payload:?}");
        if head[8] != 1 {
            continue;
        }
        if head[3] == HEADERS {
            status = Some(status_of(&payload));
        }
        if head[4] & END_STREAM != 0 {
            return status.expect("headers before the end");
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// A string as it is, its length before it (RFC 7541, sections 5.1 and 5.2).
fn push_string(block: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).expect("below 127"));
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).expect("below 128") | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).expect("below 128"));
    }
    block.extend_from_slice(text.as_bytes());
}

/// The status, which comes first, as nginx writes it: one of the static table, or three digits.
fn status_of(block: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Before it the size of the table may be set.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        indexed @ 0x88..=0x8e => KNOWN[usize::from(indexed - 0x88)],
        _ => std::str::from_utf8(&block[2..5]).expect("digits").parse().expect("a status"),
    }
}
