//! A builder instance and its nodes, as stored on disk. The format is that of buildx's instance files, which are read
//! and changed in their own place as well: what is in them and unknown here is kept.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use binfmt::Platform;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Builder {
    pub name: String,
    pub driver: String,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub nodes: Vec<Node>,
    #[serde(skip)]
    pub origin: Origin,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Where an instance comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Our own store.
    #[default]
    Own,
    /// The store of buildx, whose daemons its containers run.
    Buildx,
    /// Nobody made it: it stands for a Docker context.
    Context,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    pub name: String,
    pub endpoint: String,
    /// Platforms that the user fixed; they come before those the daemon reports.
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub platforms: Vec<Platform>,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub driver_opts: BTreeMap<String, String>,
    /// Flags for the daemon.
    #[serde(default, rename = "Flags", deserialize_with = "null_is_nothing")]
    pub daemon_flags: Vec<String>,
    /// The daemon's configuration and what it names, by the path below the daemon's configuration folder.
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub files: BTreeMap<String, Content>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// The bytes of a file; base64 in instance files.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

/// Keys are among the files.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// An empty list or map is `null` where Go wrote it.
fn null_is_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What `create` says about a node. What is absent stays as it was.
#[derive(Clone, Debug, Default)]
pub struct NodeChange {
    pub name: Option<String>,
    pub endpoint: String,
    pub endpoint_given: bool,
    pub append: bool,
    pub platforms: Vec<Platform>,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub daemon_flags: Option<Vec<String>>,
    pub files: BTreeMap<String, Content>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GroupError {
    #[error("invalid name {name}, name needs to start with a letter and may not contain symbols, except ._-")]
    InvalidName { name: String },
    #[error("node {node} not found, did you mean to append?")]
    NodeNotFound { node: String },
    #[error("node \"{node}\" not found for {builder}")]
    NoSuchNode { node: String, builder: String },
    #[error("can not leave last node, do you want to rm instance instead?")]
    LastNode,
    #[error("invalid duplicate endpoint {endpoint}")]
    DuplicateEndpoint { endpoint: String },
}

impl Builder {
    pub fn new(name: &str, driver: &str) -> Self {
        Self {
            name: name.to_owned(),
            driver: driver.to_owned(),
            nodes: Vec::new(),
            origin: Origin::Own,
            rest: BTreeMap::from([("Dynamic".to_owned(), Value::Bool(false))]),
        }
    }

    /// Adds or changes a node. Returns whether a running daemon has to be restarted to see the change.
    pub fn update(&mut self, change: NodeChange) -> Result<bool, GroupError> {
        let existing = change
            .name
            .as_ref()
            .and_then(|name| self.nodes.iter().position(|node| &node.name == name));
        let (position, needs_restart) = match existing {
            Some(position) => (position, self.nodes[position].apply(&change)),
            None => {
                if !change.append && !self.nodes.is_empty() {
                    return Err(GroupError::NodeNotFound {
                        node: change.name.unwrap_or_default(),
                    });
                }
                let name = match &change.name {
                    Some(name) => valid_name(name)?,
                    None => self.next_node_name(),
                };
                self.nodes.push(Node {
                    name,
                    endpoint: change.endpoint.clone(),
                    platforms: change.platforms.clone(),
                    driver_opts: change.driver_opts.clone().unwrap_or_default(),
                    daemon_flags: change.daemon_flags.clone().unwrap_or_default(),
                    files: change.files.clone(),
                    rest: BTreeMap::new(),
                });
                (self.nodes.len() - 1, false)
            }
        };
        self.settle(position)?;
        Ok(needs_restart)
    }

    pub fn leave(&mut self, node: &str) -> Result<(), GroupError> {
        let position = self
            .nodes
            .iter()
            .position(|other| other.name == node)
            .ok_or_else(|| GroupError::NoSuchNode {
                node: node.to_owned(),
                builder: self.name.clone(),
            })?;
        if self.nodes.len() == 1 {
            return Err(GroupError::LastNode);
        }
        self.nodes.remove(position);
        Ok(())
    }

    pub fn next_node_name(&self) -> String {
        (0..)
            .map(|number| format!("{}{number}", self.name))
            .find(|name| self.nodes.iter().all(|node| &node.name != name))
            .expect("a group has finitely many nodes")
    }

    /// An endpoint is used once, and a fixed platform belongs to the node that asked for it last.
    fn settle(&mut self, position: usize) -> Result<(), GroupError> {
        let endpoint = &self.nodes[position].endpoint;
        if self
            .nodes
            .iter()
            .filter(|node| &node.endpoint == endpoint)
            .count()
            > 1
        {
            return Err(GroupError::DuplicateEndpoint {
                endpoint: endpoint.clone(),
            });
        }
        let taken = self.nodes[position].platforms.clone();
        for (other, node) in self.nodes.iter_mut().enumerate() {
            if other != position {
                node.platforms.retain(|platform| !taken.contains(platform));
            }
        }
        Ok(())
    }
}

impl Node {
    fn apply(&mut self, change: &NodeChange) -> bool {
        let mut needs_restart = false;
        if change.endpoint_given {
            self.endpoint.clone_from(&change.endpoint);
            needs_restart = true;
        }
        if !change.platforms.is_empty() {
            self.platforms.clone_from(&change.platforms);
        }
        if let Some(flags) = &change.daemon_flags {
            self.daemon_flags.clone_from(flags);
            needs_restart = true;
        }
        if let Some(options) = &change.driver_opts {
            self.driver_opts.clone_from(options);
            needs_restart = true;
        }
        if !change.files.is_empty() {
            self.files.extend(change.files.clone());
            needs_restart = true;
        }
        needs_restart
    }
}

/// Lower case, begins with a letter, and is a plain file name.
pub fn valid_name(name: &str) -> Result<String, GroupError> {
    let mut characters = name.chars();
    let starts_well = characters.next().is_some_and(|first| first.is_ascii_alphabetic());
    if starts_well && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(GroupError::InvalidName {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: Option<&str>, endpoint: &str) -> NodeChange {
        NodeChange {
            name: name.map(str::to_owned),
            endpoint: endpoint.to_owned(),
            ..NodeChange::default()
        }
    }

    #[test]
    fn names_are_plain_file_names() {
        for good in ["a", "My-Builder_1.0", "x.y"] {
            assert_eq!(valid_name(good), Ok(good.to_ascii_lowercase()));
        }
        for bad in ["", "1a", "a/b", "..", "a b", "../x", "é"] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_are_appended_changed_and_removed() {
        let mut builder = Builder::new("b", "remote");
        assert_eq!(builder.update(change(None, "unix:///a")), Ok(false));
        assert_eq!(
            builder.update(change(Some("x"), "unix:///b")),
            Err(GroupError::NodeNotFound { node: "x".to_owned() })
        );
        assert_eq!(
            builder.update(NodeChange {
                append: true,
                ..change(None, "unix:///b")
            }),
            Ok(false)
        );
        assert_eq!(
            builder
                .nodes
                .iter()
                .map(|node| node.name.as_str())
                .collect::<Vec<_>>(),
            ["b0", "b1"]
        );
        assert_eq!(
            builder.clone().update(NodeChange {
                append: true,
                ..change(Some("c"), "unix:///b")
            }),
            Err(GroupError::DuplicateEndpoint {
                endpoint: "unix:///b".to_owned()
            })
        );
        let restart = NodeChange {
            endpoint_given: true,
            ..change(Some("b1"), "unix:///c")
        };
        assert_eq!(builder.update(restart), Ok(true));
        assert_eq!(builder.nodes[1].endpoint, "unix:///c");
        assert_eq!(builder.leave("b0"), Ok(()));
        assert_eq!(builder.leave("b1"), Err(GroupError::LastNode));
    }

    #[test]
    fn what_buildx_wrote_is_read_and_kept() {
        let text = r#"{"Name":"b","Driver":"docker-container","Nodes":[{"Name":"b0","Endpoint":"default","Platforms":[{"architecture":"arm64","os":"linux","os.version":"7"}],"DriverOpts":null,"Flags":["--debug"],"Files":{"buildkitd.toml":"ZGVidWcgPSB0cnVlCg=="},"New":1}],"Dynamic":false,"Later":[2]}"#;
        let mut builder: Builder = serde_json::from_str(text).unwrap();
        let platform = Platform::linux("arm64").with_os_version("7");
        assert_eq!(builder.nodes[0].platforms, [platform]);
        assert_eq!(
            builder.nodes[0].files["buildkitd.toml"],
            Content(b"debug = true\n".to_vec())
        );
        builder
            .update(NodeChange {
                append: true,
                ..change(None, "far")
            })
            .unwrap();
        let written: Value = serde_json::to_value(&builder).unwrap();
        assert_eq!(written["Later"], serde_json::json!([2]));
        assert_eq!(written["Dynamic"], serde_json::json!(false));
        assert_eq!(written["Nodes"][0]["New"], serde_json::json!(1));
        assert_eq!(
            written["Nodes"][0]["Files"]["buildkitd.toml"],
            serde_json::json!("ZGVidWcgPSB0cnVlCg==")
        );
        assert_eq!(written["Nodes"][1]["Endpoint"], serde_json::json!("far"));
    }

    #[test]
    fn a_fixed_platform_moves_to_the_node_that_asked_last() {
        let mut builder = Builder::new("b", "remote");
        let arm = vec![Platform::linux("arm64")];
        builder
            .update(NodeChange {
                platforms: arm.clone(),
                ..change(None, "unix:///a")
            })
            .unwrap();
        builder
            .update(NodeChange {
                platforms: arm.clone(),
                append: true,
                ..change(None, "unix:///b")
            })
            .unwrap();
        assert_eq!(builder.nodes[0].platforms, []);
        assert_eq!(builder.nodes[1].platforms, arm);
    }
}
