//! What steps are called in progress displays: `[linux/arm64 builder 2/4] RUN make`.

use binfmt::Platform;
use dockerfile::expand::{Environment, Expander};

/// The place of a stage in names.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// Empty if the file has only one stage.
    pub(super) stage: String,
    pub(super) show_platform: bool,
    pub(super) total: usize,
    pub(super) done: usize,
}

impl Prefix {
    /// Another name of the step that [`Prefix::next`] named last.
    pub(super) fn again(
        &mut self,
        text: &str,
        platform: &Platform,
        environment: &Environment,
        on_build: bool,
    ) -> String {
        self.done = self.done.saturating_sub(1);
        self.next(text, platform, environment, on_build)
    }

    /// The name of the next step.
    pub(super) fn next(
        &mut self,
        text: &str,
        platform: &Platform,
        environment: &Environment,
        on_build: bool,
    ) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.done += 1;
        let platform = match self.show_platform {
            true => format!("{platform}{} ", cross_target(platform, environment)),
            false => String::new(),
        };
        let between = if self.stage.is_empty() { "" } else { " " };
        let width = self.total.ilog10() as usize + 1;
        let place = format!("{:>width$}/{}] ", self.done, self.total);
        let trigger = if on_build { "ONBUILD " } else { "" };
        ["[", &platform, &self.stage, between, &place, trigger, text].concat()
    }
}

/// `->arm64` where a stage that runs on one platform has been told that it builds for another.
fn cross_target(platform: &Platform, environment: &Environment) -> String {
    let target = match environment.get("TARGETPLATFORM").map(str::parse::<Platform>) {
        Some(Ok(target)) => target,
        _ => {
            let part = |name: &str| environment.get(name);
            let (os, architecture, variant) = (part("TARGETOS"), part("TARGETARCH"), part("TARGETVARIANT"));
            if os.is_none() && architecture.is_none() && variant.is_none() {
                return String::new();
            }
            let or = |part: Option<&str>, default: &str| {
                part.filter(|part| !part.is_empty()).unwrap_or(default).to_owned()
            };
            Platform::new(
                &or(os, platform.os()),
                &or(architecture, platform.architecture()),
                variant.unwrap_or_default(),
            )
        }
    };
    if target.os() != platform.os() {
        return format!("->{target}");
    }
    if target.architecture() == platform.architecture() {
        return String::new();
    }
    match target.variant() {
        "" => format!("->{}", target.architecture()),
        variant => format!("->{}/{variant}", target.architecture()),
    }
}

/// An instruction as it is shown: keyword in capitals, variables replaced. What cannot be expanded stays as it is.
pub(super) fn shown(code: &str, expander: &Expander, environment: &Environment) -> String {
    let text = expander
        .text(code, environment)
        .unwrap_or_else(|_| code.to_owned());
    match text.split_once(' ') {
        Some((keyword, _)) if !keyword.contains(char::is_lowercase) => text,
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}
