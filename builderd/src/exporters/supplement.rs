//! Lists of packages learn which layer of the image each of their files came with, which no scanner can know.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use registry::Digest;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use serde_json::Value;

use super::attestations::{Attestation, SPDX};
use super::{AttestationContent, Context, ExportError, Target, attestations};
use crate::store::{LayerId, Store};

/// A layer's files and the blob that the image names for it.
struct Layer {
    folder: OwnedFd,
    blob: Digest,
}

/// Adds layers to the list of packages that is about the result itself; `blobs` are those of its layers. Anything
/// that is no such list, or cannot be read as one, stays as it is.
pub(super) async fn supplement(
    attestations: &mut [Attestation],
    target: &Target,
    blobs: &[Digest],
    context: &Context<'_>,
) -> Result<(), ExportError> {
    for attestation in attestations {
        if attestation.predicate_type != SPDX || !attestation.is_core() {
            continue;
        }
        let Some(bytes) = attestations::content(attestation, context).await? else {
            continue;
        };
        let vertex = context
            .progress
            .internal_vertex("[internal] look for files in layers");
        context.images.fetch(&target.snapshot, &vertex).await?;
        let store = context.images.store().clone();
        let layers = target.snapshot.layers().iter().cloned();
        let layers: Vec<(LayerId, Digest)> = layers.zip(blobs.iter().cloned()).collect();
        let pool = context.images.store().pool();
        let more = pool.run(move || supplemented(&bytes, &layers, &store)).await?;
        if let Some(more) = more {
            attestation.content = AttestationContent::Bytes(more);
        }
    }
    Ok(())
}

fn supplemented(bytes: &[u8], layers: &[(LayerId, Digest)], store: &Store) -> Option<Bytes> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    document.get("spdxVersion")?;
    let open = |(layer, blob): &(LayerId, Digest)| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, store.layer_folder(layer), flags, Mode::empty()).ok()?;
        Some(Layer {
            folder,
            blob: blob.clone(),
        })
    };
    let layers: Vec<Layer> = layers.iter().filter_map(open).collect();
    let files = document.get_mut("files").and_then(Value::as_array_mut);
    for file in files.into_iter().flatten().filter_map(Value::as_object_mut) {
        let told = file.get("comment").and_then(Value::as_str);
        if told.is_some_and(|comment| !comment.is_empty()) {
            continue;
        }
        let name = file.get("fileName").and_then(Value::as_str).unwrap_or_default();
        // The uppermost one that has it; one that only removes it does not.
        if let Some(layer) = layers.iter().rev().find(|layer| layer.has(name)) {
            file.insert("comment".to_owned(), format!("layerID: {}", layer.blob).into());
        }
    }
    // Either may be missing or null.
    let info = document
        .as_object_mut()?
        .entry("creationInfo")
        .or_insert(Value::Null);
    if info.is_null() {
        *info = Value::Object(serde_json::Map::new());
    }
    let creators = info.as_object_mut()?.entry("creators").or_insert(Value::Null);
    if creators.is_null() {
        *creators = Value::Array(Vec::new());
    }
    let tool = format!("Tool: builderd-{}", env!("CARGO_PKG_VERSION"));
    creators.as_array_mut()?.push(tool.into());
    Some(serde_json::to_vec(&document).ok()?.into())
}

impl Layer {
    fn has(&self, name: &str) -> bool {
        let path = dockerfile::ignore::clean(&format!("/{name}"));
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return false;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let found = openat2(&self.folder, path, flags, Mode::empty(), resolve);
        found.and_then(fstat).is_ok_and(|stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            kind != FileType::CharacterDevice || stat.st_rdev != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;
    use crate::store::NewLayer;

    #[test]
    fn files_learn_their_layer_unless_they_have_a_comment() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        let layer = |names: &[&str]| {
            let draft = store.draft().unwrap();
            for name in names {
                fs::write(draft.upper().join(name), "x").unwrap();
            }
            symlink("/etc", draft.upper().join("link")).unwrap();
            store.commit(draft, NewLayer::default()).unwrap()
        };
        let (below, above) = (Digest::of(b"below"), Digest::of(b"above"));
        let layers = [
            (layer(&["a", "b"]), below.clone()),
            (layer(&["b"]), above.clone()),
        ];
        let file = |name: &str| json!({ "fileName": name });
        let document = json!({
            "spdxVersion": "SPDX-2.2",
            "creationInfo": null,
            "files": [
                file("/a"), file("b"), file("/none"), file("/link"), file("/link/passwd"), file("/../a"),
                { "fileName": "a", "comment": "kept" },
            ],
        });
        let made = supplemented(document.to_string().as_bytes(), &layers, &store).unwrap();
        let made: Value = serde_json::from_slice(&made).unwrap();
        let comments: Vec<Option<&str>> = made["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["comment"].as_str())
            .collect();
        let of = |blob: &Digest| format!("layerID: {blob}");
        let (below, above) = (of(&below), of(&above));
        let expected = [
            Some(below.as_str()),
            Some(&above),
            None,
            Some(&above),
            None,
            Some(&below),
            Some("kept"),
        ];
        assert_eq!(comments, expected);
        assert_eq!(made["creationInfo"]["creators"].as_array().unwrap().len(), 1);
        assert_eq!(supplemented(b"[]", &layers, &store), None);
        assert_eq!(supplemented(b"{", &layers, &store), None);
    }
}
