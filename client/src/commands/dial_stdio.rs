//! `trimaran dial-stdio`

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::io::AsyncWriteExt as _;

use super::Context;
use crate::instance::{self, Builders};
use crate::progress::{Display, Heading, Mode, Paint};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Proxy current stdio streams to builder instance
///
/// Bytes go through unchanged, so that any program that speaks BuildKit's API over a pipe can use the builder.
///
/// Examples:
///   ssh machine trimaran --builder mybuilder dial-stdio     a builder elsewhere, for a program that speaks over a pipe
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DialStdioArgs {
    /// Set type of progress output (auto, none, plain, rawjson, tty)
    #[arg(long, default_value = "none")]
    progress: Mode,
}

pub async fn run(args: &DialStdioArgs, context: &Context) -> anyhow::Result<()> {
    let builders = Builders::new(&context.settings);
    let builder = builders.find(context.builder.as_deref()).await?;
    let heading = Heading {
        plain: format!("dial-stdio: builder: {}", builder.name),
        tty: format!("builder:{}", builder.name),
    };
    let (display, progress) = Display::start(args.progress, heading, Paint::None)?;
    let nodes = instance::load(&context.settings, &builder, TIMEOUT).await;
    instance::boot(&nodes, &progress).await?;
    drop(progress);
    display.finish().await?;
    builders.touch(&builder)?;
    let driver = nodes
        .iter()
        .find_map(|node| node.driver.as_ref())
        .context("the builder has no usable node")?;
    let (mut from_daemon, mut to_daemon) = tokio::io::split(driver.stream().await?);
    let upward = async {
        tokio::io::copy(&mut tokio::io::stdin(), &mut to_daemon).await?;
        // The daemon sees the end of our input, and may still have something to say.
        to_daemon.shutdown().await
    };
    let downward = async {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut from_daemon, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::pin!(upward);
    tokio::pin!(downward);
    tokio::select! {
        ended = &mut downward => ended.context("reading from the daemon"),
        sent = &mut upward => {
            sent.context("sending to the daemon")?;
            downward.await.context("reading from the daemon")
        }
    }
}
