//! The `trimaran` executable.

use std::process::ExitCode;

use clap::Parser as _;
use client::cli::Cli;
use client::error;
use client::settings::Settings;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // A closed terminal takes no answer; the exit code still does its work.
            let _ = answer.print();
            return if answer.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let level = if cli.debug {
        tracing::Level::DEBUG
    } else {
        tracing::Level::WARN
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failure) => return ExitCode::from(error::report(&failure.into())),
    };
    let result = runtime.block_on(cli.run(Settings::from_environment()));
    // Whatever still runs belongs to a command that is over.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => ExitCode::from(error::report(&failure)),
    }
}
