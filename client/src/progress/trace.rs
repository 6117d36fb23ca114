//! The state of a build as a display needs it, folded from the stream of status messages.
//!
//! A vertex may be announced, started, completed, and started again; its time is the union of its intervals. Vertices
//! that share a progress group are one line, hidden until a member that is not weak has started. What a display has not
//! yet shown is kept as news and handed out by [`Step::take_news`]; the tail of the log stays for the failure report.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;

use super::status::{Status, Vertex, VertexLog, VertexStatus, VertexWarning};
use super::units;

/// Lines of output repeated when a step has failed.
const TAIL_LINES: usize = 10;
/// A line longer than this is shown in pieces, so that output without line ends needs no unbounded memory.
const LONGEST_LINE: usize = 64 * 1024;

#[derive(Debug, Default)]
pub struct Trace {
    /// Every vertex and group ever mentioned.
    steps: Vec<Step>,
    by_digest: HashMap<String, usize>,
    groups: HashMap<String, usize>,
    /// In the order in which they started.
    started: Vec<usize>,
    pub first_start: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub struct Step {
    pub name: String,
    pub cached: bool,
    pub error: String,
    pub hidden: bool,
    /// Number in the plain display, given when it is first printed.
    pub index: Option<usize>,
    intervals: BTreeMap<Timestamp, Option<Timestamp>>,
    members: BTreeMap<String, Vertex>,
    is_group: bool,
    pub statuses: Vec<VertexStatus>,
    status_index: HashMap<String, usize>,
    pub warnings: Vec<VertexWarning>,
    partial: Vec<u8>,
    pub tail: VecDeque<String>,
    news: News,
}

/// What happened to a step since a display last asked.
#[derive(Debug, Default)]
pub struct News {
    pub changed: bool,
    /// Positions in [`Step::statuses`].
    pub statuses: Vec<usize>,
    pub warnings: Vec<usize>,
    pub lines: Vec<Vec<u8>>,
}

impl News {
    pub fn is_empty(&self) -> bool {
        !self.changed && self.statuses.is_empty() && self.warnings.is_empty() && self.lines.is_empty()
    }
}

impl Step {
    pub fn is_started(&self) -> bool {
        !self.intervals.is_empty()
    }

    pub fn is_completed(&self) -> bool {
        self.is_started() && self.intervals.values().all(Option::is_some)
    }

    pub fn is_canceled(&self) -> bool {
        self.error.ends_with("context canceled")
    }

    pub fn has_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }

    pub fn last_stop(&self) -> Option<Timestamp> {
        self.intervals.values().copied().flatten().max()
    }

    pub fn first_start(&self) -> Option<Timestamp> {
        self.intervals.keys().next().copied()
    }

    /// Seconds in which this step was at work; overlapping intervals count once.
    pub fn seconds(&self, now: Timestamp) -> f64 {
        let mut total = 0.0;
        let mut until: Option<Timestamp> = None;
        for (&start, stop) in &self.intervals {
            let stop = stop.unwrap_or(now);
            let start = until.map_or(start, |until| until.max(start));
            if stop > start {
                total += seconds_between(start, stop);
                until = Some(stop);
            }
        }
        total
    }

    /// The platform that a step's name begins with, as in `[linux/arm64 builder 2/4] RUN make`. A step that runs on one
    /// platform for another (`linux/amd64->arm64`) counts for the target.
    pub fn platform(&self) -> Option<String> {
        let first = self.name.strip_prefix('[')?.split([' ', ']']).next()?;
        let (os, rest) = first.split_once('/')?;
        if !matches!(os, "linux" | "windows" | "darwin" | "freebsd" | "wasi") {
            return None;
        }
        let architecture = rest.split_once("->").map_or(rest, |(_, target)| target);
        Some(
            if architecture.contains('/') && architecture.split('/').next().is_some_and(|first| first == os) {
                architecture.to_owned()
            } else {
                format!("{os}/{architecture}")
            },
        )
    }

    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    pub fn news_size(&self) -> usize {
        self.news.lines.iter().map(Vec::len).sum()
    }

    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    fn set_interval(&mut self, start: Timestamp, stop: Option<Timestamp>) -> bool {
        // A stop before the start would make a negative duration.
        let stop = stop.map(|stop| stop.max(start));
        self.intervals.insert(start, stop) != Some(stop)
    }

    fn refresh_group(&mut self) {
        let members: Vec<Vertex> = self.members.values().cloned().collect();
        let mut changed = false;
        for member in &members {
            if let Some(start) = member.started {
                changed |= self.set_interval(start, member.completed);
                if !member.group.as_ref().is_some_and(|group| group.weak) {
                    changed |= std::mem::replace(&mut self.hidden, false);
                }
            }
            if self.error.is_empty() && !member.error.is_empty() {
                self.error.clone_from(&member.error);
                self.hidden = false;
                changed = true;
            }
        }
        let cached = members.iter().all(|member| member.cached);
        changed |= cached != self.cached;
        self.cached = cached;
        self.news.changed |= changed;
    }

    fn push_log(&mut self, log: &VertexLog) {
        let offset = self
            .intervals
            .keys()
            .next_back()
            .map_or(0.0, |&start| seconds_between(start, log.timestamp).max(0.0));
        for piece in log.data.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.is_empty() {
                self.partial
                    .extend_from_slice(units::log_offset(offset).as_bytes());
                self.partial.push(b' ');
            }
            match piece.strip_suffix(b"\n") {
                Some(line) => {
                    self.partial.extend_from_slice(line);
                    self.end_line();
                }
                None => {
                    self.partial.extend_from_slice(piece);
                    if self.partial.len() > LONGEST_LINE {
                        self.end_line();
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(String::from_utf8_lossy(&line).into_owned());
        self.news.lines.push(line);
    }
}

impl Trace {
    pub fn update(&mut self, status: &Status) {
        let mut touched_groups = Vec::new();
        for vertex in &status.vertexes {
            if self.first_start.is_none() {
                self.first_start = vertex.started;
            }
            if let Some(group) = &vertex.group {
                let position = *self.groups.entry(group.id.clone()).or_insert_with(|| {
                    self.steps.push(Step {
                        name: group.name.clone(),
                        hidden: true,
                        is_group: true,
                        ..Step::default()
                    });
                    self.steps.len() - 1
                });
                self.by_digest.insert(vertex.digest.clone(), position);
                self.steps[position]
                    .members
                    .insert(vertex.digest.clone(), vertex.clone());
                if !touched_groups.contains(&position) {
                    touched_groups.push(position);
                }
            } else {
                self.update_vertex(vertex);
            }
        }
        for position in touched_groups {
            self.steps[position].refresh_group();
            if !self.steps[position].hidden {
                self.note_start(position);
            }
        }
        for item in &status.statuses {
            if let Some(step) = self.step_of(&item.vertex) {
                let position = match step.status_index.get(&item.id) {
                    Some(&position) => {
                        step.statuses[position] = item.clone();
                        position
                    }
                    None => {
                        step.statuses.push(item.clone());
                        step.status_index.insert(item.id.clone(), step.statuses.len() - 1);
                        step.statuses.len() - 1
                    }
                };
                if !step.news.statuses.contains(&position) {
                    step.news.statuses.push(position);
                }
            }
        }
        for warning in &status.warnings {
            if let Some(step) = self.step_of(&warning.vertex) {
                step.warnings.push(warning.clone());
                step.news.warnings.push(step.warnings.len() - 1);
            }
        }
        for log in &status.logs {
            if let Some(step) = self.step_of(&log.vertex) {
                step.push_log(log);
            }
        }
        for step in &mut self.steps {
            if !step.partial.is_empty() && step.is_completed() {
                step.end_line();
            }
        }
    }

    fn update_vertex(&mut self, vertex: &Vertex) {
        let position = *self.by_digest.entry(vertex.digest.clone()).or_insert_with(|| {
            self.steps.push(Step::default());
            self.steps.len() - 1
        });
        let step = &mut self.steps[position];
        if step.is_group {
            return;
        }
        // A late second announcement must not wipe out what a start has told.
        if !step.is_started() || vertex.started.is_some() {
            let changed = vertex.started.is_some()
                && (step.name != vertex.name || step.cached != vertex.cached || step.error != vertex.error);
            step.news.changed |= changed;
            step.name.clone_from(&vertex.name);
            step.cached = vertex.cached;
            step.error.clone_from(&vertex.error);
        }
        if let Some(start) = vertex.started {
            let changed = step.set_interval(start, vertex.completed);
            step.news.changed |= changed;
            self.note_start(position);
        }
    }

    fn note_start(&mut self, position: usize) {
        if self.steps[position].is_started() && !self.started.contains(&position) {
            self.started.push(position);
        }
    }

    fn step_of(&mut self, digest: &str) -> Option<&mut Step> {
        self.by_digest
            .get(digest)
            .map(|&position| &mut self.steps[position])
    }

    /// Positions of the visible steps in the order in which they started.
    pub fn visible(&self) -> impl Iterator<Item = usize> + '_ {
        self.started
            .iter()
            .copied()
            .filter(|&position| !self.steps[position].hidden)
    }

    pub fn step(&self, position: usize) -> &Step {
        &self.steps[position]
    }

    pub fn step_mut(&mut self, position: usize) -> &mut Step {
        &mut self.steps[position]
    }

    /// Completed and known steps.
    pub fn counts(&self) -> (usize, usize) {
        let shown = self.steps.iter().filter(|step| !step.hidden);
        (
            shown.clone().filter(|step| step.is_completed()).count(),
            shown.count(),
        )
    }

    /// The last lines of every step that failed by itself, as a report that ends the display.
    pub fn failure_report(&self) -> String {
        let mut report = String::new();
        for position in self.visible() {
            let step = &self.steps[position];
            if !step.has_failed() {
                continue;
            }
            report.push_str(&format!("------\n > {}:\n", step.name));
            for line in &step.tail {
                report.push_str(line);
                report.push('\n');
            }
            report.push_str("------\n");
        }
        report
    }

    pub fn warnings(&self) -> impl Iterator<Item = &VertexWarning> {
        self.steps.iter().flat_map(|step| &step.warnings)
    }
}

pub fn seconds_between(start: Timestamp, stop: Timestamp) -> f64 {
    stop.duration_since(start).as_secs_f64()
}
