//! What a reference names now: one question to the server.

use std::time::Duration;

use super::{GitError, Request};

/// A listing is short, or not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a reference was found to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its full name, or a commit.
    pub reference: String,
    /// What it names: a commit or an annotated tag.
    pub object: String,
    /// The commit behind an annotated tag, as far as it is known.
    pub commit: Option<String>,
}

impl Resolved {
    pub(super) fn commit(name: &str) -> Self {
        Self {
            reference: name.to_owned(),
            object: name.to_owned(),
            commit: None,
        }
    }

    /// What determines the files: for those who do not see the tag, the commit behind it is the same as any other.
    pub(super) fn tree_of(&self, sees_tag: bool) -> &str {
        match &self.commit {
            Some(commit) if !sees_tag => commit,
            _ => &self.object,
        }
    }

    pub(super) fn check(self, expected: Option<&str>) -> Result<Self, GitError> {
        let Some(expected) = expected else { return Ok(self) };
        let commit = self.commit.as_deref().unwrap_or_default();
        if self.object.starts_with(expected) || commit.starts_with(expected) {
            return Ok(self);
        }
        let found = match &self.commit {
            Some(commit) => format!("{} or {commit}", self.object),
            None => self.object,
        };
        Err(GitError::Checksum {
            expected: expected.to_owned(),
            found,
        })
    }
}

/// Whether `text` is the full name of an object, in either of git's hash functions.
pub(super) fn is_object_name(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) async fn resolve(request: &Request) -> Result<Resolved, GitError> {
    let source = &request.source;
    let (reference, checksum) = (source.reference.as_str(), source.checksum.as_deref());
    if is_object_name(reference) {
        return Resolved::commit(reference).check(checksum);
    }
    // Of a bundle nobody asks what its default branch is.
    if reference.is_empty()
        && source.bundle.is_some()
        && let Some(commit) = checksum.filter(|commit| is_object_name(commit))
    {
        return Ok(Resolved::commit(commit));
    }
    if source.fetch_by_commit {
        let commit = checksum
            .filter(|commit| is_object_name(commit))
            .ok_or_else(|| GitError::Attribute {
                name: "git.checksum",
                value: checksum.unwrap_or_default().to_owned(),
                expected: "with fetch-by-commit, a full commit",
            })?;
        let reference = match reference {
            "" => commit.to_owned(),
            full if full.starts_with("refs/") => full.to_owned(),
            branch => format!("refs/heads/{branch}"),
        };
        return Ok(Resolved {
            reference,
            ..Resolved::commit(commit)
        });
    }
    let resolved = if reference.is_empty() {
        default_branch(request).await?
    } else {
        named(request, reference).await?
    };
    match request.bundle {
        // Its list does not say what tags are of.
        Some(_) => Ok(resolved),
        None => resolved.check(checksum),
    }
}

async fn listed(request: &Request, arguments: &[&str]) -> Result<Vec<(String, String)>, GitError> {
    let shown = request.source.shown();
    let call = request
        .call(&request.source.url.remote)
        .arguments(["ls-remote"])
        .arguments(arguments)
        .patience(PATIENCE);
    let output = call.succeed(|| format!("failed to fetch remote {shown}")).await?;
    let lines = String::from_utf8_lossy(&output);
    lines
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((object, name)) if object.starts_with("ref: ") || is_object_name(object) => {
                Ok((object.to_owned(), name.to_owned()))
            }
            _ => Err(GitError::Listing {
                remote: shown.clone(),
                line: line.chars().take(100).collect(),
            }),
        })
        .collect()
}

async fn default_branch(request: &Request) -> Result<Resolved, GitError> {
    let listed = listed(request, &["--symref", "--", "origin", "HEAD"]).await?;
    let mut branch = None;
    let mut object = None;
    for (what, name) in listed {
        if name != "HEAD" {
            continue;
        }
        match what.strip_prefix("ref: ") {
            Some(full) => branch = Some(full.to_owned()),
            None => object = Some(what),
        }
    }
    match (branch, object) {
        (Some(reference), Some(object)) if reference.starts_with("refs/heads/") => Ok(Resolved {
            reference,
            object,
            commit: None,
        }),
        // Servers of old do not say which branch it is.
        (_, Some(object)) => Ok(Resolved {
            reference: "HEAD".to_owned(),
            object,
            commit: None,
        }),
        (_, None) => Err(GitError::NoDefaultBranch {
            remote: request.source.shown(),
        }),
    }
}

/// Branches go before tags of the same name, as for `git checkout`; what is spelt in full before both.
async fn named(request: &Request, reference: &str) -> Result<Resolved, GitError> {
    let peeled = format!("{reference}^{{}}");
    let listed = listed(request, &["--", "origin", reference, &peeled]).await?;
    let full = format!("refs/{}", reference.strip_prefix("refs/").unwrap_or(reference));
    let head = format!(
        "refs/heads/{}",
        reference.strip_prefix("refs/heads/").unwrap_or(reference)
    );
    let tag = format!(
        "refs/tags/{}",
        reference.strip_prefix("refs/tags/").unwrap_or(reference)
    );
    let object = |name: &str| {
        let found = listed.iter().find(|(_, known)| known == name);
        found.map(|(object, _)| object.clone())
    };
    for name in [full, head, tag] {
        if let Some(found) = object(&name) {
            return Ok(Resolved {
                commit: object(&format!("{name}^{{}}")),
                object: found,
                reference: name,
            });
        }
    }
    let short = (4..40).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    Err(GitError::NoReference {
        remote: request.source.shown(),
        reference: reference.to_owned(),
        hint: if short {
            "; a commit must be given with all its digits"
        } else {
            ""
        },
    })
}
