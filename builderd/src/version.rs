//! What the daemon calls itself.

use proto::types::BuildkitVersion;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const PACKAGE: &str = "trimaran/builderd";

/// Clients compare it to decide about features; capabilities say what is really there.
const BUILDKIT: &str = concat!("v0.26.0+builderd.", env!("CARGO_PKG_VERSION"));

/// One line of four fields: drivers take the third for the version.
pub fn line(program: &str) -> String {
    format!("{program} {PACKAGE} v{VERSION} {}", revision())
}

pub fn revision() -> &'static str {
    option_env!("TRIMARAN_REVISION").unwrap_or("unknown")
}

/// What servers that files are fetched from are told: some know BuildKit by name.
pub fn user_agent() -> String {
    format!("buildkit/v0.26 builderd/{VERSION}")
}

pub fn message() -> BuildkitVersion {
    BuildkitVersion {
        package: PACKAGE.to_owned(),
        version: BUILDKIT.to_owned(),
        revision: revision().to_owned(),
        dockerfile_version: "1.20.0".to_owned(),
    }
}
