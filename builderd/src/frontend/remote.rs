//! What the daemon fetches by itself — repositories and files at URLs — as operations.

use std::collections::BTreeMap;

use dockerfile::address::{GitReference, Mtime};
use proto::pb;

use crate::graph::builder::{Note, Operation};
use crate::ops::file::is_compressed;

/// The attribute that names a downloaded file.
pub(super) const FILE_NAME: &str = "http.filename";

/// What is said of a repository besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GitOptions {
    pub(super) keep_git_dir: bool,
    pub(super) checksum: Option<String>,
    pub(super) mtime: Option<Mtime>,
}

/// The files of a repository.
pub(super) fn repository(reference: &GitReference, options: &GitOptions, note: Note) -> Operation {
    let mut identifier = format!("git://{}", reference.identity);
    if !reference.reference.is_empty() || !reference.subfolder.is_empty() {
        identifier.push_str(&format!("#{}", reference.reference));
        if !reference.subfolder.is_empty() {
            identifier.push_str(&format!(":{}", reference.subfolder));
        }
    }
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: &str| attributes.insert(key.to_owned(), value.to_owned());
    set("git.fullurl", &reference.remote);
    set("git.authheadersecret", "GIT_AUTH_HEADER");
    set("git.authtokensecret", "GIT_AUTH_TOKEN");
    if reference.ssh {
        set("git.mountsshsock", "default");
    }
    if options.keep_git_dir || reference.keep_git_dir == Some(true) {
        set("git.keepgitdir", "true");
    }
    if let Some(checksum) = reference.checksum.as_ref().or(options.checksum.as_ref()) {
        set("git.checksum", checksum);
    }
    if reference.submodules == Some(false) {
        set("git.skipsubmodules", "true");
    }
    match reference.mtime.or(options.mtime) {
        Some(Mtime::Commit) => drop(set("git.mtime", "commit")),
        Some(Mtime::Checkout) => drop(set("git.mtime", "checkout")),
        None => {}
    }
    if reference.fetch_by_commit {
        set("git.fetchbycommit", "true");
    }
    let attrs = attributes;
    source(pb::SourceOp { identifier, attrs }, note)
}

/// The file at a URL, under this name.
pub(super) fn file(url: &str, name: &str, checksum: Option<&str>, note: Note) -> Operation {
    let mut attributes = BTreeMap::from([(FILE_NAME.to_owned(), name.to_owned())]);
    if let Some(checksum) = checksum {
        attributes.insert("http.checksum".to_owned(), checksum.to_owned());
    }
    let identifier = url.to_owned();
    let attrs = attributes;
    source(pb::SourceOp { identifier, attrs }, note)
}

pub(super) fn source(source: pb::SourceOp, note: Note) -> Operation {
    Operation {
        kind: pb::op::Op::Source(source),
        inputs: Vec::new(),
        platform: None,
        note,
    }
}

/// The first bytes of a file that say whether it is an archive.
pub(super) const ARCHIVE_HEAD: u64 = 1024;

/// What a downloaded context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Download {
    Archive,
    /// Anything else is taken for a Dockerfile.
    Other,
}

pub(super) fn recognise(head: &[u8]) -> Download {
    if is_compressed(head) || is_tar(head) {
        Download::Archive
    } else {
        Download::Other
    }
}

/// A tar file starts with a header whose checksum is right.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let field = 148..156;
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    let written = header.get(field).map(String::from_utf8_lossy).unwrap_or_default();
    let written = written.trim_matches(|c: char| c == '\0' || c == ' ');
    !written.is_empty() && u32::from_str_radix(written, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_what_is_in_them() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        tar.append_data(&mut header, "Dockerfile", std::io::empty())
            .unwrap();
        let tar = tar.into_inner().unwrap();
        for (head, expected) in [
            (&tar[..], Download::Archive),
            (&tar[..300], Download::Other),
            (b"\x1f\x8b\x08rest", Download::Archive),
            (b"BZh9", Download::Archive),
            (b"\xfd7zXZ\0rest", Download::Archive),
            (b"FROM scratch\n", Download::Other),
            (&[0; 1024], Download::Other),
            (b"", Download::Other),
        ] {
            assert_eq!(recognise(head), expected);
        }
    }
}
