//! Runs many targets on many nodes.
//!
//! Every target is dealt out to the nodes that are best for its platforms; each part of it is a build of its own, and
//! all builds run side by side. Folders that several need are served by one session ([`shared`]), results that others
//! need are handed on ([`links`]), and images that several nodes have pushed become one index ([`merge`]). The first
//! failure stops everything; it is the one that is reported.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use binfmt::Platform;
use futures::stream::{FuturesUnordered, StreamExt as _};
use proto::gateway;
use registry::docker_config::DockerConfig;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::bridge::Bridge;
use super::call;
use super::engine;
use super::links::{Key, Links};
use super::merge;
use super::nodes::{Nodes, Share};
use super::outputs::Destination;
use super::parts::Part;
use super::provenance::{self, Detail};
use super::refs::{Refs, State};
use super::request::{Flags, Plan};
use super::session::{self, Tasks};
use super::shared::{self, SharedSession, User};
use super::solve::{Build, Response, new_id};
use crate::builders::Builder;
use crate::error::BuildFailed;
use crate::instance::LoadedNode;
use crate::progress::{self, Relay};
use crate::settings::Settings;

/// The key under which the answers of a build hold its full name: builder, node, reference.
pub const BUILD_REFERENCE: &str = "buildx.build.ref";

/// What targets are built with.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    pub settings: &'a Settings,
    pub builder: &'a Builder,
    /// Of the builder, as [`crate::instance::load`] found them.
    pub nodes: &'a [LoadedNode],
    /// The names that were asked for, to be remembered with builds that belong together.
    pub group: Option<&'a [String]>,
    /// What the answers are to tell of the origins of the results.
    pub provenance: Detail,
}

/// One target on one node.
struct Item<'a> {
    key: Key,
    plan: &'a Plan,
    part: Part,
    reference: String,
}

/// Builds all targets, and returns what the exporters answered, by target.
pub async fn run(
    work: &Work<'_>,
    targets: &BTreeMap<String, Flags>,
    progress: progress::Sender,
) -> anyhow::Result<BTreeMap<String, Response>> {
    let several = targets.len() > 1;
    let mut plans = plan(work, targets)?;
    engine::settle(plans.values_mut(), work.settings).await?;
    let mut nodes = Nodes::new(work.builder, work.nodes)?;
    let platforms: BTreeMap<&str, &[Platform]> = plans
        .iter()
        .map(|(target, plan)| (target.as_str(), plan.platforms.as_slice()))
        .collect();
    let shares = nodes.assign(&platforms, &progress).await?;
    let mut items = items(&plans, &shares, several)?;
    let links = Links::find(items.iter().map(|item| (item.key.clone(), &item.part.attributes)))?;
    remember(work, targets, &items, &nodes);

    let mut users: Vec<User<'_>> = items
        .iter_mut()
        .map(|item| User {
            node: item.key.0,
            folders: &item.plan.folders,
            attributes: &mut item.part.attributes,
            shared_key: item.plan.shared_key(work.settings),
        })
        .collect();
    let sessions = shared::share(&mut users);

    let credentials = DockerConfig::load(&work.settings.docker_config_folder())?;
    let stop = CancellationToken::new();
    let mut builds = FuturesUnordered::new();
    for item in items {
        let mut relay = Relay::new(progress.clone());
        if several {
            relay = relay.named(&item.key.1);
        }
        let build = Build {
            channel: nodes.channel(item.key.0)?,
            request: item.plan.solve_request(&item.part, &item.reference, &new_id()),
            offer: item.plan.offer(&item.part, work.settings, credentials.clone()),
            relay,
            stop: stop.clone(),
        };
        let name = format!(
            "{}/{}/{}",
            work.builder.name,
            nodes.name(item.key.0),
            item.reference
        );
        let (links, progress) = (&links, &progress);
        let channel = build.channel.clone();
        builds.push(async move {
            let built = match build_one(build, links, &item.key).await {
                Ok(mut response) => {
                    let detail = work.provenance;
                    let added =
                        provenance::add(&mut response, channel, &item.reference, detail, progress).await;
                    added.map(|()| response)
                }
                Err(error) => Err(error),
            };
            let built = built
                .and_then(|response| item.plan.caches.note(&response).map(|()| response))
                .map(|response| named(response, name))
                .map_err(|error| explain(error, item.plan, several.then_some(item.key.1.as_str())));
            (item.key, built)
        });
    }
    let mut responses: BTreeMap<Key, Response> = BTreeMap::new();
    let mut failure = None;
    let running = async {
        while let Some((key, built)) = builds.next().await {
            match built {
                Ok(response) => drop(responses.insert(key, response)),
                Err(error) => {
                    failure.get_or_insert(error);
                    stop.cancel();
                }
            }
        }
    };
    serve_while(&sessions, &nodes, work.settings, running).await?;
    if let Some(error) = failure {
        return Err(error);
    }
    let mut merged = BTreeMap::new();
    for (target, plan) in &plans {
        let of_target = shares[target]
            .iter()
            .filter_map(|share| responses.remove(&(share.node, target.clone())))
            .collect();
        let response = put_together(of_target, plan, work, &progress).await;
        merged.insert(
            target.clone(),
            response.map_err(|error| explain(error, plan, several.then_some(target.as_str())))?,
        );
    }
    Ok(merged)
}

fn plan(work: &Work<'_>, targets: &BTreeMap<String, Flags>) -> anyhow::Result<BTreeMap<String, Plan>> {
    let mut plans = BTreeMap::new();
    let mut to_standard_output = 0;
    for (target, flags) in targets {
        let plan = Plan::new(flags, work.settings);
        let plan = match targets.len() {
            1 => plan?,
            _ => plan.with_context(|| format!("target {target}"))?,
        };
        let is_shown = |output: &&super::outputs::Output| output.destination == Destination::StandardOutput;
        to_standard_output += plan.outputs.iter().filter(is_shown).count();
        plans.insert(target.clone(), plan);
    }
    anyhow::ensure!(
        to_standard_output <= 1,
        "multiple outputs configured to write to stdout"
    );
    Ok(plans)
}

fn items<'a>(
    plans: &'a BTreeMap<String, Plan>,
    shares: &BTreeMap<String, Vec<Share>>,
    several: bool,
) -> anyhow::Result<Vec<Item<'a>>> {
    let mut items = Vec::new();
    for (target, plan) in plans {
        let shares = &shares[target];
        for share in shares {
            let part = match shares.len() {
                1 => plan.whole(),
                _ => plan
                    .part(&share.platforms)
                    .map_err(|error| explain(error, plan, several.then_some(target.as_str())))?,
            };
            items.push(Item {
                key: (share.node, target.clone()),
                plan,
                part,
                reference: new_id(),
            });
        }
    }
    Ok(items)
}

/// Runs one build. One that is linked with others is driven from here, so that results can be handed on.
async fn build_one(mut build: Build, links: &Links, key: &Key) -> anyhow::Result<Response> {
    if build.request.frontend_attrs.contains_key(call::REQUEST) {
        return ask(build).await;
    }
    if !links.contain(key) {
        return build.run(async { Ok(()) }).await;
    }
    let request = &mut build.request;
    let inputs = tokio::select! {
        inputs = links.take_up(key, &mut request.frontend_attrs) => inputs?,
        () = build.stop.cancelled() => return Err(crate::error::Interrupted.into()),
    };
    let solve = gateway::SolveRequest {
        frontend: std::mem::take(&mut request.frontend),
        frontend_opt: request.frontend_attrs.clone(),
        frontend_inputs: inputs,
        ..gateway::SolveRequest::default()
    };
    let bridge = Bridge::new(build.channel.clone(), &request.r#ref).map_err(BuildFailed::from)?;
    let steer = async {
        let steered = steer(&bridge, solve, links, key).await;
        if let Err(error) = &steered {
            let reason = error.downcast_ref::<BuildFailed>().map(|failed| &*failed.status);
            let other = || Status::unknown(format!("{error:#}"));
            bridge.fail(&reason.cloned().unwrap_or_else(other)).await;
        }
        steered
    };
    build.run(steer).await
}

/// Has the frontend answer a question; the answer comes as its metadata, and nothing is built.
async fn ask(mut build: Build) -> anyhow::Result<Response> {
    let request = &mut build.request;
    let question = gateway::SolveRequest {
        frontend: std::mem::take(&mut request.frontend),
        frontend_opt: request.frontend_attrs.clone(),
        ..gateway::SolveRequest::default()
    };
    let bridge = Bridge::new(build.channel.clone(), &request.r#ref).map_err(BuildFailed::from)?;
    let answer = Mutex::new(Response::new());
    let steer = async {
        match bridge.solve(question).await {
            Ok(result) => {
                let metadata = result.metadata.into_iter();
                let metadata =
                    metadata.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()));
                answer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(metadata);
                let nothing = bridge.give_back(gateway::Result::default()).await;
                Ok(nothing.map_err(BuildFailed::from)?)
            }
            Err(status) => {
                bridge.fail(&status).await;
                Err(BuildFailed::from(status).into())
            }
        }
    };
    let mut response = build.run(steer).await?;
    response.extend(answer.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(response)
}

async fn steer(
    bridge: &Bridge,
    request: gateway::SolveRequest,
    links: &Links,
    key: &Key,
) -> anyhow::Result<()> {
    let result = bridge.solve(request).await.map_err(BuildFailed::from)?;
    let compute = async { Ok(bridge.evaluate(&result).await.map_err(BuildFailed::from)?) };
    links.complete(key, result.clone(), compute).await?;
    Ok(bridge.give_back(result).await.map_err(BuildFailed::from)?)
}

/// Keeps the shared sessions open as long as something runs.
async fn serve_while(
    sessions: &[SharedSession],
    nodes: &Nodes<'_>,
    settings: &Settings,
    running: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let mut serving = FuturesUnordered::new();
    for session in sessions {
        let channel = nodes.channel(session.node)?;
        let offer = session.offer(settings);
        serving.push(session::serve(channel, &session.id, offer, &tasks));
    }
    tokio::pin!(running);
    loop {
        tokio::select! {
            () = &mut running => break,
            // A session that ended early is missed by the builds that need it, and they say so.
            Some(ended) = serving.next() => tracing::debug!(?ended, "a shared session has ended"),
        }
    }
    tasks.cancel();
    Ok(())
}

/// Notes where the sources are. Who looks at the history without it sees a little less; no reason to fail.
fn remember(work: &Work<'_>, targets: &BTreeMap<String, Flags>, items: &[Item<'_>], nodes: &Nodes<'_>) {
    let refs = Refs::new(work.settings);
    let group = work.group.map(|_| new_id()).unwrap_or_default();
    let mut saved = Ok(());
    for Item { key, reference, .. } in items {
        let state = State::new(&key.1, &targets[&key.1], &group);
        saved = saved.and(refs.save(&work.builder.name, nodes.name(key.0), reference, &state));
    }
    if let Some(names) = work.group {
        let references: Vec<String> = items.iter().map(|item| item.reference.clone()).collect();
        saved = saved.and(refs.save_group(&group, names, &references));
    }
    if let Err(error) = saved {
        tracing::debug!(%error, "the local state of the build is not kept");
    }
}

fn named(mut response: Response, name: String) -> Response {
    response.insert(BUILD_REFERENCE.to_owned(), name);
    response
}

/// The answer for a target, from those of its nodes.
async fn put_together(
    mut responses: Vec<Response>,
    plan: &Plan,
    work: &Work<'_>,
    progress: &progress::Sender,
) -> anyhow::Result<Response> {
    if responses.len() < 2 {
        return Ok(responses.pop().unwrap_or_default());
    }
    match plan.merge()? {
        Some(wanted) => merge::merge(&responses, &wanted, work, progress).await,
        None => Ok(responses.swap_remove(0)),
    }
}

/// Names the target that failed, and its Dockerfile as the user knows it.
fn explain(mut error: anyhow::Error, plan: &Plan, target: Option<&str>) -> anyhow::Error {
    if let Some(failed) = error.downcast_mut::<BuildFailed>() {
        failed.dockerfile = plan
            .inputs
            .dockerfile
            .as_ref()
            .map(|path| path.display().to_string());
    }
    match target {
        Some(target) => error.context(format!("target {target}")),
        None => error,
    }
}
