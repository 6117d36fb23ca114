//! `trimaran imagetools`

mod create;
mod inspect;

use std::sync::Arc;

use clap::{Args, Subcommand};
use registry::Client;
use registry::docker_config::DockerConfig;

use super::Context;
use crate::instance::Builders;
use crate::registries::Registries;

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

/// A client in the user's name, which reaches registries as the builder in use does. Beside it is what must live as long.
fn client(context: &Context) -> anyhow::Result<(Client, Registries)> {
    let settings = &context.settings;
    let credentials = DockerConfig::load(&settings.docker_config_folder())?;
    let builder = Builders::new(settings).stored(context.builder.as_deref())?;
    let registries = Registries::of(builder.as_ref())?;
    let client = Client::new(registries.config.clone(), Arc::new(credentials));
    Ok((client, registries))
}
