//! Getting a commit into the daemon's repository of its remote.
//!
//! For each object that was fetched completely the repository has a reference, `refs/fetched/<object>`, made by the
//! fetch itself: an object that is there without one may lack what it refers to. The references are also what the
//! next fetch tells the server it has.
//!
//! The repository is locked while it is fetched into and not while it is read: a repository may have another one, or
//! itself, as a submodule, and who holds one lock must not wait for another.

use std::path::{Path, PathBuf};

use dockerfile::address::without_credentials;

use super::remote::Resolved;
use super::{GitError, Request};
use crate::store::Repository;

/// A repository that has an object.
pub(super) struct Fetched<'a> {
    request: &'a Request,
    folder: PathBuf,
    url: String,
    /// The same as it may be shown.
    shown: String,
    object: String,
}

impl<'a> Fetched<'a> {
    /// The repository of `url` with the object that `resolved` names in it.
    pub(super) async fn get(
        request: &'a Request,
        url: &str,
        resolved: &Resolved,
        only_by_name: bool,
    ) -> Result<Self, GitError> {
        let shown = without_credentials(url);
        let hash = if resolved.object.len() == 64 {
            "sha256"
        } else {
            "sha1"
        };
        let repository = request.store.repository(&format!("{hash} {shown}")).await;
        let fetched = Self {
            request,
            folder: repository.folder().to_owned(),
            url: url.to_owned(),
            shown,
            object: resolved.object.clone(),
        };
        let reference = (!only_by_name).then_some(resolved.reference.as_str());
        match fetched.ensure(&repository, reference, hash).await {
            Err(GitError::Failed { messages, .. }) if is_damage(&messages) => {
                tracing::warn!(remote = %fetched.shown, %messages, "the repository is made anew");
                repository.discard();
                fetched.ensure(&repository, reference, hash).await?;
            }
            other => other?,
        }
        Ok(fetched)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The reference that keeps the object.
    pub(super) fn reference(&self) -> String {
        format!("refs/fetched/{}", self.object)
    }

    /// A call that asks nobody but this repository.
    pub(super) fn call(&self) -> super::command::Call<'_> {
        self.request.git.call().in_repository(self.folder())
    }

    /// The commit that the object is, or that the tag it is names.
    pub(super) async fn commit(&self) -> Result<String, GitError> {
        let revision = format!("{}^{{commit}}", self.object);
        match self.parsed(&revision).await? {
            Some(commit) => Ok(commit),
            None => Err(GitError::NoCommit {
                remote: self.shown.clone(),
                commit: self.object.clone(),
            }),
        }
    }

    pub(super) async fn object(&self, kind: &str, name: &str) -> Result<Vec<u8>, GitError> {
        let call = self.call().arguments(["cat-file", kind, name]);
        call.succeed(|| format!("failed to read {kind} {name} of {}", self.shown))
            .await
    }

    /// Fails unless the object or its commit begins with `expected`.
    pub(super) async fn check(&self, expected: &str) -> Result<(), GitError> {
        if self.object.starts_with(expected) {
            return Ok(());
        }
        let commit = self.commit().await?;
        if commit.starts_with(expected) {
            return Ok(());
        }
        Err(GitError::Checksum {
            expected: expected.to_owned(),
            found: format!("{} or {commit}", self.object),
        })
    }

    /// The name of what a revision names, if anything.
    pub(super) async fn parsed(&self, revision: &str) -> Result<Option<String>, GitError> {
        let call = self
            .call()
            .arguments(["rev-parse", "--verify", "--quiet", "--end-of-options", revision]);
        let ended = call.run().await?;
        let name = String::from_utf8_lossy(&ended.output).trim().to_owned();
        Ok((ended.succeeded() && super::remote::is_object_name(&name)).then_some(name))
    }

    async fn has(&self) -> Result<bool, GitError> {
        Ok(self.parsed(&self.reference()).await?.as_deref() == Some(self.object.as_str()))
    }

    async fn ensure(
        &self,
        repository: &Repository,
        reference: Option<&str>,
        hash: &str,
    ) -> Result<(), GitError> {
        if repository.exists() {
            if self.has().await? {
                return Ok(());
            }
            // Left behind when a daemon was killed; nobody else is in this repository now.
            std::fs::remove_file(self.folder().join("shallow.lock")).ok();
        } else {
            self.make(repository, hash).await?;
        }
        let into = self.reference();
        if let Some(reference) = reference.filter(|reference| *reference != self.object) {
            let wanted = format!("+{reference}:{into}");
            self.fetch(&["--depth=1", &wanted]).await?;
            if self.has().await? {
                return Ok(());
            }
            // It moved since we asked. What it named then may still be had by its own name.
            tracing::debug!(remote = %self.shown, reference, "the reference moved while it was fetched");
            let forget = self.call().arguments(["update-ref", "-d", &into]);
            forget.succeed(|| format!("failed to forget {into}")).await?;
        }
        let wanted = format!("+{}:{into}", self.object);
        let by_name = self.fetch(&["--depth=1", &wanted]).await;
        if by_name.is_ok() && self.has().await? {
            return Ok(());
        }
        if let Err(error) = by_name {
            // A server need not hand out what no reference of it names: then all of them must be looked through.
            let refused = matches!(&error, GitError::Failed { messages, .. }
                if self.request.bundle.is_some() || is_refusal(messages));
            if !refused || (reference.is_none() && self.request.source.fetch_by_commit) {
                return Err(error);
            }
        }
        let all = ["+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"];
        let whole = self.folder().join("shallow").exists().then_some("--unshallow");
        let arguments: Vec<&str> = whole.into_iter().chain(["--prune"]).chain(all).collect();
        self.fetch(&arguments).await?;
        let revision = format!("{}^{{commit}}", self.object);
        if self.parsed(&revision).await?.is_none() {
            return Err(GitError::NoCommit {
                remote: self.shown.clone(),
                commit: self.object.clone(),
            });
        }
        let keep = self.call().arguments(["update-ref", &into, &self.object]);
        keep.succeed(|| format!("failed to keep {into}")).await?;
        Ok(())
    }

    /// Fetches from `origin`; without a depth where the server cannot have one.
    async fn fetch(&self, arguments: &[&str]) -> Result<(), GitError> {
        let doing = || format!("failed to fetch remote {}", self.shown);
        let (options, wanted): (Vec<&str>, Vec<&str>) = arguments
            .iter()
            .copied()
            .partition(|argument| argument.starts_with("--"));
        for options in [
            options.clone(),
            options
                .into_iter()
                .filter(|option| *option != "--depth=1")
                .collect(),
        ] {
            let ended = self
                .request
                .call(&self.url)
                .in_repository(self.folder())
                .arguments(["fetch", "--progress", "--no-tags", "--force"])
                .arguments(options.clone())
                .arguments(["--", "origin"])
                .arguments(wanted.clone())
                .run()
                .await?;
            if ended.succeeded() {
                return Ok(());
            }
            let shallow = ended.messages.contains("shallow") || ended.messages.contains("--depth");
            if !(shallow && options.contains(&"--depth=1")) {
                return Err(ended.failure(doing()));
            }
        }
        Ok(())
    }

    async fn make(&self, repository: &Repository, hash: &str) -> Result<(), GitError> {
        let draft = repository.draft();
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| GitError::Repository { doing, path, source }
        };
        std::fs::create_dir(&draft).map_err(failed("create", &draft))?;
        let call = self.request.git.call().arguments([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            &format!("--object-format={hash}"),
        ]);
        let call = call.arguments([&draft]);
        call.succeed(|| format!("failed to make a repository for {}", self.shown))
            .await?;
        std::fs::write(draft.join("description"), format!("{}\n", self.shown))
            .map_err(failed("describe", &draft))?;
        repository
            .publish(&draft)
            .map_err(failed("publish", self.folder()))
    }
}

/// Whether a server said that it does not hand out an object by its name.
fn is_refusal(messages: &str) -> bool {
    [
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "no such remote ref",
    ]
    .iter()
    .any(|text| messages.contains(text))
}

/// Whether what went wrong lies in the repository here.
fn is_damage(messages: &str) -> bool {
    [
        ".lock': File exists",
        "unable to update local ref",
        "refname conflict",
        "would clobber",
        "bad object",
        "missing blob",
        "missing tree",
        "missing necessary objects",
        "is corrupt",
        "object file",
        "not a git repository",
        "unable to read tree",
        "mismatched algorithms",
    ]
    .iter()
    .any(|text| messages.contains(text))
}
