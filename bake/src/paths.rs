//! Paths as text, with slashes.

/// Go's `path.Clean`: without empty and single-dot parts, and with `..` resolved where it can be.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The folder of a file.
pub(crate) fn parent(path: &str) -> String {
    clean(path.rfind('/').map_or("", |at| &path[..=at]))
}

pub(crate) fn join(base: &str, path: &str) -> String {
    clean(&format!("{base}/{path}"))
}

/// Whether a context is fetched from elsewhere: a Git repository or an HTTP address.
pub fn is_remote(path: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    starts(&["http://", "https://", "git://", "ssh://", "github.com/"]) || is_git_over_ssh(path)
}

/// `git@host:path`
fn is_git_over_ssh(path: &str) -> bool {
    let Some((user, rest)) = path.split_once('@') else {
        return false;
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    word(user)
        && rest
            .split_once(':')
            .is_some_and(|(host, path)| word(host) && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("./a//b/", "a/b"),
            ("a/../..", ".."),
            ("../a/./b/..", "../a"),
            ("/..//a", "/a"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(parent("a/b.hcl"), "a");
        assert_eq!(parent("b.hcl"), ".");
        assert_eq!(join("a", "../b"), "b");
    }

    #[test]
    fn addresses_are_told_from_folders() {
        for path in [
            "https://h/x.git",
            "git@github.com:a/b.git",
            "github.com/a/b",
            "ssh://git@h/x",
        ] {
            assert!(is_remote(path), "{path}");
        }
        for path in ["a/b", "./git@x", "user@folder", "target:x", "/abs:x"] {
            assert!(!is_remote(path), "{path}");
        }
    }
}
