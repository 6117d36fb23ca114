//! Runs a build: the session, the status stream and the `Solve` call side by side, and the way out on Ctrl-C.
//!
//! The daemon is told of an interruption by the end of the `Solve` call. We then wait for the status stream to end, so
//! that the display shows what was cancelled; a second Ctrl-C does not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::control::{SolveRequest, StatusRequest};
use rand::Rng as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::session::{self, Offer, Tasks};
use crate::daemon;
use crate::error::{BuildFailed, Interrupted};
use crate::progress;

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

pub async fn run(
    channel: Channel,
    request: SolveRequest,
    offer: Offer,
    progress: progress::Sender,
) -> anyhow::Result<Response> {
    let tasks = Tasks::default();
    // However this ends, no task of the session outlives it.
    let outcome = run_with(channel, request, offer, progress, &tasks).await;
    tasks.cancel();
    outcome
}

async fn run_with(
    channel: Channel,
    request: SolveRequest,
    offer: Offer,
    progress: progress::Sender,
    tasks: &Tasks,
) -> anyhow::Result<Response> {
    let session_id = request.session.clone();
    let session = session::serve(channel.clone(), &session_id, offer, tasks);
    let build = build(channel, request, progress);
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

async fn build(
    channel: Channel,
    request: SolveRequest,
    progress: progress::Sender,
) -> anyhow::Result<Response> {
    let mut interrupts = Interrupts::new()?;
    let status = follow_status(channel.clone(), request.r#ref.clone(), progress);
    let mut control = daemon::control(channel);
    let solve = control.solve(request);
    tokio::pin!(status);
    let mut solve = Box::pin(solve);
    let mut status_result = None;
    let solved = loop {
        tokio::select! {
            solved = &mut solve => break solved,
            ended = &mut status, if status_result.is_none() => status_result = Some(ended),
            () = interrupts.next() => {
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
    match (solved, status_result) {
        (Err(status), _) => Err(BuildFailed::from(status).into()),
        (Ok(_), Err(status)) => Err(BuildFailed::from(status).into()),
        (Ok(response), Ok(())) => Ok(response.into_inner().exporter_response),
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
}

/// Hands the daemon's status messages to the display until the daemon says that there are no more.
async fn follow_status(
    channel: Channel,
    reference: String,
    progress: progress::Sender,
) -> Result<(), Status> {
    let mut control = daemon::control(channel);
    let mut stream = control
        .status(StatusRequest { r#ref: reference })
        .await?
        .into_inner();
    loop {
        match stream.message().await {
            // A display that has ended shows nothing more; the build goes on.
            Ok(Some(message)) => drop(progress.send(progress::Status::from(message)).await),
            Ok(None) => return Ok(()),
            // The call went down with the build that it was about.
            Err(status) if status.code() == Code::Cancelled => return Ok(()),
            Err(status) => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests;
