//! `trimaran history open`

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;

use crate::builders::write_atomically;
use crate::commands::Context;
use crate::history::local_state::create_private;
use crate::history::{Query, page};
use crate::output;
use crate::settings::Settings;

/// Pages that nobody asked to keep are removed after so long.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Open a build record in the browser
///
/// Writes one page that needs no network and no other file: a timeline with a lane for each platform, what every step
/// ran, how long it waited and took, and its log. Its path is printed; a browser is opened if there is one.
#[derive(Args, Debug)]
pub struct OpenArgs {
    /// The record, by default the latest
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Write the page here, - is standard output; by default into the user's cache
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not open a browser [env: NO_BROWSER]
    #[arg(long)]
    no_open: bool,
}

pub async fn run(args: &OpenArgs, context: &Context) -> anyhow::Result<()> {
    let settings = &context.settings;
    let reference = args.reference.as_deref().unwrap_or_default();
    let library = super::library(context, reference).await?;
    let found = library.find(reference, &Query::default()).await?;
    let text = page::render(&found, found.local_state(settings).as_ref()).await?;
    let path = match &args.output {
        Some(path) if path.as_os_str() == "-" => return Ok(output::data(&text)?),
        Some(path) => path.clone(),
        None => in_cache(settings, found.id())?,
    };
    write_atomically(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    output::data(&format!("{}\n", path.display()))?;
    if !args.no_open && settings.get("NO_BROWSER").is_none() {
        show(settings, &path);
    }
    Ok(())
}

/// A file for the page of this build, in a folder that only the user can look into. Old pages are removed.
fn in_cache(settings: &Settings, id: &str) -> anyhow::Result<PathBuf> {
    let cache = match settings.get("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => settings.home().join(".cache"),
    };
    let folder = cache.join("trimaran/history");
    create_private(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let old = SystemTime::now() - KEPT_FOR;
    for entry in std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .flatten()
    {
        let is_old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified < old);
        if is_old {
            // Somebody else may be removing it too.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    let name: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    Ok(folder.join(format!("{name}.html")))
}

/// Opens the page where there is a screen. That there is none, or that the browser fails, is no failure of ours: the
/// page is written.
fn show(settings: &Settings, path: &Path) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| settings.get(name).is_some());
    let chosen = settings.get("BROWSER");
    if chosen.is_none() && !has_screen {
        return;
    }
    let program = chosen.unwrap_or("xdg-open");
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let started = Command::new(program)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        output::note(&format!("no browser was opened: {program}: {error}"));
    }
}
