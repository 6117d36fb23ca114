//! Sandboxes as containers of a Docker engine.
//!
//! The image is the daemon's own executable and nothing else, imported once per version: nothing is pulled. The
//! container sees the state folder at the daemon's own path and connects back through a socket in it. It has the
//! default capabilities and those the runner needs to mount and to limit; steps get Docker's defaults from the runner.
//! It removes itself when the runner ends, and the runner ends when the daemon does; what an engine's crash leaves
//! is found by its label at the next start.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, ContainerSummaryStateEnum, HostConfig, HostConfigLogConfig, Mount, MountType,
};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use super::sandbox::{Keeper, READY_DEADLINE, Sandbox};
use super::{Config, ExecutorError, Place, text};

const LABEL: &str = "dev.trimaran.sandbox";
const REPOSITORY: &str = "trimaran/runner";
const PROGRAM: &str = "/builderd";
/// Name of the socket in a sandbox's scratch folder.
const SOCKET: &str = "runner";
/// Seconds after which a container that was never started will never be.
const STILLBORN_AFTER: i64 = 300;
/// Seconds after which the image of another version is no longer kept for the daemons that may use it.
const IMAGE_KEPT: i64 = 24 * 60 * 60;

/// To mount, and to bring up loopback. Not SYS_RESOURCE, which an engine may itself be without: limits above the
/// engine's own are refused to steps.
const RUNNER_CAPABILITIES: [&str; 2] = ["SYS_ADMIN", "NET_ADMIN"];

#[derive(Debug)]
pub(super) struct Docker {
    engine: bollard::Docker,
    image: String,
    /// The label's value: whose sandboxes these are.
    owner: String,
    state: Mount,
}

/// A container that removes itself.
#[derive(Debug)]
pub(super) struct Container {
    #[expect(dead_code, reason = "shown when the sandbox is logged")]
    id: String,
}

impl Docker {
    /// Reaches the engine, removes the leftovers of this daemon's earlier life, and brings the image there.
    pub(super) async fn connect(config: &Config) -> Result<Self, ExecutorError> {
        let engine = bollard::Docker::connect_with_defaults()
            .map_err(no_engine)?
            .negotiate_version()
            .await
            .map_err(|error| match error {
                // Somebody is there, only not well.
                bollard::errors::Error::DockerResponseServerError { .. }
                | bollard::errors::Error::RequestTimeoutError => engine("agree on a version")(error),
                error => no_engine(error),
            })?;
        let state = visible_state(&engine, &config.state).await?;
        // Daemons in containers may all know their state folder by the same name: the engine knows which is which.
        let owner = match &state.source {
            Some(source) if *source != text(&config.state) => format!("{} {source}", config.daemon),
            _ => config.daemon.clone(),
        };
        sweep(&engine, &owner).await?;
        let image = import(&engine, &config.program).await?;
        Ok(Self {
            engine,
            image,
            owner,
            state,
        })
    }

    /// Cancelled half-way, it leaves a container that finds nobody and ends, never one that was made and not started:
    /// `starting` sees both through.
    pub(super) async fn start(
        &self,
        config: &Config,
        place: Place,
        starting: &TaskTracker,
    ) -> Result<Sandbox, ExecutorError> {
        let scratch = config.scratch()?;
        let listener = listen(scratch.path())?;
        let body = self.container(config, scratch.path(), place);
        let started = starting.spawn(create_and_start(
            self.engine.clone(),
            body,
            config.program.clone(),
        ));
        let id = started
            .await
            .map_err(|panic| ExecutorError::Lost(panic.to_string()))?
            .map_err(|error| match error {
                // The state folder is on another machine than the engine.
                ExecutorError::Engine { source, .. } if is_missing_source(&source) => {
                    ExecutorError::Unseen(config.state.clone())
                }
                error => error,
            })?;
        let keeper = Keeper::Container(Container { id: id.clone() }, scratch);
        let connected = match self.runner_of(config, &id, &listener).await {
            Ok(stream) => Sandbox::connect(stream, keeper).await,
            Err(error) => Err(error),
        };
        if connected.is_err() {
            remove(&self.engine, &id).await;
        }
        connected
    }

    /// Waits until the runner in a container connects.
    async fn runner_of(
        &self,
        config: &Config,
        id: &str,
        listener: &UnixListener,
    ) -> Result<UnixStream, ExecutorError> {
        let mut ended = std::pin::pin!(self.engine.wait_container(id, None));
        tokio::select! {
            accepted = listener.accept() => Ok(accepted.map_err(ExecutorError::Socket)?.0),
            end = ended.next() => Err(match end {
                // The runner says so when it cannot reach the socket, that is: when the folder is another one there.
                Some(Err(bollard::errors::Error::DockerContainerWaitError { code: 1, .. })) => {
                    ExecutorError::Unseen(config.state.clone())
                }
                Some(Ok(end)) => ExecutorError::Ended(end.status_code),
                Some(Err(error)) => engine("run a container")(error),
                None => ExecutorError::Unseen(config.state.clone()),
            }),
            () = tokio::time::sleep(READY_DEADLINE) => Err(ExecutorError::Late),
        }
    }

    fn container(&self, config: &Config, scratch: &Path, place: Place) -> ContainerCreateBody {
        let arguments = [
            "runner",
            "--state",
            &text(&config.state),
            "--scratch",
            &text(scratch),
            "--connect",
            SOCKET,
        ];
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(vec![PROGRAM.into()]),
            cmd: Some([arguments.map(String::from).to_vec(), config.resolver.arguments()].concat()),
            working_dir: Some(text(scratch)),
            labels: Some(HashMap::from([(LABEL.into(), self.owner.clone())])),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                cap_add: Some(RUNNER_CAPABILITIES.map(String::from).to_vec()),
                // Of the runner. Every step gets the default filter again.
                security_opt: Some(
                    ["seccomp=unconfined", "apparmor=unconfined", "label=disable"]
                        .map(String::from)
                        .to_vec(),
                ),
                privileged: Some(place.privileged),
                network_mode: Some(if place.host_network { "host" } else { "default" }.into()),
                mounts: Some(vec![self.state.clone()]),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("none".into()),
                    config: None,
                }),
                userns_mode: Some("host".into()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

fn is_missing_source(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 400, message }
        if message.contains("bind source path does not exist"))
}

async fn create_and_start(
    docker: bollard::Docker,
    body: ContainerCreateBody,
    program: PathBuf,
) -> Result<String, ExecutorError> {
    let mut created = docker.create_container(None, body.clone()).await;
    if let Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) = created {
        // Somebody tidied up the images while this daemon ran.
        import(&docker, &program).await?;
        created = docker.create_container(None, body).await;
    }
    let id = created.map_err(engine("create a container"))?.id;
    if let Err(error) = docker.start_container(&id, None).await {
        remove(&docker, &id).await;
        return Err(engine("start a container")(error));
    }
    Ok(id)
}

async fn remove(docker: &bollard::Docker, id: &str) {
    // It is going away by itself, or found by its label at the next start.
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    if let Err(error) = docker.remove_container(id, Some(options)).await {
        tracing::debug!(%error, container = id, "cannot remove a sandbox");
    }
}

/// A socket path may have 107 bytes only, so the folder goes by its descriptor.
fn listen(folder: &Path) -> Result<UnixListener, ExecutorError> {
    let folder = std::fs::File::open(folder).map_err(ExecutorError::Socket)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
        .map_err(ExecutorError::Socket)
}

/// Removes this daemon's sandboxes, and those of any daemon that ended between making and starting one: only what was
/// started removes itself.
async fn sweep(docker: &bollard::Docker, daemon: &str) -> Result<(), ExecutorError> {
    let label = HashMap::from([("label", vec![LABEL])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&label)
        .build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(engine("list containers"))?;
    let now = seconds_now();
    for container in found {
        let ours = container
            .labels
            .as_ref()
            .and_then(|labels| labels.get(LABEL))
            .is_some_and(|owner| owner == daemon);
        let stillborn = container.state == Some(ContainerSummaryStateEnum::CREATED)
            && container
                .created
                .is_some_and(|created| created + STILLBORN_AFTER < now);
        let Some(id) = container.id.filter(|_| ours || stillborn) else {
            continue;
        };
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match docker.remove_container(&id, Some(options)).await {
            Ok(()) => tracing::info!(container = id, "removed a sandbox of an earlier life"),
            // It removes itself at this very moment.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404 | 409,
                ..
            }) => {}
            Err(error) => {
                tracing::warn!(%error, container = id, "cannot remove a sandbox of an earlier life")
            }
        }
    }
    Ok(())
}

fn seconds_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

/// How a container gets the folder that is our state folder: as the engine mounted it for us if we are a container
/// ourselves, else by its path. Whether that path means the same to the engine shows when a sandbox connects.
async fn visible_state(docker: &bollard::Docker, state: &Path) -> Result<Mount, ExecutorError> {
    let mut own = None;
    if let Some(id) = own_container() {
        match docker.inspect_container(&id, None).await {
            Ok(found) => own = Some(found),
            // A container of another engine: then the path decides.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(engine("inspect the daemon's own container")(error)),
        }
    }
    let Some(own) = own else {
        return Ok(bind(text(state), text(state)));
    };
    own.mounts
        .unwrap_or_default()
        .into_iter()
        .filter(|mount| {
            mount
                .destination
                .as_deref()
                .is_some_and(|destination| state.starts_with(destination))
        })
        .max_by_key(|mount| mount.destination.as_ref().map_or(0, String::len))
        .and_then(|mount| {
            let target = mount.destination?;
            match mount.typ?.as_ref() {
                "volume" => Some(Mount {
                    target: Some(target),
                    source: mount.name,
                    typ: Some(MountType::VOLUME),
                    ..Mount::default()
                }),
                "bind" => Some(bind(mount.source?, target)),
                _ => None,
            }
        })
        .ok_or_else(|| ExecutorError::Unseen(state.to_owned()))
}

fn bind(source: String, target: String) -> Mount {
    Mount {
        target: Some(target),
        source: Some(source),
        typ: Some(MountType::BIND),
        ..Mount::default()
    }
}

/// The id of the container we are in: engines mount /etc/hostname and its like from a folder named so.
fn own_container() -> Option<String> {
    container_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn container_in(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (root, target) = (fields.nth(3)?, fields.next()?);
        if !matches!(target, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf") {
            return None;
        }
        let id = root.split("/containers/").nth(1)?.split('/').next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

/// Makes an image of the executable alone, unless the engine has it from an earlier start.
async fn import(docker: &bollard::Docker, program: &Path) -> Result<String, ExecutorError> {
    let unread = |source| ExecutorError::Program {
        path: program.to_owned(),
        source,
    };
    let path: PathBuf = program.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            let count = std::io::Read::read(&mut file, &mut buffer)?;
            if count == 0 {
                return Ok((hex::encode(hasher.finalize()), size));
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
    });
    let (digest, size) = hashing
        .await
        .map_err(std::io::Error::other)
        .and_then(|result| result)
        .map_err(unread)?;
    let image = format!("{REPOSITORY}:{digest}");
    match docker.inspect_image(&image).await {
        Ok(_) => return Ok(image),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(engine("inspect the runner's image")(error)),
    }
    let file = tokio::fs::File::open(program).await.map_err(unread)?;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(REPOSITORY)
        .tag(&digest)
        .build();
    let import = docker.create_image(
        Some(options),
        Some(bollard::body_try_stream(archive(file, size))),
        None,
    );
    import
        .try_collect::<Vec<_>>()
        .await
        .map_err(engine("import the runner's image"))?;
    forget_old_images(docker).await;
    Ok(image)
}

/// Every version brings an image; those of the past go, unless a container still needs them.
async fn forget_old_images(docker: &bollard::Docker) {
    let reference = HashMap::from([("reference", vec![REPOSITORY])]);
    let options = ListImagesOptionsBuilder::new().filters(&reference).build();
    // Tidying up may fail without harm: the next version tries again.
    let found = docker.list_images(Some(options)).await.unwrap_or_default();
    let now = seconds_now();
    let old = found.into_iter().filter(|image| image.created + IMAGE_KEPT < now);
    for tag in old.flat_map(|image| image.repo_tags) {
        if let Err(error) = docker.remove_image(&tag, None::<RemoveImageOptions>, None).await {
            tracing::debug!(%error, image = tag, "keeping the image of an earlier version");
        }
    }
}

/// A tar archive that holds one executable.
fn archive(file: tokio::fs::File, size: u64) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    const BLOCK: u64 = 512;
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Regular);
    let named = header.set_path(PROGRAM.trim_start_matches('/'));
    header.set_cksum();
    // The file's last block is filled up; two empty blocks end the archive.
    let padding = size.next_multiple_of(BLOCK) - size + 2 * BLOCK;
    let tail = vec![0; usize::try_from(padding).unwrap_or_default()];
    let head = named.map(|()| Bytes::copy_from_slice(header.as_bytes()));
    futures::stream::iter([head])
        .chain(tokio_util::io::ReaderStream::with_capacity(
            tokio::io::AsyncReadExt::take(file, size),
            256 << 10,
        ))
        .chain(futures::stream::iter([Ok(Bytes::from(tail))]))
}

fn no_engine(error: bollard::errors::Error) -> ExecutorError {
    ExecutorError::NoEngine(Box::new(error))
}

fn engine(doing: &'static str) -> impl Fn(bollard::errors::Error) -> ExecutorError {
    move |source| ExecutorError::Engine {
        doing,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_read_from_the_mounts() {
        let id = "4e".repeat(32);
        for (line, expected) in [
            (
                format!(
                    "700 600 254:0 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda rw"
                ),
                Some(id.clone()),
            ),
            (
                format!(
                    "700 600 254:0 /var/lib/docker/containers/{id}/hostname /mnt/hostname rw - ext4 /dev/vda rw"
                ),
                None,
            ),
            (
                "700 600 254:0 /etc/hostname /etc/hostname rw - ext4 /dev/vda rw".into(),
                None,
            ),
            (
                "700 600 254:0 /x/containers/../hosts /etc/hosts rw - ext4 /dev/vda rw".into(),
                None,
            ),
        ] {
            assert_eq!(container_in(&line), expected);
        }
    }

    #[tokio::test]
    async fn the_image_holds_the_executable_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, vec![7; 700]).unwrap();
        let parts: Vec<Bytes> = archive(tokio::fs::File::open(&path).await.unwrap(), 700)
            .try_collect()
            .await
            .unwrap();
        let bytes = parts.concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(entries, [Path::new("builderd")]);
    }
}
