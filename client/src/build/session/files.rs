//! `FileSync`: the files of the folders that the build's flags named.
//!
//! The daemon says which part of a folder it wants: include patterns, exclude patterns, and paths to be followed through
//! symbolic links. A folder that no pattern can reach into is not walked. Owners are not sent: who owns the files on
//! this machine must not change a build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use dockerfile::ignore::PatternMatcher;
use futures::{Stream, StreamExt as _};
use proto::filesync::file_sync_server::FileSync;
use proto::fsutil::Packet;
use proto::transfer::{self, Kind, Verdict, Walk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Tasks;
use super::follow;

const QUEUE: usize = 64;

#[derive(Debug)]
pub struct Files {
    pub folders: Arc<BTreeMap<String, PathBuf>>,
    pub tasks: Tasks,
}

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let name = values(request.metadata(), "dir-name")?.pop().unwrap_or_default();
        let Some(folder) = self.folders.get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir \"{name}\"")));
        };
        let selection = Selection {
            includes: values(request.metadata(), "include-patterns")?,
            excludes: values(request.metadata(), "exclude-patterns")?,
            followed: values(request.metadata(), "followpaths")?,
        };
        tracing::debug!(name, ?selection, "the daemon asks for files");
        let filter = {
            let folder = folder.clone();
            let made = tokio::task::spawn_blocking(move || selection.filter(&folder)).await;
            made.map_err(|error| Status::internal(error.to_string()))??
        };
        let walk = Walk::new(folder, move |path, kind| filter.verdict(path, kind))
            .map_err(|error| Status::unknown(crate::error::chain(&error)))?
            .map(|listed| {
                listed.map(|mut listed| {
                    listed.stat.uid = 0;
                    listed.stat.gid = 0;
                    listed
                })
            });
        let mut requests = request.into_inner();
        let (packets, stream) = mpsc::channel(QUEUE);
        self.tasks.spawn(async move {
            // The daemon is told by an error packet; what is left to do here is a remark for whoever looks for it.
            if let Err(error) = transfer::send(walk, &mut requests, packets).await {
                tracing::debug!("sending files: {}", crate::error::chain(&error));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).map(Ok).boxed()))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("files are sent by DiffCopy"))
    }
}

#[derive(Debug)]
struct Selection {
    includes: Vec<String>,
    excludes: Vec<String>,
    followed: Vec<String>,
}

impl Selection {
    fn filter(self, folder: &std::path::Path) -> Result<Filter, Status> {
        let matcher = |patterns: &[String]| {
            PatternMatcher::new(patterns).map_err(|error| Status::invalid_argument(error.to_string()))
        };
        let followed = follow::resolve(folder, &self.followed);
        Ok(Filter {
            everything: self.includes.is_empty() && self.followed.is_empty(),
            reach: self.includes.iter().map(|pattern| fixed_part(pattern)).collect(),
            includes: matcher(&self.includes)?,
            followed,
            excludes: matcher(&self.excludes)?,
        })
    }
}

/// The folders at the front of a pattern that hold no wildcard.
fn fixed_part(pattern: &str) -> String {
    let parts: Vec<&str> = pattern
        .trim_start_matches('!')
        .split('/')
        .take_while(|part| !part.contains(['*', '?', '[', '\\']))
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    parts.join("/")
}

struct Filter {
    everything: bool,
    includes: PatternMatcher,
    /// Where include patterns can match something.
    reach: Vec<String>,
    followed: follow::Paths,
    excludes: PatternMatcher,
}

impl Filter {
    fn verdict(&self, path: &str, kind: Kind) -> Verdict {
        let is_folder = kind == Kind::Directory;
        if self.excludes.matches_or_parent_matches(path) {
            let may_return = is_folder && self.excludes.may_reinclude_below(path);
            return if may_return {
                Verdict::Skip
            } else {
                Verdict::SkipAll
            };
        }
        if self.everything || self.followed.contain(path) || self.includes.matches_or_parent_matches(path) {
            return Verdict::Include;
        }
        let wanted_below = || {
            self.followed.reach_below(path)
                || self
                    .reach
                    .iter()
                    .any(|fixed| is_same_or_below(fixed, path) || is_same_or_below(path, fixed))
        };
        if is_folder && wanted_below() {
            Verdict::Skip
        } else {
            Verdict::SkipAll
        }
    }
}

/// Whether `path` is `folder` or inside it; the empty folder holds everything.
fn is_same_or_below(path: &str, folder: &str) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All values of a metadata key, unescaped if the sender says that they are escaped.
fn values(metadata: &MetadataMap, key: &str) -> Result<Vec<String>, Status> {
    let escaped = metadata
        .get(format!("{key}-encoded"))
        .is_some_and(|value| value == "1");
    metadata
        .get_all(key)
        .iter()
        .map(|value| {
            let text = value
                .to_str()
                .map_err(|_| Status::invalid_argument(format!("{key} is no text")))?;
            if escaped {
                unescape(text)
            } else {
                Some(text.to_owned())
            }
            .ok_or_else(|| Status::invalid_argument(format!("{key} is not escaped properly")))
        })
        .collect()
}

/// The escaping of URL queries: `%41`, and `+` for a blank.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (code, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "Dockerfile",
            "Dockerfile.dockerignore",
            "a/b/c",
            "a/x",
            "a.txt",
            "node/m/deep",
            "node/keep",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        std::os::unix::fs::symlink("a/b", folder.path().join("link")).unwrap();
        folder
    }

    fn listed(includes: &[&str], excludes: &[&str], followed: &[&str]) -> Vec<String> {
        let folder = tree();
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let selection = Selection {
            includes: own(includes),
            excludes: own(excludes),
            followed: own(followed),
        };
        let filter = selection.filter(folder.path()).unwrap();
        Walk::new(folder.path(), move |path, kind| filter.verdict(path, kind))
            .unwrap()
            .map(|listed| listed.unwrap().stat.path)
            .collect()
    }

    #[test]
    fn patterns_select_files_and_their_parents() {
        for (includes, excludes, followed, expected) in [
            (
                &[][..],
                &["node", "link"][..],
                &[][..],
                &[
                    "Dockerfile",
                    "Dockerfile.dockerignore",
                    "a",
                    "a/b",
                    "a/b/c",
                    "a/x",
                    "a.txt",
                ][..],
            ),
            (&[], &["*", "!node/keep"], &[], &["node", "node/keep"]),
            (&[], &["node/**", "a*", "Docker*", "link"], &[], &["node"]),
            (&["a/b"], &[], &[], &["a", "a/b", "a/b/c"]),
            (&["*.txt"], &[], &[], &["a.txt"]),
            (&["**/deep"], &[], &[], &["node", "node/m", "node/m/deep"]),
            (
                &[],
                &[],
                &["Dockerfile", "Dockerfile.dockerignore", "dockerfile"],
                &["Dockerfile", "Dockerfile.dockerignore"],
            ),
            (&[], &[], &["link/c"], &["a", "a/b", "a/b/c", "link"]),
            (&[], &["a/b"], &["link"], &["link"]),
            (&[], &[], &["a*"], &["a", "a/b", "a/b/c", "a/x", "a.txt"]),
            (
                &[],
                &["link", "node"],
                &["."],
                &[
                    "Dockerfile",
                    "Dockerfile.dockerignore",
                    "a",
                    "a/b",
                    "a/b/c",
                    "a/x",
                    "a.txt",
                ],
            ),
        ] {
            assert_eq!(
                listed(includes, excludes, followed),
                expected,
                "{includes:?} {excludes:?} {followed:?}"
            );
        }
    }

    #[test]
    fn escaped_values_are_read() {
        assert_eq!(unescape("a%2Fb+c%C3%A9").as_deref(), Some("a/b cé"));
        assert_eq!(unescape("%2"), None);
        assert_eq!(unescape("%zz"), None);
    }
}
