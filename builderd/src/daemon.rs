//! The daemon's whole life: open the state, listen, serve until told to stop, finish what is running, leave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use binfmt::kernel::BinfmtMisc;
use binfmt::{Emulators, InterpreterFolders};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::api::{self, Builds, Daemon, History, Upkeep};
use crate::config::{self, ConfigError, RegistrySettings, Settings, TlsFiles};
use crate::executor::{self, Executor};
use crate::listen::{self, ListenError, Listener};
use crate::session::Sessions;
use crate::solver::{self, Solver};
use crate::store::{OpenError, Store};
use crate::version;

const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// How long builds may go on after the daemon was told to stop; container engines kill after ten seconds.
const DRAIN: Duration = Duration::from_secs(8);

/// How long a silent client is left in peace, and how long it has then to answer.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long the ends of builds and calls may take after that.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot read {}", path.display())]
    TlsFile { path: PathBuf, source: std::io::Error },
    #[error("cannot serve")]
    Serve(#[from] tonic::transport::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Serves until a signal ends it.
pub async fn run(settings: Settings) -> Result<ExitCode, DaemonError> {
    for key in &settings.without_effect {
        tracing::warn!("{key} has no effect here");
    }
    raise_file_limit();
    crate::sys::share_heaps();
    // Programs that the daemon starts write files of layers: they shall have the same modes everywhere.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let store = Store::open(&settings.root)?;
    let root = settings.root.canonicalize().unwrap_or(settings.root);
    let mut listeners = Vec::new();
    for address in &settings.addresses {
        listeners.push(listen::listen(address).await?);
    }
    let worker_id = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..25].to_owned();
    let executor = Executor::new(executor::Config {
        choice: settings.executor,
        daemon: worker_id.clone(),
        state: root.clone(),
        run: root.join("run"),
        // Not by name: an upgrade may put another version there while this one runs.
        program: "/proc/self/exe".into(),
        devices: settings.devices,
        resolver: settings.resolver,
        default_is_host: settings.default_is_host,
        cgroup_parent: settings.cgroup_parent,
    });
    let emulators = Emulators::new(BinfmtMisc::at(BINFMT_MISC), InterpreterFolders::default());
    let builds = Arc::<Builds>::default();
    let disk = store.disk_space().unwrap_or_default();
    let collection = settings.collection.policies(disk.total)?;
    let history = History::new(store.clone(), settings.history);
    let environment = config::provenance::environment(&settings.provenance_folder)?;
    let daemon = Arc::new(Daemon {
        history: Arc::clone(&history),
        upkeep: Upkeep::default(),
        collection,
        sessions: Sessions::new(),
        builds: Arc::clone(&builds),
        solver: Solver::new(
            store,
            executor.clone(),
            emulators,
            registries(&settings.registries),
            solver::Options {
                environment,
                log_limit: settings.log_limit,
                steps_at_once: settings.steps_at_once,
            },
        ),
        entitlements: settings.entitlements,
        proxy_network: settings.proxy_network,
        platforms: settings.platforms,
        labels: settings.labels,
        hostname: hostname(),
        worker_id,
    });

    let tls = settings.tls.as_ref().map(tls_config).transpose()?;
    let routes = api::routes(Arc::clone(&daemon)).await;
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    for listener in listeners {
        tracing::info!("listening on {}", listener.address());
        if tls.is_none() && listener.is_reachable_from_outside() {
            tracing::warn!(
                "whoever reaches {} controls this machine: set --tlscert, --tlskey and --tlscacert",
                listener.address()
            );
        }
        servers.spawn(serve(listener, tls.clone(), routes.clone(), stop.clone()));
    }
    // Whatever can be found out before the first build is; and what is done between builds.
    let mut warming = JoinSet::new();
    let sandboxes = executor.clone();
    warming.spawn({
        let daemon = Arc::clone(&daemon);
        async move {
            let policies: Vec<_> = daemon
                .collection
                .iter()
                .map(|policy| policy.prune.clone())
                .collect();
            let store = daemon.solver.store();
            daemon.upkeep.run(store, &policies, &daemon.history).await;
        }
    });
    warming.spawn(async move {
        let solver = daemon.solver.clone();
        solver.platforms().offered(solver.store().pool()).await;
        if let Err(error) = executor.warm().await {
            tracing::warn!("no step can run: {}", proto::chain(&error));
        }
    });

    tokio::select! {
        () = signals.next() => {}
        Some(ended) = servers.join_next() => {
            stop.cancel();
            ended.map_err(|panic| DaemonError::Signals(panic.into()))??;
        }
    }
    tracing::info!("stopping: waiting for running builds");
    builds.refuse_more();
    warming.abort_all();
    tokio::select! {
        () = builds.idle() => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("builds that still run are cancelled"),
        () = signals.next() => tracing::warn!("builds that still run are cancelled"),
    }
    builds.cancel_all();
    stop.cancel();
    let farewell = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::debug!("some connections were still open");
    }
    sandboxes.shut_down().await;
    history.flush().await;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    listener: Listener,
    tls: Option<ServerTlsConfig>,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    // A client whose machine went away would leave its connection, and its build, for ever.
    let server = proto::tunnel::server()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    let stopped = stop.cancelled_owned();
    match &listener {
        Listener::Unix { listener, .. } => {
            let incoming = listen::unix_connections(listener);
            server
                .clone()
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await?;
        }
        Listener::Tcp { listener, .. } => {
            let mut server = server;
            if let Some(tls) = tls {
                server = server.tls_config(tls)?;
            }
            let incoming = listen::tcp_connections(listener);
            server
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await?;
        }
    }
    Ok(())
}

fn tls_config(files: &TlsFiles) -> Result<ServerTlsConfig, DaemonError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| DaemonError::TlsFile {
            path: path.clone(),
            source,
        })
    };
    let mut config =
        ServerTlsConfig::new().identity(Identity::from_pem(read(&files.certificate)?, read(&files.key)?));
    if let Some(authority) = &files.authority {
        config = config.client_ca_root(Certificate::from_pem(read(authority)?));
    }
    Ok(config)
}

fn registries(settings: &BTreeMap<String, RegistrySettings>) -> registry::Config {
    registry::Config {
        hosts: settings
            .iter()
            .map(|(name, settings)| (name.clone(), settings.host()))
            .collect(),
        user_agent: format!("builderd/{}", version::VERSION),
        ..registry::Config::default()
    }
}

/// A deep stack of layers holds one descriptor for each layer while it is read, which the usual soft limit of 1024 does
/// not allow.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
