//! `trimaran stop`

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::Context;
use crate::completion;
use crate::drivers::Driver;
use crate::instance::Builders;

/// Stop builder instance
///
/// The daemons of all nodes end; their caches stay. The next build starts them again. A remote daemon is not ours to
/// stop.
///
/// Examples:
///   trimaran stop
///   trimaran stop mybuilder
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct StopArgs {
    /// The builder to stop, by default the current one
    #[arg(add = ArgValueCandidates::new(completion::builders))]
    name: Option<String>,
}

pub async fn run(args: &StopArgs, context: &Context) -> anyhow::Result<()> {
    let name = args.name.as_deref().or(context.builder.as_deref());
    let builder = Builders::new(&context.settings).find(name).await?;
    // One that cannot be stopped keeps no other from it.
    let mut stopped = Ok(());
    for node in &builder.nodes {
        let ended = match Driver::of(&context.settings, &builder, node) {
            Ok(driver) => driver.stop().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let error = anyhow::Error::from(error).context(format!("failed to stop node {}", node.name));
            stopped = stopped.and(Err(error));
        }
    }
    stopped
}
