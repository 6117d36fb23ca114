//! Builds of graphs without sources: what runs, what is answered from the records, how failures look from outside.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use binfmt::Emulators;
use builderd::executor::{Choice, Config, Executor};
use builderd::graph::builder::{Builder, Note, Operation, Output};
use builderd::progress::CANCELED;
use builderd::session::Sessions;
use builderd::solver::{Entitlements, Job, Options, SolveError, Solver, SourcePolicy};
use builderd::store::Store;
use proto::control::Vertex;
use proto::errdefs::Detail;
use proto::pb;
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

struct World {
    state: TempDir,
    solver: Solver,
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("temporary folder");
        let solver = Self::open(&state);
        Self { state, solver }
    }

    fn open(state: &TempDir) -> Solver {
        let root = state.path().join("state");
        let store = Store::open(&root).expect("state folder");
        let executor = Executor::new(Config {
            choice: Choice::Native,
            daemon: root.display().to_string(),
            state: root.clone(),
            run: root.join("run"),
            program: env!("CARGO_BIN_EXE_builderd").into(),
            devices: Default::default(),
            resolver: Default::default(),
            default_is_host: false,
            cgroup_parent: None,
        });
        Solver::new(
            store,
            executor,
            Emulators::default(),
            registry::Config::default(),
            Options::default(),
        )
    }

    /// As after the end of one daemon and the start of the next.
    fn restart(self) -> Self {
        let Self { state, solver } = self;
        drop(solver);
        let solver = Self::open(&state);
        Self { state, solver }
    }

    fn job(&self) -> Arc<Job> {
        self.job_with(Entitlements::default())
    }

    fn job_with(&self, entitlements: Entitlements) -> Arc<Job> {
        Job::new(
            self.solver.clone(),
            Sessions::new().group(Vec::<String>::new()),
            SourcePolicy::default(),
            entitlements,
            false,
        )
    }

    async fn build(&self, definition: &pb::Definition) -> (Result<Vec<String>, SolveError>, Vec<Vertex>) {
        let job = self.job();
        let edge = job
            .load(definition)
            .expect("a valid definition")
            .expect("not scratch");
        let result = job.evaluate(&[edge]).await;
        let layers = result.map(|snapshots| {
            snapshots
                .iter()
                .flat_map(|s| s.layers())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        });
        (layers, finished(&job).await)
    }
}

/// The last state of every vertex.
async fn finished(job: &Job) -> Vec<Vertex> {
    job.progress().close();
    let mut vertices: Vec<Vertex> = Vec::new();
    let mut reader = job.progress().reader();
    while let Some(message) = reader.next().await {
        for vertex in message.vertexes {
            match vertices.iter_mut().find(|known| known.digest == vertex.digest) {
                Some(known) => *known = vertex,
                None => vertices.push(vertex),
            }
        }
    }
    vertices
}

fn shell(builder: &mut Builder, base: Output, script: &str) -> Output {
    shell_in(builder, base, script, pb::NetMode::Unset)
}

fn shell_in(builder: &mut Builder, base: Output, script: &str, network: pb::NetMode) -> Output {
    builder.add(Operation {
        kind: pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..Default::default()
            }),
            mounts: vec![pb::Mount {
                input: 0,
                dest: "/".to_owned(),
                output: 0,
                ..Default::default()
            }],
            network: network.into(),
            ..Default::default()
        }),
        inputs: vec![base],
        platform: None,
        note: Note {
            name: format!("RUN {script}"),
            lines: None,
            ..Default::default()
        },
    })
}

/// A root file system with nothing but busybox in it.
fn base(builder: &mut Builder) -> Output {
    let make = |action| pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: -1,
        action: Some(action),
    };
    let folder = make(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
        path: "/bin".to_owned(),
        mode: 0o755,
        timestamp: -1,
        ..Default::default()
    }));
    let mut file = make(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
        path: "/bin/busybox".to_owned(),
        mode: 0o755,
        data: fs::read(BUSYBOX).expect("a static busybox").into(),
        timestamp: -1,
        ..Default::default()
    }));
    file.input = 0;
    file.output = 0;
    builder.add(Operation {
        kind: pb::op::Op::File(pb::FileOp {
            actions: vec![folder, file],
        }),
        inputs: Vec::new(),
        platform: None,
        note: Note {
            name: "base".to_owned(),
            ..Default::default()
        },
    })
}

fn script(script: &str) -> pb::Definition {
    let mut builder = Builder::default();
    let base = base(&mut builder);
    let head = shell(&mut builder, base, script);
    builder.definition(Some(head), None)
}

/// Steps need root and something to run.
fn possible() -> bool {
    let possible = nix::unistd::geteuid().is_root() && fs::exists(BUSYBOX).unwrap_or(false);
    if !possible {
        assert!(
            std::env::var_os("TRIMARAN_REQUIRE_ALL").is_none(),
            "steps need root and {BUSYBOX}"
        );
        eprintln!("skipped: steps need root and {BUSYBOX}");
    }
    possible
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_runs_once_and_is_remembered_across_restarts() {
    if !possible() {
        return;
    }
    let world = World::new();
    let definition = script("echo $$ > /made");
    let (first, vertices) = world.build(&definition).await;
    let first = first.expect("built");
    assert_eq!(
        vertices.iter().map(|v| v.cached).collect::<Vec<_>>(),
        [false, false]
    );
    assert!(
        vertices
            .iter()
            .all(|v| v.started.is_some() && v.completed.is_some() && v.error.is_empty())
    );
    let made = world
        .solver
        .store()
        .layer_folder(&first[1].clone().into())
        .join("made");
    assert_eq!(fs::read_to_string(made).expect("what the step wrote"), "1\n");

    let world = world.restart();
    let (second, vertices) = world.build(&definition).await;
    assert_eq!(second.expect("built"), first);
    assert_eq!(
        vertices.iter().map(|v| v.cached).collect::<Vec<_>>(),
        [true, true]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_names_its_exit_code_and_leaves_no_layer() {
    if !possible() {
        return;
    }
    let world = World::new();
    let (result, vertices) = world.build(&script("echo half > /half; exit 3")).await;
    let error = result.expect_err("exit 3");
    assert_eq!(
        error.to_string(),
        "process \"/bin/busybox sh -c echo half > /half; exit 3\" did not complete successfully: exit code: 3"
    );
    let failed = vertices.last().expect("the step");
    assert_eq!(failed.error, error.to_string());
    let details = error.details();
    assert!(
        details.contains(&Detail::Exit(proto::errdefs::Exit { code: 3 })),
        "{details:?}"
    );
    assert!(details.contains(&Detail::Vertex(proto::errdefs::Vertex {
        digest: failed.digest.clone()
    })));
    let layers = fs::read_dir(world.state.path().join("state/layers"))
        .expect("layers")
        .count();
    assert_eq!(layers, 1, "only the base has a layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_steps_of_two_builds_at_once_run_once() {
    if !possible() {
        return;
    }
    let world = World::new();
    let definition = script("cat /proc/sys/kernel/random/uuid > /id");
    let ((one, _), (other, _)) = tokio::join!(world.build(&definition), world.build(&definition));
    assert_eq!(one.expect("built"), other.expect("built"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_the_process_and_says_so() {
    if !possible() {
        return;
    }
    let world = World::new();
    let job = world.job();
    let edge = job
        .load(&script("echo ready; sleep 600"))
        .expect("valid")
        .expect("not scratch");
    let build = tokio::spawn({
        let job = Arc::clone(&job);
        async move { job.evaluate(&[edge]).await }
    });
    let mut reader = job.progress().reader();
    while let Some(message) = reader.next().await {
        if message.logs.iter().any(|log| log.msg.starts_with(b"ready")) {
            break;
        }
    }
    let before = Instant::now();
    job.cancellation().cancel();
    let error = build.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.to_string(), CANCELED);
    assert!(before.elapsed() < Duration::from_secs(60));
    assert_eq!(finished(&job).await.last().expect("the step").error, CANCELED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failure_stops_the_others() {
    if !possible() {
        return;
    }
    let world = World::new();
    let mut builder = Builder::default();
    let base = base(&mut builder);
    let slow = shell(&mut builder, base, "sleep 600");
    let failing = shell(&mut builder, base, "exit 7");
    let both = builder.add(Operation {
        kind: pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["/bin/busybox".to_owned()],
                ..Default::default()
            }),
            mounts: vec![
                pb::Mount {
                    input: 0,
                    dest: "/".to_owned(),
                    output: 0,
                    ..Default::default()
                },
                pb::Mount {
                    input: 1,
                    dest: "/mnt".to_owned(),
                    output: -1,
                    readonly: true,
                    ..Default::default()
                },
            ],
            ..Default::default()
        }),
        inputs: vec![slow, failing],
        platform: None,
        note: Note::default(),
    });
    let (result, vertices) = world.build(&builder.definition(Some(both), None)).await;
    assert!(result.expect_err("exit 7").to_string().ends_with("exit code: 7"));
    let slow = vertices
        .iter()
        .find(|vertex| vertex.name == "RUN sleep 600")
        .expect("announced");
    assert!(slow.error.is_empty() || slow.error == CANCELED, "{slow:?}");
    let last = vertices.last().expect("announced");
    assert!(last.started.is_none(), "what depends on a failure never starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn entitlements_must_be_granted() {
    let world = World::new();
    let mut builder = Builder::default();
    let head = builder.add(Operation {
        kind: pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["/x".to_owned()],
                ..Default::default()
            }),
            mounts: vec![pb::Mount {
                input: -1,
                dest: "/".to_owned(),
                output: 0,
                ..Default::default()
            }],
            security: pb::SecurityMode::Insecure.into(),
            ..Default::default()
        }),
        inputs: Vec::new(),
        platform: None,
        note: Note::default(),
    });
    // Before anything of it is run.
    let refused = world.job().load(&builder.definition(Some(head), None));
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "security.insecure is not allowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_may_not_do_it_may_not_have_from_another() {
    if !possible() {
        return;
    }
    let world = World::new();
    let mut builder = Builder::default();
    let root = base(&mut builder);
    let head = shell_in(&mut builder, root, "true", pb::NetMode::Host);
    let definition = builder.definition(Some(head), None);
    let permitted = world.job_with(Entitlements {
        network_host: true,
        ..Entitlements::default()
    });
    let edge = permitted
        .load(&definition)
        .expect("permitted")
        .expect("not scratch");
    permitted.evaluate(&[edge]).await.expect("built");
    let job = world.job();
    for _ in 0..2 {
        let refused = match job.load(&definition) {
            Err(error) => error,
            // Loaded once already, it is known; its result is not given away nevertheless.
            Ok(edge) => {
                let edge = edge.expect("not scratch");
                job.evaluate(&[edge]).await.expect_err("refused")
            }
        };
        assert_eq!(refused.to_string(), "network.host is not allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_with_the_same_layer_twice_runs() {
    if !possible() {
        return;
    }
    let world = World::new();
    let (built, _) = world.build(&script("touch /marker")).await;
    let layers: Vec<builderd::store::LayerId> = built.expect("built").into_iter().map(Into::into).collect();
    // As images have it whose history holds the empty layer several times.
    let twice =
        builderd::store::Snapshot::from(vec![layers[1].clone(), layers[0].clone(), layers[1].clone()]);
    let sandboxes = world.solver.executor().sandboxes();
    let op = pb::ExecOp {
        meta: Some(pb::Meta {
            args: ["/bin/busybox", "test", "-e", "/marker"]
                .map(str::to_owned)
                .to_vec(),
            cwd: "/".to_owned(),
            ..Default::default()
        }),
        mounts: vec![pb::Mount {
            input: 0,
            dest: "/".to_owned(),
            output: 0,
            ..Default::default()
        }],
        ..Default::default()
    };
    let job = world.job();
    let vertex = job.progress().internal_vertex("step");
    let store = world.solver.store();
    let cancel = tokio_util::sync::CancellationToken::new();
    let surroundings = builderd::ops::exec::Surroundings {
        store,
        sandboxes: &sandboxes,
        progress: &vertex,
        cancel: &cancel,
        outlet: None,
        limits: Default::default(),
    };
    let outputs = builderd::ops::exec::run(
        &op,
        &[twice],
        Arc::default(),
        &surroundings,
        &mut builderd::ops::remains::Remains::default(),
    )
    .await;
    assert_eq!(outputs.expect("the step finds the file").len(), 1);
}

/// What is at a path of a snapshot, looked for by a step.
fn check(builder: &mut Builder, tools: Output, looked_at: Output, script: &str) -> Output {
    builder.add(Operation {
        kind: pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..Default::default()
            }),
            mounts: vec![
                pb::Mount {
                    input: 0,
                    dest: "/".to_owned(),
                    output: 0,
                    ..Default::default()
                },
                pb::Mount {
                    input: 1,
                    // Below the working folder.
                    dest: "m".to_owned(),
                    output: -1,
                    readonly: true,
                    ..Default::default()
                },
            ],
            ..Default::default()
        }),
        inputs: vec![tools, looked_at],
        platform: None,
        note: Note::default(),
    })
}

fn merge(builder: &mut Builder, inputs: Vec<Output>) -> Output {
    let op = pb::MergeOp {
        inputs: (0..inputs.len())
            .map(|index| pb::MergeInput {
                input: i64::try_from(index).expect("few inputs"),
            })
            .collect(),
    };
    builder.add(Operation {
        kind: pb::op::Op::Merge(op),
        inputs,
        platform: None,
        note: Note::default(),
    })
}

fn diff(builder: &mut Builder, lower: Output, upper: Output) -> Output {
    let op = pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: 0 }),
        upper: Some(pb::UpperDiffInput { input: 1 }),
    };
    builder.add(Operation {
        kind: pb::op::Op::Diff(op),
        inputs: vec![lower, upper],
        platform: None,
        note: Note::default(),
    })
}

#[tokio::test]
async fn merges_lay_files_and_deletions_over_each_other() {
    if !possible() {
        return;
    }
    let world = World::new();
    let mut builder = Builder::default();
    let base = base(&mut builder);
    let busybox = "/bin/busybox";
    let lower = shell(
        &mut builder,
        base,
        &format!("{busybox} mkdir /d; echo 1 > /d/a; echo 1 > /d/b; echo 1 > /gone"),
    );
    // Removed and made anew, the folder hides what was in it, but nothing else.
    let upper = shell(
        &mut builder,
        lower,
        &format!("{busybox} rm -r /d /gone; {busybox} mkdir /d; echo 2 > /d/a"),
    );
    let other = shell(
        &mut builder,
        base,
        &format!("{busybox} mkdir /d; echo 3 > /d/c; echo 3 > /gone; echo 3 > /kept"),
    );
    let changes = diff(&mut builder, lower, upper);
    let merged = merge(&mut builder, vec![other, changes]);
    let seen = check(
        &mut builder,
        base,
        merged,
        "cd /m && [ \"$(echo d/* kept)\" = 'd/a d/c kept' ] && [ ! -e gone ] && read a < d/a && [ $a = 2 ]",
    );
    // No ancestor: compared file by file.
    let reverse = diff(&mut builder, upper, other);
    let both = merge(&mut builder, vec![seen, upper, reverse]);
    let seen = check(
        &mut builder,
        base,
        both,
        "cd /m && [ \"$(echo d/* kept gone)\" = 'd/c kept gone' ]",
    );
    let definition = builder.definition(Some(seen), None);
    let (result, vertices) = world.build(&definition).await;
    let errors: Vec<&str> = vertices.iter().map(|vertex| vertex.error.as_str()).collect();
    assert!(result.is_ok(), "{result:?} {errors:?}");
}
