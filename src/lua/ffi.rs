//! The entry that Lua calls for every request, through LuaJIT's FFI: pointers into nginx's own memory come in, and
//! pointers into memory of ours go out.
//!
//! The only unsafe code of tenantauth, earned by measurement: through mlua every text is first made a Lua string, which
//! alone costs more than the decision (a token has 3 kB, and LuaJIT hashes records of one shape to the same chain).
//! `native.decide` (`by_value`, built for tests alone) does the same through mlua and is what they hold this entry
//! against.
//!
//! What is relied upon, by `lua/tenantauth/request.lua`, which declares the same structures:
//!
//! - It is called on the thread that runs nginx's event loop and Lua, and by no other.
//! - Every text it gives lies in memory of the request, of Lua or of nginx's configuration, and stays as it is during
//!   the call: the call does not yield, and nothing else runs on that thread meanwhile.
//! - The answer is initialised memory, apart from the request and everything that the request points to.
//! - It reads the answer before it calls again, and keeps no pointer from it.
#![allow(unsafe_code, reason = "the one file of design law 6 that may; each block says why it is sound")]

use super::decide::{self, decide, guarded};
use crate::engine;
use std::cell::RefCell;
use std::ffi::c_uint;
use std::mem::offset_of;
use std::ptr::{self, NonNull};

/// As many header lines as nginx's Lua interface shows by default. More is a denial: padding could hide a header from
/// us that still goes upstream.
const MAX_HEADERS: usize = 100;

/// What Lua holds its declarations against, by the names under which it finds it.
pub(super) const LAYOUT: [(&str, usize); 5] = [
    ("max_headers", MAX_HEADERS),
    ("header_size", size_of::<Header>()),
    ("request_size", size_of::<Request>()),
    ("answer_size", size_of::<Answer>()),
    ("removed_offset", offset_of!(Answer, removed)),
];

/// A text. A null pointer is none at all.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Text {
    data: *const u8,
    length: usize,
}

/// `ngx_http_lua_ffi_str_t` of lua-nginx-module's `ngx_http_lua_util.h`. The length is an `int` there: what would be
/// negative is more than `i32::MAX` here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct NginxText {
    length: c_uint,
    data: *const u8,
}

/// `ngx_http_lua_ffi_table_elt_t`, likewise: a header line, its name in lower case.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Header {
    name: NginxText,
    value: NginxText,
}

/// What Lua fills in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Request {
    server: u32,
    /// Negative where nginx's Lua interface did not show all.
    headers_count: i32,
    headers: *const Header,
    method: Text,
    request_uri: Text,
    uri: Text,
    remote_addr: Text,
    peer: Text,
    /// What an `Upgrade` header can be here, as a number.
    upgradable: u32,
}

/// What Lua reads. Its numbers are doubles, as Lua's are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Answer {
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
    static ANSWER: RefCell<decide::Answer> = RefCell::default();
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
    /// Whether there is what the length says. Without a branch, as it is asked for every text of every line.
    fn is_whole(self) -> bool {
        (self.length <= i32::MAX.unsigned_abs()) & ((self.length == 0) | !self.data.is_null())
    }

    /// # Safety
    /// It [is whole](Self::is_whole), and that many bytes behind the pointer may be read and do not change during `'a`.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        let data = NonNull::new(self.data.cast_mut()).unwrap_or(NonNull::dangling());
        // SAFETY: where it is null there are no bytes, since it is whole; and otherwise the caller's promise.
        unsafe { std::slice::from_raw_parts(data.as_ptr(), usize::try_from(self.length).unwrap_or_default()) }
    }
}

/// The address of [`enforce`], for Lua to call. Exact as a double: addresses have at most 52 bits.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(super) fn address() -> f64 {
    (enforce as *const ()).addr() as f64
}

/// What a request says, read where its pointers lead, and its header lines; `None` where not all are there.
///
/// # Safety
/// Every pointer of the request is null, or good for reading what its length says during `'a`, as the head of this file
/// says.
unsafe fn read<'a>(
    request: &'a Request,
) -> (engine::Request<'a>, Option<impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a>>) {
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
    let are_whole = |lines: std::slice::Iter<'_, Header>| {
        lines.fold(true, |all, line| all & line.name.is_whole() & line.value.is_whole())
    };
    let headers = headers.filter(|lines| are_whole(lines.clone()));
    let lines = headers.map(|lines| {
        lines.map(|line| {
            // SAFETY: name and value of a header line are the request's memory, and whole by the check.
            unsafe { (line.name.bytes(), line.value.bytes()) }
        })
    });
    let read = engine::Request {
        method: text(request.method).unwrap_or_default(),
        request_uri: text(request.request_uri).unwrap_or_default(),
        uri: text(request.uri).unwrap_or_default(),
        remote_addr: text(request.remote_addr),
        peer: text(request.peer).unwrap_or_default(),
        upgradable: engine::Upgradable::from_number(request.upgradable),
    };
    (read, lines)
}

/// Decides one request.
///
/// # Safety
/// `request` points to a [`Request`] whose pointers are good for the call, as the head of this file says, and `answer`
/// to an [`Answer`], whatever it holds, that nobody else uses during the call.
unsafe extern "C" fn enforce(request: *const Request, answer: *mut Answer) {
    // SAFETY: the caller's promise: aligned, filled in, and unchanged during the call.
    let request = unsafe { &*request };
    // SAFETY: the caller's promise for the pointers in it.
    let (read, lines) = unsafe { read(request) };
    let server = usize::try_from(request.server).unwrap_or(usize::MAX);
    // SAFETY: the caller's promise: aligned, of any content, and nobody else's during the call.
    let answer = unsafe { &mut *answer };
    // `decide` answers for panics of a decision. One outside of it must not reach C either: what Lua then finds is no
    // code of a decision, and it denies.
    answer.code = f64::NAN;
    let answered = guarded(|| {
        ANSWER.with_borrow_mut(|owned| {
            decide(server, &read, lines, owned);
            answer.set(owned);
        });
    });
    if answered.is_none() {
        answer.code = f64::NAN;
    }
}

impl Answer {
    #[expect(
        clippy::cast_precision_loss,
        reason = "codes are below 2^47, and no decision takes 2^53 nanoseconds"
    )]
    fn set(&mut self, owned: &decide::Answer) {
        self.code = owned.code as f64;
        self.nanoseconds = owned.nanoseconds as f64;
        self.bucket = u32::try_from(owned.bucket).unwrap_or_default();
        self.cookies_to = owned.cookies_to as u32;
        self.record = Text::of(owned.record.as_bytes());
        self.tenants = owned.tenants.as_ref().map_or(Text::NONE, |tenants| Text::of(tenants.as_bytes()));
        self.cookies = Text::of(&owned.cookies);
        let count = owned.removed.len().min(MAX_HEADERS);
        self.removed_count = u32::try_from(count).unwrap_or_default();
        self.removed.iter_mut().zip(&owned.removed).for_each(|(to, number)| *to = *number);
    }
}

#[cfg(all(any(test, feature = "fuzzing"), feature = "vendored"))]
pub(crate) mod model;
#[cfg(test)]
#[cfg(feature = "vendored")]
pub(super) mod tests;
