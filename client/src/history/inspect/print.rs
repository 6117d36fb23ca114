//! An inspection for people, in the layout of buildx.

use jiff::tz::TimeZone;

use super::{Failure, Inspection};
use crate::gotime;
use crate::history::Outcome;
use crate::table::tab_stops;

/// Lines whose cells are ended by tabs.
#[derive(Default)]
struct Section(String);

impl Section {
    fn row(&mut self, label: &str, value: &str) {
        self.0.push_str(&format!("{label}:\t{value}\n"));
    }

    fn row_unless_empty(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.row(label, value);
        }
    }

    fn flag(&mut self, label: &str, value: bool) {
        if value {
            self.row(label, "true");
        }
    }

    fn laid_out(&self) -> String {
        tab_stops(&self.0)
    }
}

/// What the user named and wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The id is shown to those who did not name it.
    pub show_id: bool,
    pub show_stack: bool,
}

impl Inspection {
    pub fn print(&self, wish: Wish) -> String {
        let mut text = self.head(wish).laid_out();
        text.push('\n');
        text.push_str(&table("Named Context", &self.attributes.named_contexts));
        text.push_str(&self.course().laid_out());
        text.push('\n');
        text.push_str(&self.settings_section().laid_out());
        text.push('\n');
        text.push_str(&table("Build Arg", &self.attributes.build_args));
        text.push_str(&table("Label", &self.attributes.labels));
        if !self.materials.is_empty() {
            let mut rows = "URI\tDIGEST\n".to_owned();
            for material in &self.materials {
                rows.push_str(&format!("{}\t{}\n", material.uri, material.digests.join(", ")));
            }
            text.push_str(&format!("Materials:\n{}\n", tab_stops(&rows)));
        }
        if !self.attachments.is_empty() {
            let mut rows = "DIGEST\tPLATFORM\tTYPE\n".to_owned();
            for attachment in &self.attachments {
                rows.push_str(&format!(
                    "{}\t{}\t{}\n",
                    attachment.descriptor.digest,
                    attachment.platform.as_deref().unwrap_or_default(),
                    attachment.kind()
                ));
            }
            text.push_str(&format!("Attachments:\n{}\n", tab_stops(&rows)));
        }
        if let Some(failure) = &self.failure {
            text.push_str(&failure.print(wish));
        }
        text.push_str(&format!(
            "Print build logs: trimaran history logs {id}\nView build in a browser: trimaran history open {id}\n",
            id = self.id
        ));
        text
    }

    fn head(&self, wish: Wish) -> Section {
        let mut head = Section::default();
        head.row_unless_empty("Name", &self.name);
        if wish.show_id {
            head.row_unless_empty("Ref", &self.id);
        }
        head.row_unless_empty("Context", &self.context);
        head.row_unless_empty("Dockerfile", &self.dockerfile);
        head.row_unless_empty("VCS Repository", &self.repository);
        head.row_unless_empty("VCS Revision", &self.revision);
        head.row_unless_empty("Target", &self.attributes.target);
        head.row_unless_empty("Platforms", &self.attributes.platforms.join(", "));
        head.flag("Keep Git Dir", self.attributes.keep_git_dir);
        head
    }

    fn course(&self) -> Section {
        let mut course = Section::default();
        if let Some(started) = self.started {
            let started = started.to_zoned(TimeZone::system());
            course.row("Started", &started.strftime("%Y-%m-%d %H:%M:%S").to_string());
        }
        let running = match self.outcome {
            Some(Outcome::Running) => " (running)",
            _ => "",
        };
        let took = gotime::took(self.nanoseconds.unwrap_or_default());
        course.row("Duration", &format!("{took}{running}"));
        match (self.outcome, &self.failure) {
            (Some(Outcome::Failed), Some(failure)) => {
                course.row("Error", &format!("{} {}", code(failure.code), failure.message));
            }
            (Some(Outcome::Canceled), _) => course.row("Status", "Canceled"),
            _ => {}
        }
        let steps = self.steps;
        let share = match steps.total {
            0 => 0.0,
            total => f64::from(steps.cached) / f64::from(total) * 100.0,
        };
        course.row(
            "Build Steps",
            &format!("{}/{} ({share:.0}% cached)", steps.completed, steps.total),
        );
        course
    }

    fn settings_section(&self) -> Section {
        let settings = &self.attributes.settings;
        let mut section = Section::default();
        section.row_unless_empty("Network", &settings.network);
        section.row_unless_empty("Hostname", &settings.hostname);
        section.row_unless_empty("Extra Hosts", &settings.extra_hosts.join(", "));
        section.row_unless_empty("Cgroup Parent", &settings.cgroup_parent);
        section.row_unless_empty("Image Resolve Mode", &settings.image_resolve_mode);
        section.flag("Multi-Platform", settings.multi_platform);
        section.flag("No Cache", settings.no_cache);
        section.row_unless_empty("No Cache Filter", &settings.no_cache_filter.join(", "));
        for setting in &settings.texts {
            section.row_unless_empty(setting.title, &setting.shown);
        }
        for (key, value) in &settings.rest {
            section.row(key, value);
        }
        section
    }
}

impl Failure {
    fn print(&self, wish: Wish) -> String {
        let mut text = self.sources.clone();
        if !self.logs.is_empty() {
            text.push_str(&format!("Logs:\n> => {}:\n", self.step));
            for line in &self.logs {
                text.push_str(&format!("> {line}\n"));
            }
            text.push('\n');
        }
        if !self.stack.is_empty() {
            if wish.show_stack {
                text.push_str(&format!("\n{}\n", self.stack));
            } else {
                text.push_str("Enable --debug to see stack traces for error\n");
            }
        }
        text
    }
}

fn table(title: &str, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut rows = format!("{}\tVALUE\n", title.to_uppercase());
    for (name, value) in pairs {
        rows.push_str(&format!("{name}\t{value}\n"));
    }
    format!("{}\n", tab_stops(&rows))
}

/// The name of a gRPC code as Go has it.
fn code(code: i32) -> String {
    match tonic::Code::from(code) {
        tonic::Code::Ok => "OK".to_owned(),
        tonic::Code::Cancelled => "Canceled".to_owned(),
        tonic::Code::Unknown if code != 2 => format!("Code({code})"),
        other => format!("{other:?}"),
    }
}
