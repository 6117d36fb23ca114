//! The log of a build as a blob: BuildKit's status messages, each after its length in four bytes, the least
//! significant first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write as _};

use futures::Stream;
use prost::Message as _;
use proto::control::{Descriptor, StatusResponse};
use tonic::Status;

use super::status;
use crate::progress::Progress;
use crate::store::{BlobError, Store, WorkLost};

pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";
/// Messages are much smaller; more is damage.
const LARGEST: u32 = 16 << 20;
/// So much is put together before it is written.
const CHUNK: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("cannot keep the log")]
    Blob(#[from] BlobError),
    #[error("cannot write the log")]
    File(#[source] std::io::Error),
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// What a log says about its build as a whole.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether a vertex was cached, and whether it has ended, by its digest.
    vertices: BTreeMap<String, (bool, bool)>,
    pub warnings: usize,
}

impl Counts {
    fn add(&mut self, message: &StatusResponse) {
        for vertex in &message.vertexes {
            let (cached, completed) = self.vertices.entry(vertex.digest.clone()).or_default();
            *cached |= vertex.cached;
            *completed |= vertex.completed.is_some();
        }
        self.warnings += message.warnings.len();
    }

    pub(super) fn total(&self) -> usize {
        self.vertices.len()
    }

    pub(super) fn cached(&self) -> usize {
        self.vertices.values().filter(|(cached, _)| *cached).count()
    }

    pub(super) fn completed(&self) -> usize {
        self.vertices.values().filter(|(_, completed)| *completed).count()
    }
}

/// Writes the log of a build, which must come to its end.
///
/// `watch` sees every message on the way.
pub(super) async fn write(
    store: &Store,
    progress: &Progress,
    mut watch: impl FnMut(&StatusResponse),
) -> Result<(Descriptor, Counts), WriteError> {
    let mut writer = store.blobs().writer(None)?;
    let mut reader = progress.reader();
    let mut counts = Counts::default();
    let mut chunk = Vec::new();
    loop {
        let message = reader.next().await;
        if let Some(message) = &message {
            counts.add(message);
            watch(message);
            let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
            chunk.extend_from_slice(&length.to_le_bytes());
            chunk.extend_from_slice(&message.encode_to_vec());
        }
        if chunk.len() >= CHUNK || message.is_none() {
            let full = std::mem::take(&mut chunk);
            let (written, back) = store
                .pool()
                .run(move || (writer.write_all(&full), writer))
                .await?;
            written.map_err(WriteError::File)?;
            writer = back;
        }
        if message.is_none() {
            break;
        }
    }
    let (digest, size) = store.pool().run(move || writer.commit()).await??;
    let descriptor = Descriptor {
        media_type: MEDIA_TYPE.to_owned(),
        digest: digest.to_string(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    };
    Ok((descriptor, counts))
}

/// The messages of a log, one by one.
pub(super) fn replay(
    store: &Store,
    log: Option<&Descriptor>,
) -> Result<impl Stream<Item = Result<StatusResponse, Status>> + Send + use<>, Status> {
    let file = match log {
        Some(log) => {
            let digest = log
                .digest
                .parse()
                .map_err(|_| Status::data_loss("the build record names no log"))?;
            let file = store.blobs().open(&digest);
            Some(file.map_err(|error| status::of_failure(&error))?)
        }
        None => None,
    };
    let pool = store.pool().clone();
    Ok(async_stream::try_stream! {
        let mut file = file.map(BufReader::new);
        while let Some(mut open) = file.take() {
            let (message, back) = pool
                .run(move || (next(&mut open), open))
                .await
                .map_err(|error| status::of_failure(&error))?;
            if let Some(message) = message? {
                yield message;
                file = Some(back);
            }
        }
    })
}

fn next(file: &mut BufReader<File>) -> Result<Option<StatusResponse>, Status> {
    let damaged = |_| Status::data_loss("the log of the build is damaged");
    let mut length = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut length).map_err(damaged)?;
    if length.is_empty() {
        return Ok(None);
    }
    let length = <[u8; 4]>::try_from(length)
        .ok()
        .map(u32::from_le_bytes)
        .filter(|length| *length <= LARGEST)
        .ok_or_else(|| Status::data_loss("the log of the build is damaged"))?;
    let mut message = Vec::new();
    file.by_ref()
        .take(length.into())
        .read_to_end(&mut message)
        .map_err(damaged)?;
    StatusResponse::decode(&message[..])
        .map(Some)
        .map_err(|_| Status::data_loss("the log of the build is damaged"))
}
