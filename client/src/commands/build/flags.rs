//! The flags of `build`: their texts are the manual. What buildx has and this builder cannot do yet is refused by name.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;

use crate::build::call::Call;
use crate::build::request::Flags;
use crate::progress::Mode;

/// Start a build
///
/// PATH is the folder that COPY and ADD take files from; a Git or HTTP address is fetched by the
/// builder; "-" reads a Dockerfile from standard input, with an empty context. Flags may follow it.
///
/// Examples:
///   trimaran build -t registry.example/app --platform linux/amd64,linux/arm64 --push .
///   trimaran build -o out .                       files of the last stage into the folder "out"
///   trimaran build -o type=oci,dest=app.tar .     an OCI archive
///   trimaran build -t app --load .                into the Docker engine
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct BuildArgs {
    /// The build context: a folder or the address of a repository or archive
    #[arg(value_name = "PATH | URL | -")]
    context: String,
    /// Name of the Dockerfile (default: "PATH/Dockerfile"); "-" reads it from standard input
    #[arg(short, long)]
    file: Option<String>,
    /// Image identifier (format: "[registry/]repository[:tag]")
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// Set target platform for build, such as linux/amd64,linux/arm64,linux/arm/v7 [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,
    /// Set build-time variables (format: "NAME=VALUE"; NAME alone takes the value from the environment)
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,
    /// Additional build contexts (format: "NAME=PATH", "NAME=docker-image://IMAGE", "NAME=oci-layout://PATH[:TAG]", "NAME=URL")
    #[arg(long = "build-context", value_name = "NAME=PATH")]
    build_contexts: Vec<String>,
    /// Set metadata for an image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Add annotation to the image (format: "[TYPE:]NAME=VALUE")
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    annotations: Vec<String>,
    /// Set the target build stage to build
    #[arg(long)]
    target: Option<String>,
    /// Output destination (format: "type=local,dest=path"; types: registry, image, local, tar, oci, docker)
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub outputs: Vec<String>,
    /// Shorthand for "--output=type=registry"
    #[arg(long)]
    push: bool,
    /// Shorthand for "--output=type=docker"
    #[arg(long)]
    load: bool,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Do not cache specified stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Always attempt to pull all referenced images
    #[arg(long)]
    pull: bool,
    /// Set the networking mode for the "RUN" instructions during build (default, none, host)
    #[arg(long, value_name = "MODE")]
    network: Option<String>,
    /// Add a custom host-to-IP mapping (format: "host:ip")
    #[arg(long = "add-host", value_name = "HOST:IP")]
    add_hosts: Vec<String>,
    /// Ulimit options (format: "NAME=SOFT[:HARD]")
    #[arg(long = "ulimit", value_name = "LIMIT")]
    ulimits: Vec<String>,
    /// Shared memory size for build containers
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// Allow extra privileged entitlement (network.host, security.insecure, device)
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Set type of progress output (auto, none, plain, quiet, rawjson, tty) [env: BUILDKIT_PROGRESS]
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    pub progress: Mode,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    pub quiet: bool,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// External cache sources (e.g. "user/app:cache", "type=local,src=path/to/dir")
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Cache export destinations (e.g. "type=inline", "type=registry,ref=user/app:cache", "type=local,dest=path/to/dir")
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Attestation parameters (format: "type=sbom,generator=image")
    #[arg(long, value_name = "ATTEST")]
    attest: Vec<String>,
    /// Shorthand for "--attest=type=provenance"
    #[arg(long, value_name = "FIELDS", num_args = 0..=1, default_missing_value = "true")]
    provenance: Option<String>,
    /// Shorthand for "--attest=type=sbom"
    #[arg(long, value_name = "FIELDS", num_args = 0..=1, default_missing_value = "true")]
    sbom: Option<String>,
    /// Shorthand for "--call=check"
    #[arg(long)]
    check: bool,
    /// Set method for evaluating build (build, check, outline, targets; with ",format=json" as JSON)
    #[arg(long, value_name = "METHOD", default_value = "build")]
    call: String,
    #[arg(long, hide = true)]
    policy: Vec<String>,
    #[arg(long, hide = true)]
    resource: Vec<String>,
    #[arg(short, long, hide = true)]
    memory: Option<String>,
}

impl BuildArgs {
    /// The question to the frontend, if nothing is to be built.
    pub fn call(&self) -> anyhow::Result<Option<Call>> {
        if self.check {
            ensure!(
                matches!(self.call.as_str(), "build" | "check"),
                "--check and --call={} cannot be used together",
                self.call
            );
            return Call::parse("check");
        }
        Call::parse(&self.call)
    }

    pub fn flags(&self, call: Option<Call>) -> Flags {
        Flags {
            context: self.context.clone(),
            file: self.file.clone(),
            tags: self.tags.clone(),
            platforms: self.platforms.clone(),
            build_args: self.build_args.clone(),
            build_contexts: self.build_contexts.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            target: self.target.clone(),
            outputs: self.outputs.clone(),
            push: self.push,
            load: self.load,
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull,
            network: self.network.clone(),
            add_hosts: self.add_hosts.clone(),
            ulimits: self.ulimits.clone(),
            shm_size: self.shm_size.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            allow: self.allow.clone(),
            secrets: self.secrets.clone(),
            cache_from: self.cache_from.clone(),
            cache_to: self.cache_to.clone(),
            ssh: self.ssh.clone(),
            attests: self.attests(),
            dockerfile_inline: None,
            linked: false,
            call,
        }
    }

    /// `--attest`, and its shorthands.
    fn attests(&self) -> Vec<String> {
        let mut attests = self.attest.clone();
        for (kind, value) in [("provenance", &self.provenance), ("sbom", &self.sbom)] {
            match value.as_deref() {
                None => {}
                Some("false" | "0") => attests.push(format!("type={kind},disabled=true")),
                Some("true" | "1" | "") => attests.push(format!("type={kind}")),
                Some(value) => attests.push(format!("type={kind},{value}")),
            }
        }
        attests
    }

    pub fn refuse_unsupported(&self) -> anyhow::Result<()> {
        let refused = [
            ("--policy", !self.policy.is_empty(), "build without it"),
            (
                "--resource",
                !self.resource.is_empty(),
                "limit the builder itself by the driver options memory= and cpu-quota=",
            ),
            (
                "--memory",
                self.memory.is_some(),
                "limit the builder itself by the driver option memory=",
            ),
        ];
        for (flag, is_set, way_out) in refused {
            if is_set {
                bail!("{flag} is not supported yet: {way_out}");
            }
        }
        Ok(())
    }
}
