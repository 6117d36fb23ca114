//! What clients are told about the one worker there is.

use std::collections::BTreeMap;

use proto::pb;
use proto::types::{CdiDevice, GcPolicy, WorkerRecord};

use super::Daemon;
use crate::executor::cdi::Device;
use crate::{config, version};

const LABEL_PREFIX: &str = "org.mobyproject.buildkit.worker.";

/// The daemon's worker; the first platform is what builds are for unless they say otherwise.
pub(super) async fn record(daemon: &Daemon) -> WorkerRecord {
    let solver = &daemon.solver;
    let offered = solver.platforms().offered(solver.store().pool()).await;
    // Handlers that work but lack something are named where people look.
    let warnings = offered.iter().filter_map(|support| {
        let key = format!(
            "trimaran.emulator.{}",
            support.platform().to_string().replace('/', ".")
        );
        Some((key, support.warning()?))
    });
    let mut labels = labels(daemon).await;
    labels.extend(warnings);
    let platforms = offered
        .iter()
        .map(|support| support.platform())
        .filter(|platform| daemon.platforms.is_empty() || daemon.platforms.contains(platform))
        .map(|platform| pb::Platform {
            os: platform.os().to_owned(),
            architecture: platform.architecture().to_owned(),
            variant: platform.variant().to_owned(),
            ..pb::Platform::default()
        })
        .collect();
    WorkerRecord {
        id: daemon.worker_id.clone(),
        labels,
        platforms,
        gc_policy: daemon.collection.iter().map(gc_policy).collect(),
        buildkit_version: Some(version::message()),
        cdi_devices: solver
            .executor()
            .devices()
            .list()
            .into_iter()
            .map(device)
            .collect(),
    }
}

fn device(device: Device) -> CdiDevice {
    CdiDevice {
        name: device.name,
        auto_allow: device.auto_allow,
        annotations: device.annotations.into_iter().collect(),
        on_demand: false,
    }
}

fn gc_policy(policy: &config::GcPolicy) -> GcPolicy {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let prune = &policy.prune;
    GcPolicy {
        all: prune.all,
        keep_duration: i64::try_from(prune.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        filters: policy.filters.clone(),
        reserved_space: number(prune.reserved_space),
        max_used_space: number(prune.max_used_space),
        min_free_space: number(prune.min_free_space),
    }
}

async fn labels(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("executor", "oci".to_owned()),
        ("hostname", daemon.hostname.clone()),
        ("snapshotter", "overlayfs".to_owned()),
    ]);
    // Without an executor no step runs, and the build that wants one says why.
    if let Ok(mode) = daemon.solver.executor().network_mode().await {
        labels.insert("network", mode.to_owned());
    }
    let mut labels: BTreeMap<_, _> = labels
        .into_iter()
        .map(|(key, value)| (format!("{LABEL_PREFIX}{key}"), value))
        .collect();
    if let Ok(name) = daemon.solver.executor().name().await {
        labels.insert("trimaran.executor".to_owned(), name.to_owned());
    }
    labels.extend(daemon.labels.clone());
    labels
}
