//! The daemon's end of a step whose only way out is the daemon: the step's listener, and sockets of the network that the
//! step would have had without.
//!
//! Both are open files that the runner hands over. A socket belongs to the network in which it was made, wherever it is
//! used, so the daemon needs no rights over that network, and nothing has to copy bytes between the two.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::Mutex;

use super::descriptors;
use super::step::{OUTLET_IPV4, OUTLET_IPV6};

/// Name of the socket in its folder.
const SOCKET: &str = "outlet";

/// How long a runner may take to make a socket, which it does between two of its other duties.
const HANDOVER: Duration = Duration::from_secs(30);

/// Waits for the runner that starts the step.
#[derive(Debug)]
pub struct Outlet {
    listener: UnixListener,
    path: PathBuf,
}

/// The network outside of a step.
#[derive(Debug)]
pub struct Outside(Mutex<Asked>);

#[derive(Debug)]
struct Asked {
    stream: UnixStream,
    /// Whoever asked last did not wait for the answer, which still comes.
    owed: bool,
}

impl Outlet {
    /// Makes a socket in `folder`, which must be private: who can open it can pose as the step.
    pub fn listen(folder: &Path) -> io::Result<Self> {
        // The folder by its descriptor: its whole path may be longer than a socket address.
        let private = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(folder)?;
        let address = format!("/proc/self/fd/{}/{SOCKET}", private.as_raw_fd());
        Ok(Self {
            listener: UnixListener::bind(address)?,
            path: folder.join(SOCKET),
        })
    }

    /// Where the runner finds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the step connects to, and what is outside of it; once it was started.
    pub async fn open(self) -> io::Result<(TcpListener, Outside)> {
        let (stream, _) = self.listener.accept().await?;
        let listener = std::net::TcpListener::from(receive(&stream).await?);
        listener.set_nonblocking(true)?;
        Ok((TcpListener::from_std(listener)?, Outside::new(stream)))
    }
}

impl Outside {
    fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(Asked { stream, owed: false }))
    }

    /// Connects to an address there.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let kind = match address {
            SocketAddr::V4(_) => OUTLET_IPV4,
            SocketAddr::V6(_) => OUTLET_IPV6,
        };
        let socket = {
            // One question at a time: answers carry no names.
            let mut asked = self.0.lock().await;
            let answer = tokio::time::timeout(HANDOVER, asked.ask(kind)).await;
            answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        };
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket).connect(address).await
    }
}

impl Asked {
    /// May be given up at any point, and be called again.
    async fn ask(&mut self, kind: u8) -> io::Result<OwnedFd> {
        if self.owed {
            let _too_late = self.answer().await;
        }
        self.stream.write_all(&[kind]).await?;
        self.owed = true;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<OwnedFd> {
        let answer = receive(&self.stream).await;
        self.owed = false;
        answer
    }
}

async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let received = stream
        .async_io(Interest::READABLE, || descriptors::receive(stream))
        .await?;
    received.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_cannot_be_had_is_no_end() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let outside = Outside::new(UnixStream::from_std(ours).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Given up before its answer comes.
        let given_up = tokio::time::timeout(Duration::from_millis(10), outside.connect(address));
        assert!(given_up.await.is_err());
        std::thread::spawn(move || {
            let absent = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
            let file = std::fs::File::open("/dev/null").unwrap();
            for number in 0..3 {
                theirs.read_exact(&mut [0]).unwrap();
                match number {
                    0 => descriptors::send(theirs.as_fd(), file.as_fd()).unwrap(),
                    1 => descriptors::send_failure(theirs.as_fd(), &absent).unwrap(),
                    _ => {
                        let kind = rustix::net::SocketType::STREAM;
                        let socket =
                            rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
                        descriptors::send(theirs.as_fd(), socket.as_fd()).unwrap();
                    }
                }
            }
        });
        let refused = outside.connect("[::1]:1".parse().unwrap()).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAFNOSUPPORT));
        outside.connect(address).await.unwrap();
    }
}
