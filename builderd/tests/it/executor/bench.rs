//! What a step and the layer it leaves cost: `cargo test -p builderd --test it -- --ignored cost --nocapture`.

use std::time::{Duration, Instant};

use builderd::executor::Choice;
use builderd::executor::step::{FileSystem, Step, Writable};
use builderd::store::{NewLayer, Store};

use super::{Bench, skipped};

const STEPS: u32 = 200;

async fn cost(choice: Choice) -> Option<Duration> {
    if skipped(choice) {
        return None;
    }
    let bench = Bench::new(choice);
    let store = Store::open(&bench.path().join("store")).unwrap();
    let mut start = Instant::now();
    for number in 0..=STEPS {
        let draft = store.draft().unwrap();
        let writable = Writable {
            upper: draft.upper(),
            work: draft.work(),
        };
        let files = FileSystem {
            lowers: vec![bench.base.clone()],
            writable: Some(writable),
        };
        assert_eq!(bench.run(Step::new(files, ["/bin/true"])).await.code(), 0);
        store.commit(draft, NewLayer::default()).unwrap();
        if number == 0 {
            // The first one also started the sandbox.
            start = Instant::now();
        }
    }
    Some(start.elapsed() / STEPS)
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn cost_native() {
    println!("native: {:?} a step", cost(Choice::Native).await);
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn cost_docker() {
    println!("docker: {:?} a step", cost(Choice::Docker).await);
}
