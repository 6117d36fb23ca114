//! Open files that go from one process to another through a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The byte that an open file comes with; instead of one comes the number of an error of the system.
const SENT: u8 = 0;
const UNKNOWN: u8 = 5; // EIO

/// Sends one open file.
pub(crate) fn send(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        socket,
        &[IoSlice::new(&[SENT])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Says why none is sent.
pub(crate) fn send_failure(socket: BorrowedFd<'_>, failure: &io::Error) -> io::Result<()> {
    let number = failure
        .raw_os_error()
        .and_then(|number| u8::try_from(number).ok());
    let byte = number.filter(|number| *number != SENT).unwrap_or(UNKNOWN);
    let mut none = SendAncillaryBuffer::default();
    sendmsg(socket, &[IoSlice::new(&[byte])], &mut none, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one; `None` if the other side has nothing more to send. The other side's failure is one here too.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let count = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (received.next(), count, byte) {
        (Some(descriptor), ..) => Ok(Some(descriptor)),
        (None, 0, _) => Ok(None),
        // It came, but there was no room for it here.
        (None, _, [SENT]) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        (None, _, [number]) => Err(io::Error::from_raw_os_error(number.into())),
    }
}
