//! A definition as provenance tells it: numbered steps that name the outputs of others.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;
use proto::pb;
use serde_json::{Map, Value, json};

use crate::graph::digest_of;

/// The steps of a definition in the order they are needed, and the number of each by its digest.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub list: Vec<Value>,
    pub numbers: BTreeMap<String, usize>,
}

impl Steps {
    pub fn of(definition: &pb::Definition) -> Self {
        let mut operations: HashMap<String, pb::Op> = HashMap::new();
        let mut last = None;
        for bytes in &definition.def {
            let Ok(mut operation) = pb::Op::decode(&bytes[..]) else {
                return Self::default();
            };
            if let Some(pb::op::Op::Source(source)) = &mut operation.op {
                // They differ from build to build and say nothing about the result.
                source
                    .attrs
                    .retain(|key, _| key != "local.session" && key != "local.unique");
                source.identifier = super::request::redacted(&source.identifier);
            }
            let digest = digest_of(bytes);
            operations.insert(digest.clone(), operation);
            last = Some(digest);
        }
        let mut steps = Self::default();
        let order = last.map(|last| in_order(&last, &operations));
        for digest in order.unwrap_or_default() {
            let Some(operation) = operations.remove(&digest) else {
                continue;
            };
            let number = steps.list.len();
            let inputs = operation.inputs.iter().map(|input| {
                let number = steps.numbers.get(&input.digest).copied().unwrap_or_default();
                format!("step{number}:{}", input.index)
            });
            let mut step = Map::from_iter([("id".to_owned(), format!("step{number}").into())]);
            let inputs: Vec<String> = inputs.collect();
            if !inputs.is_empty() {
                step.insert("inputs".to_owned(), inputs.into());
            }
            let operation = pb::Op {
                inputs: Vec::new(),
                ..operation
            };
            let mut told = serde_json::to_value(&operation).unwrap_or_default();
            if let (None, Some(told)) = (&operation.op, told.as_object_mut()) {
                told.insert("Op".to_owned(), json!({}));
            }
            step.insert("op".to_owned(), told);
            steps.list.push(step.into());
            steps.numbers.insert(digest, number);
        }
        steps
    }

    pub fn mapping(&self) -> Value {
        let named = self.numbers.iter();
        let named = named.map(|(digest, number)| (digest.clone(), format!("step{number}").into()));
        Value::Object(named.collect())
    }

    /// The source texts that steps were made from.
    pub fn sources(&self, definition: &pb::Definition) -> Option<Value> {
        let source = definition
            .source
            .as_ref()
            .filter(|source| !source.infos.is_empty())?;
        let infos = source.infos.iter().map(|info| {
            let mut told = serde_json::to_value(pb::SourceInfo {
                definition: None,
                ..info.clone()
            })
            .unwrap_or_default();
            if let (Some(definition), Some(told)) = (&info.definition, told.as_object_mut()) {
                let steps = Self::of(definition);
                told.insert("llbDefinition".to_owned(), steps.list.clone().into());
                told.insert("digestMapping".to_owned(), steps.mapping());
            }
            told
        });
        let infos: Vec<Value> = infos.collect();
        let locations = source.locations.iter().filter_map(|(digest, locations)| {
            let number = self.numbers.get(digest)?;
            Some((format!("step{number}"), serde_json::to_value(locations).ok()?))
        });
        Some(json!({ "infos": infos, "locations": Map::from_iter(locations) }))
    }
}

/// Inputs before their users, without recursion: definitions may be deep.
fn in_order(last: &str, operations: &HashMap<String, pb::Op>) -> Vec<String> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![(last.to_owned(), false)];
    while let Some((digest, inputs_done)) = open.pop() {
        if inputs_done {
            order.push(digest);
        } else if seen.insert(digest.clone()) {
            let inputs = operations.get(&digest).map(|operation| &operation.inputs[..]);
            open.push((digest, true));
            let inputs = inputs.unwrap_or_default().iter().rev();
            open.extend(inputs.map(|input| (input.digest.clone(), false)));
        }
    }
    order
}
