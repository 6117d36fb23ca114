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

/// Open files that come together at most: there are fewer old hierarchies of cgroups.
const MOST: usize = 16;

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

/// Sends as much as there is room for of `bytes`, which must not be none, and open files with the first one.
pub(crate) fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives bytes, and the open files that came with one of them: fewer than were sent if there was no room for them.
pub(crate) fn receive_with(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Vec<OwnedFd>>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let cut = received.flags.contains(rustix::net::ReturnFlags::CTRUNC);
    let mut files: Option<Vec<OwnedFd>> = cut.then(Vec::new);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.get_or_insert_default().extend(descriptors);
        }
    }
    Ok((received.bytes, files))
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn open_files_come_with_the_bytes_that_they_were_sent_with() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let plain = [0; 3];
        rustix::io::write(&ours, &plain).unwrap();
        assert_eq!(send_with(&ours, &[1, 2], &[file.as_fd(); 3]).unwrap(), 2);
        assert_eq!(send_with(&ours, &[3], &[file.as_fd()]).unwrap(), 1);
        send_with(&ours, &[4], &[file.as_fd(); 2 * MOST]).unwrap_err();
        drop(ours);
        let mut bytes = Vec::new();
        let mut batches = Vec::new();
        loop {
            let mut buffer = [0; 64];
            let (count, files) = receive_with(&theirs, &mut buffer).unwrap();
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..count]);
            batches.extend(files.map(|files| files.len()));
        }
        assert_eq!((&bytes[..], &batches[..]), (&[0, 0, 0, 1, 2, 3][..], &[3, 1][..]));
    }
}
