//! The answers in the form that BuildKit's clients read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dockerfile::lint::{Finding, description};
use dockerfile::{Dockerfile, Lines};
use proto::errdefs::{Position, Range, SourceInfo};
use proto::pb;
use serde::Serialize;

use super::super::outline::{Outline, Wanted};
use super::super::{Error, Problem};
use super::text::{self, table};
use super::{DESCRIBE, Metadata, OUTLINE, TARGETS, VERSION};

/// Something that is said both to programs and to people.
pub(super) trait Answer: Serialize {
    fn text(&self) -> String;

    fn metadata(&self) -> Result<Metadata, Error> {
        let json = serde_json::to_vec_pretty(self).map_err(Problem::WriteAnswer)?;
        Ok(Metadata::from([
            ("result.json".to_owned(), json),
            ("result.txt".to_owned(), self.text().into_bytes()),
            ("version".to_owned(), VERSION.as_bytes().to_vec()),
        ]))
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

impl Location {
    /// Every line is a range of its own; lines that are named twice are so once.
    pub(super) fn of(lines: &[Lines]) -> Self {
        let mut all: Vec<u32> = lines.iter().flat_map(|lines| lines.first..=lines.last).collect();
        all.sort_unstable();
        all.dedup();
        let position = |line: u32| Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        let range = |line| Range {
            start: position(line),
            end: position(line),
        };
        Self {
            ranges: all.into_iter().map(range).collect(),
        }
    }

    fn at(lines: Lines) -> Self {
        Self::of(&[lines])
    }

    pub(super) fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}

/// A Dockerfile as it is in JSON.
fn encoded(source: &pb::SourceInfo) -> Vec<String> {
    vec![BASE64_STANDARD.encode(&source.data)]
}

#[derive(Debug, Serialize)]
struct Described {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<Field>>,
    inputs: Option<Vec<Field>>,
    metadata: Vec<Field>,
    refs: Option<Vec<Field>>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: &'static str,
    description: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Description(Vec<Described>);

/// What can be asked. That of the rules is not listed, as BuildKit does not.
pub(super) fn describe() -> Description {
    let described = |name, description, opts: &[(&'static str, &'static str)]| {
        let field = |(name, description)| Field { name, description };
        let fields = |fields: &[(&'static str, &'static str)]| fields.iter().copied().map(field).collect();
        Described {
            name,
            version: VERSION,
            r#type: "rpc",
            description,
            opts: Some(fields(opts)),
            inputs: None,
            metadata: fields(&[("result.json", ""), ("result.txt", "")]),
            refs: None,
        }
    };
    Description(vec![
        described(
            OUTLINE,
            "List all parameters current build target supports",
            &[("target", "Target build stage")],
        ),
        described(TARGETS, "List all targets current build supports", &[]),
        described(DESCRIBE, "List available subrequest types", &[]),
    ])
}

impl Answer for Description {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|request| {
            let name = request.name.trim_start_matches("frontend.");
            vec![name, request.version, request.description]
        });
        let head = vec!["NAME", "VERSION", "DESCRIPTION"];
        table(std::iter::once(head).chain(rows), 1)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Outlined {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Asked>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Asked>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Arg {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Asked {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

impl Outlined {
    pub(super) fn new(outline: Outline, source: &pb::SourceInfo) -> Self {
        let asked = |(name, wanted): (String, Wanted)| Asked {
            name,
            required: wanted.required,
            location: Location::at(wanted.lines),
        };
        let args = outline.args.into_iter().map(|(name, declared)| Arg {
            name,
            description: declared.description,
            value: declared.value,
            location: Location::at(declared.lines),
        });
        Self {
            name: outline.name,
            description: outline.description,
            args: args.collect(),
            secrets: outline.secrets.into_iter().map(asked).collect(),
            ssh: outline.agents.into_iter().map(asked).collect(),
            sources: encoded(source),
        }
    }
}

impl Answer for Outlined {
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() {
                "(default)"
            } else {
                &self.name
            };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            text += &table(rows, 1);
            text.push('\n');
        }
        if !self.args.is_empty() {
            let head = vec!["BUILD ARG", "VALUE", "DESCRIPTION"];
            let rows = self.args.iter();
            let rows = rows.map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]);
            text += &table(std::iter::once(head).chain(rows), 3);
            text.push('\n');
        }
        for (title, asked) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if asked.is_empty() {
                continue;
            }
            let rows = asked.iter();
            let rows = rows.map(|asked| vec![asked.name.as_str(), if asked.required { "true" } else { "" }]);
            text += &table(std::iter::once(vec![title, "REQUIRED"]).chain(rows), 3);
            text.push('\n');
        }
        text
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Targets {
    targets: Vec<Target>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Target {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    location: Location,
}

impl Targets {
    pub(super) fn new(file: &Dockerfile, source: &pb::SourceInfo) -> Self {
        let targets = file.stages.iter().enumerate().map(|(at, stage)| {
            let name = stage.name.clone().unwrap_or_default();
            Target {
                description: description(&stage.comments, &name).to_owned(),
                default: at + 1 == file.stages.len(),
                base: stage.base.clone(),
                platform: stage.platform.clone().unwrap_or_default(),
                location: Location::at(stage.lines),
                name,
            }
        });
        Self {
            targets: targets.collect(),
            sources: encoded(source),
        }
    }
}

impl Answer for Targets {
    fn text(&self) -> String {
        let names = self
            .targets
            .iter()
            .map(|target| match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            });
        let names: Vec<String> = names.collect();
        let descriptions = self.targets.iter().map(|target| target.description.as_str());
        let rows = names.iter().zip(descriptions);
        let rows = rows.map(|(name, description)| vec![name.as_str(), description]);
        table(std::iter::once(vec!["TARGET", "DESCRIPTION"]).chain(rows), 1)
    }
}

/// What the rules found, and why the file does not build if it does not.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    /// `null` if there are none.
    warnings: Option<Vec<Warning>>,
    sources: Vec<SourceInfo>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError>,
}

#[derive(Debug, Serialize)]
pub(super) struct Warning {
    #[serde(rename = "ruleName")]
    pub(super) rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) url: String,
    pub(super) detail: String,
    pub(super) location: Location,
}

#[derive(Debug, Serialize)]
pub(super) struct BuildError {
    pub(super) message: String,
    pub(super) location: Location,
}

impl Findings {
    pub(super) fn new(findings: &[Finding], error: Option<BuildError>, source: &pb::SourceInfo) -> Self {
        let warnings: Vec<_> = findings.iter().map(warning).collect();
        Self {
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            sources: vec![source.into()],
            error,
        }
    }
}

fn warning(finding: &Finding) -> Warning {
    Warning {
        rule_name: finding.rule.name(),
        description: finding.rule.description(),
        url: finding.rule.url(),
        detail: finding.message.clone(),
        location: Location::at(finding.lines),
    }
}

impl Answer for Findings {
    fn text(&self) -> String {
        let warnings = self.warnings.as_deref().unwrap_or_default();
        text::warnings(warnings, &self.sources)
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        let failed = self.warnings.is_some() || self.error.is_some();
        let json = serde_json::to_vec_pretty(self).map_err(Problem::WriteAnswer)?;
        Ok(Metadata::from([
            ("result.json".to_owned(), json),
            ("result.txt".to_owned(), self.text().into_bytes()),
            (
                "result.statuscode".to_owned(),
                u8::from(failed).to_string().into_bytes(),
            ),
            ("version".to_owned(), VERSION.as_bytes().to_vec()),
        ]))
    }
}
