//! What the daemon remembers of builds.

use std::time::Duration;

use prost::Message as _;
use proto::control::{
    BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, StatusResponse, UpdateBuildHistoryRequest,
};
use proto::errdefs;
use proto::rpc;
use sha2::{Digest as _, Sha256};
use tests::api::Api;
use tests::daemon;
use tests::needs::{Need, given};
use tests::waiting::wait_until;
use tests::world::World;
use tonic::Code;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const LIMIT: Duration = Duration::from_secs(30);

fn api(world: &World) -> Api {
    Api::connect(&daemon::socket(world.folder()))
}

/// The messages of a log blob.
fn messages(mut blob: &[u8]) -> Vec<StatusResponse> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = blob.split_first_chunk() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        messages.push(StatusResponse::decode(message).unwrap());
        blob = rest;
    }
    assert!(blob.is_empty());
    messages
}

fn logged(messages: &[StatusResponse]) -> String {
    let lines = messages.iter().flat_map(|message| &message.logs);
    lines
        .map(|line| String::from_utf8_lossy(&line.msg).into_owned())
        .collect()
}

fn only(records: Vec<BuildHistoryRecord>) -> BuildHistoryRecord {
    assert_eq!(records.len(), 1, "{records:#?}");
    records.into_iter().next().unwrap()
}

#[test]
fn a_build_is_recorded_with_its_log_and_its_manifests() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    let context = world.context(
        "context",
        &[("Dockerfile", "FROM @base@\nARG WHO\nRUN echo hello $WHO\n")],
    );
    let image = world.image("recorded");
    let arguments = [
        "--platform=linux/amd64,linux/arm64",
        "--build-arg=WHO=me",
        "-t",
        &image,
        "--push",
    ];
    world.build(&context, &arguments).succeeded();
    let record = only(api(&world).records(&[]).unwrap());
    assert_eq!(record.frontend_attrs["build-arg:WHO"], "me");
    assert_eq!(record.exporters[0].r#type, "image");
    assert_eq!(record.exporters[0].attrs["push"], "true");
    assert!(record.created_at.is_some() && record.completed_at.is_some() && record.error.is_none());
    assert_eq!(record.num_completed_steps, record.num_total_steps);
    assert!(
        record.num_total_steps > 4 && record.num_cached_steps == 0,
        "{record:#?}"
    );

    // What is known must be the same before and after a restart.
    world.daemon.restart();
    let api = api(&world);
    let again = api.records(&[&format!("ref=={}", record.r#ref)]).unwrap();
    assert_eq!(only(again), record);
    let logs = record.logs.clone().unwrap();
    assert_eq!(logs.media_type, "application/vnd.buildkit.status.v0");
    let blob = api.blob(&logs.digest, 0, 0).unwrap();
    assert_eq!(blob.len(), usize::try_from(logs.size).unwrap());
    assert_eq!(
        format!("sha256:{}", hex::encode(Sha256::digest(&blob))),
        logs.digest
    );
    assert_eq!(api.blob_size(&logs.digest).unwrap(), logs.size);
    assert_eq!(api.blob(&logs.digest, 5, 7).unwrap(), blob[5..12]);
    let beyond = api.blob(&logs.digest, logs.size, 1).unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
    let unknown = api.blob(&format!("sha256:{}", "0".repeat(64)), 0, 0).unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let replayed = api.status(&record.r#ref).unwrap();
    assert_eq!(replayed, messages(&blob));
    assert_eq!(logged(&replayed).matches("hello me").count(), 2);

    for platform in ["linux/amd64", "linux/arm64"] {
        let provenance = &record.results[platform].attestations[0];
        assert_eq!(
            provenance.annotations["in-toto.io/predicate-type"],
            "https://slsa.dev/provenance/v1"
        );
        let provenance = api.blob(&provenance.digest, 0, 0).unwrap();
        let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
        let base = &provenance["buildDefinition"]["resolvedDependencies"][0];
        assert!(base["uri"].as_str().unwrap().contains("base@latest"), "{base}");
        let invocation = &provenance["runDetails"]["metadata"]["invocationId"];
        assert!(!invocation.as_str().unwrap().is_empty(), "{provenance}");
    }
    let result = record.result.unwrap();
    let root = &result.results[&0];
    let pushed = world.repository("recorded").manifest("latest").unwrap();
    let index: serde_json::Value = serde_json::from_slice(&api.blob(&root.digest, 0, 0).unwrap()).unwrap();
    assert_eq!(index, pushed);
    assert_eq!(root.media_type, index["mediaType"].as_str().unwrap());
    for manifest in index["manifests"].as_array().unwrap() {
        let manifest = api.blob(manifest["digest"].as_str().unwrap(), 0, 0).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        api.blob(manifest["config"]["digest"].as_str().unwrap(), 0, 0)
            .unwrap();
    }
    assert_eq!(record.exporter_response["containerimage.digest"], root.digest);

    // The layers are not what the history keeps.
    let removed = api.prune(proto::control::PruneRequest {
        all: true,
        ..Default::default()
    });
    assert!(!removed.unwrap().is_empty());
    api.blob(&root.digest, 0, 0).unwrap();
    api.status(&record.r#ref).unwrap();
}

#[test]
fn failures_are_recorded_with_their_details_and_cancelled_builds_as_such() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    world.build_fails("failing", "FROM @base@\nRUN echo so far && exit 7\n");
    let record = only(api.records(&["status==error"]).unwrap());
    let error = record.error.unwrap();
    assert!(
        error.message.contains("exit code: 7") && error.details.is_empty(),
        "{error:?}"
    );
    let whole = record.external_error.unwrap();
    assert_eq!(
        whole.media_type,
        "application/vnd.googeapis.google.rpc.status+proto"
    );
    let whole = rpc::Status::decode(&api.blob(&whole.digest, 0, 0).unwrap()[..]).unwrap();
    assert_eq!(whole.message, error.message);
    let details: Vec<_> = whole
        .details
        .iter()
        .filter_map(errdefs::Detail::from_any)
        .collect();
    assert!(
        details.contains(&errdefs::Detail::Exit(errdefs::Exit { code: 7 })),
        "{details:?}"
    );
    assert!(record.result.is_none());
    assert!(logged(&api.status(&record.r#ref).unwrap()).contains("so far"));

    let context = world.context(
        "waiting",
        &[("Dockerfile", "FROM @base@\nRUN echo waits && sleep 86405\n")],
    );
    let mut build = world.start_build(&context, &[]);
    build.wait_for_log("waits", LIMIT);
    let running = only(api.records(&["status==running"]).unwrap());
    assert!(running.completed_at.is_none());
    let request = |delete| UpdateBuildHistoryRequest {
        r#ref: running.r#ref.clone(),
        delete,
        ..Default::default()
    };
    assert_eq!(
        api.update_history(request(true)).unwrap_err().code(),
        Code::FailedPrecondition
    );
    let mut seen = Vec::new();
    let listening = BuildHistoryRequest {
        r#ref: running.r#ref.clone(),
        ..Default::default()
    };
    api.follow(listening, |event| {
        seen.push(event.r#type());
        if event.r#type() == BuildHistoryEventType::Started {
            build.stop();
        }
        event.r#type() == BuildHistoryEventType::Complete
    })
    .unwrap();
    assert_eq!(
        seen,
        [BuildHistoryEventType::Started, BuildHistoryEventType::Complete]
    );
    let stopped = only(api.records(&["status==canceled"]).unwrap());
    assert_eq!(stopped.r#ref, running.r#ref);
    assert_eq!(stopped.error.unwrap().code, i32::from(Code::Cancelled));
    assert_eq!(api.records(&[]).unwrap().len(), 2);
}

#[test]
fn records_are_found_limited_pinned_and_deleted() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nRUN echo one\n")]);
    for _ in 0..3 {
        world.build(&context, &[]).succeeded();
    }
    let all = api.records(&[]).unwrap();
    assert_eq!(all.len(), 3);
    let created = |record: &BuildHistoryRecord| record.created_at.map(|time| (time.seconds, time.nanos));
    assert!(
        all.windows(2).all(|pair| created(&pair[0]) > created(&pair[1])),
        "the newest first"
    );
    assert!(all[0].num_cached_steps > 0);
    let limited = |limit| BuildHistoryRequest {
        early_exit: true,
        limit,
        ..Default::default()
    };
    let two = api.history(limited(2)).unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(two[0].record.as_ref(), Some(&all[0]));
    assert_eq!(
        api.history(limited(-1)).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        api.records(&["startedAt<1h", "ref=bad"]).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(api.records(&["startedAt>1h,status==completed"]).unwrap().len(), 3);
    assert_eq!(api.records(&["status==error"]).unwrap(), []);
    // buildx asks this to find out whether there is a history.
    let probe = BuildHistoryRequest {
        r#ref: "buildx-test-history-api-feature".to_owned(),
        active_only: true,
        early_exit: true,
        ..Default::default()
    };
    assert_eq!(api.history(probe).unwrap(), []);

    let update = |reference: &str, pinned, delete| UpdateBuildHistoryRequest {
        r#ref: reference.to_owned(),
        pinned,
        delete,
        finalize: false,
    };
    api.update_history(update(&all[1].r#ref, true, false)).unwrap();
    let pinned = only(api.records(&[&format!("ref=={}", all[1].r#ref)]).unwrap());
    assert!(pinned.pinned && pinned.generation == 1);
    assert_eq!(
        api.update_history(update("unknown", true, false))
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    assert_eq!(
        api.update_history(update("unknown", false, true))
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    api.update_history(update(&all[0].r#ref, false, true)).unwrap();
    assert_eq!(api.records(&[]).unwrap().len(), 2);
    let gone = all[0].logs.as_ref().unwrap();
    assert_eq!(api.blob(&gone.digest, 0, 0).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_build_that_a_kill_ended_is_gone_and_what_was_before_it_is_whole() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nRUN echo one\n")]);
    world.build(&context, &[]).succeeded();
    let before = only(api(&world).records(&[]).unwrap());
    let waiting = world.context(
        "waiting",
        &[("Dockerfile", "FROM @base@\nRUN echo waits && sleep 86406\n")],
    );
    let mut build = world.start_build(&waiting, &[]);
    build.wait_for_log("waits", LIMIT);
    wait_until("the first record to be on the disk", LIMIT, || {
        !api(&world).status(&before.r#ref).unwrap().is_empty()
    });
    world.daemon.process.kill();
    assert!(!build.wait(LIMIT).success());
    world.daemon.restart();
    let api = api(&world);
    assert_eq!(only(api.records(&[]).unwrap()), before);
    assert!(!api.status(&before.r#ref).unwrap().is_empty());
}
