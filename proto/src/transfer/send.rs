//! The sending end.
//!
//! One blocking task lists, [`READERS`] blocking tasks read requested files, and the loop takes requests the whole
//! time: a sender that stopped taking them while it writes could wait for a receiver that does the same.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

use super::walk::{Listed, WalkError};
use crate::fsutil::Packet;
use crate::fsutil::packet::PacketType;

/// Files that are read at the same time, as in the reference sender.
const READERS: usize = 4;

/// Bytes in a DATA packet, as in the reference sender.
const CHUNK: usize = 32 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("failed to list the files")]
    Walk(#[from] WalkError),
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the file transfer was cut off")]
    Cut,
    #[error("the file transfer failed")]
    Stream(#[source] Box<Status>),
    #[error("the receiver gave up: {0}")]
    Receiver(String),
    #[error("invalid file id {0}")]
    Request(u32),
    #[error("the receiver broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("reading the files panicked")]
    Panicked,
}

/// Files that may be requested, by id.
type Contents = Arc<Mutex<Vec<Option<PathBuf>>>>;

/// Sends `entries`, which are in path order, and the content of those that the receiver asks for.
///
/// `requests` come from the receiver, `packets` go to it. Returns once FIN is on its way and `packets` is closed.
/// A caller that made the call then reads `requests` to its end: the call's status says whether all was written.
/// A caller that serves the call does not, because the other side waits for it to end.
pub async fn send<I, S>(entries: I, requests: &mut S, packets: mpsc::Sender<Packet>) -> Result<(), SendError>
where
    I: Iterator<Item = Result<Listed, WalkError>> + Send + 'static,
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let contents = Contents::default();
    let mut tasks = JoinSet::new();
    tasks.spawn_blocking({
        let contents = Arc::clone(&contents);
        let packets = packets.clone();
        move || list(entries, &contents, &packets)
    });
    let (to_readers, wanted) = mpsc::channel(READERS);
    let wanted = Arc::new(Mutex::new(wanted));
    for _ in 0..READERS {
        let wanted = Arc::clone(&wanted);
        let packets = packets.clone();
        tasks.spawn_blocking(move || read_files(&wanted, &packets));
    }

    let finished = take_requests(requests, &contents, to_readers, &mut tasks).await;
    if let Err(error) = finished {
        // Dropping the tasks does not end blocking work, but the closed stream does.
        let reason = Packet {
            r#type: PacketType::PacketErr.into(),
            data: Bytes::from(crate::chain(&error)),
            ..Packet::default()
        };
        tokio::select! {
            sent = packets.send(reason) => drop(sent),
            // The receiver went away, or sends on without reading.
            () = requests.by_ref().for_each(|_| std::future::ready(())) => {}
        }
        return Err(error);
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(|_| SendError::Panicked)??;
    }
    let fin = Packet {
        r#type: PacketType::PacketFin.into(),
        ..Packet::default()
    };
    packets.send(fin).await.map_err(|_| SendError::Cut)
}

/// Passes requests on until the receiver says FIN.
async fn take_requests<S>(
    requests: &mut S,
    contents: &Contents,
    to_readers: mpsc::Sender<(u32, PathBuf)>,
    tasks: &mut JoinSet<Result<(), SendError>>,
) -> Result<(), SendError>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let mut queue = VecDeque::new();
    loop {
        let packet = tokio::select! {
            slot = to_readers.reserve(), if !queue.is_empty() => {
                let slot = slot.map_err(|_| SendError::Panicked)?;
                if let Some(file) = queue.pop_front() {
                    slot.send(file);
                }
                continue;
            }
            Some(task) = tasks.join_next() => {
                task.map_err(|_| SendError::Panicked)??;
                continue;
            }
            packet = requests.next() => packet,
        };
        let packet = packet
            .ok_or(SendError::Cut)?
            .map_err(|status| SendError::Stream(Box::new(status)))?;
        match packet.r#type() {
            PacketType::PacketReq => queue.push_back((packet.id, claim(contents, packet.id)?)),
            PacketType::PacketFin if queue.is_empty() => return Ok(()),
            PacketType::PacketFin => {
                return Err(SendError::Protocol("it finished before it had all files"));
            }
            PacketType::PacketErr => {
                let reason = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(SendError::Receiver(reason));
            }
            PacketType::PacketStat | PacketType::PacketData => {
                return Err(SendError::Protocol("it sent files"));
            }
        }
    }
}

/// Each file can be requested once.
fn claim(contents: &Contents, id: u32) -> Result<PathBuf, SendError> {
    let mut contents = contents.lock().map_err(|_| SendError::Panicked)?;
    usize::try_from(id)
        .ok()
        .and_then(|id| contents.get_mut(id))
        .and_then(Option::take)
        .ok_or(SendError::Request(id))
}

fn list<I>(entries: I, contents: &Contents, packets: &mpsc::Sender<Packet>) -> Result<(), SendError>
where
    I: Iterator<Item = Result<Listed, WalkError>>,
{
    for listed in entries {
        let Listed { stat, content } = listed?;
        // Before the packet, so that the request for it finds the file.
        contents.lock().map_err(|_| SendError::Panicked)?.push(content);
        let packet = Packet {
            r#type: PacketType::PacketStat.into(),
            stat: Some(stat),
            ..Packet::default()
        };
        packets.blocking_send(packet).map_err(|_| SendError::Cut)?;
    }
    packets
        .blocking_send(Packet::default())
        .map_err(|_| SendError::Cut)
}

fn read_files(
    wanted: &Mutex<mpsc::Receiver<(u32, PathBuf)>>,
    packets: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    loop {
        let file = wanted.lock().map_err(|_| SendError::Panicked)?.blocking_recv();
        let Some((id, path)) = file else {
            return Ok(());
        };
        read_file(id, &path, packets)?;
    }
}

fn read_file(id: u32, path: &Path, packets: &mpsc::Sender<Packet>) -> Result<(), SendError> {
    let send = |data: Bytes| {
        let packet = Packet {
            r#type: PacketType::PacketData.into(),
            id,
            data,
            ..Packet::default()
        };
        packets.blocking_send(packet).map_err(|_| SendError::Cut)
    };
    // A file that vanished or cannot be opened is sent as an empty one, as the reference sender does: the receiver
    // has its entry, and a listing of a live folder cannot be exact.
    if let Ok(mut file) = open(path) {
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = fill(&mut file, &mut chunk).map_err(|source| SendError::Read {
                path: path.to_owned(),
                source,
            })?;
            chunk.truncate(length);
            if length > 0 {
                send(chunk.into())?;
            }
            if length < CHUNK {
                break;
            }
        }
    }
    send(Bytes::new())
}

/// Opens what was listed as a regular file, even if something else has taken its place since.
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn fill(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
