//! Compression of layer tars, in one pass and on several threads, with the same bytes for any number of them.
//!
//! gzip: the tar is cut into blocks of one MiB, each of which becomes a gzip member of its own. A sequence of members
//! is a gzip file like any other (RFC 1952, 2.2); gunzip, Docker and containerd read it. The bytes depend on the
//! block size, the level and the version of libdeflate, so all three are fixed.
//!
//! zstd: the library's own threads. With at least one worker its output is the same for any number of workers (and
//! differs from what it writes without one).

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use libdeflater::{CompressionLvl, Compressor};
use registry::digest::{Algorithm, Digest, Hasher};

/// Size of the pieces in which a tar goes through the compressor.
pub(super) const BLOCK: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CompressionKind {
    Uncompressed,
    #[default]
    Gzip,
    Zstd,
    /// gzip, with files that can be read one by one.
    Estargz,
}

/// What layer blobs shall be compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Compression {
    pub kind: CompressionKind,
    /// In the compression's own terms; `None` is our default.
    pub level: Option<i32>,
    /// Compress layers of base images anew if they are compressed otherwise.
    pub force: bool,
}

impl CompressionKind {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip | Self::Estargz => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The compression of a layer's media type, OCI's or Docker's; `None` for what is no layer tar.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let foreign = media_type
            .replace(".nondistributable.", ".")
            .replace(".foreign.", ".");
        Some(match foreign.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Self::Uncompressed
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Self::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

impl Compression {
    /// The level that is used. Levels beyond a compression's range mean its best, as in BuildKit.
    pub(super) fn effective_level(&self) -> i32 {
        match self.kind {
            CompressionKind::Uncompressed => 0,
            // libdeflate's 4 comes within two per cent of the size of zlib's 6, at five times the speed.
            CompressionKind::Gzip | CompressionKind::Estargz => self.level.unwrap_or(4).clamp(0, 12),
            CompressionKind::Zstd => self.level.unwrap_or(3).clamp(1, 22),
        }
    }

    /// What determines the bytes, as a name.
    pub(super) fn name(&self) -> String {
        let level = self.effective_level();
        match self.kind {
            CompressionKind::Uncompressed => "uncompressed".to_owned(),
            CompressionKind::Gzip => format!("gzip-{level}"),
            CompressionKind::Zstd => format!("zstd-{level}"),
            CompressionKind::Estargz => format!("estargz-{level}"),
        }
    }
}

/// Takes the bytes of a tar, hashes them (the diff id) and hands them on in blocks of fixed size.
pub(super) struct Blocks<'a> {
    block: Vec<u8>,
    hasher: Hasher,
    next: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
}

impl<'a> Blocks<'a> {
    fn new(next: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Self {
        Self {
            block: Vec::with_capacity(BLOCK),
            hasher: Hasher::new(Algorithm::Sha256),
            next,
        }
    }

    /// Takes all bytes of `source`, at most `limit`, without a copy in between. Returns their number.
    pub(super) fn take_from(&mut self, source: &mut impl Read, limit: u64) -> io::Result<u64> {
        let mut taken = 0;
        while taken < limit {
            let room = (BLOCK - self.block.len()) as u64;
            let read = source
                .by_ref()
                .take(room.min(limit - taken))
                .read_to_end(&mut self.block)? as u64;
            if read == 0 {
                break;
            }
            taken += read;
            self.pass_on_if_full()?;
        }
        Ok(taken)
    }

    fn pass_on_if_full(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.hasher.update(&full);
        (self.next)(full)
    }

    /// Returns digest and size of all bytes.
    fn finish(mut self) -> io::Result<(Digest, u64)> {
        let last = std::mem::take(&mut self.block);
        self.hasher.update(&last);
        if !last.is_empty() {
            (self.next)(last)?;
        }
        let size = self.hasher.bytes();
        Ok((self.hasher.finish(), size))
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        bytes = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(bytes);
        self.pass_on_if_full()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what `produce` writes into `out`. Returns digest and size of the uncompressed bytes. When both ends
/// fail, the failure of `out` is the cause and is the one reported.
pub(super) fn compress<E: From<io::Error>>(
    compression: Compression,
    threads: usize,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut Blocks<'_>) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    let level = compression.effective_level();
    match compression.kind {
        CompressionKind::Uncompressed => run(&mut |block| out.write_all(&block), produce),
        // An eStargz is made of entries, not of bytes: see `estargz`.
        CompressionKind::Gzip | CompressionKind::Estargz => gzip(level, threads.max(1), out, produce),
        CompressionKind::Zstd => {
            let mut encoder = zstd::Encoder::new(out, level)?;
            encoder.include_checksum(true)?;
            encoder.multithread(u32::try_from(threads.clamp(1, 64)).unwrap_or(1))?;
            let tar = run(&mut |block| encoder.write_all(&block), produce)?;
            encoder.finish()?;
            Ok(tar)
        }
    }
}

fn run<E: From<io::Error>>(
    next: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    produce: impl FnOnce(&mut Blocks<'_>) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    let mut blocks = Blocks::new(next);
    produce(&mut blocks)?;
    Ok(blocks.finish()?)
}

fn gzip<E: From<io::Error>>(
    level: i32,
    threads: usize,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut Blocks<'_>) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    // Most layers are smaller than a block: threads start with the second one.
    let mut first: Option<Vec<u8>> = None;
    let mut out = Some(out);
    std::thread::scope(|scope| {
        let mut members: Option<Members<'_>> = None;
        let mut next = |block| {
            if first.is_none() && members.is_none() {
                first = Some(block);
                return Ok(());
            }
            let members = match &mut members {
                Some(members) => members,
                None => {
                    let out = out.take().expect("the threads are started once");
                    let members = members.insert(Members::start(scope, level, threads, out)?);
                    members.push(first.take().expect("the first block waits for the second"))?;
                    members
                }
            };
            members.push(block)
        };
        let produced = run(&mut next, produce);
        if let Some(members) = members {
            members.finish()?;
        } else if let (Some(block), Some(out), Ok(_)) = (first, out, &produced) {
            out.write_all(&member(&mut compressor(level)?, &block)?)?;
        }
        produced
    })
}

/// The threads that make members, and the one that writes them in the order of their blocks.
struct Members<'scope> {
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<io::Result<Vec<u8>>>>,
    writer: ScopedJoinHandle<'scope, io::Result<()>>,
}

struct Job {
    block: Vec<u8>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

impl<'scope> Members<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        level: i32,
        threads: usize,
        out: &'scope mut (impl Write + Send),
    ) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(1);
        let waiting = std::sync::Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = std::sync::Arc::clone(&waiting);
            let mut compressor = compressor(level)?;
            scope.spawn(move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(Job { block, reply }) = next() {
                    // The writer is gone only if it failed, and then nobody wants this member.
                    let _ = reply.send(member(&mut compressor, &block));
                }
            });
        }
        // Bounds the members that wait for an earlier one: with it, memory is about two blocks per thread.
        let (order, members) = sync_channel::<Receiver<io::Result<Vec<u8>>>>(threads + 1);
        let writer = scope.spawn(move || {
            for member in members {
                let lost = |_| io::Error::other("a compressing thread ended early");
                out.write_all(&member.recv().map_err(lost)??)?;
            }
            Ok(())
        });
        Ok(Self { jobs, order, writer })
    }

    fn push(&self, block: Vec<u8>) -> io::Result<()> {
        let (reply, member) = sync_channel(1);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.order.send(member).map_err(|_| gone())?;
        self.jobs.send(Job { block, reply }).map_err(|_| gone())
    }

    fn finish(self) -> io::Result<()> {
        drop((self.jobs, self.order));
        self.writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))
    }
}

pub(super) fn compressor(level: i32) -> io::Result<Compressor> {
    let level = CompressionLvl::new(level).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(Compressor::new(level))
}

/// One gzip member with the bytes of `block`.
pub(super) fn member(compressor: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
    let size = compressor
        .gzip_compress(block, &mut member)
        .map_err(io::Error::other)?;
    member.truncate(size);
    Ok(member)
}

/// The uncompressed bytes of a layer blob. What it is compressed with is read from its first bytes: media types are
/// wrong more often.
pub(super) fn decompress<'a>(mut blob: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = [0; 4];
    let mut filled = 0;
    while let Some(rest) = magic.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match blob.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let start = magic.get(..filled).unwrap_or_default().to_vec();
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = io::Cursor::new(start).chain(blob);
    Ok(if gzip {
        let buffered = io::BufReader::with_capacity(1 << 17, whole);
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else if zstd {
        Box::new(zstd::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    })
}

#[cfg(test)]
mod tests;
