//! `trimaran history rm`

use anyhow::ensure;
use clap::Args;

use crate::commands::Context;
use crate::history::{HistoryError, Library, Query, local_state};
use crate::output;

/// Remove build records
///
/// The records of all nodes that have them go, with their logs and attachments; images and the build cache stay.
#[derive(Args, Debug)]
pub struct RmArgs {
    /// The records to remove
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Remove all build records
    #[arg(long)]
    all: bool,
}

pub async fn run(args: &RmArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        args.all || !args.references.is_empty(),
        "rm requires at least one argument: name records, or use --all"
    );
    ensure!(
        !args.all || args.references.is_empty(),
        "rm requires either --all or at least one argument"
    );
    if args.all {
        return remove_all(&super::library(context, "").await?, context).await;
    }
    // All are found before the first goes: offsets count from the list as the user saw it.
    let mut doomed = Vec::new();
    let mut failed = false;
    for reference in &args.references {
        let library = super::library(context, reference).await?;
        match library.find_all(reference, &Query::default()).await {
            Ok(found) => doomed.push((library, found)),
            Err(error @ HistoryError::NotFound { .. }) => {
                failed = true;
                output::note(&format!("failed to remove {reference}: {error}"));
            }
            Err(other) => return Err(other.into()),
        }
    }
    for (library, found) in doomed {
        for record in found {
            if library.remove(&record).await? {
                local_state::remove(&context.settings, &record.builder, &record.node, record.id());
            }
        }
    }
    ensure!(!failed, "failed to remove one or more build records");
    Ok(())
}

async fn remove_all(library: &Library, context: &Context) -> anyhow::Result<()> {
    for keeper in library.keepers() {
        for id in keeper.completed().await? {
            keeper.delete(&id).await?;
            local_state::remove(&context.settings, &keeper.builder, &keeper.node, &id);
        }
    }
    if let Some(imported) = library.imported() {
        for found in imported.list()? {
            imported.remove(found.id())?;
        }
    }
    Ok(())
}
