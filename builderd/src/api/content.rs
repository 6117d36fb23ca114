//! `containerd.services.content.v1.Content`, read only: the blobs that build records name.

use std::io::{Read, Seek, SeekFrom};
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use proto::content::content_server::Content;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use registry::Digest;
use tonic::{Request, Response, Status, Streaming};

use super::status;
use crate::store::Store;

/// Bytes of one answer.
const CHUNK: u64 = 1 << 20;

pub(super) struct Service(pub(super) Store);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn info_of(&self, digest: &Digest) -> Result<Info, Status> {
        let path = self.0.blobs().path(digest);
        let file = std::fs::metadata(path).map_err(|_| not_found(digest))?;
        let modified = file.modified().ok().map(prost_types::Timestamp::from);
        Ok(Info {
            digest: digest.to_string(),
            size: i64::try_from(file.len()).unwrap_or(i64::MAX),
            created_at: modified,
            updated_at: modified,
            ..Info::default()
        })
    }
}

#[tonic::async_trait]
impl Content for Service {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = parse(&request.into_inner().digest)?;
        Ok(Response::new(InfoResponse {
            info: Some(self.info_of(&digest)?),
        }))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        if request
            .into_inner()
            .filters
            .iter()
            .any(|filter| !filter.is_empty())
        {
            return Err(Status::unimplemented(
                "blobs cannot be filtered: list them all, or ask for one by its digest",
            ));
        }
        let records = self.0.builds().map_err(|error| status::of_failure(&error))?;
        let blobs: std::collections::BTreeSet<Digest> = records
            .into_iter()
            .flat_map(|record| record.about.blobs)
            .collect();
        let info: Vec<Info> = blobs
            .iter()
            .filter_map(|digest| self.info_of(digest).ok())
            .collect();
        let answers: Vec<_> = info
            .chunks(100)
            .map(|info| Ok(ListContentResponse { info: info.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let digest = parse(&request.digest)?;
        let (Ok(offset), Ok(size)) = (u64::try_from(request.offset), u64::try_from(request.size)) else {
            return Err(Status::invalid_argument("offset and size cannot be negative"));
        };
        // An open file stays readable when its blob is removed.
        let mut file = self.0.blobs().open(&digest).map_err(|_| not_found(&digest))?;
        let failed = |error: std::io::Error| Status::unknown(format!("cannot read blob {digest}: {error}"));
        let length = file.metadata().map_err(failed)?.len();
        let end = match size {
            0 => length.max(offset),
            size => offset.saturating_add(size),
        };
        if end > length {
            return Err(Status::out_of_range(format!(
                "blob {digest} has {length} bytes, fewer than the {end} that were asked for"
            )));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let pool = self.0.pool().clone();
        let answers = async_stream::try_stream! {
            let mut position = offset;
            while position < end {
                let wanted = (end - position).min(CHUNK);
                let (read, data) = pool
                    .run(move || {
                        let mut data = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
                        let read = file.by_ref().take(wanted).read_to_end(&mut data);
                        (read.map(|_| file), Bytes::from(data))
                    })
                    .await
                    .map_err(|error| status::of_failure(&error))?;
                file = read.map_err(|error| status::of_failure(&error))?;
                if data.is_empty() {
                    Err(Status::data_loss("a blob is shorter than it was"))?;
                }
                let next = position + data.len() as u64;
                yield ReadContentResponse {
                    offset: i64::try_from(position).unwrap_or(i64::MAX),
                    data,
                };
                position = next;
            }
        };
        Ok(Response::new(Box::pin(answers)))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(read_only())
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(read_only())
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(read_only())
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn write(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(read_only())
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Err(read_only())
    }
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{digest:?} is no digest: {error}")))
}

fn not_found(digest: &Digest) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

fn read_only() -> Status {
    Status::permission_denied("the daemon's blobs are read-only: they belong to build records")
}
