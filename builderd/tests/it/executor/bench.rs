//! What a step costs: `cargo test -p builderd --test it -- --ignored cost --nocapture`.

use std::time::{Duration, Instant};

use builderd::executor::Choice;
use builderd::executor::step::Step;

use super::{Bench, skipped};

const STEPS: u32 = 200;

async fn cost(choice: Choice) -> Option<Duration> {
    if skipped(choice) {
        return None;
    }
    let bench = Bench::new(choice);
    let files = bench.file_system();
    let step = Step::new(files, ["/bin/true"]);
    assert_eq!(bench.run(step.clone()).await.code(), 0);
    let start = Instant::now();
    for _ in 0..STEPS {
        assert_eq!(bench.run(step.clone()).await.code(), 0);
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
