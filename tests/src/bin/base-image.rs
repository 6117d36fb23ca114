//! Makes a multi-platform BusyBox image and pushes it to a registry on this machine.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tests::busybox;
use tests::distribution::Repository;

#[derive(Debug, Parser)]
struct Args {
    /// Folder with <Debian architecture>/busybox in it
    #[arg(long, value_name = "DIR")]
    busybox: PathBuf,

    /// Where to push: HOST:PORT/NAME:TAG
    #[arg(long, value_name = "REFERENCE")]
    push: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (host, name) = args
        .push
        .split_once('/')
        .context("the reference has no host: write HOST:PORT/NAME:TAG")?;
    let (name, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let images = busybox::images(&args.busybox)?;
    Repository::new(host, name).push_index(tag, &images)?;
    Ok(())
}
