//! The daemon in a container of a Docker engine.
//!
//! The container has the network of its host unless `network=` says otherwise, so that `localhost` in an image name is
//! the user's own machine; the steps of a build keep a network of their own. Where the engine listens on a local
//! socket, the socket is mounted, and the daemon starts its sandboxes as siblings. The state is a named volume that
//! outlives the container.

mod options;
mod pull;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    StopContainerOptionsBuilder,
};
use futures::TryStreamExt as _;

use super::stream::{self, Opener};
use super::{Condition, DriverError, State, image};
use crate::builders::{Content, Node, Origin, daemon_files};
use crate::daemon;
use crate::docker;
use crate::progress::{self, Work};
use crate::settings::Settings;

use options::Options;

/// What the names of containers begin with.
const PREFIX: &str = "trimaran_builderd_";
const BUILDX_PREFIX: &str = "buildx_buildkit_";
/// What buildx runs unless told otherwise.
const BUILDX_IMAGE: &str = "moby/buildkit:buildx-stable-1";
const SOCKET: &str = "/var/run/docker.sock";
/// Where the daemon has its socket.
const RUN_FOLDER: &str = "/run/builderd";
const SOCKET_NAME: &str = "builderd.sock";
const STATE_FOLDER: &str = "/var/lib/buildkit";
/// Beyond those that every container has.
const CAPABILITIES: [&str; 4] = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"];
const PATIENCE: Duration = Duration::from_secs(30);
const STOP_SECONDS: i32 = 20;
const VOLUME_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Container {
    settings: Settings,
    name: String,
    /// The engine: a Docker context or an address.
    endpoint: String,
    /// The engine's socket, if it is on this machine.
    engine_socket: Option<PathBuf>,
    flags: Vec<String>,
    files: BTreeMap<String, Content>,
    image: Image,
    options: Options,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Image {
    /// Made from the executable on this machine.
    Ours,
    /// One that a registry has, with BuildKit in it.
    Named(String),
}

impl Container {
    /// A node of buildx's store means the container that buildx makes, or made, for it.
    pub fn new(settings: &Settings, node: &Node, origin: Origin) -> Result<Self, DriverError> {
        let options = Options::parse(&node.driver_opts)?;
        let (prefix, image) = match (origin, &options.image) {
            (Origin::Buildx, None) => (BUILDX_PREFIX, Image::Named(BUILDX_IMAGE.to_owned())),
            (Origin::Buildx, Some(image)) => (BUILDX_PREFIX, Image::Named(image.clone())),
            (_, Some(image)) => (PREFIX, Image::Named(image.clone())),
            (_, None) => (PREFIX, Image::Ours),
        };
        let host = docker::engine(settings, &node.endpoint)?.host;
        if host.starts_with("ssh://") {
            crate::ssh::Target::parse(&host)?;
        }
        Ok(Self {
            settings: settings.clone(),
            name: format!("{prefix}{}", node.name),
            endpoint: node.endpoint.clone(),
            engine_socket: docker::local_socket(&host).map(Path::to_owned),
            flags: node.daemon_flags.clone(),
            files: node.files.clone(),
            image,
            options,
        })
    }

    pub fn loads_by_default(&self) -> bool {
        self.options.loads_by_default
    }

    async fn docker(&self) -> Result<Docker, DriverError> {
        Ok(docker::connect(&self.settings, &self.endpoint).await?)
    }

    pub async fn condition(&self) -> Result<Condition, DriverError> {
        // The engine takes longer to answer than the daemon.
        if let Some(socket) = self.socket()
            && tokio::net::UnixStream::connect(socket).await.is_ok()
        {
            return Ok(Condition::Running);
        }
        let docker = self.docker().await?;
        let running = self.is_running(&docker).await?;
        Ok(match running {
            None => Condition::Inactive,
            Some(false) => Condition::Stopped,
            Some(true) => Condition::Running,
        })
    }

    /// `None` if there is no such container.
    async fn is_running(&self, docker: &Docker) -> Result<Option<bool>, DriverError> {
        match docker.inspect_container(&self.name, None).await {
            Ok(container) => Ok(Some(
                container
                    .state
                    .and_then(|state| state.running)
                    .unwrap_or_default(),
            )),
            Err(error) if has_code(&error, 404) => Ok(None),
            Err(source) => Err(self.engine("inspect", source)),
        }
    }

    pub fn opener(&self) -> Opener {
        // A foreign image has BuildKit's own helper.
        let helper = match self.image {
            Image::Named(_) => "buildctl",
            Image::Ours => "builderd",
        };
        Opener::Exec {
            settings: self.settings.clone(),
            endpoint: self.endpoint.clone(),
            container: self.name.clone(),
            command: vec![helper.to_owned(), "dial-stdio".to_owned()],
            socket: self.socket(),
        }
    }

    pub async fn boot(&self, progress: &progress::Sender, bracket: &str) -> Result<(), DriverError> {
        let docker = self.docker().await?;
        let daemon = match self.image {
            Image::Named(_) => "buildkit",
            Image::Ours => "builderd",
        };
        let work = Work::begin(progress, &format!("[{bracket}] booting {daemon}")).await;
        let result = self.boot_with(&docker, &work).await;
        work.end(result).await
    }

    async fn boot_with(&self, docker: &Docker, work: &Work<'_>) -> Result<(), DriverError> {
        let running = self.is_running(docker).await?;
        if running.is_none() {
            let image = match &self.image {
                Image::Named(image) => {
                    work.part(
                        &format!("pulling image {image}"),
                        pull::provide(&self.settings, docker, image),
                    )
                    .await?;
                    image.clone()
                }
                Image::Ours => {
                    work.part("importing image", image::provide(&self.settings, docker))
                        .await?
                }
            };
            work.part(
                &format!("creating container {}", self.name),
                self.create(docker, &image),
            )
            .await?;
        }
        if running != Some(true) {
            work.part(&format!("starting container {}", self.name), async {
                docker
                    .start_container(&self.name, None)
                    .await
                    .map_err(|source| self.engine("start", source))
            })
            .await?;
        }
        work.part("waiting for the daemon", self.wait(docker)).await
    }

    async fn create(&self, docker: &Docker, image: &str) -> Result<(), DriverError> {
        let mut mounts = vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.volume()),
            target: Some(STATE_FOLDER.to_owned()),
            ..Mount::default()
        }];
        let environment = self.options.environment.clone();
        if self.image == Image::Ours
            && let Some(socket) = &self.engine_socket
        {
            mounts.push(Mount {
                typ: Some(MountType::BIND),
                source: Some(socket.display().to_string()),
                target: Some(SOCKET.to_owned()),
                ..Mount::default()
            });
        }
        // In this form, unlike a mount, the engine makes a folder that it does not find.
        let binds = match self.shared_folder() {
            Some(folder) => {
                let failed = |source| DriverError::File {
                    action: "making",
                    path: folder.display().to_string(),
                    source,
                };
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(failed)?;
                vec![format!("{}:{RUN_FOLDER}", folder.display())]
            }
            None => Vec::new(),
        };
        let mut command = Vec::new();
        if self.image == Image::Ours && !self.flags.iter().any(|flag| flag.starts_with("--root")) {
            command.extend(["--root".to_owned(), STATE_FOLDER.to_owned()]);
        }
        if self.files.contains_key(daemon_files::CONFIG) {
            let path = format!("{}/{}", daemon_files::CONTAINER_FOLDER, daemon_files::CONFIG);
            command.extend(["--config".to_owned(), path]);
        }
        command.extend(self.flags.iter().cloned());
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            env: Some(environment),
            cmd: Some(command),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                binds: Some(binds),
                network_mode: self.network(),
                ..self.rights()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        docker
            .create_container(Some(options), body)
            .await
            .map_err(|source| self.engine("create", source))?;
        if !self.files.is_empty() {
            let options = bollard::query_parameters::UploadToContainerOptionsBuilder::new()
                .path("/")
                .build();
            let archive = self.files_archive()?;
            docker
                .upload_to_container(&self.name, Some(options), bollard::body_full(archive.into()))
                .await
                .map_err(|source| self.engine("copy files into", source))?;
        }
        Ok(())
    }

    /// A folder that the container and this machine share, for the daemon's socket. Where the engine is another
    /// machine's, the daemon is reached through the engine.
    fn shared_folder(&self) -> Option<PathBuf> {
        let is_local = self.image == Image::Ours && self.engine_socket.is_some();
        is_local.then(|| self.settings.config_folder().join("containers").join(&self.name))
    }

    fn socket(&self) -> Option<PathBuf> {
        self.shared_folder().map(|folder| folder.join(SOCKET_NAME))
    }

    /// What the container may do. Ours gets what mounting layers, registering emulators and making networks for steps
    /// take, and no more; a foreign image is BuildKit's, which wants everything.
    fn rights(&self) -> HostConfig {
        let limits = self.options.host_config();
        if self.image != Image::Ours {
            return HostConfig {
                privileged: Some(true),
                init: Some(true),
                ..limits
            };
        }
        let own = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        HostConfig {
            cap_add: own(&CAPABILITIES),
            security_opt: own(&["seccomp=unconfined", "apparmor=unconfined", "label=disable"]),
            // Emulators are registered through /proc/sys.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            userns_mode: Some("host".to_owned()),
            ..limits
        }
    }

    fn network(&self) -> Option<String> {
        let default = match self.image {
            Image::Ours => Some("host".to_owned()),
            Image::Named(_) => None,
        };
        self.options.network.clone().or(default)
    }

    fn files_archive(&self) -> Result<Vec<u8>, DriverError> {
        let failed = |source| DriverError::File {
            action: "packing",
            path: daemon_files::CONTAINER_FOLDER.to_owned(),
            source,
        };
        // A daemon in somebody's image may run as somebody else than root.
        let mode = match self.image {
            Image::Ours => 0o600,
            Image::Named(_) => 0o644,
        };
        let root = Path::new(daemon_files::CONTAINER_FOLDER)
            .strip_prefix("/")
            .unwrap_or(Path::new(""));
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for name in self.files.keys() {
            let path = root.join(name);
            for folder in path.ancestors().skip(1).filter(|path| path.starts_with(root)) {
                folders.insert(folder.to_owned());
            }
        }
        for folder in &folders {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, folder, std::io::empty())
                .map_err(failed)?;
        }
        for (name, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.0.len() as u64);
            header.set_mode(mode);
            tar.append_data(&mut header, root.join(name), content.0.as_slice())
                .map_err(failed)?;
        }
        tar.into_inner().map_err(failed)
    }

    async fn wait(&self, docker: &Docker) -> Result<(), DriverError> {
        let channel = stream::channel(self.opener());
        let ready = daemon::wait_until_ready(channel, PATIENCE);
        tokio::pin!(ready);
        let mut watch = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                ready = &mut ready => {
                    return if ready { Ok(()) } else {
                        let log = format!("docker logs {}", self.name);
                        Err(DriverError::NotReady { seconds: PATIENCE.as_secs(), log })
                    };
                }
                _ = watch.tick() => {
                    if self.is_running(docker).await? != Some(true) {
                        let log = self.last_log(docker).await;
                        return Err(DriverError::ContainerEnded { container: self.name.clone(), log });
                    }
                }
            }
        }
    }

    async fn last_log(&self, docker: &Docker) -> String {
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .tail("10")
            .build();
        let lines: Vec<String> = docker
            .logs(&self.name, Some(options))
            .map_ok(|line| line.to_string())
            .try_collect()
            .await
            .unwrap_or_default();
        lines.concat().trim().to_owned()
    }

    pub async fn stop(&self) -> Result<(), DriverError> {
        let docker = self.docker().await?;
        if self.is_running(&docker).await? == Some(true) {
            let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
            docker
                .stop_container(&self.name, Some(options))
                .await
                .map_err(|source| self.engine("stop", source))?;
        }
        Ok(())
    }

    pub async fn remove(&self, state: State) -> Result<(), DriverError> {
        // The daemon takes its sandboxes with it, if it is given the time.
        self.stop().await?;
        let docker = self.docker().await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match docker.remove_container(&self.name, Some(options)).await {
            Err(error) if !has_code(&error, 404) => return Err(self.engine("remove", error)),
            _ => {}
        }
        if let Some(folder) = self.shared_folder() {
            // What may be left in it is a socket that nobody listens on; the next start takes it over.
            let _ = std::fs::remove_dir_all(folder);
        }
        if state == State::Remove {
            self.remove_volume(&docker).await?;
        }
        Ok(())
    }

    /// A sandbox that is still going away uses the volume for a moment longer.
    async fn remove_volume(&self, docker: &Docker) -> Result<(), DriverError> {
        let deadline = tokio::time::Instant::now() + VOLUME_PATIENCE;
        loop {
            match docker
                .remove_volume(&self.volume(), None::<RemoveVolumeOptions>)
                .await
            {
                Err(error) if has_code(&error, 409) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(source) if !has_code(&source, 404) => {
                    return Err(DriverError::Request {
                        action: format!("remove the volume {}", self.volume()),
                        source,
                    });
                }
                _ => return Ok(()),
            }
        }
    }

    fn volume(&self) -> String {
        format!("{}_state", self.name)
    }

    fn engine(&self, verb: &str, source: bollard::errors::Error) -> DriverError {
        DriverError::Request {
            action: format!("{verb} the container {}", self.name),
            source,
        }
    }
}

fn has_code(error: &bollard::errors::Error, code: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}
