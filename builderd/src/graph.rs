//! The typed graph of operations (LLB): what frontends produce and the solver walks.
//!
//! Vertices are kept in topological order (inputs before users) and are unique by digest, so several definitions —
//! the platforms of one build, the results of a frontend — loaded into one graph share what they have in common.
//! The digest of a vertex is the SHA-256 of the operation's bytes as they were received; they are never re-encoded.

pub mod builder;
pub mod capabilities;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use prost::Message;
use proto::pb;
use sha2::{Digest as _, Sha256};

/// More vertices than any real build has; a larger definition is refused before memory is spent on it.
const MAX_VERTICES: usize = 100_000;

/// Bytes of an input's name, or of all their names, in the name of an operation that its producer did not name.
const MAX_INPUT_NAME: usize = 1024;

/// One output of one vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    pub vertex: usize,
    pub output: usize,
}

#[derive(Debug)]
pub struct Vertex {
    /// `sha256:…` of the operation's bytes.
    pub digest: String,
    pub op: pb::Op,
    pub inputs: Vec<Edge>,
    pub metadata: pb::OpMetadata,
    /// What progress displays show.
    pub name: String,
    /// Where in the source text the vertex comes from; used for the excerpt under an error.
    pub source: Vec<SourceRange>,
}

/// Lines of a source file that a vertex was made from.
#[derive(Clone, Debug)]
pub struct SourceRange {
    pub info: Arc<pb::SourceInfo>,
    pub ranges: Vec<pb::Range>,
}

#[derive(Debug, Default)]
pub struct Graph {
    vertices: Vec<Arc<Vertex>>,
    by_digest: HashMap<String, usize>,
}

/// Why a definition was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("invalid definition: {0} operations, the limit is {MAX_VERTICES}")]
    TooLarge(usize),
    #[error("invalid definition: operation {index} cannot be decoded")]
    Decode {
        index: usize,
        #[source]
        source: prost::DecodeError,
    },
    #[error("invalid definition: {digest} uses {input}, which does not come before it")]
    MissingInput { digest: String, input: String },
    #[error("invalid definition: {digest} uses output {index} of an input, which cannot exist")]
    BadIndex { digest: String, index: i64 },
    #[error("invalid definition: the last operation must have exactly one input and no kind")]
    NoTerminal,
    #[error("invalid definition: operation {digest} has no kind")]
    NoKind { digest: String },
    #[error("the definition needs {0}, which is not supported")]
    Capability(String),
    #[error("invalid definition: {digest}: {reason}")]
    Invalid { digest: String, reason: &'static str },
}

impl Graph {
    pub fn vertex(&self, index: usize) -> &Arc<Vertex> {
        &self.vertices[index]
    }

    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// The platform of every vertex that runs a process.
    pub fn step_platforms(&self) -> impl Iterator<Item = Option<&pb::Platform>> {
        let is_step = |vertex: &&Arc<Vertex>| matches!(vertex.op.op, Some(pb::op::Op::Exec(_)));
        self.vertices
            .iter()
            .filter(is_step)
            .map(|vertex| vertex.op.platform.as_ref())
    }

    /// Adds a definition; what the graph already has is shared. Returns the definition's output, `None` for an empty
    /// definition (scratch). A refused definition may leave vertices behind that nothing refers to.
    pub fn load(&mut self, definition: &pb::Definition) -> Result<Option<Edge>, LoadError> {
        let Some((terminal, operations)) = definition.def.split_last() else {
            return Ok(None);
        };
        if operations.len() > MAX_VERTICES {
            return Err(LoadError::TooLarge(operations.len()));
        }
        capabilities::check(definition)?;
        let infos: Vec<Arc<pb::SourceInfo>> = definition
            .source
            .iter()
            .flat_map(|s| &s.infos)
            .map(|info| Arc::new(info.clone()))
            .collect();
        for (index, bytes) in operations.iter().enumerate() {
            let digest = digest_of(bytes);
            if !self.by_digest.contains_key(&digest) {
                let op = pb::Op::decode(&bytes[..]).map_err(|source| LoadError::Decode { index, source })?;
                let vertex = self.vertex_from(digest.clone(), op, definition, &infos)?;
                self.by_digest.insert(digest, self.vertices.len());
                self.vertices.push(Arc::new(vertex));
            }
        }
        let terminal = pb::Op::decode(&terminal[..]).map_err(|source| LoadError::Decode {
            index: operations.len(),
            source,
        })?;
        match (&terminal.op, &terminal.inputs[..]) {
            (None, [input]) => self.edge("the last operation", input).map(Some),
            _ => Err(LoadError::NoTerminal),
        }
    }

    fn edge(&self, user: &str, input: &pb::Input) -> Result<Edge, LoadError> {
        let vertex = *self
            .by_digest
            .get(&input.digest)
            .ok_or_else(|| LoadError::MissingInput {
                digest: user.to_owned(),
                input: input.digest.clone(),
            })?;
        let output = usize::try_from(input.index)
            .ok()
            .filter(|output| *output < outputs(&self.vertices[vertex].op))
            .ok_or_else(|| LoadError::BadIndex {
                digest: user.to_owned(),
                index: input.index,
            })?;
        Ok(Edge { vertex, output })
    }

    fn vertex_from(
        &self,
        digest: String,
        op: pb::Op,
        definition: &pb::Definition,
        infos: &[Arc<pb::SourceInfo>],
    ) -> Result<Vertex, LoadError> {
        let inputs = op
            .inputs
            .iter()
            .map(|input| self.edge(&digest, input))
            .collect::<Result<Vec<_>, _>>()?;
        validate(&digest, &op)?;
        let metadata = definition.metadata.get(&digest).cloned().unwrap_or_default();
        let name = metadata
            .description
            .get("llb.customname")
            .cloned()
            .unwrap_or_else(|| self.default_name(&op, &inputs));
        let source = definition
            .source
            .iter()
            .filter_map(|source| source.locations.get(&digest))
            .flat_map(|locations| &locations.locations)
            .filter_map(|location| {
                let info = infos.get(usize::try_from(location.source_index).ok()?)?;
                Some(SourceRange {
                    info: Arc::clone(info),
                    ranges: location.ranges.clone(),
                })
            })
            .collect();
        Ok(Vertex {
            digest,
            op,
            inputs,
            metadata,
            name,
            source,
        })
    }

    /// The name of a vertex that its producer did not name (`buildkit-api.md`: default vertex names).
    fn default_name(&self, op: &pb::Op, inputs: &[Edge]) -> String {
        let input_name = |edge: &Edge| shortened(&self.vertices[edge.vertex].name);
        match &op.op {
            Some(pb::op::Op::Source(source)) => source.identifier.clone(),
            Some(pb::op::Op::Exec(exec)) => exec
                .meta
                .as_ref()
                .map(|meta| meta.args.join(" "))
                .unwrap_or_default(),
            Some(pb::op::Op::File(file)) => file
                .actions
                .iter()
                .map(action_name)
                .collect::<Vec<_>>()
                .join(", "),
            Some(pb::op::Op::Build(_)) => "build".to_owned(),
            Some(pb::op::Op::Merge(_)) => {
                let mut names = String::new();
                for edge in inputs {
                    if !names.is_empty() {
                        names.push_str(", ");
                    }
                    names.push_str(&input_name(edge));
                    if names.len() > MAX_INPUT_NAME {
                        break;
                    }
                }
                format!("merge ({})", shortened(&names))
            }
            Some(pb::op::Op::Diff(diff)) => {
                let side = |input: Option<i64>| {
                    input
                        .and_then(|i| usize::try_from(i).ok())
                        .and_then(|i| inputs.get(i))
                        .map_or_else(|| "scratch".into(), input_name)
                };
                let (lower, upper) = (
                    diff.lower.as_ref().map(|l| l.input),
                    diff.upper.as_ref().map(|u| u.input),
                );
                format!("diff ({}) -> ({})", side(lower), side(upper))
            }
            Some(pb::op::Op::Passthrough(passthrough)) => format!("passthrough {}", passthrough.id),
            None => String::new(),
        }
    }
}

/// The names of inputs as part of a name: cut, as names that hold the names below them could grow without end.
fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_INPUT_NAME {
        return Cow::Borrowed(name);
    }
    let cut = name.floor_char_boundary(MAX_INPUT_NAME);
    Cow::Owned(format!("{}…", &name[..cut]))
}

/// `sha256:…` of an operation's bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes).into())
}

/// A digest as images and definitions name it.
fn digest_text(digest: &[u8; 32]) -> String {
    let mut text = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
    hex::encode_to_slice(digest, &mut text[7..]).expect("there are two digits for each byte");
    str::from_utf8(&text).expect("digits are text").to_owned()
}

/// How many outputs an operation has.
pub fn outputs(op: &pb::Op) -> usize {
    match &op.op {
        Some(pb::op::Op::Exec(exec)) => exec.mounts.iter().filter(|mount| is_output(mount)).count(),
        Some(pb::op::Op::File(file)) => file.actions.iter().filter(|action| action.output >= 0).count(),
        Some(pb::op::Op::Passthrough(passthrough)) => passthrough.outputs.len(),
        _ => 1,
    }
}

/// Clients leave the number of other mounts at 0, as if they were the first output.
fn is_output(mount: &pb::Mount) -> bool {
    mount.mount_type() == pb::MountType::Bind && mount.output >= 0
}

fn validate(digest: &str, op: &pb::Op) -> Result<(), LoadError> {
    let invalid = |reason| {
        Err(LoadError::Invalid {
            digest: digest.to_owned(),
            reason,
        })
    };
    match &op.op {
        None => Err(LoadError::NoKind {
            digest: digest.to_owned(),
        }),
        Some(pb::op::Op::Exec(exec)) => {
            if exec.meta.as_ref().is_none_or(|meta| meta.args.is_empty()) {
                return invalid("an exec operation needs arguments");
            }
            if !exec.mounts.iter().any(|mount| mount.dest == "/") {
                return invalid("an exec operation needs a mount at /");
            }
            if !exec
                .mounts
                .iter()
                .all(|mount| valid_input(mount.input, op.inputs.len()))
            {
                return invalid("a mount names an input that does not exist");
            }
            let mut numbers = BTreeSet::new();
            if !exec
                .mounts
                .iter()
                .filter(|mount| is_output(mount))
                .all(|mount| numbers.insert(mount.output))
            {
                return invalid("two mounts are the same output");
            }
            let is_incomplete = |mount: &pb::Mount| match mount.mount_type() {
                pb::MountType::Secret => mount.secret_opt.is_none(),
                pb::MountType::Ssh => mount.ssh_opt.is_none(),
                _ => false,
            };
            match exec.mounts.iter().any(is_incomplete) {
                true => invalid("a secret or ssh mount does not say which"),
                false => Ok(()),
            }
        }
        Some(pb::op::Op::File(file)) if file.actions.is_empty() => {
            invalid("a file operation needs an action")
        }
        Some(pb::op::Op::File(file)) => {
            // An action may use the op's inputs and the results of earlier actions.
            let valid = file.actions.iter().enumerate().all(|(number, action)| {
                let known = op.inputs.len() + number;
                valid_input(action.input, known) && valid_input(action.secondary_input, known)
            });
            if valid {
                Ok(())
            } else {
                invalid("a file action names an input that does not exist")
            }
        }
        Some(pb::op::Op::Diff(diff)) if diff.lower.is_none() || diff.upper.is_none() => {
            invalid("a diff operation needs lower and upper")
        }
        Some(_) => Ok(()),
    }
}

/// −1 stands for scratch.
fn valid_input(input: i64, count: usize) -> bool {
    input == -1 || usize::try_from(input).is_ok_and(|input| input < count)
}

fn action_name(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(file)) => format!("mkfile {}", file.path),
        Some(Action::Mkdir(folder)) => format!("mkdir {}", folder.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(link)) => format!("symlink {} -> {}", link.newpath, link.oldpath),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
