//! Submodules: repositories that a tree names, at the commits it names.
//!
//! Git's own command is not used: what `.gitmodules` says comes from anybody, and is looked at here before anything is
//! done about it. Each submodule is fetched into its own repository of the daemon.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dockerfile::address::{GitUrl, without_credentials};

use super::checkout::{Place, write_tree};
use super::fetch::Fetched;
use super::remote::{Resolved, is_object_name};
use super::{GitError, Request};

/// Submodules in submodules, and all of them together.
const MAX_DEPTH: u32 = 16;
const MAX_COUNT: usize = 1000;
const GITLINK: &str = "160000";

/// How deep a submodule lies, and how many there were before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Depth {
    level: u32,
    written: Arc<AtomicUsize>,
}

/// What `.gitmodules` says of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Described {
    name: String,
    path: String,
    url: String,
}

/// Writes the submodules of a commit into its checkout.
pub(super) async fn write_all(
    request: &Request,
    fetched: &Fetched<'_>,
    commit: &str,
    place: &Place<'_>,
    depth: &Depth,
) -> Result<(), GitError> {
    let described = described(fetched, commit).await?;
    if described.is_empty() {
        return Ok(());
    }
    let links = links(fetched, commit, place.subfolder).await?;
    let failed = |name: &str, problem: String| GitError::Submodule {
        remote: fetched.shown().to_owned(),
        name: name.to_owned(),
        problem,
    };
    for (path, commit) in links {
        // A link that nobody describes is an empty folder.
        let Some(submodule) = described.iter().find(|submodule| submodule.path == path) else {
            continue;
        };
        let name = &submodule.name;
        // All together: some that each hold a few multiply.
        if depth.written.fetch_add(1, Ordering::Relaxed) >= MAX_COUNT {
            return Err(failed(name, format!("is one of more than {MAX_COUNT}")));
        }
        if depth.level >= MAX_DEPTH {
            return Err(failed(name, format!("lies in more than {MAX_DEPTH} others")));
        }
        // Git made the folder from the same tree; that no link got in between is not left to it alone.
        if !is_folder_without_links(place.files, &path) {
            return Err(failed(name, format!("has no folder of its own at {path:?}")));
        }
        let resolved = at(&commit);
        let inside = async {
            let fetched = fetch(request, fetched, submodule, &resolved).await?;
            let commit = fetched.commit().await?;
            let files = place.files.join(&path);
            let inside = Place {
                files: &files,
                scratch: place.scratch,
                subfolder: "",
                git_dir: place.git_dir,
            };
            let depth = Depth {
                level: depth.level + 1,
                written: Arc::clone(&depth.written),
            };
            write_tree(request, &fetched, &resolved, &commit, &inside, depth).await
        };
        inside.await.map_err(|source| GitError::InSubmodule {
            name: name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

/// The submodule that a path leads into, fetched, and the rest of the path in it.
pub(super) async fn containing<'a>(
    request: &'a Request,
    fetched: &Fetched<'_>,
    commit: &str,
    path: &str,
) -> Result<Option<(Fetched<'a>, String)>, GitError> {
    for submodule in described(fetched, commit).await? {
        let rest = match path.strip_prefix(&submodule.path) {
            Some("") => "",
            Some(rest) if rest.starts_with('/') && !submodule.path.is_empty() => rest.trim_start_matches('/'),
            _ => continue,
        };
        let links = links(fetched, commit, &submodule.path).await?;
        if let Some(commit) = links.get(&submodule.path) {
            let inner = fetch(request, fetched, &submodule, &at(commit)).await?;
            return Ok(Some((inner, rest.to_owned())));
        }
    }
    Ok(None)
}

fn at(commit: &str) -> Resolved {
    Resolved {
        reference: commit.to_owned(),
        object: commit.to_owned(),
        commit: None,
    }
}

async fn fetch<'a>(
    request: &'a Request,
    outer: &Fetched<'_>,
    submodule: &Described,
    resolved: &Resolved,
) -> Result<Fetched<'a>, GitError> {
    let failed = |problem| GitError::Submodule {
        remote: outer.shown().to_owned(),
        name: submodule.name.clone(),
        problem,
    };
    let url = absolute(outer.url(), &submodule.url).ok_or_else(|| {
        failed(format!(
            "has the address {:?}, which leads nowhere",
            submodule.url
        ))
    })?;
    if GitUrl::parse(&url).is_err() && !request.git.protocols.contains("file") {
        let shown = without_credentials(&url);
        let problem = format!("has the address {shown:?}: only http, https, ssh and git are allowed");
        return Err(failed(problem));
    }
    Fetched::get(request, &url, resolved, false).await
}

fn is_folder_without_links(root: &Path, path: &str) -> bool {
    let mut at = root.to_owned();
    Path::new(path).components().all(|component| {
        at.push(component);
        matches!(component, Component::Normal(_))
            && std::fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_dir())
    })
}

/// Paths and commits of the submodules in a tree, or in a folder of it.
async fn links(
    fetched: &Fetched<'_>,
    commit: &str,
    subfolder: &str,
) -> Result<BTreeMap<String, String>, GitError> {
    let mut call = fetched
        .call()
        .arguments(["ls-tree", "-r", "-z", "--full-tree", commit]);
    if !subfolder.is_empty() {
        call = call.arguments(["--", subfolder]);
    }
    let output = call
        .succeed(|| format!("failed to list the files of {}", fetched.shown()))
        .await?;
    let mut links = BTreeMap::new();
    for line in output.split(|byte| *byte == 0) {
        // `mode kind object\tpath`; a path that is no text is none that `.gitmodules` can name.
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        if let Some((head, path)) = line.split_once('\t')
            && let [GITLINK, _, object] = head.split(' ').collect::<Vec<_>>()[..]
            && is_object_name(object)
        {
            links.insert(path.to_owned(), object.to_owned());
        }
    }
    Ok(links)
}

async fn described(fetched: &Fetched<'_>, commit: &str) -> Result<Vec<Described>, GitError> {
    let file = format!("{commit}:.gitmodules");
    if fetched.parsed(&file).await?.is_none() {
        return Ok(Vec::new());
    }
    let call = fetched
        .call()
        .arguments(["config", "--blob", &file, "--null", "--no-includes", "--list"]);
    let output = call
        .succeed(|| format!("failed to read .gitmodules of {}", fetched.shown()))
        .await?;
    Ok(read(&String::from_utf8_lossy(&output)))
}

/// `submodule.<name>.<key>\n<value>\0` again and again.
fn read(listing: &str) -> Vec<Described> {
    let mut found: BTreeMap<String, Described> = BTreeMap::new();
    for entry in listing.split('\0') {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let Some((name, key)) = key
            .strip_prefix("submodule.")
            .and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let described = found.entry(name.to_owned()).or_insert_with(|| Described {
            name: name.to_owned(),
            ..Described::default()
        });
        match key {
            "path" => value.clone_into(&mut described.path),
            "url" => value.clone_into(&mut described.url),
            _ => {}
        }
    }
    found.into_values().collect()
}

/// An address that may be relative to that of the repository which names it.
fn absolute(base: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return (!url.is_empty()).then(|| url.to_owned());
    }
    let (mut base, mut rest) = (base.trim_end_matches('/').to_owned(), url);
    loop {
        if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else if let Some(next) = rest.strip_prefix("../") {
            rest = next;
            // Not further up than where the path begins.
            let start = base.find("://").map_or(0, |at| at + 3);
            // `user@host:path`: the path starts behind the colon, which anywhere else is before a port.
            let ends: &[char] = if start == 0 { &['/', ':'] } else { &['/'] };
            let cut = base.get(start..)?.rfind(ends)? + start;
            let keep = if base.get(cut..)?.starts_with(':') {
                cut + 1
            } else {
                cut
            };
            base.truncate(keep);
            if keep > cut {
                return Some(format!("{base}{}", rest.trim_start_matches('/')))
                    .filter(|_| !rest.starts_with("../"));
            }
        } else {
            return Some(format!("{base}/{rest}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_relative_to_their_repository() {
        for (base, url, expected) in [
            ("https://e.com/a/b.git", "../c.git", Some("https://e.com/a/c.git")),
            (
                "https://e.com/a/b.git",
                "../../c.git",
                Some("https://e.com/c.git"),
            ),
            (
                "https://e.com/a/b.git/",
                "./c.git",
                Some("https://e.com/a/b.git/c.git"),
            ),
            ("https://e.com/b.git", "../../../c.git", None),
            ("http://e.com:80/b.git", "../../c.git", None),
            ("http://e.com:80/b.git", "../c.git", Some("http://e.com:80/c.git")),
            ("git@e.com:a/b.git", "../c.git", Some("git@e.com:a/c.git")),
            ("git@e.com:b.git", "../c.git", Some("git@e.com:c.git")),
            ("git@e.com:b.git", "../../c.git", None),
            ("https://e.com/a.git", "https://f.org/c", Some("https://f.org/c")),
            ("https://e.com/a.git", "", None),
        ] {
            assert_eq!(absolute(base, url).as_deref(), expected, "{base} {url}");
        }
    }

    #[test]
    fn the_file_is_read_whatever_names_are_in_it() {
        let listing = "submodule.a.b.path\nlib/x\0submodule.a.b.url\n../x.git\0core.bare\ntrue\0submodule.c.update\n!sh\0";
        assert_eq!(
            read(listing),
            [
                Described {
                    name: "a.b".to_owned(),
                    path: "lib/x".to_owned(),
                    url: "../x.git".to_owned(),
                },
                Described {
                    name: "c".to_owned(),
                    ..Described::default()
                },
            ]
        );
    }
}
