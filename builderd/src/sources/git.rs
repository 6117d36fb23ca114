//! `git://` sources: a commit of a repository, or a folder of it, as an immutable layer.
//!
//! A reference is looked up at its remote first, which is all that an unchanged one costs: the layer is known by its
//! commit. What is new is fetched, as little as the server allows, into the one bare repository that the daemon keeps
//! for the remote (`store::Repository`), and checked out from there. Everything is done by the `git` program
//! (`command`). Submodules are sources of their own (`submodules`): their addresses are looked at before git is.

mod access;
mod bundle;
mod checkout;
mod command;
mod fetch;
mod remote;
mod signed;
mod submodules;
#[cfg(test)]
mod tests;
mod times;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dockerfile::address::{GitUrl, GitUrlError, Mtime, without_credentials};
use proto::pb;

use crate::progress::VertexProgress;
use crate::session::{Group, SessionError};
use crate::sources::blob::{BlobPlace, BlobSourceError};
use crate::store::view::ViewError;
use crate::store::{CacheKey, LayerError, Snapshot, Store, WorkLost};

pub use command::Git;
pub use remote::Resolved;
pub use signed::{Demanded, SignedObject, SignedTag};

use access::Access;
use fetch::Fetched;

const SCHEME: &str = "git://";
/// Raised when the files of a checkout, and so the layer of equal keys, change.
const VERSION: &str = "1";

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("{identifier:?} is no git source")]
    Identifier {
        identifier: String,
        #[source]
        source: GitUrlError,
    },
    #[error("invalid git ref {0:?}")]
    Reference(String),
    #[error("invalid value {value:?} of {name} for a git source: {expected}")]
    Attribute {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error(
        "signatures of git sources need git.sig.pubkey: the keys, OpenPGP's or SSH's, that one of must have signed"
    )]
    NoKeys,
    #[error("{0} is not known to git sources")]
    SignatureAttribute(String),
    #[error(
        "cannot run {}: repositories are fetched by the git program, which must be in the PATH of the daemon; where it \
         is not, check the repository out and build from the folder, or create the builder with an image that has git \
         (--driver-opt image=…)", program.display()
    )]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("git was started without pipes")]
    Pipe,
    #[error("cannot wait for git")]
    Wait(#[source] std::io::Error),
    #[error("git was given up after {} seconds without a sign of life from the server", patience.as_secs())]
    Silent { patience: Duration },
    #[error("git wrote more than {} MiB", limit >> 20)]
    TooMuchOutput { limit: usize },
    #[error("{doing}: {messages}{hint}")]
    Failed {
        doing: String,
        messages: String,
        hint: &'static str,
    },
    #[error("repository does not contain ref {reference}, it is {remote}{hint}")]
    NoReference {
        remote: String,
        reference: String,
        hint: &'static str,
    },
    #[error("could not find default branch for repository: {remote}")]
    NoDefaultBranch { remote: String },
    #[error("repository {remote} answers with {line:?}, which is no listing of refs")]
    Listing { remote: String, line: String },
    #[error("repository {remote} has no commit {commit}")]
    NoCommit { remote: String, commit: String },
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum { expected: String, found: String },
    #[error("{reference} of {remote} is not signed as demanded: {problems}")]
    NotVerified {
        remote: String,
        reference: String,
        problems: String,
    },
    #[error("commit {commit} of {remote} has no folder {subfolder:?}")]
    NoFolder {
        remote: String,
        commit: String,
        subfolder: String,
    },
    #[error("submodule {name:?} of {remote} {problem}")]
    Submodule {
        remote: String,
        name: String,
        problem: String,
    },
    #[error("cannot fetch submodule {name:?}")]
    InSubmodule {
        name: String,
        #[source]
        source: Box<Self>,
    },
    #[error("git.bundle requires git.checksum to be set: the commit that it is to bring")]
    BundleWithoutChecksum,
    #[error("git.checkoutbundle is incompatible with {0}")]
    BundleOf(&'static str),
    #[error("failed to fetch git bundle")]
    Bundle(#[source] Box<BlobSourceError>),
    #[error("secret {0} cannot be sent: it holds a line break or is no text")]
    Secret(String),
    #[error("no SSH agent {id:?} is forwarded from the client: build with --ssh {id}")]
    NoAgent { id: String },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("cannot {doing} the repository {}", path.display())]
    Repository {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot prepare what git needs")]
    Prepare(#[source] std::io::Error),
    #[error("cannot keep the files that were checked out")]
    Keep(#[source] std::io::Error),
    #[error("cannot set the times of the files that were checked out")]
    Times(#[source] ViewError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// What a git source asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSource {
    /// As given, credentials and all.
    url: GitUrl,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Empty for the root.
    pub subfolder: String,
    pub checksum: Option<String>,
    /// By whom it must be signed.
    pub signature: Option<Demanded>,
    pub keep_git_dir: bool,
    pub submodules: bool,
    pub mtime: Mtime,
    pub fetch_by_commit: bool,
    /// What has the commits instead of the repository.
    pub bundle: Option<BlobPlace>,
    /// The result is a bundle, not files.
    pub as_bundle: bool,
    /// Names of secrets.
    pub header_secret: String,
    pub token_secret: String,
    pub known_hosts: String,
    /// Name of an SSH agent of the client.
    pub agent: Option<String>,
}

impl GitSource {
    pub fn parse(source: &pb::SourceOp) -> Result<Self, GitError> {
        let failed = |source_error| GitError::Identifier {
            identifier: without_credentials(&source.identifier),
            source: source_error,
        };
        let identifier = source
            .identifier
            .strip_prefix(SCHEME)
            .unwrap_or(&source.identifier);
        let transported = |text: &str| match GitUrl::parse(text) {
            Err(GitUrlError::NoProtocol(_)) => GitUrl::parse(&format!("https://{text}")),
            other => other,
        };
        let identity = transported(identifier).map_err(failed)?;
        let (reference, subfolder) = identity.reference_and_subfolder();
        if reference.starts_with('-') || reference.chars().any(|c| c.is_control()) {
            return Err(GitError::Reference(reference));
        }
        let attributes = Attributes(&source.attrs);
        let url = match attributes.text("git.fullurl") {
            "" => identity,
            full => transported(full).map_err(failed)?,
        };
        let checksum = attributes.checksum()?;
        let bundle = match attributes.text("git.bundle") {
            "" => None,
            _ if checksum.is_none() => return Err(GitError::BundleWithoutChecksum),
            place => {
                let place = BlobPlace::parse(place, &source.attrs);
                Some(place.map_err(|error| GitError::Bundle(Box::new(error)))?)
            }
        };
        let as_bundle = attributes.is_set("git.checkoutbundle");
        if as_bundle && attributes.is_set("git.keepgitdir") {
            return Err(GitError::BundleOf("git.keepgitdir"));
        }
        if as_bundle && !subfolder.is_empty() {
            return Err(GitError::BundleOf("git.subdir"));
        }
        Ok(Self {
            url,
            reference,
            subfolder,
            checksum,
            signature: Demanded::parse(&attributes)?,
            bundle,
            as_bundle,
            keep_git_dir: attributes.is_set("git.keepgitdir"),
            submodules: !attributes.is_set("git.skipsubmodules"),
            mtime: match attributes.text("git.mtime") {
                "" => Mtime::Checkout,
                value => Mtime::parse(value).ok_or_else(|| GitError::Attribute {
                    name: "git.mtime",
                    value: value.to_owned(),
                    expected: "checkout or commit",
                })?,
            },
            fetch_by_commit: attributes.is_set("git.fetchbycommit"),
            header_secret: attributes.text("git.authheadersecret").to_owned(),
            token_secret: attributes.text("git.authtokensecret").to_owned(),
            known_hosts: attributes.text("git.knownsshhosts").to_owned(),
            agent: Some(attributes.text("git.mountsshsock"))
                .filter(|agent| !agent.is_empty())
                .map(str::to_owned),
        })
    }

    /// The repository with the reference in its fragment, credentials and all.
    pub fn address(&self) -> String {
        match self.reference.as_str() {
            "" => self.url.remote.clone(),
            reference => format!("{}#{reference}", self.url.remote),
        }
    }

    /// The repository as it may be shown.
    pub fn shown(&self) -> String {
        without_credentials(&self.url.remote)
    }

    /// What the source is to a build, which asks once what its reference names.
    pub fn identity(&self) -> CacheKey {
        let by_commit = if self.fetch_by_commit { "by commit" } else { "" };
        let checksum = self.checksum.as_deref().unwrap_or_default();
        let bundle = self.bundle.as_ref().map_or("", |place| place.digest.as_str());
        let parts = [
            VERSION,
            &self.url.remote,
            &self.reference,
            checksum,
            by_commit,
            bundle,
        ];
        CacheKey::new("git reference", parts)
    }

    /// Under what the layer of a resolved source is known.
    pub fn cache_key(&self, resolved: &Resolved) -> CacheKey {
        let mut parts = vec![VERSION, resolved.tree_of(self.keeps_git_dir())];
        // A git folder says where it comes from.
        let shown = self.shown();
        if self.keeps_git_dir() {
            parts.extend([resolved.reference.as_str(), &shown]);
        }
        if self.as_bundle {
            parts = vec![VERSION, "bundle", &resolved.object, &resolved.reference];
        }
        parts.extend([
            self.subfolder.as_str(),
            if self.submodules { "submodules" } else { "" },
            match self.mtime {
                Mtime::Checkout => "",
                Mtime::Commit => "commit times",
            },
        ]);
        CacheKey::new("git source", parts)
    }

    /// A folder of a repository has no git folder of its own.
    fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir && self.subfolder.is_empty()
    }
}

struct Attributes<'a>(&'a BTreeMap<String, String>);

impl Attributes<'_> {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn is_set(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    fn checksum(&self) -> Result<Option<String>, GitError> {
        match self.text("git.checksum") {
            "" => Ok(None),
            value if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Some(value.to_ascii_lowercase()))
            }
            value => Err(GitError::Attribute {
                name: "git.checksum",
                value: value.to_owned(),
                expected: "a commit, or the beginning of one, in hex",
            }),
        }
    }
}

/// A source being worked on in the name of a client.
pub struct Request {
    git: Git,
    source: GitSource,
    access: Access,
    store: Store,
    log: VertexProgress,
    /// The file that stands for the repository.
    bundle: Option<PathBuf>,
}

/// The objects behind a reference, as git stores them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub commit: Vec<u8>,
    /// Of an annotated tag.
    pub tag: Vec<u8>,
}

impl Request {
    /// Gets the credentials that the source names.
    pub async fn open(
        git: Git,
        source: GitSource,
        sessions: &Group,
        store: Store,
        log: VertexProgress,
    ) -> Result<Self, GitError> {
        let access = Access::open(&source, sessions).await?;
        Ok(Self {
            git,
            source,
            access,
            store,
            log,
            bundle: None,
        })
    }

    /// The same, with a file that has the commits instead of the repository.
    #[must_use]
    pub fn with_bundle(mut self, bundle: Option<PathBuf>) -> Self {
        self.bundle = bundle;
        self
    }

    pub fn source(&self) -> &GitSource {
        &self.source
    }

    /// Finds out which commit is meant.
    pub async fn resolve(&self) -> Result<Resolved, GitError> {
        let mut resolved = remote::resolve(self).await?;
        if self.bundle.is_some() {
            let commit = self.fetched(&resolved).await?.commit().await?;
            resolved.commit = Some(commit).filter(|commit| *commit != resolved.object);
            resolved = resolved.check(self.source.checksum.as_deref())?;
        }
        Ok(resolved)
    }

    /// Fails unless what was resolved is signed by whom the source demands.
    pub async fn verify(&self, resolved: &Resolved) -> Result<(), GitError> {
        let Some(demanded) = &self.source.signature else {
            return Ok(());
        };
        let mut resolved = resolved.clone();
        let objects = self.objects(&mut resolved).await?;
        let (keys, now) = (demanded.clone(), std::time::SystemTime::now());
        let named = resolved.clone();
        let verify = move || keys.verify(&objects, &named, now);
        let verified = self.store.pool().run(verify).await?;
        verified.map_err(|problems| GitError::NotVerified {
            remote: self.source.shown(),
            reference: resolved.reference,
            problems,
        })
    }

    /// Brings the files of a commit into a layer.
    pub async fn check_out(&self, resolved: &Resolved) -> Result<Snapshot, GitError> {
        let fetched = self.fetched(resolved).await?;
        if let Some(expected) = &self.source.checksum {
            fetched.check(expected).await?;
        }
        if self.source.as_bundle {
            return bundle::make(self, &fetched, resolved).await;
        }
        checkout::check_out(self, fetched, resolved).await
    }

    /// The repository here, with what was resolved.
    async fn fetched(&self, resolved: &Resolved) -> Result<Fetched<'_>, GitError> {
        let (url, only_by_name) = (&self.source.url.remote, self.source.fetch_by_commit);
        match (
            Fetched::get(self, url, resolved, only_by_name).await,
            &resolved.commit,
        ) {
            // The tag was replaced since we asked. Its commit may still be there, and has the same files.
            (Err(GitError::NoCommit { .. }), Some(commit)) if !self.source.keeps_git_dir() => {
                Fetched::get(self, url, &Resolved::commit(commit), true).await
            }
            (fetched, _) => fetched,
        }
    }

    /// What the reference is, with its commit and its tag as git stores them.
    pub async fn objects(&self, resolved: &mut Resolved) -> Result<Objects, GitError> {
        let fetched = Fetched::get(
            self,
            &self.source.url.remote,
            resolved,
            self.source.fetch_by_commit,
        )
        .await?;
        let commit = fetched.commit().await?;
        let mut objects = Objects::default();
        if commit == resolved.object {
            resolved.commit = None;
        } else {
            objects.tag = fetched.object("tag", &resolved.object).await?;
            resolved.commit = Some(commit.clone());
        }
        objects.commit = fetched.object("commit", &commit).await?;
        Ok(objects)
    }

    /// A call that reaches the server behind `url`, whose name in it is `origin`.
    fn call(&self, url: &str) -> command::Call<'_> {
        let call = self.git.call().logged(&self.log);
        match &self.bundle {
            // Submodules come from their own repositories.
            Some(bundle) if url == self.source.url.remote => call
                .configured("remote.origin.url", bundle.to_string_lossy())
                .environment("GIT_ALLOW_PROTOCOL", "file"),
            _ => self.access.apply(call, url),
        }
    }
}
