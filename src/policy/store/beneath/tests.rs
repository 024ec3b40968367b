use super::super::{MAX_OWNER_BYTES, content, read_owner};
use super::*;
use std::io::{Read, Seek};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A directory of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tenantauth-store-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

const WAYS: [(&str, Open); 2] = [("openat2", open_beneath), ("verified", open_verified)];

/// A policy's directory with two owners' documents, and something outside.
fn directory() -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("policy/owners.d")).unwrap();
    for file in ["policy/policy.yaml", "policy/client-ip.keys", "policy/owners.d/team-b.yaml", "outside"] {
        fs::write(scratch.path(file), file).unwrap();
    }
    scratch
}

fn read(way: Open, scratch: &Scratch) -> Result<String, FileError> {
    let name = OsStr::new("team-a.yaml");
    let path = Path::new("owners.d").join(name);
    let mut text = String::new();
    open_by(way, &scratch.path("policy"), &path, Some(name))?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn an_owners_file_is_its_own_and_inside() {
    type Make = fn(&Scratch, &Path);
    let good: [(&str, Make); 7] = [
        ("a file", |_, file| fs::write(file, "a").unwrap()),
        ("a volume in `owners.d`", |scratch, file| {
            fs::create_dir(scratch.path("policy/owners.d/..2026_1")).unwrap();
            fs::write(scratch.path("policy/owners.d/..2026_1/team-a.yaml"), "a").unwrap();
            symlink("..2026_1", scratch.path("policy/owners.d/..data")).unwrap();
            symlink("..data/team-a.yaml", file).unwrap();
        }),
        ("a volume at the policy's directory", |scratch, _| {
            fs::create_dir_all(scratch.path("policy/..2026_1")).unwrap();
            fs::rename(scratch.path("policy/owners.d"), scratch.path("policy/..2026_1/owners.d")).unwrap();
            fs::write(scratch.path("policy/..2026_1/owners.d/team-a.yaml"), "a").unwrap();
            symlink("..2026_1", scratch.path("policy/..data")).unwrap();
            symlink("..data/owners.d", scratch.path("policy/owners.d")).unwrap();
        }),
        ("a volume beside", |scratch, file| {
            fs::create_dir_all(scratch.path("policy/volumes/a/..1")).unwrap();
            fs::write(scratch.path("policy/volumes/a/..1/team-a.yaml"), "a").unwrap();
            symlink("..1", scratch.path("policy/volumes/a/..data")).unwrap();
            symlink("..data/team-a.yaml", scratch.path("policy/volumes/a/team-a.yaml")).unwrap();
            symlink("../volumes/a/team-a.yaml", file).unwrap();
        }),
        ("an absolute link inside", |scratch, file| {
            fs::create_dir(scratch.path("policy/v1")).unwrap();
            fs::write(scratch.path("policy/v1/team-a.yaml"), "a").unwrap();
            symlink(scratch.path("policy/v1/team-a.yaml"), file).unwrap();
        }),
        ("an absolute link of the directory", |scratch, _| {
            fs::create_dir(scratch.path("policy/v1")).unwrap();
            fs::rename(scratch.path("policy/owners.d"), scratch.path("policy/v1/owners.d")).unwrap();
            fs::write(scratch.path("policy/v1/owners.d/team-a.yaml"), "a").unwrap();
            symlink(scratch.path("policy/v1/owners.d"), scratch.path("policy/owners.d")).unwrap();
        }),
        ("a policy that is itself a link", |scratch, file| {
            fs::write(file, "a").unwrap();
            fs::rename(scratch.path("policy"), scratch.path("policy-1")).unwrap();
            symlink("policy-1", scratch.path("policy")).unwrap();
        }),
    ];
    for (what, make) in good {
        let scratch = directory();
        make(&scratch, &scratch.path("policy/owners.d/team-a.yaml"));
        for (way, open) in WAYS {
            assert_eq!(read(open, &scratch).as_deref(), Ok("a"), "{what}, {way}");
        }
    }
    let other = |name: &str| format!("it leads to `{name}`, and may lead only to a file of its own name");
    let bad: [(&str, Make, &str); 11] = [
        ("another owner's", |_, file| symlink("team-b.yaml", file).unwrap(), &other("team-b.yaml")),
        ("the platform's", |_, file| symlink("../policy.yaml", file).unwrap(), &other("policy.yaml")),
        ("keys", |_, file| symlink("../client-ip.keys", file).unwrap(), &other("client-ip.keys")),
        (
            "another owner's, in the volume",
            |scratch, file| {
                fs::create_dir(scratch.path("policy/owners.d/..1")).unwrap();
                fs::write(scratch.path("policy/owners.d/..1/team-b.yaml"), "b").unwrap();
                symlink("..1", scratch.path("policy/owners.d/..data")).unwrap();
                symlink("..data/team-b.yaml", file).unwrap();
            },
            &other("team-b.yaml"),
        ),
        (
            "another owner's, by its own name elsewhere",
            |scratch, file| {
                fs::create_dir(scratch.path("policy/x")).unwrap();
                symlink("../owners.d/team-b.yaml", scratch.path("policy/x/team-a.yaml")).unwrap();
                symlink("../x/team-a.yaml", file).unwrap();
            },
            &other("team-b.yaml"),
        ),
        (
            "another owner's, absolute",
            |scratch, file| symlink(scratch.path("policy/owners.d/team-b.yaml"), file).unwrap(),
            &other("team-b.yaml"),
        ),
        (
            "outside",
            |_, file| symlink("../../outside", file).unwrap(),
            "it leads out of the directory, to `../../outside`",
        ),
        (
            "outside, by its own name",
            |scratch, file| {
                fs::write(scratch.path("team-a.yaml"), "a").unwrap();
                symlink("../../team-a.yaml", file).unwrap();
            },
            "it leads out of the directory, to `../../team-a.yaml`",
        ),
        (
            "a directory outside",
            |scratch, _| {
                fs::rename(scratch.path("policy/owners.d"), scratch.path("owners.d")).unwrap();
                fs::write(scratch.path("owners.d/team-a.yaml"), "a").unwrap();
                symlink("../owners.d", scratch.path("policy/owners.d")).unwrap();
            },
            "it leads out of the directory",
        ),
        (
            "a directory of a longer name",
            |scratch, file| {
                fs::create_dir(scratch.path("policy-old")).unwrap();
                fs::write(scratch.path("policy-old/team-a.yaml"), "a").unwrap();
                symlink(scratch.path("policy-old/team-a.yaml"), file).unwrap();
            },
            "it leads out of the directory, to `/",
        ),
        (
            "itself",
            |_, file| symlink("team-a.yaml", file).unwrap(),
            "too many levels of symbolic links (os error 40)",
        ),
    ];
    for (what, make, words) in bad {
        let scratch = directory();
        make(&scratch, &scratch.path("policy/owners.d/team-a.yaml"));
        for (way, open) in WAYS {
            let said = read(open, &scratch).unwrap_err().to_string();
            assert!(said.starts_with(words), "{what}, {way}: {said}");
        }
    }
}

/// Neither a FIFO nor a socket outside is opened: a FIFO's writer would see its reader come.
#[test]
fn nothing_outside_is_opened() {
    let scratch = directory();
    let file = scratch.path("policy/owners.d/team-a.yaml");
    assert!(Command::new("mkfifo").arg(scratch.path("team-a.yaml")).status().unwrap().success());
    symlink("../../team-a.yaml", &file).unwrap();
    let opened = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Opens once there is a reader.
            let fifo = fs::OpenOptions::new().write(true).open(scratch.path("team-a.yaml"));
            opened.store(true, Ordering::Relaxed);
            fifo
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        for (way, open) in WAYS {
            assert!(matches!(read(open, &scratch), Err(FileError::Outside(_))), "{way}");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!opened.load(Ordering::Relaxed));
        let reader = fs::File::open(scratch.path("team-a.yaml")).unwrap();
        drop((writer.join().unwrap(), reader));
    });
    fs::remove_file(scratch.path("team-a.yaml")).unwrap();
    let _listener = UnixListener::bind(scratch.path("team-a.yaml")).unwrap();
    for (way, open) in WAYS {
        assert!(matches!(read(open, &scratch), Err(FileError::Outside(_))), "{way}");
    }
}

/// While a link goes to and fro between two files, each reading is one of them whole, or refused.
#[test]
fn what_was_checked_is_what_is_read() {
    let scratch = directory();
    let owners = scratch.path("policy/owners.d");
    fs::create_dir(owners.join("..1")).unwrap();
    fs::write(owners.join("..1/team-a.yaml"), "a").unwrap();
    let stop = AtomicBool::new(false);
    symlink("..1/team-a.yaml", owners.join("team-a.yaml")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for to in ["../../outside", "team-b.yaml", "..1/team-a.yaml"] {
                    symlink(to, owners.join(".next")).unwrap();
                    fs::rename(owners.join(".next"), owners.join("team-a.yaml")).unwrap();
                }
            }
        });
        let mut seen = [0; 3];
        for _ in 0..5_000 {
            for (way, open) in WAYS {
                match read(open, &scratch) {
                    Ok(text) => {
                        assert_eq!(text, "a", "{way}");
                        seen[0] += 1;
                    }
                    Err(FileError::OtherName(name)) if name.ends_with("team-b.yaml") => seen[1] += 1,
                    Err(FileError::Outside(_)) => seen[2] += 1,
                    Err(other) => panic!("{way}: {other}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    });
}

/// Bytes that this thread has read so far (proc(5), `/proc/thread-self/io`).
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn no_more_is_read_of_an_owners_file_than_it_may_hold() {
    let scratch = directory();
    let file = scratch.path("policy/owners.d/team-a.yaml");
    fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
    let before = bytes_read();
    assert_eq!(read_owner(&scratch.path("policy"), &file), Err(FileError::TooLarge(1 << 20)));
    assert!(bytes_read() - before < 2 << 20, "{}", bytes_read() - before);
    fs::File::create(&file).unwrap().set_len(MAX_OWNER_BYTES).unwrap();
    assert_eq!(read_owner(&scratch.path("policy"), &file).map(|content| content.len()), Ok(1 << 20));
}

#[test]
fn a_file_that_is_longer_than_it_says_is_read_to_the_bound() {
    // Files of procfs say that they are empty.
    let mut status = fs::File::open("/proc/self/status").unwrap();
    assert!(content(status.try_clone().unwrap(), 16).is_err());
    assert_eq!(status.stream_position().unwrap(), 17);
}

/// Links and names of files are their makers' texts: none of them begins a line of the error log.
#[test]
fn what_lies_in_the_directory_is_told_on_one_line() {
    let forged = "x\n2026 [emerg] forged\u{1b}[31m";
    let scratch = directory();
    fs::write(scratch.path(forged), "x").unwrap();
    symlink(format!("../../{forged}"), scratch.path("policy/owners.d/team-a.yaml")).unwrap();
    fs::write(scratch.path("policy/owners.d").join(forged), "x").unwrap();
    let platform = "version: 1\nissuers: [{issuer: https://a.example, audiences: [g], jwks_url: https://a.example/k}]\n\
                    owners: {team-a: {tenants: [a]}}\n";
    fs::write(scratch.path("policy/policy.yaml"), platform).unwrap();
    let (outcome, ..) = super::super::load(&scratch.path("policy"), 0);
    let said = outcome.owners.iter().flat_map(|owner| &owner.diagnostics).chain(&outcome.diagnostics);
    let said: Vec<String> = said.map(crate::policy::diagnostic::Diagnostic::one_line).collect();
    assert_eq!(said.iter().filter(|text| text.contains("forged")).count(), 2, "{said:#?}");
    assert!(!said.iter().any(|text| text.contains(char::is_control)), "{said:#?}");
}
