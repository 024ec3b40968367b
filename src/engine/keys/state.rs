//! Keys over a restart: a file for each issuer in the state directory.

use super::Document;
use super::document::id_of;
use crate::engine::state::{StateError, Unusable};
use crate::fetch::Endpoint;
use crate::file::{read_private, write_whole};
use std::path::{Path, PathBuf};

fn file_of(directory: &Path, endpoint: &Endpoint) -> PathBuf {
    directory.join(format!("jwks-{}.json", id_of(endpoint)))
}

/// Keeps a set for the next start: whole or not at all, for nobody else to write.
pub(in crate::engine) fn keep(
    directory: &Path,
    endpoint: &Endpoint,
    document: &Document,
) -> Result<(), StateError> {
    let file = file_of(directory, endpoint);
    let written = write_whole(&file, &document.to_bytes());
    written.map_err(|why| StateError::NotWritten { file, why, removal: None })
}

/// The set that was kept for this endpoint. `None` where there is none.
pub(in crate::engine) fn recall(
    directory: &Path,
    endpoint: &Endpoint,
    now: u64,
) -> Result<Option<Document>, StateError> {
    let file = file_of(directory, endpoint);
    let unusable = |why| Err(StateError::Unusable(file.clone(), why));
    match read_private(&file).map(|bytes| bytes.map(|bytes| Document::from_bytes(&bytes))) {
        Err(why) => unusable(why.into()),
        Ok(None) => Ok(None),
        Ok(Some(None)) => unusable(Unusable::Damaged),
        Ok(Some(Some(document))) if !document.is_of(endpoint) => unusable(Unusable::OtherIssuer),
        Ok(Some(Some(document))) if document.fetched_at > now => unusable(Unusable::FromFuture),
        Ok(Some(Some(document))) if !document.is_usable(now) => unusable(Unusable::TooOld),
        Ok(Some(document)) => Ok(document),
    }
}
