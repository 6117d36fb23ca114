//! Walks the graphs of results and puts together what is noted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use proto::pb;
use registry::{Digest, Platform, Reference};
use serde_json::{Map, Value, json};

use super::request::{Told, redacted};
use super::{ImageMaterial, Material, Notes, Scope};
use crate::exporters::package_url;
use crate::graph::digest_of;
use crate::proxy::{Fetched, Missed};
use crate::sources::blob::BlobPlace;

/// One result that is told of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub definition: &'a pb::Definition,
    pub scope: &'a Scope,
    /// Its place among all results of the build.
    pub platform: Option<&'a Platform>,
    pub platforms: &'a [Platform],
}

/// Everything that was taken from outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    images: Vec<ImageMaterial>,
    blobs: Vec<(String, Digest, bool)>,
    git: BTreeMap<String, String>,
    /// With the repositories that they stand for.
    bundles: BTreeMap<String, BlobPlace>,
    http: BTreeMap<String, Digest>,
    pub local: BTreeSet<String>,
}

/// A request of a step whose answer is not known by a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfetched {
    pub operation: String,
    pub command: String,
    pub request: Missed,
}

impl Unfetched {
    pub(super) fn to_json(&self) -> Value {
        let fields = [
            ("op", &self.operation),
            ("name", &self.command),
            ("method", &self.request.method),
            ("uri", &self.request.url),
            ("reason", &self.request.reason),
        ];
        let told = fields.into_iter().filter(|(_, value)| !value.is_empty());
        told.map(|(key, value)| (key.to_owned(), value.clone().into()))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// What a result was made from and cannot be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Folders of the client.
    pub folders: Vec<String>,
    pub requests: Vec<Unfetched>,
}

/// What is known about one result.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    pub sources: Sources,
    /// Secrets and SSH agents by name, and whether the step could do without.
    pub secrets: BTreeMap<String, bool>,
    pub ssh: BTreeMap<String, bool>,
    pub network: bool,
    /// The network of steps was the proxy.
    pub proxied: bool,
    pub unfetched: BTreeSet<Unfetched>,
    pub asked: Told,
    pub root: Option<Told>,
}

impl Capture {
    pub fn of(subject: Subject<'_>, results: &BTreeSet<Arc<str>>, notes: &Notes) -> Self {
        let mut capture = Self {
            sources: Sources::default(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            network: false,
            proxied: false,
            unfetched: BTreeSet::new(),
            asked: super::Asked::default().told(&Sources::default()),
            root: None,
        };
        capture.walk(subject.definition, notes);
        let own = capture.sources.clone();
        for other in subject.scope.others(results) {
            capture.walk(&other, notes);
        }
        let images = for_platform(subject.scope.images(), subject);
        capture.sources.images.extend(images);
        capture.sources.settle_images();
        if let Some(asked) = &subject.scope.asked {
            capture.asked = asked.told(&capture.sources);
            let root = subject.scope.root.as_ref().map(|root| root.told(&own));
            let differs = |root: &Told| !root.is_empty() && root.to_json() != asked.told(&own).to_json();
            capture.root = root.filter(differs);
        }
        capture
    }

    pub fn is_complete(&self) -> bool {
        self.sources.local.is_empty() && self.unfetched.is_empty()
    }

    /// What cannot be named.
    pub fn into_gaps(self) -> Gaps {
        Gaps {
            folders: self.sources.local.into_iter().collect(),
            requests: self.unfetched.into_iter().collect(),
        }
    }

    fn walk(&mut self, definition: &pb::Definition, notes: &Notes) {
        for bytes in &definition.def {
            let Ok(operation) = pb::Op::decode(&bytes[..]) else {
                continue;
            };
            match &operation.op {
                Some(pb::op::Op::Source(_)) => {
                    if let Some(material) = notes.material_of(&digest_of(bytes)) {
                        self.sources.add(material);
                    }
                }
                Some(pb::op::Op::Exec(exec)) => {
                    self.step(exec);
                    if notes.proxies(exec) {
                        self.requests(exec, &digest_of(bytes), notes);
                    }
                }
                _ => {}
            }
        }
    }

    /// What a step got through the proxy.
    fn requests(&mut self, exec: &pb::ExecOp, operation: &str, notes: &Notes) {
        self.proxied = true;
        let fetched = notes.fetched_by(operation);
        // A result from another daemon's cache: whoever made it may have known.
        let unknown = || Fetched {
            files: Vec::new(),
            missed: vec![Missed {
                method: String::new(),
                url: String::new(),
                reason: "not_captured".to_owned(),
            }],
        };
        let fetched = fetched.unwrap_or_else(unknown);
        for (url, digest) in fetched.files {
            self.sources.add(Material::Http { url, digest });
        }
        let command = exec.meta.as_ref().map(|meta| meta.args.join(" "));
        let command = command.unwrap_or_default();
        self.unfetched
            .extend(fetched.missed.into_iter().map(|request| Unfetched {
                operation: operation.to_owned(),
                command: command.clone(),
                request,
            }));
    }

    fn step(&mut self, exec: &pb::ExecOp) {
        let mut secret = |id: &str, optional| needed(&mut self.secrets, id, optional);
        for named in &exec.secretenv {
            secret(&named.id, named.optional);
        }
        for mount in &exec.mounts {
            if let (Ok(pb::MountType::Secret), Some(wanted)) =
                (pb::MountType::try_from(mount.mount_type), &mount.secret_opt)
            {
                secret(&wanted.id, wanted.optional);
            }
            if let (Ok(pb::MountType::Ssh), Some(wanted)) =
                (pb::MountType::try_from(mount.mount_type), &mount.ssh_opt)
            {
                let id = if wanted.id.is_empty() {
                    "default"
                } else {
                    &wanted.id
                };
                needed(&mut self.ssh, id, wanted.optional);
            }
        }
        self.network |= exec.network != i32::from(pb::NetMode::None);
    }
}

/// Once needed by one step, it is not optional.
fn needed(list: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    list.entry(id.to_owned())
        .and_modify(|known| *known &= optional)
        .or_insert(optional);
}

/// Leaves out images of other platforms, where every platform has its own.
fn for_platform(images: Vec<ImageMaterial>, subject: Subject<'_>) -> Vec<ImageMaterial> {
    let Some(own) = subject.platform else {
        return images;
    };
    let alike = |a: &Platform, b: &Platform| a.os == b.os && a.architecture == b.architecture;
    let everywhere: BTreeSet<&str> = images
        .iter()
        .map(|image| image.reference.as_str())
        .filter(|reference| {
            subject.platforms.iter().all(|wanted| {
                images.iter().any(|other| {
                    let platform = other.platform.as_ref();
                    other.reference == *reference && platform.is_some_and(|found| alike(found, wanted))
                })
            })
        })
        .collect();
    let kept = images.iter().filter(|image| match &image.platform {
        Some(platform) if everywhere.contains(image.reference.as_str()) => alike(platform, own),
        _ => true,
    });
    kept.cloned().collect()
}

impl Sources {
    fn add(&mut self, material: Material) {
        match material {
            Material::Image(image) => self.images.push(image),
            Material::Blob {
                reference,
                digest,
                local,
            } => {
                let blob = (reference, digest, local);
                if !self.blobs.contains(&blob) {
                    self.blobs.push(blob);
                }
            }
            Material::Git { url, commit, bundle } => {
                let url = redacted(&url);
                if let Some(place) = bundle {
                    self.bundles.entry(url.clone()).or_insert(place);
                }
                self.git.entry(url).or_insert(commit);
            }
            Material::Http { url, digest } => {
                self.http.entry(redacted(&url)).or_insert(digest);
            }
            Material::Local { name } => drop(self.local.insert(name)),
        }
    }

    /// Each image once: one that is named by its tag is not named by its digest too.
    fn settle_images(&mut self) {
        let mut found: Vec<ImageMaterial> = Vec::new();
        for image in std::mem::take(&mut self.images) {
            let known = found.iter().any(|other| {
                other.reference == image.reference
                    && other.local == image.local
                    && other.platform == image.platform
            });
            if !known {
                found.push(image);
            }
        }
        let name = |reference: &Reference| {
            let tag = reference.tag().unwrap_or("latest");
            format!("{}:{tag}", reference.repository())
        };
        let parsed = |image: &ImageMaterial| image.reference.parse::<Reference>().ok();
        let tagged: BTreeSet<String> = found
            .iter()
            .filter_map(parsed)
            .filter(|reference| reference.digest().is_none())
            .map(|reference| name(&reference))
            .collect();
        found.retain(|image| match parsed(image) {
            Some(reference) => reference.digest().is_none() || !tagged.contains(&name(&reference)),
            None => true,
        });
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        self.images = found;
        self.blobs.sort();
    }

    /// What an address of a build context came to.
    pub fn digest_of(&self, address: &str) -> Option<Value> {
        if let Some(digest) = self.http.get(address) {
            return Some(digest_set(digest));
        }
        // The folder in the repository is no part of the material's name.
        let repository = match address.split_once('#') {
            Some((url, fragment)) => match fragment.split(':').next() {
                Some("") | None => url.to_owned(),
                Some(reference) => format!("{url}#{reference}"),
            },
            None => address.to_owned(),
        };
        self.git.get(&repository).map(|commit| commit_set(commit))
    }

    pub fn materials(&self) -> Vec<Value> {
        let kind = |local: bool| if local { "oci" } else { "docker" };
        let images = self.images.iter().map(|image| {
            let platform = image.platform.as_ref();
            let uri = package_url::of_image(kind(image.local), &image.reference, platform, None);
            json!({ "uri": uri, "digest": digest_set(&image.digest) })
        });
        let blobs = self.blobs.iter().map(|(reference, digest, local)| {
            let uri = package_url::of_image(kind(*local), reference, None, Some("blob"));
            json!({ "uri": uri, "digest": digest_set(digest) })
        });
        let git = self.git.iter();
        let git = git.map(|(url, commit)| json!({ "uri": url, "digest": commit_set(commit) }));
        let bundles = self.bundles.iter().map(|(url, place)| {
            let uri = package_url::of_bundle(kind(place.layout.is_some()), &place.reference, url);
            json!({ "uri": uri, "digest": digest_set(&place.digest) })
        });
        let http = self.http.iter();
        let http = http.map(|(url, digest)| json!({ "uri": url, "digest": digest_set(digest) }));
        images
            .chain(blobs)
            .chain(git)
            .chain(bundles)
            .chain(http)
            .collect()
    }
}

fn digest_set(digest: &Digest) -> Value {
    Value::Object(Map::from_iter([(
        digest.algorithm().name().to_owned(),
        digest.hex().into(),
    )]))
}

fn commit_set(commit: &str) -> Value {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    json!({ algorithm: commit })
}
