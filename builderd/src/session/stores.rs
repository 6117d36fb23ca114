//! The content stores of a client: OCI layouts to build from, folders that hold a build cache or take an image.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use proto::content::content_client::ContentClient;
use proto::content::{InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest};
use proto::headers;
use proto::tunnel::MAX_MESSAGE;
use registry::digest::{Digest, Hasher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Extensions, Request, Status};

use super::services::{failed, method, within};
use super::{Group, Session, SessionError};

/// Messages on their way to a client that writes slowly.
const IN_FLIGHT: usize = 4;
const CHUNK: usize = 1 << 20;
/// The store for the output of a build.
const EXPORT: &str = "export";

/// One content store of a client.
#[derive(Clone, Debug)]
pub struct ContentStore {
    session: Arc<Session>,
    id: AsciiMetadataValue,
}

impl Group {
    /// The store `id` of the client `session`, or of the first client that has stores.
    pub async fn store_named(&self, session: Option<&str>, id: &str) -> Result<ContentStore, SessionError> {
        let group = match session.filter(|id| !id.is_empty()) {
            Some(session) => self.only(session),
            None => self.clone(),
        };
        let offering = group.offering(method::READ_CONTENT).await?;
        let session = offering.into_iter().next().ok_or(SessionError::Unsupported {
            method: method::READ_CONTENT,
        })?;
        let printable = id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let id = id.parse().ok().filter(|_| printable).ok_or_else(|| {
            let text = format!("content store {id:?} contains value with non-printable ASCII characters");
            failed(method::READ_CONTENT, Status::invalid_argument(text))
        })?;
        Ok(ContentStore { session, id })
    }

    /// The store of the first client that takes the blobs of an image.
    pub async fn export_store(&self) -> Result<ContentStore, SessionError> {
        let offering = self.offering(method::WRITE_CONTENT).await?;
        let session = offering.into_iter().next().ok_or(SessionError::Unsupported {
            method: method::WRITE_CONTENT,
        })?;
        Ok(ContentStore {
            session,
            id: AsciiMetadataValue::from_static(EXPORT),
        })
    }
}

impl ContentStore {
    /// Bytes of a blob that the store has.
    pub async fn size(&self, digest: &Digest) -> Result<u64, SessionError> {
        let request = self.request(InfoRequest {
            digest: digest.to_string(),
        });
        let answer = within(method::CONTENT_INFO, self.client().info(request)).await?;
        let size = answer.into_inner().info.map_or(0, |info| info.size);
        u64::try_from(size).map_err(|_| {
            let text = format!("the client says that blob {digest} has {size} bytes");
            failed(method::CONTENT_INFO, Status::data_loss(text))
        })
    }

    /// The bytes of a blob as they come; whoever takes them verifies them.
    pub async fn read(
        &self,
        digest: &Digest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, SessionError> {
        let request = self.request(ReadContentRequest {
            digest: digest.to_string(),
            ..ReadContentRequest::default()
        });
        let answers = within(method::READ_CONTENT, self.client().read(request)).await?;
        let answers = answers.into_inner();
        Ok(answers.map(|answer| answer.map(|answer| answer.data).map_err(io::Error::other)))
    }

    /// A small blob as a whole, verified.
    pub async fn read_all(&self, digest: &Digest, limit: u64) -> Result<Bytes, SessionError> {
        let lies = |text: String| failed(method::READ_CONTENT, Status::data_loss(text));
        let mut bytes = BytesMut::new();
        let mut chunks = std::pin::pin!(self.read(digest).await?);
        while let Some(chunk) = chunks.try_next().await.map_err(SessionError::Content)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(lies(format!("blob {digest} has more than {limit} bytes")));
            }
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(lies(format!("blob {digest} of the client has digest {found}")));
        }
        Ok(bytes.freeze())
    }

    /// Writes a blob, unless the store has it.
    pub async fn write(
        &self,
        digest: &Digest,
        size: u64,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), SessionError> {
        const METHOD: &str = method::WRITE_CONTENT;
        if self.size(digest).await.is_ok_and(|found| found == size) {
            return Ok(());
        }
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let request = self.request(ReceiverStream::new(receiver));
        let about = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("trimaran-{digest}"),
            total,
            expected: digest.to_string(),
            ..WriteContentRequest::default()
        };
        let mut client = self.client();
        let answered = async {
            let mut answers = client.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let sent = async {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            sender.send(about.clone()).await.map_err(gone)?;
            let mut bytes = std::pin::pin!(bytes);
            let mut offset = 0;
            while let Some(mut chunk) = bytes.try_next().await? {
                while !chunk.is_empty() {
                    let data = chunk.split_to(chunk.len().min(CHUNK));
                    let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
                    let message = WriteContentRequest {
                        action: WriteAction::Write.into(),
                        offset,
                        data,
                        ..about.clone()
                    };
                    sender.send(message).await.map_err(gone)?;
                    offset += length;
                }
            }
            let last = WriteContentRequest {
                action: WriteAction::Commit.into(),
                offset,
                ..about.clone()
            };
            sender.send(last).await.map_err(gone)?;
            drop(sender);
            Ok::<_, io::Error>(())
        };
        let (answered, sent) = tokio::join!(answered, sent);
        match (answered, sent) {
            // Somebody else wrote it meanwhile.
            (Err(status), _) if status.code() == Code::AlreadyExists => Ok(()),
            (Err(status), _) => Err(failed(METHOD, status)),
            (Ok(()), Err(error)) => Err(SessionError::Content(error)),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    fn client(&self) -> ContentClient<Channel> {
        ContentClient::new(self.session.channel()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut metadata = MetadataMap::new();
        metadata.insert(headers::CONTENT_STORE, self.id.clone());
        Request::from_parts(metadata, Extensions::default(), message)
    }
}
