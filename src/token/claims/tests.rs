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
    let rules =
        IssuerRules { groups_claim: ClaimPath::parse(path).unwrap(), groups_format: format, ..rules() };
    read(claims, &rules).map(|identity| identity.groups)
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
    use GroupsFormat::{List, Space, String};
    let claims = {
        let mut claims = claims();
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
    ] {
        let found = groups_at(path, format, &claims).unwrap();
        assert_eq!(found, expected.iter().map(|name| Box::from(*name)).collect::<Vec<_>>(), "{path}");
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
    use GroupsFormat::{List, Space, String};
    let long = "x".repeat(MAX_GROUP_LEN);
    for (format, groups) in [
        (List, json!("g1")),
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
        (Space, json!(vec!["g"; MAX_GROUPS + 1].join(" "))),
        (String, json!(["g1"])),
        (String, json!("")),
    ] {
        let claims = with(claims(), "groups", groups);
        assert_eq!(groups_at("groups", format, &claims), Err(Reason::GroupsMalformed), "{claims}");
    }
    let mut null = claims();
    null["groups"] = Value::Null;
    assert_eq!(refusal(&null), Some(Reason::GroupsMalformed));
    for groups in [json!([]), json!([long]), json!(vec!["g"; MAX_GROUPS])] {
        let expected = groups.as_array().unwrap().len();
        let found = groups_at("groups", List, &with(claims(), "groups", groups)).unwrap();
        assert_eq!(found.len(), expected);
    }
}

#[test]
fn groups_that_are_elsewhere_are_an_overage_and_not_none() {
    use GroupsFormat::{List, Space, String};
    let without = with(claims(), "groups", Value::Null);
    assert_eq!(refusal(&without), Some(Reason::GroupsMissing));
    let sources = json!({"src1": {"endpoint": "https://graph.example/users/1/getMemberObjects"}});
    let with_names = |claims: Value, names: Value| {
        with(with(claims, "_claim_names", names), "_claim_sources", sources.clone())
    };

    let distributed = with_names(without.clone(), json!({"groups": "src1"}));
    for format in [List, Space, String] {
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
    for name in ["list", "space", "string"] {
        assert!(GroupsFormat::from_name(name).is_some());
    }
    for bad in ["", "List", "comma"] {
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
        (json!({"groups": "g1"}), Reason::GroupsMalformed),
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
