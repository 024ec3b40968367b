//! Whether each decision leaves a record that can be read.

use super::Findings;
use crate::doctor::Kind;
use crate::doctor::files::Policy;
use crate::doctor::nginx::Directive;
use crate::doctor::tree::{Guard, Level, Tree};

/// What `http.conf` calls both the format and the variable that hold a record.
const FORMAT: &str = "tenantauth_audit";
/// The longest record that a pipe and a datagram take whole, in bytes.
const SHORT: usize = 4000;

pub(super) fn check(tree: &Tree<'_>, policy: Option<&Policy>, found: &mut Findings) {
    // Without `http.conf` there is no record, which is reported with the setup.
    if !tree.has_map_to("$tenantauth_record") {
        return;
    }
    let formats: Vec<&Directive> = tree.ids(Level::Http).flat_map(|id| tree.own(id, "log_format")).collect();
    let mut audits = vec![FORMAT];
    for format in formats {
        let text = format.arguments.get(1..).unwrap_or_default().concat();
        if !text.contains("$tenantauth_audit") && !text.contains("$tenantauth_record") {
            continue;
        }
        audits.push(format.argument(0));
        if format.argument(1) != "escape=none" {
            let message = format!(
                "the log format `{}` escapes the record once more: its lines are no JSON",
                format.argument(0)
            );
            let help = "write `escape=none` behind its name, or use the format `tenantauth_audit`";
            found.fault(Kind::AuditEscaped, &format.place, message, help);
        }
    }
    let mut seen: Vec<*const Directive> = Vec::new();
    for id in tree.ids(Level::Location) {
        let passes = tree.own(id, "proxy_pass").next().is_some();
        if !passes || !matches!(tree.guard(id), Guard::Enforce | Guard::Again) {
            continue;
        }
        let logs = tree.effective(id, "access_log");
        let audit: Vec<_> = logs.iter().copied().filter(|log| audits.contains(&log.argument(1))).collect();
        let around =
            tree.server(id).and_then(|server| tree.block(server)).and_then(|server| server.directive);
        let Some(place) = logs.first().copied().or(around) else { continue };
        if audit.is_empty() && !seen.contains(&std::ptr::from_ref(place)) {
            seen.push(std::ptr::from_ref(place));
            let message = "decisions leave no audit record here: no `access_log` of the format \
             `tenantauth_audit` is in force";
            let help = "write `access_log /var/log/nginx/audit.jsonl tenantauth_audit buffer=64k flush=1s;`";
            found.hint(Kind::AuditLog, &place.place, message, help);
        }
        for log in audit {
            if !seen.contains(&std::ptr::from_ref(log)) {
                seen.push(std::ptr::from_ref(log));
                pipe(tree, log, policy, found);
            }
        }
    }
}

/// Records that are longer than what a pipe or a datagram takes are torn.
fn pipe(tree: &Tree<'_>, log: &Directive, policy: Option<&Policy>, found: &mut Findings) {
    let to = log.argument(0);
    let is_pipe = matches!(to, "/dev/stdout" | "/dev/stderr") || to.starts_with("/proc/self/fd/");
    let is_bounded = tree.configuration.directives.iter().any(|directive| {
        directive.name == "env" && directive.argument(0).starts_with("TENANTAUTH_AUDIT_MAX_BYTES")
    });
    let is_bounded = is_bounded || policy.is_some_and(|policy| policy.max_bytes <= SHORT);
    if (is_pipe || to.starts_with("syslog:")) && !is_bounded {
        let message = format!(
            "records of more than 4000 bytes do not reach `{to}` whole, unless the policy says `audit: {{ \
             max_bytes: 4000 }}`"
        );
        found.hint(
            Kind::AuditPipe,
            &log.place,
            message,
            "write `env TENANTAUTH_AUDIT_MAX_BYTES=4000;` at the top of nginx.conf",
        );
    }
    let buffer = log.arguments.iter().find_map(|word| word.strip_prefix("buffer="));
    if is_pipe && buffer.is_some_and(|size| size != "4k" && size != "4096") {
        let message = "nginx writes its whole buffer at once: above 4096 bytes a pipe mixes the lines of \
         several workers";
        found.hint(Kind::AuditPipe, &log.place, message, "write `buffer=4k`");
    }
}
