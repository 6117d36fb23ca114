//! Folds the messages of a build into steps.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use proto::control::{StatusResponse, Vertex, VertexStatus};

use super::log::{Bounds, Log};
use super::step::{Parsed, Part, Step};
use crate::history::timestamp;

/// Output of all steps together, after which that of each is cut shorter.
const BUDGET: usize = 8 * 1024 * 1024;
const USUAL: Bounds = Bounds {
    head: 16 * 1024,
    tail: 48 * 1024,
};
const SHORT: Bounds = Bounds {
    head: 1024,
    tail: 3 * 1024,
};
/// More parts of one step than anybody reads.
const MOST_PARTS: usize = 200;
const LONGEST_ERROR: usize = 16 * 1024;
/// Shorter waits are those of the machinery.
const LEAST_WAIT: f64 = 5.0;

#[derive(Debug, Default)]
pub(super) struct Collector {
    steps: Vec<Gathered>,
    by_digest: HashMap<String, usize>,
    output: usize,
}

#[derive(Debug, Default)]
struct Gathered {
    vertex: Vertex,
    runs: BTreeMap<Timestamp, Option<Timestamp>>,
    log: Log,
    parts: Vec<VertexStatus>,
    part_index: HashMap<String, usize>,
    warnings: Vec<String>,
}

impl Gathered {
    fn end(&self) -> Option<Timestamp> {
        self.runs.values().copied().max().flatten()
    }
}

impl Collector {
    pub(super) fn take(&mut self, message: StatusResponse) {
        for vertex in message.vertexes {
            let step = self.step(&vertex.digest);
            if let Some(started) = vertex.started.as_ref().and_then(timestamp) {
                let completed = vertex.completed.as_ref().and_then(timestamp);
                step.runs.insert(started, completed.map(|time| time.max(started)));
            }
            // A late announcement must not wipe out what a start has told.
            if step.vertex.started.is_none() || vertex.started.is_some() {
                step.vertex = vertex;
            }
        }
        for status in message.statuses {
            let step = self.step(&status.vertex);
            match step.part_index.get(&status.id) {
                Some(&position) => step.parts[position] = status,
                None if step.parts.len() < MOST_PARTS => {
                    step.part_index.insert(status.id.clone(), step.parts.len());
                    step.parts.push(status);
                }
                None => {}
            }
        }
        for warning in message.warnings {
            let text = String::from_utf8_lossy(&warning.short).into_owned();
            self.step(&warning.vertex).warnings.push(text);
        }
        for log in message.logs {
            let bounds = if self.output < BUDGET { USUAL } else { SHORT };
            let step = self.step(&log.vertex);
            let before = step.log.size();
            step.log.push(&log.msg, bounds);
            let after = step.log.size();
            self.output = (self.output + after).saturating_sub(before);
        }
    }

    fn step(&mut self, digest: &str) -> &mut Gathered {
        let position = *self.by_digest.entry(digest.to_owned()).or_insert_with(|| {
            self.steps.push(Gathered::default());
            self.steps.len() - 1
        });
        &mut self.steps[position]
    }

    /// The steps in the order in which they started, those that never did at the end, and how long all took.
    ///
    /// `only` is the platform if there is a single one: names do not tell it then.
    pub(super) fn finish(
        mut self,
        begin: Option<Timestamp>,
        end: Option<Timestamp>,
        native: &str,
        only: &str,
    ) -> (Vec<Step>, f64) {
        self.steps.retain(|step| !step.vertex.name.is_empty());
        self.steps
            .sort_by_key(|step| (step.runs.is_empty(), step.runs.keys().next().copied()));
        let positions: HashMap<String, usize> = self
            .steps
            .iter()
            .enumerate()
            .map(|(position, step)| (step.vertex.digest.clone(), position))
            .collect();
        let first = self
            .steps
            .iter()
            .filter_map(|step| step.runs.keys().next().copied())
            .min();
        let last = self.steps.iter().filter_map(Gathered::end).max();
        // Clocks may have been set while it ran: nothing begins before the beginning.
        let begin = begin.into_iter().chain(first).min().unwrap_or_default();
        let end = end.into_iter().chain(last).max().unwrap_or(begin);
        let clock = Clock { begin, end };
        let ends: Vec<Option<Timestamp>> = self.steps.iter().map(Gathered::end).collect();
        let inputs: Vec<Vec<usize>> = self
            .steps
            .iter()
            .map(|step| {
                let digests = step.vertex.inputs.iter();
                digests
                    .filter_map(|digest| positions.get(digest).copied())
                    .collect()
            })
            .collect();
        let mut parsed: Vec<Parsed> = self
            .steps
            .iter()
            .map(|step| Parsed::of(&step.vertex.name))
            .collect();
        for position in 0..parsed.len() {
            if parsed[position].platform.is_none() && parsed[position].is_numbered() {
                let platform = match only {
                    "" => common_platform(&inputs[position], &parsed),
                    only => Some(only.to_owned()),
                };
                parsed[position].runs_on.clone_from(&platform);
                parsed[position].platform = platform;
            }
        }
        let steps = self
            .steps
            .into_iter()
            .zip(parsed)
            .zip(inputs)
            .map(|((step, parsed), inputs)| {
                let ready = inputs.iter().filter_map(|&input| ends[input]).max();
                shown(step, parsed, inputs, ready, &clock, native)
            })
            .collect();
        (steps, clock.since_begin(end))
    }
}

struct Clock {
    begin: Timestamp,
    end: Timestamp,
}

impl Clock {
    fn since_begin(&self, time: Timestamp) -> f64 {
        let milliseconds = time.duration_since(self.begin).as_secs_f64() * 1000.0;
        (milliseconds * 1000.0).round() / 1000.0
    }
}

/// Names of some steps do not tell their platform; then it is that of all they are made from.
fn common_platform(inputs: &[usize], parsed: &[Parsed]) -> Option<String> {
    let mut platforms = inputs.iter().filter_map(|&input| parsed[input].platform.as_ref());
    let first = platforms.next()?;
    platforms.all(|other| other == first).then(|| first.clone())
}

fn shown(
    step: Gathered,
    parsed: Parsed,
    inputs: Vec<usize>,
    ready: Option<Timestamp>,
    clock: &Clock,
    native: &str,
) -> Step {
    let runs: Vec<[f64; 2]> = step
        .runs
        .iter()
        .map(|(&start, &stop)| {
            [
                clock.since_begin(start),
                clock.since_begin(stop.unwrap_or(clock.end)),
            ]
        })
        .collect();
    let queued = ready.map(|ready| clock.since_begin(ready));
    let queued = queued.filter(|ready| runs.first().is_some_and(|[start, _]| start - ready >= LEAST_WAIT));
    let is_open = step.runs.values().any(Option::is_none);
    let vertex = step.vertex;
    let state = if vertex.error.ends_with("context canceled") {
        "canceled"
    } else if !vertex.error.is_empty() {
        "failed"
    } else if runs.is_empty() {
        "waiting"
    } else if vertex.cached {
        "cached"
    } else if is_open {
        "running"
    } else {
        "done"
    };
    let (log, log_missing) = step.log.finish();
    let mut error = vertex.error;
    if error.len() > LONGEST_ERROR {
        error.truncate(error.floor_char_boundary(LONGEST_ERROR));
        error.push('…');
    }
    Step {
        emulated: state != "cached" && parsed.is_emulated(native),
        name: vertex.name,
        stage: parsed.stage,
        command: parsed.command,
        platform: parsed.platform.unwrap_or_default(),
        state,
        queued: queued.filter(|_| !vertex.cached),
        runs,
        error,
        log,
        log_missing,
        parts: step.parts.into_iter().map(part).collect(),
        warnings: step.warnings,
        inputs,
    }
}

fn part(status: VertexStatus) -> Part {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(timestamp);
    let seconds = match (time(&status.started), time(&status.completed)) {
        (Some(start), Some(stop)) => stop.duration_since(start).as_secs_f64().max(0.0),
        _ => 0.0,
    };
    Part {
        name: if status.name.is_empty() {
            status.id
        } else {
            status.name
        },
        bytes: status.current.max(status.total),
        seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp {
            seconds: milliseconds / 1000,
            nanos: i32::try_from(milliseconds % 1000 * 1_000_000).unwrap(),
        })
    }

    fn vertex(digest: &str, name: &str, inputs: &[&str], times: [Option<i64>; 2]) -> Vertex {
        Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            started: times[0].and_then(at),
            completed: times[1].and_then(at),
            ..Vertex::default()
        }
    }

    #[test]
    fn messages_become_steps() {
        let mut collector = Collector::default();
        let failed = Vertex {
            error: "exit code: 1".to_owned(),
            ..vertex(
                "c",
                "[linux/arm64 3/3] RUN false",
                &["b"],
                [Some(1900), Some(2000)],
            )
        };
        collector.take(StatusResponse {
            vertexes: vec![
                vertex("a", "[linux/arm64 1/3] FROM base", &[], [None, None]),
                vertex("b", "[2/3] RUN make", &["a"], [Some(1400), None]),
                vertex("never", "[linux/arm64 4/3] RUN more", &["c"], [None, None]),
            ],
            ..StatusResponse::default()
        });
        collector.take(StatusResponse {
            vertexes: vec![
                vertex("a", "[linux/arm64 1/3] FROM base", &[], [Some(1000), Some(1100)]),
                vertex(
                    "b",
                    "[linux/arm64 2/3] RUN make",
                    &["a"],
                    [Some(1400), Some(1900)],
                ),
                failed,
            ],
            ..StatusResponse::default()
        });
        let begin = Timestamp::from_millisecond(900).unwrap();
        let end = Timestamp::from_millisecond(2100).unwrap();
        let (steps, duration) = collector.finish(Some(begin), Some(end), "linux/amd64", "");
        assert_eq!(duration, 1200.0);
        let summary: Vec<_> = steps
            .iter()
            .map(|step| {
                (
                    step.state,
                    step.emulated,
                    step.queued,
                    step.runs.clone(),
                    step.inputs.clone(),
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                ("done", false, None, vec![[100.0, 200.0]], vec![]),
                ("done", true, Some(200.0), vec![[500.0, 1000.0]], vec![0]),
                ("failed", true, None, vec![[1000.0, 1100.0]], vec![1]),
                ("waiting", true, None, vec![], vec![2]),
            ]
        );
    }
}
