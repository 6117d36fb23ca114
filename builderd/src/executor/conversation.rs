//! Processes that somebody talks with: their input, signals and terminal, beside what every step has.
//!
//! The first process of a container is a step of its own; others join it. What a side does not read holds up nobody
//! else: both directions have a window, which the other end opens again.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::protocol::{self, Request};
use super::sandbox::{Ear, Event, Held, KILL_DEADLINE, Outgoing, Sandbox, cgroup_of};
use super::step::{Attached, ExitStatus, Step, StepError, Stream, TerminalSize};

/// How much input one frame carries at most.
const INPUT_CHUNK: usize = 32 << 10;

/// What a process is started as.
#[derive(Debug)]
pub enum Launch {
    First {
        step: Box<Step>,
        attached: Attached,
    },
    /// Beside the first process of a container, whose number and step these are. `step` says what is run; the mounts
    /// and names are those of the container.
    Beside {
        first: u64,
        container: Box<Step>,
        step: Box<Step>,
        attached: Attached,
    },
}

impl Launch {
    /// The step whose sandbox it runs in.
    pub(super) fn home(&self) -> &Step {
        match self {
            Self::First { step, .. } => step,
            Self::Beside { container, .. } => container,
        }
    }
}

/// What is sent to a process.
#[derive(Debug)]
pub enum Input {
    Bytes(Bytes),
    /// There is no more to read.
    End,
    Resize(TerminalSize),
    Signal(i32),
}

/// The other side of a process.
#[derive(Debug)]
pub struct Conversation {
    /// Closed, it says nothing more; the process goes on.
    pub input: mpsc::Receiver<Input>,
    pub output: mpsc::Sender<(Stream, Bytes)>,
    /// Gets the number by which others join, once the program runs.
    pub started: Option<oneshot::Sender<u64>>,
}

impl Sandbox {
    /// Runs one process to its end. When this returns, also after a cancellation, it is gone; and if it was the first,
    /// all that joined it are.
    pub(super) async fn converse(
        &self,
        launch: Launch,
        mut conversation: Conversation,
        cancel: &CancellationToken,
    ) -> Result<ExitStatus, StepError> {
        let id = self.next_id();
        let (request, cgroup) = match launch {
            Launch::First { step, attached } => {
                self.note_security(step.security);
                let cgroup = cgroup_of(&step);
                let request = Request::Start {
                    id,
                    step,
                    attached: Some(attached),
                };
                (request, cgroup)
            }
            Launch::Beside {
                first,
                step,
                attached,
                ..
            } => {
                self.note_security(step.security);
                let cgroup = cgroup_of(&step);
                let request = Request::Join {
                    id,
                    within: first,
                    step,
                    attached,
                };
                (request, cgroup)
            }
        };
        let frame = protocol::encode(&request).map_err(StepError::Encode)?;
        let held = cgroup.clone().map(|cgroup| cgroup as Held);
        let request = Outgoing { frame, cgroup };
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut running = self.start(id, request, Ear::Attached(sender), held).await?;
        let ended = self.exchange(id, &mut conversation, &mut events, cancel).await;
        if let Some(ended) = ended {
            running.over = true;
            return ended;
        }
        running.kill();
        running.over = true;
        let gone = async {
            while let Some(event) = events.recv().await {
                if matches!(event, Event::Exit(_)) {
                    break;
                }
            }
        };
        if tokio::time::timeout(KILL_DEADLINE, gone).await.is_err() {
            self.give_up();
        }
        Err(StepError::Cancelled)
    }

    /// Carries words in both directions until the process ends; `None` if it was cancelled before.
    async fn exchange(
        &self,
        id: u64,
        conversation: &mut Conversation,
        events: &mut mpsc::UnboundedReceiver<Event>,
        cancel: &CancellationToken,
    ) -> Option<Result<ExitStatus, StepError>> {
        let Conversation {
            input,
            output,
            started,
        } = conversation;
        let mut said: VecDeque<(Stream, Bytes)> = VecDeque::new();
        let mut on_its_way: usize = 0;
        let mut listening = true;
        let mut ended = None;
        loop {
            if said.is_empty()
                && let Some(ended) = ended.take()
            {
                return Some(ended);
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                permit = output.reserve(), if !said.is_empty() => {
                    let Some((stream, bytes)) = said.pop_front() else { continue };
                    let count = protocol::weight(bytes.len());
                    // Nobody listening is no reason for the process to wait.
                    if let Ok(permit) = permit {
                        permit.send((stream, bytes));
                    }
                    self.tell(&Request::Consumed { id, count }).await;
                }
                event = events.recv(), if ended.is_none() => match event {
                    Some(Event::Output(stream, bytes)) => said.push_back((stream, bytes)),
                    Some(Event::Started) => tell_started(started, id),
                    Some(Event::Taken(count)) => on_its_way = on_its_way.saturating_sub(count),
                    Some(Event::Exit(result)) => {
                        if result.is_ok() {
                            tell_started(started, id);
                        }
                        ended = Some(result.map_err(StepError::Start));
                    }
                    None => ended = Some(Err(StepError::SandboxLost)),
                },
                said_to_it = input.recv(),
                    if listening && ended.is_none() && on_its_way < protocol::WINDOW => match said_to_it {
                    Some(Input::Bytes(bytes)) => {
                        on_its_way += bytes.len();
                        for chunk in bytes.chunks(INPUT_CHUNK) {
                            self.send(protocol::encode_input(id, chunk)).await;
                        }
                    }
                    Some(Input::End) => self.send(protocol::encode_input(id, &[])).await,
                    Some(Input::Resize(size)) => self.tell(&Request::Resize { id, size }).await,
                    Some(Input::Signal(signal)) => self.tell(&Request::Signal { id, signal }).await,
                    None => listening = false,
                },
            }
        }
    }

    async fn tell(&self, request: &Request) {
        if let Ok(frame) = protocol::encode(request) {
            self.send(frame).await;
        }
    }

    async fn send(&self, frame: Vec<u8>) {
        // A sandbox that is gone says so by the end of its events.
        let _gone = self.request(frame).await;
    }
}

fn tell_started(started: &mut Option<oneshot::Sender<u64>>, id: u64) {
    if let Some(started) = started.take() {
        // Who does not wait for it need not know.
        let _unheard = started.send(id);
    }
}
