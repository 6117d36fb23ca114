//! Images for several platforms, or with attestations, into a Docker engine.
//!
//! Docker's own archives hold one image. An engine that keeps images in containerd's store reads OCI layouts as well,
//! which hold all of it; one with the classic store has no place for more than one platform.

use anyhow::{Context as _, bail};

use super::outputs::Destination;
use super::request::Plan;
use crate::docker;
use crate::settings::Settings;

/// What the engine says of itself when images lie in containerd's store.
const CONTAINERD_STORE: [&str; 2] = ["driver-type", "io.containerd.snapshotter.v1"];

/// Chooses the archive that the engine is sent, which is asked only if that matters.
pub async fn settle<'a>(
    plans: impl IntoIterator<Item = &'a mut Plan>,
    settings: &Settings,
) -> anyhow::Result<()> {
    let mut can_read_layouts = None;
    for plan in plans {
        if !makes_index(plan) {
            continue;
        }
        for output in &mut plan.outputs {
            if output.destination != Destination::Engine || output.kind != "docker" {
                continue;
            }
            let readable = match can_read_layouts {
                Some(known) => known,
                None => *can_read_layouts.insert(reads_layouts(settings).await?),
            };
            if !readable {
                bail!(
                    "the Docker engine cannot load an image for several platforms or with attestations, since it \
                     does not keep images in containerd's store: choose one platform, use type=oci or --push, or \
                     turn the store on (\"features\": {{\"containerd-snapshotter\": true}} in the engine's daemon.json)"
                );
            }
            output.kind = "oci".to_owned();
        }
    }
    Ok(())
}

/// Whether the image is more than one manifest.
fn makes_index(plan: &Plan) -> bool {
    let attested = plan.attributes.iter().any(|(key, value)| {
        key.starts_with("attest:") && !value.split(',').any(|field| field == "inline-only=true")
    });
    plan.platforms.len() > 1 || attested
}

async fn reads_layouts(settings: &Settings) -> anyhow::Result<bool> {
    let endpoint = docker::current_endpoint(settings)?;
    let engine = docker::connect(settings, &endpoint).await?;
    let info = engine
        .info()
        .await
        .context("asking the Docker engine for its image store")?;
    Ok(info
        .driver_status
        .iter()
        .flatten()
        .any(|pair| pair.iter().map(String::as_str).eq(CONTAINERD_STORE)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::build::request::Flags;

    /// An engine that answers every question with these facts; returns its address.
    fn engine(facts: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                let Ok(_) = stream.read(&mut request) else {
                    continue;
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{facts}",
                    facts.len()
                );
                let Ok(()) = stream.write_all(answer.as_bytes()) else {
                    continue;
                };
            }
        });
        format!("tcp://{address}")
    }

    async fn kind(facts: &'static str, platforms: &str, attests: &[&str]) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n")?;
        let flags = Flags {
            context: folder.path().to_str().unwrap_or_default().to_owned(),
            load: true,
            platforms: vec![platforms.to_owned()],
            attests: attests.iter().map(|text| (*text).to_owned()).collect(),
            ..Flags::default()
        };
        let host = engine(facts);
        let settings = Settings::of(&[("DOCKER_HOST", &host), ("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")]);
        let mut plan = Plan::new(&flags, &settings)?;
        settle([&mut plan], &settings).await?;
        Ok(plan.outputs[0].kind.clone())
    }

    #[tokio::test]
    async fn the_engine_gets_a_layout_if_it_reads_one_and_needs_one() {
        const CLASSIC: &str = r#"{"ApiVersion":"1.41","DriverStatus":[["Backing Filesystem","extfs"]]}"#;
        const CONTAINERD: &str =
            r#"{"ApiVersion":"1.41","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
        let both = "linux/amd64,linux/arm64";
        assert_eq!(kind(CONTAINERD, both, &[]).await.unwrap(), "oci");
        assert_eq!(kind(CONTAINERD, "linux/amd64", &[]).await.unwrap(), "docker");
        assert_eq!(kind(CLASSIC, "linux/amd64", &[]).await.unwrap(), "docker");
        let attested = kind(CONTAINERD, "linux/amd64", &["type=sbom"]).await;
        assert_eq!(attested.unwrap(), "oci");
        let refused = kind(CLASSIC, both, &[]).await.unwrap_err().to_string();
        assert!(refused.contains("containerd-snapshotter"), "{refused}");
    }
}
