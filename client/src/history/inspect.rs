//! All that is known of a record, as one structure: for people ([`Inspection::print`]), for templates and as JSON
//! ([`Inspection::data`]).

mod attributes;
mod data;
mod failure;
mod print;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::attachments::{self, Attachment};
use super::library::{Found, HistoryError};
use super::local_state::LocalState;
use super::{Outcome, timestamp};
use attributes::Attributes;
pub use failure::Failure;
pub use print::Wish;

/// A provenance with everything in it is a few megabytes.
const LARGEST_PROVENANCE: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
pub struct Inspection {
    pub name: String,
    pub id: String,
    pub context: String,
    pub dockerfile: String,
    pub repository: String,
    pub revision: String,
    pub attributes: Attributes,
    pub started: Option<jiff::Timestamp>,
    pub completed: Option<jiff::Timestamp>,
    pub nanoseconds: Option<i128>,
    pub outcome: Option<Outcome>,
    pub failure: Option<Failure>,
    pub steps: Steps,
    pub materials: Vec<Material>,
    pub attachments: Vec<Attachment>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    pub completed: i32,
    pub total: i32,
    pub cached: i32,
}

#[derive(Clone, Debug)]
pub struct Material {
    pub uri: String,
    pub digests: Vec<String>,
}

impl Inspection {
    /// `here` is the folder that paths are shown relative to.
    pub async fn of(found: &Found, state: Option<&LocalState>, here: &Path) -> Result<Self, HistoryError> {
        let record = &found.record;
        let mut attributes = record.frontend_attrs.clone();
        attributes.remove("frontend.caps");
        let (mut context, mut dockerfile) = (String::new(), String::new());
        if let Some(state) = state {
            dockerfile = match state.dockerfile_path.as_str() {
                "" | "-" => state.dockerfile_path.clone(),
                path => below(&state.local_path, path),
            };
            context = match state.local_path.as_str() {
                "" => String::new(),
                path => below(&here.to_string_lossy(), path),
            };
        }
        if context.is_empty()
            && let Some(remote) = attributes.remove("context")
        {
            context = remote;
        }
        let file = attributes.remove("filename");
        if dockerfile.is_empty()
            && let Some(file) = file
        {
            dockerfile = match attributes.get("vcs:localdir:dockerfile") {
                Some(folder) => joined(folder, &file),
                None => file,
            };
        }
        let name = super::name(&attributes, state);
        let (mut repository, mut revision) = (String::new(), String::new());
        if !attributes.contains_key("context") {
            let get = |key: &str| attributes.get(key).cloned().unwrap_or_default();
            (repository, revision) = (get("vcs:source"), get("vcs:revision"));
        }
        let attachments = attachments::all(found).await?;
        Ok(Self {
            name,
            id: found.id().to_owned(),
            context,
            dockerfile,
            repository,
            revision,
            attributes: Attributes::read(attributes),
            started: record.created_at.as_ref().and_then(timestamp),
            completed: record.completed_at.as_ref().and_then(timestamp),
            nanoseconds: found.duration(),
            outcome: Some(Outcome::of(record)),
            failure: Failure::of(found).await?,
            steps: Steps {
                completed: record.num_completed_steps,
                total: record.num_total_steps,
                cached: record.num_cached_steps,
            },
            materials: materials(found, &attachments).await?,
            attachments,
        })
    }
}

/// Relative to a folder that it lies in, else as it is.
fn below(folder: &str, path: &str) -> String {
    if !Path::new(path).is_absolute() {
        return path.to_owned();
    }
    match Path::new(path).strip_prefix(folder) {
        Ok(rest) if rest.as_os_str().is_empty() => ".".to_owned(),
        Ok(rest) => rest.to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    }
}

fn joined(folder: &str, file: &str) -> String {
    let path: PathBuf = Path::new(folder)
        .join(file)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    path.to_string_lossy().into_owned()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Provenance {
    build_definition: BuildDefinition,
    materials: Vec<Dependency>,
    /// Where a whole statement was kept and not only what it says.
    predicate: Option<Box<Self>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BuildDefinition {
    resolved_dependencies: Vec<Dependency>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Dependency {
    uri: String,
    digest: BTreeMap<String, String>,
}

async fn materials(found: &Found, attachments: &[Attachment]) -> Result<Vec<Material>, HistoryError> {
    let Some(attachment) = attachments
        .iter()
        .find(|attachment| attachment.kind().starts_with("https://slsa.dev/provenance/"))
    else {
        return Ok(Vec::new());
    };
    let bytes = found
        .blobs()
        .read(&attachment.descriptor.digest, LARGEST_PROVENANCE)
        .await?;
    // One that cannot be read names nothing; the rest of the record is worth showing.
    let mut provenance: Provenance = serde_json::from_slice(&bytes).unwrap_or_default();
    if let Some(predicate) = provenance.predicate.take() {
        provenance = *predicate;
    }
    let dependencies = provenance
        .build_definition
        .resolved_dependencies
        .into_iter()
        .chain(provenance.materials);
    Ok(dependencies
        .map(|dependency| Material {
            uri: dependency.uri,
            digests: dependency
                .digest
                .into_iter()
                .map(|(algorithm, hex)| format!("{algorithm}:{hex}"))
                .collect(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_from_where_the_user_is() {
        assert_eq!(below("/a/b", "/a/b"), ".");
        assert_eq!(below("/a/b", "/a/b/c/Dockerfile"), "c/Dockerfile");
        assert_eq!(below("/a/b", "/a/bc"), "/a/bc");
        assert_eq!(below("/a/b", "https://example.org/x"), "https://example.org/x");
        assert_eq!(joined("./sub", "Dockerfile"), "sub/Dockerfile");
    }
}
