//! `trimaran history inspect`

use clap::{Args, Subcommand};

use super::attachment::{self, AttachmentArgs};
use crate::commands::Context;
use crate::format::{Json, Template, to_json};
use crate::history::Query;
use crate::history::inspect::{Inspection, Wish};
use crate::output;

/// Inspect a build record
///
/// What was built, from what and how; how it ended; and what hangs on the result: indexes, manifests, attestations.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct InspectArgs {
    #[command(subcommand)]
    command: Option<InspectCommand>,
    /// The record, by default the latest
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Format the output: "pretty", "json", or a Go template
    #[arg(long, default_value = "pretty")]
    format: String,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    Attachment(AttachmentArgs),
}

pub async fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<()> {
    if let Some(InspectCommand::Attachment(args)) = &args.command {
        return attachment::run(args, context).await;
    }
    let template = match args.format.as_str() {
        "pretty" | "json" => None,
        text => Some(Template::parse(text, Json::Compact)?),
    };
    let reference = args.reference.as_deref().unwrap_or_default();
    let library = super::library(context, reference).await?;
    let found = library.find(reference, &Query::default()).await?;
    let state = found.local_state(&context.settings);
    let here = std::env::current_dir().unwrap_or_default();
    let inspection = Inspection::of(&found, state.as_ref(), &here).await?;
    let text = match template {
        Some(template) => format!("{}\n", template.render(&inspection.data())?),
        None if args.format == "json" => format!("{}\n", to_json(&inspection.data(), Json::Indented)),
        None => inspection.print(Wish {
            show_id: args.reference.is_none(),
            show_stack: context.debug,
        }),
    };
    Ok(output::data(&text)?)
}
