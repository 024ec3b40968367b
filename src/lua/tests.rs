//! The native functions, driven by a real LuaJIT. What they do inside nginx is proven in tests/nginx.

use super::*;
use crate::token::algorithm::Algorithm;
use crate::token::fixtures;
use std::time::SystemTime;

fn lua_with_native() -> Lua {
    let lua = Lua::new();
    let native = native(&lua).unwrap();
    lua.globals().set("native", native).unwrap();
    lua
}

fn eval<T: mlua::FromLuaMulti>(lua: &Lua, chunk: &str) -> T {
    lua.load(chunk).eval().unwrap_or_else(|error| panic!("{chunk}: {error}"))
}

#[test]
fn outside_nginx_the_module_says_where_it_belongs() {
    let error = module(&Lua::new()).unwrap_err().to_string();
    assert!(error.contains("tenantauth: it runs inside nginx"), "{error}");
}

#[test]
fn embedded_code_compiles_and_every_part_is_embedded() {
    let lua = Lua::new();
    for (name, source) in CHUNKS.into_iter().chain([("init", INIT)]) {
        lua.load(source).set_name(format!("={name}.lua")).into_function().unwrap();
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/tenantauth");
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, CHUNKS.len() + 1);
}

/// A name that the native part does not have would be nil to whoever compares with it.
#[test]
fn the_lua_code_names_only_what_the_native_part_has() {
    let lua = lua_with_native();
    for (_, source) in CHUNKS.into_iter().chain([("init", INIT)]) {
        for rest in source.split("native.").skip(1) {
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let name = rest.get(..end.unwrap_or(rest.len())).unwrap();
            assert!(eval::<bool>(&lua, &format!("return native.{name} ~= nil")), "{name}");
        }
    }
}

#[test]
fn a_panic_is_an_answer() {
    assert_eq!(decide::guarded(|| 7), Some(7));
    assert_eq!(decide::guarded(|| -> u8 { panic!("deliberate, in a test") }), None);
    let request = Request { method: b"GET", request_uri: b"/a?b", peer: b"192.0.2.1", ..Request::default() };
    let (code, record) = crate::engine::undecided(Reason::InternalError, false, BackendSet::ALL, &request);
    assert_eq!(code % 128, Reason::InternalError as i64);
    assert!(record.to_string().contains(r#","decision":"deny","reason":"internal_error""#), "{record}");
}

#[test]
fn small_functions_agree_with_the_core() {
    let lua = lua_with_native();
    assert!(eval::<bool>(&lua, "return native.is_backend('loki')"));
    assert!(!eval::<bool>(&lua, "return native.is_backend('Loki')"));
    assert_eq!(eval::<String>(&lua, "return native.reason_of(0)"), "granted");
    let (status, sentence) = eval::<(u16, String)>(&lua, "return native.denial_of('ip_forbidden')");
    assert_eq!((status, sentence.as_str()), (403, "403 Forbidden: ip not allowed"));
    // `granted` is no denial, and neither is what nobody knows.
    assert_eq!(eval::<(u16, String)>(&lua, "return native.denial_of('granted')").0, 503);
    assert_eq!(eval::<(u16, String)>(&lua, "return native.denial_of('x')").0, 503);
    assert_eq!(eval::<usize>(&lua, "return #native.random_key()"), 32);
    assert!(eval::<bool>(&lua, "return native.is_cookie_name('Client_Ip')"));
    assert!(!eval::<bool>(&lua, "return native.is_cookie_name('a b')"));
    assert!(
        eval::<String>(&lua, "return native.exposition('2 tenantauth_audit_records_total')")
            .contains("tenantauth_audit_records_total 2\n")
    );
}

#[test]
fn stamping_needs_an_address() {
    let lua = lua_with_native();
    let line: String = eval(
        &lua,
        "local stamper = native.stamper('Client_Ip', nil, 300)
         return native.stamp(stamper, 'a=1; client_ip=x\\nb=2', '203.0.113.5')",
    );
    assert_eq!(line, "a=1; b=2; Client_Ip=203.0.113.5");
    let (line, cookies, problem): (Option<String>, Option<String>, String) =
        eval(&lua, "return native.stamp(native.stamper('Client_Ip', nil, 300), 'a=1; Client_Ip=x', 'unix:')");
    assert_eq!((line, cookies.as_deref()), (None, Some("a=1")));
    assert_eq!(problem, "the client has no address");
}

/// The one test that starts the engine, which is one of the process: its whole life in one piece.
#[test]
fn an_engine_decides_for_every_lua_state_of_its_process() {
    let folder = std::env::temp_dir().join(format!("tenantauth-lua-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let policy = folder.join("policy.yaml");
    let rules = fixtures::rules();
    let text = serde_json::json!({
        "version": 1,
        "issuers": [{
            "issuer": rules.issuer, "name": "idp", "audiences": rules.audiences,
            "jwks": {"keys": [fixtures::jwk(Algorithm::Rs256)]},
        }],
        "authorizations": {"group1": ["tenant1"]},
    });
    std::fs::write(&policy, text.to_string()).unwrap();

    let lua = lua_with_native();
    // Before there is an engine everything is denied.
    let ask = "local server = native.server('loki', '', false, '')
         return native.decide(server, { 'x-scope-orgid', 'tenant1', 'x-id-token', token }, 'GET',
             '/loki/api/v1/query', '/loki/api/v1/query', nil, '192.0.2.1', 0)";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = fixtures::with(fixtures::claims(), "groups", ["group1"].as_slice().into());
    let claims =
        ["iat", "nbf"].into_iter().fold(claims, |claims, time| fixtures::with(claims, time, now.into()));
    let token = fixtures::token(Algorithm::Rs256, r#"{"alg":"RS256"}"#, &claims.to_string());
    lua.globals().set("token", token.as_str()).unwrap();
    let code: i64 = eval(&lua, ask);
    assert_eq!(code % 128, Reason::PolicyUnavailable as i64);

    let start = format!("return native.start('{}', 'tenantauth', 0.1, nil, nil, {{}})", policy.display());
    assert_eq!(eval::<(Option<bool>, Option<String>)>(&lua, &start), (Some(true), None));
    assert_eq!(eval::<(Option<bool>, Option<String>)>(&lua, &start), (Some(true), None), "the same again");
    let (other, problem): (Option<bool>, Option<String>) =
        eval(&lua, "return native.start('/elsewhere', 'tenantauth', 2, nil, nil, {})");
    assert_eq!((other, problem.as_deref()), (None, Some("it was called before with other options")));
    for _ in 0..200 {
        if eval::<u8>(&lua, "return native.readiness()") == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    assert_eq!(eval::<i64>(&lua, ask) % 128, Reason::Granted as i64);
    ffi::tests::agrees_with_the_way_by_value(&token);
    for _ in 0..3 {
        let lua = lua_with_native();
        assert_eq!(eval::<String>(&lua, "return native.attach()"), "tenantauth");
        lua.globals().set("token", token.as_str()).unwrap();
        let (code, _, _, record): (i64, u64, usize, String) = eval(&lua, ask);
        assert_eq!(code % 128, Reason::Granted as i64, "{record}");
        assert!(record.contains(r#""tenants":["tenant1"]"#), "{record}");
        drop(lua);
    }
    // A panic is a denial of its request, and the next one is decided as if nothing had been.
    let (code, _, _, record): (i64, u64, usize, String) =
        eval(&lua, &ask.replacen("'/loki/api/v1/query'", "'/panic'", 1));
    assert_eq!(code % 128, Reason::InternalError as i64, "{record}");
    assert_eq!(eval::<i64>(&lua, ask) % 128, Reason::Granted as i64);

    // Called from a coroutine that is collected right away, as nginx does with every request.
    eval::<()>(
        &lua,
        "for _ = 1, 1000 do
             local run = coroutine.wrap(function() return native.revision() end)
             assert(run() == native.revision())
         end
         collectgarbage()",
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
