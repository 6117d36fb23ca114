//! Health checks of a session: a client that fails two in a row is gone, and so are the builds that need it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);

/// Checks until `closed`, and cancels it when the client is gone.
pub(super) async fn watch(channel: Channel, closed: CancellationToken, custom_timeout: Option<Duration>) {
    let mut client = HealthClient::new(channel);
    let mut failed_before = false;
    let mut last_duration = Duration::ZERO;
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        // A loaded client gets more time than it needed before.
        let timeout = custom_timeout.unwrap_or_else(|| TIMEOUT.max(last_duration * 3 / 2));
        let started = Instant::now();
        let answer = tokio::time::timeout(timeout, client.check(HealthCheckRequest::default())).await;
        last_duration = started.elapsed();
        let failed = match answer {
            Ok(Ok(_)) => false,
            Ok(Err(status)) => {
                tracing::debug!(%status, "a session's health check failed");
                true
            }
            Err(_) => {
                tracing::debug!(?timeout, "a session's health check timed out");
                true
            }
        };
        if failed && failed_before {
            tracing::warn!("a session is dropped: its client failed two health checks in a row");
            closed.cancel();
            return;
        }
        failed_before = failed;
    }
}
