//! Paths that have to be sent so that a wanted path can be reached: the symbolic links on the way, and what they lead
//! to. A link never leads out of the folder: an absolute target begins at its root, `..` ends there.

use std::collections::BTreeSet;
use std::path::Path;

use dockerfile::ignore::PatternMatcher;

/// As many links on the way are a circle.
const MOST_LINKS: usize = 255;

/// Files and folders, the latter with all that is in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Paths {
    everything: bool,
    set: BTreeSet<String>,
}

impl Paths {
    /// Whether a path or a folder above it is wanted.
    pub fn contain(&self, path: &str) -> bool {
        self.everything
            || self.set.contains(path)
            || path
                .match_indices('/')
                .any(|(end, _)| self.set.contains(&path[..end]))
    }

    /// Whether something inside a folder is wanted.
    pub fn reach_below(&self, folder: &str) -> bool {
        let inside = format!("{folder}/");
        self.everything
            || self
                .set
                .range(inside.clone()..)
                .next()
                .is_some_and(|path| path.starts_with(&inside))
    }
}

/// Follows `paths`, whose parts may hold wildcards, below `root`.
pub fn resolve(root: &Path, paths: &[String]) -> Paths {
    let mut found = Paths::default();
    for path in paths {
        let parts = parts(path);
        let mut links = 0;
        follow(root, Vec::new(), &parts, &mut links, &mut found);
    }
    found
}

fn parts(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect()
}

fn follow(root: &Path, mut at: Vec<String>, rest: &[String], links: &mut usize, found: &mut Paths) {
    let Some((part, rest)) = rest.split_first() else {
        if at.is_empty() {
            found.everything = true;
        } else {
            found.set.insert(at.join("/"));
        }
        return;
    };
    if part == ".." {
        at.pop();
        return follow(root, at, rest, links, found);
    }
    if part.contains(['*', '?', '[', '\\']) {
        for name in matching_names(&root.join(at.join("/")), part) {
            let next: Vec<String> = std::iter::once(name).chain(rest.iter().cloned()).collect();
            follow(root, at.clone(), &next, links, found);
        }
        return;
    }
    let mut here = at.clone();
    here.push(part.clone());
    match std::fs::read_link(root.join(here.join("/"))) {
        Ok(target) if *links < MOST_LINKS => {
            *links += 1;
            found.set.insert(here.join("/"));
            let target = target.to_string_lossy().into_owned();
            let start = if target.starts_with('/') { Vec::new() } else { at };
            let mut next = parts(&target);
            next.extend_from_slice(rest);
            follow(root, start, &next, links, found);
        }
        // No link, or nothing there: the daemon finds out by itself.
        _ => follow(root, here, rest, links, found),
    }
}

/// The names in a folder that a pattern matches. A wildcard does not stand for `/`, so a part is matched by itself.
fn matching_names(folder: &Path, pattern: &str) -> Vec<String> {
    let (Ok(matcher), Ok(entries)) = (PatternMatcher::new([pattern]), std::fs::read_dir(folder)) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| matcher.matches_or_parent_matches(name))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("real/sub")).unwrap();
        std::fs::write(root.join("real/sub/file"), "").unwrap();
        symlink("real", root.join("relative")).unwrap();
        symlink("/real/sub", root.join("absolute")).unwrap();
        symlink("../../../../real", root.join("outside")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        for (path, expected) in [
            ("plain/x", &["plain/x"][..]),
            ("relative/sub/file", &["real/sub/file", "relative"]),
            ("absolute/file", &["absolute", "real/sub/file"]),
            ("outside/sub", &["outside", "real/sub"]),
            ("../x", &["x"]),
            ("re*", &["real", "relative"]),
            ("r*/sub", &["real/sub", "relative"]),
            ("circle/x", &["circle", "circle/x"]),
            ("nothing*", &[]),
        ] {
            let found = resolve(root, &[path.to_owned()]);
            assert_eq!(
                found.set.iter().map(String::as_str).collect::<Vec<_>>(),
                expected,
                "{path}"
            );
        }
        assert!(resolve(root, &["./".to_owned()]).everything);
    }
}
