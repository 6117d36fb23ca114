//! Targets and groups as JSON, in the order and with the escapes of buildx: what is printed can be read again as a
//! definition.

use std::collections::BTreeMap;

use super::entries::{Attest, CacheEntry, Export, Policy, Resources, Secret, Ssh};
use super::{Group, Target};
use crate::json::Node;

impl Group {
    pub(crate) fn json(&self) -> Node {
        let mut fields = Vec::new();
        if !self.description.is_empty() {
            fields.push(("description".to_owned(), Node::text(&self.description)));
        }
        let targets = match &self.targets {
            Some(targets) => texts(targets),
            None => Node::Null,
        };
        fields.push(("targets".to_owned(), targets));
        Node::Object(fields)
    }
}

impl Target {
    pub(crate) fn json(&self) -> Node {
        let mut fields = Fields::default();
        fields.text(
            "description",
            &Some(self.description.clone()).filter(|text| !text.is_empty()),
        );
        fields.list("inherits", &self.inherits, |text| Node::text(text));
        fields.list("annotations", &self.annotations, |text| Node::text(escape(text)));
        fields.list("attest", &self.attest, Attest::json);
        fields.text("context", &self.context);
        if let Some(contexts) = self.contexts.as_ref().filter(|contexts| !contexts.is_empty()) {
            fields.push("contexts", object(contexts));
        }
        fields.text("dockerfile", &self.dockerfile);
        fields.text(
            "dockerfile-inline",
            &self.dockerfile_inline.as_deref().map(escape),
        );
        fields.escaped("args", &self.args);
        fields.escaped("labels", &self.labels);
        fields.list("tags", &self.tags, |text| Node::text(text));
        fields.list("cache-from", &self.cache_from, CacheEntry::json);
        fields.list("cache-to", &self.cache_to, CacheEntry::json);
        fields.text("target", &self.target);
        fields.list("secret", &self.secrets, Secret::json);
        fields.list("ssh", &self.ssh, Ssh::json);
        fields.list("platforms", &self.platforms, |text| Node::text(text));
        fields.list("output", &self.outputs, Export::json);
        fields.flag("pull", self.pull);
        fields.flag("no-cache", self.no_cache);
        fields.text("network", &self.network);
        fields.list("no-cache-filter", &self.no_cache_filter, |text| Node::text(text));
        fields.text("shm-size", &self.shm_size);
        fields.list("ulimits", &self.ulimits, |text| Node::text(text));
        if let Some(resources) = &self.resources {
            fields.push("resources", resources.json());
        }
        fields.text("call", &self.call);
        fields.list("entitlements", &self.entitlements, |text| Node::text(text));
        fields.escaped("extra-hosts", &self.extra_hosts);
        fields.list("policy", &self.policy, Policy::json);
        Node::Object(fields.0)
    }
}

/// What is absent or empty is left out.
#[derive(Default)]
struct Fields(Vec<(String, Node)>);

impl Fields {
    fn push(&mut self, name: &str, node: Node) {
        self.0.push((name.to_owned(), node));
    }

    fn text(&mut self, name: &str, text: &Option<String>) {
        if let Some(text) = text {
            self.push(name, Node::text(text));
        }
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.push(name, Node::Flag(flag));
        }
    }

    fn list<T>(&mut self, name: &str, list: &Option<Vec<T>>, node: impl Fn(&T) -> Node) {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            self.push(name, Node::List(list.iter().map(node).collect()));
        }
    }

    fn escaped(&mut self, name: &str, map: &Option<BTreeMap<String, Option<String>>>) {
        if let Some(map) = map.as_ref().filter(|map| !map.is_empty()) {
            let value = |value: &Option<String>| {
                value
                    .as_deref()
                    .map_or(Node::Null, |text| Node::text(escape(text)))
            };
            let fields = map
                .iter()
                .map(|(name, text)| (name.clone(), value(text)))
                .collect();
            self.push(name, Node::Object(fields));
        }
    }
}

/// Text that means itself in a template.
fn escape(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn texts(texts: &[String]) -> Node {
    Node::List(texts.iter().map(Node::text).collect())
}

fn object(map: &BTreeMap<String, String>) -> Node {
    Node::Object(
        map.iter()
            .map(|(name, value)| (name.clone(), Node::text(value)))
            .collect(),
    )
}

impl Attest {
    fn json(&self) -> Node {
        let mut map: BTreeMap<String, Node> = self
            .attributes
            .iter()
            .map(|(name, value)| (name.clone(), Node::text(value)))
            .collect();
        map.insert("type".to_owned(), Node::text(&self.kind));
        if self.disabled {
            map.insert("disabled".to_owned(), Node::Flag(true));
        }
        Node::Object(map.into_iter().collect())
    }
}

impl CacheEntry {
    fn json(&self) -> Node {
        let mut map = self.attributes.clone();
        map.insert("type".to_owned(), self.kind.clone());
        object(&map)
    }
}

impl Export {
    fn json(&self) -> Node {
        let mut map = self.attributes.clone();
        map.insert("type".to_owned(), self.kind.clone());
        if !self.destination.is_empty() {
            map.insert("dest".to_owned(), self.destination.clone());
        }
        object(&map)
    }
}

impl Secret {
    fn json(&self) -> Node {
        let fields = [("id", &self.id), ("src", &self.file), ("env", &self.variable)];
        Node::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), Node::text(value)))
                .collect(),
        )
    }
}

impl Ssh {
    fn json(&self) -> Node {
        let mut fields = Fields::default();
        fields.text("id", &Some(self.id.clone()).filter(|id| !id.is_empty()));
        fields.list("paths", &Some(self.paths.clone()), |text| Node::text(text));
        Node::Object(fields.0)
    }
}

impl Resources {
    fn json(&self) -> Node {
        let number = |name: &str| name.starts_with("cpu-");
        Node::Object(
            self.pairs()
                .into_iter()
                .map(|(name, value)| {
                    let node = if number(name) {
                        Node::Number(value)
                    } else {
                        Node::text(value)
                    };
                    (name.to_owned(), node)
                })
                .collect(),
        )
    }
}

impl Policy {
    fn json(&self) -> Node {
        let file = |name: &String| {
            Node::Object(vec![
                ("Filename".to_owned(), Node::text(name)),
                ("Data".to_owned(), Node::Null),
            ])
        };
        let files = if self.files.is_empty() {
            Node::Null
        } else {
            Node::List(self.files.iter().map(file).collect())
        };
        Node::Object(vec![
            ("Files".to_owned(), files),
            ("Reset".to_owned(), Node::Flag(self.reset)),
            ("Disabled".to_owned(), Node::Flag(self.disabled)),
            ("Strict".to_owned(), self.strict.map_or(Node::Null, Node::Flag)),
            (
                "LogLevel".to_owned(),
                self.log_level.as_ref().map_or(Node::Null, Node::text),
            ),
        ])
    }
}
