//! Frontends that are images: run in a container of their own, they drive a part of the build over their standard
//! streams, by the calls of `LLBBridge`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use proto::errdefs::{self, Detail, Named};
use proto::gateway::llb_bridge_server::LlbBridgeServer;
use proto::pb;
use proto::tunnel::MAX_MESSAGE;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::{Code, Status};

use super::bridge::Service;
use super::build::Build;
use super::{Daemon, status, workers};
use crate::executor::step::{Attached, Stream};
use crate::executor::{Conversation, Input};
use crate::frontend;
use crate::ops::OpError;
use crate::progress::LogStream;
use crate::solver::{
    BuildRequest, ContainerError, ContainerRequest, Outcome, Process, Rules, SolveError, wanted_image,
};

/// Frontends that ask for frontends may be this deep.
const DEEPEST: usize = 8;

/// Bytes on their way in one direction.
const PIPE: usize = 64 << 10;

/// How long a frontend may take to end once it has returned; its result stands either way.
const LINGERING: Duration = Duration::from_secs(3);

/// What a frontend finds its own definition by.
const METADATA: &str = "/run/config/buildkit/metadata/frontend.bin";

/// The frontend that a request is for.
#[derive(Debug)]
pub(super) struct Wanted {
    image: String,
    /// The whole syntax line, if a Dockerfile asked for it.
    command_line: Option<String>,
    /// Where it asked.
    place: Option<Detail>,
}

/// The image that a request names as its frontend.
pub(super) fn wanted(request: &BuildRequest) -> Option<Wanted> {
    let source = request.attributes.get("source");
    let is_built_in = source.is_some_and(|source| frontend::is_built_in(source));
    if request.frontend != "gateway.v0" || request.definition.is_some() || is_built_in {
        return None;
    }
    Some(Wanted {
        image: source.cloned().unwrap_or_default(),
        command_line: None,
        place: None,
    })
}

/// The image that a Dockerfile asks for in the place of the frontend that read it.
pub(super) fn wanted_instead(error: &SolveError) -> Option<Wanted> {
    let SolveError::Frontend(error) = error else {
        return None;
    };
    match &error.problem {
        frontend::Problem::Syntax { image, command_line } => Some(Wanted {
            image: image.clone(),
            command_line: Some(command_line.clone()),
            place: error.detail(),
        }),
        _ => None,
    }
}

/// What an image says about how it is run.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: RunConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// Has a frontend image find out what a request comes to.
pub(super) fn run<'a>(
    daemon: &'a Arc<Daemon>,
    build: &'a Arc<Build>,
    request: BuildRequest,
    mut wanted: Wanted,
) -> BoxFuture<'a, Result<Outcome, Status>> {
    Box::pin(async move {
        let place = wanted.place.take();
        let outcome = find_out(daemon, build, request, wanted).await;
        outcome.map_err(|status| located(status, place))
    })
}

/// An error that says nothing about lines is one of the line that asked for the frontend.
fn located(status: Status, place: Option<Detail>) -> Status {
    let is_place = |detail: &Detail| matches!(detail, Detail::Source(_));
    match place {
        Some(place) if !errdefs::details(&status).iter().any(is_place) => {
            errdefs::with_detail(&status, &place)
        }
        _ => status,
    }
}

fn find_out<'a>(
    daemon: &'a Arc<Daemon>,
    build: &'a Arc<Build>,
    mut request: BuildRequest,
    wanted: Wanted,
) -> BoxFuture<'a, Result<Outcome, Status>> {
    Box::pin(async move {
        if wanted.image.is_empty() {
            return Err(Status::invalid_argument("no source specified for gateway"));
        }
        if build.depth() >= DEEPEST {
            return Err(Status::unknown(format!(
                "frontend {} is asked for by {DEEPEST} frontends in a row",
                wanted.image
            )));
        }
        if let Some(line) = &wanted.command_line {
            request
                .attributes
                .insert("source".to_owned(), wanted.image.clone());
            request.attributes.insert("cmdline".to_owned(), line.clone());
        }
        let (definition, config) = load(build, &request, &wanted.image).await?;
        check_capabilities(&request, &config)?;
        let evaluate = request.evaluate;
        let outcome = drive(daemon, build, request, definition, config, &wanted.image).await?;
        if evaluate {
            let evaluated = build.job().evaluate_all(outcome.references.iter()).await;
            evaluated.map_err(|error| build.status_of(&error))?;
        }
        Ok(outcome)
    })
}

/// The definition of a frontend's files, and how they are run.
async fn load(
    build: &Build,
    request: &BuildRequest,
    image: &str,
) -> Result<(pb::Definition, RunConfig), Status> {
    let mut reference = image.to_owned();
    if let Some(context) = request.attributes.get(&format!("context:{image}")) {
        match context.split_once(':') {
            Some(("input", name)) => {
                let input = request.inputs.get(name).cloned().ok_or_else(|| {
                    Status::invalid_argument(format!("invalid input {name} for frontend {image}"))
                })?;
                return Ok((input, input_config(request, name)?));
            }
            Some(("docker-image", name)) => name.trim_start_matches('/').clone_into(&mut reference),
            _ => {
                return Err(Status::unimplemented(format!(
                    "frontend {image} cannot be taken from {context}: use docker-image:// or input:"
                )));
            }
        }
    }
    let refused = |error: &(dyn std::error::Error + 'static)| Status::unknown(proto::chain(error));
    let wanted = wanted_image(&reference, None, "", String::new()).map_err(|error| refused(&error))?;
    let resolved = build.job().resolve_image(wanted, &Rules::default()).await;
    let resolved = resolved.map_err(|error| refused(&error))?;
    let config: Config = serde_json::from_slice(&resolved.config)
        .map_err(|error| Status::unknown(format!("the config of frontend image {image}: {error}")))?;
    let pinned = match resolved.reference.to_string() {
        name if name.contains('@') => name,
        name => format!("{name}@{}", resolved.digest),
    };
    Ok((source(&format!("docker-image://{pinned}")), config.config))
}

/// The config that comes with a definition that stands for an image.
fn input_config(request: &BuildRequest, name: &str) -> Result<RunConfig, Status> {
    let Some(metadata) = request.attributes.get(&format!("input-metadata:{name}")) else {
        return Ok(RunConfig::default());
    };
    let invalid = |error: serde_json::Error| {
        Status::invalid_argument(format!("failed to parse input metadata {name}: {error}"))
    };
    let values: BTreeMap<String, String> = serde_json::from_str(metadata).map_err(invalid)?;
    let config = values
        .get("containerimage.config")
        .map(String::as_str)
        .unwrap_or("{}");
    let config: Config = match serde_json::from_str(config) {
        Ok(config) => config,
        // Bytes are base64 in JSON of Go programs.
        Err(_) => {
            use base64::Engine as _;
            let decoded = base64::prelude::BASE64_STANDARD
                .decode(config)
                .unwrap_or_default();
            serde_json::from_slice(&decoded).map_err(invalid)?
        }
    };
    Ok(config.config)
}

fn source(identifier: &str) -> pb::Definition {
    let op = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        })),
        platform: Some(pb::Platform {
            os: "linux".to_owned(),
            architecture: binfmt::Platform::host().architecture().to_owned(),
            variant: binfmt::Platform::host().variant().to_owned(),
            ..pb::Platform::default()
        }),
        ..pb::Op::default()
    }
    .encode_to_vec();
    let digest = crate::graph::digest_of(&op);
    let end = pb::Op {
        inputs: vec![pb::Input {
            digest: digest.clone(),
            index: 0,
        }],
        ..pb::Op::default()
    };
    let shown = [(
        "llb.customname".to_owned(),
        format!("[internal] frontend {identifier}"),
    )];
    let metadata = pb::OpMetadata {
        description: shown.into(),
        ..pb::OpMetadata::default()
    };
    pb::Definition {
        def: vec![op.into(), end.encode_to_vec().into()],
        metadata: [(digest, metadata)].into(),
        ..pb::Definition::default()
    }
}

/// Refuses what the frontend does not know, as its image says.
fn check_capabilities(request: &BuildRequest, config: &RunConfig) -> Result<(), Status> {
    let listed = |text: Option<&String>| -> BTreeSet<String> {
        let names = text.map(String::as_str).unwrap_or_default().split(',');
        names
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    let labels = config.labels.as_ref();
    let known = listed(labels.and_then(|labels| labels.get("moby.buildkit.frontend.caps")));
    let mut needed = listed(request.attributes.get("frontend.caps"));
    if !request.inputs.is_empty() {
        needed.insert("moby.buildkit.frontend.inputs".to_owned());
    }
    // `+forward` leaves it to the frontend to hand the request on.
    match needed.difference(&known).find(|name| !name.ends_with("+forward")) {
        Some(name) => {
            let text = format!("unsupported frontend capability {name}");
            let detail = Detail::FrontendCap(Named { name: name.clone() });
            Err(errdefs::status(Code::Unimplemented, text, &[detail]))
        }
        None => Ok(()),
    }
}

/// Runs the frontend to its end and returns its verdict.
async fn drive(
    daemon: &Arc<Daemon>,
    build: &Arc<Build>,
    request: BuildRequest,
    definition: pb::Definition,
    config: RunConfig,
    image: &str,
) -> Result<Outcome, Status> {
    let job = build.job();
    let failed = |error: SolveError| build.status_of(&error);
    let edge = job.load(&definition).map_err(failed)?;
    let snapshots = job.evaluate(edge.as_slice()).await.map_err(failed)?;
    let part = Arc::new(build.part(request.inputs.clone()));
    let container = container(build, &config, snapshots.into_iter().next()).await;
    let mut container = container.map_err(|error| status::of_failure(&error))?;
    container.place_file(METADATA, definition.encode_to_vec());
    let process = process(daemon, build, &request, config).await;

    let (ours, theirs) = tokio::io::duplex(PIPE);
    let vertex = build
        .progress()
        .internal_vertex(&format!("[internal] running frontend {image}"));
    vertex.start();
    let (input_sender, input) = mpsc::channel(4);
    let (output, written) = mpsc::channel(4);
    let conversation = Conversation {
        input,
        output,
        started: None,
    };
    let (hears, speaks) = tokio::io::split(ours);
    let carried = async {
        tokio::join!(
            carry_input(hears, input_sender),
            carry_output(speaks, written, |text| vertex.log(LogStream::Stderr, text)),
        )
    };
    let served = serve(daemon, &part, theirs);
    let ran = container.run(process, true, conversation);
    let returned = part.returned();
    tokio::pin!(ran, returned);
    let mut verdict = None;
    // The frontend ends the conversation: whoever serves it goes on until then.
    let ended = tokio::select! {
        ended = &mut ran => ended,
        () = async { tokio::join!(carried, served); } => Err(ContainerError::Canceled),
        () = async {
            verdict = Some((&mut returned).await);
            tokio::time::sleep(LINGERING).await;
        } => Ok(()),
    };
    let verdict = verdict.or_else(|| returned.now_or_never());
    part.end_part();
    match (verdict, ended) {
        (Some(Err(refused)), _) => {
            vertex.complete();
            Err(refused)
        }
        (_, Err(ContainerError::Canceled)) => {
            vertex.fail(crate::progress::CANCELED);
            Err(status::canceled())
        }
        (_, Err(error)) => {
            let text = format!("frontend {image}: {}", proto::chain(&error));
            vertex.fail(&text);
            Err(Status::unknown(text))
        }
        (Some(Ok(outcome)), Ok(())) => {
            vertex.complete();
            Ok(outcome)
        }
        (None, Ok(())) => {
            vertex.fail("no result");
            Err(Status::unknown(format!(
                "frontend {image} ended without a result"
            )))
        }
    }
}

async fn container(
    build: &Build,
    config: &RunConfig,
    files: Option<crate::store::Snapshot>,
) -> Result<crate::solver::Container, OpError> {
    let labels = config.labels.as_ref();
    let isolated = labels.and_then(|labels| labels.get("moby.buildkit.frontend.network.none"));
    let network = match isolated.map(String::as_str) {
        Some("true" | "1") => pb::NetMode::None,
        _ => pb::NetMode::Unset,
    };
    let root = pb::Mount {
        dest: "/".to_owned(),
        output: -1,
        ..pb::Mount::default()
    };
    let request = ContainerRequest {
        mounts: vec![(root, files)],
        network: network.into(),
        ..ContainerRequest::default()
    };
    build.job().container(request).await
}

async fn process(daemon: &Arc<Daemon>, build: &Build, request: &BuildRequest, config: RunConfig) -> Process {
    let mut env = config.env.unwrap_or_default();
    for (number, (key, value)) in request.attributes.iter().enumerate() {
        env.push(format!("BUILDKIT_FRONTEND_OPT_{number}={key}={value}"));
    }
    let session = build.job().sessions().ids().first().map(|id| id.to_string());
    env.push(format!("BUILDKIT_SESSION_ID={}", session.unwrap_or_default()));
    let worker = workers::record(daemon).await;
    let platforms = worker.platforms.iter().map(|platform| {
        let mut named = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
        });
        if !platform.variant.is_empty() {
            named["variant"] = platform.variant.clone().into();
        }
        named
    });
    let platforms: Vec<_> = platforms.collect();
    let workers = serde_json::json!([{
        "ID": worker.id,
        "Labels": worker.labels,
        "Platforms": platforms,
    }]);
    env.push(format!("BUILDKIT_WORKERS={workers}"));
    env.push("BUILDKIT_EXPORTEDPRODUCT=".to_owned());
    Process {
        meta: pb::Meta {
            args: config
                .entrypoint
                .filter(|entrypoint| !entrypoint.is_empty())
                .unwrap_or_else(|| vec!["/run".to_owned()]),
            env,
            cwd: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            ..pb::Meta::default()
        },
        attached: Attached {
            input: true,
            terminal: false,
        },
        ..Process::default()
    }
}

/// Serves the calls of one frontend until its stream ends.
async fn serve(daemon: &Arc<Daemon>, part: &Arc<Build>, stream: DuplexStream) {
    let service = Service::of(Arc::clone(daemon), Arc::clone(part));
    let bridge = LlbBridgeServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(stream) });
    let served = Server::builder()
        .add_service(health)
        .add_service(bridge)
        .serve_with_incoming(incoming)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "the conversation with a frontend broke off");
    }
}

async fn carry_input(mut from: tokio::io::ReadHalf<DuplexStream>, to: mpsc::Sender<Input>) {
    let mut chunk = vec![0; PIPE];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let bytes = Bytes::copy_from_slice(&chunk[..count]);
        if to.send(Input::Bytes(bytes)).await.is_err() {
            return;
        }
    }
    // A frontend that has ended needs no end of its input.
    let _ended = to.send(Input::End).await;
}

async fn carry_output(
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut from: mpsc::Receiver<(Stream, Bytes)>,
    log: impl Fn(Bytes),
) {
    while let Some((stream, bytes)) = from.recv().await {
        match stream {
            Stream::Stdout => {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Stream::Stderr => log(bytes),
        }
    }
    let _closed = to.shutdown().await;
}
