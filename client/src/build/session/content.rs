//! `Content`: the OCI layouts that a build names: images to build from, and folders for its cache. Each has a name;
//! the daemon sees nothing else of this machine, and writes only to those that a cache goes to.

use std::collections::BTreeMap;
use std::io::{ErrorKind, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use proto::content::content_server::Content as ContentService;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use proto::headers;
use registry::Digest;
use registry::digest::{Algorithm, Hasher};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Tasks;
use crate::layout::{self, Layout};

/// Bytes of one message.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub struct Content {
    pub layouts: Arc<BTreeMap<String, Layout>>,
    pub tasks: Tasks,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Content {
    fn layout(&self, metadata: &MetadataMap) -> Result<&Layout, Status> {
        let name = headers::value(metadata, headers::CONTENT_STORE).unwrap_or_default();
        self.layouts
            .get(&name)
            .ok_or_else(|| Status::not_found(format!("this build has no content store {name:?}")))
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse()
        .map_err(|_| Status::invalid_argument(format!("{text:?} is no digest")))
}

fn failed(what: impl std::fmt::Display, error: &std::io::Error) -> Status {
    match error.kind() {
        ErrorKind::NotFound => Status::not_found(format!("{what}: not found")),
        _ => Status::unknown(format!("{what}: {error}")),
    }
}

async fn info(layout: &Layout, digest: &Digest) -> Result<Info, Status> {
    let metadata = tokio::fs::metadata(layout::blob(&layout.folder, digest)).await;
    let metadata = metadata.map_err(|error| failed(digest, &error))?;
    Ok(Info {
        digest: digest.to_string(),
        size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        created_at: metadata.modified().ok().map(Into::into),
        updated_at: metadata.modified().ok().map(Into::into),
        ..Info::default()
    })
}

#[tonic::async_trait]
impl ContentService for Content {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = ReceiverStream<Result<WriteContentResponse, Status>>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let layout = self.layout(request.metadata())?;
        let info = info(layout, &digest(&request.get_ref().digest)?).await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    /// Folders have no place for labels.
    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let layout = self.layout(request.metadata())?;
        let named = request.get_ref().info.as_ref().map(|info| info.digest.as_str());
        let info = info(layout, &digest(named.unwrap_or_default())?).await?;
        Ok(Response::new(UpdateResponse { info: Some(info) }))
    }

    async fn list(&self, _: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented("a build asks for blobs by name"))
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(Status::permission_denied("a build removes nothing"))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let layout = self.layout(request.metadata())?;
        let wanted = request.get_ref();
        let digest = digest(&wanted.digest)?;
        let negative = |_| Status::out_of_range(format!("{digest} has no bytes before its first one"));
        let offset = u64::try_from(wanted.offset).map_err(negative)?;
        let size = u64::try_from(wanted.size).map_err(negative)?;
        let file = tokio::fs::File::open(layout::blob(&layout.folder, &digest)).await;
        let mut file = file.map_err(|error| failed(&digest, &error))?;
        file.seek(SeekFrom::Start(offset))
            .await
            .map_err(|error| failed(&digest, &error))?;
        let limit = if size == 0 { u64::MAX } else { size };
        let mut position = wanted.offset;
        let answers = ReaderStream::with_capacity(file.take(limit), CHUNK).map(move |read| {
            let data: Bytes = read.map_err(|error| failed(&digest, &error))?;
            let offset = position;
            position = position.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
            Ok(ReadContentResponse { offset, data })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let reference = &request.get_ref().r#ref;
        Err(Status::not_found(format!("{reference:?} is not being written")))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let layout = self.layout(request.metadata())?.clone();
        if !layout.writable {
            return Err(Status::permission_denied("this content store is read only"));
        }
        let mut incoming = request.into_inner();
        let (answers, receiver) = mpsc::channel(1);
        self.tasks.spawn(async move {
            if let Err(status) = take(&layout, &mut incoming, &answers).await {
                answers.send(Err(status)).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// What is not finished is gone already.
    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

/// A blob on its way. Dropped before it is finished, nothing of it stays.
struct Incoming {
    file: tokio::fs::File,
    path: tempfile::TempPath,
    hasher: Hasher,
    size: i64,
}

async fn take(
    layout: &Layout,
    incoming: &mut Streaming<WriteContentRequest>,
    answers: &mpsc::Sender<Result<WriteContentResponse, Status>>,
) -> Result<(), Status> {
    let mut blob: Option<Incoming> = None;
    while let Some(message) = incoming.message().await? {
        let expected = match message.expected.as_str() {
            "" => None,
            text => Some(digest(text)?),
        };
        if let Some(digest) = &expected
            && tokio::fs::try_exists(layout::blob(&layout.folder, digest))
                .await
                .unwrap_or_default()
        {
            return Err(Status::already_exists(format!("{digest} is there")));
        }
        let mut current = match blob.take() {
            Some(blob) => blob,
            None => begin(layout, expected.as_ref()).map_err(|error| failed("write a blob", &error))?,
        };
        let mut answer = WriteContentResponse {
            action: message.action,
            total: message.total,
            ..WriteContentResponse::default()
        };
        if message.action() != WriteAction::Stat {
            append(&mut current, message.offset, &message.data).await?;
        }
        answer.offset = current.size;
        if message.action() == WriteAction::Commit {
            answer.digest = commit(layout, current, &message, expected).await?.to_string();
        } else {
            blob = Some(current);
        }
        if answers.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn begin(layout: &Layout, expected: Option<&Digest>) -> std::io::Result<Incoming> {
    let folder = layout.folder.join("ingest");
    std::fs::create_dir_all(&folder)?;
    let (file, path) = tempfile::NamedTempFile::new_in(folder)?.into_parts();
    Ok(Incoming {
        file: file.into(),
        path,
        hasher: Hasher::new(expected.map_or(Algorithm::Sha256, Digest::algorithm)),
        size: 0,
    })
}

async fn append(blob: &mut Incoming, offset: i64, data: &Bytes) -> Result<(), Status> {
    if data.is_empty() {
        return Ok(());
    }
    if offset != blob.size {
        let size = blob.size;
        return Err(Status::out_of_range(format!(
            "{size} bytes are there, and {offset} is where to go on"
        )));
    }
    blob.hasher.update(data);
    blob.file
        .write_all(data)
        .await
        .map_err(|error| failed("write a blob", &error))?;
    blob.size += i64::try_from(data.len()).unwrap_or(i64::MAX);
    Ok(())
}

async fn commit(
    layout: &Layout,
    mut blob: Incoming,
    message: &WriteContentRequest,
    expected: Option<Digest>,
) -> Result<Digest, Status> {
    blob.file
        .flush()
        .await
        .map_err(|error| failed("write a blob", &error))?;
    let found = blob.hasher.finish();
    if expected.as_ref().is_some_and(|expected| *expected != found) {
        return Err(Status::failed_precondition(format!(
            "what came has the digest {found}"
        )));
    }
    if message.total > 0 && message.total != blob.size {
        let size = blob.size;
        return Err(Status::failed_precondition(format!(
            "{size} bytes came for {found}"
        )));
    }
    let path = layout::blob(&layout.folder, &found);
    let publish = || {
        use std::os::unix::fs::PermissionsExt as _;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::set_permissions(&blob.path, std::fs::Permissions::from_mode(0o644))?;
        blob.path.persist(&path).map_err(|error| error.error)
    };
    publish().map_err(|error| failed(&found, &error))?;
    Ok(found)
}
