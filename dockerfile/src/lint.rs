//! Rules about Dockerfiles that build and still are not what their author should want.
//!
//! The rules, their texts and their pages are BuildKit's. What can be seen in the text alone is found by
//! [`Linter::check`]; what depends on values, on base images or on ignore files is reported by the frontend.
//! `# check=skip=Rule;error=true` on top of the file, or above an instruction, says what is wanted.

mod text;

use std::collections::BTreeSet;

use crate::parser::Lines;

/// A rule by its public name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    ConsistentInstructionCasing,
    CopyIgnoredFile,
    DuplicateStageName,
    ExposeInvalidFormat,
    ExposeProtoCasing,
    FromAsCasing,
    FromPlatformFlagConstDisallowed,
    InvalidBaseImagePlatform,
    InvalidDefaultArgInFrom,
    InvalidDefinitionDescription,
    JsonArgsRecommended,
    LegacyKeyValueFormat,
    MaintainerDeprecated,
    MultipleInstructionsDisallowed,
    NoEmptyContinuation,
    RedundantTargetPlatform,
    ReservedStageName,
    SecretsUsedInArgOrEnv,
    StageNameCasing,
    UndefinedArgInFrom,
    UndefinedVar,
    WorkdirRelativePath,
}

impl Rule {
    /// Name, address of its page, and what it is about.
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "copy-ignored-file",
                "Attempting to Copy file that is excluded by .dockerignore",
            ),
            Self::DuplicateStageName => (
                "DuplicateStageName",
                "duplicate-stage-name",
                "Stage names should be unique",
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "expose-proto-casing",
                "Protocol in EXPOSE instruction should be lowercase",
            ),
            Self::FromAsCasing => (
                "FromAsCasing",
                "from-as-casing",
                "The 'as' keyword should match the case of the 'from' keyword",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "",
                "Base image platform does not match expected target platform",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
            ),
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Self::ReservedStageName => (
                "ReservedStageName",
                "reserved-stage-name",
                "Reserved words should not be used as stage names",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::StageNameCasing => (
                "StageNameCasing",
                "stage-name-casing",
                "Stage names should be lowercase",
            ),
            Self::UndefinedArgInFrom => (
                "UndefinedArgInFrom",
                "undefined-arg-in-from",
                "FROM command must use declared ARGs",
            ),
            Self::UndefinedVar => (
                "UndefinedVar",
                "undefined-var",
                "Variables should be defined before their use",
            ),
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
            ),
        }
    }

    pub fn name(self) -> &'static str {
        self.facts().0
    }

    pub fn description(self) -> &'static str {
        self.facts().2
    }

    /// Such a rule is checked only where `experimental=` asks for it, and `skip=` does not concern it.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// The page that explains the rule; empty if there is none.
    pub fn url(self) -> String {
        match self.facts().1 {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub message: String,
    pub lines: Lines,
}

impl Finding {
    /// One line for a display.
    pub fn summary(&self) -> String {
        format!(
            "{}: {} (line {})",
            self.rule.name(),
            self.message,
            self.lines.first
        )
    }
}

/// What `check=` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    skip_all: bool,
    skipped: BTreeSet<String>,
    all_experimental: bool,
    experimental: BTreeSet<String>,
    /// Findings fail the build.
    pub as_error: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum SettingsError {
    #[error("invalid check option {0:?}")]
    Option(String),
    #[error("failed to parse check option {0:?}: expected a boolean")]
    Boolean(String),
}

impl Settings {
    /// `skip=Rule,Other;error=true;experimental=Rule`, where `all` stands for every rule.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| SettingsError::Option(option.to_owned()))?;
            let rules = || value.split(',').map(|rule| rule.trim().to_owned());
            match name.trim() {
                "skip" if value.trim() == "all" => settings.skip_all = true,
                "skip" => settings.skipped.extend(rules()),
                "experimental" if value.trim() == "all" => settings.all_experimental = true,
                "experimental" => settings.experimental.extend(rules()),
                "error" => {
                    settings.as_error = match value.trim() {
                        "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
                        "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
                        _ => return Err(SettingsError::Boolean(option.to_owned())),
                    }
                }
                _ => return Err(SettingsError::Option(option.to_owned())),
            }
        }
        Ok(settings)
    }

    /// Whether a rule is checked, where `above` are the settings of the instruction it is about.
    fn checks(&self, rule: Rule, above: Option<&Self>) -> bool {
        let mut both = std::iter::once(self).chain(above);
        if rule.is_experimental() {
            return both
                .any(|settings| settings.all_experimental || settings.experimental.contains(rule.name()));
        }
        !both.any(|settings| settings.skip_all || settings.skipped.contains(rule.name()))
    }
}

/// Collects findings that nobody asked to skip.
#[derive(Clone, Debug, Default)]
pub struct Linter {
    settings: Settings,
    findings: Vec<Finding>,
}

impl Linter {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            findings: Vec::new(),
        }
    }

    /// `comments` are those above the instruction, which may skip rules for it alone.
    pub fn report(&mut self, rule: Rule, message: String, lines: Lines, comments: &[String]) {
        let finding = Finding { rule, message, lines };
        if self.settings.checks(rule, above(comments).as_ref()) && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The names of the broken rules, if findings are to fail the build and there are any.
    pub fn violation(&self) -> Option<String> {
        let rules: BTreeSet<&str> = self.findings.iter().map(|finding| finding.rule.name()).collect();
        let fails = self.settings.as_error && !rules.is_empty();
        fails.then(|| rules.into_iter().collect::<Vec<_>>().join(", "))
    }
}

/// The settings of the first comment that has some.
fn above(comments: &[String]) -> Option<Settings> {
    comments.iter().find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        let value = value.split_whitespace().next().unwrap_or_default();
        let settings = Settings::parse(value).ok();
        settings.filter(|_| name.trim().eq_ignore_ascii_case("check"))
    })
}

/// What the comments above an instruction say about the thing it defines: `# name what it is`.
pub fn description<'a>(comments: &'a [String], name: &str) -> &'a str {
    let of_name = |comment: &'a String| comment.strip_prefix(name)?.strip_prefix(' ');
    comments
        .iter()
        .find_map(of_name)
        .filter(|_| !name.is_empty())
        .unwrap_or_default()
}

/// Whether a name looks as if its value were a secret: one of its words does, and none says that it is harmless.
pub fn names_a_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}
