//! `trimaran history trace`

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::commands::Context;
use crate::history::trace::{self, Trace};
use crate::history::{Outcome, Query};
use crate::output;

/// A trace of a build with thousands of steps is a few megabytes.
const LARGEST: usize = 256 * 1024 * 1024;

/// Show the OpenTelemetry trace of a build record
///
/// Prints the trace as JSON that Jaeger's page takes under "Upload". `trimaran history open` shows the course of a build
/// without it.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// The record, by default the latest
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Compare with another build record: prints both traces
    #[arg(long, value_name = "REF")]
    compare: Option<String>,
    /// Address to bind the UI server
    #[arg(long, hide = true)]
    addr: Option<String>,
}

pub async fn run(args: &TraceArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        args.addr.is_none(),
        "--addr: trimaran serves no page of its own for traces; upload what `trimaran history trace` prints to a Jaeger, or use `trimaran history open`"
    );
    let mut traces = Vec::new();
    if let Some(other) = &args.compare {
        let trace = load(other, context).await;
        traces.push(trace.with_context(|| format!("failed to load trace for {other}"))?);
    }
    traces.push(load(args.reference.as_deref().unwrap_or_default(), context).await?);
    Ok(output::data(&format!("{}\n\n", trace::to_upload(&traces)?))?)
}

async fn load(reference: &str, context: &Context) -> anyhow::Result<Trace> {
    let library = super::library(context, reference).await?;
    let mut found = library.find(reference, &Query::default()).await?;
    if Outcome::of(&found.record) == Outcome::Running {
        bail!(
            "build \"{}\" is not completed, only completed builds can be traced",
            found.id()
        );
    }
    if found.record.trace.is_none() {
        found = library.finalize(&found).await?;
    }
    let Some(trace) = &found.record.trace else {
        bail!(
            "build record \"{}\" is missing a trace: its daemon wrote none. `trimaran history open` shows the course of the build without it",
            found.id()
        );
    };
    let bytes = found.blobs().read(&trace.digest, LARGEST).await?;
    Ok(trace::read(&bytes)?)
}
