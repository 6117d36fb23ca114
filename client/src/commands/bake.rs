//! `trimaran bake`

mod entitlements;
mod files;
mod inputs;
mod remote;
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bake::{Definition, Selection, Shorthands, list};
use clap::Args;

use super::Context;
use crate::build::provenance::Detail;
use crate::build::request::Flags;
use crate::build::run::Work;
use crate::build::solve::Response;
use crate::build::{invocation, metadata};
use crate::error::{BuildFailed, Interrupted};
use crate::instance::{self, Builders};
use crate::output;
use crate::progress::Mode;
use crate::settings::Settings;

/// Build from a file
///
/// A definition names targets, each of which is a build, and groups of them. It is written in HCL
/// (docker-bake.hcl), JSON (docker-bake.json) or as a compose file; without --file, the usual names are
/// looked for in the working folder, and files that are found are laid over each other. All targets are
/// built at once. The definition may be in a Git repository: its files and contexts are taken from there.
///
/// Examples:
///   trimaran bake                                    the group or target "default"
///   trimaran bake --print app                        what would be built
///   trimaran bake --set '*.platform=linux/arm64' --push app db
///   trimaran bake --list=variables
///   trimaran bake https://git.example/app.git#v1.2
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct BakeArgs {
    /// Targets, groups, or patterns such as "app-*"; before them, the address of a repository
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Build definition file; "-" reads standard input, "cwd://" names a local one beside a remote definition
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Print the options without building
    #[arg(long)]
    print: bool,
    /// List targets or variables (format: "targets", "variables", "type=variables,format=json")
    #[arg(long, value_name = "WHAT")]
    list: Option<String>,
    /// Override a value of targets (format: "PATTERN.KEY=VALUE"; "+=" adds to a list)
    #[arg(long = "set", value_name = "PATTERN.KEY=VALUE")]
    overrides: Vec<String>,
    /// Set a variable of the definition (format: "NAME=VALUE")
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Shorthand for "--set=*.output=type=registry"; leaves targets alone that write files
    #[arg(long)]
    push: bool,
    /// Shorthand for "--set=*.output=type=docker"; leaves targets alone that write files
    #[arg(long)]
    load: bool,
    /// Do not use cache when building the image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_cache: Option<bool>,
    /// Always attempt to pull all referenced images
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pull: Option<bool>,
    /// Shorthand for "--set=*.attest=type=provenance"
    #[arg(long, value_name = "BOOL | ATTRIBUTES")]
    provenance: Option<String>,
    /// Shorthand for "--set=*.attest=type=sbom"
    #[arg(long, value_name = "BOOL | ATTRIBUTES")]
    sbom: Option<String>,
    /// Allow what a definition asks for (network.host, security.insecure, ssh, fs=PATH, fs.read=PATH, fs.write=PATH)
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Write build result metadata to a file, by target
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<std::path::PathBuf>,
    /// Set type of progress output (auto, none, plain, quiet, rawjson, tty) [env: BUILDKIT_PROGRESS]
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    progress: Mode,
    /// Set method for evaluating build (build, check, outline, targets)
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    /// Shorthand for "--call=check"
    #[arg(long)]
    check: bool,
    /// Policy of all targets
    #[arg(long, hide = true, value_name = "POLICY")]
    policy: Vec<String>,
    #[arg(long, hide = true)]
    list_targets: bool,
    #[arg(long, hide = true)]
    list_variables: bool,
}

const TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(args: &BakeArgs, context: &Context) -> anyhow::Result<()> {
    let settings = &context.settings;
    let wanted = args.list_wanted()?;
    ensure!(
        !(args.print && wanted.is_some()),
        "--print and --list are mutually exclusive"
    );
    let granted = entitlements::Granted::parse(&args.allow)?;
    let (source, targets) = files::split(&args.targets);
    let files = files::read(args, &source, settings).await?;
    let world = files::world(args, &source, settings)?;
    let definition = Definition::load(&files, &world)?;
    if let Some((subject, layout)) = wanted {
        output::data(&definition.list(subject, layout))?;
        return Ok(());
    }
    let mut selection = definition.select(&targets, &args.overrides(), &world.environment)?;
    add_epoch(&mut selection, settings);
    let inputs = inputs::all(&mut selection, &source)?;
    if args.print {
        output::data(&format!("{}\n", selection.json()))?;
        return Ok(());
    }
    granted.check(&selection, &inputs, &source, settings)?;
    build(args, context, &selection, &inputs, (&source, &targets)).await
}

impl BakeArgs {
    fn list_wanted(&self) -> anyhow::Result<Option<(list::Subject, list::Layout)>> {
        let text = match &self.list {
            Some(text) => text,
            None if self.list_targets => "targets",
            None if self.list_variables => "variables",
            None => return Ok(None),
        };
        list::parse(text).map(Some).map_err(anyhow::Error::msg)
    }

    /// What is set for targets, by short flags too.
    fn overrides(&self) -> Vec<String> {
        let mut overrides = self.overrides.clone();
        let call = if self.check {
            Some("check")
        } else {
            self.call.as_deref()
        };
        let shorthands = Shorthands {
            push: self.push,
            load: self.load,
            call: call.filter(|call| !matches!(*call, "" | "build")).map(|call| {
                if call == "check" {
                    "lint".to_owned()
                } else {
                    call.to_owned()
                }
            }),
            no_cache: self.no_cache,
            pull: self.pull,
            sbom: self.sbom.clone().filter(|value| !value.is_empty()),
            provenance: self.provenance.clone().filter(|value| !value.is_empty()),
            policy: self.policy.clone(),
        };
        overrides.extend(shorthands.overrides());
        overrides
    }

    fn mode(&self, settings: &Settings) -> anyhow::Result<Mode> {
        match (self.progress, settings.get("BUILDKIT_PROGRESS")) {
            (Mode::Auto, Some(text)) => text.parse().map_err(anyhow::Error::msg),
            (mode, _) => Ok(mode),
        }
    }
}

/// Builds of one invocation have one idea of time, unless their definition has its own.
fn add_epoch(selection: &mut Selection, settings: &Settings) {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    let Some(epoch) = settings.get(EPOCH) else { return };
    for target in selection.targets.values_mut() {
        target
            .args
            .get_or_insert_default()
            .entry(EPOCH.to_owned())
            .or_insert_with(|| Some(epoch.to_owned()));
    }
}

async fn build(
    args: &BakeArgs,
    context: &Context,
    selection: &Selection,
    inputs: &BTreeMap<String, inputs::Inputs>,
    (source, names): (&files::Source, &[String]),
) -> anyhow::Result<()> {
    let settings = &context.settings;
    let mode = args.mode(settings)?;
    let mut flags = BTreeMap::new();
    for (name, target) in &selection.targets {
        let inputs = inputs.get(name).context("a target has no inputs")?;
        let secrets = source
            .remote
            .as_ref()
            .map(|address| remote::secrets(address, &inputs.context, settings))
            .unwrap_or_default();
        let request = requests::flags(target, inputs, &secrets).with_context(|| format!("target {name}"))?;
        flags.insert(name.clone(), request);
    }
    if flags.is_empty() {
        bail!("the definition has nothing to build");
    }
    let builders = Builders::new(settings);
    let builder = builders.find(context.builder.as_deref()).await?;
    let nodes = instance::load(settings, &builder, TIMEOUT).await;
    let work = Work {
        settings,
        builder: &builder,
        nodes: &nodes,
        provenance: match args.metadata_file {
            Some(_) => Detail::of(settings),
            None => Detail::None,
        },
        group: Some(names),
    };
    let outcome = invocation::show(&work, &builders, &flags, mode).await;
    let outcome = outcome.map_err(|error| {
        let is_of_build = error.is::<BuildFailed>() || error.is::<Interrupted>();
        if is_of_build {
            error.context("failed to build")
        } else {
            error
        }
    })?;
    let answered = answers(selection, &flags, &outcome.responses);
    let Some(path) = &args.metadata_file else {
        return answered;
    };
    let mut written = serde_json::Map::new();
    let mut responses: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for (name, response) in &outcome.responses {
        responses.insert(name.clone(), metadata::of_build(response, None)?);
    }
    if metadata::wants_warnings(settings) && !outcome.warnings.is_empty() {
        let warnings = serde_json::to_value(&outcome.warnings).context("writing warnings")?;
        responses.insert("buildx.build.warnings".to_owned(), warnings);
    }
    written.extend(responses);
    metadata::write(path, &serde_json::Value::Object(written))?;
    answered
}

/// Prints what was asked of the frontends of targets; the first that fails says how the command does.
fn answers(
    selection: &Selection,
    flags: &BTreeMap<String, Flags>,
    responses: &BTreeMap<String, Response>,
) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    let mut first = true;
    for (name, flags) in flags {
        let Some(call) = flags.call.as_ref().filter(|_| !flags.linked) else {
            continue;
        };
        if !call.is_json() {
            let break_before = if first { "" } else { "\n" };
            let description = selection
                .targets
                .get(name)
                .map(|target| target.description.as_str());
            let description = description.filter(|text| !text.is_empty());
            let description = description.map_or_else(String::new, |text| format!("{text}\n"));
            output::data(&format!("{break_before}{name}\n{description}\n"))?;
        }
        first = false;
        let answer = responses.get(name).context("a target has no answer")?;
        outcome = outcome.and(call.print(answer));
    }
    outcome
}
