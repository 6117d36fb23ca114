//! `trimaran history import`

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;
use clap::Args;

use crate::commands::Context;
use crate::history::{IMPORTED, Imported};
use crate::output;

/// Import build records from a bundle
///
/// A bundle is a .dockerbuild file, as `history export` and the GitHub actions of Docker write it. Its records are kept
/// on this machine: `history ls`, `inspect`, `logs`, `open` and `rm` know them.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Import from a file path, - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Standard input, as without --file
    #[arg(value_name = "-", value_parser = ["-"], hide = true)]
    standard_input: Option<String>,
}

pub fn run(args: &ImportArgs, context: &Context) -> anyhow::Result<()> {
    let imported = Imported::of(&context.settings);
    let files = match &args.files[..] {
        [] => &["-".to_owned()],
        files => files,
    };
    let mut ids = Vec::new();
    for file in files {
        let bundle: Box<dyn Read> = match file.as_str() {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(File::open(path).with_context(|| format!("failed to open file {path}"))?),
        };
        let taken = imported
            .import(io::BufReader::new(bundle))
            .with_context(|| format!("failed to import build from {file}"))?;
        ids.extend(taken);
    }
    for id in ids {
        output::data(&format!("{IMPORTED}/_/{id}\n"))?;
    }
    Ok(())
}
