//! Calls to a daemon that need no build: is it there, what is it, what can it run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use binfmt::Platform;
use proto::control::control_client::ControlClient;
use proto::control::{InfoRequest, ListWorkersRequest};
use proto::types::{CdiDevice, GcPolicy};
use tonic::Code;
use tonic::transport::Channel;

/// An answer to a liveness question that takes longer counts as none.
const ANSWER: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DaemonInfo {
    pub version: String,
    /// In the order of the daemon: its own platform first.
    pub platforms: Vec<Platform>,
    pub labels: BTreeMap<String, String>,
    pub gc_policy: Vec<GcPolicy>,
    /// The ids of its workers.
    pub ids: Vec<String>,
    pub devices: Vec<CdiDevice>,
}

pub fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_decoding_message_size(proto::tunnel::MAX_MESSAGE)
        .max_encoding_message_size(proto::tunnel::MAX_MESSAGE)
}

/// Asks what the daemon is. One that cannot tell its version is a daemon nevertheless.
pub async fn info(channel: Channel) -> Result<DaemonInfo, tonic::Status> {
    let mut workers = control(channel.clone());
    let mut version = control(channel);
    let (workers, version) = tokio::join!(
        workers.list_workers(ListWorkersRequest::default()),
        version.info(InfoRequest::default())
    );
    let workers = workers?.into_inner().record;
    let version = match version {
        Ok(response) => response.into_inner().buildkit_version.unwrap_or_default().version,
        Err(status) if status.code() == Code::Unimplemented => String::new(),
        Err(status) => return Err(status),
    };
    let mut seen = BTreeSet::new();
    let mut info = DaemonInfo {
        version,
        ..DaemonInfo::default()
    };
    for worker in workers {
        for platform in worker.platforms {
            let platform = Platform::new(&platform.os, &platform.architecture, &platform.variant);
            if seen.insert(platform.clone()) {
                info.platforms.push(platform);
            }
        }
        // As in buildx, the first worker stands for all.
        if info.ids.is_empty() {
            info.labels = worker.labels;
            info.gc_policy = worker.gc_policy;
        }
        info.ids.push(worker.id);
        info.devices = worker.cdi_devices;
    }
    info.ids.sort();
    Ok(info)
}

/// Whether somebody who speaks the API answers now.
pub async fn answers(channel: Channel) -> bool {
    let mut control = control(channel);
    let answer = tokio::time::timeout(ANSWER, control.list_workers(ListWorkersRequest::default())).await;
    matches!(answer, Ok(Ok(_)))
}

/// Asks again, with growing pauses, until the daemon answers or `patience` is over.
pub async fn wait_until_ready(channel: Channel, patience: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    while !answers(channel.clone()).await {
        if tokio::time::Instant::now() + pause > deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    true
}
