//! `moby.buildkit.v1.Control`: builds, their progress, sessions, and what the daemon is.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use proto::control::control_server::Control;
use proto::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use proto::errdefs::{self, CompatibilityFeature, Detail};
use proto::headers;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::build::Build;
use super::history::Made;
use super::{Daemon, caches, disk, export, status, workers};
use crate::config::Entitlement;
use crate::session::SessionStream;
use crate::solver::{BuildRequest, Entitlements, Job, Outcome, References, Rules, SourcePolicy};
use crate::version;

/// How long a reader of progress waits for its build to appear.
const STATUS_PATIENCE: Duration = Duration::from_secs(6);

/// Versions of BuildKit's defaults that a client may ask for; 0 is the newest.
const COMPATIBILITY_VERSIONS: [i64; 4] = [0, 10, 20, 30];

pub(super) struct Service(pub(super) Arc<Daemon>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Service {
    type PruneStream = Answers<UsageRecord>;
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = SessionStream;
    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = named_directly(request.into_inner());
        let daemon = &self.0;
        check(daemon, &request)?;
        let sessions = daemon.sessions.group([request.session.as_str()]);
        let granted = granted(daemon, &request.entitlements)?;
        let asked = Some(request.source_policy_session.as_str()).filter(|id| !id.is_empty());
        let policy = SourcePolicy {
            rules: Rules::new(&request.source_policy)
                .map_err(|error| Status::invalid_argument(proto::chain(&error)))?,
            session: asked.map(|id| sessions.only(id)),
        };
        let proxied = request.proxy_network || daemon.proxy_network;
        let job = Job::new(daemon.solver.clone(), sessions, policy, granted, proxied);
        let asked = job.asked(
            &request.frontend,
            &request.frontend_attrs,
            &request.frontend_inputs,
        );
        job.notes().begin(asked, request.compatibility_version);
        let build = Arc::new(Build::new(&request, job));
        let _upkeep = WakesUpkeep(daemon);
        // Dropped with this future when the client gives the call up.
        let _running = daemon
            .builds
            .start(Arc::clone(&build))
            .map_err(|error| status::of_start(&error))?;
        tracing::debug!(build = build.reference(), "build started");
        let mut recording = (!request.internal).then(|| daemon.history.begin(&request, build.progress()));
        let canceled = build.job().cancellation().clone();
        let outcome = tokio::select! {
            outcome = run(daemon, &build, &request) => outcome,
            () = canceled.cancelled() => Err(status::canceled()),
            () = session_lost(daemon, &request.session) => {
                Err(Status::cancelled("the client's session ended before the build did"))
            }
        };
        if let Some(recording) = &mut recording {
            recording.note(&outcome);
        }
        Ok(Response::new(SolveResponse {
            exporter_response: outcome?.exports.response,
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        let daemon = Arc::clone(&self.0);
        // The header goes out at once, so the build is waited for inside the stream.
        let events = async_stream::try_stream! {
            let builds = &daemon.builds;
            let replay = match builds.knows(&reference) {
                true => None,
                false => daemon.history.replay(&reference).await?,
            };
            if let Some(replay) = replay {
                for await message in replay {
                    yield message?;
                }
                return;
            }
            let progress = builds.wait_for_progress(&reference, STATUS_PATIENCE).await;
            let mut reader = progress.ok_or_else(|| status::no_such_job(&reference))?.reader();
            while let Some(message) = reader.next().await {
                yield message;
            }
        };
        let mut response = Response::new(Box::pin(events) as Self::StatusStream);
        stamp(response.metadata_mut());
        Ok(response)
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let session = self.0.sessions.open(&metadata, incoming).await;
        session
            .map(Response::new)
            .map_err(|error| status::of_session(&error))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        if request
            .into_inner()
            .filter
            .iter()
            .any(|filter| !filter.is_empty())
        {
            return Err(Status::unimplemented("workers cannot be filtered: there is one"));
        }
        Ok(Response::new(ListWorkersResponse {
            record: vec![workers::record(&self.0).await],
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(version::message()),
        }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        disk::usage(&self.0, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let removed = disk::prune(&self.0, &request.into_inner())?;
        Ok(Response::new(Box::pin(removed)))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let events = self.0.history.listen(request.into_inner())?;
        let mut response = Response::new(Box::pin(events) as Self::ListenBuildHistoryStream);
        stamp(response.metadata_mut());
        Ok(response)
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        self.0.history.update(request.into_inner()).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// However a build ends, there may be something to remove then.
struct WakesUpkeep<'a>(&'a Daemon);

impl Drop for WakesUpkeep<'_> {
    fn drop(&mut self) {
        self.0.upkeep.build_ended();
    }
}

/// The whole of a build: find out what is wanted, build it, export it. Boxed, because the compiler cannot see that
/// the unboxed future may move between threads.
fn run<'a>(
    daemon: &'a Arc<Daemon>,
    build: &'a Arc<Build>,
    request: &'a SolveRequest,
) -> BoxFuture<'a, Result<Made, Status>> {
    Box::pin(async move {
        build.job().import_caches(caches::imports(request)).await;
        let outcome = outcome(daemon, build, request).await?;
        let exports = export::run(build, &outcome, request).await?;
        let platforms = match &outcome.references {
            References::One(_) => None,
            References::Platforms(references) => Some(references.keys().cloned().collect()),
        };
        Ok(Made { exports, platforms })
    })
}

async fn outcome(
    daemon: &Arc<Daemon>,
    build: &Arc<Build>,
    request: &SolveRequest,
) -> Result<Outcome, Status> {
    // A definition without operations is scratch; only without one does the client drive the build.
    if request.frontend.is_empty() && request.definition.is_none() {
        return build.returned().await;
    }
    let wanted = BuildRequest {
        frontend: request.frontend.clone(),
        attributes: request.frontend_attrs.clone(),
        definition: request
            .definition
            .clone()
            .filter(|definition| !definition.def.is_empty()),
        inputs: request.frontend_inputs.clone(),
        evaluate: false,
        rules: Arc::default(),
    };
    build.solve(daemon, wanted).await
}

/// A client may ask for the frontend that is built in as if it were an image, which leaves no trace; unless a context
/// stands in for that image.
fn named_directly(mut request: SolveRequest) -> SolveRequest {
    const BUILT_IN: &str = "dockerfile.v0";
    let attributes = &mut request.frontend_attrs;
    let context = format!("context:{BUILT_IN}");
    let replaced = attributes.keys().any(|key| {
        key.strip_prefix(&context)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    });
    let asked = attributes.get("source").map(String::as_str);
    if request.frontend == "gateway.v0" && asked == Some(BUILT_IN) && !replaced {
        attributes.remove("source");
        request.frontend = BUILT_IN.to_owned();
    }
    request
}

/// Refuses what would otherwise be left out silently.
fn check(daemon: &Daemon, request: &SolveRequest) -> Result<(), Status> {
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("the build has no reference"));
    }
    if !COMPATIBILITY_VERSIONS.contains(&request.compatibility_version) {
        let version = request.compatibility_version;
        let detail = CompatibilityFeature {
            version,
            feature: "compatibility-version".to_owned(),
        };
        let text = format!("compatibility version {version} is not known; known are 10, 20 and 30");
        return Err(errdefs::status(
            Code::InvalidArgument,
            text,
            &[Detail::CompatibilityFeature(detail)],
        ));
    }
    granted(daemon, &request.entitlements)?;
    export::attest(request)?;
    Ok(())
}

fn granted(daemon: &Daemon, asked: &[String]) -> Result<Entitlements, Status> {
    let mut granted = Entitlements::default();
    for name in asked {
        if let Some(device) = name.strip_prefix("device=") {
            grant_device(&mut granted, device)?;
            continue;
        }
        let allowed =
            Entitlement::parse(name).filter(|entitlement| daemon.entitlements.contains(entitlement));
        match allowed {
            Some(Entitlement::NetworkHost) => granted.network_host = true,
            Some(Entitlement::SecurityInsecure) => granted.security_insecure = true,
            Some(Entitlement::Device) => granted.all_devices = true,
            None => {
                let text =
                    format!("granting entitlement {name} is not allowed by build daemon configuration");
                return Err(Status::unknown(text));
            }
        }
    }
    Ok(granted)
}

/// `NAME[,alias=NAME]`: a device, and what the build calls it.
fn grant_device(granted: &mut Entitlements, text: &str) -> Result<(), Status> {
    let mut fields = text.split(',');
    let name = fields.next().unwrap_or_default().to_owned();
    let mut alias = None;
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) => alias = Some(value.to_owned()),
            _ => {
                return Err(Status::invalid_argument(format!(
                    "invalid device config {field:?}: write device=NAME[,alias=NAME]"
                )));
            }
        }
    }
    match alias {
        Some(alias) => granted.devices.insert(alias, Some(name)),
        None => granted.devices.insert(name, None),
    };
    Ok(())
}

/// Resolves when the build's session ends. A build without one needs none.
async fn session_lost(daemon: &Daemon, id: &str) {
    if id.is_empty() {
        return std::future::pending().await;
    }
    loop {
        // A session that is late counts as soon as it is there; until then, whoever needs it finds out.
        if let Ok(session) = daemon.sessions.get(id).await {
            return session.closed().clone().cancelled_owned().await;
        }
    }
}

fn stamp(metadata: &mut MetadataMap) {
    if let Ok(now) = jiff::Timestamp::now().to_string().parse() {
        metadata.insert(headers::CURRENT_TIMESTAMP, now);
    }
}
