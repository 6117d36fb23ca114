//! One step from request to program: fork into new namespaces, build the root, leave everything behind, become it.
//!
//! The child is PID 1 of its own PID namespace, so its death ends all of the step. It reports back through a pipe that
//! the program's start closes: which mount points it had to make, and what kept the program from starting.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::devices::Nodes;
use super::housing::Housing;
use super::identity::{self, Identity};
use super::mounting::{self, Doing, SetupError};
use super::network::Link;
use super::proc_files::{self, Cover};
use super::talk::{self, Talk};
use super::volumes::{self, Targets};
use super::{capabilities, cgroups, devices, files, limits, network, overlay, program, sys, trust};
use crate::executor::protocol::MAX_FRAME;
use crate::executor::step::{Attached, ExitStatus, SecurityMode, Step, Stream};

/// Kinds of entries in the child's report, one JSON document each.
#[derive(Serialize, Deserialize)]
enum Report {
    /// Mount points made in the upper folder, as paths below the root, outermost first.
    Made(Vec<PathBuf>),
    /// Files in which the certificate of the outlet was shown, as paths below the root.
    Trusting(Vec<PathBuf>),
    Failed(String),
}

/// A step in the runner's books.
pub(super) struct Running {
    /// Readable when PID 1 of the step is dead.
    pub(super) process: OwnedFd,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// Readable when the child reports, and when it is through with that.
    pub(super) report: Option<OwnedFd>,
    reported: Vec<u8>,
    upper: Option<PathBuf>,
    /// Somebody talks with it.
    pub(super) talk: Option<Talk>,
    /// Keeps the step's mounts until its end was told: taking them down takes the kernel half a millisecond that
    /// nobody needs to wait for. Absent before Linux 6.11.
    mounts: Option<OwnedFd>,
    /// Through which the daemon asks for sockets in the sandbox's network.
    pub(super) link: Option<Link>,
    /// What it was made to trust.
    authority: Option<String>,
}

impl Running {
    pub(super) fn pipe(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Lets go of the step's mounts once its end was told.
    pub(super) fn take_mounts(&mut self) -> Option<OwnedFd> {
        self.mounts.take()
    }

    /// Takes in some of what the child reported; false when there is no more, or not yet. The pipe holds little, so
    /// the child would wait for ever for a reader that waits for its end.
    pub(super) fn take_report(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match self
            .report
            .as_ref()
            .map(|pipe| rustix::io::read(pipe, &mut chunk))
        {
            Some(Ok(count @ 1..)) if self.reported.len() < MAX_FRAME => {
                self.reported.extend_from_slice(&chunk[..count]);
                true
            }
            Some(Err(rustix::io::Errno::AGAIN)) => false,
            _ => {
                self.report = None;
                false
            }
        }
    }

    /// Whether its program runs: it is through with its report, in which no failure is.
    pub(super) fn runs(&self) -> bool {
        let failed = |entry| !matches!(entry, Ok(Report::Made(_) | Report::Trusting(_)));
        let mut entries = serde_json::Deserializer::from_slice(&self.reported).into_iter::<Report>();
        self.report.is_none() && !entries.any(failed)
    }

    /// Collects how it ended and removes the mount points that it left.
    pub(super) fn finish(mut self) -> Result<ExitStatus, String> {
        let status = match rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED)
        {
            Ok(Some(status)) => status,
            Ok(None) => return Err("its process has not ended".into()),
            Err(error) => return Err(format!("waiting for its process: {error}")),
        };
        // What cannot be read was never written: the child was killed before.
        while self.take_report() {}
        for entry in serde_json::Deserializer::from_slice(&self.reported).into_iter::<Report>() {
            match entry {
                Ok(Report::Made(paths)) => {
                    if let Some(upper) = &self.upper {
                        volumes::remove_made(upper, &paths);
                    }
                }
                Ok(Report::Trusting(paths)) => {
                    if let (Some(upper), Some(authority)) = (&self.upper, &self.authority) {
                        trust::forget(upper, &paths, authority).map_err(|error| {
                            format!("taking the proxy's certificate out of its result: {error}")
                        })?;
                    }
                }
                Ok(Report::Failed(reason)) => return Err(reason),
                Err(error) => return Err(format!("reading its report: {error}")),
            }
        }
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ok(ExitStatus::Code(code)),
            (None, Some(signal)) => Ok(ExitStatus::Signal(signal)),
            (None, None) => Err("its process ended in no known way".into()),
        }
    }
}

/// Where a process runs.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In namespaces and a root of its own.
    Own,
    /// Beside the first process of a step.
    Beside(&'a Running),
}

pub(super) fn start(
    housing: &Housing,
    step: &Step,
    place: Place<'_>,
    attached: Option<Attached>,
    entrances: &[OwnedFd],
) -> Result<Running, SetupError> {
    let (stdout, stdout_writer) = super::pipe().doing(|| "making a pipe".into())?;
    let (stderr, stderr_writer) = super::pipe().doing(|| "making a pipe".into())?;
    let (report, report_writer) = super::pipe().doing(|| "making a pipe".into())?;
    let (talk, ends) = talk_with(attached).doing(|| "making its input".into())?;
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if step.has_own_network() {
        namespaces |= libc::CLONE_NEWNET;
    }
    let outlet = step.outlet.as_ref().filter(|_| matches!(place, Place::Own));
    let link = outlet
        .map(|outlet| Link::connect(&outlet.socket))
        .transpose()
        .doing(|| "connecting it to the daemon's proxy".into())?;
    let cloned = match place {
        Place::Own => sys::clone_into(namespaces),
        Place::Beside(first) => sys::clone_beside(first.process.as_fd()),
    };
    match cloned.doing(|| "making namespaces".into())? {
        Some(process) => {
            let (upper, mounts) = match place {
                Place::Own => (
                    step.root.writable.as_ref().map(|writable| writable.upper.clone()),
                    sys::mount_namespace_of(process.as_fd()),
                ),
                Place::Beside(_) => (None, None),
            };
            Ok(Running {
                process,
                // What a terminal shows comes through its master.
                stdout: Some(stdout).filter(|_| ends.terminal.is_none()),
                stderr: Some(stderr).filter(|_| ends.terminal.is_none()),
                report: Some(report),
                reported: Vec::new(),
                upper,
                talk,
                mounts,
                link,
                authority: outlet.map(|outlet| outlet.authority.clone()),
            })
        }
        None => {
            let mut report = fs::File::from(report_writer);
            let streams = [stdout_writer.as_fd(), stderr_writer.as_fd()];
            // First of all, so that whatever it takes from here on is counted.
            let entered = cgroups::enter(entrances, matches!(place, Place::Own));
            let link = link.as_ref();
            let become_it = |()| become_program(housing, step, place, streams, &ends, link, &mut report);
            let Err(error) = entered.and_then(become_it);
            tell(&mut report, &Report::Failed(error.text()));
            sys::exit_now(1)
        }
    }
}

/// The child's ends of what it is talked with through.
#[derive(Default)]
struct Ends {
    input: Option<OwnedFd>,
    /// Where to hand the master of its terminal to.
    terminal: Option<OwnedFd>,
}

fn talk_with(attached: Option<Attached>) -> io::Result<(Option<Talk>, Ends)> {
    let Some(attached) = attached else {
        return Ok((None, Ends::default()));
    };
    if attached.terminal {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let ends = Ends {
            input: None,
            terminal: Some(theirs.into()),
        };
        return Ok((Some(Talk::with_terminal(ours.into())), ends));
    }
    if !attached.input {
        return Ok((Some(Talk::with_pipe(None)), Ends::default()));
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    let ends = Ends {
        input: Some(reader),
        terminal: None,
    };
    Ok((Some(Talk::with_pipe(Some(writer))), ends))
}

fn tell(report: &mut fs::File, entry: &Report) {
    if let Ok(bytes) = serde_json::to_vec(entry) {
        // Nobody reads any more: the runner is dying, and this process with it.
        let _unheard = report.write_all(&bytes);
    }
}

/// Runs in the child and returns only if something failed.
fn become_program(
    housing: &Housing,
    step: &Step,
    place: Place<'_>,
    [stdout, stderr]: [BorrowedFd<'_>; 2],
    ends: &Ends,
    link: Option<&Link>,
    report: &mut fs::File,
) -> Result<std::convert::Infallible, SetupError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "tying it to the runner".into())?;
    rustix::process::setsid().doing(|| "making a session".into())?;
    let null = match place {
        Place::Own => furnish(housing, step, link, report)?,
        Place::Beside(first) => {
            sys::enter_world_of(first.process.as_fd()).doing(|| "entering the container".into())?;
            fs::File::open("/dev/null")
                .doing(|| "opening /dev/null".into())?
                .into()
        }
    };
    let terminal = match &ends.terminal {
        Some(handover) => {
            let terminal = talk::make_terminal(handover.as_fd()).doing(|| "making a terminal".into())?;
            sys::control_by(terminal.as_fd()).doing(|| "taking the terminal".into())?;
            Some(terminal)
        }
        None => None,
    };
    let stdin = ends.input.as_ref().unwrap_or(&null).as_fd();
    let streams = match &terminal {
        Some(terminal) => [terminal.as_fd(); 3],
        None => [stdin, stdout, stderr],
    };
    connect(streams).doing(|| "connecting its output".into())?;
    limits::set(&step.ulimits)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let identity = identity::find(&step.user)
        .map_err(io::Error::other)
        .doing(|| "finding its user".into())?;
    let cwd = Path::new("/").join(&step.cwd);
    if let Some(terminal) = &terminal {
        // As login does it: the user may open the terminal again by its name.
        let _kept = rustix::fs::fchown(terminal, Some(Uid::from_raw(identity.uid)), None);
    }
    make_folder(&cwd, &identity).doing(|| format!("making its working folder {}", cwd.display()))?;
    restrict(housing, step, &identity)?;
    std::env::set_current_dir(&cwd).doing(|| format!("entering its working folder {}", cwd.display()))?;
    program::execute(step, &identity)
}

/// Makes the world of a step and enters it; returns its null device.
fn furnish(
    housing: &Housing,
    step: &Step,
    link: Option<&Link>,
    report: &mut fs::File,
) -> Result<OwnedFd, SetupError> {
    let hostname = step.hostname.as_deref().unwrap_or(files::DEFAULT_HOSTNAME);
    nix::unistd::sethostname(hostname).doing(|| format!("setting the host name {hostname}"))?;
    if step.has_own_network() {
        network::bring_loopback_up().doing(|| "bringing loopback up".into())?;
    }
    if let Some(link) = link {
        link.hand_over_listener()
            .doing(|| "listening for its requests".into())?;
    }
    let (made, null) = build_root(housing, step, hostname, report)?;
    if !made.is_empty() {
        tell(report, &Report::Made(made));
    }
    enter(&housing.root).doing(|| "entering the root".into())?;
    Ok(null)
}

/// Overlay, /proc, /sys, /dev, the files about names, then the step's own mounts. Returns the mount points it made, and
/// the step's standard input.
fn build_root(
    housing: &Housing,
    step: &Step,
    hostname: &str,
    report: &mut fs::File,
) -> Result<(Vec<PathBuf>, OwnedFd), SetupError> {
    let memory = mounting::new_mount(
        "tmpfs",
        &[("source", "tmpfs"), ("mode", "0700")],
        MountAttrFlags::MOUNT_ATTR_NOSUID,
    );
    memory
        .and_then(|memory| mounting::attach(memory.as_fd(), mounting::refer(&housing.memory)?.as_fd()))
        .doing(|| "mounting memory for its files".into())?;
    let spare = housing.memory.join("spare");
    fs::create_dir(&spare).doing(|| "making a spare folder".into())?;

    let stubs = if step.mounts.is_empty() {
        housing.stubs.clone()
    } else {
        volumes::own_stubs(&housing.stubs, &housing.memory.join("stubs"), &step.mounts)
            .doing(|| "making mount points".into())?
    };
    let mut files = Cow::Borrowed(&step.root);
    if let Some(outlet) = &step.outlet {
        let trusting = trust::place(&step.root, &stubs, &outlet.authority, housing, &spare)
            .doing(|| "adding the proxy's certificate to those that it trusts".into())?;
        if !trusting.is_empty() {
            files.to_mut().lowers.push(trust::folder(housing));
            tell(report, &Report::Trusting(trusting));
        }
    }
    overlay::mount_over(&files, Some(&stubs), &housing.root, &spare).doing(|| "mounting its root".into())?;
    let root = mounting::refer(&housing.root).doing(|| "opening its root".into())?;

    let (cover, usable) = match step.security {
        SecurityMode::Insecure => (Cover::Open, Nodes::Anywhere),
        // It left the container's cgroup, which says what devices may be used.
        SecurityMode::Sandbox if step.cgroup.is_some() => (Cover::Covered, Nodes::OnlyInDev),
        SecurityMode::Sandbox => (Cover::Covered, housing.nodes),
    };
    mounting::set_attributes(root.as_fd(), usable.attributes(), false)
        .doing(|| "closing its root to devices".into())?;
    proc_files::furnish_proc(root.as_fd(), housing, cover)?;
    proc_files::place_sys(root.as_fd(), housing, cover, step)?;
    let stdin = devices::furnish(root.as_fd(), &housing.memory, step.shm_size, usable)?;

    let mut targets = Targets::new(root.as_fd());
    for (name, contents) in [
        ("hosts", files::hosts(hostname, &step.extra_hosts)),
        ("resolv.conf", housing.resolv_conf.clone()),
    ] {
        let path = housing.memory.join(name);
        fs::write(&path, contents)
            .and_then(|()| {
                let target = targets.file(&format!("/etc/{name}"))?;
                mounting::bind(mounting::refer(&path)?.as_fd(), target.as_fd(), true)
            })
            .doing(|| format!("placing /etc/{name}"))?;
    }
    devices::add(&step.devices, &mut targets, &housing.memory)?;
    volumes::mount_all(&step.mounts, &mut targets, &housing.memory, &spare, usable)?;
    Ok((targets.into_made(), stdin))
}

fn enter(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

fn connect([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    sys::close_the_rest_on_start()
}

/// Makes missing folders of a path, owned by the step's user.
fn make_folder(path: &Path, identity: &Identity) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| fs::metadata(ancestor).is_err())
        .collect();
    for folder in missing.into_iter().rev() {
        fs::DirBuilder::new().mode(0o755).create(folder)?;
        chown(folder, Some(identity.uid), Some(identity.gid))?;
    }
    Ok(())
}

/// Filter first, as installing it needs what is then given up; user last but one, as changing it needs the rest.
fn restrict(housing: &Housing, step: &Step, identity: &Identity) -> Result<(), SetupError> {
    let covered = step.security == SecurityMode::Sandbox;
    if covered {
        sys::install_filter(&housing.filter).doing(|| "installing the seccomp filter".into())?;
        capabilities::bound_to_default().doing(|| "bounding its capabilities".into())?;
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).doing(|| "setting its groups".into())?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("becoming group {}", identity.gid))?;
    // Leaving root gives up all capabilities; root keeps the default ones.
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("becoming user {}", identity.uid))?;
    if covered && identity.uid == 0 {
        capabilities::keep_default().doing(|| "giving up capabilities".into())?;
    }
    // Becoming another user undid it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "tying it to the runner".into())?;
    sys::restore_signals().doing(|| "restoring signals".into())
}
