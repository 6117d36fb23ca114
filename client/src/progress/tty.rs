//! The live display: one line per step with its elapsed time, a window on the output of the busiest steps, and a line
//! that sums up each platform when several are built.
//!
//! The whole picture is redrawn in place. Drawing is a pure function of the trace, the size and the clock
//! ([`picture`]); only [`Tty::refresh`] knows about cursor movements.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::Timestamp;

use super::trace::{Step, Trace, seconds_between};
use super::units;
use crate::settings::Settings;

/// Lines of a step's output shown while it runs.
const WINDOW: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Colours,
    None,
}

impl Paint {
    pub fn of(settings: &Settings) -> Self {
        if settings.wants_colour() {
            Self::Colours
        } else {
            Self::None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Heading,
    Running,
    Done,
    Failed,
    Canceled,
    Output,
}

impl Look {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Heading | Self::Running => None,
            Self::Done => Some("\x1b[34m"),
            Self::Failed => Some("\x1b[31m"),
            Self::Canceled => Some("\x1b[33m"),
            Self::Output => Some("\x1b[2m"),
        }
    }
}

#[derive(Debug)]
struct Line {
    text: String,
    look: Look,
}

#[derive(Debug)]
pub struct Tty<W> {
    out: W,
    /// What stands at the right of the heading: driver and builder.
    title: String,
    paint: Paint,
    drawn: usize,
    began: Timestamp,
}

impl<W: Write> Tty<W> {
    pub fn new(out: W, title: String, paint: Paint) -> Self {
        Self {
            out,
            title,
            paint,
            drawn: 0,
            began: Timestamp::now(),
        }
    }

    pub fn refresh(&mut self, trace: &Trace, size: Size, now: Timestamp) -> io::Result<()> {
        let elapsed = seconds_between(self.began, now);
        let lines = picture(trace, &self.title, size, now, elapsed, Extent::Screen);
        self.draw(&lines)
    }

    pub fn finish(&mut self, trace: &Trace, size: Size) -> io::Result<()> {
        let now = Timestamp::now();
        let elapsed = seconds_between(self.began, now);
        let lines = picture(trace, &self.title, size, now, elapsed, Extent::Everything);
        self.draw(&lines)?;
        self.out.write_all(trace.failure_report().as_bytes())?;
        self.out.flush()
    }

    fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut frame = String::from("\x1b[?25l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in lines {
            match (self.paint, line.look.code()) {
                (Paint::Colours, Some(code)) => frame.push_str(&format!("{code}{}\x1b[0m", line.text)),
                _ => frame.push_str(&line.text),
            }
            frame.push_str("\x1b[K\n");
        }
        // What an earlier, taller picture left below.
        frame.push_str("\x1b[J\x1b[?25h");
        self.drawn = lines.len();
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Screen,
    Everything,
}

fn picture(
    trace: &Trace,
    title: &str,
    size: Size,
    now: Timestamp,
    elapsed: f64,
    extent: Extent,
) -> Vec<Line> {
    let (completed, known) = trace.counts();
    let finished = extent == Extent::Everything && completed == known && known > 0;
    let state = if finished { "FINISHED" } else { "" };
    let heading = format!("[+] Building {elapsed:.1}s ({completed}/{known}) {state}");
    let mut lines = vec![Line {
        text: spread(&heading, title, size.columns),
        look: Look::Heading,
    }];
    if let Some(text) = platforms(trace, now) {
        lines.push(Line {
            text: shorten(&text, size.columns),
            look: Look::Heading,
        });
    }
    let head = lines.len();
    let windows = if extent == Extent::Screen {
        windows(trace, size)
    } else {
        Vec::new()
    };
    for position in trace.visible() {
        let step = trace.step(position);
        lines.push(step_line(step, size.columns, now));
        for status in &step.statuses {
            let count = match (status.current, status.total) {
                (current, total) if total != 0 => {
                    format!(" {} / {}", units::bytes(current), units::bytes(total))
                }
                (current, _) if current != 0 => format!(" {}", units::bytes(current)),
                _ => String::new(),
            };
            let seconds = status.started.map_or(0.0, |start| {
                seconds_between(start, status.completed.unwrap_or(now))
            });
            let look = if status.completed.is_some() {
                Look::Done
            } else {
                Look::Running
            };
            lines.push(Line {
                text: timed(&format!(" => => {}{count}", status.id), seconds, size.columns),
                look,
            });
        }
        for warning in &step.warnings {
            let text = format!(" => => WARN: {}", String::from_utf8_lossy(&warning.short));
            lines.push(Line {
                text: shorten(&text, size.columns),
                look: Look::Canceled,
            });
        }
        if windows.contains(&position) {
            let skipped = step.tail.len().saturating_sub(WINDOW);
            for text in step.tail.iter().skip(skipped) {
                let text: String = text
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                lines.push(Line {
                    text: shorten(&format!(" => => # {text}"), size.columns),
                    look: Look::Output,
                });
            }
        }
    }
    if extent == Extent::Screen {
        fit(&mut lines, head, size.rows.saturating_sub(1));
    }
    lines
}

/// Keeps the heading, everything that still runs, and the newest of the rest.
fn fit(lines: &mut Vec<Line>, head: usize, rows: usize) {
    let mut surplus = lines.len().saturating_sub(rows.max(head + 1));
    let mut position = head;
    while surplus > 0 && position < lines.len() {
        if matches!(lines[position].look, Look::Running | Look::Output) {
            position += 1;
        } else {
            lines.remove(position);
            surplus -= 1;
        }
    }
    lines.truncate(rows.max(head + 1));
}

/// Running steps with output, as many as the screen has room for.
fn windows(trace: &Trace, size: Size) -> Vec<usize> {
    let running: Vec<usize> = trace
        .visible()
        .filter(|&position| !trace.step(position).is_completed())
        .collect();
    let room = size.rows.saturating_sub(4 + running.len()) / (WINDOW + 1);
    running
        .into_iter()
        .filter(|&position| !trace.step(position).tail.is_empty())
        .take(room)
        .collect()
}

fn step_line(step: &Step, columns: usize, now: Timestamp) -> Line {
    let (mark, look) = if step.is_canceled() {
        ("CANCELED ", Look::Canceled)
    } else if step.has_failed() {
        ("ERROR ", Look::Failed)
    } else if step.cached {
        ("CACHED ", Look::Done)
    } else if step.is_completed() {
        ("", Look::Done)
    } else {
        ("", Look::Running)
    };
    Line {
        text: timed(
            &format!(" => {mark}{}", step.name.replace('\t', " ")),
            step.seconds(now),
            columns,
        ),
        look,
    }
}

/// One line for all platforms, when there are several: time from the first start to the last stop, and steps done.
fn platforms(trace: &Trace, now: Timestamp) -> Option<String> {
    #[derive(Default)]
    struct Sum {
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        done: usize,
        all: usize,
    }
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for position in trace.visible() {
        let step = trace.step(position);
        let Some(platform) = step.platform() else { continue };
        let sum = sums.entry(platform).or_default();
        sum.all += 1;
        sum.done += usize::from(step.is_completed());
        sum.from = sum.from.into_iter().chain(step.first_start()).min();
        let to = if step.is_completed() {
            step.last_stop()
        } else {
            Some(now)
        };
        sum.to = sum.to.into_iter().chain(to).max();
    }
    if sums.len() < 2 {
        return None;
    }
    let parts: Vec<String> = sums
        .iter()
        .map(|(platform, sum)| {
            let seconds = sum
                .from
                .zip(sum.to)
                .map_or(0.0, |(from, to)| seconds_between(from, to).max(0.0));
            format!("{platform} {seconds:.1}s ({}/{})", sum.done, sum.all)
        })
        .collect();
    Some(format!("    {}", parts.join(" · ")))
}

fn timed(text: &str, seconds: f64, columns: usize) -> String {
    // Rounding noise of steps that took no time at all reads better as zero.
    let seconds = if seconds < 0.05 { 0.0 } else { seconds };
    spread(text, &format!("{seconds:.1}s"), columns)
}

/// Text at the left and at the right edge; the left one gives way.
fn spread(left: &str, right: &str, columns: usize) -> String {
    let width = columns.saturating_sub(1);
    let right_width = right.chars().count();
    if right_width + 12 > width {
        return shorten(left, columns);
    }
    let left = shorten(left, width - right_width);
    let gap = width.saturating_sub(left.chars().count() + right_width);
    format!("{left}{}{right}", " ".repeat(gap))
}

fn shorten(text: &str, columns: usize) -> String {
    text.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests;
