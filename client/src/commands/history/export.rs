//! `trimaran history export`

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::commands::Context;
use crate::history::bundle::{self, Export, Kept};
use crate::history::{Found, Library, Query, local_state};
use crate::output;

/// Export build records into a bundle
///
/// A bundle, a .dockerbuild file, holds records with their logs and attachments. `trimaran history import` and Docker
/// Desktop read it. Tokens that look like secrets are masked in the trace.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The records to export, by default the latest
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Output file path, by default standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Export all build records for the builder
    #[arg(long)]
    all: bool,
    /// Ensure build records are finalized before exporting
    #[arg(long)]
    finalize: bool,
}

pub async fn run(args: &ExportArgs, context: &Context) -> anyhow::Result<()> {
    ensure!(
        !args.all || args.references.is_empty(),
        "cannot specify refs when using --all"
    );
    ensure!(
        args.output.is_some() || !io::stdout().is_terminal(),
        "refusing to write to console, use --output to specify a file"
    );
    let query = Query {
        completed_only: true,
        ..Query::default()
    };
    let mut records = Vec::new();
    let references = match &args.references[..] {
        [] => &[String::new()],
        references => references,
    };
    for reference in references {
        let library = super::library(context, reference).await?;
        let mut found = if args.all {
            library.list(&query).await?
        } else {
            library.find_all(reference, &query).await?
        };
        if args.finalize {
            finalize(&library, &mut found).await?;
        }
        records.extend(found);
    }
    ensure!(!records.is_empty(), "no records found");
    let exports = records.iter().map(|found| export(found, context)).collect();
    let missing = match &args.output {
        Some(path) => write_file(path, exports).await?,
        None => bundle::write(exports, io::stdout().lock()).await?,
    };
    for digest in missing {
        output::warn(&format!(
            "{digest} of a build record is gone, the bundle is without it"
        ));
    }
    Ok(())
}

async fn finalize(library: &Library, found: &mut [Found]) -> anyhow::Result<()> {
    for record in found.iter_mut().filter(|found| found.record.trace.is_none()) {
        *record = library.finalize(record).await?;
    }
    Ok(())
}

fn export(found: &Found, context: &Context) -> Export {
    let state = found.local_state(&context.settings);
    let group = state
        .as_ref()
        .filter(|state| !state.group_ref.is_empty())
        .and_then(|state| local_state::read_group(&context.settings, &state.group_ref));
    Export {
        kept: Kept {
            record: found.record.clone(),
            default_platform: found.platform.clone().unwrap_or_default(),
            local_state: state,
            state_group: group,
        },
        blobs: found.blobs(),
    }
}

/// The file is there when it is whole.
async fn write_file(path: &Path, exports: Vec<Export>) -> anyhow::Result<Vec<String>> {
    let wrong = || format!("failed to create output file \"{}\"", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".trimaran-")
        .tempfile_in(folder)
        .with_context(wrong)?;
    let missing = bundle::write(exports, io::BufWriter::new(file.as_file_mut())).await?;
    file.flush().with_context(wrong)?;
    file.persist(path).with_context(wrong)?;
    Ok(missing)
}
