//! Results as plain files: into a folder of the client, or as one tar.
//!
//! Several platforms get a folder each (`linux_arm64`) unless the client wants them in one, where no two may have the
//! same file.

mod tarball;
mod walk;

use std::collections::{BTreeMap, HashMap};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::tarball::Tarball;
pub use self::walk::TreeError;

use self::walk::Tree;
use super::attributes::{flag, number};
use super::{Context, ExportError, Response, Results};
use crate::progress::VertexProgress;
use crate::store::Pool;

/// Pieces of a tar that wait for the connection.
const IN_FLIGHT: usize = 4;

struct Options {
    split: bool,
    epoch: Option<i64>,
}

impl Options {
    fn parse(attributes: &BTreeMap<String, String>, results: &Results) -> Result<Self, ExportError> {
        let mut options = Self {
            split: results.multi_platform,
            epoch: results.targets.iter().find_map(|target| target.epoch),
        };
        for (key, value) in attributes {
            match key.as_str() {
                "platform-split" => options.split = flag(key, value)?,
                "source-date-epoch" if value.is_empty() => {}
                "source-date-epoch" => options.epoch = Some(number(key, value)?),
                "mode" if value != "copy" => {
                    return Err(ExportError::Unsupported {
                        key: key.clone(),
                        value: value.clone(),
                        way_out: "files are only ever added to the folder; empty it before the build",
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
        let tree = store
            .pool()
            .run(move || Tree::open(&folders, prefix, epoch))
            .await??;
        trees.push(tree);
    }
    trees.sort_by(|a: &Tree, b| a.prefix().cmp(&b.prefix()));
    if !options.split && trees.len() > 1 {
        let listed = trees.clone();
        context
            .images
            .store()
            .pool()
            .run(move || check_collisions(listed))
            .await??;
    }
    Ok(trees)
}

fn check_collisions(trees: Vec<Tree>) -> Result<(), ExportError> {
    let mut seen = HashMap::new();
    for found in trees.into_iter().flatten() {
        let found = found?;
        let is_folder = found.metadata.is_dir();
        if let Some(was_folder) = seen.insert(found.path.clone(), is_folder)
            && !(was_folder && is_folder)
        {
            return Err(ExportError::Collision {
                path: found.path.into(),
            });
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
    // Platforms in one folder are sent as one listing, in order, folders once.
    let sent = match split || trees.len() < 2 {
        true => {
            let entries = trees.into_iter().flatten().map(walk::listed);
            receiver.send_folder(context.number, split, entries).await
        }
        false => {
            let merged = context
                .images
                .store()
                .pool()
                .run(move || walk::merged(trees))
                .await??;
            let entries = merged.into_iter().map(|found| walk::listed(Ok(found)));
            receiver.send_folder(context.number, split, entries).await
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
