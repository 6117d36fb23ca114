//! Containers that a client keeps during its build: mounts that outlive processes, and any number of processes in them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use proto::pb;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::Job;
use super::proxied::Proxied;
use crate::executor::cgroup::Limits;
use crate::executor::step::{Attached, Mount, Secret, Source, Step, StepError};
use crate::executor::{Conversation, Launch};
use crate::ops::OpError;
use crate::ops::exec::{self, Props, Secrets};
use crate::store::Snapshot;
use crate::store::view::{View, ViewError};

const WINDOWS_PATH: &str = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

/// What a container is made of.
#[derive(Debug, Default)]
pub(crate) struct ContainerRequest {
    /// Each with the files that it starts from.
    pub(crate) mounts: Vec<(pb::Mount, Option<Snapshot>)>,
    pub(crate) network: i32,
    pub(crate) platform: Option<pb::Platform>,
    pub(crate) extra_hosts: Vec<pb::HostIp>,
    pub(crate) hostname: String,
}

/// What is run in a container.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) meta: pb::Meta,
    pub(crate) security: i32,
    pub(crate) secret_env: Vec<pb::SecretEnv>,
    pub(crate) attached: Attached,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("exit code: {0}")]
    Exit(i32),
    #[error("{}", crate::progress::CANCELED)]
    Canceled,
    #[error(transparent)]
    Refused(#[from] OpError),
    #[error(transparent)]
    Step(StepError),
    #[error("the container's first process did not start")]
    NotStarted,
    #[error("the container has no mount {0}")]
    NoMount(i64),
    #[error("mount {0} of the container holds no files that could be looked at")]
    NoFiles(i64),
    #[error(transparent)]
    View(#[from] ViewError),
}

/// The number of the first process; `None` once it is clear that there is none.
type First = Option<Option<u64>>;

#[derive(Debug)]
pub(crate) struct Container {
    job: Arc<Job>,
    op: pb::ExecOp,
    is_windows: bool,
    /// Mounts and names; what is run differs by process.
    step: Step,
    first: watch::Sender<First>,
    is_started: Mutex<bool>,
    running: TaskTracker,
    cancel: CancellationToken,
    /// The first of its processes that failed.
    failure: Mutex<Option<String>>,
    _cancels: DropGuard,
    _props: Props,
    /// Its network, if that is the proxy's; it ends with the container.
    _proxy: Option<Proxied>,
}

impl Job {
    /// Makes a container; nothing runs in it yet.
    pub(crate) async fn container(self: &Arc<Self>, request: ContainerRequest) -> Result<Container, OpError> {
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        for (mut mount, snapshot) in request.mounts {
            mount.input = -1;
            if let Some(snapshot) = snapshot {
                mount.input = i64::try_from(inputs.len()).unwrap_or(i64::MAX);
                inputs.push(snapshot);
            }
            mounts.push(mount);
        }
        let op = pb::ExecOp {
            meta: Some(pb::Meta {
                extra_hosts: request.extra_hosts,
                hostname: request.hostname,
                ..pb::Meta::default()
            }),
            mounts,
            network: request.network,
            ..pb::ExecOp::default()
        };
        for input in &inputs {
            self.fetch_files(input).await?;
        }
        let lent = self.lent(&op, &inputs, false).await?;
        let proxy = self.proxy_for(&op)?;
        let outlet = proxy.as_ref().map(Proxied::link);
        let mut prepared = exec::prepare(&op, &inputs, lent, self.store(), outlet)?;
        // Of its own it can name none, and has no limits.
        prepared.step.cgroup = self.sandboxes().confine("", &Limits::default()).await?;
        let cancel = self.cancellation().child_token();
        Ok(Container {
            job: Arc::clone(self),
            is_windows: request.platform.is_some_and(|platform| platform.os == "windows"),
            op,
            step: prepared.step,
            first: watch::Sender::new(None),
            is_started: Mutex::new(false),
            running: TaskTracker::new(),
            failure: Mutex::default(),
            _cancels: cancel.clone().drop_guard(),
            cancel,
            _props: prepared.props,
            _proxy: proxy,
        })
    }
}

impl Container {
    /// Adds a file that exists in memory only and that nobody can change.
    pub(crate) fn place_file(&mut self, path: &str, contents: Vec<u8>) {
        self.step.mounts.push(Mount {
            destination: path.to_owned(),
            source: Source::Secret {
                contents: Secret(contents),
                uid: 0,
                gid: 0,
                mode: 0o444,
            },
            read_only: true,
        });
    }

    /// Whether the process that is run next is the first; said once.
    pub(crate) fn claim(&self) -> bool {
        let mut started = self.is_started.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut *started, true)
    }

    /// Runs a process to its end. The first one starts the container, and its end is the end of all others.
    pub(crate) async fn run(
        &self,
        process: Process,
        is_first: bool,
        conversation: Conversation,
    ) -> Result<(), ContainerError> {
        let _token = self.running.token();
        let ended = if is_first {
            let ended = self.run_first(process, conversation).await;
            self.first.send_if_modified(|first| {
                let unknown = first.is_none();
                *first = Some(None);
                unknown
            });
            ended
        } else {
            self.run_beside(process, conversation).await
        };
        if let Err(error) = &ended {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| proto::chain(error));
        }
        ended
    }

    async fn run_first(
        &self,
        process: Process,
        mut conversation: Conversation,
    ) -> Result<(), ContainerError> {
        let attached = process.attached;
        let step = Box::new(self.describe(process).await?);
        let (sender, started) = oneshot::channel();
        let tell = conversation.started.replace(sender);
        let launch = Launch::First { step, attached };
        let running = self.converse(launch, conversation);
        let noting = async {
            if let Ok(number) = started.await {
                self.first.send_replace(Some(Some(number)));
                if let Some(tell) = tell {
                    // Whoever waited for it may be gone.
                    let _unheard = tell.send(number);
                }
            }
        };
        let (ended, ()) = tokio::join!(running, noting);
        ended
    }

    async fn run_beside(&self, process: Process, conversation: Conversation) -> Result<(), ContainerError> {
        let attached = process.attached;
        let step = Box::new(self.describe(process).await?);
        let mut first = self.first.subscribe();
        let number = tokio::select! {
            number = first.wait_for(Option::is_some) => number.ok().and_then(|number| number.flatten()),
            () = self.cancel.cancelled() => return Err(ContainerError::Canceled),
        };
        let launch = Launch::Beside {
            first: number.ok_or(ContainerError::NotStarted)?,
            container: Box::new(self.step.clone()),
            step,
            attached,
        };
        self.converse(launch, conversation).await
    }

    async fn converse(&self, launch: Launch, conversation: Conversation) -> Result<(), ContainerError> {
        // Dropping this future must end the process too.
        let cancel = self.cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        match self.job.sandboxes().converse(launch, conversation, &cancel).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(ContainerError::Exit(status.code())),
            Err(StepError::Cancelled) => Err(ContainerError::Canceled),
            Err(error) => Err(ContainerError::Step(error)),
        }
    }

    /// The step of a process, after it was found to be allowed.
    async fn describe(&self, process: Process) -> Result<Step, OpError> {
        let op = pb::ExecOp {
            network: self.op.network,
            security: process.security,
            secretenv: process.secret_env,
            ..pb::ExecOp::default()
        };
        self.job.check_entitlements(&op)?;
        let secrets: Secrets = self.job.secrets(&op).await?;
        let mut meta = process.meta;
        let has = |meta: &pb::Meta, name: &str| meta.env.iter().any(|variable| variable.starts_with(name));
        if self.is_windows && !has(&meta, "PATH=") {
            meta.env.push(format!("PATH={WINDOWS_PATH}"));
        }
        if process.attached.terminal && !has(&meta, "TERM=") {
            meta.env.push("TERM=xterm".to_owned());
        }
        exec::process(&self.step, meta, &op, &secrets)
    }

    /// Ends all processes, and says what went wrong first in one of them.
    pub(crate) async fn release(&self) -> Result<(), String> {
        self.cancel.cancel();
        self.running.close();
        self.running.wait().await;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// What is below a mount right now. Blocks.
    pub(crate) fn view(&self, index: i64) -> Result<View, ContainerError> {
        let mount = usize::try_from(index).ok().and_then(|at| self.op.mounts.get(at));
        let mount = mount.ok_or(ContainerError::NoMount(index))?;
        let files = if mount.dest == "/" {
            Some(&self.step.root)
        } else {
            let placed = self
                .step
                .mounts
                .iter()
                .find(|placed| placed.destination == mount.dest);
            match placed.map(|placed| &placed.source) {
                Some(Source::Snapshot { files, .. }) => Some(files),
                Some(Source::Folder { path, .. }) => {
                    return Ok(View::open(std::slice::from_ref(path))?);
                }
                _ => None,
            }
        };
        let files = files.ok_or(ContainerError::NoFiles(index))?;
        let upper = files.writable.as_ref().map(|writable| &writable.upper);
        let folders: Vec<PathBuf> = files.lowers.iter().chain(upper).cloned().collect();
        Ok(View::open(&folders)?)
    }

    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.job
    }
}
