//! A step as the page shows it, and what its name says of it.

use binfmt::Platform;
use serde::Serialize;

/// Times are milliseconds since the start of the build.
#[derive(Debug, Default, Serialize)]
pub(super) struct Step {
    pub name: String,
    /// What stands in the name's brackets beside the platform: `builder 2/4`, `internal`.
    pub stage: String,
    pub command: String,
    /// Empty for what is done for all platforms.
    pub platform: String,
    pub state: &'static str,
    pub emulated: bool,
    /// From when on everything was there that it needed, if it did not start then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<f64>,
    pub runs: Vec<[f64; 2]>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub log_missing: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Positions of the steps whose results it used.
    pub inputs: Vec<usize>,
}

/// A part of a step with progress of its own: a layer that is pulled, a file that is sent.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub name: String,
    pub bytes: i64,
    pub seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What `[linux/amd64->arm64 builder 2/4] RUN make` says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parsed {
    pub stage: String,
    pub command: String,
    /// What it is done for.
    pub platform: Option<String>,
    /// What its programs run on.
    pub runs_on: Option<String>,
}

impl Parsed {
    pub(super) fn of(name: &str) -> Self {
        let plain = || Self {
            command: name.to_owned(),
            ..Self::default()
        };
        let Some((inside, command)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return plain();
        };
        let (first, rest) = inside.split_once(' ').unwrap_or((inside, ""));
        let (runs_on, target) = first.split_once("->").unwrap_or((first, first));
        let Some((os, _)) = runs_on.split_once('/').filter(|(os, _)| is_os(os)) else {
            return Self {
                stage: inside.to_owned(),
                command: command.trim().to_owned(),
                ..Self::default()
            };
        };
        // The target's operating system is left out where it is the same.
        let target = match target.split_once('/') {
            Some((first, _)) if is_os(first) => target.to_owned(),
            _ => format!("{os}/{target}"),
        };
        Self {
            stage: rest.to_owned(),
            command: command.trim().to_owned(),
            platform: Some(target),
            runs_on: Some(runs_on.to_owned()),
        }
    }

    /// Whether it is one of the numbered steps of a Dockerfile: `2/4`, `builder 2/4`.
    pub(super) fn is_numbered(&self) -> bool {
        let last = self.stage.rsplit(' ').next().unwrap_or_default();
        last.split_once('/').is_some_and(|(number, count)| {
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number(number) && is_number(count)
        })
    }

    /// Whether its programs are for a processor that the machine does not have.
    pub(super) fn is_emulated(&self, native: &str) -> bool {
        let is_run = self.command.starts_with("RUN ");
        let runs_on = self.runs_on.as_deref().unwrap_or_default();
        let (Ok(runs_on), Ok(native)) = (runs_on.parse::<Platform>(), native.parse::<Platform>()) else {
            return false;
        };
        let ancestor = match native.architecture() {
            "amd64" => "386",
            "arm64" => "arm",
            other => other,
        };
        let (needed, there) = (runs_on.architecture(), native.architecture());
        is_run && needed != there && needed != ancestor
    }
}

fn is_os(text: &str) -> bool {
    matches!(
        text,
        "linux" | "windows" | "darwin" | "freebsd" | "wasi" | "wasip1"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_stage_platform_and_command() {
        for (name, stage, command, platform, runs_on, numbered) in [
            (
                "[linux/arm64 builder 2/4] RUN make [all]",
                "builder 2/4",
                "RUN make [all]",
                Some("linux/arm64"),
                Some("linux/arm64"),
                true,
            ),
            (
                "[linux/amd64->arm/v7 2/4] RUN make",
                "2/4",
                "RUN make",
                Some("linux/arm/v7"),
                Some("linux/amd64"),
                true,
            ),
            ("[2/4] COPY a b", "2/4", "COPY a b", None, None, true),
            (
                "[internal] load build definition from Dockerfile",
                "internal",
                "load build definition from Dockerfile",
                None,
                None,
                false,
            ),
            ("exporting to image", "", "exporting to image", None, None, false),
            ("[broken", "", "[broken", None, None, false),
        ] {
            let parsed = Parsed::of(name);
            let expected = Parsed {
                stage: stage.to_owned(),
                command: command.to_owned(),
                platform: platform.map(str::to_owned),
                runs_on: runs_on.map(str::to_owned),
            };
            assert_eq!(parsed, expected);
            assert_eq!(parsed.is_numbered(), numbered, "{name}");
        }
    }

    #[test]
    fn programs_of_other_processors_are_emulated() {
        let run = Parsed::of("[linux/arm64 2/2] RUN x");
        assert!(run.is_emulated("linux/amd64"));
        assert!(!run.is_emulated("linux/arm64"));
        assert!(!run.is_emulated(""));
        assert!(!Parsed::of("[linux/386 2/2] RUN x").is_emulated("linux/amd64"));
        let copy = Parsed::of("[linux/arm64 2/2] COPY x /");
        assert!(!copy.is_emulated("linux/amd64"));
    }
}
