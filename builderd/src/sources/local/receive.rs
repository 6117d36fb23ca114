//! The async half: takes the listing and the data as they come, and decides what is asked for.
//!
//! Nothing is written as long as the listing is that of last time. At the first difference the writer is told all
//! that was the same so far, and from then on everything.

use dockerfile::ignore::PatternMatcher;
use futures::Stream;
use prost::Message as _;
use proto::fsutil::{Packet, Stat};
use proto::transfer::mode::Kind;
use proto::transfer::{Event, ReceiveError, Receiving};
use tokio::sync::mpsc;
use tonic::Status;

use super::index::{Comparison, Place, Record};
use super::selection::Selection;
use super::write::{How, Instruction, write};
use super::{Differ, LocalError, LocalSource};
use crate::store::{Pool, Snapshot, Store};

/// Instructions that wait for the disk. Data comes in pieces of 32 KiB, so this bounds the memory of a transfer.
const WAITING: usize = 64;
/// What the kernel takes as a path.
const MAX_PATH: usize = 4095;
/// All entries of a listing together.
const MAX_LISTING: usize = 1 << 30;
/// How long a client may take to hear why its transfer ends.
const ABORT: std::time::Duration = std::time::Duration::from_secs(1);

/// Receives a folder into a layer. `progress` is told how many bytes have come in.
pub async fn receive<S>(
    mut files: Receiving<S>,
    source: &LocalSource,
    shared_key: &str,
    store: &Store,
    mut progress: impl FnMut(u64),
) -> Result<Snapshot, LocalError>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let place = Place::of(source, shared_key);
    let last = match &source.listing {
        // The file with the listing is never that of last time, and the rest is little.
        Some(_) => None,
        None => {
            let (place, store) = (place.clone(), store.clone());
            store.pool().clone().run(move || place.read(&store)).await?
        }
    };
    let wanted = source.listing.as_ref().map(PatternMatcher::new).transpose();
    let wanted = wanted.map_err(LocalError::Pattern)?;
    let (instructions, receiver) = mpsc::channel(WAITING);
    let last_layer = last.as_ref().map(|index| index.layer.clone());
    let writing = {
        let (store, last_layer) = (store.clone(), last_layer.clone());
        // A pool of its own: the writer waits for the client, which must not keep others waiting.
        async move {
            let pool = Pool::new(1);
            pool.run(move || write(receiver, last_layer, &place, &store))
                .await?
        }
    };
    let reading = async {
        let reader = Reader {
            files: &mut files,
            instructions: Some(instructions),
            same: Vec::new(),
            comparison: Comparison::new(last.map(|index| index.records).unwrap_or_default()),
            changed: last_layer.is_none(),
            differ: source.differ,
            selection: wanted.as_ref().map(Selection::new),
        };
        reader.run(&source.files.name, &mut progress).await
    };
    match tokio::try_join!(writing, reading) {
        Ok((written, ())) => Ok(Snapshot::new([written.or(last_layer).ok_or_else(|| {
            LocalError::Receive {
                name: source.files.name.clone(),
                source: ReceiveError::Cut,
            }
        })?])),
        Err(error) => {
            let reason = error.to_string();
            // A client that does not listen is told by the end of the call.
            tokio::time::timeout(ABORT, files.abort(&reason)).await.ok();
            Err(error)
        }
    }
}

struct Reader<'a, S> {
    files: &'a mut Receiving<S>,
    instructions: Option<mpsc::Sender<Instruction>>,
    /// What was the same so far, as long as nothing was different.
    same: Vec<Record>,
    comparison: Comparison,
    changed: bool,
    differ: Differ,
    selection: Option<Selection<'a>>,
}

impl<S> Reader<'_, S>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    async fn run(mut self, name: &str, progress: &mut impl FnMut(u64)) -> Result<(), LocalError> {
        let failed = |source| LocalError::Receive {
            name: name.to_owned(),
            source,
        };
        let mut received = 0;
        let mut listing = 0;
        while let Some(event) = self.files.next().await.map_err(failed)? {
            match event {
                Event::Entry { id, kind, stat } => {
                    // The listing comes in as well, and for a folder that has not changed there is nothing else.
                    let size = check_size(&stat)?;
                    received += stat.encoded_len() as u64;
                    progress(received);
                    listing += size;
                    if listing > MAX_LISTING {
                        return Err(LocalError::ListingTooLarge { limit: MAX_LISTING });
                    }
                    let folders = match &mut self.selection {
                        Some(selection) => selection.entry(kind, &stat),
                        None => Some(Vec::new()),
                    };
                    let Some(folders) = folders else { continue };
                    for stat in folders {
                        self.tell(Instruction::Entry {
                            how: How::Make,
                            kind: Kind::Directory,
                            stat,
                        })
                        .await;
                    }
                    self.entry(id, kind, stat).await.map_err(failed)?;
                }
                Event::EndOfListing if self.comparison.has_rest() => self.begin().await,
                Event::EndOfListing => {}
                Event::Data { id, data } => {
                    received += data.len() as u64;
                    progress(received);
                    self.tell(Instruction::Data { id, data }).await;
                }
                Event::EndOfFile { id } => self.tell(Instruction::EndOfFile { id }).await,
            }
        }
        for instruction in self.selection.take().into_iter().flat_map(Selection::finish) {
            self.tell(instruction).await;
        }
        if self.changed {
            self.tell(Instruction::Finish).await;
        }
        Ok(())
    }

    async fn entry(&mut self, id: u32, kind: Kind, stat: Stat) -> Result<(), ReceiveError> {
        let known = match self.differ {
            Differ::Metadata => self.comparison.unchanged(&stat),
            Differ::None => None,
        };
        if let Some(record) = known {
            if self.comparison.missing {
                self.begin().await;
            }
            if self.changed {
                self.tell(Instruction::Entry {
                    how: How::Take(record.digest),
                    kind,
                    stat,
                })
                .await;
            } else {
                self.same.push(record);
            }
            return Ok(());
        }
        self.begin().await;
        let how = if self.files.has_content(id) {
            self.files.request(id)?;
            How::Fetch(id)
        } else {
            How::Make
        };
        self.tell(Instruction::Entry { how, kind, stat }).await;
        Ok(())
    }

    /// From here on everything is written; so is what came before.
    async fn begin(&mut self) {
        self.changed = true;
        for Record { stat, digest } in std::mem::take(&mut self.same) {
            if let Some(kind) = Kind::of(stat.mode) {
                self.tell(Instruction::Entry {
                    how: How::Take(digest),
                    kind,
                    stat,
                })
                .await;
            }
        }
    }

    async fn tell(&mut self, instruction: Instruction) {
        if let Some(instructions) = &self.instructions
            && instructions.send(instruction).await.is_err()
        {
            // The writer has failed, and its error ends the transfer: this side has nothing to say any more.
            self.instructions = None;
            std::future::pending::<()>().await;
        }
    }
}

fn check_size(stat: &Stat) -> Result<usize, LocalError> {
    for path in [&stat.path, &stat.linkname] {
        if path.len() > MAX_PATH {
            let start = path.chars().take(64).collect();
            return Err(LocalError::PathTooLong {
                path: start,
                limit: MAX_PATH,
            });
        }
    }
    let attributes: usize = stat
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    Ok(size_of::<Stat>() + stat.path.len() + stat.linkname.len() + attributes)
}
