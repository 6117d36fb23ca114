//! `trimaran use`

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::Context;
use crate::builders::{Reach, valid_name};
use crate::completion;
use crate::docker;
use crate::instance::Builders;

/// Set the current builder instance
///
/// The choice holds for the Docker context in use, until another one is made. The variables TRIMARAN_BUILDER and
/// BUILDX_BUILDER, and the flag --builder, win over it.
///
/// Examples:
///   trimaran use mybuilder
///   trimaran use --default mybuilder     also after a change to another Docker context and back
///   trimaran use --global mybuilder      for every Docker context
///   trimaran use default                 back to the builder that needs no `create`
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct UseArgs {
    /// The builder to use; the name of the Docker context in use is the builder that needs no `create`
    #[arg(add = ArgValueCandidates::new(completion::builders))]
    name: Option<String>,
    /// Set builder as default for current context
    #[arg(long)]
    default: bool,
    /// Builder persists context changes
    #[arg(long)]
    global: bool,
}

pub fn run(args: &UseArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    let name = args
        .name
        .as_deref()
        .or(context.builder.as_deref())
        .or(context.settings.builder())
        .ok_or_else(|| anyhow::anyhow!("the name of a builder is missing, `trimaran ls` lists them"))?;
    let reach = match (args.global, args.default) {
        (true, _) => Reach::Global,
        (false, true) => Reach::Default,
        (false, false) => Reach::Endpoint,
    };
    let endpoint = builders.endpoint()?;
    let transaction = builders.lock()?;
    let stored = match valid_name(name) {
        Ok(valid) => transaction.find(&valid)?,
        Err(_) if docker::has_context(&context.settings, name) => None,
        Err(error) => return Err(error.into()),
    };
    match stored {
        Some(builder) => transaction.set_current(&endpoint, &builder.name, reach)?,
        None if name == docker::current_context(&context.settings) => {
            transaction.set_current(&endpoint, "", Reach::Endpoint)?;
        }
        None if docker::has_context(&context.settings, name) => {
            anyhow::bail!("run `docker context use {name}` to switch to context {name}")
        }
        None => anyhow::bail!("failed to find instance \"{name}\", `trimaran ls` lists those there are"),
    }
    Ok(())
}
