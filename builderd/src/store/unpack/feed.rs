//! Bytes from where they arrive to the thread that works on them, through bounded channels.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::mpsc::Receiver;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};

use super::super::BlobError;
use super::Check;

/// Chunks of a network stream; each is checked as it is taken.
pub(super) struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    check: Check,
}

impl Chunks {
    pub(super) fn channel(check: Check) -> (mpsc::Sender<Bytes>, Self) {
        // Network chunks are some 16 KiB: half a MiB may wait.
        let (sender, receiver) = mpsc::channel(32);
        (
            sender,
            Self {
                receiver,
                current: Bytes::new(),
                check,
            },
        )
    }

    /// Takes what is left and verifies the whole.
    pub(super) fn finish(mut self) -> Result<(), BlobError> {
        while let Some(chunk) = self.receiver.blocking_recv() {
            // A failure to write shows again when the blob is verified.
            if self.check.update(&chunk).is_err() {
                break;
            }
        }
        self.check.finish()
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(chunk) = self.receiver.blocking_recv() else {
                return Ok(0);
            };
            self.check.update(&chunk)?;
            self.current = chunk;
        }
        let length = buffer.len().min(self.current.len());
        self.current
            .copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Sends all of `bytes`; ends early, without an error, when the receiver has failed and knows why.
pub(super) async fn send(
    bytes: impl Stream<Item = io::Result<Bytes>>,
    sender: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut bytes = pin!(bytes);
    while let Some(chunk) = bytes.next().await {
        if sender.send(chunk?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Chunks from the thread that decompresses.
pub(super) struct Received {
    chunks: Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Received {
    pub(super) fn new(chunks: Receiver<Vec<u8>>) -> Self {
        Self {
            chunks,
            current: io::Cursor::default(),
        }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.chunks.recv() {
                Ok(chunk) => self.current = io::Cursor::new(chunk),
                Err(_) => return Ok(0),
            }
        }
    }
}
