//! One index over the images that several nodes have pushed.

use anyhow::bail;

use super::parts::Merge;
use super::solve::Response;
use crate::progress::Relay;
use crate::settings::Settings;

pub async fn merge(
    _responses: &[Response],
    wanted: &Merge,
    _settings: &Settings,
    _relay: &Relay,
) -> anyhow::Result<Response> {
    bail!(
        "merging manifest list {} is not supported yet",
        wanted.names.join(",")
    )
}
