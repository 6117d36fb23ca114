//! Lists of packages (SBOM): a scanner image looks at each result and writes statements, which go with the result.
//!
//! The scanner is an ordinary step with the result mounted; where things are it learns from its environment.

use std::sync::Arc;

use binfmt::Platform;
use proto::pb;
use registry::image::ImageConfig;

use super::attest::{AttestError, SbomRequest, Told};
use super::outcome::Reference;
use super::{Job, SolveError};
use crate::exporters::{Attestation, AttestationContent, REASON, SBOM_CORE};
use crate::frontend::{ResolveMode, WantedImage};
use crate::graph::builder::{Builder, Note, Operation};

const SOURCE: &str = "/run/src/core/sbom";
/// Below it, what the Dockerfile wants to be scanned as well.
const EXTRAS: &str = "/run/src/extras";
const DESTINATION: &str = "/run/out";
const CORE: &str = "sbom";
const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// A scanner that was looked up.
struct Scanner {
    reference: String,
    config: ImageConfig,
}

impl Job {
    /// A bundle of statements for each result; none for scratch.
    pub(super) async fn sboms(
        self: &Arc<Self>,
        request: &SbomRequest,
        results: &[Told<'_>],
    ) -> Result<Vec<Option<Attestation>>, SolveError> {
        let failed = |error| SolveError::Attest(Arc::new(error));
        let scanner = self.scanner(request).await.map_err(failed)?;
        let mut bundles = Vec::new();
        for result in results {
            let Some(reference) = result.reference else {
                bundles.push(None);
                continue;
            };
            let definition = scanner
                .definition(request, result.id, reference)
                .map_err(failed)?;
            let snapshots = match self.load(&definition)? {
                Some(edge) => self.evaluate(&[edge]).await?,
                None => Vec::new(),
            };
            bundles.push(snapshots.into_iter().next().map(|snapshot| {
                Attestation {
                    bundle: true,
                    content: AttestationContent::Snapshot(snapshot),
                    path: String::new(),
                    predicate_type: PREDICATE_TYPE.to_owned(),
                    subjects: Vec::new(),
                    metadata: [(REASON, "sbom"), (SBOM_CORE, CORE)]
                        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
                        .into(),
                }
            }));
        }
        Ok(bundles)
    }

    async fn scanner(&self, request: &SbomRequest) -> Result<Scanner, AttestError> {
        let image = request.generator.clone();
        let named = |source: Box<dyn std::error::Error + Send + Sync>| AttestError::Image {
            image: image.clone(),
            source,
        };
        let reference: registry::Reference = image.parse().map_err(|error| {
            let error: registry::reference::ReferenceError = error;
            named(error.into())
        })?;
        let wanted = WantedImage {
            reference: reference.or_latest(),
            platform: Platform::host(),
            mode: ResolveMode::Default,
            name: format!("resolve image config for {image}"),
            layout: None,
        };
        let (found, _) = self
            .looked_up(wanted, &super::Rules::default())
            .await
            .map_err(|error| named(error.into()))?;
        let config = ImageConfig::parse(&found.config).map_err(|source| AttestError::Config {
            image: image.clone(),
            source,
        })?;
        Ok(Scanner {
            reference: found.reference.to_string(),
            config,
        })
    }
}

impl Scanner {
    fn definition(
        &self,
        request: &SbomRequest,
        name: &str,
        result: &Reference,
    ) -> Result<pb::Definition, AttestError> {
        let config = &self.config.config;
        let args: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
        if args.is_empty() {
            return Err(AttestError::NoCommand(self.reference.clone()));
        }
        let host = Platform::host();
        let platform = Some(pb::Platform {
            os: host.os().to_owned(),
            architecture: host.architecture().to_owned(),
            variant: host.variant().to_owned(),
            ..pb::Platform::default()
        });
        let mut builder = Builder::default();
        let image = builder.add(Operation {
            kind: pb::op::Op::Source(pb::SourceOp {
                identifier: format!("docker-image://{}", self.reference),
                ..pb::SourceOp::default()
            }),
            inputs: Vec::new(),
            platform: platform.clone(),
            note: Note::default(),
        });
        let mut inputs = vec![image];
        let scanned = builder.import(&result.definition);
        let input = scanned.map_or(-1, |_| 1);
        inputs.extend(scanned);
        let mount = |dest: &str, input, output| pb::Mount {
            input,
            output,
            dest: dest.to_owned(),
            ..pb::Mount::default()
        };
        let mut mounts = vec![
            mount("/", 0, 0),
            pb::Mount {
                mount_type: pb::MountType::Tmpfs.into(),
                tmpfs_opt: Some(pb::TmpfsOpt::default()),
                ..mount("/tmp", -1, -1)
            },
            pb::Mount {
                readonly: true,
                ..mount(SOURCE, input, -1)
            },
            mount(DESTINATION, -1, 1),
        ];
        let mut told = vec![
            format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}/"),
            format!("BUILDKIT_SCAN_SOURCE={SOURCE}"),
        ];
        if !result.scanned.is_empty() {
            told.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
        }
        for (name, definition) in result.scanned.iter() {
            let output = builder.import(definition);
            let input = output.map_or(-1, |_| i64::try_from(inputs.len()).unwrap_or(-1));
            inputs.extend(output);
            mounts.push(pb::Mount {
                readonly: true,
                ..mount(&format!("{EXTRAS}/{CORE}-{name}"), input, -1)
            });
        }
        let parameters = request.parameters.iter();
        let parameters = parameters.map(|(key, value)| format!("BUILDKIT_SCAN_{key}={value}"));
        let env = config.env.iter().cloned().chain(told).chain(parameters);
        let directory = config.working_dir.as_str();
        let step = builder.add(Operation {
            kind: pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta {
                    args,
                    env: env.collect(),
                    cwd: if directory.is_empty() { "/" } else { directory }.to_owned(),
                    remove_mount_stubs_recursive: true,
                    ..pb::Meta::default()
                }),
                mounts,
                ..pb::ExecOp::default()
            }),
            inputs,
            platform,
            note: Note {
                name: format!("[{name}] generating sbom using {}", self.reference),
                ignore_cache: request.ignore_cache,
                ..Note::default()
            },
        });
        let output = builder.output(step, 1);
        Ok(builder.definition(Some(output), None))
    }
}
