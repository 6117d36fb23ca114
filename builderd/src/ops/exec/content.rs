//! The content half of a step's cache key.
//!
//! A mount from which nothing goes on into a result counts by the files it shows, not by the layers they come from: a
//! stage that was built anew and has the same files in that place does not run again what only reads them.

use std::path::Path;

use proto::pb;

use super::{OpError, placed};
use crate::ops::file::view_of;
use crate::store::checksum::{self, KnownDigests, Root};
use crate::store::view::{LastLink, Selection, ViewError};
use crate::store::{CacheKey, Snapshot, Store};

/// The inputs that count by their layers. An operation that asks for what cannot be is refused.
pub fn bases(op: &pb::ExecOp, inputs: usize) -> Result<Vec<usize>, OpError> {
    let mut bases = Vec::new();
    for index in 0..inputs {
        let mut mounts = mounts_of(op, index).peekable();
        let mut by_content = mounts.peek().is_some();
        for mount in mounts {
            by_content &= is_by_content(mount)?;
        }
        if !by_content {
            bases.push(index);
        }
    }
    Ok(bases)
}

/// The key of a step by the content of what it mounts; `operation` is all else that tells it from others.
///
/// Nothing if no mount counts by content, or one of them shows what is not there.
pub fn content_key(
    op: &pb::ExecOp,
    operation: &[u8],
    inputs: &[Snapshot],
    store: &Store,
) -> Result<Option<CacheKey>, OpError> {
    let bases = bases(op, inputs.len())?;
    if bases.len() == inputs.len() {
        return Ok(None);
    }
    let mut parts = vec![operation.to_vec()];
    for (index, input) in inputs.iter().enumerate() {
        if bases.contains(&index) || input.is_scratch() {
            let layers = input.layers().iter();
            parts.push(input.layers().len().to_le_bytes().to_vec());
            parts.extend(layers.map(|layer| layer.as_str().as_bytes().to_vec()));
            continue;
        }
        match sums(op, index, input, store) {
            Ok(sums) => {
                parts.push(b"files".to_vec());
                parts.extend(sums.into_iter().map(Vec::from));
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(source) => {
                let top = input.layers().last();
                return Err(OpError::CacheKey {
                    snapshot: top.map_or_else(|| "scratch".to_owned(), ToString::to_string),
                    source: source.into(),
                });
            }
        }
    }
    Ok(Some(CacheKey::new("exec content", parts)))
}

fn sums(op: &pb::ExecOp, index: usize, input: &Snapshot, store: &Store) -> Result<Vec<[u8; 32]>, ViewError> {
    let known = KnownDigests::of(input, store);
    let view = view_of(input, store)?;
    mounts_of(op, index)
        .map(|mount| {
            let found = view.lookup(selected(mount), LastLink::Follow)?;
            // With its own owner and mode, under whatever name it has there.
            let root = Root::Named(Path::new(""));
            checksum::of_selection(&view, &found, &Selection::default(), root, &known)
        })
        .collect()
}

fn mounts_of(op: &pb::ExecOp, index: usize) -> impl Iterator<Item = &pb::Mount> {
    let with_files =
        |mount: &&pb::Mount| matches!(mount.mount_type(), pb::MountType::Bind | pb::MountType::Cache);
    let of_input = move |mount: &&pb::Mount| usize::try_from(mount.input) == Ok(index);
    op.mounts.iter().filter(with_files).filter(of_input)
}

fn selected(mount: &pb::Mount) -> &str {
    match mount.selector.as_str() {
        "" => "/",
        selector => selector,
    }
}

/// Whether a mount may and shall count by its content. What is written to a part of an input goes on together with the
/// rest of it, which such a key would not cover.
fn is_by_content(mount: &pb::Mount) -> Result<bool, OpError> {
    let whole = selected(mount).trim_matches('/').is_empty();
    let may = mount.output < 0 || whole;
    match mount.content_cache() {
        pb::MountContentCache::Off => Ok(false),
        pb::MountContentCache::On if !may && !mount.readonly => Err(OpError::Unsupported(format!(
            "the mount at {} cannot be cached by its content: it is written to, and only a part of its input",
            mount.dest
        ))),
        pb::MountContentCache::On => Ok(may),
        // Of root file systems it costs more than it gains.
        pb::MountContentCache::Default => Ok(may && placed(mount, "/").dest != "/"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::NewLayer;

    struct Fixture {
        store: Store,
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        fn layer(&self, files: &[(&str, &str)]) -> Snapshot {
            let draft = self.store.draft().unwrap();
            for (path, contents) in files {
                let path = draft.upper().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, contents).unwrap();
            }
            let layer = self.store.commit(draft, NewLayer::default()).unwrap();
            Snapshot::default().with(layer)
        }
    }

    fn mount(dest: &str, input: i64, selector: &str, output: i64) -> pb::Mount {
        pb::Mount {
            dest: dest.to_owned(),
            input,
            selector: selector.to_owned(),
            output,
            ..pb::Mount::default()
        }
    }

    fn step(mounted: pb::Mount) -> pb::ExecOp {
        pb::ExecOp {
            mounts: vec![mount("/", 0, "", 0), mounted],
            ..pb::ExecOp::default()
        }
    }

    #[test]
    fn a_mount_that_goes_nowhere_counts_by_what_it_shows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let fixture = Fixture {
            store,
            _folder: folder,
        };
        let root = fixture.layer(&[("bin/sh", "")]);
        let key = |op: &pb::ExecOp, mounted: &Snapshot| {
            let inputs = [root.clone(), mounted.clone()];
            content_key(op, b"run", &inputs, &fixture.store).unwrap()
        };
        let one = fixture.layer(&[("out/file", "1"), ("else", "1")]);
        let same = fixture.layer(&[("out/file", "1"), ("else", "2")]);
        let other = fixture.layer(&[("out/file", "2")]);
        let part = step(mount("/in", 1, "out", -1));
        assert!(key(&part, &one).is_some());
        assert_eq!(key(&part, &one), key(&part, &same));
        assert_ne!(key(&part, &one), key(&part, &other));
        assert_ne!(
            key(&step(mount("/in", 1, "", -1)), &one),
            key(&step(mount("/in", 1, "", -1)), &same)
        );
        // What is not there has no content, and what goes on counts as a whole.
        assert_eq!(key(&step(mount("/in", 1, "absent", -1)), &one), None);
        assert_eq!(key(&step(mount("/in", 1, "out", 1)), &one), None);
    }

    #[test]
    fn clients_can_ask_for_it_and_against_it() {
        let with = |content: pb::MountContentCache, output, selector: &str| pb::Mount {
            content_cache: content.into(),
            ..mount("/in", 1, selector, output)
        };
        let of = |mount| bases(&step(mount), 2);
        assert_eq!(of(with(pb::MountContentCache::Default, -1, "")).unwrap(), [0]);
        assert_eq!(of(with(pb::MountContentCache::Off, -1, "")).unwrap(), [0, 1]);
        assert_eq!(of(with(pb::MountContentCache::On, 1, "")).unwrap(), [0]);
        of(with(pb::MountContentCache::On, 1, "part")).unwrap_err();
    }
}
