//! `FileSend`: results of exports that come to this machine. An archive goes into a file, to standard output or into
//! the Docker engine; the files of a `local` export go into a folder.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use proto::filesync::BytesMessage;
use proto::filesync::file_send_server::FileSend;
use proto::fsutil::Packet;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Tasks, receive};
use crate::build::outputs::Destination;
use crate::docker;
use crate::settings::Settings;

const QUEUE: usize = 64;
const EXPORTER: &str = "buildkit-attachable-exporter-id";

#[derive(Debug)]
pub struct Results {
    pub destinations: Arc<Vec<Destination>>,
    pub settings: Settings,
    pub tasks: Tasks,
}

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

#[tonic::async_trait]
impl FileSend for Results {
    type DiffCopyStream = Frames;

    async fn diff_copy(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Frames>, Status> {
        let number = match request.metadata().get(EXPORTER) {
            Some(text) => text.to_str().ok().and_then(|text| text.parse().ok()),
            None => Some(0),
        };
        let destination = number
            .and_then(|number: usize| self.destinations.get(number))
            .cloned();
        let frames = request.into_inner();
        match destination {
            None | Some(Destination::Daemon) => {
                Err(Status::unimplemented("no output is expected for this export"))
            }
            Some(Destination::Folder(folder)) => Ok(Response::new(self.receive_folder(folder, frames))),
            Some(Destination::File(path)) => {
                let failed =
                    |error: io::Error| Status::unknown(format!("writing {}: {error}", path.display()));
                into_file(path.clone(), frames).await?.map_err(failed)?;
                Ok(nothing())
            }
            Some(Destination::StandardOutput) => {
                let written = copy(chunks(frames), tokio::io::stdout()).await?;
                written.map_err(|error| Status::unknown(format!("writing to standard output: {error}")))?;
                Ok(nothing())
            }
            Some(Destination::Engine) => {
                load(&self.settings, frames).await?;
                Ok(nothing())
            }
        }
    }
}

impl Results {
    fn receive_folder(&self, folder: PathBuf, frames: Streaming<Bytes>) -> Frames {
        let packets = frames.map(|frame| {
            Packet::decode(frame?).map_err(|error| Status::invalid_argument(format!("not a packet: {error}")))
        });
        let (replies, outgoing) = mpsc::channel(QUEUE);
        let (ends, end) = mpsc::channel(1);
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            if let Err(error) = receive::into_folder(&folder, packets.boxed(), replies).await {
                let text = format!("writing {}: {}", folder.display(), crate::error::chain(&error));
                tasks.fail(&text);
                // Nobody waits for the reason once the daemon has gone.
                ends.send(Err(Status::unknown(text))).await.ok();
            }
        });
        let outgoing = ReceiverStream::new(outgoing).map(|packet| Ok(Bytes::from(packet.encode_to_vec())));
        outgoing.chain(ReceiverStream::new(end)).boxed()
    }
}

fn nothing() -> Response<Frames> {
    Response::new(futures::stream::empty().boxed())
}

/// The archive's bytes.
fn chunks(frames: Streaming<Bytes>) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    frames.map(|frame| {
        let message = BytesMessage::decode(frame?);
        message
            .map(|message| message.data)
            .map_err(|error| Status::invalid_argument(format!("not a chunk: {error}")))
    })
}

/// The outer result is the daemon's failure, the inner one ours.
async fn copy(
    chunks: impl Stream<Item = Result<Bytes, Status>> + Send,
    mut writer: impl tokio::io::AsyncWrite + Unpin + Send,
) -> Result<io::Result<()>, Status> {
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.try_next().await? {
        if let Err(error) = writer.write_all(&chunk).await {
            return Ok(Err(error));
        }
    }
    Ok(writer.flush().await)
}

/// The file appears when it is whole.
async fn into_file(path: PathBuf, frames: Streaming<Bytes>) -> Result<io::Result<()>, Status> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .map_or(".".into(), PathBuf::from);
    let made = std::fs::create_dir_all(&folder).and_then(|()| {
        use std::os::unix::fs::PermissionsExt as _;
        tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&folder)
    });
    let temporary = match made {
        Ok(temporary) => temporary,
        Err(error) => return Ok(Err(error)),
    };
    let file = match temporary.reopen() {
        Ok(file) => tokio::fs::File::from_std(file),
        Err(error) => return Ok(Err(error)),
    };
    if let Err(error) = copy(chunks(frames), file).await? {
        return Ok(Err(error));
    }
    Ok(temporary.persist(&path).map(drop).map_err(|error| error.error))
}

async fn load(settings: &Settings, frames: Streaming<Bytes>) -> Result<(), Status> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Status::unknown(format!(
            "loading into the Docker engine: {}",
            crate::error::chain(error)
        ))
    };
    let endpoint = docker::current_endpoint(settings).map_err(|error| failed(&error))?;
    let engine = docker::connect(settings, &endpoint)
        .await
        .map_err(|error| failed(&error))?;
    let options = bollard::query_parameters::ImportImageOptionsBuilder::new()
        .quiet(true)
        .build();
    let archive = chunks(frames).map_err(io::Error::other);
    engine
        .import_image(options, bollard::body_try_stream(archive), None)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(|error| failed(&error))
}
