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
    let steps: Vec<Step> = (0..=STEPS)
        .map(|_| Step::new(bench.file_system(), ["/bin/true"]))
        .collect();
    let mut start = Instant::now();
    for (number, step) in steps.into_iter().enumerate() {
        assert_eq!(bench.run(step).await.code(), 0);
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
