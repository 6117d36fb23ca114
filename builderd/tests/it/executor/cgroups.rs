//! Steps in cgroups of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use builderd::executor::cgroup::{CgroupError, Limits, Membership};
use builderd::executor::step::{Attached, Step, Stream};
use builderd::executor::{Conversation, Input, Launch};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Bench;

/// Far more than removing a cgroup takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A parent of this test alone, removed with all that is in it.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        Self(format!("trimaran-test-{}-{name}", std::process::id()))
    }

    /// The folders of steps, in all hierarchies there are.
    fn steps(&self) -> Vec<PathBuf> {
        let places = self.places();
        let inside = places.iter().flat_map(|place| children(&place.join("buildkit")));
        inside.collect()
    }

    fn places(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let mut roots = children(root);
        roots.push(root.to_owned());
        let places = roots.into_iter().map(|root| root.join(&self.0));
        places.filter(|place| place.is_dir()).collect()
    }

    /// The most processes that are in a step's cgroup.
    fn processes(&self) -> usize {
        let count = |folder: &PathBuf| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            text.lines().count()
        };
        self.steps().iter().map(count).max().unwrap_or_default()
    }

    async fn wait_until_empty(&self) {
        let empty = async {
            while !self.steps().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, empty).await;
        assert!(waited.is_ok(), "still there: {:?}", self.steps());
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for place in self.places() {
            for child in children(&place.join("buildkit")) {
                let _occupied = fs::remove_dir(child);
            }
            let _absent = fs::remove_dir(place.join("buildkit"));
            let _occupied = fs::remove_dir(place);
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

async fn confined(bench: &Bench, parent: &Parent, limits: &Limits, script: &str) -> (Step, Membership) {
    let membership = bench.sandboxes.confine(&parent.0, limits).await.unwrap().unwrap();
    let mut step = bench.shell(script);
    step.cgroup = Some(membership.clone());
    (step, membership)
}

pub(super) async fn all(bench: &Bench) {
    limits_are_kept_and_seen(bench).await;
    memory_that_runs_out_is_told(bench).await;
    a_cancelled_step_leaves_no_cgroup(bench).await;
    who_joins_a_container_is_in_its_cgroup(bench).await;
    devices_stay_closed(bench).await;
    what_cannot_be_is_refused(bench).await;
}

async fn limits_are_kept_and_seen(bench: &Bench) {
    let parent = Parent::new("limits");
    let limits = Limits {
        memory: 64 << 20,
        cpu_shares: 512,
        cpu_period: 50_000,
        cpu_quota: 25_000,
        cpuset_cpus: "0".into(),
        ..Limits::default()
    };
    // Both kinds of cgroups, as the step sees them.
    let script = "cd /sys/fs/cgroup; \
        if test -d memory; then \
          cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus; \
        else cat memory.max cpu.max cpuset.cpus; fi; \
        grep -v ':/$' /proc/self/cgroup; touch memory/x 2>/dev/null || echo closed; \
        grep Cpus_allowed_list /proc/self/status";
    let (step, membership) = confined(bench, &parent, &limits, script).await;
    let ran = bench.run(step).await;
    let words: Vec<&str> = ran.text().split_whitespace().collect();
    assert_eq!(
        words,
        [
            "67108864",
            "25000",
            "50000",
            "0",
            "closed",
            "Cpus_allowed_list:",
            "0"
        ]
    );
    assert!(!membership.ran_out_of_memory());
    assert!(!parent.steps().is_empty());
    drop(membership);
    parent.wait_until_empty().await;
}

async fn memory_that_runs_out_is_told(bench: &Bench) {
    let parent = Parent::new("memory");
    let limits = Limits {
        memory: 16 << 20,
        memory_swap: 16 << 20,
        ..Limits::default()
    };
    let hungry = "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?";
    let (step, membership) = confined(bench, &parent, &limits, hungry).await;
    assert_eq!(bench.run(step).await.text(), "137");
    assert!(membership.ran_out_of_memory());
    drop(membership);
    // Without one there is no limit.
    assert_eq!(bench.sh(hungry).await.text(), "0");
    parent.wait_until_empty().await;
}

async fn a_cancelled_step_leaves_no_cgroup(bench: &Bench) {
    let parent = Parent::new("cancelled");
    let cancel = CancellationToken::new();
    let (step, membership) = confined(bench, &parent, &Limits::default(), "echo in; sleep 60").await;
    drop(membership);
    let mut processes = 0;
    let ran = bench
        .run_until(step, &cancel, |_| {
            processes = parent.processes();
            cancel.cancel();
        })
        .await;
    assert!(ran.status.is_err(), "{ran:?}");
    assert!(
        (1..=2).contains(&processes),
        "{processes} processes in the cgroup"
    );
    parent.wait_until_empty().await;
}

async fn who_joins_a_container_is_in_its_cgroup(bench: &Bench) {
    let parent = Parent::new("joined");
    let (first, _membership) = confined(bench, &parent, &Limits::default(), "exec sleep 60").await;
    let (cancel, attached) = (CancellationToken::new(), Attached::default());
    let (started, number) = oneshot::channel();
    let launch = Launch::First {
        step: Box::new(first.clone()),
        attached,
    };
    let (_input, output, conversation) = conversation(Some(started));
    let running = bench.sandboxes.converse(launch, conversation, &cancel);
    let joining = async {
        let number = number.await.unwrap();
        assert_eq!(parent.processes(), 1);
        let mut step = first.clone();
        step.args = [
            "/bin/sh",
            "-c",
            "grep -v ':/$' /proc/self/cgroup; echo said; exec sleep 60",
        ]
        .map(str::to_owned)
        .to_vec();
        let launch = Launch::Beside {
            first: number,
            container: Box::new(first.clone()),
            step: Box::new(step),
            attached,
        };
        let (_input, mut said, conversation) = self::conversation(None);
        let beside = bench.sandboxes.converse(launch, conversation, &cancel);
        let looking = async {
            let (_, bytes) = said.recv().await.unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes), "said\n");
            assert_eq!(parent.processes(), 2);
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(beside, looking);
        assert!(ended.is_err());
    };
    let (ended, ()) = tokio::join!(running, joining);
    assert!(ended.is_err());
    drop((output, _membership, first));
    parent.wait_until_empty().await;
}

type Said = mpsc::Receiver<(Stream, bytes::Bytes)>;

fn conversation(started: Option<oneshot::Sender<u64>>) -> (mpsc::Sender<Input>, Said, Conversation) {
    let ((sender, input), (output, said)) = (mpsc::channel(8), mpsc::channel(8));
    let conversation = Conversation {
        input,
        output,
        started,
    };
    (sender, said, conversation)
}

/// Outside of its container's cgroup, nothing there says which devices a step may open.
async fn devices_stay_closed(bench: &Bench) {
    let parent = Parent::new("devices");
    let script =
        "mknod /tmp/zero c 1 5; head -c 1 /tmp/zero 2>/dev/null | wc -c; head -c 1 /dev/zero | wc -c";
    let (step, _membership) = confined(bench, &parent, &Limits::default(), script).await;
    assert_eq!(bench.run(step).await.text(), "0\n1");
}

async fn what_cannot_be_is_refused(bench: &Bench) {
    let none = Limits::default();
    assert!(bench.sandboxes.confine("", &none).await.unwrap().is_none());
    let refused = bench.sandboxes.confine("a/../..", &none).await.unwrap_err();
    assert!(matches!(refused, CgroupError::Parent { .. }), "{refused:?}");
    let parent = Parent::new("refused");
    let limits = Limits {
        cpuset_cpus: "4095".into(),
        ..Limits::default()
    };
    let refused = bench.sandboxes.confine(&parent.0, &limits).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("cpuset.cpus to \"4095\""), "{text}");
    // What there was of it is gone.
    parent.wait_until_empty().await;
}
