//! Runs a build: the session, the status stream and the `Solve` call side by side, and the way out on Ctrl-C.
//!
//! The daemon is told of an interruption by the end of the `Solve` call. We then wait for the status stream to end, so
//! that the display shows what was cancelled; a second Ctrl-C does not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::control::{SolveRequest, StatusRequest};
use rand::Rng as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::session::{self, Offer, Tasks};
use crate::daemon;
use crate::error::{BuildFailed, Interrupted};
use crate::progress::{self, Relay};

/// How long the status stream may be silent after the build is over.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// How long the daemon may take to say why it ended the session.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);

/// What the exporters answered.
pub type Response = BTreeMap<String, String>;

/// An identifier as BuildKit's clients make them: 25 digits to the base 36.
pub fn new_id() -> String {
    let mut random = rand::rng();
    (0..25)
        .map(|_| char::from_digit(random.random_range(0..36), 36).unwrap_or('0'))
        .collect()
}

/// One build on one daemon.
#[derive(Debug)]
pub struct Build {
    pub channel: Channel,
    pub request: SolveRequest,
    pub offer: Offer,
    pub relay: Relay,
    /// Ends the build as Ctrl-C does: another one has failed.
    pub stop: CancellationToken,
}

impl Build {
    /// Runs the build to its end. `steer` drives it from our side; a build that needs no driving is ready at once.
    pub async fn run(self, steer: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Response> {
        let tasks = Tasks::default();
        // However this ends, no task of the session outlives it.
        let outcome = self.run_with(&tasks, steer).await;
        tasks.cancel();
        outcome
    }

    async fn run_with(
        self,
        tasks: &Tasks,
        steer: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Response> {
        let session_id = self.request.session.clone();
        let session = session::serve(self.channel.clone(), &session_id, self.offer, tasks);
        let build = build(self.channel, self.request, self.relay, &self.stop, steer);
        tokio::pin!(session);
        tokio::pin!(build);
        let outcome = tokio::select! {
            outcome = &mut build => outcome,
            ended = &mut session => {
                // A daemon that ends the session gives the reason as the outcome of the build, if it still can.
                tokio::time::timeout(SESSION_PATIENCE, &mut build).await.unwrap_or_else(|_| {
                    let reason = ended.err().unwrap_or_else(|| Status::unavailable("the daemon ended the session"));
                    Err(BuildFailed::from(reason).into())
                })
            }
        };
        let response = outcome?;
        // The daemon has sent everything; our side may still be writing it.
        tasks
            .finish()
            .await
            .map_err(|reason| BuildFailed::from(Status::unknown(reason)))?;
        Ok(response)
    }
}

async fn build(
    channel: Channel,
    request: SolveRequest,
    relay: Relay,
    stop: &CancellationToken,
    steer: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Response> {
    let mut interrupts = Interrupts::new()?;
    let status = follow_status(channel.clone(), request.r#ref.clone(), relay);
    let mut control = daemon::control(channel);
    let solve = control.solve(request);
    tokio::pin!(status);
    tokio::pin!(steer);
    let mut solve = Box::pin(solve);
    let mut status_result = None;
    let mut steered = None;
    let solved = loop {
        tokio::select! {
            solved = &mut solve => break solved,
            ended = &mut status, if status_result.is_none() => status_result = Some(ended),
            outcome = &mut steer, if steered.is_none() => steered = Some(outcome),
            () = interrupts.next_or(stop) => {
                // Ends the call, which is how the daemon learns of it.
                drop(solve);
                if status_result.is_none() {
                    tokio::select! {
                        _ = tokio::time::timeout(STATUS_PATIENCE, &mut status) => {}
                        () = interrupts.next() => {}
                    }
                }
                return Err(Interrupted.into());
            }
        }
    };
    let status_result = match status_result {
        Some(result) => result,
        // The last messages may still be on their way.
        None => tokio::time::timeout(STATUS_PATIENCE, status)
            .await
            .unwrap_or(Ok(())),
    };
    match (solved, steered, status_result) {
        // What went wrong on our side is what the daemon was told.
        (Err(_), Some(Err(error)), _) => Err(error),
        (Err(status), ..) | (Ok(_), _, Err(status)) => Err(BuildFailed::from(status).into()),
        (Ok(response), _, Ok(())) => Ok(response.into_inner().exporter_response),
    }
}

/// Ctrl-C, and the wish of a supervisor to end.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn next_or(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = self.next() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Hands the daemon's status messages to the display until the daemon says that there are no more.
async fn follow_status(channel: Channel, reference: String, mut relay: Relay) -> Result<(), Status> {
    let mut control = daemon::control(channel);
    let mut stream = control
        .status(StatusRequest { r#ref: reference })
        .await?
        .into_inner();
    loop {
        match stream.message().await {
            Ok(Some(message)) => relay.send(progress::Status::from(message)).await,
            Ok(None) => return Ok(()),
            // The call went down with the build that it was about.
            Err(status) if status.code() == Code::Cancelled => return Ok(()),
            Err(status) => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests;
