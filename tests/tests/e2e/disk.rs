//! What the daemon keeps on the disk, and how it goes.

use std::time::Duration;

use proto::control::{PruneRequest, SolveRequest, UsageRecord};
use tests::api::Api;
use tests::daemon;
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::waiting::wait_until;
use tests::world::World;
use tonic::Code;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];
const LIMIT: Duration = Duration::from_secs(30);

const DOCKERFILE: &str = "FROM @base@\nCOPY file /file\nRUN dd if=/dev/zero of=/large bs=1M count=3 2>/dev/null && touch -d @0 /large\n";

fn api(world: &World) -> Api {
    Api::connect(&daemon::socket(world.folder()))
}

fn all() -> PruneRequest {
    PruneRequest {
        all: true,
        ..PruneRequest::default()
    }
}

fn described<'a>(records: &'a [UsageRecord], text: &str) -> &'a UsageRecord {
    let found = records.iter().find(|record| record.description.contains(text));
    assert!(found.is_some(), "{text:?} is not in {records:#?}");
    found.unwrap()
}

#[test]
fn usage_is_told_removed_and_built_again_with_the_same_digest() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    assert_eq!(api.disk_usage(&[]).unwrap(), []);
    let context = world.context("context", &[("Dockerfile", DOCKERFILE), ("file", "text\n")]);
    let image = world.image("disk");
    let build = |tag: &str| {
        let arguments = [
            "--build-arg=SOURCE_DATE_EPOCH=0",
            "--push",
            "-t",
            &format!("{image}:{tag}"),
        ];
        world.build(&context, &arguments).succeeded()
    };
    build("one");

    let usage = api.disk_usage(&[""]).unwrap();
    let step = described(&usage, "RUN dd");
    assert_eq!(step.record_type, "regular");
    assert!((3 << 20..4 << 20).contains(&step.size), "{step:?}");
    assert!(
        !step.in_use && !step.mutable && !step.shared && step.usage_count > 0,
        "{step:?}"
    );
    assert!(step.created_at.is_some() && step.last_used_at.is_some());
    let copy = described(&usage, "COPY file");
    assert_eq!(step.parents, std::slice::from_ref(&copy.id));
    let base = described(&usage, "pulled from");
    assert_eq!(copy.parents, std::slice::from_ref(&base.id));
    let local = described(&usage, "load build context");
    assert_eq!(local.record_type, "source.local");
    assert_eq!(described(&usage, "manifests and configs").record_type, "internal");

    for (filter, count) in [
        (
            "type==source.local",
            usage.iter().filter(|r| r.record_type == "source.local").count(),
        ),
        (&format!("id=={}", step.id), 1),
        ("inuse", 0),
        ("mutable", 0),
        ("description~=RUN", 1),
        ("type==regular,description~=RUN", 1),
    ] {
        assert_eq!(api.disk_usage(&[filter]).unwrap().len(), count, "{filter}");
    }
    let error = api.disk_usage(&["id=x"]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("id=x"), "{error}");

    let young = PruneRequest {
        keep_duration: 3_600_000_000_000,
        ..all()
    };
    assert_eq!(api.prune(young).unwrap(), []);
    let only = PruneRequest {
        filter: vec!["type==source.local".to_owned()],
        ..PruneRequest::default()
    };
    assert!(
        api.prune(only)
            .unwrap()
            .iter()
            .all(|record| record.record_type == "source.local")
    );
    let enough = PruneRequest {
        max_used_space: 1 << 40,
        ..PruneRequest::default()
    };
    assert_eq!(api.prune(enough).unwrap(), []);
    let some = PruneRequest {
        max_used_space: 1 << 20,
        ..PruneRequest::default()
    };
    let removed = api.prune(some).unwrap();
    assert_eq!(removed[0].id, step.id, "leaves go first");
    api.prune(all()).unwrap();
    assert_eq!(api.disk_usage(&[]).unwrap(), []);
    wait_until("the bytes to be gone", LIMIT, || {
        size(&world.daemon.state()) < 3 << 20
    });

    build("two").said(&["RUN dd"]).did_not_say("CACHED");
    let built = |tag: &str| world.repository("disk").manifest(tag).unwrap();
    assert_eq!(built("one"), built("two"), "the same digests");
}

#[test]
fn folders_that_steps_keep_are_listed_and_pruned() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    let dockerfile = "FROM @base@\nARG RUN\nRUN --mount=type=cache,id=kept,target=/cache echo $RUN >> /cache/runs; wc -l < /cache/runs\n";
    let context = world.context("context", &[("Dockerfile", dockerfile)]);
    world.build(&context, &["--build-arg=RUN=1"]).succeeded();
    let listed = api.disk_usage(&["type==exec.cachemount"]).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(
        listed[0].mutable && !listed[0].in_use && listed[0].size > 0,
        "{listed:?}"
    );
    assert_eq!(listed[0].description, "cached mount /cache with id \"/kept\"");
    world
        .build(&context, &["--build-arg=RUN=2"])
        .said(&[" 2\n"])
        .succeeded();
    let caches = PruneRequest {
        filter: vec!["type==exec.cachemount".to_owned()],
        ..PruneRequest::default()
    };
    assert_eq!(api.prune(caches).unwrap()[0].id, listed[0].id);
    assert_eq!(api.disk_usage(&["type==exec.cachemount"]).unwrap(), []);
    world
        .build(&context, &["--build-arg=RUN=3"])
        .said(&[" 1\n"])
        .succeeded();
}

/// Bytes of the files below a folder.
fn size(folder: &std::path::Path) -> u64 {
    let mut total = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total += metadata.len(),
                Err(_) => {}
            }
        }
    }
    total
}

#[test]
fn pruning_leaves_a_running_build_alone() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    let kept = "FROM @base@\nRUN echo kept > /kept\n";
    let waits = format!("{kept}RUN echo step-is-running && sleep 86407\n");
    let context = world.context("context", &[("Dockerfile", kept), ("Waits", &waits)]);
    let mut build = world.start_build(&context, &["-f", context.join("Waits").to_str().unwrap()]);
    build.wait_for_log("step-is-running", LIMIT);
    let removed = api.prune(all()).unwrap();
    assert!(
        removed.iter().all(|record| !record.description.contains("kept")),
        "{removed:#?}"
    );
    let used = api.disk_usage(&["inuse"]).unwrap();
    described(&used, "echo kept");
    build.stop();
    wait_until("the build to be forgotten", LIMIT, || {
        api.disk_usage(&["inuse"]).unwrap().is_empty()
    });
    world.build(&context, &[]).succeeded().said(&["CACHED"]);
    api.prune(all()).unwrap();
    assert_eq!(api.disk_usage(&[]).unwrap(), []);
}

#[test]
fn a_daemon_killed_while_it_prunes_starts_and_builds() {
    if !given(&NEEDS) {
        return;
    }
    let mut world = World::new();
    let steps: String = (0..40).map(|step| format!("COPY file /{step}\n")).collect();
    let dockerfile = format!("FROM @base@\n{steps}");
    let context = world.context("context", &[("Dockerfile", &dockerfile), ("file", "text\n")]);
    world
        .build(&context, &["-t", &world.image("before"), "--push"])
        .succeeded();
    let process = world.daemon.process.id();
    api(&world).prune_and_then(all(), || {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(process).unwrap()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    });
    world.daemon.restart();
    let api = api(&world);
    let left = api.disk_usage(&[]).unwrap();
    let folders = std::fs::read_dir(world.daemon.state().join("layers"))
        .unwrap()
        .count();
    assert!(
        left.iter().filter(|record| record.size > 0).count() <= folders + 1,
        "{left:#?}"
    );
    world
        .build(&context, &["-t", &world.image("after"), "--push"])
        .succeeded();
    let files = |name: &str| {
        let (manifest, _) = world.repository(name).image("latest", "linux/amd64").unwrap();
        let tree = tests::unpacked::tree(&world.repository(name), &manifest).unwrap();
        tree.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(files("after"), files("before"));
    api.prune(all()).unwrap();
    assert_eq!(api.disk_usage(&[]).unwrap(), []);
    assert_eq!(
        std::fs::read_dir(world.daemon.state().join("layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn what_is_too_much_is_collected_after_a_build() {
    if !given(&NEEDS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("buildkitd.toml");
    std::fs::write(
        &config,
        "[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = 1\n[history]\nmaxEntries = 1\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let mut world = World::with_daemon(&["--executor", "native", "--config", config]);
    let context = world.context("context", &[("Dockerfile", "FROM @base@\nRUN echo one > /one\n")]);
    world.build(&context, &[]).succeeded();
    world.build(&context, &[]).succeeded();
    // It collects soon after the start, and then once in a while.
    world.daemon.restart();
    let api = api(&world);
    wait_until("the collection", LIMIT, || {
        api.disk_usage(&[]).unwrap().is_empty()
    });
    wait_until("the history to be short", LIMIT, || {
        api.records(&[]).unwrap().len() == 1
    });
}

#[test]
fn the_record_of_a_build_that_has_just_ended_takes_no_entry() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let api = api(&world);
    for number in 0..10 {
        let mut llb = Llb::default();
        let file = llb.file("/file");
        let request = SolveRequest {
            r#ref: format!("build{number}"),
            definition: Some(llb.with_result(file)),
            ..SolveRequest::default()
        };
        api.solve(request).unwrap();
        let listed = api.disk_usage(&[]).unwrap();
        assert_eq!(listed.len(), 1, "after build {number}: {listed:#?}");
    }
}
