//! A builder instance and its nodes, as stored on disk. The field names are those of buildx's instance files.

use std::collections::BTreeMap;

use binfmt::Platform;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Builder {
    pub name: String,
    pub driver: String,
    #[serde(default)]
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    pub name: String,
    pub endpoint: String,
    /// Platforms that the user fixed; they come before those the daemon reports.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    /// Flags for the daemon.
    #[serde(default, rename = "Flags")]
    pub daemon_flags: Vec<String>,
    /// The daemon's configuration file, by the name it gets beside the daemon.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
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
    pub files: BTreeMap<String, String>,
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
