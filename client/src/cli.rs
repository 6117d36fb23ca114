//! The command line as a whole, and the way from arguments to a command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    self, Context, build::BuildArgs, create::CreateArgs, dial_stdio::DialStdioArgs,
    imagetools::ImagetoolsArgs, inspect::InspectArgs, ls::LsArgs, rm::RmArgs, stop::StopArgs,
    use_builder::UseArgs,
};
use crate::settings::Settings;

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
    #[arg(long, global = true, value_name = "NAME")]
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
    Create(CreateArgs),
    Use(UseArgs),
    Inspect(InspectArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Stop(StopArgs),
    Imagetools(ImagetoolsArgs),
    DialStdio(DialStdioArgs),
    Binfmt(binfmt::command::Args),
    /// Show trimaran version information
    Version,
}

impl Cli {
    pub async fn run(self, settings: Settings) -> anyhow::Result<ExitCode> {
        let context = Context {
            settings,
            builder: self.builder,
        };
        match self.command {
            Command::Binfmt(args) => return Ok(args.run()),
            Command::Build(args) => commands::build::run(&args, &context).await?,
            Command::Create(args) => commands::create::run(&args, &context).await?,
            Command::Use(args) => commands::use_builder::run(&args, &context)?,
            Command::Inspect(args) => commands::inspect::run(&args, &context).await?,
            Command::Ls(args) => commands::ls::run(&args, &context).await?,
            Command::Rm(args) => commands::rm::run(&args, &context).await?,
            Command::Stop(args) => commands::stop::run(&args, &context).await?,
            Command::Imagetools(args) => commands::imagetools::run(&args, &context).await?,
            Command::DialStdio(args) => commands::dial_stdio::run(&args, &context).await?,
            Command::Version => commands::version::run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
