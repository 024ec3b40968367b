//! Policies come, change, break and are repaired.

use super::*;
use std::process::Command;

#[test]
fn a_broken_policy_changes_nothing_and_is_told_with_its_place() {
    let site = Site::start(TAIL);
    let good = signed("r", &claims());
    let revision = site.engine.revision();
    site.messages();
    site.scratch.write("policy.yaml", &policy("grants: [{ groups: [a], tenants: [*] }]\ngrant: []\n"));
    site.wait_for("the refusal", |site| !site.engine.gauges().last_reload_successful);
    let file = site.scratch.path("policy.yaml");
    let file = file.display();
    assert_eq!(
        site.errors(),
        [
            format!(
                "{file}:9:35: grants[0].tenants[0]: `*` is read as a YAML alias, which is not supported; \
                 help: quote it: \"*\""
            ),
            format!("{file}:10:1: grant: unknown key `grant`; help: did you mean `grants`?"),
            format!(
                "the policy was refused, the last good revision `{}` stays in force",
                revision.as_ref().unwrap()
            ),
        ]
    );
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
    assert_eq!((site.engine.revision(), site.engine.readiness()), (revision, Readiness::Ready));
    assert_eq!(site.engine.take_reload_counts(), (1, 1));
    site.let_it_look();
    assert_eq!(site.errors(), [""; 0], "a problem is told once");

    // The same problem again in another text is told again; then it is repaired.
    site.scratch.write("policy.yaml", "version: 1\n");
    site.wait_for("another refusal", |site| !site.errors().is_empty());
    site.change(&TAIL.replace("[a]", "[z]"));
    assert_eq!(site.reason(&query(&good)), Reason::TenantForbidden);
    assert!(site.engine.gauges().last_reload_successful);
    assert_eq!(site.engine.take_reload_counts(), (1, 1));
    // And back to what was in force before it broke.
    site.change(TAIL);
    assert_eq!(site.reason(&query(&good)), Reason::Granted);
}

#[test]
fn a_worker_waits_for_a_policy_that_is_not_there_yet() {
    let site = Site::start_in(Scratch::new(), "policy.yaml");
    site.wait_for("the end of loading", |site| site.engine.readiness() == Readiness::NoPolicy);
    let errors = site.errors();
    let file = site.scratch.path("policy.yaml");
    assert!(
        errors[0].starts_with(&format!("{}:1:1: cannot read the policy: no such file", file.display())),
        "{errors:?}"
    );
    assert_eq!(errors[1], "the policy was refused and none is in force: every request is denied");
    site.scratch.write("policy.yaml", "version: 2\n");
    site.wait_for("a refusal", |site| !site.errors().is_empty());
    assert_eq!(site.engine.readiness(), Readiness::NoPolicy);
    site.scratch.write("policy.yaml", &policy(TAIL));
    let took = site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    assert!(took < PROMISED);
    assert_eq!(site.reason(&query(&signed("r", &claims()))), Reason::Granted);
    // Taken away again: the last good one stays.
    fs::remove_file(&file).unwrap();
    site.wait_for("the refusal", |site| !site.engine.gauges().last_reload_successful);
    assert_eq!(site.reason(&query(&signed("r", &claims()))), Reason::Granted);
}

#[test]
fn a_missing_key_file_is_awaited_too() {
    let scratch = Scratch::new();
    let tail = "client_ip: { keys_file: late/ip.keys }\n".to_owned() + TAIL;
    scratch.write("policy.yaml", &policy(&tail));
    let site = Site::start_in(scratch, "policy.yaml");
    site.wait_for("the end of loading", |site| site.engine.readiness() == Readiness::NoPolicy);
    assert!(site.errors()[0].contains("client_ip.keys_file: cannot read `late/ip.keys`: no such file"));
    fs::create_dir(site.scratch.path("late")).unwrap();
    site.scratch.write("late/ip.keys", &format!("k1:{SECRET}\n"));
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
}

#[test]
fn a_policy_is_not_read_while_it_is_written() {
    let Site { scratch, engine } = Site::start(TAIL);
    drop(engine);
    let engine = Engine::start(scratch.options("policy.yaml"), Inherited::default()).unwrap();
    let site = Site { scratch, engine };
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    site.messages();
    let before = site.engine.revision();
    let text = policy(&TAIL.replace("[a]", "[a, b]"));
    // In place, in pieces that are no policy, each sooner than a file counts as finished.
    for end in [10, 40, 90, 120, text.len() - 1, text.len()] {
        site.scratch.write("policy.yaml", text.get(..end).unwrap());
        thread::sleep(Duration::from_millis(150));
    }
    site.wait_for("the policy", |site| site.engine.revision() != before);
    assert_eq!(site.errors(), [""; 0]);
    assert_eq!(site.engine.take_reload_counts(), (2, 0));
}

#[test]
fn the_policy_in_force_says_which_headers_are_read() {
    let site = Site::start(TAIL);
    let good = signed("r", &claims());
    let decide = |name: &str| {
        let lines = [(b"x-scope-orgid".as_slice(), b"t".as_slice()), (name.as_bytes(), good.as_bytes())];
        let request = Request {
            method: b"GET",
            request_uri: b"/loki/api/v1/query",
            uri: b"/loki/api/v1/query",
            remote_addr: None,
            peer: b"192.0.2.1",
            upgradable: Upgradable::Unasked,
        };
        let answer = |verdict: Verdict<'_>| (verdict.decision.reason(), verdict.removed.to_vec());
        site.engine.enforce(&loki(), &request, Some(lines.into_iter()), answer).unwrap()
    };
    assert_eq!(decide("x-id-token"), (Reason::Granted, vec![1]));
    assert_eq!(decide("x-other"), (Reason::TokenMissing, vec![]));
    site.change("grants: [{ groups: [a], tenants: ['t*'] }]\ntoken_headers: [X-Other]\n");
    assert_eq!(decide("x-other"), (Reason::Granted, vec![1]));
    assert_eq!(decide("x-id-token"), (Reason::TokenMissing, vec![]));
}

#[test]
fn an_address_that_is_needed_is_asked_for() {
    let tail = "networks: { office: [192.0.2.0/24] }\nclient_ip: { source: remote_addr }\n\
                restrictions: [{ name: o, networks: [office] }]\n";
    let site = Site::start(&(tail.to_owned() + TAIL));
    let good = signed("r", &claims());
    let decide = |remote_addr| {
        let lines =
            [(b"x-scope-orgid".as_slice(), b"t".as_slice()), (b"x-id-token".as_slice(), good.as_bytes())];
        let request = Request {
            method: b"GET",
            request_uri: b"/loki/api/v1/query",
            uri: b"/loki/api/v1/query",
            remote_addr,
            peer: b"198.51.100.1",
            upgradable: Upgradable::Unasked,
        };
        let lines = Some(lines.into_iter());
        site.engine.enforce(&loki(), &request, lines, |verdict| verdict.decision.reason())
    };
    assert_eq!(decide(None), Err(Needs::RemoteAddr));
    assert_eq!(decide(Some(b"192.0.2.7")), Ok(Reason::Granted));
    assert_eq!(decide(Some(b"198.51.100.1")), Ok(Reason::IpForbidden));
}

#[test]
fn a_successor_goes_on_with_the_last_good_policy_and_the_keys_of_today() {
    let site = Site::start(&format!(
        "client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [192.0.2.1] }}]\n"
    ));
    let bundle = site.last_good();
    let revision = site.engine.revision();
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy.yaml", "broken\n");
    let site = Site::start_with(scratch, "policy.yaml", Some(bundle));
    // Between the two, a key was withdrawn.
    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    site.wait_for("the last good policy", |site| site.engine.readiness() == Readiness::Ready);
    assert_eq!(site.engine.revision(), revision);
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", unix_now() + 300);
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    let of = |token| Query { cookies: Some(cookie.as_bytes()), ..query(token) };
    site.wait_for_reason(&of(&gone), Reason::TokenKeyUnknown);
    assert_eq!(site.reason(&of(&stays)), Reason::Granted);
    assert!(!site.engine.gauges().last_reload_successful);
    for nonsense in [&b"x"[..], b"", &[0; 16], &[255; 40]] {
        let scratch = Scratch::new();
        let site = Site::start_with(scratch, "policy.yaml", Some(nonsense.to_vec()));
        site.wait_for("the end of loading", |site| site.engine.readiness() == Readiness::NoPolicy);
    }
}

#[test]
fn a_withdrawn_key_does_not_come_back_with_a_successor() {
    let site = Site::start(TAIL);
    let (gone, stays) = (signed("r", &claims()), signed("e", &claims()));
    site.scratch.write("policy.yaml", "broken\n");
    site.wait_for("the refusal", |site| !site.engine.gauges().last_reload_successful);
    site.scratch.write("jwks.json", &key_set(&[("e", Algorithm::Es256)]));
    site.wait_for_reason(&query(&gone), Reason::TokenKeyUnknown);
    // What is handed on holds the keys of today, whether their file can be read later or not.
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    for readable in [true, false] {
        if !readable {
            fs::remove_file(scratch.path("jwks.json")).unwrap();
        }
        let options = scratch.options("policy.yaml");
        let settling = Duration::from_millis(100);
        let inherited = Inherited { policy: Some(bundle.clone()), ..Inherited::default() };
        let engine = Engine::start_settling(options, inherited, settling).unwrap();
        while engine.readiness() != Readiness::Ready {
            thread::sleep(Duration::from_millis(1));
        }
        // From the first moment on.
        let reason =
            |token: &str| decided(&engine, &loki(), &query(token), |verdict| verdict.decision.reason());
        assert_eq!(reason(&gone), Reason::TokenKeyUnknown);
        assert_eq!(reason(&stays), Reason::Granted);
    }
}

#[test]
fn a_successor_takes_nothing_over_from_another_policy() {
    let site = Site::start(TAIL);
    let bundle = site.last_good();
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("other.yaml", "broken\n");
    let site = Site::start_with(scratch, "other.yaml", Some(bundle));
    site.wait_for("the end of loading", |site| site.engine.readiness() == Readiness::NoPolicy);
}

#[test]
fn a_panic_of_the_thread_is_told_and_survived() {
    let reload_interval = Duration::from_millis(100);
    let (engine, _inbox) = Engine::new(Options { policy: PathBuf::new(), reload_interval, state_dir: None });
    super::super::thread::guarded(&engine, "the policy was read", || panic!("deliberate, in a test"));
    assert_eq!(engine.readiness(), Readiness::NoPolicy);
    let (level, text) = engine.next_message().unwrap();
    assert_eq!((level, &*text), (Level::Error, "internal error: a panic while the policy was read"));
}

#[test]
fn what_is_shown_holds_no_secret() {
    let site = Site::start(&format!(
        "client_ip: {{ keys_file: ip.keys }}\n{TAIL}restrictions: [{{ networks: [0.0.0.0/0], mode: shadow }}]\n"
    ));
    let part = SECRET.get(..20).unwrap();
    let good = signed("r", &claims());
    let cookie = stamp(&format!("k1:{SECRET}\n"), "192.0.2.1", unix_now() + 300);
    let request = Query { cookies: Some(cookie.as_bytes()), ..query(&good) };
    let record = site.seen(&loki(), &request, |verdict| {
        assert!(verdict.decision.is_allow());
        format!("{verdict:?}")
    });
    site.scratch.write("ip.keys", &format!("k1:{SECRET}\nk1:{SECRET}\nbad:{part}\n"));
    site.wait_for("the refusal", |site| !site.engine.gauges().last_reload_successful);
    let status = site.engine.status();
    assert_eq!(status["serving"], true);
    assert_eq!(status["issuers"][0]["keys"], 2);
    assert_eq!(status["issuers"][0]["source"], "jwks_file");
    assert_eq!(status["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(status["token_cache_entries"], 1);
    assert_eq!(status["last_reload_successful"], false);
    let gauges = site.engine.gauges();
    assert_eq!(gauges.jwks_keys, [("entra".to_owned(), 2)]);
    assert_eq!(gauges.cache_entries, 1);
    let modulus = jwk(Algorithm::Rs256)["n"].as_str().unwrap().to_owned();
    let value = cookie.strip_prefix("Client_Ip=").unwrap();
    let shown = format!("{status} {gauges:?} {record} {:?}", site.messages());
    for secret in [part, good.rsplit('.').next().unwrap(), good.split('.').nth(1).unwrap(), value, &modulus] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(!shown.contains(value.rsplit('.').next().unwrap()));
}

/// An engine with a state directory, over whatever lies there.
fn start_with_state(scratch: Scratch) -> Site {
    scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    fs::create_dir_all(scratch.path("state")).unwrap();
    let options = Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy.yaml") };
    let settling = Duration::from_millis(100);
    let engine = Engine::start_settling(options, Inherited::default(), settling).unwrap();
    Site { engine, scratch }
}

#[test]
fn the_last_good_policy_survives_a_restart_in_the_state_directory() {
    let scratch = Scratch::new();
    let good = signed("r", &claims());
    scratch.write("policy.yaml", &policy(TAIL));
    let site = start_with_state(scratch);
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    site.change("grants: [{ groups: [a], tenants: [t] }]\n");
    let revision = site.engine.revision();
    let Site { scratch, engine } = site;
    drop(engine);
    for broken in ["broken\n", ""] {
        if broken.is_empty() {
            fs::remove_file(scratch.path("policy.yaml")).unwrap();
        } else {
            scratch.write("policy.yaml", broken);
        }
        let options = Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy.yaml") };
        let settling = Duration::from_millis(100);
        let engine = Engine::start_settling(options, Inherited::default(), settling).unwrap();
        while engine.readiness() == Readiness::Loading {
            thread::sleep(Duration::from_millis(1));
        }
        // The newest that was served, told in every way.
        assert_eq!(engine.revision(), revision);
        let status = engine.status();
        assert_eq!(
            [&status["policy_source"], &status["last_reload_successful"]],
            [&json!("state_dir"), &json!(false)]
        );
        assert!(!engine.gauges().last_reload_successful);
        let messages: Vec<_> = std::iter::from_fn(|| engine.next_message()).collect();
        assert!(messages.iter().any(|(_, text)| text.contains("stays in force")), "{messages:?}");
        let reason = decided(&engine, &loki(), &query(&good), |verdict| verdict.decision.reason());
        assert_eq!(reason, Reason::Granted);
    }
    // Repaired, it is read from its place again.
    scratch.write("policy.yaml", &policy(TAIL));
    let site = start_with_state(scratch);
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    assert_eq!(site.engine.status()["policy_source"], "policy");
    // What is damaged, or could be somebody else's, is not used.
    let Site { scratch, engine } = site;
    drop(engine);
    scratch.write("policy.yaml", "broken\n");
    let kept = fs::read_dir(scratch.path("state")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&kept).unwrap();
    for (content, mode, complaint) in [
        (&whole[..whole.len() - 1], 0o600, "it is damaged"),
        (&whole[..], 0o602, "others than its owner may write it"),
    ] {
        fs::write(&kept, content).unwrap();
        fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let options = Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy.yaml") };
        let engine =
            Engine::start_settling(options, Inherited::default(), Duration::from_millis(100)).unwrap();
        while engine.readiness() == Readiness::Loading {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(engine.readiness(), Readiness::NoPolicy);
        let messages: Vec<_> = std::iter::from_fn(|| engine.next_message()).collect();
        assert!(messages.iter().any(|(_, text)| text.ends_with(complaint)), "{messages:?}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told_once_and_harms_nothing() {
    let scratch = Scratch::new();
    scratch.write("policy.yaml", &policy(TAIL));
    scratch.write("state", "a file");
    scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    let options = Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy.yaml") };
    let engine = Engine::start_settling(options, Inherited::default(), Duration::from_millis(100)).unwrap();
    let site = Site { engine, scratch };
    site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
    site.change("grants: [{ groups: [a], tenants: [t] }]\n");
    site.let_it_look();
    let told = site.errors().into_iter().filter(|text| text.starts_with("the policy is not kept")).count();
    assert_eq!(told, 1);
}

#[test]
fn a_write_that_failed_is_tried_again_and_drafts_of_the_dead_go() {
    let scratch = Scratch::new();
    scratch.write("policy.yaml", &policy(TAIL));
    scratch.write("jwks.json", &key_set(&[("r", Algorithm::Rs256)]));
    scratch.write("state", "a file");
    let options = Options { state_dir: Some(scratch.path("state")), ..scratch.options("policy.yaml") };
    let start = || {
        let options = options.clone();
        Engine::start_settling(options, Inherited::default(), Duration::from_millis(100)).unwrap()
    };
    let site = Site { engine: start(), scratch };
    site.wait_for("the complaint", |site| {
        site.errors().iter().any(|text| text.starts_with("the policy is not kept for a restart"))
    });
    fs::remove_file(site.scratch.path("state")).unwrap();
    fs::create_dir(site.scratch.path("state")).unwrap();
    // Nothing has changed but the disk.
    let took = site.wait_for("the word", |site| {
        site.messages().iter().any(|(_, text)| text == "the policy is kept for a restart again")
    });
    assert!(took < PROMISED, "{took:?}");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(site.scratch.path("state")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    };
    let kept = names();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    // Of a process that is no more, of this one, of one that writes; and what only looks so.
    let running = format!("policy-a.{}.new", child.id());
    let dead = format!("policy-a.{}.new", u32::MAX);
    for name in
        [&*dead, &format!("jwks-a.{}.new", std::process::id()), &running, "mine.5.new", "policy-a.new"]
    {
        site.scratch.write(&format!("state/{name}"), "secret");
    }
    let second = start();
    while second.readiness() != Readiness::Ready {
        thread::sleep(Duration::from_millis(5));
    }
    let mut stay = vec![kept[0].clone(), running, "mine.5.new".to_owned(), "policy-a.new".to_owned()];
    stay.sort_unstable();
    let found = names();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, stay);
}
