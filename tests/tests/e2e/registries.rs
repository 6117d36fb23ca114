//! Registries that are down, slow to answer, or answer wrongly.

use tests::faults::{Fault, FaultyRegistry, Wrong};
use tests::needs::{Need, given};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

struct Faulty {
    registry: FaultyRegistry,
    world: World,
}

impl Faulty {
    fn new() -> Self {
        let world = World::new();
        Self {
            registry: FaultyRegistry::before(world.registry.address()),
            world,
        }
    }

    /// Builds from the base image and pushes, both through the faulty registry.
    fn build(&self, name: &str) -> tests::process::Ended {
        let address = self.registry.address();
        let dockerfile = format!("FROM {address}/base\nRUN echo {name} > /name\n");
        let context = self.world.context(name, &[("Dockerfile", &dockerfile)]);
        self.world
            .build(&context, &["-t", &format!("{address}/{name}"), "--push"])
    }
}

fn fault(method: &'static str, path: &'static str, what: Wrong, times: Option<usize>) -> Fault {
    Fault {
        method,
        path,
        what,
        times,
    }
}

#[test]
fn a_registry_that_is_down_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", unused.local_addr().unwrap().port());
    drop(unused);
    world
        .build_fails("down", &format!("FROM {address}/base\n"))
        .said(&[&address]);
    let context = world.context("push", &[("Dockerfile", "FROM @base@\n")]);
    world
        .build(&context, &["-t", &format!("{address}/x"), "--push"])
        .failed()
        .said(&[&address]);
}

#[test]
fn a_registry_that_wants_to_know_who_asks_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let faulty = Faulty::new();
    faulty
        .registry
        .set(fault("GET", "/v2/", Wrong::Status(401), None));
    faulty
        .registry
        .set(fault("HEAD", "/v2/", Wrong::Status(401), None));
    faulty
        .build("denied")
        .failed()
        .said(&[&faulty.registry.address(), "401"]);
}

#[test]
fn what_goes_wrong_once_is_tried_again() {
    if !given(&NEEDS) {
        return;
    }
    let faulty = Faulty::new();
    for (name, wrong) in [
        (
            "manifest-500",
            fault("GET", "/manifests/", Wrong::Status(500), Some(1)),
        ),
        (
            "head-503",
            fault("HEAD", "/manifests/", Wrong::Status(503), Some(1)),
        ),
        (
            "upload-500",
            fault("POST", "/blobs/uploads/", Wrong::Status(500), Some(1)),
        ),
        (
            "put-502",
            fault("PUT", "/manifests/", Wrong::Status(502), Some(1)),
        ),
        ("too-many", fault("HEAD", "/blobs/", Wrong::TooMany(1), Some(1))),
        ("reset", fault("POST", "/blobs/uploads/", Wrong::Reset, Some(1))),
    ] {
        faulty.registry.set(wrong);
        faulty.build(name).succeeded();
        faulty.registry.heal();
        assert!(
            faulty.world.repository(name).has("latest").unwrap(),
            "{name} was not pushed"
        );
    }
}

#[test]
fn a_blob_that_is_cut_off_once_is_completed() {
    if !given(&NEEDS) {
        return;
    }
    let faulty = Faulty::new();
    faulty
        .registry
        .set(fault("GET", "/blobs/sha256:", Wrong::CutOff, Some(1)));
    faulty.build("cut-off").succeeded();
}

#[test]
fn a_corrupted_blob_is_never_used() {
    if !given(&NEEDS) {
        return;
    }
    let faulty = Faulty::new();
    faulty
        .registry
        .set(fault("GET", "/blobs/sha256:", Wrong::Corrupted, None));
    faulty.build("corrupted").failed().said(&["digest"]);
    assert!(!faulty.world.repository("corrupted").has("latest").unwrap());
    // Nothing of it was kept.
    faulty.registry.heal();
    faulty.build("corrupted").succeeded();
}

#[test]
fn a_tag_never_shows_an_image_that_is_not_whole() {
    if !given(&NEEDS) {
        return;
    }
    let faulty = Faulty::new();
    faulty
        .registry
        .set(fault("PUT", "/blobs/uploads/", Wrong::Status(500), None));
    faulty
        .registry
        .set(fault("PATCH", "/blobs/uploads/", Wrong::Status(500), None));
    faulty.build("half").failed().said(&["500"]);
    assert!(!faulty.world.repository("half").has("latest").unwrap());
    let manifests: Vec<String> = faulty
        .registry
        .seen()
        .into_iter()
        .filter(|request| request.starts_with("PUT") && request.contains("/manifests/"))
        .collect();
    assert_eq!(manifests, Vec::<String>::new());
}
