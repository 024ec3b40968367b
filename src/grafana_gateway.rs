//! The Grafana Gateway: the client's address, signed, as the only cookie of its name on the way to Grafana.
//!
//! Needs no policy. The keys file is read by a thread of its own, so that no request waits for a disk.

use crate::client_ip::signature::{self, KeyRing};
use crate::client_ip::{ClientIp, cookie};
use crate::engine::Level;
use crate::file::{FIRST_SETTLING, FileError, SETTLING, read};
use crate::reason::Reason;
use crate::text::one_line;
use arc_swap::ArcSwapOption;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often the keys file is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Of a request with more than 3000 cookies Go's `net/http` reads none, the stamp neither (since Go 1.24.8 and 1.25.2,
/// CVE-2025-58186). No browser sends as many as this.
const MAX_COOKIES: usize = 1000;

/// What stamps the requests of one configuration.
pub struct Stamper {
    cookie: Box<str>,
    ttl: u64,
    signing: Option<Signing>,
}

struct Signing {
    file: PathBuf,
    ring: ArcSwapOption<KeyRing>,
    /// The first reading is not over.
    loading: AtomicBool,
    /// What waits to be logged.
    message: Mutex<Option<(Level, String)>>,
    /// Why the file cannot be used.
    problem: Mutex<Option<String>>,
}

/// A request that could not be stamped: what remains of its cookies, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStamped {
    /// The Cookie line without any cookie of the stamp's name; `None` where nothing is left.
    pub cookies: Option<Vec<u8>>,
    /// Why, for the log.
    pub problem: &'static str,
}

impl Stamper {
    /// A stamper of the cookie `cookie`, valid for `ttl` seconds (at most [`signature::MAX_TTL`]); without
    /// `keys_file` it writes plain addresses.
    ///
    /// # Errors
    /// The system's, where no thread can be started.
    pub fn start(cookie: &str, keys_file: Option<&Path>, ttl: u64) -> std::io::Result<Arc<Self>> {
        let stamper = Arc::new(Self {
            cookie: cookie.into(),
            ttl: ttl.min(signature::MAX_TTL),
            signing: keys_file.map(|file| Signing {
                file: file.into(),
                ring: ArcSwapOption::empty(),
                loading: AtomicBool::new(true),
                message: Mutex::default(),
                problem: Mutex::default(),
            }),
        });
        if stamper.signing.is_some() {
            let weak = Arc::downgrade(&stamper);
            thread::Builder::new().name("tenantauth-keys".into()).spawn(move || watch(&weak))?;
        }
        Ok(stamper)
    }

    /// Whether the keys are being read for the first time: worth waiting for.
    pub fn is_loading(&self) -> bool {
        self.signing.as_ref().is_some_and(|signing| signing.loading.load(Ordering::Acquire))
    }

    /// What has to be logged, once.
    pub fn take_message(&self) -> Option<(Level, String)> {
        lock(&self.signing.as_ref()?.message).take()
    }

    /// Whether addresses can be stamped.
    pub fn can_stamp(&self) -> bool {
        self.signing.as_ref().is_none_or(|signing| signing.ring.load().is_some())
    }

    /// The id of each key, and what it is used for: `signs` or `verifies`.
    pub fn keys(&self) -> Vec<(String, &'static str)> {
        let ring = self.signing.as_ref().and_then(|signing| signing.ring.load_full());
        ring.iter().flat_map(|ring| ring.uses()).map(|(id, usage)| (id.to_owned(), usage)).collect()
    }

    /// Why the keys file on disk cannot be used, on one line.
    pub fn problem(&self) -> Option<String> {
        lock(&self.signing.as_ref()?.problem).clone()
    }

    /// The value of the stamp.
    fn value(&self, lines: &[u8], address: &[u8], now: u64) -> Result<String, &'static str> {
        if lines.iter().filter(|byte| matches!(byte, b';' | b'\n')).count() >= MAX_COOKIES {
            return Err("there are more cookies than Grafana reads");
        }
        let client = ClientIp::parse(address).map_err(|_: Reason| "the client has no address")?;
        let Some(signing) = &self.signing else { return Ok(client.to_string()) };
        let ring = signing.ring.load();
        let ring = ring.as_deref().ok_or("there are no usable keys")?;
        Ok(signature::sign(ring, &self.cookie, client, now.saturating_add(self.ttl)))
    }

    /// The one Cookie line of the request as it goes to Grafana.
    ///
    /// `lines`: all its Cookie lines, joined by `\n`. `address`: `$remote_addr`. `now`: Unix seconds.
    ///
    /// # Errors
    /// [`NotStamped`] where the address is none (a unix socket), there are no keys, or there are more cookies than
    /// Grafana reads; the cookies of the stamp's
    /// name are removed all the same.
    pub fn stamp(&self, lines: &[u8], address: &[u8], now: u64) -> Result<Vec<u8>, NotStamped> {
        let value = self.value(lines, address, now);
        value.map(|value| cookie::stamp(lines, &self.cookie, &value)).map_err(|problem| NotStamped {
            cookies: match cookie::remove(lines, &self.cookie) {
                cookie::Remaining::Nothing => None,
                cookie::Remaining::Rewritten(rest) => Some(rest),
                cookie::Remaining::Unchanged if lines.is_empty() => None,
                cookie::Remaining::Unchanged => {
                    Some(lines.iter().map(|byte| if *byte == b'\n' { b';' } else { *byte }).collect())
                }
            },
            problem,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(stamper: &Weak<Stamper>) {
    let mut judged: Option<Result<Vec<u8>, FileError>> = None;
    let mut settling = FIRST_SETTLING;
    loop {
        let Some(stamper) = stamper.upgrade() else { return };
        let Some(signing) = &stamper.signing else { return };
        let found = read(&signing.file);
        if judged.as_ref() != Some(&found) {
            thread::sleep(settling);
            if read(&signing.file) != found {
                continue;
            }
            judge(signing, &stamper.cookie, &found);
            judged = Some(found);
        }
        settling = SETTLING;
        signing.loading.store(false, Ordering::Release);
        drop(stamper);
        thread::sleep(INTERVAL);
    }
}

/// Takes new keys, or keeps the ones in force and says why.
fn judge(signing: &Signing, cookie: &str, found: &Result<Vec<u8>, FileError>) {
    let file = signing.file.display();
    let ring = match found {
        Err(error) => Err(format!("cannot read `{file}`: {error}")),
        Ok(content) => KeyRing::parse(content).map_err(|problems| {
            let problems: Vec<_> = problems
                .iter()
                .map(|problem| {
                    format!("{file}:{}: {}; help: {}", problem.line, problem.message, problem.help)
                })
                .collect();
            problems.join("; ")
        }),
    };
    match ring {
        Ok(ring) => {
            let ring = Arc::new(ring);
            let before = signing.ring.swap(Some(Arc::clone(&ring)));
            *lock(&signing.problem) = None;
            if let Some(message) = before.and_then(|before| ring.replacement_of(&before, cookie)) {
                *lock(&signing.message) = Some((Level::Notice, message));
            }
        }
        Err(message) => {
            let message = one_line(&message);
            *lock(&signing.problem) = Some(message.clone());
            *lock(&signing.message) = Some((Level::Error, message));
        }
    }
}
