//! Transfers of what is known of files: the whole listing, and the content of some files only.
//!
//! The listing becomes a file itself: every entry as it came, behind its length in four bytes, lowest first.

use std::collections::HashSet;

use bytes::Bytes;
use dockerfile::ignore::PatternMatcher;
use prost::Message as _;
use proto::fsutil::Stat;
use proto::transfer::mode::Kind;

use super::write::{How, Instruction};

/// The file with the listing. One of this name of the client is left out.
const NAME: &str = ".fsutil-metadata";
/// An ordinary file that everybody may read.
const MODE: u32 = 0o644;
/// No entry of a listing has this id: there is no room for so many.
const ID: u32 = u32::MAX;
/// Content that is handed on at a time.
const PIECE: usize = 32 << 10;

pub(super) struct Selection<'a> {
    wanted: &'a PatternMatcher,
    listing: Vec<u8>,
    /// Folders on the way to the current entry that nobody has wanted yet.
    waiting: Vec<Stat>,
    /// What is written: hard links may lead to it.
    written: HashSet<String>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(wanted: &'a PatternMatcher) -> Self {
        Self {
            wanted,
            listing: Vec::new(),
            waiting: Vec::new(),
            written: HashSet::new(),
        }
    }

    /// The folders that have to be made before an entry; nothing if the entry itself stays out.
    pub(super) fn entry(&mut self, kind: Kind, stat: &Stat) -> Option<Vec<Stat>> {
        if stat.path == NAME {
            return None;
        }
        let length = u32::try_from(stat.encoded_len()).unwrap_or(u32::MAX);
        self.listing.extend_from_slice(&length.to_le_bytes());
        self.listing.extend_from_slice(&stat.encode_to_vec());
        self.waiting.retain(|folder| is_below(&stat.path, &folder.path));
        // The content of a hard link is where it leads to.
        let leads_out =
            kind == Kind::File && !stat.linkname.is_empty() && !self.written.contains(&stat.linkname);
        if !self.wanted.matches_or_parent_matches(&stat.path) || leads_out {
            if kind == Kind::Directory {
                self.waiting.push(stat.clone());
            }
            return None;
        }
        if kind == Kind::File {
            self.written.insert(stat.path.clone());
        }
        Some(std::mem::take(&mut self.waiting))
    }

    /// What writes the listing.
    pub(super) fn finish(self) -> impl Iterator<Item = Instruction> {
        let listing = Bytes::from(self.listing);
        let stat = Stat {
            path: NAME.to_owned(),
            mode: MODE,
            size: i64::try_from(listing.len()).unwrap_or(i64::MAX),
            ..Stat::default()
        };
        let entry = Instruction::Entry {
            how: How::Fetch(ID),
            kind: Kind::File,
            stat,
        };
        let pieces = (0..listing.len()).step_by(PIECE).map(move |start| {
            let end = listing.len().min(start + PIECE);
            Instruction::Data {
                id: ID,
                data: listing.slice(start..end),
            }
        });
        let end = Instruction::EndOfFile { id: ID };
        std::iter::once(entry).chain(pieces).chain(std::iter::once(end))
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_for_what_is_wanted_in_them() {
        let wanted = PatternMatcher::new(["a/**/*1"]).unwrap();
        let mut selection = Selection::new(&wanted);
        let mut entry = |kind, path: &str, linkname: &str| {
            let stat = Stat {
                path: path.to_owned(),
                linkname: linkname.to_owned(),
                ..Stat::default()
            };
            let folders = selection.entry(kind, &stat)?;
            Some(folders.into_iter().map(|folder| folder.path).collect::<Vec<_>>())
        };
        assert_eq!(entry(Kind::File, NAME, ""), None);
        assert_eq!(entry(Kind::Directory, "a", ""), None);
        assert_eq!(entry(Kind::Directory, "a/b", ""), None);
        assert_eq!(entry(Kind::File, "a/b/2", ""), None);
        assert_eq!(entry(Kind::Directory, "a/c", ""), None);
        assert_eq!(
            entry(Kind::File, "a/c/1", ""),
            Some(vec!["a".into(), "a/c".into()])
        );
        assert_eq!(entry(Kind::File, "a/c/11", "a/c/1"), Some(Vec::new()));
        assert_eq!(entry(Kind::File, "a/c/21", "a/b/2"), None);
        assert_eq!(entry(Kind::Directory, "d", ""), None);
        // The frames of eight entries: that of this name is none of them.
        let data: usize = selection
            .finish()
            .map(|instruction| match instruction {
                Instruction::Data { data, .. } => data.len(),
                _ => 0,
            })
            .sum();
        assert!(data > 8 * 4 && data < 8 * 40, "{data}");
    }
}
