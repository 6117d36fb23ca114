//! The rules that every listing must keep, checked entry by entry as it comes in.
//!
//! A listing comes from the other side: it must not be able to name anything outside the root, nor to write through
//! a link. So a path is strictly greater than its predecessor, has no `.` or `..` component, its parent is a folder
//! that was listed, and a hard link's target is a regular file that was listed.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::mode::Kind;
use super::order;
use crate::fsutil::Stat;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ListingError {
    #[error("path {path:?} is not a clean relative path")]
    Path { path: String },
    #[error("path {path:?} does not come after {previous:?}")]
    Order { path: String, previous: String },
    #[error("path {path:?} is not below a listed folder")]
    Parent { path: String },
    #[error("path {path:?} has the unsupported mode {mode:#010x}")]
    Mode { path: String, mode: u32 },
    #[error("hard link {path:?} points to {target:?}, which is not a file listed before it")]
    HardLink { path: String, target: String },
    #[error("path {path:?} has the negative size {size}")]
    Size { path: String, size: i64 },
}

/// What was listed so far.
#[derive(Debug, Default)]
pub struct Listing {
    previous: String,
    /// The folders that enclose the previous entry, itself included if it is one.
    folders: Vec<String>,
    files: HashSet<Box<str>>,
}

impl Listing {
    /// Takes up one entry and says what it is.
    pub fn check(&mut self, stat: &Stat) -> Result<Kind, ListingError> {
        let path = &stat.path;
        let named = || path.clone();
        if !is_clean(path) {
            return Err(ListingError::Path { path: named() });
        }
        if order::compare(&self.previous, path) != Ordering::Less {
            return Err(ListingError::Order {
                path: named(),
                previous: self.previous.clone(),
            });
        }
        let kind = Kind::of(stat.mode).ok_or_else(|| ListingError::Mode {
            path: named(),
            mode: stat.mode,
        })?;
        if stat.size < 0 {
            return Err(ListingError::Size {
                path: named(),
                size: stat.size,
            });
        }
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        // The order makes this exact: content follows its folder before anything else does.
        while self.folders.last().map(String::as_str) != parent {
            if self.folders.pop().is_none() {
                return Err(ListingError::Parent { path: named() });
            }
        }
        match kind {
            Kind::Directory => self.folders.push(named()),
            Kind::File if is_hard_link(stat) => {
                if !self.files.contains(stat.linkname.as_str()) {
                    return Err(ListingError::HardLink {
                        path: named(),
                        target: stat.linkname.clone(),
                    });
                }
                // A link to a link is legal: both name the same file.
                self.files.insert(path.as_str().into());
            }
            Kind::File => {
                self.files.insert(path.as_str().into());
            }
            _ => {}
        }
        self.previous.clone_from(path);
        Ok(kind)
    }
}

/// Whether an entry is another name of a file that was listed before: it has no content of its own.
pub fn is_hard_link(stat: &Stat) -> bool {
    Kind::of(stat.mode) == Some(Kind::File) && !stat.linkname.is_empty()
}

fn is_clean(path: &str) -> bool {
    !path.contains('\0')
        && path
            .split('/')
            .all(|component| !matches!(component, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::mode;

    fn entry(path: &str, mode: u32, linkname: &str) -> Stat {
        Stat {
            path: path.into(),
            mode: mode::from_stat(mode),
            linkname: linkname.into(),
            ..Stat::default()
        }
    }

    fn dir(path: &str) -> Stat {
        entry(path, 0o040_755, "")
    }

    fn file(path: &str) -> Stat {
        entry(path, 0o100_644, "")
    }

    fn last(entries: &[Stat]) -> Result<Kind, ListingError> {
        let mut listing = Listing::default();
        let (last, before) = entries.split_last().expect("tables are not empty");
        for stat in before {
            listing.check(stat).unwrap();
        }
        listing.check(last)
    }

    #[test]
    fn an_orderly_listing_passes() {
        let link = |path, to| entry(path, 0o100_644, to);
        let entries = [
            dir("a"),
            file("a/b"),
            dir("a/c"),
            file("a/c/d"),
            entry("a/e", 0o120_777, "/../../etc/passwd"),
            file("a-b"),
            link("b", "a/b"),
            link("c", "b"),
            dir("d"),
            file("e"),
        ];
        assert_eq!(last(&entries), Ok(Kind::File));
    }

    #[test]
    fn what_leaves_the_root_is_refused() {
        for path in [
            "", "/", "/a", "..", "../a", "a/../b", "./a", "a/.", "a//b", "a/", "a\0b",
        ] {
            assert_eq!(
                last(&[dir("A"), file(path)]),
                Err(ListingError::Path { path: path.into() }),
                "{path:?}"
            );
        }
    }

    #[test]
    fn disorder_and_repetition_are_refused() {
        for (first, second) in [("b", "a"), ("a", "a"), ("a.b", "a-b")] {
            assert_eq!(
                last(&[file(first), file(second)]),
                Err(ListingError::Order {
                    path: second.into(),
                    previous: first.into()
                })
            );
        }
    }

    #[test]
    fn entries_below_anything_but_a_listed_folder_are_refused() {
        let refused = |path: &str| Err(ListingError::Parent { path: path.into() });
        assert_eq!(last(&[file("a/b")]), refused("a/b"));
        assert_eq!(last(&[file("a"), file("a/b")]), refused("a/b"));
        assert_eq!(
            last(&[entry("a", 0o120_777, "/etc"), file("a/b")]),
            refused("a/b")
        );
        assert_eq!(last(&[dir("a"), file("b"), file("c/d")]), refused("c/d"));
        assert_eq!(last(&[dir("a"), file("a/b/c")]), refused("a/b/c"));
    }

    #[test]
    fn hard_links_point_to_files_listed_before() {
        for target in ["z", "../a", "dir", "link"] {
            assert_eq!(
                last(&[
                    dir("dir"),
                    entry("link", 0o120_777, "x"),
                    entry("n", 0o100_644, target)
                ]),
                Err(ListingError::HardLink {
                    path: "n".into(),
                    target: target.into()
                })
            );
        }
    }
}
