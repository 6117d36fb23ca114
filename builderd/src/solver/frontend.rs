//! Runs frontends for a job: answers what they ask, and loads what they make into the job's graph.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use binfmt::Platform;
use bytes::Bytes;
use dockerfile::lint::Finding;
use proto::control::VertexWarning;
use proto::pb;

use super::outcome::{Outcome, Reference, References};
use super::provenance::Scope;
use super::rules::Rules;
use super::source_meta::SourceMetaError;
use super::{Job, SolveError};
use crate::frontend::{self, Host, HostError, Resolution, WantedImage};
use crate::graph::digest_of;
use crate::ops::file::view_of;
use crate::store::Snapshot;

/// A Dockerfile or another small file that a frontend reads may have this many bytes.
const MAX_READ: u64 = 16 << 20;

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// `dockerfile.v0`, `gateway.v0`, or empty for a definition.
    pub frontend: String,
    pub attributes: BTreeMap<String, String>,
    pub definition: Option<pb::Definition>,
    /// Definitions that frontends use in place of a client's folders.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// Compute the result before answering, so that errors surface here.
    pub evaluate: bool,
    /// Further rules about the sources of this request.
    pub rules: Arc<Rules>,
}

impl Job {
    /// Finds out what a request comes to; without `evaluate` no step runs yet.
    pub async fn solve(self: &Arc<Self>, request: BuildRequest) -> Result<Outcome, SolveError> {
        let scope = Arc::clone(self.notes().scope());
        self.solve_within(&scope, request).await
    }

    /// The same, asked for by somebody within the build.
    pub async fn solve_within(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        request: BuildRequest,
    ) -> Result<Outcome, SolveError> {
        let evaluate = request.evaluate;
        let outcome = match (request.frontend.as_str(), &request.definition) {
            ("", None) => Outcome {
                references: References::One(None),
                metadata: BTreeMap::new(),
                sources: Vec::new(),
                attestations: BTreeMap::new(),
            },
            ("", Some(definition)) => Outcome {
                references: References::One(self.refer(
                    definition,
                    scope,
                    &request.rules,
                    BTreeMap::new(),
                )?),
                metadata: BTreeMap::new(),
                sources: Vec::new(),
                attestations: BTreeMap::new(),
            },
            (_, Some(_)) => {
                return Err(SolveError::Request(
                    "a request has either a frontend or a definition".to_owned(),
                ));
            }
            ("dockerfile.v0", None) => self.dockerfile(request, scope).await?,
            ("gateway.v0", None)
                if request
                    .attributes
                    .get("source")
                    .is_some_and(|source| frontend::is_built_in(source)) =>
            {
                self.dockerfile(request, scope).await?
            }
            (name, None) => return Err(SolveError::Request(format!("unknown frontend: {name}"))),
        };
        if evaluate {
            self.evaluate_all(outcome.references.iter()).await?;
        }
        Ok(outcome)
    }

    /// The snapshots of references, in their order; computes what is missing.
    pub async fn evaluate_all(
        self: &Arc<Self>,
        references: impl Iterator<Item = &Reference>,
    ) -> Result<Vec<Snapshot>, SolveError> {
        let edges: Vec<_> = references.map(|reference| reference.edge).collect();
        let targets: Vec<_> = edges.iter().flatten().copied().collect();
        let mut snapshots = self.evaluate(&targets).await?.into_iter();
        // Scratch takes no snapshot from the list.
        Ok(edges
            .into_iter()
            .map(|edge| edge.and_then(|_| snapshots.next()).unwrap_or_default())
            .collect())
    }

    /// A reference that this build handed out before.
    pub fn reference(&self, id: &str) -> Option<Reference> {
        self.references().get(id).cloned()
    }

    /// The result without any files.
    pub fn scratch(&self) -> Reference {
        Reference {
            id: "".into(),
            definition: Arc::default(),
            scanned: Arc::default(),
            scope: Arc::clone(self.notes().scope()),
            edge: None,
        }
    }

    fn refer(
        &self,
        definition: &pb::Definition,
        scope: &Arc<Scope>,
        rules: &Rules,
        scanned: BTreeMap<String, pb::Definition>,
    ) -> Result<Option<Reference>, SolveError> {
        let edge = self.load_under(definition, rules)?;
        let id: Arc<str> = format!("trimaran::{:032x}", rand::random::<u128>()).into();
        let reference = Reference {
            id: Arc::clone(&id),
            definition: Arc::new(definition.clone()),
            scanned: Arc::new(scanned),
            scope: Arc::clone(scope),
            edge,
        };
        scope.solved(Arc::clone(&id), Arc::clone(&reference.definition));
        self.note_producer(&reference);
        self.references().insert(id, reference.clone());
        Ok(Some(reference))
    }

    async fn dockerfile(
        self: &Arc<Self>,
        request: BuildRequest,
        scope: &Arc<Scope>,
    ) -> Result<Outcome, SolveError> {
        let scope = scope.child(self.asked(&request.frontend, &request.attributes, &request.inputs));
        let imports = super::remote::imports(&request.attributes).map_err(|error| {
            SolveError::Request(format!("invalid frontend attribute cache-imports: {error}"))
        })?;
        self.import_caches(imports).await;
        let session = self
            .sessions()
            .ids()
            .first()
            .map(|id| id.to_string())
            .unwrap_or_default();
        let asked = request.attributes.get("requestid").cloned();
        let rules = Arc::clone(&request.rules);
        let request = frontend::Request {
            attributes: request.attributes,
            inputs: request.inputs,
            session,
            build_platform: Platform::host(),
        };
        let host = JobHost {
            job: Arc::clone(self),
            scope: Arc::clone(&scope),
            rules,
        };
        if let Some(name) = asked {
            return Ok(Outcome {
                references: References::One(None),
                metadata: frontend::answer(&host, &request, &name).await?,
                sources: Vec::new(),
                attestations: BTreeMap::new(),
            });
        }
        let build = frontend::build(&host, &request).await?;
        let metadata = build.metadata();
        let mut references = BTreeMap::new();
        for target in build.targets {
            let reference = self.refer(&target.definition, &scope, &host.rules, target.scanned)?;
            if let Some(reference) = reference {
                references.insert(target.platform.to_string(), reference);
            }
        }
        let references = if build.multi_platform {
            References::Platforms(references)
        } else {
            References::One(references.into_values().next())
        };
        Ok(Outcome {
            references,
            metadata,
            sources: build.sources,
            attestations: BTreeMap::new(),
        })
    }
}

/// A broken rule as displays show it: under the vertex that loaded the Dockerfile.
fn warning(finding: &Finding, source: &pb::SourceInfo) -> VertexWarning {
    let position = |line: u32| {
        Some(pb::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        })
    };
    let lines = finding.lines.first..=finding.lines.last;
    let loaded = source
        .definition
        .as_ref()
        .and_then(|definition| definition.def.first());
    VertexWarning {
        vertex: loaded.map(|bytes| digest_of(bytes)).unwrap_or_default(),
        level: 1,
        short: finding.summary().into(),
        detail: vec![finding.rule.description().into()],
        url: finding.rule.url(),
        info: Some(source.clone()),
        ranges: lines
            .map(|line| pb::Range {
                start: position(line),
                end: position(line),
            })
            .collect(),
    }
}

/// The daemon's side of a frontend.
struct JobHost {
    job: Arc<Job>,
    scope: Arc<Scope>,
    rules: Arc<Rules>,
}

impl JobHost {
    /// What a definition comes to, with its files here; nothing for scratch.
    async fn snapshot(&self, definition: &pb::Definition) -> Result<Option<Snapshot>, HostError> {
        let Some(edge) = self.job.load_under(definition, &self.rules)? else {
            return Ok(None);
        };
        // What is read is no part of the result, but says how it is made.
        self.scope.solved("".into(), Arc::new(definition.clone()));
        let snapshots = self.job.evaluate(&[edge]).await?;
        let snapshot = snapshots.into_iter().next().unwrap_or_default();
        self.job.fetch_files(&snapshot).await?;
        Ok(Some(snapshot))
    }
}

impl Host for JobHost {
    async fn read_files(
        &self,
        definition: pb::Definition,
        paths: Vec<String>,
    ) -> Result<BTreeMap<String, Bytes>, HostError> {
        let Some(snapshot) = self.snapshot(&definition).await? else {
            return Ok(BTreeMap::new());
        };
        let store = self.job.store().clone();
        let pool = store.pool().clone();
        pool.run(move || {
            let view = view_of(&snapshot, &store)?;
            let mut files = BTreeMap::new();
            for path in paths {
                match view.open_file(&path) {
                    Ok(file) => {
                        files.insert(path.clone(), read_limited(file, &path)?);
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(files)
        })
        .await?
    }

    async fn read_start(
        &self,
        definition: pb::Definition,
        path: String,
        length: u64,
    ) -> Result<Bytes, HostError> {
        let snapshot = self.snapshot(&definition).await?.unwrap_or_default();
        let store = self.job.store().clone();
        let pool = store.pool().clone();
        pool.run(move || {
            let mut start = Vec::new();
            let file = view_of(&snapshot, &store)?.open_file(&path)?;
            file.take(length).read_to_end(&mut start)?;
            Ok(start.into())
        })
        .await?
    }

    async fn resolve_image(&self, wanted: WantedImage) -> Result<Resolution, HostError> {
        match self.job.looked_up(wanted, &self.rules).await {
            Ok((image, material)) => {
                self.scope.looked_up(material);
                Ok(Resolution::Image(image))
            }
            Err(SourceMetaError::Elsewhere(source)) => Ok(Resolution::Elsewhere(source)),
            Err(error) => Err(error.into()),
        }
    }

    async fn source_time(&self, source: pb::SourceOp, name: String) -> Result<Option<i64>, HostError> {
        self.job.source_time(source, &name).await
    }

    fn warn(&self, finding: &Finding, source: &pb::SourceInfo) {
        self.job.progress().warn(warning(finding, source));
    }
}

fn read_limited(file: std::fs::File, path: &str) -> Result<Bytes, HostError> {
    let mut data = Vec::new();
    file.take(MAX_READ + 1).read_to_end(&mut data)?;
    if data.len() as u64 > MAX_READ {
        return Err(format!("{path} is larger than {} MiB", MAX_READ >> 20).into());
    }
    Ok(data.into())
}
