//! Keys over a restart: a file for each issuer in the state directory.

use super::Document;
use super::document::id_of;
use crate::engine::state::{read_private, write_whole};
use crate::fetch::Endpoint;
use std::path::{Path, PathBuf};

fn file_of(directory: &Path, endpoint: &Endpoint) -> PathBuf {
    directory.join(format!("jwks-{}.json", id_of(endpoint)))
}

/// Keeps a set for the next start: whole or not at all, for nobody else to write.
///
/// # Errors
/// The reason in words.
pub(in crate::engine) fn keep(
    directory: &Path,
    endpoint: &Endpoint,
    document: &Document,
) -> Result<(), String> {
    write_whole(&file_of(directory, endpoint), &document.to_bytes())
}

/// The set that was kept for this endpoint. `None` where there is none.
///
/// # Errors
/// What is wrong with the file, in words.
pub(in crate::engine) fn recall(
    directory: &Path,
    endpoint: &Endpoint,
    now: u64,
) -> Result<Option<Document>, String> {
    let file = file_of(directory, endpoint);
    let problem = |what: &str| format!("`{}` is not used: {what}", file.display());
    let Some(bytes) = read_private(&file).map_err(|error| problem(&error))? else { return Ok(None) };
    let document = Document::from_bytes(&bytes).ok_or_else(|| problem("it is damaged"))?;
    if !document.is_of(endpoint) {
        return Err(problem("it holds the keys of another issuer"));
    }
    if document.fetched_at > now {
        return Err(problem("it was written in the future"));
    }
    if !document.is_usable(now) {
        return Err(problem("it is older than 24 hours"));
    }
    Ok(Some(document))
}
