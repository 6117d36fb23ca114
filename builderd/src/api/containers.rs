//! Containers of a client: `NewContainer`, `ReleaseContainer`, and looking into their mounts.

use std::sync::Arc;

use proto::gateway::{
    NewContainerRequest, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest,
    StatFileResponse,
};
use tonic::Status;

use super::build::Build;
use super::{files, status};
use crate::solver::{Container, ContainerRequest};
use crate::store::Snapshot;
use crate::store::view::View;

pub(super) async fn create(build: &Arc<Build>, request: NewContainerRequest) -> Result<(), Status> {
    let id = request.container_id;
    if build.containers().contains_key(&id) {
        return Err(exists(&id));
    }
    let mut mounts = Vec::new();
    for mut mount in request.mounts {
        let files = match mount.result_id.as_str() {
            "" => None,
            result => Some(result_files(build, result, &mount.dest).await?),
        };
        // A container's mounts are its own: they are written to, and come to nothing.
        mount.output = -1;
        mounts.push((mount, files));
    }
    let wanted = ContainerRequest {
        mounts,
        network: request.network,
        platform: request.platform,
        extra_hosts: request.extra_hosts,
        hostname: request.hostname,
    };
    let container = build
        .job()
        .container(wanted)
        .await
        .map_err(|error| status::of_failure(&error))?;
    let mut containers = build.containers();
    if containers.contains_key(&id) {
        return Err(exists(&id));
    }
    containers.insert(id, Arc::new(container));
    Ok(())
}

/// What a reference comes to, or what a failed operation left.
async fn result_files(build: &Arc<Build>, id: &str, target: &str) -> Result<Snapshot, Status> {
    let remnant = build.job().remnant(id).await;
    if let Some(remnant) = remnant.map_err(|error| status::of_failure(&error))? {
        return Ok(remnant);
    }
    let reference = build
        .find(id)
        .map_err(|_| Status::not_found(format!("failed to find ref {id} for {target:?} mount")))?;
    let evaluated = build.job().evaluate_all(reference.iter()).await;
    let snapshots = evaluated.map_err(|error| build.status_of(&error))?;
    Ok(snapshots.into_iter().next().unwrap_or_default())
}

fn exists(id: &str) -> Status {
    Status::already_exists(format!("Container {id} already exists"))
}

pub(super) fn find(build: &Build, id: &str) -> Result<Arc<Container>, Status> {
    let found = build.containers().get(id).cloned();
    found.ok_or_else(|| Status::not_found(format!("container {id:?} previously released or not created")))
}

pub(super) async fn release(build: &Build, id: &str) -> Result<(), Status> {
    let container = build.containers().remove(id);
    let container =
        container.ok_or_else(|| Status::not_found(format!("container details for {id} not found")))?;
    container.release().await.map_err(Status::unknown)
}

pub(super) async fn read(build: &Build, request: ReadFileRequest) -> Result<ReadFileResponse, Status> {
    let container = find(build, &request.r#ref)?;
    look(container, request.mount_index.into(), move |view| {
        files::read_in(view, &request)
    })
    .await
}

pub(super) async fn list(build: &Build, request: ReadDirRequest) -> Result<ReadDirResponse, Status> {
    let container = find(build, &request.r#ref)?;
    look(container, request.mount_index.into(), move |view| {
        files::list_in(view, &request)
    })
    .await
}

pub(super) async fn stat(build: &Build, request: StatFileRequest) -> Result<StatFileResponse, Status> {
    let container = find(build, &request.r#ref)?;
    look(container, request.mount_index.into(), move |view| {
        files::stat_in(view, &request)
    })
    .await
}

async fn look<T, F>(container: Arc<Container>, mount: i64, what: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce(&View) -> Result<T, Status> + Send + 'static,
{
    let pool = container.job().store().pool().clone();
    let looked = pool.run(move || {
        let view = container
            .view(mount)
            .map_err(|error| status::of_failure(&error))?;
        what(&view)
    });
    looked.await.map_err(|lost| Status::internal(lost.to_string()))?
}
