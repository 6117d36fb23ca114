//! Definitions (LLB) as clients send them, good ones and hostile ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use proto::control::SolveRequest;
use proto::pb;
use tests::api::Api;
use tests::daemon;
use tests::llb::Llb;
use tests::needs::{Need, given};
use tests::web::{Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

fn solve(world: &World, definition: pb::Definition) -> Result<(), String> {
    // Each over a connection of its own, as a refused message may end it.
    let api = Api::connect(&daemon::socket(world.folder()));
    let request = SolveRequest {
        r#ref: format!("definition{}", number()),
        definition: Some(definition),
        ..SolveRequest::default()
    };
    let solved = api.solve(request);
    solved.map(drop).map_err(|status| status.message().to_owned())
}

/// Another one each time.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn good() -> pb::Definition {
    let mut llb = Llb::default();
    let file = llb.file(&format!("/{}", number()));
    llb.with_result(file)
}

#[test]
fn a_definition_may_come_from_a_step_of_another() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let inner = good();
    let server = WebServer::start({
        let inner = inner.encode_to_vec();
        move |_| Reply::of(inner.clone())
    });
    let mut llb = Llb::default();
    let built = llb.build_from(&server.url("/inner"));
    let twice = llb.merge(built.clone(), built);
    solve(&world, llb.with_result(twice)).unwrap();

    let mut llb = Llb::default();
    let file = llb.download(&server.url("/inner"), "llb");
    let built = llb.build(file, "another");
    let refused = solve(&world, llb.with_result(built)).unwrap_err();
    assert!(
        refused.contains("cannot read the definition another"),
        "{refused}"
    );
}

#[test]
fn what_a_definition_from_a_step_needs_must_be_there() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let mut inner = Llb::default();
    let file = inner.file("/a");
    inner.needs(&file, "file.levitation");
    let inner = inner.with_result(file).encode_to_vec();
    let server = WebServer::start(move |_| Reply::of(inner.clone()));
    let mut llb = Llb::default();
    let built = llb.build_from(&server.url("/inner"));
    let refused = solve(&world, llb.with_result(built)).unwrap_err();
    assert!(
        refused.contains("the definition needs file.levitation"),
        "{refused}"
    );
}

#[test]
fn builds_that_wait_for_each_other_end() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let pages: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let server = WebServer::start({
        let pages = Arc::clone(&pages);
        move |request| {
            let pages = pages.lock().unwrap();
            pages
                .get(&request.path)
                .map_or_else(|| Reply::status(404), |page| Reply::of(page.clone()))
        }
    });
    let build_of = |page: &str| {
        let mut llb = Llb::default();
        let built = llb.build_from(&server.url(page));
        llb.with_result(built)
    };
    let serve = |page: &str, definition: &pb::Definition| {
        pages
            .lock()
            .unwrap()
            .insert(page.to_owned(), definition.encode_to_vec());
    };
    serve("/self", &build_of("/self"));
    serve("/one", &build_of("/other"));
    serve("/other", &build_of("/one"));
    for page in ["/self", "/one", "/other"] {
        let refused = solve(&world, build_of(page)).unwrap_err();
        assert!(
            refused.contains("a build operation uses its own result"),
            "{refused}"
        );
    }
    // No circle, but more than anybody needs.
    for number in 0..40 {
        serve(&format!("/{number}"), &build_of(&format!("/{}", number + 1)));
    }
    serve("/40", &good());
    let refused = solve(&world, build_of("/0")).unwrap_err();
    assert!(
        refused.contains("more than 32 build operations lie in each other"),
        "{refused}"
    );
    solve(&world, build_of("/20")).unwrap();
}

#[test]
fn hostile_definitions_leave_a_daemon_that_works() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let base = good();
    let mut cases: Vec<(&str, pb::Definition, &str)> = Vec::new();

    let mut truncated = base.clone();
    let first = truncated.def[0].clone();
    truncated.def[0] = first.slice(..first.len() - 3);
    cases.push(("truncated", truncated, "cannot be decoded"));

    let mut headless = base.clone();
    headless.def.pop();
    cases.push((
        "headless",
        headless,
        "the last operation must have exactly one input",
    ));

    let mut llb = Llb::default();
    let mut circle = llb.file("/a");
    circle.digest = format!("sha256:{}", "0".repeat(64));
    let op = pb::DiffOp::default();
    let user = llb.add(pb::op::Op::Diff(op), vec![circle]);
    cases.push(("circle", llb.with_result(user), "which does not come before it"));

    let mut endless = base.clone();
    endless.def = vec![Vec::new().into(); 1_000_001];
    cases.push(("endless", endless, "1000000 operations, the limit is 100000"));

    let mut llb = Llb::default();
    let exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["/x".to_owned()],
            ..pb::Meta::default()
        }),
        mounts: vec![pb::Mount {
            input: -1,
            dest: "/".to_owned(),
            ..pb::Mount::default()
        }],
        network: pb::NetMode::Host.into(),
        ..pb::ExecOp::default()
    };
    let step = llb.add(pb::op::Op::Exec(exec.clone()), Vec::new());
    cases.push((
        "host network",
        llb.with_result(step),
        "network.host is not allowed",
    ));

    let mut llb = Llb::default();
    let secret = pb::Mount {
        input: -1,
        dest: "/secret".to_owned(),
        output: -1,
        mount_type: pb::MountType::Secret.into(),
        ..pb::Mount::default()
    };
    let mut secretive = exec.clone();
    secretive.network = pb::NetMode::Unset.into();
    secretive.mounts.push(secret);
    let step = llb.add(pb::op::Op::Exec(secretive), Vec::new());
    cases.push(("secret", llb.with_result(step), "does not say which"));

    let mut llb = Llb::default();
    let mut twice = exec;
    twice.network = pb::NetMode::Unset.into();
    let mut second = twice.mounts[0].clone();
    second.dest = "/second".to_owned();
    twice.mounts.push(second);
    let step = llb.add(pb::op::Op::Exec(twice), Vec::new());
    cases.push(("outputs", llb.with_result(step), "two mounts are the same output"));

    let mut llb = Llb::default();
    let mut name = llb.file("/b");
    for _ in 0..200 {
        name = llb.merge(name.clone(), name);
    }
    name.index = 7;
    cases.push(("names", llb.with_result(name), "which cannot exist"));

    for (name, definition, expected) in cases {
        let refused = solve(&world, definition).unwrap_err();
        assert!(refused.contains(expected), "{name}: {refused}");
        solve(&world, good()).unwrap();
    }
}
