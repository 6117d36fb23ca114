//! `builderd`: the daemon, the runner inside its sandboxes, and the few commands that run beside it.
//!
//! Called as `buildkitd` or `buildctl` it stands in for those, so that drivers can use it unchanged; called as `binfmt` it
//! is that command, for the sake of the daemon's image.

use std::io::IsTerminal;
use std::process::ExitCode;

use builderd::config::arguments::{Arguments, Buildctl, BuildctlCommand, Command, Debug, Dial};
use builderd::config::{CalledAs, Settings};
use builderd::{daemon, dial, executor, version};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let called_as = CalledAs::of(program.as_ref());
    let done = match called_as {
        CalledAs::Buildctl => buildctl(&Buildctl::parse()),
        CalledAs::Binfmt => Ok(binfmt::command::run(std::env::args_os().skip(1))),
        CalledAs::Builderd | CalledAs::Buildkitd => builderd(called_as, Arguments::parse()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn builderd(called_as: CalledAs, arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.version {
        println!("{}", version::line(called_as.name()));
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.command {
        // Before there is a runtime: the runner enters namespaces, which one thread can do only.
        Some(Command::Runner(arguments)) => Ok(executor::runner::run(&arguments)),
        Some(Command::Binfmt(arguments)) => Ok(arguments.run()),
        Some(Command::DialStdio(dial)) => stdio(&dial, called_as),
        Some(Command::Debug {
            dial,
            command: Debug::Workers,
        }) => workers(&dial, called_as),
        None => {
            let settings = Settings::resolve(called_as, &arguments.serve)?;
            log(settings.debug);
            Ok(runtime()?.block_on(daemon::run(settings))?)
        }
    }
}

fn buildctl(arguments: &Buildctl) -> anyhow::Result<ExitCode> {
    if arguments.version {
        println!("{}", version::line(CalledAs::Buildctl.name()));
        return Ok(ExitCode::SUCCESS);
    }
    match &arguments.command {
        None => anyhow::bail!("a command is needed: dial-stdio or debug workers"),
        Some(BuildctlCommand::DialStdio) => stdio(&arguments.dial, CalledAs::Buildctl),
        Some(BuildctlCommand::Debug {
            command: Debug::Workers,
        }) => workers(&arguments.dial, CalledAs::Buildctl),
    }
}

fn stdio(dial: &Dial, called_as: CalledAs) -> anyhow::Result<ExitCode> {
    let address = dial::address(dial.addr.as_deref(), called_as)?;
    let runtime = runtime()?;
    runtime.block_on(dial::stdio(&address))?;
    // A thread may still wait for standard input, which nobody needs any more.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn workers(dial: &Dial, called_as: CalledAs) -> anyhow::Result<ExitCode> {
    let address = dial::address(dial.addr.as_deref(), called_as)?;
    let workers = runtime()?.block_on(dial::workers(&address))?;
    print!("{}", dial::table(&workers));
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn log(debug: bool) {
    // Of the libraries only what is wrong: HTTP/2 alone logs every frame.
    let filter = if debug {
        "warn,builderd=debug,binfmt=debug,registry=debug"
    } else {
        "warn,builderd=info,binfmt=info"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
