//! What a build is called in lists: a name it was given, else the folder or repository it was made from.

use std::collections::BTreeMap;

use super::local_state::LocalState;

const DEFAULT_FILE: &str = "/Dockerfile";

/// The name of a build with these frontend attributes, of which this is remembered here.
pub fn of(attributes: &BTreeMap<String, String>, state: Option<&LocalState>) -> String {
    let get = |key: &str| attributes.get(key).map(String::as_str);
    if let Some(name) = get("build-arg:BUILDKIT_BUILD_NAME").filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    let context = get("context").or_else(|| get("vcs:localdir:context").filter(|folder| *folder != "."));
    let mut place = match context {
        Some(context) if !context.is_empty() => context.to_owned(),
        _ => local_place(attributes, state),
    };
    if let Some(target) = get("target").filter(|target| !target.is_empty()) {
        place = if place.is_empty() {
            target.to_owned()
        } else {
            format!("{place} ({target})")
        };
    }
    if place.is_empty() {
        let source =
            get("vcs:source").or_else(|| get("input:context").filter(|input| git_remote(input).is_some()));
        return source.map(simple_git_url).unwrap_or_default();
    }
    place
}

/// The last folder of the context, and below it the Dockerfile if that is an unusual one.
fn local_place(attributes: &BTreeMap<String, String>, state: Option<&LocalState>) -> String {
    let get = |key: &str| attributes.get(key).map(String::as_str);
    let mut file = get("filename")
        .filter(|name| *name != "Dockerfile")
        .unwrap_or_default()
        .to_owned();
    if let Some(folder) = get("vcs:localdir:dockerfile").filter(|folder| *folder != ".") {
        file = clean(&format!("{folder}/{file}"));
    }
    let mut folder = "";
    if let Some(state) = state.filter(|state| !is_remote(&state.local_path)) {
        if state.local_path != "-" {
            folder = &state.local_path;
        }
        if !matches!(state.dockerfile_path.as_str(), "" | "-" | "Dockerfile") {
            file.clone_from(&state.dockerfile_path);
        }
    }
    let has_default_file = file.is_empty() || file.ends_with(DEFAULT_FILE);
    let file = file.strip_suffix(DEFAULT_FILE).unwrap_or(&file);
    if file.len() > folder.len() && file.starts_with(folder) {
        return file[folder.rfind('/').map_or(0, |slash| slash + 1)..].to_owned();
    }
    let path = if file.is_empty() { folder } else { file };
    let (parent, last) = path
        .rsplit_once('/')
        .map_or((None, path), |(parent, last)| (Some(parent), last));
    if has_default_file || path.is_empty() {
        return last.to_owned();
    }
    let parent = parent.unwrap_or(path);
    format!("{}/{last}", parent.rsplit('/').next().unwrap_or(parent))
}

/// Without `.` and empty parts, as far as that is possible without looking.
fn clean(path: &str) -> String {
    let start = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    format!("{start}{}", parts.join("/"))
}

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://", "github.com/"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// The repository of a git URL; none for anything else.
pub fn git_remote(url: &str) -> Option<String> {
    let remote = url.split(['#', '?']).next().unwrap_or(url);
    let over_http = remote.starts_with("http://") || remote.starts_with("https://");
    let is_git = if over_http {
        remote.ends_with(".git")
    } else {
        remote.starts_with("git://")
            || remote.starts_with("ssh://")
            || remote.starts_with("github.com/")
            || (remote.contains('@') && remote.contains(':') && !remote.contains("://"))
    };
    is_git.then(|| remote.to_owned())
}

/// `https://example.org/r.git?ref=main` as `https://example.org/r.git#main`.
fn simple_git_url(url: &str) -> String {
    let Some(remote) = git_remote(url) else {
        return url.to_owned();
    };
    let (before, fragment) = url.split_once('#').unwrap_or((url, ""));
    let query = before.split_once('?').map_or("", |(_, query)| query);
    let value = |key: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
    };
    let name = value("ref")
        .or_else(|| value("tag").map(|tag| format!("refs/tags/{tag}")))
        .or_else(|| value("branch").map(|branch| format!("refs/heads/{branch}")))
        .unwrap_or_else(|| fragment.split(':').next().unwrap_or_default().to_owned());
    if name.is_empty() {
        remote
    } else {
        format!("{remote}#{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected names are those that buildx gives the same records.
    #[test]
    fn builds_are_called_after_what_they_are_made_from() {
        let state = |folder: &str, file: &str| {
            Some(LocalState {
                local_path: folder.to_owned(),
                dockerfile_path: file.to_owned(),
                ..LocalState::default()
            })
        };
        type Case = (
            &'static [(&'static str, &'static str)],
            Option<LocalState>,
            &'static str,
        );
        let cases: [Case; 11] = [
            (&[], None, ""),
            (
                &[("build-arg:BUILDKIT_BUILD_NAME", "given")],
                state("/a/b", ""),
                "given",
            ),
            (&[], state("/tmp/project", "/tmp/project/Dockerfile"), "project"),
            (
                &[],
                state("/tmp/project", "/tmp/project/deploy/Dockerfile.release"),
                "project/deploy/Dockerfile.release",
            ),
            (
                &[],
                state("/tmp/project", "/other/place/My.Dockerfile"),
                "place/My.Dockerfile",
            ),
            (&[("target", "test")], state("/tmp/project", ""), "project (test)"),
            (&[("target", "test")], None, "test"),
            (
                &[("context", "https://example.org/r.git#main")],
                None,
                "https://example.org/r.git#main",
            ),
            (
                &[("vcs:source", "https://example.org/r.git?ref=main")],
                None,
                "https://example.org/r.git#main",
            ),
            (
                &[("input:context", "https://example.org/r.git?branch=x")],
                None,
                "https://example.org/r.git#refs/heads/x",
            ),
            (
                &[
                    ("vcs:localdir:context", "sub"),
                    ("vcs:source", "https://example.org/r.git"),
                ],
                None,
                "sub",
            ),
        ];
        for (attributes, state, name) in cases {
            let attributes = attributes
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            assert_eq!(of(&attributes, state.as_ref()), name, "{attributes:?} {state:?}");
        }
    }
}
