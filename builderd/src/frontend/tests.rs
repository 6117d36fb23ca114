//! The frontend against a host that knows a few images, its graphs as text.

mod contexts;
mod graphs;
mod refusals;
mod render;
mod requests;

use std::sync::Mutex;

use super::*;
use render::render;

/// Files of the client, and images of a registry.
struct TestHost {
    files: BTreeMap<String, Bytes>,
    images: BTreeMap<&'static str, serde_json::Value>,
    /// What policies put in the place of images.
    moved: BTreeMap<&'static str, &'static str>,
    /// Names of the vertices that were asked for.
    asked: Mutex<Vec<String>>,
    /// What the rules found.
    warnings: Mutex<Vec<Finding>>,
}

fn base_config() -> serde_json::Value {
    serde_json::json!({
        "architecture": "", "os": "linux",
        "config": { "Env": ["PATH=/bin", "LANG=C"], "Cmd": ["sh"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", "a".repeat(64))] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "base" }],
    })
}

impl TestHost {
    fn new(dockerfile: &str) -> Self {
        let mut trigger = base_config();
        trigger["config"]["OnBuild"] = serde_json::json!(["COPY --from=busybox /a /b", "RUN trigger"]);
        trigger["config"]["User"] = "app".into();
        Self {
            files: BTreeMap::from([(
                "Dockerfile".to_owned(),
                Bytes::copy_from_slice(dockerfile.as_bytes()),
            )]),
            images: BTreeMap::from([
                ("docker.io/library/busybox:latest", base_config()),
                ("docker.io/library/golang:1.22", base_config()),
                ("localhost:5000/trigger:latest", trigger),
            ]),
            moved: BTreeMap::new(),
            asked: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.files
            .insert(name.to_owned(), Bytes::copy_from_slice(text.as_bytes()));
        self
    }

    /// The findings that the client was told about.
    fn warned(&self) -> Vec<String> {
        let warnings = self.warnings.lock().unwrap();
        warnings.iter().map(Finding::summary).collect()
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }
}

impl Host for TestHost {
    async fn read_files(
        &self,
        definition: pb::Definition,
        paths: Vec<String>,
    ) -> Result<BTreeMap<String, Bytes>, HostError> {
        let names = definition
            .metadata
            .values()
            .filter_map(|metadata| metadata.description.get("llb.customname"));
        self.asked.lock().unwrap().extend(names.cloned());
        Ok(paths
            .into_iter()
            .filter_map(|path| Some((path.clone(), self.files.get(&path)?.clone())))
            .collect())
    }

    async fn read_start(
        &self,
        definition: pb::Definition,
        path: String,
        length: u64,
    ) -> Result<Bytes, HostError> {
        let files = self.read_files(definition, vec![path.clone()]).await?;
        let data = files.get(&path).ok_or("not there")?;
        Ok(data.slice(..data.len().min(length as usize)))
    }

    async fn resolve_image(&self, wanted: WantedImage) -> Result<Resolution, HostError> {
        self.asked.lock().unwrap().push(wanted.name.clone());
        if let Some(identifier) = self.moved.get(wanted.reference.to_string().as_str()) {
            return Ok(Resolution::Elsewhere(Box::new(pb::SourceOp {
                identifier: (*identifier).to_owned(),
                attrs: BTreeMap::from([("http.checksum".to_owned(), "sha256:1".to_owned())]),
            })));
        }
        let mut config = self
            .images
            .get(wanted.reference.to_string().as_str())
            .cloned()
            .ok_or_else(|| format!("{}: not found", wanted.reference))?;
        config["architecture"] = wanted.platform.architecture().into();
        let digest = Digest::of(wanted.reference.to_string().as_bytes());
        Ok(Resolution::Image(ResolvedImage {
            reference: wanted.reference,
            digest,
            config: config.to_string().into(),
        }))
    }

    async fn source_time(&self, _: pb::SourceOp, _: String) -> Result<Option<i64>, HostError> {
        Ok(Some(1_700_000_402))
    }

    fn warn(&self, finding: &Finding, _: &pb::SourceInfo) {
        self.warnings.lock().unwrap().push(finding.clone());
    }
}

fn request(attributes: &[(&str, &str)]) -> Request {
    Request {
        attributes: attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        inputs: BTreeMap::new(),
        session: "s1".to_owned(),
        build_platform: Platform::linux("amd64"),
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn build_with(dockerfile: &str, attributes: &[(&str, &str)]) -> Build {
    run(build(&TestHost::new(dockerfile), &request(attributes))).unwrap()
}

fn graph(dockerfile: &str, attributes: &[(&str, &str)]) -> String {
    render(&build_with(dockerfile, attributes).targets[0].definition)
}

fn config(dockerfile: &str, attributes: &[(&str, &str)]) -> registry::ImageConfig {
    registry::ImageConfig::parse(&build_with(dockerfile, attributes).targets[0].config).unwrap()
}

fn history(dockerfile: &str, attributes: &[(&str, &str)]) -> Vec<String> {
    config(dockerfile, attributes)
        .history
        .into_iter()
        .map(|history| history.created_by)
        .collect()
}
