//! Files from and to the client.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt};
use prost::Message;
use proto::filesync::BytesMessage;
use proto::filesync::file_send_client::FileSendClient;
use proto::filesync::file_sync_client::FileSyncClient;
use proto::fsutil::Packet;
use proto::headers;
use proto::transfer::{self, Listed, Receiving, WalkError};
use proto::tunnel::{MAX_MESSAGE, MAX_SESSION_MESSAGE};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status, Streaming};

use super::services::{failed, method};
use super::{Session, SessionError};

/// Packets that wait for the connection.
const IN_FLIGHT: usize = 64;

/// Which files of the client are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRequest {
    /// The client's name for the folder, such as `context`.
    pub name: String,
    /// Patterns as in `.dockerignore`; none means all.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Paths, perhaps with wildcards, that are included with all that their symlinks lead to.
    pub follow: Vec<String>,
}

/// Files that are coming in.
pub type Files = Receiving<Streaming<Packet>>;

impl Session {
    /// Files of one of the client's folders.
    pub async fn sync_files(&self, wanted: &FileRequest) -> Result<Files, SessionError> {
        const METHOD: &str = method::SYNC_FILES;
        self.require(METHOD)?;
        let (replies, receiver) = mpsc::channel(IN_FLIGHT);
        let mut request = Request::new(ReceiverStream::new(receiver));
        let name = std::slice::from_ref(&wanted.name);
        for (key, values) in [
            (headers::DIR_NAME, name),
            (headers::INCLUDE_PATTERNS, &wanted.include),
            (headers::EXCLUDE_PATTERNS, &wanted.exclude),
            (headers::FOLLOW_PATHS, &wanted.follow),
        ] {
            append(request.metadata_mut(), key, values)?;
        }
        let mut client = FileSyncClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let packets = client
            .diff_copy(request)
            .await
            .map_err(|status| failed(METHOD, status))?;
        Ok(Receiving::new(packets.into_inner(), replies))
    }

    /// Sends one file, an archive, to the client. `response` are values that the client may want to know before.
    pub async fn send_file<S>(
        &self,
        exporter: usize,
        response: &BTreeMap<String, String>,
        content: S,
    ) -> Result<(), SessionError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        const METHOD: &str = method::SEND_FILES;
        self.require(METHOD)?;
        let (chunks, receiver) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(receiver));
        append(
            request.metadata_mut(),
            headers::EXPORTER_ID,
            &[exporter.to_string()],
        )?;
        for (key, value) in response {
            let key = format!("{}{key}", headers::EXPORTER_METADATA_PREFIX).to_ascii_lowercase();
            headers::append(request.metadata_mut(), &key, [value]).map_err(|source| {
                SessionError::Metadata {
                    key: headers::EXPORTER_METADATA_PREFIX,
                    source,
                }
            })?;
        }
        let mut client = FileSendClient::new(self.channel());
        let call = async move {
            let mut answers = client.diff_copy(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        };
        let mut call = Box::pin(call);
        tokio::select! {
            ended = &mut call => return accepted(METHOD, ended),
            pumped = pump(content, chunks) => pumped?,
        }
        accepted(METHOD, call.await)
    }

    /// Sends a folder to the client, whose `entries` are in path order. `complete` says that it has
    /// everything, for all platforms.
    pub async fn send_folder<I>(
        &self,
        exporter: usize,
        complete: bool,
        entries: I,
    ) -> Result<(), SessionError>
    where
        I: Iterator<Item = Result<Listed, WalkError>> + Send + 'static,
    {
        const METHOD: &str = method::SEND_FILES;
        self.require(METHOD)?;
        let (packets, receiver) = mpsc::channel::<Packet>(IN_FLIGHT);
        let frames = ReceiverStream::new(receiver).map(|packet| Bytes::from(packet.encode_to_vec()));
        let mut request = Request::new(frames);
        append(
            request.metadata_mut(),
            headers::EXPORTER_ID,
            &[exporter.to_string()],
        )?;
        if complete {
            append(
                request.metadata_mut(),
                headers::EXPORTER_MULTI_PLATFORM,
                &["1".to_owned()],
            )?;
        }
        let mut client = FileSendClient::new(self.channel());
        // Made while it is read: the response begins only after the first entries were sent.
        let answers = async move { Ok(client.diff_copy(request).await?.into_inner()) };
        let mut requests = Box::pin(answers.try_flatten_stream().map(decode));
        match transfer::send(entries, &mut requests, packets).await {
            Ok(()) => {}
            Err(transfer::SendError::Stream(status)) => return accepted(METHOD, Err(*status)),
            Err(error) => return Err(SessionError::SendFiles(error)),
        }
        while let Some(packet) = requests.next().await {
            if let Err(status) = packet {
                return accepted(METHOD, Err(status));
            }
        }
        Ok(())
    }
}

fn append(metadata: &mut MetadataMap, key: &'static str, values: &[String]) -> Result<(), SessionError> {
    headers::append(metadata, key, values).map_err(|source| SessionError::Metadata { key, source })
}

fn decode(frame: Result<Bytes, Status>) -> Result<Packet, Status> {
    Packet::decode(frame?).map_err(|error| Status::internal(error.to_string()))
}

/// The client has the same output already if it answers `AlreadyExists`.
fn accepted(method: &'static str, ended: Result<(), Status>) -> Result<(), SessionError> {
    match ended {
        Err(status) if status.code() != Code::AlreadyExists => Err(failed(method, status)),
        _ => Ok(()),
    }
}

async fn pump<S>(content: S, chunks: mpsc::Sender<Bytes>) -> Result<(), SessionError>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let mut content = std::pin::pin!(content);
    while let Some(bytes) = content.next().await {
        let mut bytes = bytes.map_err(SessionError::Content)?;
        while !bytes.is_empty() {
            // A little less than the limit, which counts the framing too.
            let data = bytes.split_to(bytes.len().min(MAX_SESSION_MESSAGE - 64));
            let frame = BytesMessage { data }.encode_to_vec();
            if chunks.send(frame.into()).await.is_err() {
                // The call has ended, and its status says why.
                return Ok(());
            }
        }
    }
    Ok(())
}
