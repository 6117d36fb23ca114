//! The runner: `builderd` in its other role, the process inside a sandbox that starts the steps.
//!
//! It is small and single-threaded on purpose: a step is a fork of it, and a fork costs what its memory map costs. One
//! poll loop moves requests in and output out. Its end is the end of everything it started: it is PID 1 of its PID
//! namespace, and it ends when the daemon closes the connection.

mod capabilities;
mod cgroups;
mod devices;
mod files;
mod housing;
mod identity;
mod launch;
mod limits;
mod mounting;
mod network;
mod overlay;
mod proc_files;
mod program;
mod seccomp;
mod sys;
mod talk;
mod trust;
mod volumes;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::process::Signal;

use super::Resolver;
use super::cgroup::Membership;
use super::descriptors;
use super::protocol::{self, Frames, Reply, Request};
use super::step::Stream;
use devices::Nodes;
use housing::Housing;
use launch::{Place, Running};
use mounting::SetupError;

/// Arguments of `builderd runner`; only the daemon calls it.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// The state folder: layers, caches and sockets that steps refer to are below it.
    #[arg(long)]
    state: PathBuf,
    /// An empty folder of this sandbox, below the state folder.
    #[arg(long)]
    scratch: PathBuf,
    /// Connect to this socket, by its name in the scratch folder, instead of talking over standard input.
    #[arg(long)]
    connect: Option<PathBuf>,
    /// Enter a new PID namespace first; a container engine has done so already.
    #[arg(long)]
    own_namespaces: bool,
    #[command(flatten)]
    resolver: Resolver,
}

/// The whole life of a runner.
pub fn run(arguments: &Arguments) -> ExitCode {
    match connect(arguments) {
        Ok(stream) if arguments.own_namespaces => match sys::enter_pid_namespace() {
            Ok(sys::Side::Inside) => serve(arguments, stream),
            Ok(sys::Side::Outside(code)) => code,
            Err(error) => fail(stream, format!("cannot make a PID namespace: {error}")),
        },
        Ok(stream) => serve(arguments, stream),
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "runner: cannot reach the daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn connect(arguments: &Arguments) -> io::Result<UnixStream> {
    match &arguments.connect {
        Some(path) => {
            // The whole path may be longer than a socket address.
            std::env::set_current_dir(&arguments.scratch)?;
            UnixStream::connect(path)
        }
        // A duplicate above 2: standard streams are replaced in every step.
        None => Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)),
    }
}

fn serve(arguments: &Arguments, stream: UnixStream) -> ExitCode {
    // Among its own namespaces is none that would keep the machine's devices from steps; containers have a cgroup for it.
    let nodes = if arguments.own_namespaces {
        Nodes::OnlyInDev
    } else {
        Nodes::Anywhere
    };
    let housing = match Housing::prepare(&arguments.state, &arguments.scratch, nodes, &arguments.resolver) {
        Ok(housing) => housing,
        Err(error) => return fail(stream, error.text()),
    };
    let mut runner = Runner {
        stream,
        frames: Frames::default(),
        received: VecDeque::new(),
        housing,
        steps: BTreeMap::new(),
    };
    match runner.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(runner.stream, error.to_string()),
    }
}

fn fail(mut stream: UnixStream, reason: String) -> ExitCode {
    if let Ok(frame) = protocol::encode(&Reply::Failed { reason }) {
        let _unheard = stream.write_all(&frame);
    }
    ExitCode::FAILURE
}

struct Runner {
    stream: UnixStream,
    frames: Frames,
    /// Open files that came with requests which are still to be read to their end.
    received: VecDeque<Vec<OwnedFd>>,
    housing: Housing,
    steps: BTreeMap<u64, Running>,
}

/// What one entry of the poll set stands for.
#[derive(Clone, Copy)]
enum Waited {
    Daemon,
    Output(u64, Stream),
    Report(u64),
    Terminal(u64),
    Input(u64),
    /// The daemon wants a socket for a step.
    Link(u64),
    End(u64),
}

impl Runner {
    fn serve(&mut self) -> io::Result<()> {
        self.send(&Reply::Hello {
            version: protocol::VERSION,
        })?;
        let mut chunk = vec![0; protocol::OUTPUT_CHUNK];
        loop {
            for waited in self.wait()? {
                match waited {
                    Waited::Daemon => {
                        if !self.receive()? {
                            return Ok(());
                        }
                    }
                    Waited::Output(id, stream) => self.forward(id, stream, &mut chunk)?,
                    Waited::Report(id) => self.hear(id)?,
                    Waited::Terminal(id) => self.accept_terminal(id)?,
                    Waited::Input(id) => self.pass_on(id)?,
                    Waited::Link(id) => self.connect(id),
                    Waited::End(id) => self.finish(id, &mut chunk)?,
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Waited>> {
        let mut waited = vec![Waited::Daemon];
        let mut set = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        for (&id, step) in &self.steps {
            let may_speak = step.talk.as_ref().is_none_or(talk::Talk::may_speak);
            for (stream, pipe) in [(Stream::Stdout, &step.stdout), (Stream::Stderr, &step.stderr)] {
                if let Some(pipe) = pipe.as_ref().filter(|_| may_speak) {
                    waited.push(Waited::Output(id, stream));
                    set.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                }
            }
            if let Some(report) = &step.report {
                waited.push(Waited::Report(id));
                set.push(PollFd::new(report.as_fd(), PollFlags::POLLIN));
            }
            if let Some(talk) = &step.talk {
                if let Some(handover) = talk.handover() {
                    waited.push(Waited::Terminal(id));
                    set.push(PollFd::new(handover, PollFlags::POLLIN));
                }
                if let Some(input) = talk.wanting() {
                    waited.push(Waited::Input(id));
                    set.push(PollFd::new(input, PollFlags::POLLOUT));
                }
            }
            if let Some(link) = &step.link {
                waited.push(Waited::Link(id));
                set.push(PollFd::new(link.socket(), PollFlags::POLLIN));
            }
            waited.push(Waited::End(id));
            set.push(PollFd::new(step.process.as_fd(), PollFlags::POLLIN));
        }
        loop {
            match nix::poll::poll(&mut set, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        Ok(waited
            .into_iter()
            .zip(&set)
            .filter(|(_, fd)| fd.any().unwrap_or(true))
            .map(|(waited, _)| waited)
            .collect())
    }

    /// Takes in what the daemon sent; false when it closed the connection.
    fn receive(&mut self) -> io::Result<bool> {
        let buffer = self.frames.buffer();
        let old = buffer.len();
        buffer.resize(old + protocol::OUTPUT_CHUNK, 0);
        let (count, files) = descriptors::receive_with(&self.stream, &mut buffer[old..])?;
        buffer.truncate(old + count);
        self.received.extend(files);
        if count == 0 {
            return Ok(false);
        }
        while let Some(request) = self.frames.next_request().map_err(io::Error::other)? {
            match request {
                Request::Start { id, step, attached } => {
                    let started = entrances(&mut self.received, step.cgroup.as_ref()).and_then(|entrances| {
                        launch::start(&self.housing, &step, Place::Own, attached, &entrances)
                    });
                    self.note(id, started)?;
                }
                Request::Join {
                    id,
                    within,
                    step,
                    attached,
                } => {
                    let entrances = entrances(&mut self.received, step.cgroup.as_ref());
                    let started = match self.steps.get(&within) {
                        Some(first) => entrances.and_then(|entrances| {
                            let place = Place::Beside(first);
                            launch::start(&self.housing, &step, place, Some(attached), &entrances)
                        }),
                        None => Err(SetupError::new(
                            "joining the container",
                            io::Error::other("its first process has ended"),
                        )),
                    };
                    self.note(id, started)?;
                }
                Request::Signal { id, signal } => {
                    if let (Some(step), Some(signal)) = (self.steps.get(&id), Signal::from_named_raw(signal))
                    {
                        // It may have ended by itself meanwhile.
                        let _gone = rustix::process::pidfd_send_signal(&step.process, signal);
                    }
                }
                Request::Resize { id, size } => {
                    if let Some(talk) = self.steps.get_mut(&id).and_then(|step| step.talk.as_mut()) {
                        // A terminal whose program ended has no size.
                        let _gone = talk.resize(size);
                    }
                }
                Request::Consumed { id, count } => {
                    if let Some(talk) = self.steps.get_mut(&id).and_then(|step| step.talk.as_mut()) {
                        talk.was_heard(count);
                    }
                }
                Request::Input { id, bytes } => {
                    if let Some(talk) = self.steps.get_mut(&id).and_then(|step| step.talk.as_mut()) {
                        talk.feed(&bytes);
                    }
                    self.pass_on(id)?;
                }
                Request::Kill { id } => {
                    if let Some(step) = self.steps.get(&id) {
                        // It may have ended by itself meanwhile.
                        let _gone = rustix::process::pidfd_send_signal(&step.process, Signal::KILL);
                    }
                }
            }
        }
        Ok(true)
    }

    fn note(&mut self, id: u64, started: Result<Running, SetupError>) -> io::Result<()> {
        match started {
            Ok(running) => {
                self.steps.insert(id, running);
                Ok(())
            }
            Err(error) => self.send(&Reply::Exit {
                id,
                result: Err(error.text()),
            }),
        }
    }

    /// Takes in what a step reports, and tells when the program of an attached one runs.
    fn hear(&mut self, id: u64) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&id) else {
            return Ok(());
        };
        step.take_report();
        if step.report.is_some() || !step.runs() {
            return Ok(());
        }
        match &mut step.talk {
            Some(talk) if !talk.started => talk.started = true,
            _ => return Ok(()),
        }
        self.send(&Reply::Started { id })
    }

    /// Gives the daemon what it needs to connect a step to the sandbox's network.
    fn connect(&mut self, id: u64) {
        if let Some(step) = self.steps.get_mut(&id)
            && let Some(link) = &step.link
        {
            // Without an answer the daemon's connection fails, and the step is told so.
            match link.answer() {
                Ok(true) => {}
                Ok(false) | Err(_) => step.link = None,
            }
        }
    }

    fn accept_terminal(&mut self, id: u64) -> io::Result<()> {
        if let Some(step) = self.steps.get_mut(&id)
            && let Some(talk) = &mut step.talk
        {
            // Without one the child has failed, and says so itself.
            step.stdout = talk.accept().unwrap_or_default();
        }
        self.pass_on(id)
    }

    fn pass_on(&mut self, id: u64) -> io::Result<()> {
        let talk = self.steps.get_mut(&id).and_then(|step| step.talk.as_mut());
        match talk.map(talk::Talk::flush) {
            Some(count @ 1..) => self.send(&Reply::Taken { id, count }),
            _ => Ok(()),
        }
    }

    fn forward(&mut self, id: u64, stream: Stream, chunk: &mut [u8]) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&id) else {
            return Ok(());
        };
        let pipe = step.pipe(stream);
        match pipe.as_ref().map(|pipe| read(pipe.as_fd(), chunk)) {
            Some(Ok(0)) => *pipe = None,
            Some(Ok(count)) => {
                if let Some(talk) = &mut step.talk {
                    talk.spoke(count);
                }
                self.stream
                    .write_all(&protocol::encode_output(id, stream, &chunk[..count]))?
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(_)) => *pipe = None,
            None => {}
        }
        Ok(())
    }

    /// PID 1 of the step is dead, and with it every process of the step: what is in the pipes now is all there is.
    fn finish(&mut self, id: u64, chunk: &mut [u8]) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while let Some(step) = self.steps.get_mut(&id)
                && let Some(pipe) = step.pipe(stream)
                && let Ok(count @ 1..) = read(pipe.as_fd(), chunk)
            {
                self.stream
                    .write_all(&protocol::encode_output(id, stream, &chunk[..count]))?;
            }
        }
        if let Some(mut step) = self.steps.remove(&id) {
            let mounts = step.take_mounts();
            let result = step.finish();
            self.send(&Reply::Exit { id, result })?;
            drop(mounts);
        }
        Ok(())
    }

    fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.stream.write_all(&protocol::encode(reply)?)
    }
}

/// The open files that came with a request, through which the step enters its cgroup.
fn entrances(
    received: &mut VecDeque<Vec<OwnedFd>>,
    membership: Option<&Membership>,
) -> Result<Vec<OwnedFd>, SetupError> {
    let Some(membership) = membership else {
        return Ok(Vec::new());
    };
    let files = received.pop_front().unwrap_or_default();
    if files.len() == membership.entrances {
        return Ok(files);
    }
    // They came, but there was no room for them here.
    Err(SetupError::new(
        "taking over the entrances of its cgroup",
        Errno::EMFILE,
    ))
}

fn read(pipe: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(pipe, chunk)?)
}

/// A pipe whose reading end never blocks the loop.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}
