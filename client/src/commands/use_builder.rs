//! `trimaran use`

use clap::Args;

use super::Context;
use crate::builders::Reach;
use crate::instance::{Builders, DEFAULT};

/// Set the current builder instance
///
/// The choice holds for the Docker endpoint in use, until another one is made.
#[derive(Args, Debug)]
pub struct UseArgs {
    /// The builder to use; "default" is the one that needs no `create`
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
        .ok_or_else(|| anyhow::anyhow!("the name of a builder is missing, see `trimaran ls`"))?;
    let reach = match (args.global, args.default) {
        (true, _) => Reach::Global,
        (false, true) => Reach::Default,
        (false, false) => Reach::Endpoint,
    };
    let stored = builders.lock()?.find(name)?;
    match stored {
        Some(builder) => builders.use_builder(&builder.name, reach)?,
        None if name == DEFAULT => builders.use_builder("", Reach::Endpoint)?,
        None => anyhow::bail!("failed to find instance \"{name}\", see `trimaran ls`"),
    }
    Ok(())
}
