//! Sessions: several commands on one registry, whose whole transcript is a golden file, with what they pushed and kept.
//!
//! As with [`crate::golden`], the tool itself runs and is recorded if it is named in the environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::distribution::Repository;
use crate::golden;
use crate::plain_http::request;
use crate::process::Ended;
use crate::programs;
use crate::registry::Registry;

/// Stands for the registry's address, which is another one in each run.
const REGISTRY: &str = "@registry@";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `docker manifest`, as `docker-cli`.
    DockerManifest,
    ManifestTool,
}

impl Tool {
    const fn folder(self) -> &'static str {
        match self {
            Self::DockerManifest => "docker-manifest",
            Self::ManifestTool => "manifest-tool",
        }
    }

    /// The tool's name for those who record it, its first arguments, and the first argument of ours.
    const fn words(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            Self::DockerManifest => ("docker", &["manifest"], "manifest"),
            Self::ManifestTool => ("manifest_tool", &[], "manifest-tool"),
        }
    }
}

/// Commands, one after the other, on a registry and a home of their own.
#[derive(Debug)]
pub struct Session {
    tool: Tool,
    name: &'static str,
    /// The tool to be recorded, if that is what is wanted.
    recorder: Option<PathBuf>,
    registry: Registry,
    folder: tempfile::TempDir,
    transcript: String,
}

impl Session {
    pub fn start(tool: Tool, name: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        Self {
            tool,
            name,
            recorder: golden::recorded_tool(tool.words().0),
            registry: Registry::start(folder.path()),
            folder,
            transcript: String::new(),
        }
    }

    pub fn repository(&self, name: &str) -> Repository {
        self.registry.repository(name)
    }

    /// Writes a file that commands can read; "@registry@" in it stands for the registry's address.
    pub fn file(&self, name: &str, content: &str) {
        let content = content.replace(REGISTRY, self.registry.address());
        std::fs::write(self.folder.path().join(name), content).expect("the folder can be written");
    }

    /// Runs a command; "@registry@" stands for the registry's address.
    pub fn run(&mut self, arguments: &str) {
        let (_, first, ours) = self.tool.words();
        let mut command = match &self.recorder {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(first);
                command
            }
            None => {
                let mut command = Command::new(programs::ours("trimaran"));
                command.arg(ours);
                command
            }
        };
        command
            .args(
                arguments
                    .replace(REGISTRY, self.registry.address())
                    .split_whitespace(),
            )
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path().join("home"))
            .env_remove("DOCKER_CONFIG");
        let ended = Ended::of(&mut command);
        self.note(&format!("$ {arguments}\n"));
        self.note(&ended.stdout);
        let stderr = match self.tool {
            Tool::DockerManifest => ended.stderr,
            Tool::ManifestTool => messages(&ended.stderr),
        };
        for line in stderr.lines() {
            self.note(&format!("! {line}\n"));
        }
        self.note(&format!("[exit {}]\n", ended.code.unwrap_or(-1)));
    }

    /// Notes what the registry has under a name: type and bytes.
    pub fn show_manifest(&mut self, repository: &str, reference: &str) {
        let accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
            application/vnd.docker.distribution.manifest.list.v2+json, \
            application/vnd.docker.distribution.manifest.v2+json";
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = request(
            "GET",
            self.registry.address(),
            &path,
            &[("Accept", accepted)],
            &[],
        )
        .expect("the registry answers");
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        self.note(&format!(
            "GET {repository} {reference}: {} {kind}\n",
            answer.status
        ));
        self.note(&format!("{}\n", String::from_utf8_lossy(&answer.body)));
    }

    /// Notes the files of Docker's local lists.
    pub fn show_lists(&mut self) {
        let mut found = Vec::new();
        let folder = self.folder.path().join("home/.docker/manifests");
        collect(&folder, &mut found);
        found.sort();
        for path in found {
            let content = std::fs::read_to_string(&path).expect("the file can be read");
            let name = path.strip_prefix(&folder).expect("it lies in the folder");
            // In names, the address has another form.
            let address = self.registry.address().replace(':', "-");
            let name = name.display().to_string().replace(&address, REGISTRY);
            self.note(&format!("FILE {name}\n{content}\n"));
        }
    }

    fn note(&mut self, text: &str) {
        self.transcript
            .push_str(&text.replace(self.registry.address(), REGISTRY));
    }

    /// Compares the transcript with what was recorded, or records it.
    #[track_caller]
    pub fn finish(self) {
        let path = golden::folder(self.tool.folder(), "").join(format!("{}.txt", self.name));
        if self.recorder.is_some() {
            std::fs::write(&path, &self.transcript)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            return;
        }
        let recorded =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Some((number, (ours, theirs))) = self
            .transcript
            .lines()
            .zip(recorded.lines())
            .enumerate()
            .find(|(_, (ours, theirs))| ours != theirs)
        {
            panic!(
                "{}:{}: recorded\n{theirs}\nours\n{ours}\nall of ours:\n{}",
                path.display(),
                number + 1,
                self.transcript
            );
        }
        assert_eq!(self.transcript, recorded, "{}", path.display());
    }
}

/// The lock and drafts, which begin with a dot, are ours alone.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path
            .file_name()
            .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
        {
            found.push(path);
        }
    }
}

/// A logger's lines without time and quotes, in our form: "ERROR: …".
fn messages(log: &str) -> String {
    let mut plain = String::new();
    for line in log.lines() {
        let message = line
            .split_once(" msg=")
            .filter(|_| line.starts_with("time="))
            .and_then(|(_, quoted)| serde_json::from_str::<String>(quoted).ok());
        match message {
            Some(message) => {
                let level = if line.contains(" level=warning ") {
                    "WARNING"
                } else {
                    "ERROR"
                };
                let message = message.trim_start_matches("manifest-tool failed with error: ");
                plain.push_str(&format!("{level}: {message}\n"));
            }
            None => plain.push_str(&format!("{line}\n")),
        }
    }
    plain
}
