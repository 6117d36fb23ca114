//! The network of a step that is not the sandbox's: a namespace of its own with loopback up, as runc leaves it. One whose
//! only way out is the daemon has a listener there, which the daemon gets.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::sys;
use crate::executor::descriptors;
use crate::executor::step::{OUTLET_IPV4, OUTLET_IPV6, OUTLET_PORT};

pub(super) fn bring_loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::loopback_up(socket.as_fd())
}

/// The runner's connection to the daemon for the network of one step.
pub(super) struct Link(UnixStream);

impl Link {
    /// Connects to the daemon's socket, in a folder whose whole path may be longer than a socket address.
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        std::env::set_current_dir(folder)?;
        let connected = UnixStream::connect(name);
        std::env::set_current_dir("/")?;
        Ok(Self(connected?))
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// In the step's own network: gives the daemon what the step will connect to.
    pub(super) fn hand_over_listener(&self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, OUTLET_PORT))?;
        descriptors::send(self.0.as_fd(), listener.as_fd())
    }

    /// In the sandbox's network: gives the daemon a socket of it, or the reason why there is none. False when the daemon wants no more.
    pub(super) fn answer(&self) -> io::Result<bool> {
        let mut kind = [0];
        let family = match rustix::io::read(&self.0, &mut kind)? {
            0 => return Ok(false),
            _ => match kind[0] {
                OUTLET_IPV4 => AddressFamily::INET,
                OUTLET_IPV6 => AddressFamily::INET6,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            },
        };
        // Another one may be had all the same: of IPv4 where there is no IPv6, or later.
        match socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None) {
            Ok(socket) => descriptors::send(self.0.as_fd(), socket.as_fd())?,
            Err(error) => descriptors::send_failure(self.0.as_fd(), &error.into())?,
        }
        Ok(true)
    }
}
