//! Devices of the machine that steps may ask for, as the Container Device Interface describes them: files that say, for
//! each device, what a container needs to use it.
//!
//! The files are read whenever somebody asks, so a device that is installed is there for the next build.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use proto::pb;
use serde::Deserialize;

use super::step::{DeviceNode, Mount, Source};

/// A description is a page of text; anything larger is no description.
const LARGEST: u64 = 1 << 20;

const CLASS: &str = "org.mobyproject.buildkit.device.class";
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// Where descriptions are looked for when the configuration does not say.
const FOLDERS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

/// Which devices there are, and which of them every build may use.
#[derive(Clone, Debug)]
pub struct Devices {
    folders: Vec<PathBuf>,
    auto_allowed: Vec<String>,
}

impl Default for Devices {
    fn default() -> Self {
        Self::new(FOLDERS.map(PathBuf::from).to_vec(), Vec::new())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "required device {0:?} is not registered: put its description into one of the folders of cdi.specDirs"
    )]
    Unknown(String),
    #[error("device {name} needs a hook ({hook}), which is not supported")]
    Hook { name: String, hook: String },
    #[error("cannot find node {} of device {name}", path.display())]
    Node {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
}

/// A device as it is known to builds: `vendor.com/class=name`.
#[derive(Clone, Debug)]
pub struct Device {
    pub name: String,
    /// Whether builds need no leave to use it.
    pub auto_allow: bool,
    pub annotations: BTreeMap<String, String>,
    edits: Vec<Edits>,
}

/// What a step is given for its devices.
#[derive(Debug, Default)]
pub struct Given {
    pub env: Vec<String>,
    pub nodes: Vec<DeviceNode>,
    pub mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, Scalar>,
    #[serde(default)]
    devices: Vec<SpecDevice>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Deserialize)]
struct SpecDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, Scalar>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

/// Annotations are text, but who writes `true` in YAML means text too.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Edits {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default, rename = "deviceNodes")]
    nodes: Vec<SpecNode>,
    #[serde(default)]
    mounts: Vec<SpecMount>,
    #[serde(default)]
    hooks: Vec<SpecHook>,
}

#[derive(Clone, Debug, Deserialize)]
struct SpecNode {
    path: PathBuf,
    #[serde(default, rename = "hostPath")]
    host_path: Option<PathBuf>,
    #[serde(default, rename = "fileMode")]
    mode: Option<u32>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
struct SpecMount {
    #[serde(rename = "hostPath")]
    host_path: PathBuf,
    #[serde(rename = "containerPath")]
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct SpecHook {
    #[serde(default, rename = "hookName")]
    name: String,
}

impl Devices {
    /// Those that `folders` describe; the later folder counts where two describe one device.
    pub fn new(folders: Vec<PathBuf>, auto_allowed: Vec<String>) -> Self {
        Self {
            folders,
            auto_allowed,
        }
    }

    /// The same, and these for every build.
    pub fn allowing(mut self, auto_allowed: Vec<String>) -> Self {
        self.auto_allowed = auto_allowed;
        self
    }

    /// No devices at all.
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// All devices, by name. A description that cannot be read is left out, so that one bad file does no harm to others.
    pub fn list(&self) -> Vec<Device> {
        let mut devices = BTreeMap::new();
        for folder in &self.folders {
            let Ok(files) = fs::read_dir(folder) else { continue };
            let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
            files.sort();
            for file in files {
                let is_spec = file.extension().is_some_and(|kind| {
                    ["json", "yaml", "yml"]
                        .iter()
                        .any(|known| kind.eq_ignore_ascii_case(known))
                });
                if !is_spec {
                    continue;
                }
                match read(&file) {
                    Ok(spec) => {
                        for device in self.described(&spec) {
                            devices.insert(device.name.clone(), device);
                        }
                    }
                    Err(reason) => {
                        tracing::warn!(file = %file.display(), reason, "device description ignored");
                    }
                }
            }
        }
        devices.into_values().collect()
    }

    fn described(&self, spec: &Spec) -> Vec<Device> {
        let described = |device: &SpecDevice| {
            let name = format!("{}={}", spec.kind, device.name);
            let annotations: BTreeMap<String, String> = spec
                .annotations
                .iter()
                .chain(&device.annotations)
                .map(|(key, value)| (key.clone(), value.text()))
                .collect();
            let auto_allow = self
                .auto_allowed
                .iter()
                .any(|allowed| *allowed == name || *allowed == spec.kind)
                || annotations.get(AUTO_ALLOW).is_some_and(|value| {
                    matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
                });
            Device {
                name,
                auto_allow,
                annotations,
                edits: vec![spec.edits.clone(), device.edits.clone()],
            }
        };
        spec.devices.iter().map(described).collect()
    }

    /// The devices that a step asks for, each once. `vendor.com/class` is the first of its kind,
    /// `vendor.com/class=*` all of them; any other name may be that of a class in the annotations.
    pub fn find(&self, wanted: &[pb::CdiDevice]) -> Result<Vec<Device>, DeviceError> {
        let all = if wanted.is_empty() {
            Vec::new()
        } else {
            self.list()
        };
        let mut found: Vec<Device> = Vec::new();
        for wanted in wanted {
            let matching = matching(&wanted.name, &all);
            if matching.is_empty() && !wanted.optional {
                return Err(DeviceError::Unknown(wanted.name.clone()));
            }
            for device in matching {
                if found.iter().all(|known| known.name != device.name) {
                    found.push(device.clone());
                }
            }
        }
        Ok(found)
    }
}

fn matching<'a>(name: &str, all: &'a [Device]) -> Vec<&'a Device> {
    let (kind, device) = name.split_once('=').unwrap_or((name, ""));
    let mut of_kind = all.iter().filter(|known| {
        known.name.split_once('=').map(|(known, _)| known) == Some(kind) && kind.contains('/')
    });
    let found: Vec<&Device> = match device {
        "" => of_kind.next().into_iter().collect(),
        "*" => of_kind.collect(),
        _ => of_kind.filter(|known| known.name == name).collect(),
    };
    if !found.is_empty() {
        return found;
    }
    let is_of_class = |known: &&Device| known.annotations.get(CLASS).is_some_and(|class| class == name);
    all.iter().filter(is_of_class).collect()
}

/// What a step needs to use these devices.
pub fn give(devices: &[Device]) -> Result<Given, DeviceError> {
    let mut given = Given::default();
    for device in devices {
        for edits in &device.edits {
            if let Some(hook) = edits.hooks.first() {
                return Err(DeviceError::Hook {
                    name: device.name.clone(),
                    hook: hook.name.clone(),
                });
            }
            given.env.extend(edits.env.iter().cloned());
            for node in &edits.nodes {
                let node = found_node(node).map_err(|source| DeviceError::Node {
                    name: device.name.clone(),
                    path: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
                    source,
                })?;
                given.nodes.push(node);
            }
            given.mounts.extend(edits.mounts.iter().filter_map(mounted));
        }
    }
    Ok(given)
}

/// The node as it is on this machine: its description may be of another day.
fn found_node(node: &SpecNode) -> io::Result<DeviceNode> {
    let on_host = node.host_path.as_ref().unwrap_or(&node.path);
    let found = fs::metadata(on_host)?;
    let kind = found.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(io::Error::other("it is no device"));
    }
    Ok(DeviceNode {
        path: node.path.to_string_lossy().into_owned(),
        block: kind.is_block_device(),
        major: rustix::fs::major(found.rdev()),
        minor: rustix::fs::minor(found.rdev()),
        mode: node.mode.unwrap_or(found.mode() & 0o777),
        uid: node.uid.unwrap_or(found.uid()),
        gid: node.gid.unwrap_or(found.gid()),
    })
}

fn mounted(mount: &SpecMount) -> Option<Mount> {
    let name = mount.host_path.file_name()?;
    Some(Mount {
        destination: mount.container_path.clone(),
        source: Source::Folder {
            path: mount.host_path.parent()?.to_owned(),
            selector: name.to_string_lossy().into_owned(),
        },
        read_only: mount.options.iter().any(|option| option == "ro"),
    })
}

fn read(file: &Path) -> Result<Spec, String> {
    let text = || -> io::Result<String> {
        if fs::metadata(file)?.len() > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::read_to_string(file)
    };
    let text = text().map_err(|error| error.to_string())?;
    // JSON is YAML as well.
    serde_saphyr::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
devices:
- name: foo
  annotations:
    org.mobyproject.buildkit.device.class: fast
  containerEdits:
    env: [FOO=1]
- name: bar
  containerEdits:
    env: [BAR=1]
    deviceNodes:
    - path: /dev/other
      hostPath: /dev/null
    mounts:
    - {hostPath: /usr/lib/driver.so, containerPath: /lib/driver.so, options: [ro]}
"#;

    fn devices(folder: &Path) -> Devices {
        fs::write(folder.join("vendor.yaml"), SPEC).unwrap();
        fs::write(folder.join("broken.json"), "{").unwrap();
        fs::write(
            folder.join("other.json"),
            r#"{"cdiVersion": "0.6.0", "kind": "other.com/device", "devices": [
                {"name": "x", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]}"#,
        )
        .unwrap();
        Devices::new(vec![folder.join("missing"), folder.to_owned()], Vec::new())
    }

    fn wanted(name: &str) -> pb::CdiDevice {
        pb::CdiDevice {
            name: name.to_owned(),
            optional: false,
        }
    }

    #[test]
    fn devices_are_found_by_name_kind_and_class() {
        let folder = tempfile::tempdir().unwrap();
        let devices = devices(folder.path());
        for (name, found) in [
            ("vendor.com/device=foo", &["vendor.com/device=foo"][..]),
            ("vendor.com/device", &["vendor.com/device=bar"]),
            (
                "vendor.com/device=*",
                &["vendor.com/device=bar", "vendor.com/device=foo"],
            ),
            ("fast", &["vendor.com/device=foo"]),
        ] {
            let names: Vec<String> = devices
                .find(&[wanted(name), wanted(name)])
                .unwrap()
                .into_iter()
                .map(|device| device.name)
                .collect();
            assert_eq!(names, found, "{name}");
        }
        assert!(devices.find(&[wanted("vendor.com/none=x")]).is_err());
        let optional = pb::CdiDevice {
            optional: true,
            ..wanted("vendor.com/none=x")
        };
        assert!(devices.find(&[optional]).unwrap().is_empty());
        let allowed: Vec<bool> = devices.list().iter().map(|device| device.auto_allow).collect();
        assert_eq!(allowed, [false, true, true]);
    }

    #[test]
    fn what_a_device_needs_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let devices = devices(folder.path());
        let given = give(&devices.find(&[wanted("vendor.com/device=bar")]).unwrap()).unwrap();
        assert_eq!(given.env, ["BAR=1"]);
        assert_eq!((given.nodes[0].major, given.nodes[0].minor), (1, 3));
        assert_eq!(given.nodes[0].path, "/dev/other");
        assert!(given.mounts[0].read_only);
        let refused = give(&devices.find(&[wanted("other.com/device=x")]).unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "device other.com/device=x needs a hook (createContainer), which is not supported"
        );
    }
}
