//! From the daemon's repository to a layer.
//!
//! Git writes the files of the tree and nothing else: what the tree says of filters and hooks has no effect without
//! configuration, and git refuses paths that lead out or into a git folder.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use dockerfile::address::Mtime;

use super::fetch::Fetched;
use super::remote::Resolved;
use super::submodules::{self, Depth};
use super::times::set_all_times;
use super::{GitError, Request};
use crate::store::{Content, LayerDraft, LayerId, NewLayer, Snapshot};

/// Where files go, and what of a repository goes there.
pub(super) struct Place<'a> {
    pub(super) files: &'a Path,
    /// For git's own files, which do not stay.
    pub(super) scratch: &'a Path,
    /// Empty for everything.
    pub(super) subfolder: &'a str,
    pub(super) git_dir: GitDir,
}

/// Whether a checkout is a repository of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GitDir {
    Kept,
    Left,
}

pub(super) async fn check_out(
    request: &Request,
    fetched: Fetched<'_>,
    resolved: &Resolved,
) -> Result<Snapshot, GitError> {
    let source = &request.source;
    let Part {
        fetched,
        commit,
        subfolder,
    } = part(request, fetched).await?;
    let draft = request.store.draft()?;
    let scratch = draft.work();
    let tree = scratch.join("tree");
    let files = if subfolder.is_empty() {
        draft.upper()
    } else {
        std::fs::create_dir(&tree).map_err(GitError::Keep)?;
        tree
    };
    let place = Place {
        files: &files,
        scratch: &scratch,
        subfolder: &subfolder,
        git_dir: if source.keeps_git_dir() {
            GitDir::Kept
        } else {
            GitDir::Left
        },
    };
    write_tree(request, &fetched, resolved, &commit, &place, Depth::default()).await?;
    let time = match source.mtime {
        Mtime::Checkout => None,
        Mtime::Commit => Some(commit_time(&fetched, &commit).await?),
    };
    let inside = (!subfolder.is_empty()).then(|| PathBuf::from("tree").join(&subfolder));
    let key = source.cache_key(resolved);
    let description = format!("git snapshot for {}#{}", source.shown(), source.reference);
    let store = request.store.clone();
    let pool = store.pool().clone();
    let layer = pool
        .run(move || {
            finish(&draft, inside.as_deref(), time)?;
            // By its key: whoever was faster has made the same.
            let layer = LayerId::new(format!("git-{key}"));
            let new = NewLayer {
                description,
                content: Content::Git,
                ..NewLayer::default()
            };
            store.commit_as(draft, &layer, new)?;
            Ok::<_, GitError>(layer)
        })
        .await??;
    Ok(Snapshot::new([layer]))
}

fn finish(draft: &LayerDraft, inside: Option<&Path>, time: Option<i64>) -> Result<(), GitError> {
    if let Some(inside) = inside {
        draft.keep_folder_of_work(inside).map_err(GitError::Keep)?;
    }
    match time {
        Some(seconds) => set_all_times(&draft.upper(), seconds).map_err(GitError::Times),
        None => Ok(()),
    }
}

/// What is to be checked out: a folder of a commit, in the repository itself or in one of its submodules.
struct Part<'a> {
    fetched: Fetched<'a>,
    commit: String,
    subfolder: String,
}

async fn part<'a>(request: &'a Request, fetched: Fetched<'a>) -> Result<Part<'a>, GitError> {
    let commit = fetched.commit().await?;
    let mut part = Part {
        fetched,
        commit,
        subfolder: request.source.subfolder.clone(),
    };
    // Each round leaves a part of the path behind.
    while !part.subfolder.is_empty() && !is_folder(&part).await? {
        let inner = if request.source.submodules {
            submodules::containing(request, &part.fetched, &part.commit, &part.subfolder).await?
        } else {
            None
        };
        let Some((fetched, rest)) = inner else {
            return Err(GitError::NoFolder {
                remote: part.fetched.shown().to_owned(),
                commit: part.commit,
                subfolder: part.subfolder,
            });
        };
        part = Part {
            commit: fetched.commit().await?,
            fetched,
            subfolder: rest,
        };
    }
    Ok(part)
}

/// Git looks the path up in the tree, where a link is a link and leads nowhere.
async fn is_folder(part: &Part<'_>) -> Result<bool, GitError> {
    let revision = format!("{}:{}", part.commit, part.subfolder);
    let call = part.fetched.call().arguments(["cat-file", "-t", &revision]);
    let ended = call.run().await?;
    Ok(ended.succeeded() && ended.output.trim_ascii() == b"tree")
}

/// Writes the tree of `commit`, with the submodules in it.
pub(super) fn write_tree<'a>(
    request: &'a Request,
    fetched: &'a Fetched<'_>,
    resolved: &'a Resolved,
    commit: &'a str,
    place: &'a Place<'_>,
    depth: Depth,
) -> Pin<Box<dyn Future<Output = Result<(), GitError>> + Send + 'a>> {
    Box::pin(async move {
        match place.git_dir {
            GitDir::Left => write_files(fetched, commit, place).await?,
            GitDir::Kept => write_clone(request, fetched, resolved, commit, place).await?,
        }
        if request.source.submodules {
            submodules::write_all(request, fetched, commit, place, &depth).await?;
        }
        Ok(())
    })
}

async fn write_files(fetched: &Fetched<'_>, commit: &str, place: &Place<'_>) -> Result<(), GitError> {
    let index = place.scratch.join("index");
    let doing = || format!("failed to checkout remote {}", fetched.shown());
    let call = || {
        fetched
            .call()
            .with_files(place.files)
            .environment("GIT_INDEX_FILE", &index)
    };
    // The whole tree, also for a folder of it: attributes of files stand in the folders above them.
    let read = call().arguments(["read-tree", commit]);
    read.succeed(doing).await?;
    let write = if place.subfolder.is_empty() {
        call().arguments(["checkout-index", "--all", "--force"])
    } else {
        call().arguments(["checkout", "--quiet", "--force", commit, "--", place.subfolder])
    };
    write.succeed(doing).await?;
    std::fs::remove_file(&index).map_err(GitError::Keep)
}

/// A repository that needs no other, with the one commit in it.
async fn write_clone(
    request: &Request,
    fetched: &Fetched<'_>,
    resolved: &Resolved,
    commit: &str,
    place: &Place<'_>,
) -> Result<(), GitError> {
    let folder = place.files.join(".git");
    let shown = fetched.shown();
    let call = || request.git.call().in_repository(&folder).with_files(place.files);
    let doing = || format!("failed to checkout remote {shown}");
    let hash = if commit.len() == 64 { "sha256" } else { "sha1" };
    let init = call().arguments([
        "init",
        "--quiet",
        "--template=",
        &format!("--object-format={hash}"),
    ]);
    init.succeed(doing).await?;
    // Branch and tag keep their names; a commit has none.
    let kept = fetched.reference();
    let wanted = match resolved.reference.as_str() {
        full if full.starts_with("refs/") => format!("+{kept}:{full}"),
        _ => kept,
    };
    let fetch = call()
        .environment("GIT_ALLOW_PROTOCOL", "file")
        .configured("remote.here.url", fetched.folder().to_string_lossy())
        .arguments(["fetch", "--quiet", "--depth=1", "--no-tags", "--update-head-ok"])
        .arguments(["--", "here", &wanted]);
    fetch.succeed(doing).await?;
    for arguments in [
        vec!["checkout", "--quiet", "--force", "--detach", commit],
        vec!["config", "remote.origin.url", shown],
        vec![
            "config",
            "remote.origin.fetch",
            "+refs/heads/*:refs/remotes/origin/*",
        ],
    ] {
        call().arguments(arguments).succeed(doing).await?;
    }
    for left in ["FETCH_HEAD", "ORIG_HEAD"] {
        match std::fs::remove_file(folder.join(left)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(GitError::Keep(error)),
            _ => {}
        }
    }
    Ok(())
}

async fn commit_time(fetched: &Fetched<'_>, commit: &str) -> Result<i64, GitError> {
    let call = fetched
        .call()
        .arguments(["show", "--no-patch", "--format=%ct", commit]);
    let doing = || format!("failed to get commit time of {}", fetched.shown());
    let output = call.succeed(doing).await?;
    let text = String::from_utf8_lossy(&output);
    text.trim().parse().map_err(|_| GitError::Failed {
        doing: doing(),
        messages: format!("{:?} is no time", text.trim()),
        hint: "",
    })
}
