//! `trimaran version`

use crate::output;

pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

pub fn run() -> anyhow::Result<()> {
    let revision = option_env!("TRIMARAN_REVISION").unwrap_or_default();
    output::data(format!("trimaran {VERSION} {revision}").trim_end())?;
    Ok(output::data("\n")?)
}
