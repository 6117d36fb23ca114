//! Folders that steps keep between builds.
//!
//! A cache that starts empty is a plain folder, which steps may use side by side. One that starts from files is an
//! overlay over them with a lasting upper folder, which only one step at a time can have mounted. `private` and `locked`
//! caches are used by one step at a time too.

use std::collections::BTreeSet;

use proto::pb;

use crate::executor::step::{FileSystem, Mount, Source, Writable};
use crate::ops::OpError;
use crate::store::{CacheKey, LayerDraft, Snapshot, Store};

fn input_of(mount: &pb::Mount, inputs: &[Snapshot]) -> Snapshot {
    usize::try_from(mount.input)
        .ok()
        .and_then(|number| inputs.get(number))
        .cloned()
        .unwrap_or_default()
}

/// Equal ids that start from other files are other caches.
fn key(mount: &pb::Mount, input: &Snapshot) -> CacheKey {
    let id = mount.cache_opt.as_ref().map_or("", |option| option.id.as_str());
    let layers = input.layers().iter().map(|layer| layer.as_str());
    CacheKey::new("cache mount", std::iter::once(id).chain(layers))
}

/// The caches that an operation must have for itself, in the order in which all take them.
pub fn exclusive(op: &pb::ExecOp, inputs: &[Snapshot]) -> Vec<CacheKey> {
    let caches = op
        .mounts
        .iter()
        .filter(|mount| mount.mount_type() == pb::MountType::Cache);
    let keys: BTreeSet<[u8; 32]> = caches
        .filter_map(|mount| {
            let input = input_of(mount, inputs);
            let sharing = mount.cache_opt.as_ref().map(pb::CacheOpt::sharing);
            let is_shared = matches!(sharing, None | Some(pb::CacheSharingOpt::Shared));
            (!is_shared || !input.is_scratch()).then(|| *key(mount, &input).as_bytes())
        })
        .collect();
    keys.into_iter().map(CacheKey::from_bytes).collect()
}

/// The mount of a cache, and what it needs as long as the step runs.
pub(super) fn mount(
    mount: &pb::Mount,
    input: &Snapshot,
    store: &Store,
    lowers: impl Fn(&Snapshot) -> Vec<std::path::PathBuf>,
) -> Result<(Mount, Option<LayerDraft>), OpError> {
    let failed = |source| OpError::CacheMount {
        target: mount.dest.clone(),
        source,
    };
    let path = store.cache_folder(&key(mount, input)).map_err(failed)?;
    let (source, draft) = if input.is_scratch() {
        let selector = mount.selector.clone();
        (Source::Folder { path, selector }, None)
    } else {
        // The work folder of an overlay is for one mount.
        let draft = store.draft()?;
        let files = FileSystem {
            lowers: lowers(input),
            writable: Some(Writable {
                upper: path,
                work: draft.work(),
            }),
        };
        let selector = mount.selector.clone();
        (Source::Snapshot { files, selector }, Some(draft))
    };
    let mount = Mount {
        destination: mount.dest.clone(),
        source,
        read_only: mount.readonly,
    };
    Ok((mount, draft))
}
