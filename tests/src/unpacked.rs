//! What an image's file system holds, worked out from its layers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path};

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::distribution::{Repository, digest_of};

/// A file, folder or link, with all that must be the same in equal images; times are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u64, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File { digest: String, size: u64 },
    Symlink { target: String },
    HardLink { target: String },
    Other(u8),
}

/// The paths of an image, without a slash in front.
pub type Tree = BTreeMap<String, Entry>;

/// Unpacks the layers of a manifest over each other.
pub fn tree(repository: &Repository, manifest: &Value) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    for layer in manifest["layers"]
        .as_array()
        .context("the manifest has no layers")?
    {
        let blob = repository.blob(layer["digest"].as_str().context("the layer has no digest")?)?;
        let mut archive = Vec::new();
        if blob.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(blob.as_slice()).read_to_end(&mut archive)?;
        } else {
            archive = blob;
        }
        apply(&mut tree, &archive)?;
    }
    Ok(tree)
}

/// Applies one layer, an archive that is not compressed.
pub fn apply(tree: &mut Tree, archive: &[u8]) -> anyhow::Result<()> {
    let mut added = Tree::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = plain(&entry.path()?);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let inside = |name: &str| {
            if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            }
        };
        if name == ".wh..wh..opq" {
            let prefix = format!("{folder}/");
            tree.retain(|known, _| !known.starts_with(&prefix));
        } else if let Some(removed) = name.strip_prefix(".wh.") {
            let removed = inside(removed);
            let prefix = format!("{removed}/");
            tree.retain(|known, _| *known != removed && !known.starts_with(&prefix));
        } else if !path.is_empty() {
            added.insert(path, read(&mut entry)?);
        }
    }
    for (path, entry) in added {
        if !matches!(entry.kind, Kind::Folder) {
            let prefix = format!("{path}/");
            tree.retain(|known, _| !known.starts_with(&prefix));
        }
        tree.insert(path, entry);
    }
    Ok(())
}

fn read(entry: &mut tar::Entry<'_, &[u8]>) -> anyhow::Result<Entry> {
    let header = entry.header();
    let (mode, owner) = (header.mode()? & 0o7777, (header.uid()?, header.gid()?));
    let link = entry
        .link_name()?
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default();
    let kind = match entry.header().entry_type() {
        tar::EntryType::Directory => Kind::Folder,
        tar::EntryType::Symlink => Kind::Symlink { target: link },
        tar::EntryType::Link => Kind::HardLink {
            target: plain(Path::new(&link)),
        },
        tar::EntryType::Regular => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            Kind::File {
                digest: digest_of(&content),
                size: content.len() as u64,
            }
        }
        other => Kind::Other(other.as_byte()),
    };
    Ok(Entry { kind, mode, owner })
}

/// The path without "./" and slashes around it.
fn plain(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
