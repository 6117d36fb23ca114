//! Attestations: statements about a result that go with it, such as provenance and lists of packages.
//!
//! Frontends and the daemon hand in predicates, or bundles of finished statements in a folder; an export makes statements
//! about its own artifacts of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use bytes::Bytes;
use registry::Digest;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Context, ExportError, Provenance};
use crate::store::view::{Kind, View, ViewError};
use crate::store::{Compression, Snapshot, Store};

/// A larger attestation is refused before it takes memory.
const MAX_SIZE: u64 = 40 << 20;
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of lists of packages in SPDX.
pub(super) const SPDX: &str = "https://spdx.dev/Document";
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// Metadata: not for exports as plain files, or as an archive.
pub const INLINE_ONLY: &str = "inline-only";
/// Metadata: why the attestation is there.
pub const REASON: &str = "reason";
/// Metadata: which file of a bundle is about the result itself.
pub const SBOM_CORE: &str = "sbom-core";

#[derive(Clone, Debug)]
pub enum AttestationContent {
    /// Made by the daemon, which alone may say what a result was made from.
    Provenance(Box<Provenance>),
    /// A file of a result, or a folder of statements.
    Snapshot(Snapshot),
    /// A predicate.
    Bytes(Bytes),
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttestationSubject {
    /// What is exported, under this name too if it is not empty.
    Itself {
        name: String,
    },
    Raw {
        name: String,
        digests: Vec<String>,
    },
}

#[derive(Clone, Debug)]
pub struct Attestation {
    /// A folder of statements instead of one predicate.
    pub bundle: bool,
    pub content: AttestationContent,
    pub path: String,
    /// Of a bundle: what all of its statements must have; empty for any.
    pub predicate_type: String,
    pub subjects: Vec<AttestationSubject>,
    pub metadata: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    #[error("an attestation has no path")]
    NoPath,
    #[error("an attestation has no content")]
    NoContent,
    #[error("a frontend may not attest provenance: ask for it with --attest type=provenance")]
    Provenance,
    #[error("attestation {path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: ViewError,
    },
    #[error("attestation {path} cannot be read")]
    Io {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("attestation {path} is larger than {} MiB", MAX_SIZE >> 20)]
    Size { path: String },
    #[error("attestation {path} is not valid JSON")]
    Json {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("bundle entry {path} has predicate type {found}, but {expected} is required")]
    PredicateType {
        path: String,
        found: String,
        expected: String,
    },
    #[error("two attestations have the name {0}: give one another filename")]
    Duplicate(String),
}

/// A finished statement.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub path: String,
    pub predicate_type: String,
    pub json: Bytes,
}

/// A named artifact with its digests.
#[derive(Clone, Debug)]
pub(super) struct Artifact {
    pub name: String,
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Bundled {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<BundledSubject>>,
    #[serde(default)]
    predicate: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct BundledSubject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: Option<BTreeMap<String, String>>,
}

/// Those that may leave an image; within images all do.
pub(super) fn without_inline(attestations: &[Attestation]) -> Vec<Attestation> {
    let stays = |attestation: &&Attestation| {
        attestation.metadata.get(INLINE_ONLY).map(Vec::as_slice) != Some(b"true".as_slice())
    };
    attestations.iter().filter(stays).cloned().collect()
}

/// Whether somebody has listed the packages of a result already.
pub fn has_sbom(attestations: &[Attestation]) -> bool {
    attestations
        .iter()
        .any(|attestation| attestation.predicate_type == SPDX)
}

/// Takes bundles apart; statements about the result itself come first.
pub(super) async fn unbundled(
    attestations: Vec<Attestation>,
    context: &Context<'_>,
) -> Result<Vec<Attestation>, ExportError> {
    let mut all = Vec::new();
    for attestation in attestations {
        if attestation.bundle {
            let AttestationContent::Snapshot(snapshot) = &attestation.content else {
                return Err(AttestationError::NoContent.into());
            };
            fetch(snapshot, context).await?;
            let store = context.images.store().clone();
            let (bundle, snapshot) = (attestation.clone(), snapshot.clone());
            let found = context
                .images
                .store()
                .pool()
                .run(move || bundle.take_apart(&snapshot, &store))
                .await?;
            all.extend(found?);
        } else {
            if attestation.path.is_empty() {
                return Err(AttestationError::NoPath.into());
            }
            let by_daemon = matches!(attestation.content, AttestationContent::Provenance(_));
            if attestation.predicate_type.starts_with(PROVENANCE) && !by_daemon {
                return Err(AttestationError::Provenance.into());
            }
            all.push(attestation);
        }
    }
    all.sort_by_key(|attestation| !attestation.is_core());
    Ok(all)
}

/// Statements about `artifacts`, in the order of the attestations.
pub(super) async fn statements(
    attestations: &[Attestation],
    artifacts: &[Artifact],
    compression: Compression,
    context: &Context<'_>,
) -> Result<Vec<Statement>, ExportError> {
    let mut statements = Vec::new();
    for attestation in attestations {
        let predicate = match &attestation.content {
            AttestationContent::Provenance(provenance) => provenance
                .to_json(context, compression)
                .map_err(ExportError::Write)?
                .into(),
            AttestationContent::Bytes(_) | AttestationContent::Snapshot(_) => {
                content(attestation, context).await?.unwrap_or_default()
            }
        };
        statements.push(attestation.statement(&predicate, artifacts)?);
    }
    Ok(statements)
}

/// The predicate that was handed in; none for what the daemon makes itself.
pub(super) async fn content(
    attestation: &Attestation,
    context: &Context<'_>,
) -> Result<Option<Bytes>, ExportError> {
    match &attestation.content {
        AttestationContent::Provenance(_) => Ok(None),
        AttestationContent::Bytes(bytes) => Ok(Some(bytes.clone())),
        AttestationContent::Snapshot(snapshot) => {
            fetch(snapshot, context).await?;
            let store = context.images.store().clone();
            let (snapshot, path) = (snapshot.clone(), attestation.path.clone());
            let read = move || read(&open(&snapshot, &store, &path)?, &path);
            Ok(Some(context.images.store().pool().run(read).await??))
        }
    }
}

async fn fetch(snapshot: &Snapshot, context: &Context<'_>) -> Result<(), ExportError> {
    let vertex = context.progress.internal_vertex("[internal] fetch attestations");
    context.images.fetch(snapshot, &vertex).await?;
    Ok(())
}

impl Attestation {
    /// Of a list of packages: it is about the result itself.
    pub(super) fn is_core(&self) -> bool {
        self.metadata.get(SBOM_CORE).is_some_and(|core| {
            let file = self.path.rsplit('/').next().unwrap_or_default();
            file.split('.').next().map(str::as_bytes) == Some(core.as_slice())
        })
    }

    fn statement(&self, predicate: &[u8], artifacts: &[Artifact]) -> Result<Statement, AttestationError> {
        let failed = |source| AttestationError::Json {
            path: self.path.clone(),
            source,
        };
        // As it came: readers may compare bytes.
        let predicate: &RawValue = match predicate.is_empty() {
            true => serde_json::from_str("null").map_err(failed)?,
            false => serde_json::from_slice(predicate).map_err(failed)?,
        };
        let itself = [AttestationSubject::Itself { name: String::new() }];
        let wanted = match self.subjects.as_slice() {
            [] => &itself[..],
            subjects => subjects,
        };
        let mut subjects = Vec::new();
        for subject in wanted {
            match subject {
                AttestationSubject::Itself { name } => {
                    for artifact in artifacts {
                        let digest = digest_set([artifact.digest.as_str()]);
                        subjects.push(json!({ "name": artifact.name, "digest": digest }));
                        if !name.is_empty() && name != "_" {
                            subjects.push(json!({ "name": name, "digest": digest }));
                        }
                    }
                }
                AttestationSubject::Raw { name, digests } => {
                    let name = if name.is_empty() { "_" } else { name };
                    let digest = digest_set(digests.iter().map(String::as_str));
                    subjects.push(json!({ "name": name, "digest": digest }));
                }
            }
        }
        let json = format!(
            "{{\"_type\":{},\"predicateType\":{},\"subject\":{},\"predicate\":{}}}",
            json!(STATEMENT),
            json!(self.predicate_type),
            Value::from(subjects),
            predicate.get(),
        );
        Ok(Statement {
            path: self.path.clone(),
            predicate_type: self.predicate_type.clone(),
            json: json.into(),
        })
    }

    fn take_apart(&self, snapshot: &Snapshot, store: &Store) -> Result<Vec<Self>, AttestationError> {
        let at = |path: &str, source| AttestationError::Read {
            path: path.to_owned(),
            source,
        };
        let folder = if self.path.is_empty() { "/" } else { &self.path };
        let view = view(snapshot, store).map_err(|source| at(folder, source))?;
        let mut found = Vec::new();
        for entry in view.read_dir(folder).map_err(|source| at(folder, source))? {
            let name = entry.name().to_string_lossy();
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            if entry.metadata().kind == Kind::Directory {
                return Err(AttestationError::Io {
                    path,
                    source: std::io::ErrorKind::IsADirectory.into(),
                });
            }
            let file = view.open_file(&path).map_err(|source| at(&path, source))?;
            let statement: Bundled =
                serde_json::from_slice(&read(&file, &path)?).map_err(|source| AttestationError::Json {
                    path: path.clone(),
                    source,
                })?;
            let wanted = &self.predicate_type;
            if !wanted.is_empty() && *wanted != statement.predicate_type {
                return Err(AttestationError::PredicateType {
                    path,
                    found: statement.predicate_type,
                    expected: wanted.clone(),
                });
            }
            if statement.predicate_type.starts_with(PROVENANCE) {
                return Err(AttestationError::Provenance);
            }
            let subjects = statement.subject.into_iter().flatten();
            let predicate = statement.predicate;
            found.push(Self {
                bundle: false,
                content: AttestationContent::Bytes(
                    predicate.map_or_else(Bytes::new, |predicate| predicate.get().to_owned().into()),
                ),
                path,
                predicate_type: statement.predicate_type,
                subjects: subjects
                    .map(|subject| AttestationSubject::Raw {
                        name: subject.name,
                        digests: subject
                            .digest
                            .into_iter()
                            .flatten()
                            .map(|(algorithm, hex)| format!("{algorithm}:{hex}"))
                            .collect(),
                    })
                    .collect(),
                metadata: self.metadata.clone(),
            });
        }
        Ok(found)
    }
}

fn digest_set<'a>(digests: impl IntoIterator<Item = &'a str>) -> Value {
    let pairs = digests.into_iter().filter_map(|digest| digest.split_once(':'));
    let pairs = pairs.map(|(algorithm, hex)| (algorithm.to_owned(), hex.into()));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn view(snapshot: &Snapshot, store: &Store) -> Result<View, ViewError> {
    let folders: Vec<_> = snapshot
        .layers()
        .iter()
        .map(|layer| store.layer_folder(layer))
        .collect();
    View::open(&folders)
}

fn open(snapshot: &Snapshot, store: &Store, path: &str) -> Result<std::fs::File, AttestationError> {
    view(snapshot, store)
        .and_then(|view| view.open_file(path))
        .map_err(|source| AttestationError::Read {
            path: path.to_owned(),
            source,
        })
}

fn read(file: &std::fs::File, path: &str) -> Result<Bytes, AttestationError> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| AttestationError::Io {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(AttestationError::Size {
            path: path.to_owned(),
        });
    }
    Ok(bytes.into())
}

/// Names of attestations as files of their own, each once.
pub(super) fn file_names(
    statements: &[Statement],
    prefix: &str,
    platform: Option<&str>,
) -> Result<Vec<String>, AttestationError> {
    let mut known = BTreeSet::new();
    let mut names = Vec::new();
    for statement in statements {
        let base = statement.path.rsplit('/').next().unwrap_or_default();
        let name = format!("{prefix}{base}");
        let name = match (platform, name.rsplit_once('.')) {
            (None, _) => name,
            (Some(platform), Some((stem, extension))) => format!("{stem}.{platform}.{extension}"),
            (Some(platform), None) => format!("{name}.{platform}"),
        };
        if !known.insert(name.clone()) {
            return Err(AttestationError::Duplicate(name));
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attestation(content: &'static str, subjects: Vec<AttestationSubject>) -> Attestation {
        Attestation {
            bundle: false,
            content: AttestationContent::Bytes(content.into()),
            path: "/a/b.json".to_owned(),
            predicate_type: "https://example.com/p".to_owned(),
            subjects,
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn statements_name_what_is_exported_and_what_they_were_told() {
        let artifacts = [Artifact {
            name: "pkg".to_owned(),
            digest: Digest::of(b"x"),
        }];
        let told = attestation("{\"b\":1, \"a\":2}", Vec::new());
        let statement = told.statement(b"{\"b\":1, \"a\":2}", &artifacts).unwrap();
        let hex = Digest::of(b"x").hex().to_owned();
        assert_eq!(
            std::str::from_utf8(&statement.json).unwrap(),
            format!(
                "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicateType\":\"https://example.com/p\",\
                 \"subject\":[{{\"name\":\"pkg\",\"digest\":{{\"sha256\":\"{hex}\"}}}}],\
                 \"predicate\":{{\"b\":1, \"a\":2}}}}"
            )
        );
        let raw = AttestationSubject::Raw {
            name: String::new(),
            digests: vec!["sha256:ab".to_owned()],
        };
        let statement = attestation("", vec![raw]).statement(b"", &artifacts).unwrap();
        let value: Value = serde_json::from_slice(&statement.json).unwrap();
        assert_eq!(
            value["subject"],
            json!([{ "name": "_", "digest": { "sha256": "ab" } }])
        );
        assert_eq!(value["predicate"], Value::Null);
        assert!(attestation("", Vec::new()).statement(b"{", &artifacts).is_err());
    }

    #[test]
    fn files_are_named_by_platform_where_several_share_a_folder() {
        let statement = Statement {
            path: "/x/provenance.json".to_owned(),
            predicate_type: String::new(),
            json: Bytes::new(),
        };
        let names = |list: &[Statement], platform| file_names(list, "p.", platform);
        let one = [statement.clone()];
        assert_eq!(names(&one, None).unwrap(), ["p.provenance.json"]);
        assert_eq!(
            names(&one, Some("linux_arm64")).unwrap(),
            ["p.provenance.linux_arm64.json"]
        );
        assert!(names(&[statement.clone(), statement], None).is_err());
    }
}
