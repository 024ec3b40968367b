//! A real nginx worker with a policy: what it takes, and how long its event loop stands still while another is loaded.

use crate::common::typical::{OFFICE, PATH, QUERY};
use crate::policy::Size;
use crate::support::client::Request;
use crate::support::nginx::{Launch, Nginx, install, resident_kib};
use crate::support::site::{COOKIE_KEY, TEMPORARY};
use crate::support::tokens::{claims_with, key};
use crate::support::wait_for;
use crate::support::workspace::{Process, Workspace, free_port};
use serde_json::{Value, json};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A timer of 1 ms in the worker notes the longest time between two of its calls. Read from the monotonic clock itself:
/// nginx's own has the resolution of what is measured. `keepalive_requests` stays at nginx's 1000: until a connection ends,
/// nginx keeps 87 bytes of every request with a large header, which would be measured as ours.
const CONFIGURATION: &str = r#"
worker_processes 1;
error_log @DIR@/error.log warn;
pid @DIR@/nginx.pid;
events { worker_connections 1024; }
http {
    @TEMPORARY@
    access_log off;
    lua_package_cpath "@DIR@/lib/tenantauth/?.so;;";
    lua_shared_dict tenantauth 30m;
    lua_max_running_timers 64;
    include @DIR@/share/tenantauth/http.conf;
    init_worker_by_lua_block {
        require("tenantauth").init_worker { policy = "@DIR@/policy" }
        local ffi = require("ffi")
        ffi.cdef [[ struct bench_time { long seconds; long nanoseconds; };
                    int clock_gettime(int clock, struct bench_time *time); ]]
        local time = ffi.new("struct bench_time")
        local function now()
            ffi.C.clock_gettime(1, time)
            return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
        end
        -- The second clock is the thread's own: what it did itself between two calls, however busy the machine is.
        local function own()
            ffi.C.clock_gettime(3, time)
            return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
        end
        gap, busy = 0, 0
        local last, last_own
        local function tick(premature)
            if premature then return end
            local at, at_own = now(), own()
            if last then gap, busy = math.max(gap, at - last), math.max(busy, at_own - last_own) end
            last, last_own = at, at_own
            ngx.timer.at(0.001, tick)
        end
        ngx.timer.at(0, tick)
    }
    server {
        listen 127.0.0.1:@PORT@;
        rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }
        location / { root @DIR@; try_files /backend.json =404; }
    }
    server {
        listen 127.0.0.1:@ADMIN@;
        location = /status { content_by_lua_block { require("tenantauth").status() } }
        location = /gap { content_by_lua_block { ngx.print(gap, " ", busy) gap, busy = 0, 0 } }
    }
}
"#;

/// How long the event loop did not come by, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    /// By the clock on the wall: whatever else the machine did is in it.
    pub(crate) gap: f64,
    /// By the thread's own clock: what it did itself.
    pub(crate) busy: f64,
}

/// The running gateway.
pub(crate) struct Worker {
    size: Size,
    nginx: Nginx,
    port: u16,
    admin: u16,
    loaded_in: Duration,
    workspace: Workspace,
}

impl Worker {
    /// Starts it, and waits until the policy is in force.
    pub(crate) fn start(size: Size) -> Self {
        Self::start_with(size, "", |_| {})
    }

    /// The same with further owners. `bounds`: their lines in the platform's document. `write`: writes their documents.
    pub(crate) fn start_with(size: Size, bounds: &str, write: impl FnOnce(&Workspace)) -> Self {
        let workspace = Workspace::new();
        install(&workspace);
        size.write(&workspace);
        write(&workspace);
        size.write_platform_with(&workspace, 0, bounds);
        workspace.write("backend.json", "{}");
        let [port, admin] = [(); 2].map(|()| free_port());
        let configuration = CONFIGURATION
            .replace("@TEMPORARY@", TEMPORARY)
            .replace("@DIR@", workspace.text())
            .replace("@PORT@", &port.to_string())
            .replace("@ADMIN@", &admin.to_string());
        let started = Instant::now();
        let nginx = Nginx::start(&workspace, &configuration, 1, port, Launch::default());
        let mut worker = Self { size, nginx, port, admin, loaded_in: Duration::ZERO, workspace };
        wait_for("policy in force", 60, || worker.revision());
        worker.loaded_in = started.elapsed();
        let answer = worker.request().send(port);
        assert_eq!(answer.status, 200, "{answer:?}");
        worker
    }

    fn request(&self) -> Request {
        let (owner, n) = (self.size.owners() - 1, 7);
        let number = self.size.grants - self.size.grants.min(200) + n;
        let group = format!("group-{}", number % self.size.groups());
        let token = key().token(&claims_with(&[&group], json!({"exp": crate::support::now() + 3600})));
        let address = format!("10.{}.{}.9", owner * 20 / 128, owner * 20 % 128 * 2);
        let address = if self.size == Size::SMALL { "10.0.0.9".to_owned() } else { address };
        assert_ne!(address, OFFICE);
        Request::get(format!("{PATH}?{QUERY}"))
            .tenant(&format!("team-{owner}-{n}"))
            .token(&token)
            .cookie(COOKIE_KEY.pair(&address))
    }

    fn revision(&self) -> Option<String> {
        let status = Request::get("/status").send(self.admin);
        let status: Value = serde_json::from_slice(&status.body).ok()?;
        find(&status, "revision").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The longest gap of the timer since the last question, and the most that the event loop's thread did itself
    /// between two calls, in milliseconds.
    pub(crate) fn gap(&self) -> Gap {
        let text = Request::get("/gap").send(self.admin).text();
        let (gap, busy) = text.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        Gap { gap: number(gap), busy: number(busy) }
    }

    /// The directory of the policy, and what else is the worker's.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Gives a group to an owner's tenant, and revokes one. Returns how long each took until requests showed it.
    pub(crate) fn change_and_revoke(&self, number: usize, bounds: &str) -> (Duration, Duration) {
        let (granted, revoked) = (format!("new-{number}"), format!("old-{number}"));
        let status = |group: &str| {
            let token = key().token(&claims_with(&[group], json!({"exp": crate::support::now() + 3600})));
            let request = Request::get(format!("{PATH}?{QUERY}")).tenant("team-0-1").token(&token);
            request.cookie(COOKIE_KEY.pair("10.0.0.9")).send(self.port).status
        };
        let grant = |group: &str| {
            format!("  - {{ groups: [{group}], tenants: [team-0-1], scopes: [\"logs:read\"] }}\n")
        };
        // What is granted next time is there for the revocation of that time.
        let old: String = (0..=number + 1).map(|n| grant(&format!("old-{n}"))).collect();
        let document = self.size.owner(0) + &old + &grant(&granted);
        let started = Instant::now();
        self.workspace.write("policy/owners.d/team-0.yaml", document);
        wait_for("the change", 300, || (status(&granted) == 200).then_some(()));
        let change = started.elapsed();
        assert_eq!(status(&revoked), 200);
        let started = Instant::now();
        let groups: Vec<String> = (0..=number).map(|n| format!("old-{n}")).collect();
        let revocation = format!("{bounds}revoked: {{ groups: [{}] }}\n", groups.join(", "));
        self.size.write_platform_with(&self.workspace, 0, &revocation);
        wait_for("the revocation", 300, || (status(&revoked) == 403).then_some(()));
        (change, started.elapsed())
    }

    /// Waits until so many owners have large documents in force.
    pub(crate) fn wait_for_owners(&self, count: usize, seconds: u64) {
        wait_for("all owners", seconds, || {
            let status = Request::get("/status").send(self.admin);
            let status: Value = serde_json::from_slice(&status.body).ok()?;
            let mut first = None;
            let heavy = status["owners"].as_array()?.iter().filter(|owner| {
                let is_heavy = owner["name"].as_str().is_some_and(|name| name.starts_with("heavy-"));
                first = first.take().or_else(|| owner["problems"].as_array()?.first().cloned());
                is_heavy && owner["state"] == "current" && owner["revision"] != self.empty()
            });
            let done = heavy.count();
            assert!(first.is_none(), "{first:?}");
            (done == count).then_some(())
        });
    }

    /// The revision of a document that gives nothing.
    fn empty(&self) -> String {
        use aws_lc_rs::digest::{SHA256, digest};
        digest(&SHA256, b"{}").as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// From nginx's start to a policy in force.
    pub(crate) fn loaded_in(&self) -> Duration {
        self.loaded_in
    }

    /// What the worker has in memory, in MiB, once it has given back what it needed in between.
    pub(crate) fn resident(&self) -> f64 {
        sleep(Duration::from_secs(3));
        let pid = *self.nginx.workers().first().expect("a worker");
        resident_kib(pid) as f64 / 1024.0
    }

    /// Longest gaps under load, in milliseconds: without any reload, and while the policy is replaced and the old one
    /// released; one of each a round.
    pub(crate) fn gaps(&self, rounds: usize) -> (Vec<Gap>, Vec<Gap>) {
        let text = self.request();
        let request = String::from_utf8(text.bytes()).expect("a request is text here");
        let headers: String = request
            .lines()
            .skip(2)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| format!("wrk.headers[\"{name}\"] = [[{value}]]\n"))
            .collect();
        let script = self.workspace.write("load.lua", headers);
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c8", "-d600s", "-s"]).arg(script);
        command.arg(format!("http://127.0.0.1:{}{PATH}?{QUERY}", self.port));
        let mut load = Process::start(&self.workspace, "wrk", &mut command);
        sleep(Duration::from_secs(1));
        let (mut idle, mut reloading) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let before = self.revision().expect("a policy in force");
            let wait = self.replace_and_time(round + 1, &before, &mut reloading);
            self.gap();
            sleep(wait);
            idle.push(self.gap());
        }
        load.stop();
        (idle, reloading)
    }

    /// Replaces the policy and waits until it is in force and the old one gone. Returns how long that took.
    fn replace_and_time(&self, number: usize, before: &str, gaps: &mut Vec<Gap>) -> Duration {
        self.gap();
        let started = Instant::now();
        self.size.write_platform(&self.workspace, number);
        wait_for("new policy in force", 60, || self.revision().filter(|revision| revision != before));
        // The old one is released at the thread's next look, and its memory goes back to the system a second later.
        sleep(Duration::from_secs(4));
        gaps.push(self.gap());
        started.elapsed()
    }
}

/// The first member of this name, at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members
            .get(name)
            .filter(|value| value.is_string())
            .or_else(|| members.values().find_map(|inner| find(inner, name))),
        Value::Array(items) => items.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}
