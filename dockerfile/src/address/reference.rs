//! A repository with everything that may be said about what is wanted of it.

use super::git_url::{GitUrl, GitUrlError};

/// Which times files of a checkout have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtime {
    /// When they were checked out.
    #[default]
    Checkout,
    /// When the commit was made.
    Commit,
}

impl Mtime {
    /// From the value of a query or of an attribute.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "checkout" => Some(Self::Checkout),
            "commit" => Some(Self::Commit),
            _ => None,
        }
    }
}

/// What a context or ADD says of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitReference {
    /// What Git is to be given.
    pub remote: String,
    /// The repository without protocol and user.
    pub identity: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Empty for the root.
    pub subfolder: String,
    /// The commit that it must be, or the beginning of its name.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    pub mtime: Option<Mtime>,
    /// The checksum is the commit to fetch, wherever the reference points by now.
    pub fetch_by_commit: bool,
    /// Reached through SSH.
    pub ssh: bool,
    /// Spelt `github.com/…`, which might be a folder: taken as a repository only where a context is named.
    pub like_a_path: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitReferenceError {
    #[error(transparent)]
    Url(#[from] GitUrlError),
    #[error("query {0:?} has no value")]
    NoValue(String),
    #[error("query {0:?} has multiple values")]
    Repeated(String),
    #[error("unexpected query {0:?}")]
    Unknown(String),
    #[error("invalid {key} value: {value:?}{expected}")]
    Value {
        key: String,
        value: String,
        expected: &'static str,
    },
    #[error("{what} conflicts: {first:?} vs {second:?}")]
    Conflict {
        what: &'static str,
        first: String,
        second: String,
    },
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

impl GitReference {
    /// Nothing if `text` names no repository.
    pub fn parse(text: &str) -> Result<Option<Self>, GitReferenceError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let like_a_path = text.starts_with("github.com/");
        let url = if like_a_path {
            GitUrl::parse(&format!("https://{text}"))
        } else {
            GitUrl::parse(text)
        };
        // A path may hold anything.
        let Ok(url) = url else { return Ok(None) };
        // Any file can be had by these protocols: the name must say that it is a repository.
        if matches!(url.scheme, "http" | "https") && !like_a_path && !url.path.ends_with(".git") {
            return Ok(None);
        }
        let (reference, subfolder) = url.reference_and_subfolder();
        let mut parsed = Self {
            identity: url.identity(),
            reference,
            subfolder,
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
            ssh: url.scheme == "ssh",
            like_a_path,
            remote: url.remote.clone(),
        };
        parsed.take_query(url.query_pairs()?)?;
        Ok(Some(parsed))
    }

    fn take_query(&mut self, mut pairs: Vec<(String, String)>) -> Result<(), GitReferenceError> {
        pairs.sort();
        if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(GitReferenceError::Repeated(twice[0].0.clone()));
        }
        let (mut tag, mut branch) = (None, None);
        for (key, value) in pairs {
            let switch = || boolean(&key, &value);
            match key.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(switch()?),
                "submodules" => self.submodules = Some(switch()?),
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                _ if value.is_empty() => return Err(GitReferenceError::NoValue(key)),
                "ref" => settle("ref", &mut self.reference, value)?,
                "subdir" => settle("subdir", &mut self.subfolder, super::git_url::clean(&value))?,
                "tag" => tag = Some(qualified("refs/tags/", value)),
                "branch" => branch = Some(qualified("refs/heads/", value)),
                "checksum" | "commit" => self.checksum = Some(value),
                "mtime" => {
                    let expected = " (must be \"checkout\" or \"commit\")";
                    let mtime = Mtime::parse(&value);
                    self.mtime = Some(mtime.ok_or(GitReferenceError::Value { key, value, expected })?);
                }
                _ => return Err(GitReferenceError::Unknown(key)),
            }
        }
        match (tag, branch) {
            (Some(_), Some(_)) => Err(GitReferenceError::BranchAndTag),
            (Some(full), None) | (None, Some(full)) => settle("ref", &mut self.reference, full),
            (None, None) => Ok(()),
        }
    }
}

fn settle(what: &'static str, place: &mut String, value: String) -> Result<(), GitReferenceError> {
    if !place.is_empty() && *place != value {
        return Err(GitReferenceError::Conflict {
            what,
            first: place.clone(),
            second: value,
        });
    }
    *place = value;
    Ok(())
}

fn qualified(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) {
        name
    } else {
        format!("{prefix}{name}")
    }
}

/// A key alone switches on.
fn boolean(key: &str, value: &str) -> Result<bool, GitReferenceError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitReferenceError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: "",
        }),
    }
}
