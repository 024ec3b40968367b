//! Several workers over one memory, with a clock that the test moves. What the thread would do is done by hand.

use super::*;
use std::cell::{RefCell, RefMut};
use std::sync::atomic::AtomicUsize;

const NOW: u64 = 1_800_000_000;

/// A worker without its thread.
struct Worker {
    exchange: RefCell<Exchange>,
    warnings: RefCell<Vec<String>>,
    asked: Arc<AtomicBool>,
}

impl Worker {
    fn new(held: Option<&Arc<Document>>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut exchange = Exchange::new(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        let asked = exchange.set_issuers(vec![("entra".into(), endpoint(), held.cloned())]).remove(0);
        Self { exchange: RefCell::new(exchange), warnings: RefCell::default(), asked }
    }

    fn exchange(&self) -> RefMut<'_, Exchange> {
        self.exchange.borrow_mut()
    }

    fn poll(&self, shared: &mut dyn Shared, now: u64) -> Vec<Work> {
        let Found { work, problems } = self.exchange().poll(shared, now);
        self.warnings.borrow_mut().extend(problems);
        work
    }

    /// One tick; what the thread is asked to do.
    fn tick(&self, shared: &mut Local, now: u64) -> Vec<&'static str> {
        let work = self.poll(shared, now).into_iter();
        work.map(|work| match work {
            Work::Fetch { .. } => "fetch",
            Work::Adopt { id, document } => {
                self.exchange().note_adopted(&id, Some(document));
                "adopt"
            }
            Work::Forget { .. } => "forget",
        })
        .collect()
    }

    fn finish(&self, outcome: Result<Arc<Document>, String>) -> bool {
        match outcome {
            Ok(document) => self.exchange().note_fetched(&id_of(&endpoint()), document),
            Err(error) => return self.exchange().note_failed(&id_of(&endpoint()), &error),
        }
        false
    }

    fn held(&self) -> Option<Arc<Document>> {
        self.exchange().remotes[0].held.clone()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        std::iter::from_fn(|| self.exchange().take_counter()).collect()
    }

    fn warnings(&self) -> usize {
        self.warnings.take().len()
    }
}

fn endpoint() -> Endpoint {
    Endpoint { issuer: "https://issuer.example".into(), jwks_url: None, authorities: None }
}

fn document(keys: &str, now: u64) -> Arc<Document> {
    Arc::new(Document::new(&endpoint(), keys.to_owned(), now))
}

/// What the wait after a failure or the five minutes come to: the memory's clock cannot be moved.
fn expire(shared: &mut Local, kind: &str) {
    shared.delete(&format!("jwks_{kind}:{}", id_of(&endpoint())));
}

#[test]
fn one_worker_fetches_and_the_others_take_it_over() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    assert_eq!(first.tick(shared, NOW), ["fetch"]);
    assert!(first.tick(shared, NOW).is_empty() && second.tick(shared, NOW).is_empty());
    let keys = document("k", NOW);
    first.finish(Ok(Arc::clone(&keys)));
    assert!(second.tick(shared, NOW).is_empty(), "it is told by the first one's next tick");
    assert!(first.tick(shared, NOW).is_empty());
    assert_eq!(second.tick(shared, NOW), ["adopt"]);
    assert_eq!(second.held(), Some(keys.clone()));
    for worker in [&first, &second] {
        assert!(worker.tick(shared, NOW + 1).is_empty());
    }
    assert_eq!(
        first.counters(),
        [(r#"tenantauth_jwks_refreshes_total{issuer="entra",result="success"}"#.to_owned(), 1)]
    );
    // A worker that comes later finds them, and asks nobody.
    let third = Worker::new(None);
    assert_eq!(third.tick(shared, NOW + 2), ["adopt"]);
    assert_eq!(third.held(), Some(keys));
    assert!(third.tick(shared, NOW + 2).is_empty());
}

#[test]
fn keys_are_fetched_again_within_the_hour() {
    for _ in 0..50 {
        let shared = &mut Local::default();
        let worker = Worker::new(None);
        worker.tick(shared, NOW);
        worker.finish(Ok(document("k", NOW)));
        worker.tick(shared, NOW);
        assert!(worker.tick(shared, NOW + REFRESH - JITTER).is_empty());
        assert_eq!(worker.tick(shared, NOW + REFRESH), ["fetch"]);
    }
    // A clock that was set back by a day makes them due, not young.
    let shared = &mut Local::default();
    let worker = Worker::new(Some(&document("k", NOW)));
    assert!(worker.tick(shared, NOW).is_empty());
    assert_eq!(worker.tick(shared, NOW - 86400), ["fetch"]);
}

#[test]
fn what_is_newer_is_taken_over_whatever_its_age_says() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    first.tick(shared, NOW);
    first.finish(Ok(document("old", NOW)));
    first.tick(shared, NOW);
    second.tick(shared, NOW);
    // The clock was set back between the two fetches.
    first.asked.store(true, Ordering::Relaxed);
    assert_eq!(first.tick(shared, NOW), ["fetch"]);
    let new = document("new", NOW - 30);
    first.finish(Ok(new.clone()));
    first.tick(shared, NOW - 30);
    assert_eq!(second.tick(shared, NOW - 30), ["adopt"]);
    assert_eq!([first.held(), second.held()], [Some(new.clone()), Some(new)]);
}

#[test]
fn unknown_key_ids_lead_to_one_fetch_in_five_minutes() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    first.tick(shared, NOW);
    // What is asked for during the first fetch is asked by it.
    second.asked.store(true, Ordering::Relaxed);
    first.finish(Ok(document("k", NOW)));
    first.tick(shared, NOW);
    assert_eq!(second.tick(shared, NOW), ["adopt"]);
    assert!(second.tick(shared, NOW).is_empty());
    let mut fetches = 0;
    for tick in 0..1000 {
        for worker in [&first, &second] {
            worker.asked.store(true, Ordering::Relaxed);
            for task in worker.tick(shared, NOW + tick / 4) {
                if task == "fetch" {
                    fetches += 1;
                    worker.finish(Ok(document("k", NOW + tick / 4)));
                }
            }
        }
    }
    assert_eq!(fetches, 1);
    expire(shared, "unknown");
    second.asked.store(true, Ordering::Relaxed);
    assert_eq!(second.tick(shared, NOW + 300), ["fetch"]);
}

#[test]
fn a_failure_keeps_the_keys_and_is_told_to_all() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    first.tick(shared, NOW);
    let keys = document("k", NOW);
    first.finish(Ok(keys.clone()));
    first.tick(shared, NOW);
    second.tick(shared, NOW);
    let later = NOW + REFRESH;
    assert_eq!(second.tick(shared, later), ["fetch"]);
    assert!(!second.finish(Err("refused".to_owned())), "the first failure is told");
    assert!(second.tick(shared, later).is_empty());
    assert!(first.tick(shared, later).is_empty(), "nobody tries for a while");
    for worker in [&first, &second] {
        let exchange = worker.exchange();
        let failure = exchange.remotes[0].failure.clone().unwrap();
        assert_eq!((failure.at, failure.count, &*failure.error), (later, 1, "refused"));
        assert_eq!(exchange.remotes[0].held, Some(keys.clone()));
    }
    expire(shared, "lock");
    assert_eq!(first.tick(shared, later + 30), ["fetch"]);
    assert!(first.finish(Err("refused".to_owned())), "the same again needs no further word");
    first.tick(shared, later + 30);
    expire(shared, "lock");
    assert_eq!(first.tick(shared, later + 90), ["fetch"]);
    let newer = document("n", later + 90);
    assert!(!first.finish(Ok(newer.clone())));
    first.tick(shared, later + 90);
    assert_eq!(second.tick(shared, later + 90), ["adopt"]);
    for worker in [&first, &second] {
        assert_eq!(worker.exchange().remotes[0].failure, None);
        assert_eq!(worker.held(), Some(newer.clone()));
    }
    assert_eq!(
        second.counters(),
        [(r#"tenantauth_jwks_refreshes_total{issuer="entra",result="failure"}"#.to_owned(), 1)]
    );
}

#[test]
fn waits_grow_and_are_short_while_nobody_gets_in() {
    let seconds = |keys| [1, 2, 3, 4, 9, u32::MAX].map(|failures| wait_after(failures, keys).as_secs());
    assert_eq!(seconds(true), [30, 60, 120, 240, 300, 300]);
    assert_eq!(seconds(false), [1, 2, 4, 5, 5, 5]);
}

#[test]
fn keys_that_cannot_be_fetched_for_a_day_are_dropped_by_all() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    first.tick(shared, NOW);
    first.finish(Ok(document("k", NOW)));
    first.tick(shared, NOW);
    second.tick(shared, NOW);
    let end = NOW + KEEP;
    assert_eq!(first.tick(shared, end - 1), ["fetch"]);
    first.finish(Err("refused".to_owned()));
    first.tick(shared, end - 1);
    assert!(second.tick(shared, end - 1).is_empty());
    for worker in [&first, &second] {
        assert_eq!(worker.tick(shared, end), ["forget"]);
        assert_eq!(worker.held(), None);
        assert!(worker.tick(shared, end).is_empty());
    }
    // Nor does a worker that comes later use them.
    let third = Worker::new(None);
    assert!(third.tick(shared, end).is_empty());
    assert_eq!(third.held(), None);
}

#[test]
fn a_memory_that_forgets_is_told_again() {
    let shared = &mut Local::default();
    let [first, second] = [Worker::new(None), Worker::new(None)];
    first.tick(shared, NOW);
    let keys = document("k", NOW);
    first.finish(Ok(keys.clone()));
    first.tick(shared, NOW);
    second.tick(shared, NOW);
    *shared = Local::default();
    assert!(first.tick(shared, NOW).is_empty());
    let third = Worker::new(None);
    assert_eq!(third.tick(shared, NOW), ["adopt"]);
    assert_eq!(third.held(), Some(keys));
    second.tick(shared, NOW);
    for worker in [&first, &second, &third] {
        assert!(worker.tick(shared, NOW).is_empty());
    }
}

/// A memory in which another worker acts at the last moment before a lock is taken.
struct Contended<'a> {
    memory: Local,
    other: Option<&'a Worker>,
}

impl Shared for Contended<'_> {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.memory.get(key)
    }
    fn number(&self, key: &str) -> Option<u64> {
        self.memory.number(key)
    }
    fn add(&mut self, key: &str, value: &[u8], lifetime: Duration) -> bool {
        if let Some(other) = self.other.take() {
            other.tick(&mut self.memory, NOW);
        }
        self.memory.add(key, value, lifetime)
    }
    fn set(&mut self, key: &str, value: &[u8], lifetime: Option<Duration>) -> bool {
        self.memory.set(key, value, lifetime)
    }
    fn increment(&mut self, key: &str) -> Option<u64> {
        self.memory.increment(key)
    }
    fn delete(&mut self, key: &str) {
        self.memory.delete(key);
    }
}

#[test]
fn what_was_published_just_before_the_lock_is_not_fetched_again() {
    let [first, second] = [Worker::new(None), Worker::new(None)];
    let mut shared = Contended { memory: Local::default(), other: None };
    assert_eq!(first.tick(&mut shared.memory, NOW), ["fetch"]);
    let keys = document("k", NOW);
    first.finish(Ok(Arc::clone(&keys)));
    shared.other = Some(&first);
    let work = second.poll(&mut shared, NOW);
    assert!(shared.other.is_none() && work.is_empty());
    assert_eq!(second.tick(&mut shared.memory, NOW), ["adopt"]);
    assert_eq!(second.held(), Some(keys));
    // A request that meets an unknown key now is asked, and not taken for one that the second fetch answered.
    second.asked.store(true, Ordering::Relaxed);
    assert_eq!(second.tick(&mut shared.memory, NOW), ["fetch"]);
}

/// A memory without room for a key set.
struct Full(Local);

impl Shared for Full {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.get(key)
    }
    fn number(&self, key: &str) -> Option<u64> {
        self.0.number(key)
    }
    fn add(&mut self, key: &str, value: &[u8], lifetime: Duration) -> bool {
        self.0.add(key, value, lifetime)
    }
    fn set(&mut self, key: &str, value: &[u8], lifetime: Option<Duration>) -> bool {
        !key.starts_with("jwks:") && self.0.set(key, value, lifetime)
    }
    fn increment(&mut self, key: &str) -> Option<u64> {
        self.0.increment(key)
    }
    fn delete(&mut self, key: &str) {
        self.0.delete(key);
    }
}

#[test]
fn without_room_to_share_each_worker_fetches_for_itself() {
    let shared = &mut Full(Local::default());
    let [first, second] = [Worker::new(None), Worker::new(None)];
    let tick = |worker: &Worker, shared: &mut Full| {
        worker.poll(shared, NOW).iter().filter(|work| matches!(work, Work::Fetch { .. })).count()
    };
    assert_eq!(tick(&first, shared), 1);
    first.finish(Ok(document("k", NOW)));
    assert_eq!(tick(&first, shared), 0);
    assert_eq!(first.warnings(), 1);
    // A withdrawn key must not live on in the second: it fetches at once, and only once.
    assert_eq!(tick(&second, shared), 1);
    second.finish(Ok(document("k", NOW)));
    assert_eq!(tick(&second, shared), 0);
    for _ in 0..10 {
        // Each publishes a version that the other has to look at; that must come to an end.
        tick(&first, shared);
        tick(&second, shared);
    }
    assert_eq!([first.held(), second.held()].map(|held| held.is_some()), [true, true]);
}

#[test]
fn a_fetch_that_outlived_its_lock_gives_way() {
    let shared = &mut Local::default();
    let [slow, quick] = [Worker::new(None), Worker::new(None)];
    assert_eq!(slow.tick(shared, NOW), ["fetch"]);
    expire(shared, "lock");
    assert_eq!(quick.tick(shared, NOW + 60), ["fetch"]);
    let newer = document("newer", NOW + 60);
    quick.finish(Ok(newer.clone()));
    quick.tick(shared, NOW + 60);
    slow.finish(Ok(document("older", NOW)));
    assert_eq!(slow.tick(shared, NOW + 61), ["adopt"]);
    assert_eq!([slow.held(), quick.held()], [Some(newer.clone()), Some(newer)]);
    assert!(quick.tick(shared, NOW + 61).is_empty());
}

#[test]
fn a_worker_on_its_own_needs_no_memory() {
    let (worker, alone) = (Worker::new(None), RefCell::new(Local::default()));
    let tick = |now| worker.tick(&mut alone.borrow_mut(), now).len();
    assert_eq!(tick(NOW), 1);
    assert_eq!(tick(NOW), 0);
    worker.finish(Ok(document("k", NOW)));
    assert_eq!(tick(NOW), 0);
    worker.asked.store(true, Ordering::Relaxed);
    assert_eq!([tick(NOW), tick(NOW)], [1, 0]);
}

#[test]
fn an_issuer_keeps_its_state_over_a_change_of_the_policy() {
    let shared = &mut Local::default();
    let worker = Worker::new(None);
    worker.tick(shared, NOW);
    let issuer = |name: &str, url: Option<&str>| {
        let endpoint = Endpoint { jwks_url: url.map(Into::into), ..endpoint() };
        (name.into(), endpoint, None)
    };
    // The same under another name is still being fetched; another address is another thing.
    worker.exchange().set_issuers(vec![issuer("renamed", None), issuer("b", Some("https://b/k"))]);
    assert_eq!(worker.tick(shared, NOW), ["fetch"]);
    let exchange = worker.exchange();
    assert_eq!(exchange.remotes.iter().map(|remote| remote.fetching).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn documents_are_read_as_written_and_in_no_other_way() {
    let document = document(r#"{"keys": []}"#, NOW);
    let bytes = document.to_bytes();
    assert_eq!(Document::from_bytes(&bytes).as_ref(), Some(&*document));
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        let read = Document::from_bytes(&other);
        // A time may be another time; the keys are those that were fetched.
        assert!(read.is_none_or(|read| read.jwks == document.jwks), "byte {at}");
        assert!(Document::from_bytes(&bytes[..at]).is_none());
    }
    let other = Endpoint { jwks_url: Some("https://issuer.example/k".into()), ..endpoint() };
    assert!(document.is_of(&endpoint()) && !document.is_of(&other));
    assert_ne!(id_of(&endpoint()), id_of(&other));
}

mod on_disk {
    use super::*;
    use crate::engine::StateError;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_private_and_checked_when_it_is_read() {
        let directory = std::env::temp_dir().join(format!("tenantauth-state-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let endpoint = endpoint();
        assert_eq!(state::recall(&directory, &endpoint, NOW), Ok(None));
        let document = document(r#"{"keys": []}"#, NOW);
        state::keep(&directory, &endpoint, &document).unwrap();
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
        let [file] = &files[..] else { panic!("one file, no draft: {files:?}") };
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let recall = |now| state::recall(&directory, &endpoint, now);
        assert_eq!(recall(NOW + KEEP - 1), Ok(Some((*document).clone())));
        let ends = |result: Result<_, StateError>, end: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.ends_with(end), "{text}");
        };
        ends(recall(NOW + KEEP), "it is older than 24 hours");
        ends(recall(NOW - 1), "it was written in the future");
        let whole = fs::read(file).unwrap();
        fs::write(file, &whole[..whole.len() - 1]).unwrap();
        ends(recall(NOW), "it is damaged");
        let other = Endpoint { issuer: "https://other.example".into(), ..endpoint.clone() };
        fs::write(file, Document::new(&other, "k".into(), NOW).to_bytes()).unwrap();
        ends(recall(NOW), "it holds the keys of another issuer");
        fs::write(file, &whole).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o620)).unwrap();
        ends(recall(NOW), "others than its owner may write it");
        // A directory that is not there is an error, and nothing is left half written.
        assert!(state::keep(&directory.join("none"), &endpoint, &document).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_set_that_cannot_be_shared_is_fetched_once_by_each_worker() {
    let mut shared = Full(Local::default());
    let workers = [Worker::new(None), Worker::new(None)];
    let mut fetches = 0;
    for round in 0..40 {
        for worker in &workers {
            let work = worker.poll(&mut shared, NOW + round / 4);
            if work.iter().any(|work| matches!(work, Work::Fetch { .. })) {
                fetches += 1;
                worker.finish(Ok(document("k", NOW + round / 4)));
            }
        }
    }
    assert!(fetches <= 2, "{fetches} fetches in 10 s");
}
