//! The entry by pointer against the way by value.

use super::*;
use crate::engine::Server;
use crate::lua::by_value::decide_by_value;
use crate::lua::decide::number_of;
use crate::scope::{Backend, BackendSet};
use mlua::BString;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::mem::{align_of, size_of, zeroed};

#[test]
fn structures_are_laid_out_as_lua_declares_them() {
    assert_eq!((size_of::<Text>(), offset_of!(Text, length)), (16, 8));
    assert_eq!((size_of::<NginxText>(), offset_of!(NginxText, data)), (16, 8));
    assert_eq!((size_of::<Header>(), offset_of!(Header, value)), (32, 16));
    assert_eq!((size_of::<Request>(), align_of::<Request>()), (104, 8));
    assert_eq!(
        [offset_of!(Request, server), offset_of!(Request, headers_count), offset_of!(Request, headers)],
        [0, 4, 8]
    );
    assert_eq!([offset_of!(Request, method), offset_of!(Request, peer)], [16, 80]);
    assert_eq!(offset_of!(Request, upgradable), 96);
    assert_eq!([offset_of!(Answer, bucket), offset_of!(Answer, cookies_to)], [16, 20]);
    assert_eq!(
        [offset_of!(Answer, record), offset_of!(Answer, tenants), offset_of!(Answer, cookies)],
        [24, 40, 56]
    );
    assert_eq!([offset_of!(Answer, removed_count), offset_of!(Answer, removed)], [72, 76]);
}

/// What one request says, by value.
#[derive(Clone, Debug)]
struct Said {
    server: usize,
    /// `None` where they were truncated.
    headers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    method: Vec<u8>,
    request_uri: Vec<u8>,
    uri: Vec<u8>,
    remote_addr: Option<Vec<u8>>,
    peer: Vec<u8>,
    upgradable: u32,
}

fn nginx_text(bytes: &[u8]) -> NginxText {
    NginxText { length: c_uint::try_from(bytes.len()).unwrap(), data: bytes.as_ptr() }
}

/// The answer by pointer, as [`decide_by_value`] gives it; times are left out.
fn by_pointer(said: &Said) -> (f64, Vec<u8>, Option<Vec<u8>>, u32, Vec<u8>, Vec<u16>) {
    // Memory of its own for each text, exactly as long as the text: a sanitizer sees a byte too many.
    let lines: Vec<Header> = said
        .headers
        .iter()
        .flatten()
        .map(|(name, value)| Header { name: nginx_text(name), value: nginx_text(value) })
        .collect();
    let request = Request {
        server: u32::try_from(said.server).unwrap(),
        headers_count: said.headers.as_ref().map_or(-1, |_| i32::try_from(lines.len()).unwrap()),
        headers: lines.as_ptr(),
        method: Text::of(&said.method),
        request_uri: Text::of(&said.request_uri),
        uri: Text::of(&said.uri),
        remote_addr: said.remote_addr.as_ref().map_or(Text::NONE, |address| Text::of(address)),
        peer: Text::of(&said.peer),
        upgradable: said.upgradable,
    };
    // SAFETY: all zeros are an answer; so LuaJIT makes it.
    let mut answer: Answer = unsafe { zeroed() };
    // SAFETY: everything it points to lives until the end of this function.
    unsafe { enforce(&raw const request, &raw mut answer) };
    // SAFETY: the texts of an answer are good until the next call.
    let bytes = |text: Text| unsafe { text.bytes() }.map(<[u8]>::to_vec);
    let count = usize::try_from(answer.removed_count).unwrap();
    (
        answer.code,
        bytes(answer.record).unwrap(),
        bytes(answer.tenants),
        answer.cookies_to,
        bytes(answer.cookies).unwrap(),
        answer.removed[..count].to_vec(),
    )
}

/// To be called while an engine decides by a policy under which this token is granted `tenant1`.
pub(in crate::lua) fn agrees_with_the_way_by_value(token: &str) {
    let number = number_of(Server {
        backends: BackendSet::of(Backend::Loki),
        path_prefix: String::new(),
        client_is_remote_addr: false,
        forward_headers: vec![b"x-query-tags".as_slice().into()],
    });
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let name = prop_oneof![
        4 => proptest::sample::select(vec![
            "x-scope-orgid", "x-id-token", "cookie", "authorization", "x-loki-a", "x-query-tags", "upgrade",
            "connection", "x-panel-id", "x-grafana-user", "",
        ])
        .prop_map(|name| name.as_bytes().to_vec()),
        1 => bytes(),
    ];
    let value = prop_oneof![
        3 => Just(token.as_bytes().to_vec()),
        4 => Just(b"tenant1".to_vec()),
        1 => Just(b"tenant2|tenant1".to_vec()),
        1 => Just(b"a=b; Client_Ip=192.0.2.1; c=d".to_vec()),
        3 => bytes(),
    ];
    let path = prop_oneof![
        3 => Just(b"/loki/api/v1/query".to_vec()),
        1 => Just(b"/loki/api/v1/push".to_vec()),
        1 => bytes(),
    ];
    let good = vec![
        (b"x-scope-orgid".to_vec(), b"tenant1".to_vec()),
        (b"x-id-token".to_vec(), token.as_bytes().to_vec()),
    ];
    let lines = proptest::collection::vec((name, value), 0..8).prop_flat_map(move |more| {
        let more = [good.clone(), more].concat();
        proptest::option::weighted(0.95, Just(more))
    });
    let said = (lines, bytes(), path, proptest::option::of(bytes()), any::<bool>()).prop_map(
        move |(headers, other, path, remote_addr, known)| Said {
            server: if known { number } else { number + 1000 },
            headers,
            method: if other.len() % 4 == 0 { other.clone() } else { b"GET".to_vec() },
            request_uri: [path.as_slice(), b"?", &other].concat(),
            uri: path,
            remote_addr,
            upgradable: u32::try_from(other.len() % 5).unwrap(),
            peer: other,
        },
    );
    let granted = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(2000));
    let outcome = runner.run(&said, |said| {
        let headers = said.headers.clone().map(|lines| {
            lines.into_iter().flat_map(|(name, value)| [BString::from(name), value.into()]).collect()
        });
        let (code, _, _, record, tenants, cookies_to, cookies, removed) = decide_by_value(&(
            said.server,
            headers,
            said.method.clone().into(),
            said.request_uri.clone().into(),
            said.uri.clone().into(),
            said.remote_addr.clone().map(Into::into),
            said.peer.clone().into(),
            said.upgradable,
        ));
        let (other_code, other_record, other_tenants, other_to, other_cookies, other_removed) =
            by_pointer(&said);
        // Each carries the clock's time of its moment. There is none where something has to be done before.
        let timeless = |record: &[u8]| {
            let text = String::from_utf8(record.to_vec()).unwrap();
            text.split_once(',').map_or_else(String::new, |(_, rest)| rest.to_owned())
        };
        prop_assert_eq!(code as f64, other_code);
        prop_assert_eq!(timeless(&record), timeless(&other_record));
        prop_assert_eq!(tenants.map(String::into_bytes), other_tenants);
        prop_assert_eq!(u32::from(cookies_to), other_to);
        prop_assert_eq!(cookies.to_vec(), other_cookies);
        prop_assert_eq!(removed, other_removed);
        if code % 128 == 0 {
            granted.set(granted.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(granted.get() > 50, "only {} of these requests were granted", granted.get());
}
