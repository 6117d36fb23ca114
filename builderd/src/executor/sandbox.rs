//! The daemon's end of one sandbox: many steps at once over one connection to its runner.
//!
//! One task reads and hands each step its events through a bounded channel, one task writes. A step whose output is
//! not consumed holds up the others of its sandbox, so `run` never waits for anything but its events. Dropping the
//! sandbox closes the connection, upon which the runner and everything in it ends.

use std::any::Any;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ExecutorError;
use super::cgroup::{Cgroup, Membership};
use super::descriptors;
use super::protocol::{self, Frame, Frames, Reply, Request};
use super::step::{ExitStatus, SecurityMode, Step, StepError, Stream};

/// How long a killed step may take to disappear before its sandbox is given up.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How often a sandbox that nobody uses is looked at while its last steps die.
const SETTLING: Duration = Duration::from_millis(10);

/// How long a sandbox may take to start, and then to greet.
pub(super) const READY_DEADLINE: Duration = Duration::from_secs(30);

pub(super) enum Event {
    Output(Stream, Bytes),
    /// Of attached steps only, as is the next.
    Started,
    Taken(usize),
    Exit(Result<ExitStatus, String>),
}

/// What a step has to itself while it runs, as the turn at a locked cache: let go when none of its processes is left.
pub type Held = Arc<dyn Any + Send + Sync>;

/// Where the events of a step go.
#[derive(Clone)]
pub(super) enum Ear {
    Step(mpsc::Sender<Event>),
    /// Of an attached step, which the runner itself holds back.
    Attached(mpsc::UnboundedSender<Event>),
    /// Nobody listens any more: the step was killed, and this is let go once it is gone.
    Dying {
        _held: Option<Held>,
    },
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ear")
    }
}

type Steps = Arc<Mutex<HashMap<u64, Ear>>>;

#[derive(Debug)]
pub struct Sandbox {
    steps: Steps,
    next: AtomicU64,
    requests: mpsc::Sender<Outgoing>,
    broken: Arc<AtomicBool>,
    ran_insecure: AtomicBool,
    /// The reader and the writer; they end with the sandbox.
    _tasks: JoinSet<()>,
    _keeper: Keeper,
}

/// What holds the sandbox's outside alive: dropped after the connection is closed.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop only")]
pub(super) enum Keeper {
    Child(tokio::process::Child, tempfile::TempDir),
    Container(super::docker::Container, tempfile::TempDir),
}

impl Sandbox {
    /// Waits for the runner's greeting and takes the connection over.
    pub(super) async fn connect(stream: UnixStream, keeper: Keeper) -> Result<Self, ExecutorError> {
        let (mut reader, mut writer) = stream.into_split();
        let mut frames = Frames::default();
        greeted_within(READY_DEADLINE, &mut reader, &mut frames).await?;
        let steps = Steps::default();
        let broken = Arc::new(AtomicBool::new(false));
        let (requests, mut outgoing) = mpsc::channel::<Outgoing>(64);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (steps, broken) = (Arc::clone(&steps), Arc::clone(&broken));
            async move {
                if let Err(error) = deliver(&mut reader, &mut frames, &steps).await {
                    tracing::warn!(%error, "lost a sandbox");
                }
                broken.store(true, Ordering::Release);
                // Every waiting step sees its channel close.
                lock(&steps).clear();
            }
        });
        tasks.spawn(async move {
            while let Some(outgoing) = outgoing.recv().await {
                if send(&mut writer, &outgoing).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            steps,
            next: AtomicU64::new(1),
            requests,
            broken,
            ran_insecure: AtomicBool::new(false),
            _tasks: tasks,
            _keeper: keeper,
        })
    }

    /// Runs one step to its end. When this returns, also after a cancellation, no process of the step is left.
    pub async fn run(
        &self,
        step: Step,
        held: Held,
        mut output: impl FnMut(Stream, Bytes) + Send,
        cancel: &CancellationToken,
    ) -> Result<ExitStatus, StepError> {
        self.note_security(step.security);
        let id = self.next_id();
        let cgroup = cgroup_of(&step);
        // What is held may be needed until the last process is gone, as is the cgroup that they are in.
        let held = match &cgroup {
            Some(cgroup) => Arc::new((held, Arc::clone(cgroup))),
            None => held,
        };
        let start = protocol::encode(&Request::Start {
            id,
            step: Box::new(step),
            attached: None,
        })
        .map_err(StepError::Encode)?;
        let (sender, mut events) = mpsc::channel(32);
        let mut running = self
            .start(
                id,
                Outgoing { frame: start, cgroup },
                Ear::Step(sender),
                Some(held),
            )
            .await?;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = cancel.cancelled() => break,
            };
            match event {
                Some(Event::Output(stream, bytes)) => output(stream, bytes),
                Some(Event::Started | Event::Taken(_)) => {}
                Some(Event::Exit(result)) => {
                    running.over = true;
                    return result.map_err(StepError::Start);
                }
                None => {
                    running.over = true;
                    return Err(StepError::SandboxLost);
                }
            }
        }
        running.kill();
        running.over = true;
        let gone = async { while let Some(Event::Output(..)) = events.recv().await {} };
        if tokio::time::timeout(KILL_DEADLINE, gone).await.is_err() {
            self.give_up();
        }
        Err(StepError::Cancelled)
    }

    /// Sends a request that starts something, whose events `ear` gets.
    pub(super) async fn start(
        &self,
        id: u64,
        request: Outgoing,
        ear: Ear,
        held: Option<Held>,
    ) -> Result<Running<'_>, StepError> {
        if request.frame.len() > protocol::MAX_FRAME {
            return Err(StepError::Start(format!(
                "its description has {} bytes",
                request.frame.len()
            )));
        }
        lock(&self.steps).insert(id, ear);
        let running = Running {
            sandbox: self,
            id,
            over: false,
            held,
        };
        if self.broken.load(Ordering::Acquire) || self.requests.send(request).await.is_err() {
            return Err(StepError::SandboxLost);
        }
        Ok(running)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn request(&self, frame: Vec<u8>) -> Result<(), StepError> {
        self.requests
            .send(frame.into())
            .await
            .map_err(|_| StepError::SandboxLost)
    }

    pub(super) fn note_security(&self, security: SecurityMode) {
        if security == SecurityMode::Insecure {
            self.ran_insecure.store(true, Ordering::Release);
        }
    }

    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(super) fn ran_insecure(&self) -> bool {
        self.ran_insecure.load(Ordering::Acquire)
    }

    /// Returns when nothing runs in it any more; a sandbox whose steps do not die in time is given up.
    pub(super) async fn settled(&self) {
        let settled = async {
            while !lock(&self.steps).is_empty() && !self.broken.load(Ordering::Acquire) {
                tokio::time::sleep(SETTLING).await;
            }
        };
        if tokio::time::timeout(KILL_DEADLINE, settled).await.is_err() {
            self.give_up();
        }
    }

    /// Whether it may serve another build: its runner answers and nothing runs in it.
    pub(super) fn is_idle(&self) -> bool {
        !self.broken.load(Ordering::Acquire) && lock(&self.steps).is_empty()
    }
}

/// A frame to the runner, and the cgroup whose entrances go with it.
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    pub(super) cgroup: Option<Arc<Cgroup>>,
}

impl From<Vec<u8>> for Outgoing {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame, cgroup: None }
    }
}

pub(super) fn cgroup_of(step: &Step) -> Option<Arc<Cgroup>> {
    step.cgroup.as_ref().and_then(Membership::cgroup)
}

async fn send(writer: &mut OwnedWriteHalf, outgoing: &Outgoing) -> std::io::Result<()> {
    let mut frame = &outgoing.frame[..];
    if let Some(cgroup) = &outgoing.cgroup {
        let entrances: Vec<BorrowedFd<'_>> = cgroup.entrances().iter().map(AsFd::as_fd).collect();
        let stream: &UnixStream = writer.as_ref();
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                descriptors::send_with(stream, frame, &entrances)
            })
            .await?;
        frame = &frame[sent..];
    }
    writer.write_all(frame).await
}

/// A step between start and end: if the caller stops waiting, the step is killed.
pub(super) struct Running<'a> {
    sandbox: &'a Sandbox,
    id: u64,
    pub(super) over: bool,
    held: Option<Held>,
}

impl Running<'_> {
    pub(super) fn kill(&self) {
        let sent = protocol::encode(&Request::Kill { id: self.id })
            .ok()
            .is_some_and(|frame| self.sandbox.requests.try_send(frame.into()).is_ok());
        if !sent {
            // The step lives on unseen: never reuse this sandbox, its end will take the step along.
            self.sandbox.broken.store(true, Ordering::Release);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.over {
            lock(&self.sandbox.steps).remove(&self.id);
            return;
        }
        // Before it is killed: its end must find this here.
        if let Some(ear) = lock(&self.sandbox.steps).get_mut(&self.id) {
            *ear = Ear::Dying {
                _held: self.held.take(),
            };
        }
        self.kill();
    }
}

async fn greeted_within(
    deadline: Duration,
    reader: &mut OwnedReadHalf,
    frames: &mut Frames,
) -> Result<(), ExecutorError> {
    tokio::time::timeout(deadline, greet(reader, frames))
        .await
        .unwrap_or(Err(ExecutorError::Late))
}

async fn greet(reader: &mut OwnedReadHalf, frames: &mut Frames) -> Result<(), ExecutorError> {
    loop {
        match frames.next_reply().map_err(lost)? {
            Some(Frame::Reply(Reply::Hello {
                version: protocol::VERSION,
            })) => return Ok(()),
            Some(Frame::Reply(Reply::Hello { version })) => return Err(ExecutorError::Version(version)),
            Some(Frame::Reply(Reply::Failed { reason })) => return Err(ExecutorError::Prepare(reason)),
            Some(_) => return Err(ExecutorError::Lost("it spoke before its greeting".into())),
            None => {}
        }
        if reader.read_buf(frames.buffer()).await.map_err(lost)? == 0 {
            return Err(ExecutorError::Lost("it closed the connection".into()));
        }
    }
}

async fn deliver(
    reader: &mut OwnedReadHalf,
    frames: &mut Frames,
    steps: &Steps,
) -> Result<(), ExecutorError> {
    loop {
        while let Some(frame) = frames.next_reply().map_err(lost)? {
            let (id, event) = match frame {
                Frame::Output { id, stream, bytes } => {
                    (id, Event::Output(stream, Bytes::copy_from_slice(bytes)))
                }
                Frame::Reply(Reply::Started { id }) => (id, Event::Started),
                Frame::Reply(Reply::Taken { id, count }) => (id, Event::Taken(count)),
                Frame::Reply(Reply::Exit { id, result }) => (id, Event::Exit(result)),
                Frame::Reply(Reply::Failed { reason }) => return Err(ExecutorError::Prepare(reason)),
                Frame::Reply(Reply::Hello { .. }) => continue,
            };
            let receiver = match event {
                Event::Exit(_) => lock(steps).remove(&id),
                _ => lock(steps).get(&id).cloned(),
            };
            match receiver {
                Some(Ear::Step(receiver)) => drop(receiver.send(event).await),
                Some(Ear::Attached(receiver)) => drop(receiver.send(event)),
                // A caller that went away has already had its step killed.
                Some(Ear::Dying { .. }) | None => {}
            }
        }
        frames.buffer().reserve(protocol::OUTPUT_CHUNK);
        if reader.read_buf(frames.buffer()).await.map_err(lost)? == 0 {
            return Err(ExecutorError::Lost("it closed the connection".into()));
        }
    }
}

fn lost(error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Lost(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runner_that_never_greets_is_given_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, _writer) = ours.into_split();
        let mut frames = Frames::default();
        let mute = greeted_within(Duration::from_millis(20), &mut reader, &mut frames).await;
        assert!(matches!(mute, Err(ExecutorError::Late)), "{mute:?}");
        drop(theirs);
        let gone = greeted_within(Duration::from_secs(60), &mut reader, &mut frames).await;
        assert!(matches!(gone, Err(ExecutorError::Lost(_))), "{gone:?}");
    }
}
