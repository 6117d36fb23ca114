//! Results as plain files: into a folder of the client, or as one tar.
//!
//! Several platforms get a folder each (`linux_arm64`) unless the client wants them in one, where no two may have the
//! same file.

mod tarball;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use registry::digest::{Algorithm, Hasher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::tarball::Tarball;
pub use self::walk::TreeError;

use self::walk::{Extra, Tree};
use super::attestations::{self, Artifact, AttestationError};
use super::attributes::{flag, number};
use super::{Context, ExportError, Response, Results, Target};
use crate::progress::VertexProgress;
use crate::store::view::Kind;
use crate::store::{Compression, Pool};

/// Pieces of a tar that wait for the connection.
const IN_FLIGHT: usize = 4;

struct Options {
    split: bool,
    epoch: Option<i64>,
    /// Before the names of attestations.
    prefix: String,
    /// The client removes what is not in the one transfer.
    delete: bool,
}

impl Options {
    fn parse(attributes: &BTreeMap<String, String>, results: &Results) -> Result<Self, ExportError> {
        let mut options = Self {
            split: results.multi_platform,
            epoch: results.targets.iter().find_map(|target| target.epoch),
            prefix: String::new(),
            delete: attributes.get("mode").is_some_and(|mode| mode == "delete"),
        };
        for (key, value) in attributes {
            match key.as_str() {
                "platform-split" => options.split = flag(key, value)?,
                "source-date-epoch" if value.is_empty() => options.epoch = None,
                "source-date-epoch" => options.epoch = Some(number(key, value)?),
                "attestation-prefix" => options.prefix.clone_from(value),
                // The client alone knows what else is in its folder, and removes it.
                "mode" if !["", "copy", "delete"].contains(&value.as_str()) => {
                    return Err(ExportError::Attribute {
                        key: key.clone(),
                        value: value.clone(),
                        expected: "copy or delete",
                    });
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// Opens the results' trees; fetches what is not here.
async fn trees(
    options: &Options,
    results: &Results,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Vec<Tree>, ExportError> {
    let mut trees = Vec::new();
    for target in &results.targets {
        context.images.fetch(&target.snapshot, vertex).await?;
        let store = context.images.store();
        let folders: Vec<_> = target
            .snapshot
            .layers()
            .iter()
            .map(|layer| store.layer_folder(layer))
            .collect();
        let prefix = options.split.then(|| target.id.replace('/', "_"));
        let epoch = options.epoch;
        let mut tree = store
            .pool()
            .run(move || Tree::open(&folders, prefix, epoch))
            .await??;
        let several = results.multi_platform && !options.split;
        let platform = several.then(|| target.id.replace('/', "_"));
        tree.add(attested(&tree, target, options, platform.as_deref(), context).await?);
        trees.push(tree);
    }
    if !options.split && trees.len() > 1 {
        let ids = results.targets.iter().map(|target| target.id.clone());
        let listed: Vec<(String, Tree)> = ids.zip(trees.iter().cloned()).collect();
        context
            .images
            .store()
            .pool()
            .run(move || check_collisions(listed))
            .await??;
    }
    trees.sort_by(|a: &Tree, b| a.prefix().cmp(&b.prefix()));
    Ok(trees)
}

/// The attestations about a result's files, as files beside them.
async fn attested(
    tree: &Tree,
    target: &Target,
    options: &Options,
    platform: Option<&str>,
    context: &Context<'_>,
) -> Result<BTreeMap<String, Extra>, ExportError> {
    let attestations = attestations::without_inline(&target.attestations);
    let unbundled = attestations::unbundled(attestations, context).await?;
    if unbundled.is_empty() {
        return Ok(BTreeMap::new());
    }
    let pool = context.images.store().pool();
    let tree = tree.clone();
    let artifacts = pool.run(move || artifacts(tree)).await??;
    let compression = Compression::default();
    let statements = attestations::statements(&unbundled, &artifacts, compression, context).await?;
    let names = attestations::file_names(&statements, &options.prefix, platform)?;
    let mut extras = BTreeMap::new();
    for (name, statement) in names.into_iter().zip(statements) {
        let blobs = context.images.store().blobs();
        let size = statement.json.len() as u64;
        let keep = move || {
            let digest = blobs.keep(&statement.json)?;
            Ok(blobs.path(&digest))
        };
        let disk = pool.run(keep).await?.map_err(ExportError::Blob)?;
        extras.insert(name, Extra { disk, size });
    }
    Ok(extras)
}

/// All files of a result with their digests.
fn artifacts(tree: Tree) -> Result<Vec<Artifact>, ExportError> {
    let prefix = tree
        .prefix()
        .map(|prefix| format!("{prefix}/"))
        .unwrap_or_default();
    let mut artifacts = Vec::new();
    for found in tree {
        let found = found?;
        if found.metadata.kind != Kind::Regular {
            continue;
        }
        let failed = |source| AttestationError::Io {
            path: found.path.clone(),
            source,
        };
        let mut file = std::fs::File::open(&found.disk).map_err(failed)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        artifacts.push(Artifact {
            name: found.path.strip_prefix(&prefix).unwrap_or(&found.path).to_owned(),
            digest: hasher.finish(),
        });
    }
    Ok(artifacts)
}

fn check_collisions(trees: Vec<(String, Tree)>) -> Result<(), ExportError> {
    let mut seen: HashMap<String, (bool, usize)> = HashMap::new();
    let ids: Vec<String> = trees.iter().map(|(id, _)| id.clone()).collect();
    for (number, (id, tree)) in trees.into_iter().enumerate() {
        for found in tree {
            let found = found?;
            let is_folder = found.metadata.is_dir();
            if let Some((was_folder, first)) = seen.insert(found.path.clone(), (is_folder, number))
                && !(was_folder && is_folder)
            {
                return Err(ExportError::Collision {
                    path: found.path.into(),
                    first: ids.get(first).cloned().unwrap_or_default(),
                    second: id,
                });
            }
        }
    }
    Ok(())
}

pub(super) async fn to_folder(
    attributes: &BTreeMap<String, String>,
    results: &Results,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Response, ExportError> {
    let options = Options::parse(attributes, results)?;
    let trees = trees(&options, results, context, vertex).await?;
    let receiver = context.sessions.receiver().await.map_err(ExportError::Send)?;
    let status = vertex.status("copying files", "copying files");
    let split = options.split;
    let complete = split || options.delete;
    // Platforms in one folder are sent as one listing, in order, folders once.
    let sent = match split || trees.len() < 2 {
        true => {
            let entries = trees.into_iter().flatten().map(walk::listed);
            receiver.send_folder(context.number, complete, entries).await
        }
        false => {
            let merged = context
                .images
                .store()
                .pool()
                .run(move || walk::merged(trees))
                .await??;
            let entries = merged.into_iter().map(|found| walk::listed(Ok(found)));
            receiver.send_folder(context.number, complete, entries).await
        }
    };
    sent.map_err(ExportError::Send)?;
    status.complete();
    Ok(Response::new())
}

pub(super) async fn to_tar(
    attributes: &BTreeMap<String, String>,
    results: &Results,
    context: &Context<'_>,
    vertex: &VertexProgress,
) -> Result<Response, ExportError> {
    let options = Options::parse(attributes, results)?;
    let trees = trees(&options, results, context, vertex).await?;
    let receiver = context.sessions.receiver().await.map_err(ExportError::Send)?;
    let status = vertex.status("sending tarball", "sending tarball");
    let (sender, chunks) = mpsc::channel(IN_FLIGHT);
    // A pool of its own: the writer waits for the client, which must not keep others waiting.
    let pool = Pool::new(1);
    let writing = pool.run(move || {
        if let Err(error) = Tarball::new(sender.clone()).write(trees) {
            // If nobody listens any more, the transfer's own end says why.
            sender.blocking_send(Err(error)).ok();
        }
    });
    let response = Response::new();
    let sending = receiver.send_file(context.number, &response, ReceiverStream::new(chunks));
    let (sent, written) = tokio::join!(sending, writing);
    sent.map_err(ExportError::Send)?;
    written?;
    status.complete();
    Ok(response)
}

#[cfg(test)]
mod tests;
