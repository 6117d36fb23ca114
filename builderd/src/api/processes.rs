//! `ExecProcess`: the processes of a client's containers, all of them over one stream in each direction.
//!
//! A process is answered by `Started`, its output, `Exit`, and `Done` when nothing more of it comes. Processes end with
//! the stream.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use proto::errdefs::{self, Detail};
use proto::gateway::exec_message::Input as Said;
use proto::gateway::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, ResizeMessage, SignalMessage,
    StartedMessage,
};
use proto::rpc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::build::Build;
use super::{containers, status};
use crate::executor::step::{Attached, Stream as Output, TerminalSize};
use crate::executor::{Conversation, Input};
use crate::solver::{Container, ContainerError, Process};

/// What clients take for an end that is no exit.
const UNKNOWN_EXIT: u32 = 255;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Messages that wait for the client at most.
const WAITING: usize = 16;

type Answers = mpsc::Sender<Result<ExecMessage, Status>>;

/// Serves the messages of one stream until its client ends it.
pub(super) async fn serve(
    build: Arc<Build>,
    mut messages: impl Stream<Item = Result<ExecMessage, Status>> + Unpin,
    answers: Answers,
) {
    let mut processes: HashMap<String, mpsc::Sender<Input>> = HashMap::new();
    let mut running = JoinSet::new();
    let refused = loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) => {
                    let taken = take(&build, message, &mut processes, &mut running, &answers).await;
                    if let Err(refused) = taken {
                        break refused;
                    }
                }
                Some(Err(lost)) => break lost,
                // What still runs may go on speaking.
                None => {
                    while running.join_next().await.is_some() {}
                    return;
                }
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    };
    running.shutdown().await;
    // Nobody may listen any more.
    let _unheard = answers.send(Err(refused)).await;
}

async fn take(
    build: &Build,
    message: ExecMessage,
    processes: &mut HashMap<String, mpsc::Sender<Input>>,
    running: &mut JoinSet<()>,
    answers: &Answers,
) -> Result<(), Status> {
    let id = message.process_id;
    if id.is_empty() {
        return Err(Status::invalid_argument("ProcessID required"));
    }
    let said = match message.input {
        Some(Said::Init(init)) => {
            if processes.contains_key(&id) {
                return Err(Status::already_exists(format!("Process {id} already exists")));
            }
            let container = containers::find(build, &init.container_id)?;
            let (sender, input) = mpsc::channel(WAITING);
            processes.insert(id.clone(), sender);
            let (starting, started) = oneshot::channel();
            let is_first = container.claim();
            running.spawn(run(
                id,
                container,
                is_first,
                init,
                input,
                answers.clone(),
                starting,
            ));
            // The next may join the first. Who joined has output that may wait for the next to start.
            if is_first {
                let _ended = started.await;
            }
            return Ok(());
        }
        Some(Said::File(file)) if file.fd != STDIN => {
            let text = format!("fd {} unavailable to write", file.fd);
            return Err(Status::out_of_range(text));
        }
        Some(Said::File(file)) => file_input(file),
        Some(Said::Resize(size)) => vec![Input::Resize(terminal_size(size))],
        Some(Said::Signal(signal)) => vec![Input::Signal(number_of(&signal)?)],
        _ => return Err(Status::invalid_argument("unexpected message for a process")),
    };
    let process = processes.get(&id);
    let process = process.ok_or_else(|| Status::not_found(format!("IO for process {id:?} not found")))?;
    for said in said {
        // It may have ended meanwhile.
        let _ended = process.send(said).await;
    }
    Ok(())
}

/// One process from start to end.
async fn run(
    id: String,
    container: Arc<Container>,
    is_first: bool,
    init: InitMessage,
    input: mpsc::Receiver<Input>,
    answers: Answers,
    starting: oneshot::Sender<()>,
) {
    let wanted = |fd: u32| init.fds.contains(&fd);
    let (has_stdout, has_stderr) = (wanted(STDOUT), wanted(STDERR));
    let process = Process {
        attached: Attached {
            input: wanted(STDIN),
            terminal: init.tty,
        },
        meta: init.meta.unwrap_or_default(),
        security: init.security,
        secret_env: init.secretenv,
    };
    let say = async |said: Said| {
        let message = ExecMessage {
            process_id: id.clone(),
            input: Some(said),
        };
        // A client that is gone ends this task from outside.
        let _unheard = answers.send(Ok(message)).await;
    };
    let file = |fd: u32, eof: bool, data: Bytes| Said::File(FdMessage { fd, eof, data });
    let (output, mut written) = mpsc::channel::<(Output, Bytes)>(WAITING);
    let (starts, started) = oneshot::channel();
    let conversation = Conversation {
        input,
        output,
        started: Some(starts),
    };
    let speaking = async {
        // Also said of a process that never started: clients wait for it before they listen for its end.
        if is_first {
            let _failed = started.await;
        }
        say(Said::Started(StartedMessage {})).await;
        let _nobody = starting.send(());
        while let Some((stream, bytes)) = written.recv().await {
            match stream {
                Output::Stdout if has_stdout => say(file(STDOUT, false, bytes)).await,
                Output::Stderr if has_stderr => say(file(STDERR, false, bytes)).await,
                _ => {}
            }
        }
        for fd in [STDOUT, STDERR].into_iter().filter(|fd| wanted(*fd)) {
            say(file(fd, true, Bytes::new())).await;
        }
    };
    let (ended, ()) = tokio::join!(container.run(process, is_first, conversation), speaking);
    // The container is not held while somebody is slow to hear of this.
    drop(container);
    say(Said::Exit(exit(ended))).await;
    say(Said::Done(DoneMessage {})).await;
}

fn exit(ended: Result<(), ContainerError>) -> ExitMessage {
    let Err(error) = ended else {
        return ExitMessage::default();
    };
    let (code, status) = match &error {
        ContainerError::Exit(code) => {
            let code = code.unsigned_abs();
            let detail = Detail::Exit(errdefs::Exit { code });
            (code, errdefs::status(Code::Unknown, error.to_string(), &[detail]))
        }
        ContainerError::Canceled => (UNKNOWN_EXIT, status::canceled()),
        _ => (UNKNOWN_EXIT, status::of_failure(&error)),
    };
    let carried = rpc::Status::decode(status.details()).unwrap_or_default();
    ExitMessage {
        code,
        error: Some(rpc::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: carried.details,
        }),
    }
}

fn file_input(file: FdMessage) -> Vec<Input> {
    let mut said = Vec::new();
    if !file.data.is_empty() {
        said.push(Input::Bytes(file.data));
    }
    if file.eof {
        said.push(Input::End);
    }
    said
}

fn terminal_size(size: ResizeMessage) -> TerminalSize {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    TerminalSize {
        rows: number(size.rows),
        columns: number(size.cols),
    }
}

/// Signals go by name, with or without `SIG`.
fn number_of(signal: &SignalMessage) -> Result<i32, Status> {
    let name = signal.name.strip_prefix("SIG").unwrap_or(&signal.name);
    let found = format!("SIG{name}").parse::<nix::sys::signal::Signal>();
    found
        .map(|signal| signal as i32)
        .map_err(|_| Status::invalid_argument(format!("Unknown signal {}", signal.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_their_names() {
        let number = |name: &str| number_of(&SignalMessage { name: name.into() }).ok();
        assert_eq!(number("SIGKILL"), Some(9));
        assert_eq!(number("HUP"), Some(1));
        assert_eq!(number("SIGNOTHING"), None);
    }

    #[test]
    fn an_exit_carries_its_code_as_a_detail() {
        let message = exit(Err(ContainerError::Exit(99)));
        assert_eq!(message.code, 99);
        let error = message.error.unwrap();
        assert_eq!(error.message, "exit code: 99");
        let details: Vec<_> = error.details.iter().filter_map(Detail::from_any).collect();
        assert_eq!(details, [Detail::Exit(errdefs::Exit { code: 99 })]);
        assert_eq!(exit(Ok(())), ExitMessage::default());
    }
}
