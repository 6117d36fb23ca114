//! Which request made a definition: builds whose input is the result of another one can tell where it came from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use prost::Message;
use proto::pb;
use serde_json::Value;

use super::lock;

type Records = HashMap<String, Vec<(u64, Value)>>;

/// The requests behind all definitions that running builds have handed out, by the operation at their head.
#[derive(Clone, Debug, Default)]
pub(in crate::solver) struct Producers(Arc<Mutex<(u64, Records)>>);

/// One record; dropped with its build.
#[derive(Debug)]
pub(in crate::solver) struct Registration {
    producers: Producers,
    head: String,
    number: u64,
}

impl Producers {
    pub fn register(&self, definition: &pb::Definition, request: Value) -> Option<Registration> {
        let head = head(definition)?;
        let mut guard = lock(&self.0);
        let (last, records) = &mut *guard;
        *last += 1;
        records.entry(head.clone()).or_default().push((*last, request));
        Some(Registration {
            producers: self.clone(),
            head,
            number: *last,
        })
    }

    /// The request behind a definition; none if there are several that differ.
    pub fn lookup(&self, definition: &pb::Definition) -> Option<Value> {
        let head = head(definition)?;
        let guard = lock(&self.0);
        let mut found = guard
            .1
            .get(&head)?
            .iter()
            .map(|(_, request)| without_root(request));
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut guard = lock(&self.producers.0);
        if let Some(records) = guard.1.get_mut(&self.head) {
            records.retain(|(number, _)| *number != self.number);
            if records.is_empty() {
                guard.1.remove(&self.head);
            }
        }
    }
}

fn without_root(request: &Value) -> Value {
    let mut request = request.clone();
    if let Some(request) = request.get_mut("request").and_then(Value::as_object_mut) {
        request.remove("root");
    }
    request
}

fn head(definition: &pb::Definition) -> Option<String> {
    let last = pb::Op::decode(&definition.def.last()?[..]).ok()?;
    Some(last.inputs.first()?.digest.clone())
}
