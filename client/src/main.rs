//! The `trimaran` executable.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use client::cli::Cli;
use client::plugin::{self, Call, Run};
use client::settings::Settings;
use client::{completion, error, output};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    match completion::answer(&words) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(failure) => return ExitCode::from(error::report(&failure.into())),
    }
    let answered = match Call::of(words, Settings::from_environment()) {
        Ok(Call::Run(call)) => return run(call),
        Ok(Call::Metadata) => output::data(&plugin::metadata()),
        Ok(Call::Complete { words, with_help }) => {
            completion::for_docker(words, with_help).and_then(|text| output::data(&text))
        }
        Err(failure) => return ExitCode::from(error::report(&failure.into())),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(error::report(&failure.into())),
    }
}

fn run(call: Run) -> ExitCode {
    let cli = match Cli::parse_call(&call) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // Of the libraries only what is wrong: HTTP/2 alone logs every frame.
    let filter = if cli.debug {
        "warn,client=debug,registry=debug"
    } else {
        "warn"
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(call.settings.wants_colour() && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    call.obey_docker();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failure) => return ExitCode::from(error::report(&failure.into())),
    };
    let result = runtime.block_on(cli.run(call));
    // Whatever still runs belongs to a command that is over.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => ExitCode::from(error::report(&failure)),
    }
}
