//! `trimaran history`: its subcommands.

mod attachment;
mod export;
mod import;
mod inspect;
mod logs;
mod ls;
mod open;
mod rm;
mod trace;

use clap::{Args, Subcommand};

use super::Context;
use crate::history::{Library, Reference};

/// Commands to work on build records
///
/// A daemon keeps a record of every build. REF names one: an id or its beginning, BUILDER/NODE/ID, or counted back from
/// the latest, ^0, the one before, ^1, and so on. Without a REF the latest is meant.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
    Logs(logs::LogsArgs),
    Inspect(inspect::InspectArgs),
    Open(open::OpenArgs),
    Trace(trace::TraceArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

pub async fn run(args: &HistoryArgs, context: &Context) -> anyhow::Result<()> {
    match &args.command {
        HistoryCommand::Ls(args) => ls::run(args, context).await,
        HistoryCommand::Rm(args) => rm::run(args, context).await,
        HistoryCommand::Logs(args) => logs::run(args, context).await,
        HistoryCommand::Inspect(args) => inspect::run(args, context).await,
        HistoryCommand::Open(args) => open::run(args, context).await,
        HistoryCommand::Trace(args) => trace::run(args, context).await,
        HistoryCommand::Import(args) => import::run(args, context),
        HistoryCommand::Export(args) => export::run(args, context).await,
    }
}

/// Where the builder that the user chose, or that the reference names, keeps its records.
async fn library(context: &Context, reference: &str) -> anyhow::Result<Library> {
    let named = Reference::parse(reference)?;
    let chosen = named.builder().or(context.builder.as_deref());
    let boot = async |builder: &_, nodes: &[_]| super::inspect::bootstrap(context, builder, nodes).await;
    Library::open(&context.settings, chosen, boot).await
}
