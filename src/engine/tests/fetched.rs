//! Keys that are fetched over HTTP from a server of the test, by real engines with their threads.

use super::super::keys::Local;
use super::*;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;

/// Serves a key set at `/keys`: what is set, or an error while nothing is.
struct Provider {
    port: u16,
    keys: Arc<Mutex<Option<String>>>,
    fetches: Arc<AtomicUsize>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self {
            port: listener.local_addr().unwrap().port(),
            keys: Arc::default(),
            fetches: Arc::default(),
        };
        let (keys, fetches) = (Arc::clone(&provider.keys), Arc::clone(&provider.fetches));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).is_err() {
                    continue;
                }
                fetches.fetch_add(1, Ordering::Relaxed);
                let (status, body) = match lock(&keys).clone() {
                    Some(keys) => ("200 OK", keys),
                    None => ("500 Internal Server Error", String::new()),
                };
                _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        provider
    }

    fn publish(&self, keys: &[(&str, Algorithm)]) {
        *lock(&self.keys) = Some(key_set(keys));
    }

    fn fail(&self) {
        *lock(&self.keys) = None;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    fn policy(&self, tail: &str) -> String {
        let url = format!("jwks_url: http://127.0.0.1:{}/keys", self.port);
        policy(tail).replace("jwks_file: jwks.json", &url)
    }
}

/// A worker's engine that is ticked as nginx's timer would.
struct Ticked<'s> {
    site: Site,
    shared: Option<&'s Mutex<Local>>,
}

impl<'s> Ticked<'s> {
    fn start(scratch: Scratch, inherited: Inherited, state: bool, shared: Option<&'s Mutex<Local>>) -> Self {
        let settling = Duration::from_millis(100);
        let state_dir = state.then(|| scratch.path(""));
        let options = Options { state_dir, ..scratch.options("policy.yaml") };
        let engine = Engine::start_settling(options, inherited, settling).unwrap();
        let ticked = Self { site: Site { scratch, engine }, shared };
        ticked.site.wait_for("the policy", |site| site.engine.readiness() == Readiness::Ready);
        ticked
    }

    fn new(provider: &Provider) -> Self {
        let scratch = Scratch::new();
        scratch.write("policy.yaml", &provider.policy(TAIL));
        Self::start(scratch, Inherited::default(), false, None)
    }

    fn tick(&self) {
        let engine = &self.site.engine;
        match self.shared {
            Some(shared) => engine.exchange(Some(&mut *lock(shared)), unix_now()),
            None => engine.exchange(None, unix_now()),
        }
    }

    fn wait_for_reason(&self, token: &str, wanted: Reason) {
        let took = self.site.wait_for(wanted.name(), |site| {
            self.tick();
            site.reason(&query(token)) == wanted
        });
        assert!(took < PROMISED, "{wanted} after {took:?}");
    }

    fn reason(&self, token: &str) -> Reason {
        self.site.reason(&query(token))
    }

    fn issuer(&self) -> Value {
        self.site.engine.status()["issuers"][0].clone()
    }

    /// Ends the engine, keeps its directory.
    fn end(self) -> Scratch {
        self.site.scratch
    }
}

const BOTH: [(&str, Algorithm); 2] = [("r", Algorithm::Rs256), ("e", Algorithm::Es256)];

#[test]
fn requests_wait_for_nobody_and_go_on_when_keys_come() {
    let provider = Provider::start();
    let worker = Ticked::new(&provider);
    let good = signed("r", &claims());
    assert_eq!(worker.reason(&good), Reason::KeysUnavailable);
    assert_eq!(worker.issuer()["last_success"], Value::Null);
    worker.site.wait_for("a failed fetch", |_| {
        worker.tick();
        worker.issuer()["last_error"]["error"].is_string()
    });
    assert_eq!(worker.reason(&good), Reason::KeysUnavailable);
    let errors = worker.site.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("issuer `entra`: the keys could not be fetched: "), "{errors:?}");
    assert!(errors[0].ends_with("; there are none, and its users are answered 503"), "{errors:?}");
    provider.publish(&BOTH);
    worker.wait_for_reason(&good, Reason::Granted);
    let issuer = worker.issuer();
    assert_eq!([&issuer["name"], &issuer["source"]], ["entra", "jwks_url"]);
    assert_eq!([&issuer["keys"], &issuer["last_error"]], [&json!(2), &Value::Null]);
    assert!(issuer["age_seconds"].as_u64().unwrap() < 5, "{issuer}");
    let gauges = worker.site.engine.gauges();
    assert_eq!(gauges.jwks_keys, [("entra".to_owned(), 2)]);
    assert_eq!(gauges.jwks_last_success.len(), 1);
    let messages = worker.site.messages();
    let told = (Level::Notice, "issuer `entra`: keys fetched: `r`, `e`".to_owned());
    assert!(messages.contains(&told), "{messages:?}");
}

#[test]
fn a_rotation_is_followed_and_a_withdrawn_key_dies_with_its_cached_tokens() {
    let provider = Provider::start();
    provider.publish(&[("r", Algorithm::Rs256)]);
    let worker = Ticked::new(&provider);
    let (old, new) = (signed("r", &claims()), signed("e", &claims()));
    worker.wait_for_reason(&old, Reason::Granted);
    assert_eq!(worker.reason(&new), Reason::TokenKeyUnknown);
    let before = provider.fetches();
    provider.publish(&[("e", Algorithm::Es256)]);
    // Asked for by the token with the new key, and by no other request.
    assert_eq!(worker.site.cache(&query(&old)), CacheUse::Hit);
    worker.wait_for_reason(&new, Reason::Granted);
    assert_eq!(worker.reason(&old), Reason::TokenKeyUnknown);
    assert_eq!(provider.fetches(), before + 1);
    // What follows is limited, and so is every other issuer's kid.
    for _ in 0..100 {
        worker.reason(&old);
        worker.tick();
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(provider.fetches(), before + 1);
}

#[test]
fn a_failed_refresh_replaces_nothing() {
    let provider = Provider::start();
    provider.publish(&[("r", Algorithm::Rs256)]);
    let worker = Ticked::new(&provider);
    let good = signed("r", &claims());
    worker.wait_for_reason(&good, Reason::Granted);
    let age = worker.issuer()["last_success"].clone();
    for (answer, error) in [
        (Some(r#"{"keys": []}"#), "holds no key"),
        (
            Some(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#),
            "holds no usable key; of the first, it is a shared secret",
        ),
        (Some("hello"), "`"),
        (None, "500"),
    ] {
        *lock(&provider.keys) = answer.map(str::to_owned);
        let asked = Cell::new(None::<Instant>);
        let told = worker.site.wait_for(error, |site| {
            // Who asks while the fetch before is not told of yet is taken for answered by it, and asks again.
            if asked.get().is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                *lock(&worker.site.engine.alone) = Local::default();
                worker.reason(&signed("e", &claims()));
                asked.set(Some(Instant::now()));
            }
            worker.tick();
            site.errors()
                .iter()
                .any(|text| text.contains(error) && text.contains("; the ones in force stay until "))
        });
        assert!(told < PROMISED);
        assert_eq!(worker.reason(&good), Reason::Granted);
        worker.tick();
        assert_eq!([&worker.issuer()["last_success"], &worker.issuer()["keys"]], [&age, &json!(1)]);
    }
}

#[test]
fn workers_share_what_one_of_them_fetched() {
    let provider = Provider::start();
    provider.publish(&[("r", Algorithm::Rs256)]);
    let memory = Mutex::default();
    let [first, second] = [(); 2].map(|()| {
        let scratch = Scratch::new();
        scratch.write("policy.yaml", &provider.policy(TAIL));
        Ticked::start(scratch, Inherited::default(), false, Some(&memory))
    });
    let (old, new) = (signed("r", &claims()), signed("e", &claims()));
    for worker in [&first, &second] {
        worker.site.wait_for("keys", |_| {
            first.tick();
            second.tick();
            worker.reason(&old) == Reason::Granted
        });
    }
    assert_eq!(provider.fetches(), 1);
    provider.publish(&[("e", Algorithm::Es256)]);
    assert_eq!(second.reason(&new), Reason::TokenKeyUnknown);
    first.site.wait_for("the withdrawal in the other worker", |_| {
        first.tick();
        second.tick();
        first.reason(&old) == Reason::TokenKeyUnknown
    });
    assert_eq!([first.reason(&new), second.reason(&new)], [Reason::Granted; 2]);
    assert_eq!(provider.fetches(), 2);
}

#[test]
fn successors_begin_with_the_keys_of_those_before_them() {
    let provider = Provider::start();
    provider.publish(&BOTH);
    let scratch = Scratch::new();
    scratch.write("policy.yaml", &provider.policy(TAIL));
    let worker = Ticked::start(scratch, Inherited::default(), true, None);
    let good = signed("r", &claims());
    worker.wait_for_reason(&good, Reason::Granted);
    let published = lock(&worker.site.engine.exchange).remotes().next().unwrap().held.clone().unwrap();
    provider.fail();
    let fetches = provider.fetches();
    // Through a reload of nginx by the shared memory, through a restart by the directory.
    let mut scratch = worker.end();
    for (keys, state) in [(vec![published.to_bytes()], false), (vec![], true)] {
        let inherited = Inherited { keys, ..Inherited::default() };
        let worker = Ticked::start(scratch, inherited, state, None);
        // From the first moment on, without a tick.
        assert_eq!(worker.reason(&good), Reason::Granted);
        worker.tick();
        scratch = worker.end();
    }
    assert_eq!(provider.fetches(), fetches, "they are young enough");
    // Neither is there without them.
    let worker = Ticked::start(scratch, Inherited::default(), false, None);
    assert_eq!(worker.reason(&good), Reason::KeysUnavailable);
    let scratch = worker.end();
    // What is damaged is told and not used.
    let file = fs::read_dir(scratch.path("")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.to_string_lossy().contains("jwks-")).unwrap();
    fs::write(&file, "{}").unwrap();
    let worker = Ticked::start(scratch, Inherited::default(), true, None);
    assert_eq!(worker.reason(&good), Reason::KeysUnavailable);
    assert!(worker.site.messages().iter().any(|(_, text)| text.ends_with("is not used: it is damaged")));
}

#[test]
fn keys_go_with_the_policy_and_are_read_under_its_rules() {
    let provider = Provider::start();
    provider.publish(&BOTH);
    let worker = Ticked::new(&provider);
    let (rsa, ec) = (signed("r", &claims()), signed("e", &claims()));
    worker.wait_for_reason(&ec, Reason::Granted);
    let before = provider.fetches();
    let change = |text: &str, wanted: (Reason, Reason)| {
        worker.site.scratch.write("policy.yaml", text);
        worker.site.wait_for("the change", |_| (worker.reason(&rsa), worker.reason(&ec)) == wanted);
        worker.tick();
    };
    let text = provider.policy(TAIL);
    change(&text.replace("[RS256, ES256]", "[RS256]"), (Reason::Granted, Reason::TokenUnsupported));
    change(&text, (Reason::Granted, Reason::Granted));
    // While the policy is broken, keys are replaced all the same.
    worker.site.scratch.write("policy.yaml", "broken\n");
    worker.site.wait_for("the refusal", |site| !site.engine.gauges().last_reload_successful);
    assert_eq!(provider.fetches(), before, "a change of the policy fetches nothing");
    provider.publish(&[("r", Algorithm::Rs256)]);
    worker.reason(&signed("x", &claims()));
    worker.wait_for_reason(&ec, Reason::TokenKeyUnknown);
    assert_eq!(worker.reason(&rsa), Reason::Granted);
}
