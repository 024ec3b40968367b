//! `tenantauth schema`: the document format for editors.

use super::{Answer, Failure, json};
use crate::policy::schema;
use clap::Args;

/// Prints the JSON Schema of a policy document, with which editors complete and check.
///
/// It is also installed, as `policy.schema.json`. An editor with the YAML language server finds it by the line
/// `# yaml-language-server: $schema=/usr/local/share/tenantauth/policy.schema.json` at the top of a policy.
/// What a schema cannot see, `check` finds.
#[derive(Args)]
pub(super) struct Schema {
    /// The schema of an owner's document instead, installed as `owner.schema.json`.
    #[arg(long)]
    owner: bool,
}

impl Schema {
    pub(super) fn run(&self) -> Result<Answer, Failure> {
        Ok(Answer::ok(json(&if self.owner { schema::owner() } else { schema::policy() })?))
    }
}
