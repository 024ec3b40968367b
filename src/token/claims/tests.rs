//! Claims of every shape, and where groups may be.

use super::*;
use crate::token::fixtures::{NOW, claims, rules, with};
use serde_json::{Value, json};

fn read(claims: &Value, rules: &IssuerRules) -> Result<Identity, Reason> {
    read_claims(&Claims::parse(claims.to_string().as_bytes()).unwrap(), rules, Origin::Token, NOW)
}

fn refusal(claims: &Value) -> Option<Reason> {
    read(claims, &rules()).err()
}

fn groups_at(path: &str, format: GroupsFormat, claims: &Value) -> Result<Vec<Box<str>>, Reason> {
    groups_in(&[path], format, claims)
}

fn groups_in(paths: &[&str], format: GroupsFormat, claims: &Value) -> Result<Vec<Box<str>>, Reason> {
    let groups_claim = paths.iter().map(|path| ClaimPath::parse(path).unwrap()).collect();
    read(claims, &IssuerRules { groups_claim, groups_format: format, ..rules() })
        .map(|identity| identity.groups)
}

fn boxed(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

#[test]
fn times_are_numbers_within_the_range_of_dates() {
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            json!("1900000000"),
            json!(null),
            json!(true),
            json!([1]),
            json!({}),
            json!(-1),
            json!(-0.5),
            json!(253_402_300_800_u64),
            json!(1e300),
            json!(u64::MAX),
            json!(i64::MIN),
        ] {
            let mut claims = claims();
            claims[name] = bad;
            assert_eq!(refusal(&claims), Some(Reason::TokenMalformed), "{claims}");
        }
    }
    assert_eq!(refusal(&with(claims(), "exp", json!(253_402_300_799_u64))), None);
    assert_eq!(refusal(&with(claims(), "exp", Value::Null)), Some(Reason::TokenMalformed), "exp is required");
    assert_eq!(refusal(&with(with(claims(), "nbf", Value::Null), "iat", Value::Null)), None);
}

#[test]
fn times_have_the_leeway_of_the_issuer() {
    let at = |name: &str, time: Value| refusal(&with(claims(), name, time));
    assert_eq!(at("exp", json!(NOW - 59)), None);
    assert_eq!(at("exp", json!(NOW - 60)), Some(Reason::TokenExpired));
    assert_eq!(at("exp", json!(0)), Some(Reason::TokenExpired));
    assert_eq!(at("nbf", json!(NOW + 60)), None);
    assert_eq!(at("nbf", json!(NOW + 61)), Some(Reason::TokenNotYetValid));
    assert_eq!(at("iat", json!(NOW + 60)), None);
    assert_eq!(at("iat", json!(NOW + 61)), Some(Reason::TokenNotYetValid));
    // Fractions count to the token's disadvantage.
    assert_eq!(at("exp", json!(NOW as f64 - 59.5)), Some(Reason::TokenExpired));
    assert_eq!(at("exp", json!(NOW as f64 - 58.5)), None);
    assert_eq!(at("nbf", json!(NOW as f64 + 60.5)), Some(Reason::TokenNotYetValid));
    let later = with(with(claims(), "nbf", json!(NOW - 50)), "iat", json!(NOW - 20));
    assert_eq!(read(&later, &rules()).unwrap().not_before, Some(NOW - 20));
}

#[test]
fn one_audience_must_be_ours() {
    let at = |aud: Value| refusal(&with(claims(), "aud", aud));
    for good in [json!("grafana"), json!("other"), json!(["x", "grafana"]), json!(["grafana"])] {
        assert_eq!(at(good), None);
    }
    for other in
        [json!("Grafana"), json!("grafana "), json!(""), json!([]), json!(["x"]), json!("other grafana")]
    {
        assert_eq!(at(other.clone()), Some(Reason::TokenAudience), "{other}");
    }
    for bad in
        [json!(1), json!({"grafana": true}), json!(["grafana", 1]), json!([["grafana"]]), json!([null])]
    {
        assert_eq!(at(bad.clone()), Some(Reason::TokenMalformed), "{bad}");
    }
    assert_eq!(at(Value::Null), Some(Reason::TokenAudience), "absent");
    let mut null = claims();
    null["aud"] = Value::Null;
    assert_eq!(refusal(&null), Some(Reason::TokenMalformed));
    let none = IssuerRules { audiences: Vec::new(), ..rules() };
    assert_eq!(read(&claims(), &none), Err(Reason::TokenAudience), "no audience is not every audience");
}

#[test]
fn a_token_speaks_for_somebody() {
    for name in ["sub", "oid"] {
        for bad in
            [json!(1), json!(["a"]), json!({}), json!(""), json!("a\r\nX-Scope-OrgID: b"), json!("a\u{85}")]
        {
            let claims = with(claims(), name, bad);
            assert_eq!(refusal(&claims), Some(Reason::TokenMalformed), "{claims}");
        }
        assert_eq!(refusal(&with(claims(), name, Value::Null)), None, "the other is enough");
    }
    let nobody = with(with(claims(), "sub", Value::Null), "oid", Value::Null);
    assert_eq!(refusal(&nobody), Some(Reason::TokenMalformed));
}

#[test]
fn what_is_only_shown_is_dropped_where_it_cannot_be() {
    for (name, bad) in [
        ("preferred_username", json!(1)),
        ("preferred_username", json!("ada\nadmin")),
        ("preferred_username", json!("")),
        ("preferred_username", Value::Null),
    ] {
        assert_eq!(read(&with(claims(), name, bad), &rules()).unwrap().user, None);
    }
    let id = |claims: &Value| read(claims, &rules()).unwrap().token_id;
    let jti = with(with(claims(), "uti", Value::Null), "jti", json!("j"));
    assert_eq!(id(&jti).as_deref(), Some("j"));
    assert_eq!(id(&with(jti, "jti", json!(1))), None);
    assert_eq!(id(&with(claims(), "jti", json!("j"))).as_deref(), Some("token-1"));
}

#[test]
fn groups_are_where_the_issuer_puts_them() {
    use GroupsFormat::{Comma, Keys, List, Space, String};
    let claims = {
        let mut claims = claims();
        claims["roles"] =
            json!({"admin": {"1": "x"}, "viewer": {}, "old": null, "off": false, "on": true, "l": []});
        claims["memberOf"] = json!("a, b c ,\td,,a,");
        claims["commas"] = json!(" , ");
        claims["cognito:groups"] = json!(["a"]);
        claims["https://example.org/roles"] = json!(["b"]);
        claims["realm_access"] = json!({"roles": ["c", "d"]});
        claims["resource_access"] = json!({"grafana.example": {"roles": ["e"]}, "a/b": {"m~n": ["f"]}});
        claims["nested"] = json!([{"groups": ["g"]}, ["h"]]);
        claims["scope"] = json!(" i  j ");
        claims["one"] = json!("k l");
        claims["realm_access.roles"] = json!(["n"]);
        claims["none"] = json!("  ");
        claims
    };
    for (path, format, expected) in [
        ("groups", List, &["g1", "g2"][..]),
        ("/groups", List, &["g1", "g2"]),
        ("cognito:groups", List, &["a"]),
        ("https://example.org/roles", List, &["b"]),
        ("/https:~1~1example.org~1roles", List, &["b"]),
        ("/realm_access/roles", List, &["c", "d"]),
        ("realm_access.roles", List, &["n"]),
        ("/resource_access/grafana.example/roles", List, &["e"]),
        ("/resource_access/a~1b/m~0n", List, &["f"]),
        ("/nested/0/groups", List, &["g"]),
        ("/nested/1", List, &["h"]),
        ("scope", Space, &["i", "j"]),
        ("none", Space, &[]),
        ("one", String, &["k l"]),
        ("one", List, &["k l"]),
        ("memberOf", Comma, &["a", "b c", "d"]),
        ("memberOf", List, &["a, b c ,\td,,a,"]),
        ("commas", Comma, &[]),
        // In the order of the text, which the fixture sorts.
        ("roles", Keys, &["admin", "l", "on", "viewer"]),
    ] {
        let found = groups_at(path, format, &claims).unwrap();
        assert_eq!(found, boxed(expected), "{path}");
    }
    for path in [
        "Groups",
        "/groups/x",
        "/groups/2",
        "/groups/00",
        "/groups/-",
        "/groups/+0",
        "/realm_access/x",
        "/x/y",
    ] {
        assert_eq!(groups_at(path, List, &claims), Err(Reason::GroupsMissing), "{path}");
    }
}

#[test]
fn groups_of_another_shape_are_malformed() {
    use GroupsFormat::{Comma, Keys, List, Space, String};
    let long = "x".repeat(MAX_GROUP_LEN);
    let many = |separator: &str| {
        (0..=MAX_GROUPS).map(|number| format!("g{number}")).collect::<Vec<_>>().join(separator)
    };
    let object = |count: usize| Value::Object((0..count).map(|n| (format!("g{n}"), json!({}))).collect());
    for (format, groups) in [
        (List, json!("")),
        (List, json!(format!("{long}x"))),
        (List, json!({"g1": true})),
        (List, json!(1)),
        (List, json!(true)),
        (List, json!(["g1", 1])),
        (List, json!(["g1", null])),
        (List, json!([["g1"]])),
        (List, json!([""])),
        (List, json!([format!("{long}x")])),
        (List, json!(vec!["g"; MAX_GROUPS + 1])),
        (Space, json!(["g1"])),
        (Space, json!({"g1": true})),
        (Space, json!(vec!["g"; MAX_GROUPS + 1].join(" "))),
        (Space, json!(many(" "))),
        (Space, json!(1)),
        (Comma, json!(["g1"])),
        (Comma, json!(["g1,g2"])),
        (Comma, json!({"g1": true})),
        (Comma, json!(many(","))),
        (Comma, json!(format!("g1,{long}x"))),
        (Comma, json!(true)),
        (Keys, json!("g1")),
        (Keys, json!(["g1"])),
        (Keys, json!([{"g1": true}])),
        (Keys, json!({"": {}})),
        (Keys, json!({"g1": {}, "g2": 0})),
        (Keys, json!({"g1": 1})),
        (Keys, json!({"g1": "yes"})),
        (Keys, json!({"g1": ""})),
        (Keys, json!({format!("{long}x"): {}})),
        (Keys, object(MAX_GROUPS + 1)),
        (Keys, json!(true)),
        (String, json!(["g1"])),
        (String, json!({"g1": true})),
        (String, json!("")),
    ] {
        let claims = with(claims(), "groups", groups);
        assert_eq!(groups_at("groups", format, &claims), Err(Reason::GroupsMalformed), "{claims}");
    }
    let mut null = claims();
    null["groups"] = Value::Null;
    for format in GroupsFormat::ALL {
        assert_eq!(groups_at("groups", format, &null), Err(Reason::GroupsMissing), "null is absent");
    }
    assert_eq!(
        groups_at("groups", Keys, &with(claims(), "groups", object(MAX_GROUPS))).unwrap().len(),
        MAX_GROUPS
    );
    for groups in [json!([]), json!([long]), json!(vec!["g"; MAX_GROUPS])] {
        let expected = groups.as_array().unwrap().len();
        let found = groups_at("groups", List, &with(claims(), "groups", groups)).unwrap();
        assert_eq!(found.len(), expected);
    }
}

#[test]
fn a_text_is_split_by_its_own_format_alone() {
    use GroupsFormat::{Comma, List, Space, String};
    // Whoever may choose the name of a group must not hold two by it.
    for text in ["x admin", "x,admin", "x, admin", "x\tadmin", "[\"admin\"]", "{\"admin\":true}", "admin;x"] {
        let claims = with(claims(), "groups", json!(text));
        for format in [List, String] {
            assert_eq!(groups_at("groups", format, &claims).unwrap(), boxed(&[text]), "{text}");
        }
        let inside = with(claims.clone(), "groups", json!([text, "y"]));
        assert_eq!(groups_at("groups", List, &inside).unwrap(), boxed(&[text, "y"]), "{text}");
    }
    let of =
        |format, text: &str| groups_at("groups", format, &with(claims(), "groups", json!(text))).unwrap();
    assert_eq!(of(Space, "x,admin y"), boxed(&["x,admin", "y"]));
    assert_eq!(of(Comma, "x admin,y"), boxed(&["x admin", "y"]));
    // Only ASCII blanks are taken off or separate.
    assert_eq!(of(Comma, "\u{a0}admin,\u{3000}y"), boxed(&["\u{a0}admin", "\u{3000}y"]));
    assert_eq!(of(Space, "x\u{a0}admin"), boxed(&["x\u{a0}admin"]));
    // Another comma than ASCII's separates nothing.
    assert_eq!(of(Comma, "x\u{ff0c}admin"), boxed(&["x\u{ff0c}admin"]));
}

#[test]
fn the_keys_of_an_object_are_its_own() {
    use GroupsFormat::Keys;
    let of = |groups: Value| groups_at("groups", Keys, &with(claims(), "groups", groups));
    let zitadel =
        json!({"viewer": {"1": "acme.example", "admin": "x"}, "editor": {"admin": {"admin": true}}});
    assert_eq!(of(zitadel), Ok(boxed(&["editor", "viewer"])), "what lies below a key is none");
    assert_eq!(of(json!({"admin": false, "root": null, "viewer": true})), Ok(boxed(&["viewer"])));
    assert_eq!(of(json!({"admin,viewer": {}, "a b": {}})), Ok(boxed(&["a b", "admin,viewer"])));
    assert_eq!(of(json!({})), Ok(Vec::new()));
    for twice in [
        r#"{"sub":"s","exp":1900000000,"aud":"grafana","groups":{"viewer":{},"viewer":{}}}"#,
        r#"{"sub":"s","exp":1900000000,"aud":"grafana","groups":{"admin":false,"\u0061dmin":true}}"#,
        r#"{"sub":"s","exp":1900000000,"aud":"grafana","groups":{"viewer":{"1":"a","1":"b"}}}"#,
    ] {
        assert_eq!(Claims::parse(twice.as_bytes()).err(), Some(Reason::TokenMalformed), "{twice}");
    }
}

#[test]
fn groups_of_several_claims_are_united() {
    use GroupsFormat::{Comma, Keys, List};
    let claims = {
        let mut claims = claims();
        claims["roles"] = json!(["r", "g1", "r"]);
        claims["one"] = json!("o");
        claims["nothing"] = json!([]);
        claims["absent"] = Value::Null;
        claims["number"] = json!(5);
        claims["objects"] = json!([{}]);
        claims["a"] = json!({"x": {}, "y": {}});
        claims["b"] = json!({"y": true, "z": true});
        claims["c"] = json!("x,y");
        claims["many"] = (0..MAX_GROUPS).map(|number| format!("m{number}")).collect();
        claims
    };
    for (paths, format, expected) in [
        (&["groups", "roles"][..], List, &["g1", "g2", "r"][..]),
        (&["roles", "groups", "one"], List, &["r", "g1", "g2", "o"]),
        (&["nothing", "one"], List, &["o"]),
        (&["nothing", "absent", "nowhere", "/x/y"], List, &[]),
        (&["absent", "groups"], List, &["g1", "g2"]),
        (&["a", "nowhere", "b"], Keys, &["x", "y", "z"]),
        (&["c", "one"], Comma, &["x", "y", "o"]),
    ] {
        assert_eq!(groups_in(paths, format, &claims), Ok(boxed(expected)), "{paths:?}");
    }
    for (paths, format, reason) in [
        (&["absent", "nowhere"][..], List, Reason::GroupsMissing),
        // What one claim lacks in form, the others do not make good.
        (&["groups", "number"], List, Reason::GroupsMalformed),
        (&["number", "groups"], List, Reason::GroupsMalformed),
        (&["groups", "objects"], List, Reason::GroupsMalformed),
        (&["groups", "a"], List, Reason::GroupsMalformed),
        (&["a", "groups"], Keys, Reason::GroupsMalformed),
        // The bound is that of one token.
        (&["many", "groups"], List, Reason::GroupsMalformed),
        (&["groups", "many"], List, Reason::GroupsMalformed),
    ] {
        assert_eq!(groups_in(paths, format, &claims), Err(reason), "{paths:?}");
    }
    // One of the claims is elsewhere: the groups that are here are not all.
    let elsewhere = with(claims.clone(), "_claim_names", json!({"wids": "src1"}));
    assert_eq!(groups_in(&["groups", "wids"], List, &elsewhere), Err(Reason::GroupsOverage));
    assert_eq!(groups_in(&["wids", "number"], List, &elsewhere), Err(Reason::GroupsOverage));
    assert!(groups_in(&["groups", "roles"], List, &elsewhere).is_ok());
    let hinted = with(with(claims, "groups", Value::Null), "hasgroups", json!(true));
    assert_eq!(groups_in(&["groups", "roles"], List, &hinted), Err(Reason::GroupsOverage));
}

#[test]
fn groups_that_are_elsewhere_are_an_overage_and_not_none() {
    let without = with(claims(), "groups", Value::Null);
    assert_eq!(refusal(&without), Some(Reason::GroupsMissing));
    let sources = json!({"src1": {"endpoint": "https://graph.example/users/1/getMemberObjects"}});
    let with_names = |claims: Value, names: Value| {
        with(with(claims, "_claim_names", names), "_claim_sources", sources.clone())
    };

    let distributed = with_names(without.clone(), json!({"groups": "src1"}));
    for format in GroupsFormat::ALL {
        let object = with(distributed.clone(), "groups", json!({"src1": {}}));
        assert_eq!(groups_at("groups", format, &object), Err(Reason::GroupsOverage), "src1 is no group");
        let hinted = with(without.clone(), "hasgroups", json!(true));
        assert_eq!(groups_at("groups", format, &hinted), Err(Reason::GroupsOverage));
        assert_eq!(groups_at("groups", format, &distributed), Err(Reason::GroupsOverage));
        assert_eq!(groups_at("/groups", format, &distributed), Err(Reason::GroupsOverage));
        let named = with(distributed.clone(), "groups", json!("src1"));
        assert_eq!(groups_at("groups", format, &named), Err(Reason::GroupsOverage), "src1 is no group");
    }
    for hint in [json!(true), json!("true")] {
        assert_eq!(refusal(&with(without.clone(), "hasgroups", hint)), Some(Reason::GroupsOverage));
    }
    for (name, value) in [
        ("hasgroups", json!(false)),
        ("hasgroups", json!("no")),
        ("_claim_names", json!({"roles": "src1"})),
        ("_claim_names", json!("groups")),
        ("_claim_names", json!(["groups"])),
    ] {
        assert_eq!(refusal(&with(without.clone(), name, value)), Some(Reason::GroupsMissing));
    }
    // Another claim that is elsewhere says nothing about a list that is here.
    assert_eq!(refusal(&with_names(claims(), json!({"roles": "src1"}))), None);
}

#[test]
fn claim_paths_are_names_or_pointers() {
    for good in ["groups", "a.b", "a/b", "https://x/y", " ", "~", "/a", "/a/b", "/~0~1", "/a~01"] {
        assert!(ClaimPath::parse(good).is_ok(), "{good}");
    }
    assert_eq!(ClaimPath::parse("/a~01"), Ok(ClaimPath::Pointer(Box::new(["a~1".into()]))));
    for bad in ["", "/", "//a", "/a/", "/a//b"] {
        assert_eq!(ClaimPath::parse(bad), Err(InvalidClaimPath::Empty), "{bad}");
    }
    for bad in ["/~", "/a~2", "/a~", "/~~0", "/a/b~x"] {
        assert_eq!(ClaimPath::parse(bad), Err(InvalidClaimPath::Escape), "{bad}");
    }
    for name in ["list", "space", "comma", "keys", "string"] {
        assert_eq!(GroupsFormat::from_name(name).map(GroupsFormat::name), Some(name));
    }
    for bad in ["", "List", "commas", "object"] {
        assert_eq!(GroupsFormat::from_name(bad), None, "{bad}");
    }
}

#[test]
fn a_sample_may_leave_out_what_a_token_must_have() {
    let read = |claims: &Value| {
        read_claims(&Claims::parse(claims.to_string().as_bytes()).unwrap(), &rules(), Origin::Sample, NOW)
    };
    let identity = read(&json!({"groups": ["g1"]})).unwrap();
    assert_eq!((identity.subject, identity.object_id, identity.expires), (None, None, u64::MAX));
    assert_eq!(identity.groups, ["g1".into()]);
    for (claims, expected) in [
        (json!({}), Reason::GroupsMissing),
        (json!({"groups": 1}), Reason::GroupsMalformed),
        (json!({"groups": [], "exp": 1}), Reason::TokenExpired),
        (json!({"groups": [], "aud": "x"}), Reason::TokenAudience),
        (json!({"groups": [], "sub": 1}), Reason::TokenMalformed),
    ] {
        assert_eq!(read(&claims), Err(expected), "{claims}");
    }
}

#[test]
fn the_claimed_issuer_is_a_string() {
    let issuer =
        |text: &str| Claims::parse(text.as_bytes()).unwrap().issuer().map(|iss| iss.map(str::to_owned));
    assert_eq!(issuer(r#"{"iss":"a"}"#), Ok(Some("a".to_owned())));
    assert_eq!(issuer("{}"), Ok(None));
    assert_eq!(issuer(r#"{"iss":["a"]}"#), Err(Reason::TokenMalformed));
    assert_eq!(Claims::parse(b"[]").err(), Some(Reason::TokenMalformed));
}

#[test]
fn the_tenant_in_the_issuer_is_that_of_the_token() {
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let of = |issuer: &str, tid: Value| {
        let rules = IssuerRules { issuer: issuer.replace("TENANT", TENANT).into(), ..rules() };
        read(&with(claims(), "tid", tid), &rules).err()
    };
    for issuer in [
        "https://login.microsoftonline.com/TENANT/v2.0",
        "https://sts.windows.net/TENANT/",
        "https://contoso.b2clogin.com/tfp/TENANT/b2c_1_signin/v2.0/",
        "https://login.microsoftonline.us/TENANT/v2.0",
    ] {
        assert_eq!(of(issuer, json!(TENANT)), None, "{issuer}");
        assert_eq!(of(issuer, Value::Null), None, "{issuer}: a token without `tid`");
        for wrong in [json!(OTHER), json!(""), json!(5), json!([TENANT]), json!(format!("{TENANT} "))] {
            assert_eq!(of(issuer, wrong.clone()), Some(Reason::TokenIssuer), "{issuer}: {wrong}");
        }
    }
    let lettered = "https://sts.windows.net/9188040D-6c67-4c5b-b112-36a304b66dad/";
    assert_eq!(of(lettered, json!(OTHER)), None, "the same id in another case");
    // Issuers that name no tenant: what their `tid` means is theirs.
    for issuer in [
        "https://sso.example/realms/main",
        "https://11111111-2222-3333-4444-555555555555",
        "https://sso.example/11111111-2222-3333-4444-55555555555",
        "https://sso.example/11111111-2222-3333-4444-5555555555555",
        "https://sso.example/111111112222-3333-4444-5555-55555555",
        "https://sso.example/1111111g-2222-3333-4444-555555555555",
        "urn:example:TENANT",
    ] {
        assert_eq!(of(issuer, json!("acme")), None, "{issuer}");
    }
}
