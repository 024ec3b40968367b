//! Policies as large organisations have them: a directory, in which each owner's document holds the grants of its tenants.

use crate::support::site::COOKIE_KEY;
use crate::support::tokens::{jwks, key};
use crate::support::workspace::Workspace;
use std::fmt::Write;
use std::path::Path;
use tenantauth::engine::unix_now;
use tenantauth::file::FileError;
use tenantauth::policy::{self, Compiled, Files, OwnerText};

/// How much a policy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) grants: usize,
}

/// Grants of one owner.
const OF_OWNER: usize = 200;

impl Size {
    pub(crate) const SMALL: Self = Self { grants: 10 };
    pub(crate) const LARGE: Self = Self { grants: 100_000 };
    pub(crate) const ALL: [Self; 5] =
        [Self::SMALL, Self { grants: 100 }, Self { grants: 1000 }, Self { grants: 10_000 }, Self::LARGE];

    pub(crate) fn owners(self) -> usize {
        self.grants.div_ceil(OF_OWNER)
    }

    pub(crate) fn groups(self) -> usize {
        (self.grants / 10).max(10)
    }

    /// As many as groups, but for the smallest.
    pub(crate) fn networks(self) -> usize {
        self.grants_of_owner().div_ceil(10) * self.owners()
    }

    fn grants_of_owner(self) -> usize {
        self.grants.min(OF_OWNER)
    }

    /// The platform's document: everybody's bounds. `number` makes a new revision of it.
    pub(crate) fn platform(self, number: usize) -> String {
        let mut text = String::from(
            "version: 1\nissuers:\n  - name: idp\n    issuer: https://login.example.test/v2.0\n    audiences: [grafana]\n    \
             jwks_file: @DIR@/jwks.json\nclient_ip: { keys_file: @DIR@/client-ip.keys }\n",
        );
        write!(text, "authorizations:\n  revision-{number}: [platform]\nowners:\n")
            .expect("a string takes all");
        for owner in 0..self.owners() {
            let scopes = "[\"logs:read\", \"metrics:*\"]";
            writeln!(text, "  team-{owner}: {{ tenants: [\"team-{owner}-*\"], scopes: {scopes} }}")
                .expect("a string takes all");
        }
        text
    }

    /// One owner's: a grant for each tenant, every tenth for a pattern too, networks, and a restriction to all of them.
    pub(crate) fn owner(self, owner: usize) -> String {
        let (grants, mut text) = (self.grants_of_owner(), String::from("networks:\n"));
        let networks = grants.div_ceil(10);
        for n in 0..networks {
            let network = owner * networks + n;
            // Every second /24 of 10.0.0.0/8: none touches another, so none can be merged.
            writeln!(text, "  net-{n}: [10.{}.{}.0/24]", network / 128, network % 128 * 2).expect("all");
        }
        let names: Vec<String> = (0..networks).map(|n| format!("net-{n}")).collect();
        writeln!(text, "restrictions:\n  - {{ name: office, networks: [{}] }}\ngrants:", names.join(", "))
            .expect("all");
        for n in 0..grants {
            let number = owner * grants + n;
            let group = number % self.groups();
            let pattern = if n % 10 == 0 { format!(", \"team-{owner}-{n}-*\"") } else { String::new() };
            writeln!(
                text,
                "  - {{ groups: [group-{group}], tenants: [team-{owner}-{n}{pattern}], scopes: [\"logs:read\", \"metrics:*\"] }}"
            )
            .expect("all");
        }
        text
    }

    /// Writes the directory `policy` into a workspace.
    pub(crate) fn write(self, workspace: &Workspace) {
        workspace.write("jwks.json", jwks(&[key()]));
        workspace.write("client-ip.keys", COOKIE_KEY.line());
        for owner in 0..self.owners() {
            workspace.write(&format!("policy/owners.d/team-{owner}.yaml"), self.owner(owner));
        }
        self.write_platform(workspace, 0);
    }

    /// Replaces the platform's document, and so the whole policy.
    pub(crate) fn write_platform(self, workspace: &Workspace, number: usize) {
        self.write_platform_with(workspace, number, "");
    }

    /// The same with `more` behind the owners.
    pub(crate) fn write_platform_with(self, workspace: &Workspace, number: usize, more: &str) {
        let text = self.platform(number) + more;
        workspace.write("policy/policy.yaml", text.replace("@DIR@", workspace.text()));
    }

    /// Compiles the policy from its texts.
    pub(crate) fn compile(self) -> Compiled {
        let text = self.platform(0).replace("@DIR@/", "");
        let outcome = policy::compile("policy.yaml", text.as_bytes(), &mut Texts(self), unix_now());
        let refused =
            outcome.owners.iter().flat_map(|owner| &owner.diagnostics).find(|problem| problem.is_error());
        assert!(refused.is_none(), "{refused:?}");
        let compiled = outcome.compiled;
        let compiled =
            compiled.unwrap_or_else(|| panic!("the policy was refused: {:?}", outcome.diagnostics.first()));
        assert_eq!(compiled.snapshot.grants.len(), self.grants + 1);
        compiled
    }
}

/// The files that the policies name, in memory.
struct Texts(Size);

impl Files for Texts {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        match path.to_str() {
            Some("jwks.json") => Ok(jwks(&[key()]).into_bytes()),
            Some("client-ip.keys") => Ok(COOKIE_KEY.line().into_bytes()),
            _ => Err(FileError::NotKept),
        }
    }

    fn owner(&mut self, name: &str) -> Option<OwnerText> {
        let number = name.strip_prefix("team-")?.parse().ok()?;
        let current = Ok(self.0.owner(number).into_bytes());
        Some(OwnerText {
            file: format!("owners.d/{name}.yaml"),
            current,
            last_good: None,
            is_unsettled: false,
        })
    }
}
