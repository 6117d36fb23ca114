//! `trimaran history logs`

use clap::Args;

use crate::commands::Context;
use crate::history::Query;
use crate::progress::{Display, Heading, Mode, Paint, Status};

/// Print the logs of a build record
///
/// The output of the build once more, as --progress showed it while it ran.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The record, by default the latest
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Set type of progress output (plain, rawjson, tty)
    #[arg(long, default_value = "plain", value_name = "MODE")]
    progress: Mode,
}

pub async fn run(args: &LogsArgs, context: &Context) -> anyhow::Result<()> {
    let reference = args.reference.as_deref().unwrap_or_default();
    let library = super::library(context, reference).await?;
    let found = library.find(reference, &Query::default()).await?;
    let mut replay = found.replay().await?;
    let mode = match args.progress {
        // What is over needs no live picture.
        Mode::Auto => Mode::Plain,
        other => other,
    };
    let paint = Paint::of(&context.settings);
    let heading = Heading {
        plain: String::new(),
        tty: found.full_name(),
    };
    let (display, progress) = Display::start(mode, heading, paint)?;
    let shown = async {
        while let Some(message) = replay.next().await? {
            if progress.send(Status::from(message)).await.is_err() {
                // The display has ended, and says why below.
                break;
            }
        }
        anyhow::Ok(())
    }
    .await;
    drop(progress);
    display.finish().await?;
    shown
}
