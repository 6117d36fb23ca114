//! The content store of a client, which takes the blobs of an image.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::content::content_client::ContentClient;
use proto::content::{WriteAction, WriteContentRequest};
use proto::headers;
use registry::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use super::services::{failed, method};
use super::{Session, SessionError};

/// The name of the store for the output of a build.
const EXPORT: &str = "export";
/// Size of the pieces in which blobs are sent.
const PIECE: usize = 1 << 20;

impl Session {
    /// Writes a blob, unless the client has it.
    pub async fn write_blob<S>(&self, digest: &Digest, size: u64, content: S) -> Result<(), SessionError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        const METHOD: &str = method::WRITE_CONTENT;
        self.require(METHOD)?;
        let (requests, receiver) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(receiver));
        headers::append(request.metadata_mut(), headers::CONTENT_STORE, [EXPORT]).map_err(|source| {
            SessionError::Metadata {
                key: headers::CONTENT_STORE,
                source,
            }
        })?;
        let mut client = ContentClient::new(self.channel());
        let answers = async move {
            let mut answers = client.write(request).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                if answer.action == i32::from(WriteAction::Commit) {
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        let sending = pieces(digest, size, content, requests);
        let (answered, sent) = tokio::join!(answers, sending);
        match answered {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(failed(METHOD, status)),
            Ok(()) => sent.map_err(|error| failed(METHOD, Status::internal(proto::chain(&error)))),
        }
    }
}

async fn pieces<S>(
    digest: &Digest,
    size: u64,
    mut content: S,
    requests: mpsc::Sender<WriteContentRequest>,
) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let total = i64::try_from(size).unwrap_or(i64::MAX);
    let start = |action: WriteAction, offset: i64, data: Bytes| WriteContentRequest {
        action: action.into(),
        r#ref: format!("export-{}", digest.hex()),
        total,
        expected: digest.to_string(),
        offset,
        data,
        ..WriteContentRequest::default()
    };
    let mut offset = 0;
    // Nobody listens any more: the answer says why.
    let mut gone = requests
        .send(start(WriteAction::Write, 0, Bytes::new()))
        .await
        .is_err();
    while let (false, Some(piece)) = (gone, content.next().await) {
        let mut piece = piece?;
        while !piece.is_empty() && !gone {
            let data = piece.split_to(piece.len().min(PIECE));
            let length = i64::try_from(data.len()).unwrap_or_default();
            gone = requests
                .send(start(WriteAction::Write, offset, data))
                .await
                .is_err();
            offset += length;
        }
    }
    if !gone {
        requests
            .send(start(WriteAction::Commit, offset, Bytes::new()))
            .await
            .ok();
    }
    Ok(())
}
