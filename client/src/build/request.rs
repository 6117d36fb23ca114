//! From flags to the request that the daemon gets. Pure, apart from looking at the files that flags name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use binfmt::Platform;
use proto::control::{self, SolveRequest};
use registry::Reference;
use registry::docker_config::DockerConfig;
use sha2::Digest as _;

use super::caches::Caches;
use super::call::{self, Call};
use super::context::{self, Inputs};
use super::outputs::{self, Destination, Output, Shorthands};
use super::parts::Part;
use super::session::Offer;
use super::values::{self, AgentSource, SecretSource};
use crate::layout::Layout;
use crate::platforms;
use crate::settings::Settings;
use crate::size;
use bake::csv;

/// What the user asked for, as it was typed.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub context: String,
    pub file: Option<String>,
    pub tags: Vec<String>,
    pub platforms: Vec<String>,
    pub build_args: Vec<String>,
    pub build_contexts: Vec<String>,
    pub labels: Vec<String>,
    pub annotations: Vec<String>,
    pub target: Option<String>,
    pub outputs: Vec<String>,
    pub push: bool,
    pub load: bool,
    pub no_cache: bool,
    pub no_cache_filter: Vec<String>,
    pub pull: bool,
    pub network: Option<String>,
    pub add_hosts: Vec<String>,
    pub ulimits: Vec<String>,
    pub shm_size: Option<String>,
    pub cgroup_parent: Option<String>,
    pub allow: Vec<String>,
    pub secrets: Vec<String>,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    pub ssh: Vec<String>,
    /// `type=provenance,…` or `type=sbom,…`.
    pub attests: Vec<String>,
    /// The Dockerfile itself; nothing is read from the context then.
    pub dockerfile_inline: Option<String>,
    /// Only built because another target uses it: no output is missed.
    pub linked: bool,
    /// Nothing is built, the frontend is asked.
    pub call: Option<Call>,
}

/// A build that has been checked as far as is possible without a daemon.
#[derive(Debug)]
pub struct Plan {
    pub attributes: BTreeMap<String, String>,
    pub entitlements: Vec<String>,
    pub outputs: Vec<Output>,
    pub folders: BTreeMap<String, PathBuf>,
    pub secrets: BTreeMap<String, SecretSource>,
    pub agents: BTreeMap<String, AgentSource>,
    pub platforms: Vec<Platform>,
    pub caches: Caches,
    /// Keeps what the inputs need until the build is over.
    pub inputs: Inputs,
}

const FRONTEND: &str = "dockerfile.v0";
const EPOCH: &str = "SOURCE_DATE_EPOCH";

impl Plan {
    pub fn new(flags: &Flags, settings: &Settings) -> anyhow::Result<Self> {
        let mut build_args = values::build_args(&flags.build_args, settings);
        if let Some(epoch) = settings.get(EPOCH) {
            build_args
                .entry(EPOCH.to_owned())
                .or_insert_with(|| epoch.to_owned());
        }
        let platforms = platforms(flags, settings)?;
        let secrets = values::secrets(&flags.secrets, settings)?;
        let agents = values::agents(&flags.ssh, settings)?;
        let mut outputs = outputs::parse(
            &flags.outputs,
            Shorthands {
                push: flags.push,
                load: flags.load,
            },
        )?;
        name_images(&mut outputs, &flags.tags)?;
        annotate(&mut outputs, &flags.annotations)?;
        if flags.call.is_some() {
            outputs.clear();
        }
        if let Some(epoch) = build_args.get(EPOCH) {
            for output in &mut outputs {
                output
                    .attributes
                    .entry("source-date-epoch".to_owned())
                    .or_insert_with(|| epoch.clone());
            }
        }
        // Of an engine it depends on its store, see `engine`.
        let to_file = |output: &Output| output.kind == "docker" && output.destination != Destination::Engine;
        ensure!(
            platforms.len() < 2 || !outputs.iter().any(to_file),
            "docker exporter does not support exporting manifest lists: choose one platform, or use type=oci"
        );

        let mut inputs = context::resolve(&context::Request {
            context: &flags.context,
            file: flags.file.as_deref(),
            inline: flags.dockerfile_inline.as_deref(),
            named: &flags.build_contexts,
        })?;
        let mut attributes = std::mem::take(&mut inputs.attributes);
        let mut set = |name: &str, value: String| {
            attributes.insert(name.to_owned(), value);
        };
        for (name, value) in &build_args {
            set(&format!("build-arg:{name}"), value.clone());
        }
        for (name, value) in values::labels(&flags.labels) {
            set(&format!("label:{name}"), value);
        }
        if !platforms.is_empty() {
            set(
                "platform",
                platforms
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(","),
            );
        }
        if let Some(target) = &flags.target {
            set("target", target.clone());
        }
        if let Some(call) = &flags.call {
            set(call::REQUEST, call.request());
        }
        if flags.no_cache {
            set("no-cache", String::new());
        } else if !flags.no_cache_filter.is_empty() {
            set("no-cache", flags.no_cache_filter.join(","));
        }
        if flags.pull {
            set("image-resolve-mode", "pull".to_owned());
        }
        if !flags.add_hosts.is_empty() {
            set("add-hosts", values::hosts(&flags.add_hosts)?);
        }
        if !flags.ulimits.is_empty() {
            set("ulimit", values::ulimits(&flags.ulimits)?);
        }
        if let Some(text) = &flags.shm_size {
            let bytes = size::parse(text).with_context(|| format!("invalid size: '{text}'"))?;
            set("shm-size", bytes.to_string());
        }
        if let Some(parent) = &flags.cgroup_parent {
            set("cgroup-parent", parent.clone());
        }
        let mut entitlements = entitlements(&flags.allow)?;
        match flags.network.as_deref() {
            None | Some("" | "default") => {}
            Some("host") => {
                set("force-network-mode", "host".to_owned());
                entitlements.push("network.host".to_owned());
            }
            Some("none") => set("force-network-mode", "none".to_owned()),
            Some(other) => bail!("network mode \"{other}\" not supported, use default, none or host"),
        }
        if flags.call.is_none() {
            attributes.extend(attests(flags, settings)?);
        }
        if flags.call.is_some() {
            let needed = attributes.entry("frontend.caps".to_owned()).or_default();
            if !needed.is_empty() {
                needed.push(',');
            }
            needed.push_str(call::CAPABILITY);
        }
        let folders = std::mem::take(&mut inputs.folders);
        // Asking for nothing but the cache is asking for no export.
        outputs.retain(|output| output.kind != "cacheonly");
        Ok(Self {
            attributes,
            entitlements,
            outputs,
            folders,
            secrets,
            agents,
            platforms,
            caches: Caches::parse(&flags.cache_from, &flags.cache_to)?,
            inputs,
        })
    }

    /// What the session offers to the daemon.
    pub fn offer(&self, part: &Part, settings: &Settings, credentials: DockerConfig) -> Offer {
        Offer {
            folders: self.folders.clone(),
            secrets: self.secrets.clone(),
            agents: self.agents.clone(),
            destinations: part
                .outputs
                .iter()
                .map(|output| output.destination.clone())
                .collect(),
            layouts: self.layouts(),
            credentials,
            shared_key: self.shared_key(settings),
            settings: settings.clone(),
        }
    }

    fn layouts(&self) -> BTreeMap<String, Layout> {
        let named = self.inputs.layouts.iter().chain(&self.caches.layouts);
        named
            .map(|(name, layout)| (name.clone(), layout.clone()))
            .collect()
    }

    /// Stable for one folder of one user on one machine: the daemon compares with what it was sent before.
    pub fn shared_key(&self, settings: &Settings) -> String {
        let Some(folder) = self.folders.get("context") else {
            return String::new();
        };
        let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let mut hash = sha2::Sha256::new();
        hash.update(folder.as_os_str().as_encoded_bytes());
        hash.update(settings.config_folder().as_os_str().as_encoded_bytes());
        hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
        format!("context:{}", &hex::encode(hash.finalize())[..32])
    }

    pub fn solve_request(&self, part: &Part, reference: &str, session: &str) -> SolveRequest {
        let exporters: Vec<control::Exporter> = part
            .outputs
            .iter()
            .map(|output| control::Exporter {
                r#type: output.kind.clone(),
                attrs: output.attributes.clone(),
            })
            .collect();
        let first = exporters.first().cloned().unwrap_or_default();
        SolveRequest {
            r#ref: reference.to_owned(),
            session: session.to_owned(),
            frontend: FRONTEND.to_owned(),
            frontend_attrs: part.attributes.clone(),
            entitlements: self.entitlements.clone(),
            // Daemons that know no list of exporters read the first one here.
            exporter_deprecated: first.r#type,
            exporter_attrs_deprecated: first.attrs,
            exporters,
            cache: Some(self.caches.options.clone()),
            ..SolveRequest::default()
        }
    }
}

/// What is to be attested, as attributes of the request: what was asked for, and short provenance unless it was
/// refused. That stands in images only, so that files and archives stay as they are.
fn attests(flags: &Flags, settings: &Settings) -> anyhow::Result<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    let mut refused = Vec::new();
    for attest in &flags.attests {
        let (mut kind, mut disabled, mut rest) = (None, false, Vec::new());
        for field in csv::fields(attest, ',')? {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value.to_owned()),
                Some(("disabled", value)) => disabled = matches!(value, "true" | "1" | "t"),
                _ => rest.push(field),
            }
        }
        let kind = kind.context("attestation type not specified: --attest type=provenance or type=sbom")?;
        ensure!(
            ["provenance", "sbom"].contains(&kind.as_str()),
            "unknown attestation type \"{kind}\": provenance and sbom are known"
        );
        let key = format!("attest:{kind}");
        if disabled {
            attributes.remove(&key);
            refused.push(kind);
        } else {
            attributes.insert(key, rest.join(","));
        }
    }
    let wanted =
        !settings.flag("BUILDX_NO_DEFAULT_ATTESTATIONS") && !refused.iter().any(|kind| kind == "provenance");
    if wanted {
        let provenance = attributes.entry("attest:provenance".to_owned());
        provenance.or_insert_with(|| "mode=min,inline-only=true".to_owned());
    }
    Ok(attributes)
}

fn platforms(flags: &Flags, settings: &Settings) -> anyhow::Result<Vec<Platform>> {
    let default = settings.get("DOCKER_DEFAULT_PLATFORM").map(str::to_owned);
    let values = if flags.platforms.is_empty() {
        default.into_iter().collect()
    } else {
        flags.platforms.clone()
    };
    Ok(platforms::parse(&values)?)
}

fn name_images(outputs: &mut [Output], tags: &[String]) -> anyhow::Result<()> {
    let names = tags
        .iter()
        .map(|tag| {
            let reference: Reference = tag.parse().with_context(|| format!("invalid tag \"{tag}\""))?;
            Ok(reference.or_latest().to_string())
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for output in outputs.iter_mut().filter(|output| output.holds_image()) {
        if !names.is_empty() {
            output.attributes.insert("name".to_owned(), names.join(","));
        } else if output.pushes() {
            ensure!(
                output.attributes.get("name").is_some_and(|name| !name.is_empty()),
                "tag is needed when pushing to registry"
            );
        }
    }
    Ok(())
}

/// `[TYPE[,TYPE]:]KEY=VALUE`, for every output that holds an image.
fn annotate(outputs: &mut [Output], annotations: &[String]) -> anyhow::Result<()> {
    const KINDS: [&str; 4] = ["index", "index-descriptor", "manifest", "manifest-descriptor"];
    for annotation in annotations {
        let wrong = || format!("invalid annotation \"{annotation}\", write [TYPE:]KEY=VALUE");
        let (head, value) = annotation.split_once('=').with_context(wrong)?;
        let (kinds, key) = match head.split_once(':') {
            Some((kinds, key))
                if kinds
                    .split(',')
                    .all(|kind| KINDS.contains(&kind.split('[').next().unwrap_or(kind))) =>
            {
                (kinds, key)
            }
            _ => ("manifest", head),
        };
        ensure!(!key.is_empty(), wrong());
        for kind in kinds.split(',') {
            let (kind, platform) = kind
                .split_once('[')
                .map_or((kind, ""), |(kind, rest)| (kind, rest));
            let platform = if platform.is_empty() {
                String::new()
            } else {
                format!("[{platform}")
            };
            for output in outputs.iter_mut().filter(|output| output.holds_image()) {
                output
                    .attributes
                    .insert(format!("annotation-{kind}{platform}.{key}"), value.to_owned());
            }
        }
    }
    Ok(())
}

fn entitlements(allow: &[String]) -> anyhow::Result<Vec<String>> {
    for name in allow {
        match name.split('=').next().unwrap_or_default() {
            "network.host" | "security.insecure" | "device" => {}
            other => bail!("invalid entitlement \"{other}\", use network.host, security.insecure or device"),
        }
    }
    Ok(allow.to_vec())
}

#[cfg(test)]
mod tests;
