//! The runner's side of a process that somebody talks with: its input, and its terminal.
//!
//! A terminal belongs to the step's own /dev/pts, so the child makes it and hands its master over a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::sys;
use crate::executor::descriptors;
use crate::executor::protocol::{WINDOW, weight};
use crate::executor::step::TerminalSize;

/// What one attached process was sent and has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The writing end of its input: a pipe, or the master of its terminal.
    input: Option<OwnedFd>,
    pending: Vec<u8>,
    /// No more input will come.
    ended: bool,
    is_terminal: bool,
    /// Where the master of the terminal comes from.
    handover: Option<OwnedFd>,
    /// The size that was asked for before the terminal was there.
    size: Option<TerminalSize>,
    pub(super) started: bool,
    /// How much output was sent and is not consumed yet.
    unread: usize,
}

impl Talk {
    /// A process without a terminal; without a pipe its input is empty.
    pub(super) fn with_pipe(input: Option<OwnedFd>) -> Self {
        Self {
            input,
            ..Self::default()
        }
    }

    /// A process whose terminal will be handed over.
    pub(super) fn with_terminal(handover: OwnedFd) -> Self {
        Self {
            handover: Some(handover),
            is_terminal: true,
            ..Self::default()
        }
    }

    pub(super) fn handover(&self) -> Option<BorrowedFd<'_>> {
        self.handover.as_ref().map(AsFd::as_fd)
    }

    /// Takes the terminal over, and returns what to read its output from.
    pub(super) fn accept(&mut self) -> io::Result<Option<OwnedFd>> {
        let Some(socket) = self.handover.take() else {
            return Ok(None);
        };
        let Some(master) = descriptors::receive(&socket)? else {
            return Ok(None);
        };
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(size) = self.size.take() {
            sys::set_terminal_size(master.as_fd(), size.rows, size.columns)?;
        }
        let output = master.try_clone()?;
        self.input = Some(master);
        Ok(Some(output))
    }

    pub(super) fn resize(&mut self, size: TerminalSize) -> io::Result<()> {
        match &self.input {
            Some(master) if self.is_terminal => {
                sys::set_terminal_size(master.as_fd(), size.rows, size.columns)
            }
            _ => {
                self.size = Some(size);
                Ok(())
            }
        }
    }

    /// Notes what is to be passed on. Nothing at all is the end of the input.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.ended |= bytes.is_empty();
        self.pending.extend_from_slice(bytes);
    }

    /// Whether more of its output may be sent.
    pub(super) fn may_speak(&self) -> bool {
        self.unread < WINDOW
    }

    pub(super) fn spoke(&mut self, bytes: usize) {
        self.unread += weight(bytes);
    }

    pub(super) fn was_heard(&mut self, count: usize) {
        self.unread = self.unread.saturating_sub(count);
    }

    /// What to wait for before passing input on; `None` while there is none.
    pub(super) fn wanting(&self) -> Option<BorrowedFd<'_>> {
        self.input
            .as_ref()
            .filter(|_| !self.pending.is_empty())
            .map(AsFd::as_fd)
    }

    /// Passes input on as far as the process takes it, and returns how much that is. What nobody reads any more counts
    /// as taken.
    pub(super) fn flush(&mut self) -> usize {
        let mut taken = 0;
        while !self.pending.is_empty() {
            let Some(input) = &self.input else {
                // A terminal may still come.
                if self.handover.is_none() {
                    taken += self.pending.len();
                    self.pending.clear();
                }
                break;
            };
            match rustix::io::write(input, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    taken += count;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    taken += self.pending.len();
                    self.pending.clear();
                    self.input = None;
                }
            }
        }
        // A terminal stays: its output comes through it.
        if self.ended && self.pending.is_empty() && !self.is_terminal {
            self.input = None;
        }
        taken
    }
}

/// In the child, inside its root: makes a terminal, hands its master over and returns the end for the program.
pub(super) fn make_terminal(handover: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    let terminal = sys::terminal_behind(master.as_fd())?;
    descriptors::send(handover, master.as_fd())?;
    Ok(terminal)
}
