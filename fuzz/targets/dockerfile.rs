//! Any text as a Dockerfile: parsed, expanded, linted and lowered for two platforms. It ends in graphs that load, or
//! in an error that names lines of the text.
#![no_main]

use std::collections::BTreeMap;

use binfmt::Platform;
use builderd::frontend::{self, Host, HostError, Request, Resolution, ResolvedImage, WantedImage};
use builderd::graph::Graph;
use bytes::Bytes;
use dockerfile::lint::Finding;
use libfuzzer_sys::fuzz_target;
use proto::pb;
use registry::Digest;

/// A client whose only file is the Dockerfile, and a registry that has every image.
struct OneFile(Bytes);

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b"],"Cmd":["sh"],
"OnBuild":["RUN echo $A"]},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

impl Host for OneFile {
    async fn read_files(
        &self,
        _: pb::Definition,
        paths: Vec<String>,
    ) -> Result<BTreeMap<String, Bytes>, HostError> {
        let wanted = paths.into_iter().filter(|path| path == "Dockerfile");
        Ok(wanted.map(|path| (path, self.0.clone())).collect())
    }

    async fn read_start(&self, _: pb::Definition, _: String, _: u64) -> Result<Bytes, HostError> {
        Err("there is no such file".into())
    }

    async fn source_time(&self, _: pb::SourceOp, _: String) -> Result<Option<i64>, HostError> {
        Ok(Some(1))
    }

    fn warn(&self, _: &Finding, _: &pb::SourceInfo) {}

    async fn resolve_image(&self, wanted: WantedImage) -> Result<Resolution, HostError> {
        Ok(Resolution::Image(ResolvedImage {
            digest: Digest::of(wanted.reference.to_string().as_bytes()),
            reference: wanted.reference,
            config: Bytes::from_static(CONFIG.as_bytes()),
        }))
    }
}

fuzz_target!(|text: &str| {
    let host = OneFile(Bytes::copy_from_slice(text.as_bytes()));
    let request = Request {
        attributes: BTreeMap::from([("platform".to_owned(), "linux/amd64,linux/arm64".to_owned())]),
        inputs: BTreeMap::new(),
        session: "session".to_owned(),
        build_platform: Platform::linux("amd64"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    if let Ok(build) = runtime.block_on(frontend::build(&host, &request)) {
        let mut graph = Graph::default();
        for target in &build.targets {
            graph
                .load(&target.definition)
                .expect("what the frontend makes can be loaded");
        }
    }
});
