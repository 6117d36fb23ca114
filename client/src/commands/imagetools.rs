//! `trimaran imagetools`

mod create;
mod inspect;

use std::sync::Arc;

use clap::{Args, Subcommand};
use registry::Client;
use registry::client::Config;
use registry::docker_config::DockerConfig;

use super::Context;

/// Commands to work on images in registry
#[derive(Args, Debug)]
pub struct ImagetoolsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::CreateArgs),
    Inspect(inspect::InspectArgs),
}

pub async fn run(args: &ImagetoolsArgs, context: &Context) -> anyhow::Result<()> {
    match &args.command {
        Command::Create(args) => create::run(args, context).await,
        Command::Inspect(args) => inspect::run(args, context).await,
    }
}

/// A client in the user's name.
fn client(context: &Context) -> anyhow::Result<Client> {
    let credentials = DockerConfig::load(&context.settings.docker_config_folder())?;
    Ok(Client::new(Config::default(), Arc::new(credentials)))
}
