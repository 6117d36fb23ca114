//! The gRPC services: translate, call, translate back. What a build does is decided further to the right.
//!
//! The calls of one build — `Session`, `Status`, `Solve`, those of the gateway — arrive concurrently and in any
//! order; [`builds`] brings them together. A build lives as long as its `Control/Solve` call.

mod bridge;
mod build;
pub mod builds;
mod caches;
mod capabilities;
mod containers;
mod content;
mod control;
mod disk;
mod export;
mod files;
mod gateway;
pub mod history;
mod images;
mod processes;
mod status;
#[cfg(test)]
mod tests;
pub mod upkeep;
mod validate;
mod verify;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;

use binfmt::Platform;
use proto::content::content_server::ContentServer;
use proto::control::control_server::ControlServer;
use proto::gateway::llb_bridge_server::LlbBridgeServer;
use proto::tunnel::MAX_MESSAGE;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;

use crate::config::{Entitlement, GcPolicy};
use crate::session::Sessions;
use crate::solver::Solver;

pub use builds::Builds;
pub use history::History;
pub use upkeep::Upkeep;

/// What the services share.
#[derive(Debug)]
pub struct Daemon {
    pub sessions: Arc<Sessions>,
    pub builds: Arc<Builds>,
    pub solver: Solver,
    /// What builds may ask for.
    pub entitlements: Vec<Entitlement>,
    /// Steps reach the network only through the proxy, whatever builds ask for.
    pub proxy_network: bool,
    /// Platforms to offer, of those that run; empty for all.
    pub platforms: Vec<Platform>,
    /// Labels of the worker, from the configuration.
    pub labels: BTreeMap<String, String>,
    pub hostname: String,
    pub worker_id: String,
    pub history: Arc<History>,
    pub upkeep: Upkeep,
    /// What is removed after builds; none if nothing is.
    pub collection: Vec<GcPolicy>,
}

/// All services of the daemon.
pub async fn routes(daemon: Arc<Daemon>) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    reporter.set_serving::<ControlServer<control::Service>>().await;
    reporter.set_serving::<LlbBridgeServer<bridge::Service>>().await;
    let control = ControlServer::new(control::Service(Arc::clone(&daemon)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let content = ContentServer::new(content::Service(daemon.solver.store().clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let bridge = LlbBridgeServer::new(bridge::Service::new(daemon))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(health)
        .add_service(control)
        .add_service(bridge)
        .add_service(content);
    routes.routes()
}
