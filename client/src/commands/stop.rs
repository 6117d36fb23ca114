//! `trimaran stop`

use clap::Args;

use super::Context;
use crate::drivers::Driver;
use crate::instance::Builders;

/// Stop builder instance
///
/// The daemons of all nodes end; their caches stay. The next build starts them again. A remote daemon is not ours to
/// stop.
#[derive(Args, Debug)]
pub struct StopArgs {
    /// The builder to stop, by default the current one
    name: Option<String>,
}

pub async fn run(args: &StopArgs, context: &Context) -> anyhow::Result<()> {
    let name = args.name.as_deref().or(context.builder.as_deref());
    let builder = Builders::new(&context.settings).find(name).await?;
    for node in &builder.nodes {
        Driver::of(&context.settings, &builder, node)?.stop().await?;
    }
    Ok(())
}
