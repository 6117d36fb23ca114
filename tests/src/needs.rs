//! What a test needs of the machine. Where it is missing, the test says so and ends; with TRIMARAN_REQUIRE_ALL, as in
//! CI, it fails.

use std::process::{Command, Stdio};

use crate::programs::{installed, setup_folder};

#[derive(Debug, Clone, Copy)]
pub enum Need {
    Root,
    Registry,
    BusyBox,
    Qemu,
    Docker,
    Skopeo,
    Curl,
    Chromium,
    /// `unshare`, and a kernel that gives user namespaces handlers of their own.
    OwnHandlers,
    Buildx,
    Buildkitd,
}

impl Need {
    /// What is missing, and how to get it.
    fn missing(self) -> Option<String> {
        let lacks = |name: &str, hint: &str| {
            installed(name)
                .is_none()
                .then(|| format!("no {name} in PATH ({hint})"))
        };
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Registry => lacks("docker-registry", "scripts/setup installs it"),
            Self::Qemu => lacks("qemu-aarch64-static", "scripts/setup installs it"),
            Self::Skopeo => lacks("skopeo", "scripts/setup installs it"),
            Self::Curl => lacks("curl", "scripts/setup installs it"),
            Self::Chromium => lacks("chromium", "scripts/setup installs it"),
            Self::BusyBox => {
                let folder = setup_folder().join("busybox");
                (!folder.join("arm64/busybox").exists())
                    .then(|| format!("no BusyBox in {} (scripts/setup fetches it)", folder.display()))
            }
            Self::Docker => {
                (!succeeds("docker", &["version"])).then(|| "no Docker engine answers".to_owned())
            }
            Self::OwnHandlers => {
                let script = [
                    "--user",
                    "--map-root-user",
                    "--mount",
                    "sh",
                    "-c",
                    "mount -t binfmt_misc none /mnt",
                ];
                (!succeeds("unshare", &script))
                    .then(|| "handlers are the whole machine's (Linux before 6.7)".to_owned())
            }
            Self::Buildx => crate::programs::installed("docker-buildx")
                .or_else(|| installed("buildx"))
                .is_none()
                .then(|| "no docker-buildx in PATH".to_owned()),
            Self::Buildkitd => lacks("buildkitd", "for comparison only"),
        }
    }

    /// What no set-up brings: programs of others to compare with, and a newer kernel.
    fn is_optional(self) -> bool {
        matches!(self, Self::Buildx | Self::Buildkitd | Self::OwnHandlers)
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Whether the test can run.
pub fn given(needs: &[Need]) -> bool {
    let missing: Vec<(Need, String)> = needs
        .iter()
        .filter_map(|need| Some((*need, need.missing()?)))
        .collect();
    let required = std::env::var_os("TRIMARAN_REQUIRE_ALL").is_some();
    for (need, reason) in &missing {
        assert!(
            !required || need.is_optional(),
            "this must run here, but: {reason}"
        );
        eprintln!("skipped: {reason}");
    }
    missing.is_empty()
}
