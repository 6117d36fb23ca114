//! The gRPC services: translate, call, translate back. What a build does is decided further to the right.
//!
//! The calls of one build — `Session`, `Status`, `Solve`, those of the gateway — arrive concurrently and in any
//! order; [`builds`] brings them together. A build lives as long as its `Control/Solve` call.

mod bridge;
mod build;
pub mod builds;
mod capabilities;
mod control;
mod export;
mod files;
mod images;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;

use binfmt::Platform;
use proto::control::control_server::ControlServer;
use proto::gateway::llb_bridge_server::LlbBridgeServer;
use proto::tunnel::MAX_MESSAGE;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;

use crate::config::Entitlement;
use crate::session::Sessions;
use crate::solver::Solver;

pub use builds::Builds;

/// What the services share.
#[derive(Debug)]
pub struct Daemon {
    pub sessions: Arc<Sessions>,
    pub builds: Arc<Builds>,
    pub solver: Solver,
    /// What builds may ask for.
    pub entitlements: Vec<Entitlement>,
    /// Platforms to offer, of those that run; empty for all.
    pub platforms: Vec<Platform>,
    /// Labels of the worker, from the configuration.
    pub labels: BTreeMap<String, String>,
    pub hostname: String,
    pub worker_id: String,
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
    let bridge = LlbBridgeServer::new(bridge::Service(daemon))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(health)
        .add_service(control)
        .add_service(bridge);
    routes.routes()
}
