//! The `builderd` program: the daemon, and the roles it plays for itself.

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
enum Command {
    /// Serve one sandbox; only the daemon calls this.
    #[command(hide = true)]
    Runner(builderd::executor::runner::Arguments),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Runner(arguments) => builderd::executor::runner::run(&arguments),
    }
}
