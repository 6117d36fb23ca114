//! What this machine remembers of the builds it asked for: the folder and the Dockerfile, which the daemon never learns.
//!
//! Reads what [`crate::build`] has written, and buildx: one small JSON file per build, `refs/BUILDER/NODE/ID`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::settings::Settings;

const FOLDER: &str = "refs";
const GROUPS: &str = "__group__";
/// A note is a few paths.
const LARGEST: u64 = 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LocalState {
    pub target: String,
    /// The context: an absolute path, a URL or `-`.
    pub local_path: String,
    pub dockerfile_path: String,
    /// The group of builds that were asked for together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_ref: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StateGroup {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    pub refs: Vec<String>,
}

/// What is remembered of a build; a note that is gone or damaged is no reason to hide the build.
pub fn read(settings: &Settings, builder: &str, node: &str, id: &str) -> Option<LocalState> {
    read_any(settings, &[builder, node, id])
}

pub fn read_group(settings: &Settings, id: &str) -> Option<StateGroup> {
    read_any(settings, &[GROUPS, id])
}

/// Forgets a build.
pub fn remove(settings: &Settings, builder: &str, node: &str, id: &str) {
    if let Some(path) = path(&settings.buildx_folder(), &[builder, node, id]) {
        // It may never have been there: builds of other machines are removed as well.
        let _ = std::fs::remove_file(path);
    }
}

fn read_any<T: for<'a> Deserialize<'a>>(settings: &Settings, names: &[&str]) -> Option<T> {
    let path = path(&settings.buildx_folder(), names)?;
    let size = std::fs::metadata(&path).ok()?.len();
    if size > LARGEST {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// None if a name could lead elsewhere.
fn path(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let is_plain =
        |name: &&str| !name.is_empty() && !name.contains(['/', '\0']) && !matches!(*name, "." | "..");
    names.iter().all(is_plain).then(|| {
        names
            .iter()
            .fold(folder.join(FOLDER), |path, name| path.join(name))
    })
}

/// A folder that only this user can look into.
pub fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_can_be_read_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::of(&[("BUILDX_CONFIG", folder.path().to_str().unwrap())]);
        let notes = folder.path().join("refs/x/x0");
        std::fs::create_dir_all(&notes).unwrap();
        let note = r#"{"Target":"t","LocalPath":"/p","DockerfilePath":"/p/Dockerfile"}"#;
        std::fs::write(notes.join("id"), note).unwrap();
        std::fs::write(notes.join("damaged"), "{").unwrap();
        assert_eq!(read(&settings, "x", "x0", "id").unwrap().target, "t");
        assert_eq!(read(&settings, "x", "x0", "damaged"), None);
        assert_eq!(read(&settings, "x", "..", "id"), None);
        remove(&settings, "x", "x0", "id");
        assert_eq!(read(&settings, "x", "x0", "id"), None);
    }
}
