//! What Grafana and Keycloak of the stack are told: keys that they know, and one story in all files.

use crate::compose::{document, environment, names, stack, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What Grafana reads of a provisioned file, from its source: `pkg/services/provisioning/datasources/types.go`,
/// `pkg/services/provisioning/alerting/{types,rules_types}.go`. An unknown key would be dropped without a word.
const DATA_SOURCE: [&str; 18] = [
    "access",
    "basicAuth",
    "basicAuthUser",
    "correlations",
    "database",
    "editable",
    "isDefault",
    "jsonData",
    "name",
    "orgId",
    "orgName",
    "secureJsonData",
    "type",
    "uid",
    "url",
    "user",
    "version",
    "withCredentials",
];
const GROUP: [&str; 5] = ["folder", "interval", "name", "orgId", "rules"];
const RULE: [&str; 17] = [
    "annotations",
    "condition",
    "dashboardUid",
    "data",
    "execErrState",
    "for",
    "isPaused",
    "keepFiringFor",
    "labels",
    "missing_series_evals_to_resolve",
    "noDataState",
    "notification_settings",
    "panelId",
    "record",
    "title",
    "uid",
    "dasboardUid",
];
const QUERY: [&str; 5] = ["datasourceUid", "model", "queryType", "refId", "relativeTimeRange"];
/// Of `jsonData`: what `httpclientprovider` and the data sources' own settings have of what is used here.
const JSON_DATA: [&str; 5] =
    ["httpHeaderName1", "httpHeaderName2", "keepCookies", "oauthPassThru", "streamingEnabled"];

fn assert_known(value: &Value, known: &[&str], place: &str) {
    for key in names(value) {
        assert!(known.contains(&key), "{place}: Grafana knows no `{key}`");
    }
}

#[test]
fn grafana_knows_every_key_of_what_is_provisioned() {
    let sources = document("grafana/provisioning/datasources/tenantauth.yaml");
    assert_known(&sources, &["apiVersion", "datasources"], "data sources");
    let sources = sources["datasources"].as_array().unwrap();
    let mut uids = BTreeSet::new();
    let stack = stack();
    for source in sources {
        let name = source["name"].as_str().unwrap();
        assert_known(source, &DATA_SOURCE, name);
        assert_known(&source["jsonData"], &JSON_DATA, name);
        assert!(uids.insert(source["uid"].as_str().unwrap()), "{name}");
        let data = &source["jsonData"];
        assert_eq!(data["keepCookies"], json!(["Client_Ip"]), "{name}");
        assert_eq!(data["httpHeaderName1"], "X-Scope-OrgID", "{name}");
        assert_eq!(data["oauthPassThru"] == true, !name.contains("alerting"), "{name}");
        if source["type"] == "tempo" {
            assert_eq!(data["streamingEnabled"], json!({"search": false, "metrics": false}));
        }
        let values = names(&source["secureJsonData"]);
        let headers = names(data).into_iter().filter(|key| key.starts_with("httpHeaderName"));
        let headers: BTreeSet<String> = headers.map(|key| key.replace("Name", "Value")).collect();
        assert_eq!(values, headers.iter().map(String::as_str).collect(), "{name}");
        // The address is a service of the stack.
        let host = source["url"].as_str().unwrap().trim_start_matches("http://").split(':').next().unwrap();
        assert!(names(&stack["services"]["grafana"]["networks"]).contains("gateway"));
        assert!(names(&stack["services"][host]["networks"]).contains("gateway"), "{name}");
    }
    assert_eq!(sources.len(), 8);

    let rules = document("grafana/provisioning/alerting/rules.yaml");
    assert_known(&rules, &["apiVersion", "groups"], "rules");
    for group in rules["groups"].as_array().unwrap() {
        assert_known(group, &GROUP, "the group");
        for rule in group["rules"].as_array().unwrap() {
            assert_known(rule, &RULE, "the rule");
            let data = rule["data"].as_array().unwrap();
            for query in data {
                assert_known(query, &QUERY, "the query");
                assert_known(&query["relativeTimeRange"], &["from", "to"], "the range");
                assert_eq!(query["model"]["refId"], query["refId"]);
                let source = query["datasourceUid"].as_str().unwrap();
                assert!(source == "__expr__" || source == "loki-team-a-alerting", "{source}");
            }
            assert!(data.iter().any(|query| query["refId"] == rule["condition"]));
        }
    }
}

/// What Keycloak reads of a realm, from its own client's types (`@keycloak/keycloak-admin-client` 26.7).
#[test]
fn the_realm_the_policy_and_grafana_speak_of_the_same() {
    let realm: Value = serde_json::from_str(&text("keycloak/realm.json")).unwrap();
    assert_known(&realm, &["realm", "enabled", "sslRequired", "groups", "users", "clients"], "the realm");
    let client = &realm["clients"][0];
    let known = [
        "attributes",
        "clientId",
        "directAccessGrantsEnabled",
        "enabled",
        "name",
        "protocol",
        "protocolMappers",
        "publicClient",
        "redirectUris",
        "standardFlowEnabled",
        "webOrigins",
    ];
    assert_known(client, &known, "the client");
    assert_known(
        &client["protocolMappers"][0],
        &["name", "protocol", "protocolMapper", "config"],
        "the mapper",
    );
    let known =
        ["credentials", "email", "emailVerified", "enabled", "firstName", "groups", "lastName", "username"];
    for user in realm["users"].as_array().unwrap() {
        assert_known(user, &known, "a user");
        assert_known(&user["credentials"][0], &["type", "value", "temporary"], "a password");
    }

    let stack = stack();
    let keycloak = environment(&stack["services"]["keycloak"]);
    let grafana = environment(&stack["services"]["grafana"]);
    let policy = document("policy/policy.yaml");
    let issuer = &policy["issuers"][0];
    let base = format!("{}/realms/{}", keycloak["KC_HOSTNAME"], realm["realm"].as_str().unwrap());
    assert_eq!(issuer["issuer"], base);
    assert_eq!(issuer["audiences"], json!([client["clientId"]]));
    assert_eq!(client["clientId"], grafana["GF_AUTH_GENERIC_OAUTH_CLIENT_ID"]);
    assert_eq!(client["publicClient"], true);
    assert_eq!(grafana["GF_AUTH_GENERIC_OAUTH_USE_PKCE"], "true");
    assert_eq!(grafana["GF_AUTH_GENERIC_OAUTH_AUTH_URL"], format!("{base}/protocol/openid-connect/auth"));
    let inside = format!("http://keycloak:{}/realms/demo/protocol/openid-connect", keycloak["KC_HTTP_PORT"]);
    assert_eq!(grafana["GF_AUTH_GENERIC_OAUTH_TOKEN_URL"], format!("{inside}/token"));
    assert_eq!(grafana["GF_AUTH_GENERIC_OAUTH_API_URL"], format!("{inside}/userinfo"));
    let tls =
        format!("https://keycloak:{}/realms/demo/protocol/openid-connect/certs", keycloak["KC_HTTPS_PORT"]);
    assert_eq!(issuer["jwks_url"], tls);
    let back = format!("{}login/generic_oauth", grafana["GF_SERVER_ROOT_URL"]);
    assert_eq!(client["redirectUris"], json!([back]));
    // Who signs out of Grafana is signed out of Keycloak, and comes back to a page that Keycloak sends people to.
    let out = &grafana["GF_AUTH_GENERIC_OAUTH_SIGNOUT_REDIRECT_URL"];
    let home = client["attributes"]["post.logout.redirect.uris"].as_str().unwrap();
    let encoded = home.replace(':', "%3A").replace('/', "%2F");
    let logout =
        format!("{base}/protocol/openid-connect/logout?client_id=grafana&post_logout_redirect_uri={encoded}");
    assert_eq!(*out, logout);
    let published = stack["services"]["grafana-gateway"]["ports"][0].as_str().unwrap();
    assert!(back.contains(&format!("localhost:{}", published.split(':').nth(1).unwrap())));
    let mapper = &client["protocolMappers"][0]["config"];
    assert_eq!(mapper["claim.name"], issuer.get("groups_claim").cloned().unwrap_or_else(|| json!("groups")));
    assert_eq!((&mapper["full.path"], &mapper["id.token.claim"]), (&json!("false"), &json!("true")));
    let groups: BTreeSet<&str> =
        realm["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(groups, ["sre", "team-a", "team-b"].into());
}
