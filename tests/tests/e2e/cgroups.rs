//! Steps in cgroups of their own: below a parent, and within limits.

use std::fs;
use std::path::{Path, PathBuf};

use proto::control::SolveRequest;
use tests::api::Api;
use tests::daemon;
use tests::needs::{Need, given};
use tests::web::{Reply, WebServer};
use tests::world::World;

const NEEDS: [Need; 3] = [Need::Root, Need::Registry, Need::BusyBox];

/// Starts more processes than the parent allows.
const CROWD: &str = "FROM @base@\nRUN for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait\n";

/// A cgroup of this test alone, with few processes allowed; removed with what the daemon made below it.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        let parent = Self(format!("trimaran-test-{}-{name}", std::process::id()));
        let root = Path::new("/sys/fs/cgroup");
        let old = root.join("pids");
        let root = if old.is_dir() { old } else { root.to_owned() };
        let folder = root.join(&parent.0);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("pids.max"), "5").unwrap();
        parent
    }

    /// In every hierarchy there is.
    fn places(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let below = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let places = below.chain([root.to_owned()]).map(|root| root.join(&self.0));
        places.filter(|place| place.is_dir()).collect()
    }

    fn steps(&self) -> usize {
        let entries = |place: &PathBuf| fs::read_dir(place.join("buildkit"));
        let folders = self.places().into_iter().flat_map(|place| entries(&place));
        let is_folder = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
        folders.flatten().flatten().filter(is_folder).count()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for place in self.places() {
            let _absent = fs::remove_dir(place.join("buildkit"));
            let _occupied = fs::remove_dir(place);
        }
    }
}

#[test]
fn steps_run_below_the_parent_that_is_named() {
    if !given(&NEEDS) {
        return;
    }
    let parent = Parent::new("flag");
    let world = World::new();
    let context = world.context("context", &[("Dockerfile", CROWD)]);
    let flag = format!("--cgroup-parent=/{}", parent.0);
    world
        .build(&context, &[&flag])
        .failed()
        .said(&["can't fork", "exit code: 2"]);
    assert!(parent.places().len() >= 2 || !Path::new("/sys/fs/cgroup/pids").is_dir());
    assert_eq!(parent.steps(), 0);
    world.build(&context, &[]).succeeded();
    world
        .build(&context, &["--no-cache", "--cgroup-parent=../up"])
        .failed()
        .said(&["invalid cgroup parent \"../up\""]);
}

#[test]
fn the_daemon_has_a_parent_for_all_steps() {
    if !given(&NEEDS) {
        return;
    }
    let parent = Parent::new("default");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("buildkitd.toml");
    let text = format!("[worker.oci]\ndefaultCgroupParent = \"{}\"\n", parent.0);
    fs::write(&file, text).unwrap();
    let world = World::with_daemon(&["--executor", "native", "--config", file.to_str().unwrap()]);
    let context = world.context("context", &[("Dockerfile", CROWD)]);
    world.build(&context, &[]).failed().said(&["can't fork"]);
    assert_eq!(parent.steps(), 0);
}

#[test]
fn steps_keep_to_their_limits_and_say_when_memory_ran_out() {
    if !given(&NEEDS) {
        return;
    }
    let world = World::new();
    let base = world.image("base");
    let page = format!(
        "FROM {base}\nRUN grep -x Cpus_allowed_list:.0 /proc/self/status\nRUN dd if=/dev/zero of=/dev/null bs=64M count=1\n"
    );
    let server = WebServer::start(move |_| Reply::of(page.clone()));
    let build = |reference: &str, attributes: &[(&str, &str)]| {
        let context = ("context".to_owned(), server.url("/Dockerfile"));
        let attributes = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let request = SolveRequest {
            r#ref: reference.to_owned(),
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: attributes.chain([context]).collect(),
            ..SolveRequest::default()
        };
        let solved = Api::connect(&daemon::socket(world.folder())).solve(request);
        solved.map_err(|status| status.message().to_owned())
    };
    let bytes = (16 << 20).to_string();
    let tight = [
        ("memory", &bytes[..]),
        ("memswap", &bytes),
        ("cpusetcpus", "0"),
        ("cpuquota", "90000"),
    ];
    let error = build("tight", &tight).unwrap_err();
    let said = "exit code: 137: a process of it was killed as memory ran out, of which its limit leaves it 16777216 bytes";
    assert!(error.contains(said), "{error}");
    // Results are the same with any limits: the first step is not run again, or it would fail.
    build("loose", &[("cpushares", "512")]).unwrap();
    let error = build("wrong", &[("memory", "-1")]).unwrap_err();
    assert!(
        error.contains("invalid value \"-1\" for memory: a positive number"),
        "{error}"
    );
}
