//! The receiving end.
//!
//! The owner pulls [`Event`]s, asks for files as it goes, and writes them down: reading the peer's packets is what
//! moves the transfer on. Requests queue up here while the peer is busy sending, so that neither waits for the other.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;

use super::listing::{Listing, ListingError, is_hard_link};
use super::mode::Kind;
use crate::fsutil::packet::PacketType;
use crate::fsutil::{Packet, Stat};

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("the listing is not valid")]
    Listing(#[from] ListingError),
    #[error("the file transfer was cut off")]
    Cut,
    #[error("the file transfer failed")]
    Stream(#[source] Box<Status>),
    #[error("the sender gave up: {0}")]
    Sender(String),
    #[error("the sender broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("entry {id} was requested, but it is not a file or was requested before")]
    Request { id: u32 },
}

/// What came in.
#[derive(Debug)]
pub enum Event {
    /// A checked entry. Its content comes only if it is [requested](Receiving::request).
    Entry { id: u32, kind: Kind, stat: Stat },
    /// No more entries. Requests are still taken.
    EndOfListing,
    /// The next bytes of a requested file. Chunks of several files may alternate.
    Data { id: u32, data: Bytes },
    /// A requested file is complete. One that vanished meanwhile is empty.
    EndOfFile { id: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Not a regular file, or another name of one.
    None,
    Offered,
    Requested,
    Received,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Receiving,
    /// FIN is to be sent, or was: no more packets are expected but the peer's FIN.
    Finishing,
    Finished,
}

/// A transfer, seen by the side that receives the files.
#[derive(Debug)]
pub struct Receiving<S> {
    packets: S,
    replies: Option<mpsc::Sender<Packet>>,
    unsent: VecDeque<Packet>,
    listing: Listing,
    listed: bool,
    contents: Vec<Content>,
    outstanding: usize,
    phase: Phase,
}

impl<S> Receiving<S>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    /// `packets` come from the sender, `replies` go to it.
    pub fn new(packets: S, replies: mpsc::Sender<Packet>) -> Self {
        Self {
            packets,
            replies: Some(replies),
            unsent: VecDeque::new(),
            listing: Listing::default(),
            listed: false,
            contents: Vec::new(),
            outstanding: 0,
            phase: Phase::Receiving,
        }
    }

    /// Whether an entry has content to ask for: regular files that are not hard links.
    pub fn has_content(&self, id: u32) -> bool {
        self.content(id) == Content::Offered
    }

    /// Asks for the content of a file. Each file can be asked for once.
    pub fn request(&mut self, id: u32) -> Result<(), ReceiveError> {
        if self.content(id) != Content::Offered {
            return Err(ReceiveError::Request { id });
        }
        self.set_content(id, Content::Requested);
        self.outstanding += 1;
        self.unsent.push_back(control_packet(PacketType::PacketReq, id));
        Ok(())
    }

    /// The next event. `None` once the listing is complete, all requested files came and both sides said so.
    pub async fn next(&mut self) -> Result<Option<Event>, ReceiveError> {
        loop {
            if self.phase == Phase::Finished {
                return Ok(None);
            }
            if self.phase == Phase::Receiving && self.listed && self.outstanding == 0 {
                self.phase = Phase::Finishing;
                self.unsent.push_back(control_packet(PacketType::PacketFin, 0));
            }
            // A clone, because the permit borrows it while the error path needs the whole.
            let replies = self.replies.clone();
            let packet = match &replies {
                Some(replies) if !self.unsent.is_empty() => {
                    tokio::select! {
                        biased;
                        slot = replies.reserve() => {
                            let Ok(slot) = slot else {
                                return Err(self.closed_replies().await);
                            };
                            if let Some(packet) = self.unsent.pop_front() {
                                slot.send(packet);
                            }
                            continue;
                        }
                        packet = self.packets.next() => packet,
                    }
                }
                _ => self.packets.next().await,
            };
            let Some(packet) = packet else {
                return Err(ReceiveError::Cut);
            };
            let packet = packet.map_err(|status| ReceiveError::Stream(Box::new(status)))?;
            if let Some(event) = self.take(packet)? {
                return Ok(Some(event));
            }
            if self.phase == Phase::Finished {
                // Half-close, then read to the end: the sender takes an early end for a failure.
                self.replies = None;
                while let Some(packet) = self.packets.next().await {
                    packet.map_err(|status| ReceiveError::Stream(Box::new(status)))?;
                }
            }
        }
    }

    /// Tells the sender why this side gives up.
    pub async fn abort(mut self, reason: &str) {
        if let Some(replies) = self.replies.take() {
            let packet = Packet {
                r#type: PacketType::PacketErr.into(),
                data: Bytes::copy_from_slice(reason.as_bytes()),
                ..Packet::default()
            };
            // The peer may be gone already; then nobody is left to tell.
            replies.send(packet).await.ok();
        }
    }

    /// The call is over when nobody takes replies any more: its status says why.
    async fn closed_replies(&mut self) -> ReceiveError {
        while let Some(packet) = self.packets.next().await {
            match packet {
                Ok(packet) if packet.r#type() == PacketType::PacketErr => return sender_error(&packet),
                Ok(_) => {}
                Err(status) => return ReceiveError::Stream(Box::new(status)),
            }
        }
        ReceiveError::Cut
    }

    fn take(&mut self, packet: Packet) -> Result<Option<Event>, ReceiveError> {
        match packet.r#type() {
            PacketType::PacketStat => self.take_stat(packet.stat),
            PacketType::PacketData => self.take_data(packet.id, packet.data).map(Some),
            PacketType::PacketFin if self.phase == Phase::Finishing && self.unsent.is_empty() => {
                self.phase = Phase::Finished;
                Ok(None)
            }
            PacketType::PacketFin => Err(ReceiveError::Protocol("it finished before all was sent")),
            PacketType::PacketErr => Err(sender_error(&packet)),
            PacketType::PacketReq => Err(ReceiveError::Protocol("it requested a file")),
        }
    }

    fn take_stat(&mut self, stat: Option<Stat>) -> Result<Option<Event>, ReceiveError> {
        if self.listed {
            return Err(ReceiveError::Protocol("an entry came after the listing"));
        }
        let Some(stat) = stat else {
            self.listed = true;
            return Ok(Some(Event::EndOfListing));
        };
        let kind = self.listing.check(&stat)?;
        let id = u32::try_from(self.contents.len())
            .map_err(|_| ReceiveError::Protocol("it listed too many entries"))?;
        self.contents.push(if kind == Kind::File && !is_hard_link(&stat) {
            Content::Offered
        } else {
            Content::None
        });
        Ok(Some(Event::Entry { id, kind, stat }))
    }

    fn take_data(&mut self, id: u32, data: Bytes) -> Result<Event, ReceiveError> {
        if self.content(id) != Content::Requested {
            return Err(ReceiveError::Protocol("it sent a file that was not requested"));
        }
        if !data.is_empty() {
            return Ok(Event::Data { id, data });
        }
        self.set_content(id, Content::Received);
        self.outstanding -= 1;
        Ok(Event::EndOfFile { id })
    }

    fn content(&self, id: u32) -> Content {
        usize::try_from(id)
            .ok()
            .and_then(|id| self.contents.get(id))
            .copied()
            .unwrap_or(Content::None)
    }

    fn set_content(&mut self, id: u32, content: Content) {
        if let Some(slot) = usize::try_from(id).ok().and_then(|id| self.contents.get_mut(id)) {
            *slot = content;
        }
    }
}

fn control_packet(kind: PacketType, id: u32) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        ..Packet::default()
    }
}

fn sender_error(packet: &Packet) -> ReceiveError {
    ReceiveError::Sender(String::from_utf8_lossy(&packet.data).into_owned())
}
