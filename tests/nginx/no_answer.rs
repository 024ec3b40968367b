//! The engine's entry fails in ways of which it has none: a request without an answer is denied, and the next one is not
//! taken for it.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::support::client::Request;
use crate::support::site::Site;
use crate::support::tokens::token;

/// Takes the entry's place when the module makes a Lua function of its address, and leaves out the answer for the
/// requests that say so. It is known by its type: the one function that takes and returns nothing but pointers.
const INSTEAD: &str = r#"
init_by_lua_block {
    local ffi = require "ffi"
    local cast = ffi.cast
    function ffi.cast(kind, value)
        local made = cast(kind, value)
        if tostring(kind) ~= "ctype<void (*)()>" then
            return made
        end
        ngx.log(ngx.NOTICE, "the entry is replaced")
        return function(request, answer)
            local how = ngx.var.arg_answer
            if how == "nan" then
                made(request, answer)
                answer.code = 0 / 0
            elseif how == "raised" then
                error("deliberate, in a test")
            elseif how ~= "none" then
                made(request, answer)
            end
        end
    end
}
"#;

fn with_answer(how: &str) -> Request {
    let request = Request::get(format!("/loki/api/v1/query?query=1&answer={how}"));
    request.tenant("tenant1").token(&token(&["group1"]))
}

#[test]
fn a_request_without_an_answer_is_denied() {
    let site = Site::builder().http(INSTEAD).start();
    site.expect_errors();
    site.wait_for_log("the entry is replaced");
    let mut requests = 0;
    for how in ["none", "nan", "raised"] {
        // What the last answer says is not what this one says.
        assert_allowed(&site.send(with_answer("good")));
        assert_denied(&site.send(with_answer(how)), "internal_error");
        assert_denied(&site.send(query(&["group1"], "tenant2")), "tenant_forbidden");
        assert_denied(&site.send(with_answer(how)), "internal_error");
        assert_allowed(&site.send(with_answer("good")));
        requests += 5;
    }
    assert_eq!(site.upstream.take().len(), 6, "the allowed ones");
    let reasons: Vec<_> = site.audit(requests).iter().map(|record| record["reason"].clone()).collect();
    for five in reasons.chunks(5) {
        assert_eq!(five, ["granted", "internal_error", "tenant_forbidden", "internal_error", "granted"]);
    }
    assert!(site.log().contains("the decision failed: nan"), "{}", site.log());
    assert!(site.metrics().contains(r#"reason="internal_error""#), "{}", site.metrics());
}
