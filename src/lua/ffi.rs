//! The entry that Lua calls for every request, through LuaJIT's FFI: pointers into nginx's own memory come in, and
//! pointers into memory of ours go out.
//!
//! The only unsafe code of tenantauth, earned by measurement: through mlua every text is first made a Lua string, which
//! alone costs more than the decision (a token has 3 kB, and LuaJIT hashes records of one shape to the same chain).
//! `native.decide` does the same through mlua and is what the tests hold this entry against.
//!
//! What is relied upon, by `lua/tenantauth/request.lua`, which declares the same structures:
//!
//! - It is called on the thread that runs nginx's event loop and Lua, and by no other.
//! - Every text it gives lies in memory of the request, of Lua or of nginx's configuration, and stays as it is during
//!   the call: the call does not yield, and nothing else runs on that thread meanwhile.
//! - It reads the answer before it calls again, and keeps no pointer from it.
#![allow(unsafe_code, reason = "the one file of design law 6 that may; each block says why it is sound")]

use super::decide::{Outcome, decide, guarded};
use crate::engine::Incoming;
use std::cell::RefCell;
use std::ffi::c_int;
use std::ptr;

/// As many header lines as nginx's Lua interface shows by default. More is a denial: padding could hide a header from
/// us that still goes upstream.
pub(super) const MAX_HEADERS: usize = 100;

/// A text. A null pointer is none at all.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    data: *const u8,
    length: usize,
}

/// `ngx_http_lua_ffi_str_t` of lua-nginx-module's `ngx_http_lua_util.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct NginxText {
    length: c_int,
    data: *const u8,
}

/// `ngx_http_lua_ffi_table_elt_t`, likewise: a header line, its name in lower case.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    name: NginxText,
    value: NginxText,
}

/// What Lua fills in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    server: u32,
    /// Negative where nginx's Lua interface did not show all.
    headers_count: i32,
    headers: *const Header,
    method: Text,
    request_uri: Text,
    uri: Text,
    remote_addr: Text,
    peer: Text,
}

/// What Lua reads. Its numbers are doubles, as Lua's are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    code: f64,
    nanoseconds: f64,
    bucket: u32,
    cookies_to: u32,
    record: Text,
    tenants: Text,
    cookies: Text,
    removed_count: u32,
    removed: [u16; MAX_HEADERS],
}

thread_local! {
    /// What the answer's pointers point into, until the next call.
    static OUTCOME: RefCell<Outcome> = RefCell::default();
}

impl Text {
    const NONE: Self = Self { data: ptr::null(), length: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// The pointer is null, or that many bytes behind it may be read and do not change during `'a`.
    unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: not null by the check, and otherwise as this function demands.
        (!self.data.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.data, self.length) })
    }
}

impl NginxText {
    /// # Safety
    /// As of [`Text::bytes`].
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        let length = usize::try_from(self.length).unwrap_or_default();
        // SAFETY: the caller's promise.
        unsafe { Text { data: self.data, length }.bytes() }.unwrap_or_default()
    }
}

impl Header {
    fn is_whole(&self) -> bool {
        let is_whole = |text: NginxText| text.length == 0 || (text.length > 0 && !text.data.is_null());
        is_whole(self.name) && is_whole(self.value)
    }
}

/// The address of [`enforce`], for Lua to call. Exact as a double: addresses have at most 52 bits.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(super) fn address() -> f64 {
    (enforce as *const ()).addr() as f64
}

/// What a request says, read where its pointers lead.
///
/// # Safety
/// Every pointer of the request is null, or good for reading what its length says during `'a`, as the head of this file
/// says.
unsafe fn incoming<'a>(
    request: &'a Request,
) -> Incoming<'a, impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a>> {
    let text = |text: Text| {
        // SAFETY: the caller's promise for every text of the request.
        unsafe { text.bytes() }
    };
    let headers = usize::try_from(request.headers_count).ok().filter(|count| *count <= MAX_HEADERS);
    let headers = headers.and_then(|count| {
        if count == 0 {
            return Some([].iter());
        }
        // SAFETY: not null by the check, and nginx has written that many lines there, which the caller promises.
        (!request.headers.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(request.headers, count) }.iter())
    });
    // A line of which not both texts are there cannot be judged, and would go upstream all the same: a denial.
    let headers = headers.filter(|lines| lines.clone().all(Header::is_whole));
    let lines = headers.map(|lines| {
        lines.map(|line| {
            // SAFETY: name and value of a header line are the request's memory.
            unsafe { (line.name.bytes(), line.value.bytes()) }
        })
    });
    Incoming {
        method: text(request.method).unwrap_or_default(),
        request_uri: text(request.request_uri).unwrap_or_default(),
        uri: text(request.uri).unwrap_or_default(),
        remote_addr: text(request.remote_addr),
        peer: text(request.peer).unwrap_or_default(),
        headers: lines,
    }
}

/// Decides one request.
///
/// # Safety
/// `request` points to a [`Request`] whose pointers are good for the call, as the head of this file says, and `answer`
/// to memory for an [`Answer`] that nobody else uses during the call.
unsafe extern "C" fn enforce(request: *const Request, answer: *mut Answer) {
    // SAFETY: the caller's promise: aligned, filled in, and unchanged during the call.
    let request = unsafe { &*request };
    // SAFETY: the caller's promise for the pointers in it.
    let incoming = unsafe { incoming(request) };
    let server = usize::try_from(request.server).unwrap_or(usize::MAX);
    // `decide` answers for panics of a decision. One outside of it must not reach C either: what Lua then finds is no
    // code of a decision, and it denies.
    let answered = guarded(|| {
        OUTCOME.with_borrow_mut(|outcome| {
            decide(server, incoming, outcome);
            Answer::of(outcome)
        })
    });
    // SAFETY: the caller's promise: good to be written, and nobody else's during the call.
    unsafe { answer.write(answered.unwrap_or(Answer::NONE)) };
}

impl Answer {
    /// No decision.
    const NONE: Self = Self {
        code: f64::NAN,
        nanoseconds: 0.0,
        bucket: 0,
        cookies_to: 0,
        record: Text::NONE,
        tenants: Text::NONE,
        cookies: Text::NONE,
        removed_count: 0,
        removed: [0; MAX_HEADERS],
    };

    #[expect(
        clippy::cast_precision_loss,
        reason = "codes are below 2^47, and no decision takes 2^53 nanoseconds"
    )]
    fn of(outcome: &Outcome) -> Self {
        let mut answer = Self {
            code: outcome.code as f64,
            nanoseconds: outcome.nanoseconds as f64,
            bucket: u32::try_from(outcome.bucket).unwrap_or_default(),
            cookies_to: outcome.cookies_to as u32,
            record: Text::of(&outcome.record),
            tenants: outcome.tenants.as_ref().map_or(Text::NONE, |tenants| Text::of(tenants.as_bytes())),
            cookies: Text::of(&outcome.cookies),
            ..Self::NONE
        };
        for (to, number) in answer.removed.iter_mut().zip(&outcome.removed) {
            *to = *number;
            answer.removed_count += 1;
        }
        answer
    }
}

#[cfg(all(any(test, feature = "fuzzing"), feature = "vendored"))]
pub(crate) mod model;
#[cfg(test)]
#[cfg(feature = "vendored")]
pub(super) mod tests;
