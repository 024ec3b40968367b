//! `tenantauth keygen`: secrets, and files that only those who need them can read.

use super::accounts::gid_of;
use super::{Answer, Failure, Format, json, words};
use crate::client_ip::signature::generate_key_line;
use crate::engine::unix_now;
use crate::token::digest::{random_key, sha256_hex};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde::Serialize;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Makes a secret: a line for the keys file of the signed client-IP cookie, or a service account's token.
///
/// Prints the secret, or with --out writes it to a new file of mode 0640 and prints only what is not secret.
///
/// A key's file ends in a line feed, so that further lines can be appended. A token's file is the token alone, without
/// one: `sha256sum FILE` prints what the policy holds. With the token the entry for the policy is printed, as YAML.
#[derive(Args)]
pub(super) struct Keygen {
    /// A service account's token and its SHA-256 instead. The policy holds only the SHA-256.
    #[arg(long)]
    service_account: bool,
    /// Write the secret to this file, which must not exist yet. It is created with mode 0640.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Give the file to this group: one that nginx's worker user is in.
    #[arg(long, value_name = "NAME", requires = "out")]
    group: Option<String>,
}

/// A new secret and what is known of it.
enum Secret {
    KeyLine { id: String, line: String },
    Token { token: String, sha256: String },
}

/// The JSON form; the secret is null where it went to a file.
#[derive(Serialize)]
#[serde(untagged)]
enum Report<'a> {
    KeyLine { key_id: &'a str, line: Option<&'a str>, file: Option<String> },
    Token { token: Option<&'a str>, sha256: &'a str, file: Option<String> },
}

impl Keygen {
    pub(super) fn run(self, format: Format) -> Result<Answer, Failure> {
        let secret = if self.service_account { service_token()? } else { key_line()? };
        if let Some(path) = &self.out {
            let gid = self.group.as_deref().map(gid_of).transpose()?;
            write_new(path, &secret.content(), gid)?;
        }
        let file = self.out.as_ref().map(|path| path.display().to_string());
        Ok(Answer::ok(match format {
            Format::Json => json(&secret.report(file))?,
            Format::Human => secret.human(file),
        }))
    }
}

/// The id tells when the key was made, and two keys of one day apart.
fn key_line() -> Result<Secret, Failure> {
    let now = i64::try_from(unix_now()).ok().and_then(|now| jiff::Timestamp::from_second(now).ok());
    let date = now.unwrap_or_default().strftime("%Y%m%d").to_string();
    let random = sha256_hex(&random()?);
    let id = format!("{date}-{}", random.get(..6).unwrap_or_default());
    let line = generate_key_line(&id).map_err(|error| Failure(error.to_string()))?;
    Ok(Secret::KeyLine { id, line })
}

fn service_token() -> Result<Secret, Failure> {
    let token = format!("tas_{}", URL_SAFE_NO_PAD.encode(random()?));
    let sha256 = sha256_hex(token.as_bytes());
    Ok(Secret::Token { token, sha256 })
}

fn random() -> Result<[u8; 32], Failure> {
    random_key().map_err(|_| Failure("the system gave no random bytes".to_owned()))
}

impl Secret {
    fn text(&self) -> &str {
        match self {
            Self::KeyLine { line, .. } => line,
            Self::Token { token, .. } => token,
        }
    }

    /// What its file holds: a line of a keys file, or a token and not a byte more.
    fn content(&self) -> String {
        match self {
            Self::KeyLine { line, .. } => format!("{line}\n"),
            Self::Token { token, .. } => token.clone(),
        }
    }

    fn report(&self, file: Option<String>) -> Report<'_> {
        let shown = file.is_none().then_some(self.text());
        match self {
            Self::KeyLine { id, .. } => Report::KeyLine { key_id: id, line: shown, file },
            Self::Token { sha256, .. } => Report::Token { token: shown, sha256, file },
        }
    }

    fn human(&self, file: Option<String>) -> String {
        match (self, file) {
            // The line alone, so that it can be appended to a keys file.
            (Self::KeyLine { line, .. }, None) => format!("{line}\n"),
            (Self::KeyLine { id, .. }, Some(file)) => format!("key id: {id}\nwritten to: {file}\n"),
            (Self::Token { token, sha256 }, None) => {
                format!("token: {token}\nsha256: {sha256}\n{}", entry(sha256))
            }
            (Self::Token { sha256, .. }, Some(file)) => format!(
                "sha256: {sha256}\nwritten to: {file} (without a line feed: `sha256sum` of it prints the same)\n{}",
                entry(sha256)
            ),
        }
    }
}

/// What the policy needs of a token, to be pasted.
fn entry(sha256: &str) -> String {
    format!(
        "\nfor the policy, under a name of yours:\n\nservice_accounts:\n  \
         - name: my-agent                        # its group: service:my-agent\n    \
         token_sha256: [\"{sha256}\"]\n"
    )
}

/// Writes a secret to a file that must not exist. Nobody else can read it before its group and mode are set.
fn write_new(path: &Path, secret: &str, gid: Option<u32>) -> Result<(), Failure> {
    let failed = |what: &str, error: &io::Error| {
        Failure(format!("cannot {what} `{}`: {}", path.display(), words(error)))
    };
    // Exclusive creation follows no link, and fails where anything has that name.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
            |error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    Failure(format!("`{}` exists already and is never overwritten", path.display()))
                }
                _ => failed("create", &error),
            },
        )?;
    let fill = |mut file: &File| {
        if gid.is_some() {
            fchown(file, None, gid).map_err(|error| failed("set the group of", &error))?;
        }
        // Set and not left to the umask, which may be narrower.
        file.set_permissions(Permissions::from_mode(0o640))
            .map_err(|error| failed("set the mode of", &error))?;
        file.write_all(secret.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| failed("write", &error))
    };
    fill(&file).inspect_err(|_| {
        // It is ours, and half a key is worse than none; if it cannot be removed the error above says enough.
        let _ = fs::remove_file(path);
    })
}
