//! What the README and `docs/` show works: policies compile, nginx takes the configurations, links lead somewhere, and
//! tables hold what the code has.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "everything here is a test"
)]

#[path = "docs/providers.rs"]
mod providers;
#[path = "docs/readmes.rs"]
mod readmes;
#[cfg(feature = "module")]
#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tenantauth::file::FileError;
use tenantauth::policy::diagnostic::WarningKind;
use tenantauth::policy::{self, Files, OwnerState, OwnerText};
use tenantauth::reason::Reason;

/// When the policies are compiled: 2026-09-21. Nothing in them has run out by then.
const NOW: u64 = 1_790_000_000;

/// The public key of RFC 7515 appendix A.2.
const JWKS: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
/// A keys file, of a secret that is no secret.
const COOKIE_KEYS: &str = "docs:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

/// The files that a policy names, whatever their directory.
struct AnyFile;

impl Files for AnyFile {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(JWKS.into()),
            Some("keys") => Ok(COOKIE_KEYS.into()),
            Some("pem") => {
                let made = rcgen::generate_simple_self_signed(["ca.example.com".to_owned()]).unwrap();
                Ok(made.cert.pem().into_bytes())
            }
            _ => panic!("`{}` is neither a JWKS nor a keys file nor a certificate", path.display()),
        }
    }

    /// Owners with a document that says nothing.
    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let file = format!("owners.d/{name}.yaml");
        Some(OwnerText { file, current: Ok(b"{}\n".to_vec()), last_good: None, is_unsettled: false })
    }
}

/// The same, and an owner with a document of its own.
struct WithOwner<'d> {
    owner: &'d str,
    document: &'d str,
}

impl Files for WithOwner<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        AnyFile.read(path)
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let text = AnyFile.owner(name)?;
        let own = name == self.owner;
        Some(if own { OwnerText { current: Ok(self.document.into()), ..text } } else { text })
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Path and text of every page.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    let others = [
        "README.md",
        "README.ja.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "deploy/compose/README.md",
        "deploy/helm/tenantauth/README.md",
    ]
    .map(repository);
    let pages = docs.chain(others);
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// A fenced block: where it begins, and what it holds.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (path, page) in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(page.lines()) {
            match (&mut open, line.strip_prefix("```")) {
                (None, None) => {}
                (None, Some(language)) => {
                    let place = format!("{}:{number}", path.display());
                    open = Some(Block { place, language: language.to_owned(), text: String::new() });
                }
                (Some(block), None) => block.text += &format!("{line}\n"),
                (Some(_), Some(_)) => blocks.extend(open.take()),
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", path.display());
    }
    blocks
}

/// The blocks of one language.
fn blocks_of(language: &str) -> impl Iterator<Item = Block> {
    blocks().into_iter().filter(move |block| block.language == language)
}

#[test]
fn every_block_is_of_a_kind_that_is_checked_or_needs_no_check() {
    for block in blocks() {
        let known = ["alloy", "ini", "json", "mermaid", "nginx", "sh", "sql", "text", "yaml"];
        let known = known.contains(&block.language.as_str());
        assert!(known, "{}: `{}`", block.place, block.language);
    }
}

#[test]
fn every_policy_compiles() {
    let mut policies = 0;
    for block in blocks_of("yaml") {
        // Those of the guide are parts of policies.
        if block.place.contains("/policy.md:") || is_owners(&block) {
            continue;
        }
        // What is provisioned into Grafana is no policy, nor is a file that is shown.
        if block.text.starts_with("apiVersion: 1\n") || shown().contains(&block.text) {
            continue;
        }
        // Values of the chart are rendered by helm, in tests/deploy.
        if block.text.starts_with("# values.yaml of the chart\n") {
            continue;
        }
        assert!(block.text.starts_with("version: 1\n"), "{}: neither a policy nor Grafana's", block.place);
        let outcome = policy::compile(&block.place, block.text.as_bytes(), &mut AnyFile, NOW);
        assert!(outcome.compiled.is_some(), "{}: {:#?}", block.place, outcome.diagnostics);
        let warned = !outcome.diagnostics.is_empty();
        let warns = ["unsigned: true", "mode: shadow"].iter().any(|what| block.text.contains(what));
        assert_eq!(warned, warns, "{:#?}", outcome.diagnostics);
        policies += 1;
    }
    assert!(policies >= 3);
}

/// Whether it is the document of an owner: those stand in one page, and name no issuer.
fn is_owners(block: &Block) -> bool {
    block.place.contains("/owners.md:") && !block.text.contains("issuers:")
}

/// The page about owners: its platform's document, and those of its owner with what is said about each.
fn page_of_owners() -> (String, Vec<(String, String)>) {
    let page: Vec<Block> = blocks().into_iter().filter(|block| block.place.contains("/owners.md:")).collect();
    let platforms: Vec<&Block> =
        page.iter().filter(|block| block.language == "yaml" && !is_owners(block)).collect();
    assert_eq!(platforms.len(), 1);
    let documents = page.iter().enumerate().filter(|(_, block)| block.language == "yaml" && is_owners(block));
    let documents = documents.map(|(number, block)| {
        let told = page.get(number + 1).filter(|next| next.language == "text");
        (block.text.clone(), told.map_or_else(String::new, |told| told.text.clone()))
    });
    (platforms[0].text.clone(), documents.collect())
}

/// Every document of an owner is good under the platform's of the same page, or followed by what is said about it.
#[test]
fn documents_of_owners_do_what_their_page_says() {
    let (platform, documents) = page_of_owners();
    let (mut good, mut refused) = (0, 0);
    for (document, told) in &documents {
        let mut files = WithOwner { owner: "team-a", document };
        let outcome = policy::compile("policy.yaml", platform.as_bytes(), &mut files, NOW);
        assert!(outcome.compiled.is_some() && outcome.diagnostics.is_empty(), "{:#?}", outcome.diagnostics);
        let owner = outcome.owners.iter().find(|owner| &*owner.name == "team-a").unwrap();
        let found: String = owner.diagnostics.iter().map(|problem| format!("{problem}\n")).collect();
        assert_eq!(found, *told, "{document}");
        let expected = if told.is_empty() { OwnerState::Current } else { OwnerState::Unavailable };
        assert_eq!(owner.state, expected, "{document}");
        if told.is_empty() {
            good += 1;
        } else {
            refused += 1;
        }
    }
    assert!(good >= 2 && refused >= 4, "{good} {refused}");
}

/// The recipe for a pipeline, run as it is printed, on the documents of its page.
#[test]
fn the_pipeline_for_owners_works() {
    let (platform, documents) = page_of_owners();
    let scripts: Vec<Block> =
        blocks_of("sh").filter(|block| block.text.contains("# check-owner POLICY OWNER CANDIDATE")).collect();
    assert_eq!(scripts.len(), 1);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("owners-{}", std::process::id()));
    let policy = directory.join("policy");
    fs::create_dir_all(policy.join("owners.d")).unwrap();
    fs::write(policy.join("policy.yaml"), platform).unwrap();
    for owner in ["team-a", "team-b"] {
        fs::write(policy.join(format!("owners.d/{owner}.yaml")), "{}\n").unwrap();
    }
    fs::write(directory.join("check-owner"), &scripts[0].text).unwrap();
    let command = Path::new(env!("CARGO_BIN_EXE_tenantauth")).parent().unwrap();
    let path = format!("{}:{}", command.display(), std::env::var("PATH").unwrap());
    let run = |candidate: &str| {
        fs::write(directory.join("candidate.yaml"), candidate).unwrap();
        let mut shell = Command::new("sh");
        shell.arg("check-owner").arg(&policy).arg("team-a").arg("candidate.yaml");
        let output = shell.current_dir(&directory).env("PATH", &path).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for (document, told) in &documents {
        let (status, out, err) = run(document);
        if told.is_empty() {
            assert_eq!(status, Some(0), "{document}{out}{err}");
            let changes = if document == "{}\n" { "no difference" } else { " gained team-a team-a " };
            let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(out.contains("valid, revision") && words.contains(changes), "{out}");
        } else {
            assert_eq!(status, Some(3), "{document}{out}{err}");
            let message = told.lines().next().unwrap().split_once(": ").unwrap().1;
            assert!(err.contains(message), "{err}");
            assert!(!out.contains("CHANGE"), "{out}");
        }
    }
    fs::remove_dir_all(&directory).unwrap();
}

/// The texts of the files that are shown whole: those of `deploy/` that a page explains.
fn shown() -> Vec<String> {
    let folders = ["alloy", "bigquery", "duckdb", "fluent-bit", "queries"]
        .map(|name| repository(&format!("deploy/{name}")));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_is_shown_of_deploy_is_what_is_there() {
    let files = shown();
    for block in blocks_of("sql").chain(blocks_of("alloy")) {
        assert!(files.contains(&block.text), "{}: no file of deploy/ is that", block.place);
    }
    let blocks: Vec<String> = blocks().into_iter().map(|block| block.text).collect();
    for folder in ["deploy/queries", "deploy/fluent-bit"] {
        for file in fs::read_dir(repository(folder)).unwrap() {
            let path = file.unwrap().path();
            assert!(blocks.contains(&fs::read_to_string(&path).unwrap()), "{} is not shown", path.display());
        }
    }
}

/// The fields of the table for audit records, in their order.
fn fields() -> Vec<String> {
    let schema = fs::read(repository("deploy/bigquery/audit.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    schema.as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_key_of_the_audit_record_is_explained() {
    assert_eq!(named_in_table("docs/audit.md", ""), fields());
    for block in blocks_of("json") {
        let record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&block.text).unwrap();
        let keys: BTreeSet<&String> = record.keys().collect();
        assert_eq!(keys, fields().iter().collect());
    }
}

/// Every example of the guide compiles without a word, or is followed by what is said about it, to the letter.
#[test]
fn the_guide_shows_what_policies_do() {
    const ISSUERS: &str =
        "issuers: [{ issuer: 'https://login.example.com', audiences: [grafana], jwks_file: jwks.json }]\n";
    let guide: Vec<Block> =
        blocks().into_iter().filter(|block| block.place.contains("/policy.md:")).collect();
    let (mut good, mut told) = (0, 0);
    for (number, block) in guide.iter().enumerate().filter(|(_, block)| block.language == "yaml") {
        let mut text = block.text.clone();
        for (key, line) in [("version:", "version: 1\n"), ("issuers:", ISSUERS)] {
            if !text.contains(key) {
                text += line;
            }
        }
        let outcome = policy::compile("policy.yaml", text.as_bytes(), &mut AnyFile, NOW);
        let found: String = outcome.diagnostics.iter().map(|problem| format!("{problem}\n")).collect();
        let shown = guide.get(number + 1).filter(|next| next.language == "text");
        assert_eq!(found, shown.map_or("", |shown| &*shown.text), "{}", block.place);
        if shown.is_some() {
            told += 1;
        } else {
            good += 1;
        }
    }
    assert!(good >= 18 && told >= 19, "{good} {told}");
    // A section for each key that this version serves.
    let page = fs::read_to_string(repository("docs/policy.md")).unwrap();
    let headings: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .flat_map(|names| names.split(", "))
        .collect();
    let served = list("src/policy/document.rs", "const SERVED: [&str; N] = [");
    assert_eq!(headings, served.iter().map(String::as_str).collect());
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for (path, page) in pages() {
        for rest in page.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: `{target}`", path.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(file).unwrap();
                let mut headings =
                    text.lines().filter_map(|line| line.split_once("# ")).map(|(_, text)| slug(text));
                assert!(headings.any(|heading| heading == anchor), "{}: `{target}`", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 10);
}

/// The first cells of the table rows of a page that name something in backticks.
fn named_in_table(page: &str, prefix: &str) -> Vec<String> {
    let text = fs::read_to_string(repository(page)).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.filter(|(name, _)| name.starts_with(prefix)).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_reason_is_explained_with_its_sentence() {
    let text = fs::read_to_string(repository("docs/grafana.md")).unwrap();
    let denials = || Reason::ALL.iter().filter(|reason| **reason != Reason::Granted);
    for reason in denials() {
        let row = format!("\n| `{reason}` | {} | ", reason.sentence());
        assert!(text.contains(&row), "no row for `{reason}`");
    }
    assert_eq!(named_in_table("docs/grafana.md", "").len(), denials().count());
    let changes = fs::read_to_string(repository("CHANGELOG.md")).unwrap();
    for reason in Reason::ALL {
        assert!(changes.contains(&format!("`{reason}`")), "the changelog does not list `{reason}`");
    }
}

#[test]
fn every_metric_is_listed() {
    let source = fs::read_to_string(repository("src/metrics.rs")).unwrap();
    let quoted = source.split('"').filter(|text| {
        text.starts_with("tenantauth_") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    });
    let exposed: BTreeSet<String> = quoted.map(str::to_owned).collect();
    let listed: BTreeSet<String> = named_in_table("docs/operations.md", "tenantauth_").into_iter().collect();
    assert_eq!(listed, exposed);
}

/// The part of the reference under a heading, up to the next one.
fn reference(heading: &str) -> String {
    let page = fs::read_to_string(repository("docs/reference.md")).unwrap();
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split("\n#").next().unwrap().to_owned()
}

/// The names in the first cells of the tables under a heading of the reference; none stands there twice.
fn named_under(heading: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in reference(heading).lines().filter_map(|line| line.strip_prefix("| `")) {
        let name = row.split('`').next().unwrap();
        assert!(names.insert(name.to_owned()), "`{name}` stands twice under `{heading}`");
    }
    names
}

/// The list of strings in a source file that begins with `mark`, which stands there once.
fn list(source: &str, mark: &str) -> Vec<String> {
    let mut text = fs::read_to_string(repository(source)).unwrap();
    // How many there are is the code's business.
    for count in 1..100 {
        text = text.replace(&format!("[&str; {count}] ="), "[&str; N] =");
    }
    assert_eq!(text.matches(mark).count(), 1, "{source}: `{mark}`");
    let body = text.split(mark).nth(1).unwrap().split(']').next().unwrap();
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_has_every_key_of_the_policy() {
    const SECTIONS: [(&str, &str, &str); 13] = [
        ("src/policy/document.rs", "const SERVED: [&str; N] = [", ""),
        ("src/policy/document/cases.rs", "const KNOWN: [&str; N] =\n    [", "tests[]."),
        ("src/policy/document.rs", "const AUDIT: [&str; N] = [", "audit."),
        ("src/policy/document.rs", "const DENIALS: [&str; N] = [", "denials."),
        ("src/policy/document/issuers.rs", "const SERVED: [&str; N] = [", "issuers[]."),
        ("src/policy/document/networks.rs", "const KNOWN: [&str; N] = [", "client_ip."),
        ("src/policy/document/rules.rs", "const GRANT: [&str; N] =\n    [", "grants[]."),
        ("src/policy/document/rules.rs", "const RESTRICTION: [&str; N] =\n    [", "restrictions[]."),
        ("src/policy/document/owners.rs", "const KNOWN: [&str; N] = [", "owners.*."),
        ("src/policy/document/revoked.rs", "const KNOWN: [&str; N] = [", "revoked."),
        ("src/policy/document/revoked.rs", "const PRINCIPAL: [&str; N] = [", "revoked.principals[]."),
        ("src/policy/document/revoked.rs", "const KEY: [&str; N] = [", "revoked.keys[]."),
        ("src/policy/document/service_accounts.rs", "const KNOWN: [&str; N] = [", "service_accounts[]."),
    ];
    let mut known = BTreeSet::new();
    for (source, mark, prefix) in SECTIONS {
        let keys = list(source, mark);
        known.extend(keys.iter().map(|key| format!("{prefix}{key}")));
    }
    assert_eq!(named_under("## Policy"), known);
    // A mapping with keys of its own that was added since would be missing above.
    let sources = [
        "document.rs",
        "document/cases.rs",
        "document/issuers.rs",
        "document/networks.rs",
        "document/owners.rs",
        "document/revoked.rs",
        "document/rules.rs",
        "document/service_accounts.rs",
    ];
    let read = sources.map(|name| fs::read_to_string(repository(&format!("src/policy/{name}"))).unwrap());
    assert_eq!(read.concat().matches("problems.fields(").count(), 15);
}

#[test]
fn the_reference_has_every_kind_of_warning() {
    let kinds: BTreeSet<String> = WarningKind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(named_under("### Warnings"), kinds);
}

#[test]
fn the_reference_has_every_option() {
    for (source, table, heading) in [
        ("worker", "INIT_OPTIONS", "### `init_worker`"),
        ("enforce", "ENFORCE_OPTIONS", "### `enforce`"),
        ("grafana_gateway", "STAMP_OPTIONS", "### `stamp_client_ip`"),
    ] {
        let text = fs::read_to_string(repository(&format!("lua/tenantauth/{source}.lua"))).unwrap();
        let (_, rest) = text.split_once(&format!("local {table} = {{\n")).expect(table);
        let lines = rest.split_once("\n}").unwrap().0.lines();
        let options: BTreeSet<String> =
            lines.map(|line| line.split_once(" = ").unwrap().0.trim().to_owned()).collect();
        assert_eq!(named_under(heading), options);
    }
    let removed = reference("### Removed headers").to_lowercase();
    let text = fs::read_to_string(repository("src/engine/headers.rs")).unwrap();
    let roles = text
        .lines()
        .filter(|line| line.contains(", Role::Removed)") || line.contains(", Role::Authorization)"));
    let stripped: Vec<&str> = roles.map(|line| line.split('"').nth(1).unwrap()).collect();
    assert_eq!(stripped.len(), 15, "{stripped:?}");
    let beginnings = text.split("name.starts_with(b\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let beginnings: Vec<&str> = beginnings.collect();
    assert_eq!(beginnings.len(), 5, "{beginnings:?}");
    for name in stripped.into_iter().chain(beginnings) {
        assert!(removed.contains(&format!("`{name}`")), "`{name}` is removed too");
    }
}

#[test]
fn the_reference_has_the_variables_of_the_snippet() {
    let snippet = fs::read_to_string(repository("nginx/http.conf")).unwrap();
    let variables = named_under("## nginx variables");
    assert_eq!(variables.len(), 6);
    for variable in variables {
        assert!(snippet.contains(&format!(" {variable} {{")), "`{variable}`");
    }
}

#[test]
fn the_reference_has_every_flag() {
    let mut flags = BTreeSet::new();
    const COMMANDS: [&str; 11] = [
        "access", "check", "diff", "doctor", "explain", "keygen", "keys", "replay", "routes", "schema",
        "test",
    ];
    let of_commands = COMMANDS.iter().map(|command| vec![*command, "-h"]);
    for arguments in of_commands.chain([vec!["--help"]]) {
        let help = Command::new(env!("CARGO_BIN_EXE_tenantauth")).args(&arguments).output().unwrap();
        assert!(help.status.success(), "{arguments:?}");
        let help = String::from_utf8(help.stdout).unwrap();
        let options =
            help.lines().filter_map(|line| line.split_once("--").filter(|_| line.starts_with("  ")));
        // Before a flag stands nothing but its short form.
        let options = options.filter(|(before, _)| before.trim().len() <= 3);
        flags.extend(options.map(|(_, flag)| {
            let end = flag.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(flag.len());
            format!("--{}", &flag[..end])
        }));
    }
    assert_eq!(named_under("## Command line"), flags);
}

#[test]
fn every_variable_of_the_image_is_listed() {
    let script = fs::read_to_string(repository("deploy/image/entrypoint.sh")).unwrap();
    let word = |c: char| !(c.is_ascii_uppercase() || c == '_');
    let mut known: BTreeSet<String> = script
        .split(word)
        .filter(|name| name.starts_with("TENANTAUTH_") || name.ends_with("_URL"))
        .filter(|name| !name.ends_with('_') && !name.starts_with('_'))
        .map(str::to_owned)
        .collect();
    // The entrypoint puts these together from the names of the backends.
    for backend in ["MIMIR", "LOKI", "TEMPO", "PYROSCOPE"] {
        known.extend([format!("{backend}_URL"), format!("TENANTAUTH_LISTEN_{backend}")]);
    }
    let listed: BTreeSet<String> = named_in_table("docs/install.md", "")
        .into_iter()
        .filter(|name| !name.starts_with(['/', 'h']))
        .collect();
    assert_eq!(listed, known);
}

#[cfg(feature = "module")]
mod nginx {
    use super::support::client::Request;
    use super::support::example::prepared;
    use super::support::repository;
    use super::support::site::{MODULE, POLICY, Site, TEMPORARY};

    /// The words behind each line that begins with this directive.
    fn arguments<'t>(text: &'t str, directive: &str) -> Vec<&'t str> {
        text.lines().filter_map(|line| line.trim_start().strip_prefix(directive)?.strip_prefix(' ')).collect()
    }

    /// The whole configuration around a block, which says in its first line where it belongs.
    fn around(block: &str) -> String {
        let (mark, text) = block.split_once('\n').unwrap();
        let text = match mark {
            "# in http { }" => text.to_owned(),
            "# in server { }" => format!("server {{\nlisten 8080;\n{text}\n}}"),
            _ => panic!("the first line says `# in http {{ }}` or `# in server {{ }}`, not `{mark}`"),
        };
        let module = if text.contains("lua_package_cpath") { "" } else { MODULE };
        let upstreams = ["grafana", "loki", "mimir"].map(|name| {
            let used =
                text.contains(&format!("http://{name};")) && !text.contains(&format!("upstream {name} "));
            if used { format!("upstream {name} {{\nserver 127.0.0.1:1;\n}}\n") } else { String::new() }
        });
        let idle = "server { listen 127.0.0.1:@PORT@; }";
        format!(
            "worker_processes 1; error_log @DIR@/error.log info; pid @DIR@/nginx.pid; events {{}}\n\
             http {{ {TEMPORARY}\naccess_log off;\n{module}\n{}\n{}\n{idle}\n}}\n",
            prepared(&upstreams.concat()),
            prepared(&text)
        )
    }

    /// nginx starts with each, runs its Lua code, and complains about nothing: `Site` looks at the error log.
    #[test]
    fn every_configuration_runs() {
        let mut asked = 0;
        for block in super::blocks_of("nginx") {
            eprintln!("{}", block.place);
            let site = Site::prepare(true);
            site.write_policy(POLICY);
            site.workspace.copy(&repository("lua/auth.lua"), "etc-nginx/auth.lua");
            let configuration = around(&block.text);
            let site = site.run(&configuration, 1);
            // Each server is asked for its own locations.
            for server in configuration.split("server {") {
                let listen = arguments(server, "listen").first().copied().unwrap_or_default();
                let Some(name) = listen.split("@PORT:").nth(1).and_then(|rest| rest.split('@').next()) else {
                    continue;
                };
                for location in arguments(server, "location") {
                    let path = location.trim_start_matches("= ").split(' ').next().unwrap();
                    // A named one is reached from within alone.
                    if path.starts_with('@') {
                        continue;
                    }
                    let answer = Request::get(path).send(site.port(name));
                    // Allowed, denied for want of a tenant, or internal.
                    assert!([200, 403, 404].contains(&answer.status), "{}: {path}: {answer:?}", block.place);
                    asked += 1;
                }
            }
        }
        assert!(asked >= 6);
    }
}
