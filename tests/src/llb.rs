//! Definitions (LLB), made operation by operation as clients make them.

use std::collections::BTreeMap;

use prost::Message as _;
use proto::gateway::{self, result};
use proto::pb;

use crate::distribution::digest_of;

/// Operations in the order in which they were added.
#[derive(Debug, Default)]
pub struct Llb {
    operations: Vec<Vec<u8>>,
    metadata: BTreeMap<String, pb::OpMetadata>,
}

impl Llb {
    pub fn add(&mut self, kind: pb::op::Op, inputs: Vec<pb::Input>) -> pb::Input {
        let bytes = pb::Op {
            inputs,
            op: Some(kind),
            ..pb::Op::default()
        }
        .encode_to_vec();
        let digest = digest_of(&bytes);
        self.operations.push(bytes);
        pb::Input { digest, index: 0 }
    }

    pub fn needs(&mut self, operation: &pb::Input, capability: &str) {
        let metadata = self.metadata.entry(operation.digest.clone()).or_default();
        metadata.caps.insert(capability.to_owned(), true);
    }

    pub fn with_result(mut self, head: pb::Input) -> pb::Definition {
        let last = pb::Op {
            inputs: vec![head],
            ..pb::Op::default()
        };
        self.operations.push(last.encode_to_vec());
        pb::Definition {
            def: self.operations.into_iter().map(Into::into).collect(),
            metadata: self.metadata,
            ..pb::Definition::default()
        }
    }

    pub fn file(&mut self, path: &str) -> pb::Input {
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
                path: path.to_owned(),
                mode: 0o644,
                timestamp: -1,
                ..pb::FileActionMkFile::default()
            })),
        };
        let op = pb::FileOp {
            actions: vec![action],
        };
        self.add(pb::op::Op::File(op), Vec::new())
    }

    pub fn merge(&mut self, lower: pb::Input, upper: pb::Input) -> pb::Input {
        let op = pb::MergeOp {
            inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
        };
        self.add(pb::op::Op::Merge(op), vec![lower, upper])
    }

    pub fn image(&mut self, reference: &str) -> pb::Input {
        let op = pb::SourceOp {
            identifier: format!("docker-image://{reference}"),
            ..pb::SourceOp::default()
        };
        self.add(pb::op::Op::Source(op), Vec::new())
    }

    pub fn download(&mut self, url: &str, name: &str) -> pb::Input {
        let op = pb::SourceOp {
            identifier: url.to_owned(),
            attrs: [("http.filename".to_owned(), name.to_owned())].into(),
        };
        self.add(pb::op::Op::Source(op), Vec::new())
    }

    /// What the definition at a URL comes to.
    pub fn build_from(&mut self, url: &str) -> pb::Input {
        let file = self.download(url, "llb");
        self.build(file, "llb")
    }

    /// A script on a root file system.
    pub fn run(&mut self, root: pb::Input, script: &str) -> pb::Input {
        let op = pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..pb::Meta::default()
            }),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        self.add(pb::op::Op::Exec(op), vec![root])
    }

    /// What the definition in a file of `input` comes to.
    pub fn build(&mut self, input: pb::Input, file: &str) -> pb::Input {
        let op = pb::BuildOp {
            builder: -1,
            inputs: [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into(),
            attrs: [("llbbuild.filename".to_owned(), file.to_owned())].into(),
            ..pb::BuildOp::default()
        };
        let built = self.add(pb::op::Op::Build(op), vec![input]);
        // As BuildKit's client library says of each.
        self.needs(&built, "source.buildop.llbfilename");
        built
    }
}

/// What a frontend asks for to get a definition's result.
pub fn request(definition: pb::Definition) -> gateway::SolveRequest {
    gateway::SolveRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..gateway::SolveRequest::default()
    }
}

/// The one result that a definition has.
pub fn result_of(answer: gateway::SolveResponse) -> gateway::Ref {
    match answer.result.and_then(|result| result.result) {
        Some(result::Result::Ref(reference)) => reference,
        other => panic!("one definition has one result, not {other:?}"),
    }
}
