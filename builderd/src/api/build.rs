//! One build as its client sees it: its job, and the verdict that ends a build which the client drives itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::gateway::result::Result as Form;
use proto::gateway::{AttestationKind, InTotoSubjectKind};
use proto::{control, gateway as wire, pb};
use tokio::sync::oneshot;
use tonic::Status;

use super::{Daemon, gateway, status, validate};
use crate::exporters::{AttestationSubject, BuildInfo};
use crate::graph;
use crate::progress::Progress;
use crate::solver::{Attested, BuildRequest, Container, Job, Outcome, Reference, References, SolveError};

type Verdict = Result<Outcome, Status>;

/// Both ends of the way that the client's verdict takes; each is taken once.
#[derive(Debug, Default)]
struct Handover {
    returning: Option<oneshot::Sender<Verdict>>,
    returned: Option<oneshot::Receiver<Verdict>>,
}

#[derive(Debug)]
pub(super) struct Build {
    reference: String,
    job: Arc<Job>,
    inputs: BTreeMap<String, pb::Definition>,
    info: Mutex<Option<BuildInfo>>,
    verdict: Mutex<Handover>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// How many frontends ask on behalf of one another.
    depth: usize,
}

impl Build {
    pub(super) fn new(request: &control::SolveRequest, job: Arc<Job>) -> Self {
        Self::driven(request.r#ref.clone(), job, request.frontend_inputs.clone(), 0)
    }

    /// The part of this build that a frontend drives.
    pub(super) fn part(&self, inputs: BTreeMap<String, pb::Definition>) -> Self {
        let job = Arc::clone(&self.job);
        Self::driven(self.reference.clone(), job, inputs, self.depth + 1)
    }

    fn driven(
        reference: String,
        job: Arc<Job>,
        inputs: BTreeMap<String, pb::Definition>,
        depth: usize,
    ) -> Self {
        let (returning, returned) = oneshot::channel();
        Self {
            reference,
            job,
            inputs,
            containers: Mutex::default(),
            depth,
            info: Mutex::default(),
            verdict: Mutex::new(Handover {
                returning: Some(returning),
                returned: Some(returned),
            }),
        }
    }

    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    pub(super) fn job(&self) -> &Arc<Job> {
        &self.job
    }

    pub(super) fn inputs(&self) -> &BTreeMap<String, pb::Definition> {
        &self.inputs
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn containers(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status of an error that its client may look into.
    pub(super) fn status_of(&self, error: &SolveError) -> Status {
        status::of_solve_with(error, self.job.keep_remains(error))
    }

    pub(super) fn progress(&self) -> &Progress {
        self.job.progress()
    }

    pub(super) fn cancel(&self) {
        self.job.cancellation().cancel();
    }

    /// Nothing of the build goes on after this.
    pub(super) fn end(&self) {
        self.cancel();
        self.progress().close();
        self.end_part();
    }

    /// Finds out what a request comes to, and remembers what it was made from.
    pub(super) async fn solve(
        self: &Arc<Self>,
        daemon: &Arc<Daemon>,
        request: BuildRequest,
    ) -> Result<Outcome, Status> {
        // A frontend takes of these what it needs; the client has asked for all of it.
        for input in request.inputs.values() {
            graph::capabilities::check(input).map_err(|error| self.status_of(&error.into()))?;
        }
        let (frontend, attributes) = (request.frontend.clone(), request.attributes.clone());
        let outcome = match gateway::wanted(&request) {
            Some(wanted) => gateway::run(daemon, self, request, wanted).await?,
            None => match self.job.solve(request.clone()).await {
                Ok(outcome) => outcome,
                Err(error) => match gateway::wanted_instead(&error) {
                    Some(wanted) => gateway::run(daemon, self, request, wanted).await?,
                    None => return Err(self.status_of(&error)),
                },
            },
        };
        if !frontend.is_empty() {
            let images = outcome
                .sources
                .iter()
                .map(|source| (source.reference.clone(), source.digest.clone()));
            let info = BuildInfo {
                frontend,
                attributes,
                images: images.collect(),
            };
            *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Some(info);
        }
        Ok(outcome)
    }

    /// What the last frontend worked from.
    pub(super) fn info(&self) -> Option<BuildInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The verdict of the client, or of the frontend, that drives the build itself; there is one, for whoever asks first.
    pub(super) async fn returned(&self) -> Verdict {
        let returned = self.lock().returned.take();
        let ended = || Status::cancelled("the build was ended before its client returned");
        match returned {
            Some(returned) => returned.await.unwrap_or_else(|_| Err(ended())),
            None => Err(ended()),
        }
    }

    /// The frontend that drives this part has ended; the build goes on.
    pub(super) fn end_part(&self) {
        *self.lock() = Handover::default();
        self.containers().clear();
    }

    /// Hands the client's verdict to the call that waits for it.
    pub(super) fn give_back(&self, request: wire::ReturnRequest) -> Result<(), Status> {
        let verdict = match request.error {
            Some(error) => Err(status::from_message(&error)),
            None => Ok(self.redeem(request.result.unwrap_or_default())?),
        };
        let returning = self.lock().returning.take();
        returning
            .and_then(|returning| returning.send(verdict).ok())
            .ok_or_else(|| Status::failed_precondition("the build has returned already"))
    }

    /// The reference behind an id that this build has handed out. The empty id is scratch.
    pub(super) fn find(&self, id: &str) -> Result<Option<Reference>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        match self.job.reference(id) {
            Some(reference) => Ok(Some(reference)),
            None => Err(Status::not_found(format!("no such ref: {id}"))),
        }
    }

    /// The outcome that a message of the client stands for.
    fn redeem(&self, result: wire::Result) -> Result<Outcome, Status> {
        let mut attestations = BTreeMap::new();
        for (platform, list) in result.attestations {
            let list = list.attestation.into_iter();
            let list = list.map(|attestation| self.attested(attestation));
            attestations.insert(platform, list.collect::<Result<_, Status>>()?);
        }
        let platforms = |ids: BTreeMap<String, String>| {
            let found = ids.into_iter().map(|(platform, id)| {
                let reference = self.find(&id)?;
                Ok((platform, reference.unwrap_or_else(|| self.job.scratch())))
            });
            found.collect::<Result<_, Status>>().map(References::Platforms)
        };
        validate::metadata(&result.metadata).map_err(Status::invalid_argument)?;
        let references = match result.result {
            None => References::One(None),
            Some(Form::RefDeprecated(id)) => References::One(self.find(&id)?),
            Some(Form::Ref(reference)) => References::One(self.find(&reference.id)?),
            Some(Form::RefsDeprecated(map)) => platforms(map.refs)?,
            Some(Form::Refs(map)) => platforms(
                map.refs
                    .into_iter()
                    .map(|(platform, reference)| (platform, reference.id))
                    .collect(),
            )?,
        };
        let metadata = result
            .metadata
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        Ok(Outcome {
            references,
            metadata,
            sources: Vec::new(),
            attestations,
        })
    }

    fn attested(&self, attestation: wire::Attestation) -> Result<Attested, Status> {
        let reference = attestation
            .r#ref
            .map(|reference| reference.id)
            .unwrap_or_default();
        let bundle = match AttestationKind::try_from(attestation.kind) {
            Ok(AttestationKind::InToto) => false,
            Ok(AttestationKind::Bundle) => true,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "unknown kind {} of an attestation",
                    attestation.kind
                )));
            }
        };
        let subject = |subject: wire::InTotoSubject| match InTotoSubjectKind::try_from(subject.kind) {
            Ok(InTotoSubjectKind::Self_) => Ok(AttestationSubject::Itself { name: subject.name }),
            Ok(InTotoSubjectKind::Raw) => Ok(AttestationSubject::Raw {
                name: subject.name,
                digests: subject.digest,
            }),
            Err(_) => Err(Status::invalid_argument(format!(
                "unknown kind {} of an attestation's subject",
                subject.kind
            ))),
        };
        let metadata = attestation.metadata.into_iter();
        Ok(Attested {
            bundle,
            reference: self.find(&reference)?,
            path: attestation.path,
            predicate_type: attestation.in_toto_predicate_type,
            subjects: attestation
                .in_toto_subjects
                .into_iter()
                .map(subject)
                .collect::<Result<_, Status>>()?,
            metadata: metadata.map(|(key, value)| (key, value.into())).collect(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message for an outcome. Older clients know references by their ids only.
pub(super) fn message(outcome: Outcome, knows_definitions: bool) -> wire::Result {
    let reference = |reference: Reference| wire::Ref {
        id: reference.id.to_string(),
        def: Some(reference.definition.as_ref().clone()),
    };
    let id = |reference: Reference| reference.id.to_string();
    let form = match outcome.references {
        References::One(one) if knows_definitions => Form::Ref(one.map(reference).unwrap_or_default()),
        References::One(one) => Form::RefDeprecated(one.map(id).unwrap_or_default()),
        References::Platforms(platforms) if knows_definitions => Form::Refs(wire::RefMap {
            refs: platforms
                .into_iter()
                .map(|(platform, one)| (platform, reference(one)))
                .collect(),
        }),
        References::Platforms(platforms) => Form::RefsDeprecated(wire::RefMapDeprecated {
            refs: platforms
                .into_iter()
                .map(|(platform, one)| (platform, id(one)))
                .collect(),
        }),
    };
    wire::Result {
        result: Some(form),
        metadata: outcome
            .metadata
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect(),
        ..wire::Result::default()
    }
}
