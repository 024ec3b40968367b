//! The long-term store: real audit lines fit the table's schema, and the queries of `deploy/queries` answer their
//! questions over them in a real SQL engine.

use crate::audit::KEYS;
use crate::checks::query;
use crate::support::client::{Client, Request};
use crate::support::site::{COOKIE_KEY, POLICY, RESTRICTIONS, SIGNED_COOKIE, Site};
use crate::support::tokens::{claims_with, key};
use crate::support::{python, repository};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const SCHEMA: &str = "deploy/bigquery/audit.schema.json";

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap()
}

/// A day of two people, some denials, and what nginx refused itself. Returns the lines.
fn lines_of_a_day() -> String {
    let shadow = "  - { name: tried-out, tenants: [tenant2], networks: [office], mode: shadow }\n";
    let site = Site::builder().policy(&format!("{POLICY}{RESTRICTIONS}{shadow}{SIGNED_COOKIE}")).start();
    let by = |user: &str, groups: &[&str], tenant: &str, address: &str| {
        let changes = json!({"sub": user, "oid": null, "preferred_username": format!("{user}@example.test")});
        let token = key().token(&claims_with(groups, changes));
        Request::get("/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D")
            .tenant(tenant)
            .token(&token)
            .cookie(COOKIE_KEY.pair(address))
    };
    let (office, home) = ("203.0.113.5", "198.18.0.5");
    for _ in 0..3 {
        site.send(by("ada", &["group1"], "tenant1", office).header("X-Dashboard-Uid", "errors"));
    }
    site.send(by("bob", &["group3"], "tenant1|tenant2", office).header("X-Dashboard-Uid", "errors"));
    site.send(by("bob", &["group3"], "tenant2", home).header("X-Dashboard-Uid", "\"'; -- \u{fffd}"));
    site.send(by("ada", &["group1"], "tenant2", office).header("X-Dashboard-Uid", "errors"));
    site.send(by("ada", &["group1"], "tenant1", home));
    site.send(by("ada", &["group1"], "tenant1", home));
    site.send(query(&["nobody"], "..").header("X-Panel-Id", b"\xff\x01\"\\"));
    site.send(by("eve", &["team-a"], "team-a", office).header("X-Rule-Uid", "x".repeat(5000)));
    let mut client = Client::connect(site.port(""));
    client.send(b"GET /loki HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    site.audit(11);
    site.workspace.read("audit.jsonl")
}

/// Writes lines as Fluent Bit does: gzip, in folders by day and hour.
fn archive(directory: &Path, name: &str, lines: &str) {
    let folder = directory.join("dt=2026-11-23/hh=21");
    fs::create_dir_all(&folder).unwrap();
    let file = fs::File::create(folder.join(format!("{name}.jsonl.gz"))).unwrap();
    let mut gzip = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(file).spawn().expect("gzip");
    std::io::Write::write_all(&mut gzip.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(gzip.wait().unwrap().success());
}

fn queries() -> Vec<String> {
    let files = fs::read_dir(repository("deploy/queries")).unwrap();
    let mut files: Vec<_> =
        files.map(|file| format!("deploy/queries/{}", file.unwrap().file_name().display())).collect();
    files.sort();
    files
}

/// These columns of each row, in the order of the rows.
fn table(rows: &Value, columns: &[&str]) -> Vec<Vec<Value>> {
    let row = |row: &Value| columns.iter().map(|column| row.get(column).expect(column).clone()).collect();
    rows.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_queries_answer_their_questions() {
    let lines = lines_of_a_day();
    let workspace = crate::support::workspace::Workspace::new();
    let (early, late) = lines.split_at(lines.match_indices('\n').nth(5).unwrap().0 + 1);
    archive(&workspace.path(""), "one", early);
    archive(&workspace.path(""), "two", late);
    // A shipper that was interrupted delivers again.
    archive(&workspace.path(""), "two-again", late);
    let mut command = Command::new(python());
    command
        .arg(repository("tests/archive.py"))
        .arg(workspace.path(""))
        .arg(repository("deploy/duckdb/audit.sql"));
    let output = command.args(queries().iter().map(|path| repository(path))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();

    let found = table(&answers["readers-of-a-tenant"], &["issuer", "subject", "user", "requests"]);
    let expected = [
        vec![json!("idp"), json!("ada"), json!("ada@example.test"), json!(3)],
        vec![json!("idp"), json!("bob"), json!("bob@example.test"), json!(1)],
    ];
    assert_eq!(found, expected);

    let found =
        table(&answers["denials"], &["subject", "reason", "tenants", "scope", "restriction", "denials"]);
    let expected = [
        json!(["ada", "ip_forbidden", "tenant1", "logs:read", "logs-from-office", 2]),
        json!(["ada", "tenant_forbidden", "tenant2", "logs:read", null, 1]),
        json!([null, "tenant_malformed", null, "logs:read", null, 1]),
    ];
    assert_eq!(json!(found), json!(expected));

    let found =
        table(&answers["dashboards"], &["dashboard", "tenant", "scope", "requests", "people", "denied"]);
    let expected = [
        json!(["errors", "tenant1", "logs:read", 4, 2, 0]),
        json!(["errors", "tenant2", "logs:read", 2, 2, 1]),
        json!(["\"'; -- \u{fffd}", "tenant2", "logs:read", 1, 1, 0]),
    ];
    assert_eq!(json!(found), json!(expected));

    let found = table(&answers["first-use"], &["group_name", "tenant", "first_user"]);
    let expected = [
        json!(["group1", "tenant1", "ada@example.test"]),
        json!(["group3", "tenant1", "bob@example.test"]),
        json!(["group3", "tenant2", "bob@example.test"]),
        json!(["team-a", "team-a", "eve@example.test"]),
    ];
    assert_eq!(json!(found), json!(expected));
    assert_eq!(answers["first-use"][3]["first_grant"], "team-a-writers");

    let found =
        table(&answers["shadow"], &["restriction", "reason", "subject", "client_ip", "tenants", "requests"]);
    assert_eq!(json!(found), json!([["tried-out", "ip_forbidden", "bob", "198.18.0.5", "tenant2", 1]]));

    let found = table(&answers["refused"], &["status", "requests"]);
    assert_eq!(json!(found), json!([[400, 1]]));

    // The day is that of the records' own time.
    let recorded = crate::support::site::records_of(&lines);
    let day = recorded[0]["time"].as_str().unwrap()[..10].to_owned();
    let found = table(&answers["records-per-day"], &["day", "records", "decided"]);
    assert_eq!(found[0][0], day);
    // Of two days, where this runs at midnight.
    let sum = |column: usize| found.iter().map(|row| row[column].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum(1), sum(2)), (11, 10));

    // Each question was asked here.
    let asked =
        ["readers-of-a-tenant", "denials", "dashboards", "first-use", "shadow", "refused", "records-per-day"];
    let files: BTreeSet<String> = queries().into_iter().collect();
    assert_eq!(files, asked.iter().map(|name| format!("deploy/queries/{name}.sql")).collect());

    // Nothing got lost on the way through the types.
    let stored = answers["all"].as_array().unwrap();
    assert_eq!(stored.len(), recorded.len());
    for record in &recorded {
        let row = stored.iter().find(|row| row["request_id"] == record["request_id"]).expect("its row");
        for key in KEYS.iter().filter(|key| !["time", "duration_ms"].contains(key)) {
            assert_eq!(row[key], record[key], "{key}");
        }
        assert_eq!(row["duration_ms"].as_f64(), record["duration_ms"].as_f64());
    }

    // Both stores have the same columns, and no others than the folders.
    let mut columns: BTreeSet<&str> =
        answers["columns"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(columns.remove("dt") && columns.remove("hh"));
    let schema: Value = serde_json::from_str(&text(SCHEMA)).unwrap();
    assert_eq!(
        columns,
        schema.as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect()
    );
}

/// Whether BigQuery takes a value for a field of this type; null is taken for each, since none is required.
fn fits(field: &Value, value: &Value) -> bool {
    match field["type"].as_str().unwrap() {
        _ if value.is_null() => true,
        "STRING" => value.is_string(),
        "TIMESTAMP" => value.as_str().is_some_and(|time| time.len() >= 24 && time.as_bytes()[10] == b'T'),
        "INTEGER" => value.is_i64() || value.is_u64(),
        "FLOAT" => value.is_number(),
        "BOOLEAN" => value.is_boolean(),
        "RECORD" => value.as_object().is_some_and(|object| has_fields(&field["fields"], object)),
        // Declared so because a repeated field may not be null, as the lists are where they are unknown.
        "JSON" => value.is_array(),
        other => panic!("a type that no field needs: {other}"),
    }
}

/// Whether an object has these fields, each of its type, and no others.
fn has_fields(fields: &Value, object: &Map<String, Value>) -> bool {
    let fields = fields.as_array().unwrap();
    let known = |key: &String| fields.iter().any(|field| field["name"] == *key);
    object.keys().all(known)
        && fields.iter().all(|field| {
            let name = field["name"].as_str().unwrap();
            object.get(name).is_some_and(|value| fits(field, value))
        })
}

#[test]
fn the_table_takes_every_record() {
    let schema: Value = serde_json::from_str(&text(SCHEMA)).unwrap();
    let fields = schema.as_array().unwrap();
    let mut names: Vec<&str> = fields.iter().map(|field| field["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, KEYS);
    let inner = fields.iter().filter_map(|field| field["fields"].as_array()).flatten();
    for field in fields.iter().chain(inner) {
        assert_eq!(field["mode"], "NULLABLE", "{field}");
        assert!(field["description"].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let lines = lines_of_a_day();
    for record in crate::support::site::records_of(&lines) {
        assert!(has_fields(&schema, record.as_object().unwrap()), "{record}");
    }
    // Among them are records of all forms: decided or not, with lists and without, cut.
    for form in [
        "\"decision\":null",
        "\"tenants\":null",
        "\"tenants\":[",
        "\"truncated\":[\"grafana.rule\"]",
        "\"shadow\":{",
    ] {
        assert!(lines.contains(form), "{form}");
    }
}
