//! The plain display: one line after the other, in the format of BuildKit, fit for logs and pipes.
//!
//! Lines of one step stay together. The printer leaves a step only when it has completed, or when another one has waited
//! for [`PATIENCE`] with something to say; it then writes `#n ...` and the name of the next step. A step that completed
//! is always printed before one that still runs.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::trace::{News, Trace, seconds_between};
use super::units;

/// How long the lines of the step on screen go before those of another one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Unprinted output of one step that ends the patience: memory stays bounded.
const BACKLOG: usize = 256 * 1024;
/// A byte count is shown again after five seconds, or after five hundredths of its total.
const STATUS_SECONDS: f64 = 5.0;
const STATUS_SHARE: f64 = 0.05;

#[derive(Debug)]
pub struct Plain<W> {
    out: W,
    heading: Option<String>,
    current: Option<usize>,
    on_screen_since: Instant,
    last_index: usize,
    has_printed: bool,
    shown_statuses: HashMap<(usize, usize), (i64, Timestamp)>,
}

impl<W: Write> Plain<W> {
    pub fn new(out: W, heading: Option<String>) -> Self {
        Self {
            out,
            heading,
            current: None,
            on_screen_since: Instant::now(),
            last_index: 0,
            has_printed: false,
            shown_statuses: HashMap::new(),
        }
    }

    /// Prints what is due. `now` is a parameter so that patience can be tested.
    pub fn refresh(&mut self, trace: &mut Trace, now: Instant) -> io::Result<()> {
        while let Some(next) = self.next(trace, now) {
            self.print(trace, next, now)?;
        }
        self.out.flush()
    }

    /// Everything that is left, and the report of failed steps.
    pub fn finish(&mut self, trace: &mut Trace) -> io::Result<()> {
        let now = Instant::now() + PATIENCE;
        self.refresh(trace, now)?;
        self.out.write_all(trace.failure_report().as_bytes())?;
        self.out.flush()
    }

    fn next(&self, trace: &Trace, now: Instant) -> Option<usize> {
        let waiting: Vec<usize> = trace
            .visible()
            .filter(|&position| trace.step(position).has_news())
            .collect();
        if let Some(current) = self.current
            && waiting.contains(&current)
        {
            return Some(current);
        }
        let completed = waiting
            .iter()
            .copied()
            .filter(|&position| trace.step(position).is_completed());
        if let Some(first) = completed.min_by_key(|&position| trace.step(position).last_stop()) {
            return Some(first);
        }
        let patient = self.current.is_some() && now.duration_since(self.on_screen_since) < PATIENCE;
        waiting
            .into_iter()
            .find(|&position| !patient || trace.step(position).news_size() > BACKLOG)
    }

    fn print(&mut self, trace: &mut Trace, position: usize, now: Instant) -> io::Result<()> {
        if self.current != Some(position) {
            self.switch_to(trace, position)?;
            self.on_screen_since = now;
        }
        let step = trace.step_mut(position);
        let news = step.take_news();
        let index = step.index.unwrap_or_default();
        self.print_statuses(trace, position, index, &news)?;
        let step = trace.step(position);
        for &warning in &news.warnings {
            writeln!(
                self.out,
                "#{index} WARN: {}",
                String::from_utf8_lossy(&step.warnings[warning].short)
            )?;
        }
        for line in &news.lines {
            write!(self.out, "#{index} ")?;
            self.out.write_all(line)?;
            self.out.write_all(b"\n")?;
        }
        let open_status = news
            .statuses
            .iter()
            .any(|&status| step.statuses[status].completed.is_none());
        if step.is_completed() && !open_status {
            self.current = None;
            if step.is_canceled() {
                writeln!(self.out, "#{index} CANCELED")?;
            } else if step.has_failed() {
                writeln!(self.out, "#{index} ERROR: {}", step.error)?;
            } else if step.cached {
                writeln!(self.out, "#{index} CACHED")?;
            } else {
                writeln!(self.out, "#{index} DONE {:.1}s", step.seconds(Timestamp::now()))?;
            }
        }
        Ok(())
    }

    fn switch_to(&mut self, trace: &mut Trace, position: usize) -> io::Result<()> {
        if let Some(old) = self.current {
            writeln!(self.out, "#{} ...", trace.step(old).index.unwrap_or_default())?;
        }
        if self.has_printed {
            writeln!(self.out)?;
        } else if let Some(heading) = self.heading.take() {
            writeln!(self.out, "#0 {heading}\n")?;
        }
        self.has_printed = true;
        let step = trace.step_mut(position);
        let index = *step.index.get_or_insert_with(|| {
            self.last_index += 1;
            self.last_index
        });
        writeln!(self.out, "#{index} {}", step.name)?;
        self.current = Some(position);
        Ok(())
    }

    fn print_statuses(
        &mut self,
        trace: &Trace,
        position: usize,
        index: usize,
        news: &News,
    ) -> io::Result<()> {
        for &number in &news.statuses {
            let status = &trace.step(position).statuses[number];
            if let Some(&(current, at)) = self.shown_statuses.get(&(position, number))
                && status.completed.is_none()
            {
                let share = if status.total > 0 {
                    (status.current - current) as f64 / status.total as f64
                } else {
                    0.0
                };
                if share < STATUS_SHARE && seconds_between(at, status.timestamp) < STATUS_SECONDS {
                    continue;
                }
            }
            self.shown_statuses
                .insert((position, number), (status.current, status.timestamp));
            let count = match (status.current, status.total) {
                (current, total) if total != 0 => {
                    format!(" {} / {}", units::bytes(current), units::bytes(total))
                }
                (current, _) if current != 0 => format!(" {}", units::bytes(current)),
                _ => String::new(),
            };
            let seconds = status.started.map_or(0.0, |started| {
                seconds_between(started, status.completed.unwrap_or(status.timestamp))
            });
            let time = if seconds > 0.01 {
                format!(" {seconds:.1}s")
            } else {
                String::new()
            };
            let done = if status.completed.is_some() { " done" } else { "" };
            writeln!(self.out, "#{index} {}{count}{time}{done}", status.id)?;
        }
        Ok(())
    }
}
