//! All that one test has to itself: a folder, a registry with a base image, a daemon, and a client that knows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::distribution::Repository;
use crate::process::{Ended, Running};
use crate::programs;
use crate::registry::Registry;

#[derive(Debug)]
pub struct World {
    pub daemon: Daemon,
    pub registry: Registry,
    folder: tempfile::TempDir,
}

impl World {
    /// A daemon that runs steps without a container engine, and a builder "test" for it.
    pub fn new() -> Self {
        Self::with_daemon(&["--executor", "native"])
    }

    pub fn with_daemon(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let registry = Registry::start(folder.path());
        registry.push_base();
        let daemon = Daemon::start(folder.path(), arguments);
        let world = Self {
            daemon,
            registry,
            folder,
        };
        world
            .trimaran(&[
                "create",
                "--use",
                "--name",
                "test",
                "--driver",
                "remote",
                &world.daemon.address(),
            ])
            .succeeded();
        world
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The full name of an image in this world's registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    pub fn repository(&self, name: &str) -> Repository {
        self.registry.repository(name)
    }

    /// Makes a build context of these files. In Dockerfiles, "@base@" stands for the base image.
    pub fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let context = self.folder.path().join(name);
        for (path, content) in files {
            let path = context.join(path);
            std::fs::create_dir_all(path.parent().expect("files lie in the context"))
                .expect("the folder can be written");
            std::fs::write(&path, content.replace("@base@", &self.image("base")))
                .expect("the folder can be written");
        }
        context
    }

    /// A command as a user of this world starts it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::ours("trimaran"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("HOME", self.folder.path().join("home"));
        // Provenance has times in it: what is compared has none unless a test asks for it.
        command.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        for variable in [
            "TRIMARAN_CONFIG",
            "TRIMARAN_BUILDER",
            "BUILDX_BUILDER",
            "DOCKER_CONFIG",
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "BUILDX_CONFIG",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the client to its end.
    pub fn trimaran(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Builds the context with these arguments and plain progress.
    pub fn build(&self, context: &Path, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.build_command(context, arguments))
    }

    /// Starts a build and leaves it running.
    pub fn start_build(&self, context: &Path, arguments: &[&str]) -> Running {
        Running::start(
            &mut self.build_command(context, arguments),
            &self.folder.path().join("build.log"),
        )
    }

    fn build_command(&self, context: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(&["build", "--progress=plain"]);
        command.args(arguments).arg(context);
        command
    }

    /// Builds a Dockerfile and nothing else, and expects it to fail.
    pub fn build_fails(&self, name: &str, dockerfile: &str) -> Ended {
        let context = self.context(name, &[("Dockerfile", dockerfile)]);
        self.build(&context, &["--platform=linux/amd64"]).failed()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
