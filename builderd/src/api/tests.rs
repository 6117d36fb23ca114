//! The services over a real socket, called as a client calls them.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use binfmt::kernel::BinfmtMisc;
use binfmt::{Emulators, InterpreterFolders};
use bytes::Bytes;
use prost::Message;
use proto::control::control_client::ControlClient;
use proto::control::{self, StatusRequest};
use proto::errdefs::{self, Detail, Named};
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::gateway::{self, PingRequest, ReturnRequest};
use proto::{headers, pb, rpc, tunnel};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{Builds, Daemon, routes};
use crate::config::Entitlement;
use crate::executor::{Choice, Config, Executor};
use crate::listen::{Address, Listener, listen, unix_connections};
use crate::session::Sessions;
use crate::solver::{self, Solver};
use crate::store::Store;

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    builds: Arc<Builds>,
    channel: Channel,
    socket: PathBuf,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        let executor = Executor::new(Config {
            choice: Choice::Native,
            daemon: "test".to_owned(),
            run: state.join("run"),
            state,
            program: "/nonexistent".into(),
            devices: Default::default(),
            resolver: Default::default(),
            default_is_host: false,
            cgroup_parent: None,
        });
        let emulators = Emulators::new(
            BinfmtMisc::at(folder.path().join("none")),
            InterpreterFolders::default(),
        );
        let builds = Arc::<Builds>::default();
        let limits = crate::config::HistoryLimits::default();
        let daemon = Arc::new(Daemon {
            history: super::History::new(store.clone(), limits),
            upkeep: super::Upkeep::default(),
            collection: Vec::new(),
            sessions: Sessions::new(),
            builds: Arc::clone(&builds),
            solver: Solver::new(
                store,
                executor,
                emulators,
                registry::Config::default(),
                solver::Options::default(),
            ),
            proxy_network: false,
            entitlements: vec![Entitlement::NetworkHost],
            platforms: vec![binfmt::Platform::host()],
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            hostname: "host".to_owned(),
            worker_id: "worker".to_owned(),
        });
        let path = folder.path().join("daemon.sock");
        let listener = listen(&Address::Unix(path.clone())).await.unwrap();
        let routes = routes(daemon).await;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let Listener::Unix { listener, .. } = &listener else {
                unreachable!("it is a Unix socket")
            };
            tunnel::server()
                .add_routes(routes)
                .serve_with_incoming_shutdown(unix_connections(listener), stopped)
                .await
                .unwrap();
        });
        let channel = tunnel::connect(UnixStream::connect(&path).await.unwrap())
            .await
            .unwrap();
        Self {
            builds,
            channel,
            socket: path,
            _stop: stop.drop_guard(),
            _folder: folder,
        }
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    fn gateway(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone())
    }
}

fn solve_request(reference: &str) -> control::SolveRequest {
    control::SolveRequest {
        r#ref: reference.to_owned(),
        internal: true,
        ..Default::default()
    }
}

fn of_build<T>(reference: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    headers::append(request.metadata_mut(), headers::BUILD_ID, [reference]).unwrap();
    request
}

fn scratch() -> ReturnRequest {
    let result = gateway::result::Result::Ref(gateway::Ref::default());
    ReturnRequest {
        result: Some(gateway::Result {
            result: Some(result),
            ..Default::default()
        }),
        error: None,
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

/// Reads progress to its end.
async fn status_end(mut control: ControlClient<Channel>, reference: &str) -> Result<usize, Status> {
    let request = StatusRequest {
        r#ref: reference.to_owned(),
    };
    let response = control.status(request).await?;
    assert!(response.metadata().contains_key(headers::CURRENT_TIMESTAMP));
    let mut events = response.into_inner();
    let mut count = 0;
    while events.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn a_build_without_anything_learns_the_capabilities_and_ends_when_it_returns() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    // The order in which the calls arrive must not matter: the gateway and the status come first here.
    let ping = tokio::spawn(async move { (gateway.ping(of_build("a", PingRequest {})).await, gateway) });
    let status = tokio::spawn(status_end(world.control(), "a"));
    tokio::task::yield_now().await;
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    let (pong, mut gateway) = within(ping).await.unwrap();
    let pong = pong.unwrap().into_inner();
    assert!(
        pong.frontend_api_caps
            .iter()
            .any(|cap| cap.id == "solve.base" && cap.enabled)
    );
    assert!(pong.llb_caps.iter().any(|cap| cap.id == "source.local"));
    assert_eq!(pong.workers.len(), 1);
    assert!(!solve.is_finished(), "the build waits for its client");
    within(gateway.r#return(of_build("a", scratch()))).await.unwrap();
    let response = within(solve).await.unwrap().unwrap().into_inner();
    assert!(response.exporter_response.is_empty());
    within(status).await.unwrap().expect("the status ends with OK");
    assert_eq!(
        within(status_end(world.control(), "a")).await.unwrap(),
        0,
        "an ended build can still be read"
    );
}

#[tokio::test]
async fn the_clients_error_ends_the_build_with_its_details() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    let detail = prost_types::Any {
        type_url: "github.com/moby/buildkit/x+json".into(),
        value: b"{}".to_vec(),
    };
    let error = rpc::Status {
        code: 2,
        message: "no such frontend".into(),
        details: vec![detail.clone()],
    };
    let request = ReturnRequest {
        result: None,
        error: Some(error),
    };
    within(gateway.r#return(of_build("a", request))).await.unwrap();
    let status = within(solve).await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "no such frontend")
    );
    assert_eq!(rpc::Status::decode(status.details()).unwrap().details, [detail]);
}

#[tokio::test]
async fn a_reference_is_taken_while_its_build_runs() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let mut first = control.clone();
    let solve = tokio::spawn(async move { first.solve(solve_request("a")).await });
    within(gateway.ping(of_build("a", PingRequest {}))).await.unwrap();
    let status = within(control.solve(solve_request("a"))).await.unwrap_err();
    assert_eq!(status.message(), "job ID a exists");
    within(gateway.r#return(of_build("a", scratch()))).await.unwrap();
    within(solve).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_build_ends_with_its_client() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    within(gateway.ping(of_build("a", PingRequest {}))).await.unwrap();
    let status = tokio::spawn(status_end(world.control(), "a"));
    solve.abort();
    within(world.builds.idle()).await;
    within(status)
        .await
        .unwrap()
        .expect("progress ends with OK all the same");
}

#[tokio::test]
async fn a_build_ends_when_its_connection_is_cut_or_ended_by_the_client() {
    let world = World::new().await;
    for how in [Shutdown::Both, Shutdown::Write] {
        let connection = std::os::unix::net::UnixStream::connect(&world.socket).unwrap();
        let scissors = connection.try_clone().unwrap();
        connection.set_nonblocking(true).unwrap();
        let channel = tunnel::connect(UnixStream::from_std(connection).unwrap())
            .await
            .unwrap();
        let mut control = ControlClient::new(channel);
        let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
        within(world.gateway().ping(of_build("a", PingRequest {})))
            .await
            .unwrap();
        scissors.shutdown(how).unwrap();
        within(world.builds.idle()).await;
        within(solve).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn stopping_cancels_what_runs() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    within(gateway.ping(of_build("a", PingRequest {}))).await.unwrap();
    world.builds.refuse_more();
    let refused = within(world.control().solve(solve_request("b")))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "the daemon is stopping")
    );
    world.builds.cancel_all();
    let status = within(solve).await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Cancelled, "context canceled")
    );
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let world = World::new().await;
    let control = world.control();
    let refused = async |request: control::SolveRequest| {
        let status = within(control.clone().solve(request)).await.unwrap_err();
        status.message().to_owned()
    };
    let ask = |names: &[&str]| control::SolveRequest {
        entitlements: names.iter().map(|name| (*name).to_owned()).collect(),
        ..solve_request("a")
    };
    assert_eq!(
        refused(ask(&["network.host", "security.insecure"])).await,
        "granting entitlement security.insecure is not allowed by build daemon configuration"
    );
    assert!(
        refused(control::SolveRequest {
            compatibility_version: 15,
            ..solve_request("a")
        })
        .await
        .contains("compatibility version 15")
    );
    assert!(refused(solve_request("")).await.contains("no reference"));
    let unknown = control::SolveRequest {
        frontend: "latex.v0".into(),
        ..solve_request("a")
    };
    assert_eq!(refused(unknown).await, "unknown frontend: latex.v0");
    let broken = pb::Definition {
        def: vec![b"\xff".as_slice().into(); 2],
        ..Default::default()
    };
    let broken = control::SolveRequest {
        definition: Some(broken),
        ..solve_request("a")
    };
    assert!(refused(broken).await.contains("invalid definition"));
    let needs = pb::OpMetadata {
        caps: BTreeMap::from([("source.tape".into(), true)]),
        ..Default::default()
    };
    let definition = pb::Definition {
        def: vec![Bytes::new(); 2],
        metadata: BTreeMap::from([("sha256:00".into(), needs)]),
        ..Default::default()
    };
    let needy = control::SolveRequest {
        definition: Some(definition),
        ..solve_request("a")
    };
    assert_eq!(
        refused(needy).await,
        "the definition needs source.tape, which is not supported"
    );
}

#[tokio::test]
async fn a_call_of_the_gateway_names_one_build() {
    let world = World::new().await;
    let mut gateway = world.gateway();
    let status = within(gateway.ping(PingRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = within(gateway.ping(of_build("nobody", PingRequest {})))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no such job nobody")
    );
}

#[tokio::test]
async fn the_worker_says_what_it_is() {
    let world = World::new().await;
    let mut control = world.control();
    let workers = within(control.list_workers(control::ListWorkersRequest { filter: vec![] }))
        .await
        .unwrap();
    let worker = workers.into_inner().record.remove(0);
    assert_eq!(worker.id, "worker");
    assert_eq!(worker.labels["a"], "b");
    assert_eq!(worker.labels["org.mobyproject.buildkit.worker.hostname"], "host");
    let host = binfmt::Platform::host();
    assert_eq!(worker.platforms[0].architecture, host.architecture());
    let info = within(control.info(control::InfoRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert!(info.buildkit_version.unwrap().version.starts_with('v'));
}

fn file_action(input: i64, output: i64, action: pb::file_action::Action) -> pb::FileAction {
    pb::FileAction {
        input,
        secondary_input: -1,
        output,
        action: Some(action),
    }
}

/// A folder `/d` with the file `hello` and the link `link`.
fn folder() -> pb::Definition {
    use pb::file_action::Action;
    let actions = vec![
        file_action(
            -1,
            -1,
            Action::Mkdir(pb::FileActionMkDir {
                path: "/d".into(),
                mode: 0o755,
                ..Default::default()
            }),
        ),
        file_action(
            0,
            -1,
            Action::Mkfile(pb::FileActionMkFile {
                path: "/d/hello".into(),
                mode: 0o640,
                data: Bytes::from_static(b"hello world"),
                ..Default::default()
            }),
        ),
        file_action(
            1,
            0,
            Action::Symlink(pb::FileActionSymlink {
                oldpath: "hello".into(),
                newpath: "/d/link".into(),
                ..Default::default()
            }),
        ),
    ];
    let op = pb::Op {
        op: Some(pb::op::Op::File(pb::FileOp { actions })),
        ..Default::default()
    };
    let bytes = Bytes::from(op.encode_to_vec());
    let input = pb::Input {
        digest: crate::graph::digest_of(&bytes),
        index: 0,
    };
    let terminal = pb::Op {
        inputs: vec![input],
        ..Default::default()
    };
    pb::Definition {
        def: vec![bytes, terminal.encode_to_vec().into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_client_looks_into_results() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    let request = gateway::SolveRequest {
        definition: Some(folder()),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..Default::default()
    };
    let answer = within(gateway.solve(of_build("a", request)))
        .await
        .unwrap()
        .into_inner();
    let Some(gateway::result::Result::Ref(reference)) = answer.result.unwrap().result else {
        panic!("one definition has one result");
    };
    assert_eq!(
        reference.def,
        Some(folder()),
        "a client can hand it to another build"
    );
    let id = reference.id.clone();
    within(gateway.evaluate(of_build("a", gateway::EvaluateRequest { r#ref: id.clone() })))
        .await
        .unwrap();

    let read = |path: &str, range| {
        let request = gateway::ReadFileRequest {
            r#ref: id.clone(),
            file_path: path.to_owned(),
            range,
            ..Default::default()
        };
        of_build("a", request)
    };
    let whole = within(gateway.read_file(read("/d/link", None)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(whole.data, "hello world");
    let part = gateway::FileRange { offset: 6, length: 3 };
    let part = within(gateway.read_file(read("d/hello", Some(part))))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(part.data, "wor");
    let missing = within(gateway.read_file(read("/d/nosuch", None)))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);

    let stat = gateway::StatFileRequest {
        r#ref: id.clone(),
        path: "/d/hello".into(),
        ..Default::default()
    };
    let stat = within(gateway.stat_file(of_build("a", stat)))
        .await
        .unwrap()
        .into_inner()
        .stat
        .unwrap();
    assert_eq!((stat.path.as_str(), stat.mode, stat.size), ("hello", 0o640, 11));

    let list = |pattern: &str| {
        let request = gateway::ReadDirRequest {
            r#ref: id.clone(),
            dir_path: "/d".into(),
            include_pattern: pattern.into(),
            ..Default::default()
        };
        of_build("a", request)
    };
    let all = within(gateway.read_dir(list("")))
        .await
        .unwrap()
        .into_inner()
        .entries;
    let names: Vec<_> = all
        .iter()
        .map(|stat| (stat.path.as_str(), stat.linkname.as_str()))
        .collect();
    assert_eq!(names, [("hello", ""), ("link", "hello")]);
    let some = within(gateway.read_dir(list("h*")))
        .await
        .unwrap()
        .into_inner()
        .entries;
    assert_eq!(some.len(), 1);

    let foreign = gateway::EvaluateRequest {
        r#ref: "somebody::elses".into(),
    };
    let refused = within(gateway.evaluate(of_build("a", foreign)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let result = gateway::result::Result::Ref(gateway::Ref { id, def: None });
    let verdict = gateway::Result {
        result: Some(result),
        ..Default::default()
    };
    within(gateway.r#return(of_build(
        "a",
        ReturnRequest {
            result: Some(verdict),
            error: None,
        },
    )))
    .await
    .unwrap();
    within(solve).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_that_a_frontend_cannot_serve_say_so_in_a_detail() {
    let world = World::new().await;
    let (mut control, mut gateway) = (world.control(), world.gateway());
    let solve = tokio::spawn(async move { control.solve(solve_request("a")).await });
    for (key, value, detail) in [
        (
            "requestid",
            "frontend.flying",
            Detail::Subrequest(Named {
                name: "frontend.flying".into(),
            }),
        ),
        ("frontend.caps", "moby.buildkit.frontend.flying+forward", {
            Detail::FrontendCap(Named {
                name: "moby.buildkit.frontend.flying".into(),
            })
        }),
    ] {
        let request = gateway::SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_opt: BTreeMap::from([(key.into(), value.into())]),
            ..Default::default()
        };
        let status = within(gateway.solve(of_build("a", request))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(errdefs::details(&status).first(), Some(&detail));
    }
    within(gateway.r#return(of_build("a", scratch()))).await.unwrap();
    within(solve).await.unwrap().unwrap();
}
