//! What LuaJIT makes of a request. One that it compiles piecemeal is hardly slower to a user, but it tries again and again,
//! at some milliseconds each, and what becomes of it is a matter of luck.

use crate::checks::{assert_allowed, query};
use crate::support::client::{Client, Request};
use crate::support::site::{MODULE, POLICY, SIGNED_COOKIE, Site};

/// Notes every attempt to compile `enforce` from its beginning, and every loop found hot in what it runs. Tells them as
/// `<compiled> <given up> <loops>`.
const NOTES: &str = r#"
init_worker_by_lua_block {
    require("tenantauth").init_worker { policy = "@DIR@/policy.yaml" }
    compiled, given_up, loops = 0, 0, 0
    local source_of = require("jit.util").funcinfo
    local whole = {}
    jit.attach(function(what, trace, func, pc, parent)
        if what == "start" then
            whole[trace] = not parent and func == require("tenantauth").enforce
            local source = source_of(func).source or ""
            local of_requests = source:find("tenantauth/enforce", 1, true) or source:find("tenantauth/request", 1, true)
            -- A function's beginning is 0.
            if not parent and of_requests and pc > 0 then
                loops = loops + 1
            end
        elseif whole[trace] and what == "stop" then
            compiled = compiled + 1
        elseif whole[trace] and what == "abort" then
            given_up = given_up + 1
        end
    end, "trace")
}
"#;

const SERVER: &str = r#"
location = /notes { content_by_lua_block { ngx.print(compiled, " ", given_up, " ", loops) } }
location / {
    rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
    content_by_lua_block { ngx.print("{}") }
}
"#;

#[test]
fn a_request_is_compiled_as_a_whole_at_the_first_attempt() {
    let (with, _) = MODULE.split_once("init_worker_by_lua_block").unwrap();
    let site = Site::builder()
        .policy(&format!("{POLICY}{SIGNED_COOKIE}"))
        .module(&format!("{with}{NOTES}"))
        .server(SERVER)
        .start();
    // As much as Grafana sends: four headers and the cookies are removed.
    let request = query(&["group1"], "tenant1")
        .header("Authorization", "Bearer opaque")
        .header("X-Grafana-Id", "opaque")
        .header("X-Loki-Response-Encoding-Flags", "categorize-labels")
        .cookie("grafana_session=1")
        .bytes();
    let mut client = Client::connect(site.port(""));
    for _ in 0..900 {
        client.send(&request);
        assert_allowed(&client.answer());
    }
    client.send(&Request::get("/notes").bytes());
    assert_eq!(client.answer().text(), "1 0 0", "compiled, given up, loops");
}
