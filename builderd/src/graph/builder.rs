//! Making graphs: operations by value, made into a definition when all of them are known.
//!
//! Encoding is deterministic (prost writes fields in number order, maps are sorted), so equal operations of different
//! builds and platforms have equal bytes, and with them equal digests. Operations are encoded as they come, all but
//! their inputs, so that those of a large file are small. One that is added as [`Builder::add_open`] may be changed
//! until [`Builder::definition`] is called: the build context learns which files it has to carry only at the very end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::pb;
use sha2::{Digest as _, Sha256};

use super::digest_of;

/// Bytes that encoded operations share one allocation of.
const ROOM: usize = 64 << 10;
const GROWING: &str = "a buffer that grows has room";

/// One output of an operation in a [`Builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    operation: usize,
    index: i64,
}

/// What is said about an operation besides what it does.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Shown in progress displays.
    pub name: String,
    /// The instruction it comes from, if that is not its name.
    pub command: Option<String>,
    /// First and last line in the source text.
    pub lines: Option<(u32, u32)>,
    pub ignore_cache: bool,
    /// Displays show it together with others of the same group.
    pub group: Option<pb::ProgressGroup>,
    /// What a step may use of the machine.
    pub limits: Option<Arc<pb::LinuxResources>>,
}

/// An operation whose inputs are outputs of the same builder.
#[derive(Clone, Debug)]
pub struct Operation {
    pub kind: pb::op::Op,
    pub inputs: Vec<Output>,
    /// Only for operations that mean different things on different platforms.
    pub platform: Option<pb::Platform>,
    pub note: Note,
}

#[derive(Debug)]
enum Node {
    /// Where its bytes are in the builder's, which lack its inputs.
    Encoded {
        bytes: Range<usize>,
        inputs: Vec<Output>,
        note: Note,
    },
    Open(Box<Operation>),
    /// Part of a definition that came from outside: its bytes are its identity and stay as they are.
    Foreign {
        bytes: Bytes,
        inputs: Vec<usize>,
        metadata: Box<pb::OpMetadata>,
    },
}

#[derive(Debug, Default)]
pub struct Builder {
    nodes: Vec<Node>,
    encoded: Vec<u8>,
}

impl Builder {
    /// Adds an operation and returns its first output.
    pub fn add(&mut self, operation: Operation) -> Output {
        let start = self.encoded.len();
        encode(&operation.kind, operation.platform, &mut self.encoded);
        self.push(Node::Encoded {
            bytes: start..self.encoded.len(),
            inputs: operation.inputs,
            note: operation.note,
        })
    }

    /// The same for one that is to be completed.
    pub fn add_open(&mut self, operation: Operation) -> Output {
        self.push(Node::Open(Box::new(operation)))
    }

    fn push(&mut self, node: Node) -> Output {
        self.nodes.push(node);
        Output {
            operation: self.nodes.len() - 1,
            index: 0,
        }
    }

    /// Another output of the operation that `output` belongs to.
    pub fn output(&self, output: Output, index: i64) -> Output {
        Output { index, ..output }
    }

    /// Completes the operation behind `output` if it is open; any other, such as a part of a definition from outside,
    /// stays as it is.
    pub fn complete(&mut self, output: Output, operation: &Operation) {
        if let Some(Node::Open(open)) = self.nodes.get_mut(output.operation) {
            open.as_mut().clone_from(operation);
        }
    }

    /// Takes in a definition from outside and returns its output; `None` for an empty one, which is scratch, and for
    /// one that refers to what it does not hold.
    pub fn import(&mut self, definition: &pb::Definition) -> Option<Output> {
        let (terminal, operations) = definition.def.split_last()?;
        let mut known: HashMap<String, usize> = HashMap::new();
        for bytes in operations {
            let digest = digest_of(bytes);
            let op = pb::Op::decode(&bytes[..]).ok()?;
            let inputs = op
                .inputs
                .iter()
                .map(|input| known.get(&input.digest).copied())
                .collect::<Option<_>>()?;
            let metadata = Box::new(definition.metadata.get(&digest).cloned().unwrap_or_default());
            self.nodes.push(Node::Foreign {
                bytes: bytes.clone(),
                inputs,
                metadata,
            });
            known.insert(digest, self.nodes.len() - 1);
        }
        let terminal = pb::Op::decode(&terminal[..]).ok()?;
        let head = terminal.inputs.first()?;
        Some(Output {
            operation: *known.get(&head.digest)?,
            index: head.index,
        })
    }

    /// The definition whose output is `head`, holding what it needs and nothing else. Without a head: scratch.
    pub fn definition(&self, head: Option<Output>, source: Option<&Arc<pb::SourceInfo>>) -> pb::Definition {
        let Some(head) = head else {
            return pb::Definition::default();
        };
        let needed = self.needed(head);
        let mut definition = pb::Definition::default();
        // Maps that grow one by one would take most of the time of a large file: they are made at the end.
        let count = needed.iter().filter(|needed| **needed).count();
        let mut locations: Vec<(Digest, pb::Location)> = Vec::with_capacity(count);
        let mut all_metadata: Vec<(Digest, pb::OpMetadata)> = Vec::with_capacity(count + 1);
        let mut written: HashSet<Digest> = HashSet::with_capacity(count);
        let mut digests: Vec<Digest> = Vec::with_capacity(self.nodes.len());
        let mut buffer = BytesMut::new();
        for (node, needed) in self.nodes.iter().zip(needed) {
            if !needed {
                digests.push(Digest::default());
                continue;
            }
            let (bytes, metadata, lines) = match node {
                Node::Foreign { bytes, metadata, .. } => {
                    (bytes.clone(), pb::OpMetadata::clone(metadata), None)
                }
                Node::Encoded { bytes, inputs, note } => {
                    let rest = &self.encoded[bytes.clone()];
                    let bytes = with_inputs(inputs, rest, &digests, &mut buffer);
                    (bytes, metadata(note), note.lines)
                }
                Node::Open(operation) => {
                    let mut rest = Vec::new();
                    encode(&operation.kind, operation.platform.clone(), &mut rest);
                    let bytes = with_inputs(&operation.inputs, &rest, &digests, &mut buffer);
                    (bytes, metadata(&operation.note), operation.note.lines)
                }
            };
            let digest = Digest::of(&bytes);
            // Equal instructions on equal inputs are one operation; the last one names it.
            if written.insert(digest) {
                definition.def.push(bytes);
            }
            locations.extend(lines.map(|lines| (digest, location(lines))));
            all_metadata.push((digest, metadata));
            digests.push(digest);
        }
        let marker = with_inputs(&[head], &[], &digests, &mut buffer);
        // Clients that hand a definition back look for metadata of its last operation too.
        all_metadata.push((Digest::of(&marker), pb::OpMetadata::default()));
        definition.metadata = sorted(all_metadata)
            .map(|(digest, metadata)| (digest.text(), metadata))
            .collect();
        definition.def.push(marker);
        definition.source = source.filter(|_| !locations.is_empty()).map(|info| pb::Source {
            locations: by_digest(locations),
            infos: vec![pb::SourceInfo::clone(info)],
        });
        definition
    }

    fn needed(&self, head: Output) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = vec![head.operation];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut needed[at], true) {
                continue;
            }
            match &self.nodes[at] {
                Node::Encoded { inputs, .. } => open.extend(inputs.iter().map(|input| input.operation)),
                Node::Open(operation) => open.extend(operation.inputs.iter().map(|input| input.operation)),
                Node::Foreign { inputs, .. } => open.extend(inputs),
            }
        }
        needed
    }
}

/// Writes the fields of [`pb::Op`] in the order of their numbers, as prost does; the first ones, which are the inputs,
/// are left out.
fn encode(kind: &pb::op::Op, platform: Option<pb::Platform>, buffer: &mut Vec<u8>) {
    let rest = pb::Op {
        platform,
        // Other producers always write it, so it is part of the bytes.
        constraints: Some(pb::WorkerConstraints::default()),
        ..pb::Op::default()
    };
    kind.encode(buffer);
    rest.encode(buffer).expect(GROWING);
}

/// The bytes of an operation: its inputs, and what [`encode`] wrote.
fn with_inputs(inputs: &[Output], rest: &[u8], digests: &[Digest], buffer: &mut BytesMut) -> Bytes {
    let inputs = pb::Op {
        inputs: inputs
            .iter()
            .map(|output| pb::Input {
                digest: digests[output.operation].text(),
                index: output.index,
            })
            .collect(),
        ..pb::Op::default()
    };
    let length = inputs.encoded_len() + rest.len();
    if buffer.capacity() < length {
        *buffer = BytesMut::with_capacity(length.max(ROOM));
    }
    inputs.encode(buffer).expect(GROWING);
    buffer.extend_from_slice(rest);
    buffer.split().freeze()
}

/// What operations are called, without the allocation that its text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Digest([u8; 32]);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    fn text(self) -> String {
        super::digest_text(&self.0)
    }
}

fn metadata(note: &Note) -> pb::OpMetadata {
    let mut description = BTreeMap::new();
    if !note.name.is_empty() {
        description.insert("llb.customname".to_owned(), note.name.clone());
    }
    if let Some(command) = &note.command {
        description.insert("com.docker.dockerfile.v1.command".to_owned(), command.clone());
    }
    pb::OpMetadata {
        ignore_cache: note.ignore_cache,
        progress_group: note.group.clone(),
        linux_resources: note.limits.as_deref().cloned(),
        description,
        ..pb::OpMetadata::default()
    }
}

fn location((first, last): (u32, u32)) -> pb::Location {
    // One range per line, as other producers write it.
    let position = |line: u32| {
        Some(pb::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        })
    };
    let ranges = (first..=last)
        .map(|line| pb::Range {
            start: position(line),
            end: position(line),
        })
        .collect();
    pb::Location {
        source_index: 0,
        ranges,
    }
}

/// By digest; of equal ones in the order that they had. A map sorts what it is made of, which moves it about.
fn sorted<T: Default>(mut entries: Vec<(Digest, T)>) -> impl Iterator<Item = (Digest, T)> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|at| entries[*at].0);
    order.into_iter().map(move |at| std::mem::take(&mut entries[at]))
}

fn by_digest(locations: Vec<(Digest, pb::Location)>) -> BTreeMap<String, pb::Locations> {
    let mut grouped: Vec<(Digest, pb::Locations)> = Vec::with_capacity(locations.len());
    for (digest, location) in sorted(locations) {
        match grouped.last_mut() {
            Some((last, known)) if *last == digest => known.locations.push(location),
            _ => {
                let locations = vec![location];
                grouped.push((digest, pb::Locations { locations }));
            }
        }
    }
    let grouped = grouped.into_iter();
    grouped
        .map(|(digest, locations)| (digest.text(), locations))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Operation {
        Operation {
            kind: pb::op::Op::Source(pb::SourceOp {
                identifier: name.to_owned(),
                ..pb::SourceOp::default()
            }),
            inputs: Vec::new(),
            platform: None,
            note: Note {
                name: name.to_owned(),
                lines: Some((2, 3)),
                ..Note::default()
            },
        }
    }

    fn merge(inputs: Vec<Output>) -> Operation {
        Operation {
            kind: pb::op::Op::Merge(pb::MergeOp::default()),
            inputs,
            ..source("merge")
        }
    }

    #[test]
    fn only_what_the_head_needs_is_written_and_equal_operations_once() {
        let mut builder = Builder::default();
        let first = builder.add(source("a"));
        builder.add(source("unused"));
        let second = builder.add(source("a"));
        let head = builder.add(merge(vec![first, second]));
        let info = Arc::new(pb::SourceInfo {
            filename: "Dockerfile".to_owned(),
            ..pb::SourceInfo::default()
        });
        let definition = builder.definition(Some(head), Some(&info));
        assert_eq!(definition.def.len(), 3);
        let merged = pb::Op::decode(&definition.def[1][..]).unwrap();
        assert_eq!(merged.inputs[0], merged.inputs[1]);
        assert_eq!(merged.inputs[0].digest, digest_of(&definition.def[0]));
        let marker = pb::Op::decode(&definition.def[2][..]).unwrap();
        assert_eq!(
            (marker.inputs[0].digest.clone(), marker.op),
            (digest_of(&definition.def[1]), None)
        );
        let locations = &definition.source.unwrap().locations[&merged.inputs[0].digest];
        assert_eq!(locations.locations[0].ranges.len(), 2);
    }

    #[test]
    fn an_operation_can_be_completed_late() {
        let mut builder = Builder::default();
        let late = builder.add_open(source("a"));
        let head = builder.add(merge(vec![late]));
        let before = builder.definition(Some(head), None);
        builder.complete(late, &source("b"));
        let after = builder.definition(Some(head), None);
        assert_ne!(before.def, after.def);

        let mut builder = Builder::default();
        let known = builder.add(source("b"));
        let head = builder.add(merge(vec![known]));
        assert_eq!(after.def, builder.definition(Some(head), None).def);
    }

    #[test]
    fn a_definition_from_outside_keeps_its_bytes() {
        let mut outside = Builder::default();
        let first = outside.add(source("a"));
        let head = outside.add(merge(vec![first]));
        let definition = outside.definition(Some(head), None);
        let mut builder = Builder::default();
        let imported = builder.import(&definition).unwrap();
        assert_eq!(builder.import(&pb::Definition::default()), None);
        let again = builder.definition(Some(imported), None);
        assert_eq!((again.def, again.metadata), (definition.def, definition.metadata));
    }
}
