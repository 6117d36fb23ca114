//! When a source was last changed, by what its server says or by the files in it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use proto::pb;

use super::Job;
use super::inputs::WantedObjects;
use crate::frontend::HostError;
use crate::ops::file::{newest_in_archive, view_of};

impl Job {
    /// Seconds; nothing for a source that does not say.
    pub(super) async fn source_time(
        self: &Arc<Self>,
        source: pb::SourceOp,
        name: &str,
    ) -> Result<Option<i64>, HostError> {
        match source.identifier.split_once("://") {
            Some(("git", _)) => {
                let (_, objects) = self.resolve_repository(&source, name, WantedObjects::All).await?;
                Ok(committed(&objects.commit))
            }
            Some(("http" | "https", _)) => {
                let (file, _) = self.resolve_file(&source, name, None).await?;
                if let Some(modified) = file.modified {
                    let since = modified.duration_since(UNIX_EPOCH);
                    return Ok(since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()));
                }
                let store = self.store().clone();
                let pool = store.pool().clone();
                pool.run(move || {
                    let archive = view_of(&file.snapshot, &store)?.open_file(&file.name)?;
                    Ok(newest_in_archive(archive))
                })
                .await?
            }
            _ => Ok(None),
        }
    }
}

/// The time in the line `committer Name <address> 1700000000 +0100`.
fn committed(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let header = text.lines().take_while(|line| !line.is_empty());
    let line = header.filter_map(|line| line.strip_prefix("committer ")).next()?;
    let (_, time) = line.rsplit_once("> ")?;
    time.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::committed;

    #[test]
    fn a_commit_knows_when_it_was_made() {
        let commit = "tree 1\nparent 2\nauthor A <a@b> 5 +0000\ncommitter C <c> d> 1700000402 +0100\n\ncommitter X <x> 7 +0000\n";
        assert_eq!(committed(commit.as_bytes()), Some(1_700_000_402));
        assert_eq!(committed(b"tree 1\n\ncommitter X <x> 7 +0000\n"), None);
    }
}
