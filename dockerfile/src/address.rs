//! Addresses of files elsewhere: what a build context, a named context or ADD may name instead of a path.
//!
//! An address is a Git repository if its transport or the `.git` at the end of its path says so; any other `http` or
//! `https` address is one file. The rules, and what may be said about a repository in a fragment or in a query, are
//! BuildKit's.

mod git_url;
mod reference;
#[cfg(test)]
mod tests;

pub use git_url::{GitUrl, GitUrlError};
pub use reference::{GitReference, GitReferenceError, Mtime};

/// Where files are to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Git(Box<GitReference>),
    /// One file at an `http` or `https` URL.
    Http(String),
}

impl Address {
    /// What `text` names; nothing if it is a path.
    pub fn parse(text: &str) -> Result<Option<Self>, GitReferenceError> {
        if let Some(reference) = GitReference::parse(text)? {
            return Ok(Some(Self::Git(Box::new(reference))));
        }
        Ok(is_http(text).then(|| Self::Http(text.to_owned())))
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The last part of a URL's path, by which a downloaded file is called; nothing if the path is empty.
pub fn file_name(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (_, path) = rest.split_once('/')?;
    let decoded = git_url::percent_decoded(path, git_url::Plus::Kept)?;
    let name = decoded.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
}

/// `text` without the user name and password that a URL may carry, for displays and logs.
pub fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        // An account on an SSH server is no secret, and without it the address would be another one.
        Some((user, host)) if scheme.eq_ignore_ascii_case("ssh") && !user.contains(':') => {
            format!("{scheme}://{user}@{host}{path}")
        }
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => text.to_owned(),
    }
}

/// `text` with its percent escapes replaced; as it is if there is one that means nothing.
pub fn decoded(text: &str) -> String {
    git_url::percent_decoded(text, git_url::Plus::Kept).unwrap_or_else(|| text.to_owned())
}
