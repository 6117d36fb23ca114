//! Where steps run: sandboxes that a container engine starts, or that the daemon starts itself.
//!
//! A *sandbox* is a network, a cgroup and a runner in them; a *step* is one process tree on one root file system,
//! started by the runner in namespaces of its own. A build has its own sandboxes while it lasts. Sandboxes of ended
//! builds serve later ones: steps leave nothing running and may not change the network, so none learns of another.
//! One sandbox is kept ready, as starting one costs a container engine 300 ms. The daemon itself mounts nothing.

pub mod cdi;
pub mod cgroup;
mod conversation;
pub(crate) mod descriptors;
mod docker;
mod native;
pub mod outlet;
mod protocol;
mod resolver;
pub mod runner;
mod sandbox;
pub mod step;

pub use resolver::Resolver;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use cdi::Devices;
use cgroup::{CgroupError, Cgroups, Limits, Membership};
pub use conversation::{Conversation, Input, Launch};
use docker::Docker;
pub use sandbox::{Held, Sandbox};
use step::{ExitStatus, NetworkMode, SecurityMode, Step, StepError, Stream};

/// Sandboxes that wait for a build at most, after many builds at once.
const MOST_IDLE: usize = 8;

/// How long more than one waits: each container of an engine holds some ten megabytes.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// How long the engine may take to finish what it was asked for when the daemon ends.
const SHUT_DOWN: Duration = Duration::from_secs(5);

/// Which executor is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Docker if an engine answers and sees the state folder, else native.
    #[default]
    Auto,
    Docker,
    Native,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub choice: Choice,
    /// Names this daemon among all that use the same engine; the same after a restart.
    pub daemon: String,
    /// The state folder. Everything that steps refer to is below it.
    pub state: PathBuf,
    /// A folder below it, for sockets and the like of running sandboxes; emptied at the start.
    pub run: PathBuf,
    /// The executable that has the `runner` role, by whatever name.
    pub program: PathBuf,
    /// Devices of the machine that steps may ask for.
    pub devices: Devices,
    /// How steps resolve names.
    pub resolver: Resolver,
    /// Steps that ask for no network of another kind have the machine's.
    pub default_is_host: bool,
    /// The cgroup that steps run below if they name no other.
    pub cgroup_parent: Option<String>,
}

impl Config {
    fn scratch(&self) -> Result<tempfile::TempDir, ExecutorError> {
        let failed = |source| ExecutorError::Scratch {
            path: self.run.clone(),
            source,
        };
        std::fs::create_dir_all(&self.run).map_err(failed)?;
        tempfile::Builder::new()
            .prefix("sandbox-")
            .tempdir_in(&self.run)
            .map_err(failed)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("cannot make a folder for a sandbox in {path}")]
    Scratch { path: PathBuf, source: std::io::Error },
    #[error("cannot make the socket of a sandbox")]
    Socket(#[source] std::io::Error),
    #[error("cannot start {program}")]
    Spawn {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read {path}")]
    Program { path: PathBuf, source: std::io::Error },
    #[error("the sandbox speaks version {0} of the runner's protocol, the daemon another")]
    Version(u32),
    #[error("the sandbox cannot be prepared: {0}")]
    Prepare(String),
    #[error("lost the sandbox: {0}")]
    Lost(String),
    #[error("no container engine answers; use --executor native to do without")]
    NoEngine(#[source] Box<bollard::errors::Error>),
    #[error("container engine: cannot {doing}")]
    Engine {
        doing: &'static str,
        source: Box<bollard::errors::Error>,
    },
    #[error("the container engine cannot see the state folder {0}; use --executor native")]
    Unseen(PathBuf),
    #[error("the sandbox's container ended with exit code {0} before it was ready")]
    Ended(i64),
    #[error("the sandbox did not become ready in time")]
    Late,
}

#[derive(Debug)]
enum Backend {
    Docker(Box<Docker>),
    Native,
}

/// Cheap to clone; all clones share their sandboxes.
#[derive(Clone, Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    /// What is being made ready or let go in the background; ends with the last clone.
    background: Arc<Mutex<JoinSet<()>>>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    backend: OnceCell<Backend>,
    /// Longest unused first.
    idle: Mutex<Vec<Idle>>,
    /// Containers that are being made and started, which nothing interrupts.
    starting: TaskTracker,
    refilling: AtomicBool,
    cgroups: Cgroups,
    /// Whether something already looks after sandboxes that wait too long.
    expiring: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    sandbox: Sandbox,
    since: Instant,
}

impl Executor {
    pub fn new(config: Config) -> Self {
        // Nobody else uses the state folder, and nothing of ours was started yet.
        if let Err(error) = std::fs::remove_dir_all(&config.run)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %config.run.display(), "cannot remove folders of an earlier life");
        }
        let background = Arc::default();
        let parent = config.cgroup_parent.clone();
        let cgroups = Cgroups::new(&config.daemon, parent, Arc::downgrade(&background));
        let shared = Shared {
            config,
            backend: OnceCell::new(),
            idle: Mutex::default(),
            starting: TaskTracker::new(),
            refilling: AtomicBool::new(false),
            cgroups,
            expiring: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            background,
        }
    }

    /// Chooses an executor, removes what a killed daemon left in the engine, and makes a sandbox ready.
    pub async fn warm(&self) -> Result<(), ExecutorError> {
        self.shared.backend().await?;
        if lock(&self.shared.idle).is_empty() {
            let sandbox = self.shared.start(Place::default()).await?;
            self.shared.keep(sandbox);
        }
        Ok(())
    }

    /// Ends the sandboxes that wait, and sees through what the engine was asked for, so that the engine keeps nothing.
    pub async fn shut_down(&self) {
        lock(&self.background).abort_all();
        lock(&self.shared.idle).clear();
        self.shared.starting.close();
        if tokio::time::timeout(SHUT_DOWN, self.shared.starting.wait())
            .await
            .is_err()
        {
            tracing::warn!("the container engine still starts a sandbox");
        }
    }

    pub fn devices(&self) -> &Devices {
        &self.shared.config.devices
    }

    /// Whether the default network of steps is meant to be the machine's.
    pub fn default_is_host(&self) -> bool {
        self.shared.config.default_is_host
    }

    /// `docker` or `native`, for the worker's labels.
    pub async fn name(&self) -> Result<&'static str, ExecutorError> {
        Ok(match self.shared.backend().await? {
            Backend::Docker(_) => "docker",
            Backend::Native => "native",
        })
    }

    /// What a step's default network is: `bridge` where each sandbox has its own, `host` where it is the daemon's.
    pub async fn network_mode(&self) -> Result<&'static str, ExecutorError> {
        Ok(match self.shared.backend().await? {
            Backend::Docker(_) if !self.default_is_host() => "bridge",
            Backend::Docker(_) | Backend::Native => "host",
        })
    }

    /// The sandboxes of one build; nothing is started before the first step.
    pub fn sandboxes(&self) -> Sandboxes {
        Sandboxes {
            executor: self.clone(),
            started: Default::default(),
        }
    }

    async fn take(&self, place: Place) -> Result<Sandbox, ExecutorError> {
        if place != Place::default() {
            return self.shared.start(place).await;
        }
        let idle = lock(&self.shared.idle).pop();
        self.refill();
        match idle {
            Some(Idle { sandbox, .. }) if sandbox.is_idle() => Ok(sandbox),
            _ => self.shared.start(place).await,
        }
    }

    /// Makes a spare sandbox ready if there is none and none in the making.
    fn refill(&self) {
        if !lock(&self.shared.idle).is_empty() || self.shared.refilling.swap(true, Ordering::AcqRel) {
            return;
        }
        let refilling = Refilling(Arc::clone(&self.shared));
        self.spawn(async move {
            let shared = &refilling.0;
            match shared.start(Place::default()).await {
                Ok(sandbox) => shared.keep(sandbox),
                Err(error) => tracing::debug!(%error, "cannot make a spare sandbox ready"),
            }
        });
    }

    /// Takes back the sandbox of a build that ended.
    fn give_back(&self, sandbox: Sandbox) {
        self.shared.keep(sandbox);
        // Outside of a runtime the daemon is ending, and all its sandboxes with it.
        if tokio::runtime::Handle::try_current().is_err() || self.shared.expiring.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            while shared.let_go() {
                tokio::time::sleep(IDLE_FOR).await;
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut background = lock(&self.background);
        while background.try_join_next().is_some() {}
        background.spawn(task);
    }
}

/// Holds while a spare sandbox is in the making, however that ends.
struct Refilling(Arc<Shared>);

impl Drop for Refilling {
    fn drop(&mut self) {
        self.0.refilling.store(false, Ordering::Release);
    }
}

impl Shared {
    async fn backend(&self) -> Result<&Backend, ExecutorError> {
        self.backend.get_or_try_init(|| self.choose()).await
    }

    async fn choose(&self) -> Result<Backend, ExecutorError> {
        if self.config.choice == Choice::Native {
            return Ok(Backend::Native);
        }
        match self.docker().await {
            Ok(docker) => Ok(Backend::Docker(Box::new(docker))),
            // Anything else may pass, and what is chosen here is chosen for good.
            Err(error @ (ExecutorError::NoEngine(_) | ExecutorError::Unseen(_)))
                if self.config.choice == Choice::Auto =>
            {
                tracing::info!(reason = %error, "steps run without a container engine");
                Ok(Backend::Native)
            }
            Err(error) => Err(error),
        }
    }

    /// Only a sandbox that connects back proves that the engine sees the state folder, so it is started here.
    async fn docker(&self) -> Result<Docker, ExecutorError> {
        let docker = Docker::connect(&self.config).await?;
        let sandbox = docker
            .start(&self.config, Place::default(), &self.starting)
            .await?;
        self.keep(sandbox);
        Ok(docker)
    }

    async fn start(&self, place: Place) -> Result<Sandbox, ExecutorError> {
        match self.backend().await? {
            Backend::Docker(docker) => docker.start(&self.config, place, &self.starting).await,
            Backend::Native => native::start(&self.config).await,
        }
    }

    fn keep(&self, sandbox: Sandbox) {
        let mut idle = lock(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                sandbox,
                since: Instant::now(),
            });
        }
    }

    /// Ends all but the last used of those that waited long; false when only that one is left.
    fn let_go(&self) -> bool {
        let mut idle = lock(&self.idle);
        let last = idle.pop();
        idle.retain(|waiting| waiting.since.elapsed() < IDLE_FOR);
        idle.extend(last);
        let more = idle.len() > 1;
        // Under the lock, so that whoever gives one back after this starts anew.
        self.expiring.store(more, Ordering::Release);
        more
    }
}

/// What a container is started with and no step can change: steps that differ here need different sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    host_network: bool,
    privileged: bool,
}

impl Place {
    const COUNT: usize = 4;

    fn of(step: &Step, default_is_host: bool) -> Self {
        Self {
            host_network: match step.network {
                NetworkMode::Host => true,
                NetworkMode::Default => default_is_host,
                NetworkMode::None => false,
            },
            // Its containers cannot open other devices than the usual ones.
            privileged: step.security == SecurityMode::Insecure || !step.devices.is_empty(),
        }
    }

    fn index(self) -> usize {
        usize::from(self.host_network) + 2 * usize::from(self.privileged)
    }
}

/// The sandboxes of one build: one per kind of network and security its steps ask for.
#[derive(Debug)]
pub struct Sandboxes {
    executor: Executor,
    started: [OnceCell<Sandbox>; Place::COUNT],
}

impl Sandboxes {
    /// Runs one step to its end; many may run at once. `output` is called in the order in which the step wrote, `held` is
    /// let go when no process of the step is left, also if nobody waits for that.
    pub async fn run(
        &self,
        step: Step,
        held: Held,
        output: impl FnMut(Stream, Bytes) + Send,
        cancel: &CancellationToken,
    ) -> Result<ExitStatus, StepError> {
        let Some(sandbox) = cancel.run_until_cancelled(self.sandbox(&step)).await else {
            return Err(StepError::Cancelled);
        };
        sandbox?.run(step, held, output, cancel).await
    }

    /// A cgroup for a step below `parent` and within `limits`, if it shall have one; it ends with its last copy.
    pub async fn confine(&self, parent: &str, limits: &Limits) -> Result<Option<Membership>, CgroupError> {
        let cgroup = self.executor.shared.cgroups.make(parent, limits).await?;
        Ok(cgroup.map(Membership::new))
    }

    /// Runs one process that somebody talks with to its end.
    pub async fn converse(
        &self,
        launch: Launch,
        conversation: Conversation,
        cancel: &CancellationToken,
    ) -> Result<ExitStatus, StepError> {
        let Some(sandbox) = cancel.run_until_cancelled(self.sandbox(launch.home())).await else {
            return Err(StepError::Cancelled);
        };
        sandbox?.converse(launch, conversation, cancel).await
    }

    async fn sandbox(&self, step: &Step) -> Result<&Sandbox, ExecutorError> {
        let place = match self.executor.shared.backend().await? {
            // The runner shares the daemon's network and has all its rights already.
            Backend::Native => Place::default(),
            Backend::Docker(_) => Place::of(step, self.executor.default_is_host()),
        };
        self.started[place.index()]
            .get_or_try_init(|| self.executor.take(place))
            .await
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        for (index, sandbox) in self.started.iter_mut().enumerate() {
            let Some(sandbox) = sandbox.take() else { continue };
            // Privileged steps may have left anything behind: theirs are not used again.
            let is_reusable = index == Place::default().index() && !sandbox.ran_insecure();
            if sandbox.is_idle() {
                if is_reusable {
                    self.executor.give_back(sandbox);
                }
            } else if tokio::runtime::Handle::try_current().is_ok() {
                // Killed steps hold what is theirs until they are gone.
                let executor = self.executor.clone();
                self.executor.spawn(async move {
                    sandbox.settled().await;
                    if is_reusable && sandbox.is_idle() {
                        executor.give_back(sandbox);
                    }
                });
            }
        }
    }
}

/// Names of a path as an engine wants them.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
