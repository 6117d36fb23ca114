//! Where the sources of a build were, kept under the build's reference, for those who look at its history.
//!
//! The files are those of buildx, in its folder, so that either program knows the paths of the other's builds:
//! `refs/<builder>/<node>/<reference>`, and `refs/__group__/<id>` for targets that were built together.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::request::Flags;
use crate::builders::write_atomically;
use crate::settings::Settings;

const GROUPS: &str = "__group__";

/// What is remembered of a build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    pub target: String,
    /// The context: an absolute path or an address.
    pub local_path: String,
    /// Absolute, or relative to a context that is an address; empty for the usual one.
    pub dockerfile_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_ref: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Group<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    targets: &'a [String],
    refs: &'a [String],
}

#[derive(Clone, Debug)]
pub struct Refs {
    folder: PathBuf,
}

impl State {
    pub fn new(target: &str, flags: &Flags, group: &str) -> Self {
        let is_local = Path::new(&flags.context).is_dir();
        let absolute = |path: &str| match std::path::absolute(path) {
            Ok(path) => path.display().to_string(),
            Err(_) => path.to_owned(),
        };
        let file = flags.file.as_deref().unwrap_or_default();
        Self {
            target: target.to_owned(),
            local_path: if is_local {
                absolute(&flags.context)
            } else {
                flags.context.clone()
            },
            dockerfile_path: if is_local && !matches!(file, "" | "-") {
                absolute(file)
            } else {
                file.to_owned()
            },
            group_ref: group.to_owned(),
        }
    }
}

impl Refs {
    pub fn new(settings: &Settings) -> Self {
        Self {
            folder: settings.buildx_folder().join("refs"),
        }
    }

    pub fn save(&self, builder: &str, node: &str, reference: &str, state: &State) -> io::Result<()> {
        self.write(&self.folder.join(builder).join(node), reference, state)
    }

    /// The builds of one invocation, and the names that were asked for.
    pub fn save_group(&self, id: &str, targets: &[String], refs: &[String]) -> io::Result<()> {
        self.write(&self.folder.join(GROUPS), id, &Group { targets, refs })
    }

    fn write(&self, folder: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        write_atomically(&folder.join(name), &serde_json::to_vec(content)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_of_buildx() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::of(&[("BUILDX_CONFIG", folder.path().to_str().unwrap())]);
        let refs = Refs::new(&settings);
        let context = folder.path().display().to_string();
        let flags = Flags {
            context: context.clone(),
            file: Some(format!("{context}/x.Dockerfile")),
            ..Flags::default()
        };
        refs.save("b", "b0", "r1", &State::new("app", &flags, "g1"))
            .unwrap();
        let away = Flags {
            context: "https://example.com/a.git".to_owned(),
            ..Flags::default()
        };
        refs.save("b", "b0", "r2", &State::new("default", &away, ""))
            .unwrap();
        refs.save_group("g1", &["app".to_owned()], &["r1".to_owned()])
            .unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join("refs").join(path)).unwrap();
        assert_eq!(
            read("b/b0/r1"),
            format!(
                "{{\"Target\":\"app\",\"LocalPath\":\"{context}\",\"DockerfilePath\":\"{context}/x.Dockerfile\",\"GroupRef\":\"g1\"}}"
            )
        );
        assert_eq!(
            read("b/b0/r2"),
            "{\"Target\":\"default\",\"LocalPath\":\"https://example.com/a.git\",\"DockerfilePath\":\"\"}"
        );
        assert_eq!(read("__group__/g1"), "{\"Targets\":[\"app\"],\"Refs\":[\"r1\"]}");
    }
}
