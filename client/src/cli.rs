//! The command line as a whole, and the way from arguments to a command.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::commands::{
    self, Context, bake::BakeArgs, build::BuildArgs, completion::CompletionArgs, create::CreateArgs,
    dial_stdio::DialStdioArgs, du::DuArgs, history::HistoryArgs, imagetools::ImagetoolsArgs,
    inspect::InspectArgs, ls::LsArgs, manifest::ManifestArgs, manifest_tool::ManifestToolArgs,
    prune::PruneArgs, rm::RmArgs, stop::StopArgs, use_builder::UseArgs,
};
use crate::completion;
use crate::output;
use crate::plugin::Run;

/// How Docker's command line ends after a wrong flag.
const WRONG_FLAG: u8 = 125;

/// Build container images for many CPU architectures at once
///
/// Builders are made by `create`, chosen by `use`, and used by `build`. Without any, `build` uses the
/// builder "default": in the Docker engine if one answers, else a daemon of its own.
///
/// First steps:
///   trimaran create --use --name mybuilder
///   trimaran inspect mybuilder --bootstrap
///   trimaran build --platform linux/amd64,linux/arm64 -t registry.example/app --push .
///   trimaran imagetools inspect registry.example/app
#[derive(Debug, Parser)]
#[command(
    name = "trimaran",
    verbatim_doc_comment,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Override the configured builder instance [env: TRIMARAN_BUILDER or BUILDX_BUILDER]
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCandidates::new(completion::builders))]
    builder: Option<String>,
    /// Enable debug logging
    #[arg(short = 'D', long, global = true)]
    pub debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    #[command(visible_alias = "f")]
    Bake(Box<BakeArgs>),
    Create(CreateArgs),
    Use(UseArgs),
    Inspect(InspectArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Stop(StopArgs),
    Du(DuArgs),
    Prune(PruneArgs),
    History(HistoryArgs),
    Imagetools(ImagetoolsArgs),
    Manifest(ManifestArgs),
    ManifestTool(ManifestToolArgs),
    DialStdio(DialStdioArgs),
    Binfmt(binfmt::command::Args),
    Completion(CompletionArgs),
    /// Show trimaran version information
    Version,
}

impl Cli {
    /// The command that the words mean. Help that was asked for and mistakes are printed; the code is to exit with.
    pub fn parse_call(call: &Run) -> Result<Self, ExitCode> {
        let name = call.words.first().map(|word| word.to_string_lossy().into_owned());
        let parsed = Self::command()
            .bin_name(name.unwrap_or_default())
            .try_get_matches_from(&call.words)
            .and_then(|matches| Self::from_arg_matches(&matches));
        match parsed {
            Ok(mut cli) => {
                cli.debug |= call.debug;
                Ok(cli)
            }
            // A command that only has others shows them, as an answer.
            Err(answer) if answer.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                // A closed terminal takes no answer.
                let _ = output::data(&answer.render().to_string());
                Err(ExitCode::SUCCESS)
            }
            Err(answer) => {
                // As above; the exit code still does its work.
                let _ = answer.print();
                Err(match answer.use_stderr() {
                    false => ExitCode::SUCCESS,
                    true if call.is_plugin && is_about_a_flag(&answer) => ExitCode::from(WRONG_FLAG),
                    true => ExitCode::FAILURE,
                })
            }
        }
    }

    pub async fn run(self, call: Run) -> anyhow::Result<ExitCode> {
        let context = Context {
            settings: call.settings,
            builder: self.builder,
            debug: self.debug,
        };
        match self.command {
            Command::Binfmt(args) => return Ok(args.run()),
            Command::Manifest(args) => return Ok(commands::manifest::run(&args, &context).await),
            Command::Build(args) => commands::build::run(&args, &context).await?,
            Command::Bake(args) => commands::bake::run(&args, &context).await?,
            Command::Create(args) => commands::create::run(&args, &context).await?,
            Command::Use(args) => commands::use_builder::run(&args, &context)?,
            Command::Inspect(args) => commands::inspect::run(&args, &context).await?,
            Command::Ls(args) => commands::ls::run(&args, &context).await?,
            Command::Rm(args) => commands::rm::run(&args, &context).await?,
            Command::Stop(args) => commands::stop::run(&args, &context).await?,
            Command::Du(args) => commands::du::run(&args, &context).await?,
            Command::Prune(args) => commands::prune::run(&args, &context).await?,
            Command::History(args) => commands::history::run(&args, &context).await?,
            Command::Imagetools(args) => commands::imagetools::run(&args, &context).await?,
            Command::ManifestTool(args) => commands::manifest_tool::run(&args, &context).await?,
            Command::DialStdio(args) => commands::dial_stdio::run(&args, &context).await?,
            Command::Completion(args) => commands::completion::run(&args)?,
            Command::Version => commands::version::run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_about_a_flag(error: &clap::Error) -> bool {
    matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(argument)) if argument.starts_with('-')
    )
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
