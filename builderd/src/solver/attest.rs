//! What is attested about results: what a client asks for, and what frontends hand in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::errdefs::{Detail, ProvenanceGap, ProvenanceGaps};
use proto::pb;

use super::outcome::{Attested, Outcome, Reference};
use super::provenance::{Asked, Gaps, Options, Scope, Subject};
use super::{Job, SolveError};
use crate::exporters::{Attestation, AttestationContent, INLINE_ONLY, Provenance, REASON, Slsa};

/// Requests that an error names; it travels in a header.
const MOST_SHOWN: usize = 10;

const SBOM_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// What a client wants attested, from the attributes `attest:…` of its request.
#[derive(Clone, Debug, Default)]
pub struct AttestRequest {
    pub provenance: Option<ProvenanceRequest>,
    pub sbom: Option<SbomRequest>,
}

#[derive(Clone, Debug)]
pub struct ProvenanceRequest {
    pub options: Options,
    pub file_name: String,
    /// Only within images.
    pub inline_only: bool,
}

#[derive(Clone, Debug)]
pub struct SbomRequest {
    pub generator: String,
    /// Handed to the scanner.
    pub parameters: BTreeMap<String, String>,
    pub ignore_cache: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error("unknown attestation type {0:?}: provenance and sbom are known")]
    Kind(String),
    #[error("invalid value {value:?} of {key} in attest:provenance: expected {expected}")]
    Value {
        key: String,
        value: String,
        expected: &'static str,
    },
    #[error("sbom generator cannot be empty")]
    NoGenerator,
    #[error("provenance materials are incomplete: {}; or leave complete-materials out", gaps(.0))]
    Incomplete(Box<Gaps>),
    #[error("scanner {0} does not have cmd")]
    NoCommand(String),
    #[error("the config of scanner {image} cannot be read")]
    Config {
        image: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot look up scanner {image}")]
    Image {
        image: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What is missing, and what helps.
fn gaps(gaps: &Gaps) -> String {
    let mut text = Vec::new();
    if !gaps.folders.is_empty() {
        text.push(format!(
            "the build uses folders of the client ({}), which cannot be named: build from a repository",
            gaps.folders.join(", ")
        ));
    }
    for missed in gaps.requests.iter().take(MOST_SHOWN) {
        let request = match missed.request.url.as_str() {
            "" => "what it took from the network is not known".to_owned(),
            url => format!("the answer to {} {url} is not known", missed.request.method),
        };
        text.push(format!(
            "of process {:?} {request} ({}): let it succeed with plain GET requests",
            missed.command, missed.request.reason
        ));
    }
    if let Some(more @ 1..) = gaps.requests.len().checked_sub(MOST_SHOWN) {
        text.push(format!("and {more} more requests"));
    }
    text.join("; ")
}

impl AttestError {
    /// For clients that show what is missing in their own way.
    pub(super) fn detail(&self) -> Option<Detail> {
        let Self::Incomplete(gaps) = self else { return None };
        let folders = gaps.folders.iter().map(|name| ProvenanceGap {
            name: name.clone(),
            reason: "local_source".to_owned(),
            ..ProvenanceGap::default()
        });
        let requests = gaps.requests.iter().take(MOST_SHOWN).map(|missed| ProvenanceGap {
            op: missed.operation.clone(),
            name: missed.command.clone(),
            method: missed.request.method.clone(),
            uri: missed.request.url.clone(),
            reason: missed.request.reason.clone(),
        });
        Some(Detail::ProvenanceGaps(ProvenanceGaps {
            incomplete: folders.chain(requests).collect(),
        }))
    }
}

impl AttestRequest {
    pub fn parse(attributes: &BTreeMap<String, String>) -> Result<Self, AttestError> {
        let mut request = Self::default();
        for (key, value) in attributes {
            let kind = key
                .strip_prefix("attest:")
                .or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            let Some(kind) = kind.map(str::to_lowercase) else {
                continue;
            };
            let fields: Vec<(String, String)> = csv_fields(value)
                .into_iter()
                .map(|field| match field.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.to_owned()),
                    None => (field, String::new()),
                })
                .collect();
            match kind.as_str() {
                "provenance" => request.provenance = Some(ProvenanceRequest::parse(&fields)?),
                "sbom" => request.sbom = Some(SbomRequest::parse(&fields, attributes)?),
                _ => return Err(AttestError::Kind(kind)),
            }
        }
        Ok(request)
    }
}

impl ProvenanceRequest {
    fn parse(fields: &[(String, String)]) -> Result<Self, AttestError> {
        let mut request = Self {
            options: Options::default(),
            file_name: "provenance.json".to_owned(),
            inline_only: false,
        };
        for (key, value) in fields {
            let invalid = |expected| AttestError::Value {
                key: key.clone(),
                value: value.clone(),
                expected,
            };
            let flag = || match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(invalid("true or false")),
            };
            match key.as_str() {
                "version" => {
                    request.options.slsa = match value.as_str() {
                        "v1" => Slsa::V1,
                        "v0.2" => Slsa::V02,
                        _ => return Err(invalid("v1 or v0.2")),
                    }
                }
                "mode" => {
                    request.options.max = match value.as_str() {
                        "max" | "full" => true,
                        "min" => false,
                        _ => return Err(invalid("min or max")),
                    }
                }
                "reproducible" => request.options.reproducible = flag()?,
                "complete-materials" => request.options.complete_materials = flag()?,
                "inline-only" => request.inline_only = flag().unwrap_or_default(),
                "builder-id" => request.options.builder_id.clone_from(value),
                "filename" => request.file_name.clone_from(value),
                _ => {}
            }
        }
        Ok(request)
    }
}

impl SbomRequest {
    fn parse(
        fields: &[(String, String)],
        attributes: &BTreeMap<String, String>,
    ) -> Result<Self, AttestError> {
        let mut parameters: BTreeMap<String, String> = fields.iter().cloned().collect();
        let generator = parameters
            .remove("generator")
            .unwrap_or_else(|| SBOM_GENERATOR.to_owned());
        if generator.is_empty() {
            return Err(AttestError::NoGenerator);
        }
        Ok(Self {
            generator,
            parameters,
            ignore_cache: attributes.get("no-cache").is_some_and(String::is_empty),
        })
    }
}

/// The fields of a line of CSV; quotes keep commas in a field.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields.retain(|field| !field.is_empty());
    fields
}

/// A result on its way out.
#[derive(Clone, Debug)]
pub(super) struct Told<'a> {
    pub id: &'a str,
    pub platform: &'a registry::Platform,
    pub reference: Option<&'a Reference>,
}

impl Job {
    /// A request of a frontend as provenance tells it.
    pub fn asked(
        &self,
        frontend: &str,
        attributes: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, pb::Definition>,
    ) -> Asked {
        let producers = self.solver().producers();
        Asked {
            frontend: frontend.to_owned(),
            attributes: attributes.clone(),
            inputs: inputs
                .iter()
                .filter_map(|(name, definition)| Some((name.clone(), producers.lookup(definition)?)))
                .collect(),
        }
    }

    /// Lets other builds that take this result as an input tell where it came from.
    pub(super) fn note_producer(&self, reference: &Reference) {
        let Some(request) = reference.scope.told() else {
            return;
        };
        let registration = self.solver().producers().register(&reference.definition, request);
        if let Some(registration) = registration {
            self.notes().keep(registration);
        }
    }

    /// The attestations that a frontend handed in for one platform.
    pub(super) async fn handed_in(
        self: &Arc<Self>,
        attested: &[Attested],
    ) -> Result<Vec<Attestation>, SolveError> {
        let mut attestations = Vec::new();
        for one in attested {
            let snapshots = self.evaluate_all(one.reference.iter()).await?;
            let content = match snapshots.into_iter().next() {
                Some(snapshot) => AttestationContent::Snapshot(snapshot),
                None => return Err(SolveError::Request("an attestation has no content".to_owned())),
            };
            attestations.push(Attestation {
                bundle: one.bundle,
                content,
                path: one.path.clone(),
                predicate_type: one.predicate_type.clone(),
                subjects: one.subjects.clone(),
                metadata: one.metadata.clone(),
            });
        }
        Ok(attestations)
    }

    /// What each result was made from; none for what is scratch.
    pub(super) fn provenance(
        &self,
        options: &Options,
        results: &[Told<'_>],
        outcome: &Outcome,
    ) -> Result<Vec<Option<Provenance>>, AttestError> {
        let attested = outcome.attestations.values().flatten();
        let attested = attested.filter_map(|attested| attested.reference.as_ref());
        let ids: BTreeSet<Arc<str>> = results
            .iter()
            .filter_map(|result| result.reference)
            .chain(attested)
            .map(|reference| Arc::clone(&reference.id))
            .collect();
        let platforms: Vec<_> = results.iter().map(|result| result.platform.clone()).collect();
        let empty = pb::Definition::default();
        let made = results.iter().map(|result| {
            let Some(reference) = result.reference else {
                return Ok(None);
            };
            let scope: &Scope = &reference.scope;
            let several = results.len() > 1;
            let subject = Subject {
                definition: match reference.definition.def.is_empty() {
                    true => &empty,
                    false => &reference.definition,
                },
                scope,
                platform: several.then_some(result.platform),
                platforms: &platforms,
            };
            let environment = self.solver().environment();
            let mut provenance = options
                .predicate(subject, &ids, self.notes(), environment)
                .map_err(|gaps| AttestError::Incomplete(Box::new(gaps)))?;
            for (digest, number) in &provenance.steps {
                let outputs = self.finished(digest);
                for (index, snapshot) in outputs.iter().flat_map(|outputs| outputs.iter()).enumerate() {
                    provenance
                        .layers
                        .insert(format!("step{number}:{index}"), snapshot.clone());
                }
            }
            Ok(Some(provenance))
        });
        made.collect()
    }
}

impl ProvenanceRequest {
    pub(super) fn attestation(&self, provenance: Provenance) -> Attestation {
        let inline = self.inline_only.to_string();
        Attestation {
            bundle: false,
            path: self.file_name.clone(),
            predicate_type: provenance.slsa.predicate_type().to_owned(),
            content: AttestationContent::Provenance(Box::new(provenance)),
            subjects: Vec::new(),
            metadata: BTreeMap::from([
                (REASON.to_owned(), b"provenance".to_vec()),
                (INLINE_ONLY.to_owned(), inline.into_bytes()),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<AttestRequest, AttestError> {
        AttestRequest::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn wishes_are_read_and_wrong_ones_refused() {
        let wanted = parse(
            "attest:provenance",
            "mode=min,version=v0.2,inline-only=true,builder-id=me",
        )
        .unwrap();
        let provenance = wanted.provenance.unwrap();
        assert!(!provenance.options.max && provenance.inline_only);
        assert_eq!(provenance.options.slsa, Slsa::V02);
        assert_eq!(provenance.options.builder_id, "me");
        let sbom = parse("build-arg:BUILDKIT_ATTEST_SBOM", "generator=x,KEY=v")
            .unwrap()
            .sbom
            .unwrap();
        assert_eq!(
            (sbom.generator.as_str(), sbom.parameters["KEY"].as_str()),
            ("x", "v")
        );
        for (key, value) in [
            ("attest:other", ""),
            ("attest:provenance", "mode=some"),
            ("attest:provenance", "version=v2"),
            ("attest:sbom", "generator="),
        ] {
            assert!(parse(key, value).is_err(), "{key}={value}");
        }
    }
}
