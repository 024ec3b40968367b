//! For tests: a policy's head, and the files that policies name.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "built for tests and fuzzing alone"
)]

use super::snapshot::{Owner, Snapshot};
use super::{Files, Outcome, compile};
use crate::file::FileError;
use crate::tenant::{PatternSet, TenantPattern};
use crate::token::algorithm::Algorithm;
use crate::token::fixtures::{NOW, jwk, with};
use serde_json::json;
use std::io;
use std::path::Path;

/// A policy's files, in memory: `jwks.json` and `ip.keys` are good, the others are what their names say.
pub(crate) struct Shelf;

impl Files for Shelf {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        let good = with(jwk(Algorithm::Rs256), "kid", json!("rsa"));
        match path.to_str().unwrap() {
            "jwks.json" => Ok(json!({"keys": [good]}).to_string().into_bytes()),
            "mixed.json" => {
                let secret = json!({"kty": "oct", "kid": "shared\nsecret", "k": "c2VjcmV0"});
                Ok(json!({"keys": [good, secret]}).to_string().into_bytes())
            }
            "useless.json" => Ok(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string().into_bytes()),
            "no.json" => Ok(b"hello".to_vec()),
            "ip.keys" => Ok(b"k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n".to_vec()),
            "bad.keys" => Ok(b"# two problems\nk1:c2hvcnQ=\nk 2:c2hvcnQ=\n".to_vec()),
            _ => Err(io::Error::from_raw_os_error(2).into()),
        }
    }
}

/// One issuer, with which a policy is complete.
pub(crate) const HEAD: &str = "\
version: 1
issuers:
  - name: entra
    issuer: https://issuer.example
    audiences: [grafana]
    jwks_file: jwks.json
";

pub(crate) fn outcome(text: &str) -> Outcome {
    compile("p.yaml", text.as_bytes(), &mut Shelf, NOW)
}

/// Gives some of the rules to an owner of these tenants, as if its bounds had been narrowed since.
///
/// `grants`, `restrictions`: their positions.
pub(crate) fn give_to_owner(
    snapshot: &mut Snapshot,
    tenants: &[&str],
    grants: impl Iterator<Item = usize>,
    restrictions: impl Iterator<Item = usize>,
) {
    let owner = Some(u32::try_from(snapshot.owners.len()).unwrap());
    snapshot.owners.push(Owner {
        name: "narrowed".into(),
        file: "narrowed.yaml".into(),
        tenants: PatternSet::new(tenants.iter().map(|text| TenantPattern::parse(text).unwrap())),
        available: true,
        except_tenants: PatternSet::default(),
    });
    for grant in grants {
        (snapshot.grants[grant].owner, snapshot.grants[grant].within_bounds) = (owner, false);
    }
    for restriction in restrictions {
        let rule = &mut snapshot.restrictions[restriction];
        (rule.owner, rule.within_bounds) = (owner, false);
    }
}
