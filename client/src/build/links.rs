//! Targets that use the results of other targets: `contexts: {base = "target:base"}`.
//!
//! The result of a target becomes an input of those that name it: definitions that a daemon continues in its own
//! graph. On one node, a target first publishes what it comes to and waits until all its users have taken it up, so
//! that the daemon sees what is shared; it is computed after the targets that it uses, and it ends, with its session,
//! after all its users have been computed, since these may need files that only its client session has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use proto::gateway::result::Result as Form;
use proto::{gateway, pb};
use serde_json::{Map, Value};
use tokio::sync::watch;

const CONTEXT: &str = "context:";
const TARGET: &str = "target:";
const CONFIG: &str = "containerimage.config";
const BUILD_INFO: &str = "containerimage.buildinfo";

/// A target on a node.
pub type Key = (usize, String);

/// How far a target has come.
#[derive(Clone, Debug, Default)]
enum Stage {
    #[default]
    Waiting,
    Known(Arc<gateway::Result>),
    Computed(Arc<gateway::Result>),
    Completed,
}

impl Stage {
    fn result(&self) -> Option<Arc<gateway::Result>> {
        match self {
            Self::Known(result) | Self::Computed(result) => Some(Arc::clone(result)),
            Self::Waiting | Self::Completed => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Known(_) => 1,
            Self::Computed(_) => 2,
            Self::Completed => 3,
        }
    }
}

/// All targets that are linked, with what is known of each. They are known until the last one has ended.
#[derive(Debug, Default)]
pub struct Links {
    targets: BTreeMap<Key, Linked>,
}

#[derive(Debug, Default)]
struct Linked {
    stage: watch::Sender<Stage>,
    uses: Vec<Key>,
    users: Vec<Key>,
}

/// The names of the targets that attributes refer to.
pub fn named(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attributes
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(CONTEXT)?, value.strip_prefix(TARGET)?)))
}

impl Links {
    /// Finds the links among the targets on all nodes.
    pub fn find<'a>(
        targets: impl Iterator<Item = (Key, &'a BTreeMap<String, String>)>,
    ) -> anyhow::Result<Self> {
        let targets: BTreeMap<Key, _> = targets.collect();
        let mut links = Self::default();
        for (user, attributes) in &targets {
            for (context, name) in named(attributes) {
                let used = (user.0, name.to_owned());
                if !targets.contains_key(&used) {
                    if targets.keys().any(|(_, target)| target == name) {
                        bail!(
                            "failed to use {name} as context {context} for {}: the targets build on different nodes, give both the same platforms",
                            user.1
                        );
                    }
                    bail!("failed to find target {name} for context {context} of {}", user.1);
                }
                let of = |links: &mut Self, key: &Key| {
                    links.targets.entry(key.clone()).or_default();
                };
                of(&mut links, user);
                of(&mut links, &used);
                if let Some(linked) = links.targets.get_mut(user) {
                    linked.uses.push(used.clone());
                }
                if let Some(linked) = links.targets.get_mut(&used) {
                    linked.users.push(user.clone());
                }
            }
        }
        links.refuse_circles()?;
        Ok(links)
    }

    /// Everybody in a circle would wait for ever.
    fn refuse_circles(&self) -> anyhow::Result<()> {
        let mut left: BTreeMap<&Key, usize> = self
            .targets
            .iter()
            .map(|(key, linked)| (key, linked.uses.len()))
            .collect();
        while let Some(free) = left.iter().find(|(_, waits)| **waits == 0).map(|(key, _)| *key) {
            left.remove(free);
            for user in &self.targets[free].users {
                if let Some(waits) = left.get_mut(user) {
                    *waits -= 1;
                }
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&str> = left.keys().map(|(_, name)| name.as_str()).collect();
        bail!(
            "the targets {} use each other in a circle",
            names.into_iter().collect::<Vec<_>>().join(", ")
        )
    }

    pub fn contain(&self, key: &Key) -> bool {
        self.targets.contains_key(key)
    }

    /// Waits for the results that a target uses, and makes inputs of them.
    pub async fn take_up(
        &self,
        key: &Key,
        attributes: &mut BTreeMap<String, String>,
    ) -> anyhow::Result<BTreeMap<String, pb::Definition>> {
        let mut inputs = BTreeMap::new();
        let contexts: Vec<(String, String)> = named(attributes)
            .map(|(context, target)| (context.to_owned(), target.to_owned()))
            .collect();
        for (context, target) in contexts {
            let used = (key.0, target);
            let stage = self.reached(&used, 1).await?;
            let result = stage.result().context("the target has ended already")?;
            input(&context, &used, &result, attributes, &mut inputs)?;
        }
        Ok(inputs)
    }

    /// Publishes what a target comes to, and has it computed when its turn comes; returns when it may end.
    pub async fn complete(
        &self,
        key: &Key,
        result: gateway::Result,
        compute: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let Some(linked) = self.targets.get(key) else {
            return Ok(());
        };
        let result = Arc::new(result);
        linked.stage.send_replace(Stage::Known(Arc::clone(&result)));
        for user in &linked.users {
            self.reached(user, 1).await?;
        }
        for used in &linked.uses {
            self.reached(used, 2).await?;
        }
        compute.await?;
        linked.stage.send_replace(Stage::Computed(result));
        for user in &linked.users {
            self.reached(user, 3).await?;
        }
        linked.stage.send_replace(Stage::Completed);
        Ok(())
    }

    async fn reached(&self, key: &Key, rank: u8) -> anyhow::Result<Stage> {
        let linked = self.targets.get(key).context("a target is not linked")?;
        let mut stages = linked.stage.subscribe();
        let stage = stages.wait_for(|stage| stage.rank() >= rank).await;
        Ok(stage.context("a target has vanished")?.clone())
    }
}

/// Replaces a context by the results of a target, one for each platform that there is.
fn input(
    context: &str,
    used: &Key,
    result: &gateway::Result,
    attributes: &mut BTreeMap<String, String>,
    inputs: &mut BTreeMap<String, pb::Definition>,
) -> anyhow::Result<()> {
    // On the wire an input has the name that buildx gives it: the node's number and the target.
    let name = format!("{}-{}", used.0, used.1);
    let mut add = |suffix: &str, definition: Option<&pb::Definition>, metadata_suffix: &str| {
        let name = format!("{name}{suffix}");
        inputs.insert(name.clone(), definition.cloned().unwrap_or_default());
        attributes.insert(format!("{CONTEXT}{context}{suffix}"), format!("input:{name}"));
        if let Some(metadata) = metadata(result, metadata_suffix) {
            attributes.insert(format!("input-metadata:{name}"), metadata);
        }
    };
    let undefined = "the daemon gives no definitions of results, which linked targets need: upgrade it";
    match &result.result {
        Some(Form::Refs(map)) => {
            for (platform, reference) in &map.refs {
                if !reference.id.is_empty() && reference.def.is_none() {
                    bail!("{undefined}");
                }
                add(
                    &format!("::{platform}"),
                    reference.def.as_ref(),
                    &format!("/{platform}"),
                );
            }
            attributes.remove(&format!("{CONTEXT}{context}"));
        }
        Some(Form::Ref(reference)) => {
            if !reference.id.is_empty() && reference.def.is_none() {
                bail!("{undefined}");
            }
            add("", reference.def.as_ref(), "");
        }
        None => add("", None, ""),
        Some(Form::RefDeprecated(_) | Form::RefsDeprecated(_)) => bail!("{undefined}"),
    }
    Ok(())
}

/// What an input brings with it besides files: the configuration of its image, encoded as Go encodes bytes.
fn metadata(result: &gateway::Result, suffix: &str) -> Option<String> {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| Value::String(base64::engine::general_purpose::STANDARD.encode(bytes));
    let found: Map<String, Value> = [BUILD_INFO, CONFIG]
        .into_iter()
        .filter_map(|key| {
            Some((
                key.to_owned(),
                encode(result.metadata.get(&format!("{key}{suffix}"))?),
            ))
        })
        .collect();
    (!found.is_empty()).then(|| Value::Object(found).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|(name, value)| (format!("context:{name}"), (*value).to_owned()))
            .collect()
    }

    fn key(target: &str) -> Key {
        (0, target.to_owned())
    }

    fn reference(id: &str) -> gateway::Ref {
        gateway::Ref {
            id: id.to_owned(),
            def: Some(pb::Definition {
                def: vec![id.to_owned().into()],
                ..pb::Definition::default()
            }),
        }
    }

    #[test]
    fn circles_and_unknown_targets_are_refused() {
        let a = contexts(&[("x", "target:b")]);
        let b = contexts(&[("y", "target:a"), ("z", "docker-image://z")]);
        let error = Links::find([(key("a"), &a), (key("b"), &b)].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "the targets a, b use each other in a circle");
        let error = Links::find([(key("a"), &a)].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "failed to find target b for context x of a");
        let none = BTreeMap::new();
        let elsewhere = (1, "b".to_owned());
        let error = Links::find([(key("a"), &a), (elsewhere, &none)].into_iter()).unwrap_err();
        assert!(error.to_string().contains("different nodes"), "{error}");
    }

    #[tokio::test]
    async fn results_become_inputs_and_users_end_first() {
        let (base, app) = (BTreeMap::new(), contexts(&[("alpine", "target:base")]));
        let links = Links::find([(key("base"), &base), (key("app"), &app)].into_iter()).unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        let note = |what: &'static str| order.lock().unwrap().push(what);
        let result = gateway::Result {
            result: Some(Form::Refs(gateway::RefMap {
                refs: BTreeMap::from([("linux/arm64".to_owned(), reference("one"))]),
            })),
            metadata: BTreeMap::from([(format!("{CONFIG}/linux/arm64"), "{}".into())]),
            ..gateway::Result::default()
        };
        let of_base = async {
            let compute = async {
                note("base computed");
                Ok(())
            };
            links.complete(&key("base"), result, compute).await.unwrap();
            note("base ended");
        };
        let of_app = async {
            let mut attributes = app.clone();
            let inputs = links.take_up(&key("app"), &mut attributes).await.unwrap();
            assert_eq!(inputs["0-base::linux/arm64"].def, ["one"]);
            let expected = [
                ("context:alpine::linux/arm64", "input:0-base::linux/arm64"),
                (
                    "input-metadata:0-base::linux/arm64",
                    "{\"containerimage.config\":\"e30=\"}",
                ),
            ];
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(attributes, BTreeMap::from(expected));
            let compute = async {
                note("app computed");
                Ok(())
            };
            links
                .complete(&key("app"), gateway::Result::default(), compute)
                .await
                .unwrap();
            note("app ended");
        };
        tokio::join!(of_app, of_base);
        assert_eq!(
            *order.lock().unwrap(),
            ["base computed", "app computed", "app ended", "base ended"]
        );
    }
}
