//! Requests that flow while the policy changes under them: by every way of replacing a file, through broken versions,
//! killed workers and a full disk.

use crate::checks::{assert_allowed, assert_denied, query};
use crate::metrics::samples;
use crate::support::client::Answer;
use crate::support::flow::{Flow, Judge, Summary};
use crate::support::nginx::{Launch, resident_kib};
use crate::support::site::{POLICY, Site, module_with};
use crate::support::{noise, wait_for};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An answer from the backend without a test's server behind it: thousands a second are not its business.
const SERVER: &str = r#"
rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
access_log @DIR@/audit.jsonl tenantauth_audit buffer=64k flush=1s;
keepalive_requests 1000000;
location / { root @DIR@; try_files /backend.json =404; }
"#;

const FAST: &str = ", reload_interval = 0.1";
/// The least that a flow must reach, in requests a second.
const RATE: f64 = 500.0;

/// One of two policies, each with a tenant of its own. `number` makes a new revision of it, and names the grant.
fn policy(letter: char, number: usize) -> String {
    let head = POLICY.split("authorizations:").next().unwrap();
    format!(
        "{head}grants:\n  - name: {letter}-{number}\n    groups: [group1]\n    tenants: [tenant1, only-{letter}]\n"
    )
}

/// What the flow asks for: allowed by both policies, denied by both, by one of them each, and two tenants that no
/// policy grants together, unless one were half of each.
const TENANTS: [&str; 5] = ["tenant1", "tenant2", "only-a", "only-b", "only-a|only-b"];

/// Which of the two policies may decide right now. Changes with every word, so that a request that was under way
/// during a change is not held against either.
#[derive(Default)]
struct Expected(AtomicU64);

impl Expected {
    fn set(&self, policy: Option<char>) {
        let code = match policy {
            None => 0,
            Some('a') => 1,
            Some(_) => 2,
        };
        let era = self.0.load(Ordering::SeqCst) >> 2;
        self.0.store((era + 1) << 2 | code, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// What is wrong with the answer to a request for `TENANTS[which]` that was sent when [`Expected::now`] was
    /// `before`.
    fn judge(&self, which: usize, before: u64, answer: &Answer) -> Result<(), String> {
        let is_allowed = match (answer.status, answer.reason()) {
            (200, "") => true,
            (403, "tenant_forbidden") => false,
            _ => return Err("neither an answer of the backend nor a denial of the tenant".to_owned()),
        };
        let certain = if before == self.now() { before & 3 } else { 0 };
        let right = match TENANTS[which] {
            "tenant1" => Some(true),
            "tenant2" | "only-a|only-b" => Some(false),
            "only-a" => (certain != 0).then_some(certain == 1),
            _ => (certain != 0).then_some(certain == 2),
        };
        match right {
            Some(right) if right != is_allowed => {
                Err(format!("allowed: {is_allowed}, under policy {certain}"))
            }
            _ => Ok(()),
        }
    }
}

fn start_flow(site: &Site, expected: &Arc<Expected>) -> Flow {
    let requests: Vec<Vec<u8>> = TENANTS.iter().map(|tenant| query(&["group1"], tenant).bytes()).collect();
    let (now, judged) = (Arc::clone(expected), Arc::clone(expected));
    let before: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(move || now.now());
    let judge: Arc<Judge> =
        Arc::new(move |which, before, answer: &Answer| judged.judge(which, before, answer));
    Flow::start(site.port(""), 4, 800, &requests, &before, &judge)
}

fn assert_right(summary: &Summary) {
    assert!(summary.wrong.is_empty(), "{:#?}", summary.wrong);
    assert!(summary.rate >= RATE, "{} requests a second", summary.rate);
}

/// Waits until all workers are on one revision that is not among these, and adds it to them.
fn wait_for_new(site: &Site, workers: usize, known: &mut BTreeSet<String>) {
    let revision = wait_for("new revision in every worker", 10, || {
        let revisions = site.revisions();
        let first = revisions.first()?;
        let same = revisions.len() == workers && revisions.iter().all(|one| one == first);
        // Empty where none is in force.
        (same && !first.is_empty() && !known.contains(first)).then(|| first.clone())
    });
    known.insert(revision);
}

/// The sample of reloads that ended so.
fn reloads(site: &Site, result: &str) -> f64 {
    let name = format!("tenantauth_policy_reloads_total{{result=\"{result}\"}}");
    samples(&site.metrics()).get(&name).copied().unwrap_or_default()
}

/// Waits until each worker has refused one more. `before`: how many there were.
fn wait_for_refusals(site: &Site, before: f64, workers: usize) {
    let each = f64::from(u8::try_from(workers).unwrap());
    wait_for("refusal in each worker", 10, || (reloads(site, "failure") >= before + each).then_some(()));
}

/// The ways in which people and tools replace a file, in turn.
fn put(file: &Path, way: usize, content: &[u8]) {
    let (aside, parent) = (file.with_extension("new"), file.parent().unwrap());
    if file.is_dir() {
        fs::remove_dir(file).unwrap();
    }
    match way % 3 {
        // In place, through a link where there is one, with a moment in which half of it is there.
        0 => {
            let mut open = fs::File::create(file).unwrap();
            let (first, second) = content.split_at(content.len() / 2);
            open.write_all(first).unwrap();
            open.sync_data().unwrap();
            sleep(Duration::from_millis(10));
            open.write_all(second).unwrap();
        }
        1 => {
            fs::write(&aside, content).unwrap();
            fs::rename(&aside, file).unwrap();
        }
        // As Kubernetes does.
        _ => {
            let version = parent.join(format!("version-{way}.yaml"));
            fs::write(&version, content).unwrap();
            symlink(version.file_name().unwrap(), &aside).unwrap();
            fs::rename(&aside, file).unwrap();
        }
    }
}

/// Makes the policy unusable, each time in another way.
fn spoil(site: &Site, file: &Path, number: usize) {
    let good = site.fill(&policy('x', number));
    let broken: Vec<u8> = match number / 2 % 8 {
        0 => good.trim_end().into(),
        1 => good.replace("grants:", "grant:").into(),
        2 => good.replace("tenant1", "tenant1, '*:read'").into(),
        3 => [good.as_bytes(), b"# \xff\xfe\n"].concat(),
        4 => Vec::new(),
        5 => good.replace("jwks.json", "no-such-file.json").into(),
        6 => return fs::remove_file(file).unwrap(),
        _ => {
            fs::remove_file(file).unwrap();
            return fs::create_dir(file).unwrap();
        }
    };
    put(file, number, &broken);
}

/// What the test looks at in an audit record.
#[derive(Deserialize)]
struct Record {
    decision: String,
    reason: String,
    tenants: Vec<String>,
    grant: Option<String>,
    policy_revision: Option<String>,
}

/// Every record was decided by one policy: the one whose revision it names. Returns how many there were.
fn assert_whole_policies(site: &Site) -> usize {
    let file = BufReader::new(fs::File::open(site.workspace.path("audit.jsonl")).unwrap());
    let read = |line: Result<String, _>| serde_json::from_str::<Record>(&line.unwrap()).unwrap();
    let records: Vec<Record> = file.lines().map(read).collect();
    // What grants tenant1 says which policy a revision is.
    let mut policies: BTreeMap<&str, &str> = BTreeMap::new();
    for record in &records {
        let revision = record.policy_revision.as_deref().expect("a policy in force");
        if let Some(grant) = record.grant.as_deref().filter(|_| record.decision == "allow") {
            assert_eq!(*policies.entry(revision).or_insert(grant), grant, "one revision, two policies");
        }
    }
    for record in &records {
        let policy = policies[record.policy_revision.as_deref().unwrap()];
        let (letter, _) = policy.split_once('-').unwrap();
        let expected = match &*record.tenants.join("|") {
            "tenant1" => true,
            "tenant2" | "only-a|only-b" => false,
            tenant => tenant == format!("only-{letter}"),
        };
        let decided = (&*record.decision, &*record.reason);
        let expected = if expected { ("allow", "granted") } else { ("deny", "tenant_forbidden") };
        assert_eq!(decided, expected, "{:?} under {policy}", record.tenants);
    }
    records.len()
}

#[test]
fn no_decision_is_wrong_through_two_hundred_flips() {
    const FLIPS: usize = 200;
    const WORKERS: usize = 2;
    // From here on memory must not grow any more.
    const WARM: usize = 40;
    const GROWTH_KIB: u64 = 4 * 1024;
    let builder = Site::builder().policy(&policy('a', 0)).workers(WORKERS);
    let site = builder.module(&module_with(FAST)).server(SERVER).start();
    site.expect_errors();
    site.workspace.write("backend.json", "{}");
    let file = site.workspace.path("policy.yaml");
    let workers = site.nginx().workers();
    let mut known = BTreeSet::new();
    wait_for_new(&site, WORKERS, &mut known);
    let expected = Arc::new(Expected::default());
    expected.set(Some('a'));
    let flow = start_flow(&site, &expected);
    let memory = || -> Vec<u64> { workers.iter().map(|pid| resident_kib(*pid)).collect() };
    let (mut warm, mut awaited) = (Vec::new(), 0);
    let started = Instant::now();
    for flip in 0..FLIPS {
        if flip == WARM {
            warm = memory();
        }
        if flip % 2 == 1 {
            let refused = reloads(&site, "failure");
            spoil(&site, &file, flip);
            // Broken ones change nothing, whether they are judged or gone before. Every fourth is judged.
            if flip % 8 == 3 {
                wait_for_refusals(&site, refused, WORKERS);
            } else {
                sleep(Duration::from_millis(u64::try_from(flip * 37 % 120).unwrap()));
            }
            continue;
        }
        let letter = if flip / 2 % 2 == 0 { 'b' } else { 'a' };
        expected.set(None);
        // Not by the counter that chooses how it is spoilt: each way follows each.
        put(&file, flip / 2 + 1000, site.fill(&policy(letter, flip + 1)).as_bytes());
        if flip % 6 == 0 || flip + 2 >= FLIPS {
            wait_for_new(&site, WORKERS, &mut known);
            expected.set(Some(letter));
            awaited += 1;
        } else {
            sleep(Duration::from_millis(u64::try_from(flip * 53 % 120).unwrap()));
        }
    }
    let took = started.elapsed();
    let end = memory();
    let summary = flow.stop();
    assert_right(&summary);
    assert_eq!(summary.lost, 0);
    assert_eq!(site.nginx().workers(), workers, "a worker died");
    for (warm, end) in warm.iter().zip(&end) {
        assert!(*end <= warm + GROWTH_KIB, "resident KiB of the workers: {warm:?} then, {end:?} now");
    }
    let (taken, refused) = (reloads(&site, "success"), reloads(&site, "failure"));
    assert!(known.len() > awaited && taken >= 60.0 && refused >= 50.0, "{awaited} {taken} {refused}");
    let records = wait_for("record of every request", 10, || {
        let lines = fs::read(site.workspace.path("audit.jsonl")).unwrap();
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        (u64::try_from(count).unwrap() == summary.answers).then(|| assert_whole_policies(&site))
    });
    println!(
        "{FLIPS} flips in {took:?}: {} answers, {:.0} a second; {taken} reloads, {refused} refusals over {WORKERS} \
         workers; {records} records; resident KiB after {WARM} flips {warm:?}, at the end {end:?}",
        summary.answers, summary.rate,
    );
}

/// The same policy with so much beside it that reading it takes a while.
fn large(letter: char, number: usize) -> String {
    let mut text = policy(letter, number);
    for filler in 0..2000 {
        text += &format!("  - {{ groups: [filler-{filler}], tenants: [filler-{filler}, 'f-{filler}-*'] }}\n");
    }
    text
}

#[test]
fn a_worker_killed_in_the_middle_of_a_reload_harms_nobody_else() {
    const WORKERS: usize = 2;
    let module = module_with(&format!("{FAST}, state_dir = \"@DIR@/state\""));
    let builder = Site::builder().policy(&large('a', 0)).workers(WORKERS).directory("state");
    let mut site = builder.module(&module).server(SERVER).start();
    site.expect_errors();
    site.workspace.write("backend.json", "{}");
    let mut known = BTreeSet::new();
    wait_for_new(&site, WORKERS, &mut known);
    let expected = Arc::new(Expected::default());
    expected.set(Some('a'));
    let flow = start_flow(&site, &expected);
    let mut last = 'a';
    for round in 0..12 {
        last = if round % 2 == 0 { 'b' } else { 'a' };
        expected.set(None);
        site.write_policy(&large(last, round + 1));
        // From the first reading to the last steps.
        sleep(Duration::from_millis(u64::try_from(round).unwrap() * 90));
        site.nginx().kill_one_worker(round % WORKERS);
        if round % 3 == 2 {
            // The one in its place finds a document that it cannot use, and takes what the others decided by.
            site.write_policy("version: 1\ngrants: [");
            sleep(Duration::from_millis(300));
            site.nginx().kill_one_worker((round + 1) % WORKERS);
            site.nginx().wait_for_workers();
            site.write_policy(&large(last, round + 1));
        }
        site.nginx().wait_for_workers();
        wait_for_new(&site, WORKERS, &mut known);
        expected.set(Some(last));
        sleep(Duration::from_millis(100));
    }
    // And in the middle of a reload of nginx.
    for round in 0..4 {
        site.nginx().signal("HUP");
        sleep(Duration::from_millis(round * 60));
        site.nginx().kill_one_worker(1);
        site.nginx().wait_for_workers();
    }
    let summary = flow.stop();
    assert_right(&summary);
    // Each worker holds four connections at most.
    assert!(summary.lost <= 4 * 24, "{summary:?}");
    let records = assert_whole_policies_but_lost(&site);
    // What is kept for a restart is whole.
    site.write_policy("version: 1\ngrants: [");
    site.restart();
    let only = |letter: char| site.send(query(&["group1"], &format!("only-{letter}")));
    assert_allowed(&only(last));
    assert_denied(&only(if last == 'a' { 'b' } else { 'a' }), "tenant_forbidden");
    let status = site.status().json();
    assert_eq!(
        (&status["policy_source"], &status["serving"]),
        (&"state_dir".into(), &true.into()),
        "{status}"
    );
    println!(
        "{} answers, {:.0} a second, {} lost; {records} records",
        summary.answers, summary.rate, summary.lost
    );
}

/// Records that a killed worker had not written yet are missing; the others are judged.
fn assert_whole_policies_but_lost(site: &Site) -> usize {
    sleep(Duration::from_millis(1500));
    let records = assert_whole_policies(site);
    assert!(records > 1000, "{records} records");
    records
}

#[test]
fn a_full_disk_loses_the_last_good_policy_and_nothing_else() {
    const WORKERS: usize = 2;
    let module = module_with(&format!("{FAST}, state_dir = \"@DIR@/state\""));
    let launch = Launch { survives_file_limit: true, ..Launch::default() };
    // Larger than the room that is left below.
    let large = |letter: char, number: usize| format!("{}# {}\n", policy(letter, number), noise(1 << 20));
    let builder = Site::builder().policy(&large('a', 0)).workers(WORKERS).directory("state").launch(launch);
    let mut site = builder.module(&module).server(SERVER).start();
    site.expect_errors();
    site.workspace.write("backend.json", "{}");
    let mut known = BTreeSet::new();
    wait_for_new(&site, WORKERS, &mut known);
    let kept = |site: &Site| -> Vec<(String, u64)> {
        let entries = fs::read_dir(site.workspace.path("state")).unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect()
    };
    assert_eq!(kept(&site).len(), 1, "{:?}", kept(&site));
    let workers = site.nginx().workers();
    let expected = Arc::new(Expected::default());
    expected.set(Some('a'));
    let flow = start_flow(&site, &expected);

    site.nginx().limit_files(Some(512 << 10));
    for (number, letter) in ['b', 'a', 'b'].into_iter().enumerate() {
        expected.set(None);
        site.write_policy(&large(letter, number + 1));
        wait_for_new(&site, WORKERS, &mut known);
        expected.set(Some(letter));
    }
    let log = site.wait_for_log("the policy is not kept for a restart: cannot write `");
    let told = log.lines().filter(|line| line.contains("is not kept for a restart")).count();
    assert_eq!(told, 1, "once for all workers, however often it happens");
    // No draft, and no older version, whose grants have been withdrawn since.
    assert_eq!(kept(&site), []);
    // Workers that come later find it in the shared dict all the same.
    let refused = reloads(&site, "failure");
    site.write_policy("version: 1\ngrants: [");
    wait_for_refusals(&site, refused, WORKERS);
    let summary = flow.stop();
    assert_right(&summary);
    assert_eq!((summary.lost, site.nginx().workers()), (0, workers), "a worker died");
    site.nginx().reload();
    assert_allowed(&site.send(query(&["group1"], "only-b")));
    assert_eq!(site.status().json()["policy_source"], "shared_dict");

    // A restart has nothing to go on with, and says so; it grants nothing that was withdrawn.
    site.restart();
    assert_denied(&site.send(query(&["group1"], "only-b")), "policy_unavailable");
    // With room again, the next policy is kept again.
    site.write_policy(&large('a', 9));
    wait_for_new(&site, WORKERS, &mut known);
    wait_for("kept policy", 5, || (kept(&site).len() == 1).then_some(()));
    site.write_policy("version: 1\ngrants: [");
    site.restart();
    assert_allowed(&site.send(query(&["group1"], "only-a")));
    println!("{} answers, {:.0} a second", summary.answers, summary.rate);
}
