//! The `binfmt` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    binfmt::command::run(std::env::args_os().skip(1))
}
