//! A base image from static BusyBox executables: what stands in for Alpine or Debian where nothing can be pulled.
//!
//! The images are the same bytes in every run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::distribution::{Image, digest_of};

/// Debian's architecture names, and what images call the same.
const ARCHITECTURES: [(&str, &str, Option<&str>); 6] = [
    ("amd64", "amd64", None),
    ("arm64", "arm64", Some("v8")),
    ("armhf", "arm", Some("v7")),
    ("i386", "386", None),
    ("ppc64el", "ppc64le", None),
    ("s390x", "s390x", None),
];

const FOLDERS: [(&str, u32); 19] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n"),
    (
        "etc/os-release",
        "ID=busybox\nNAME=BusyBox\nPRETTY_NAME=\"BusyBox on its own\"\n",
    ),
];

/// 2024-01-01, in both spellings that images need.
const MADE_AT: u64 = 1_704_067_200;
const MADE_AT_TEXT: &str = "2024-01-01T00:00:00Z";

/// One image for each architecture that `folder` has a BusyBox for, as `folder/<Debian's name>/busybox`.
pub fn images(folder: &Path) -> anyhow::Result<Vec<Image>> {
    let applets = applets(folder)?;
    let mut images = Vec::new();
    for (debian, architecture, variant) in ARCHITECTURES {
        let path = folder.join(debian).join("busybox");
        if path.exists() {
            let busybox = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            images.push(image(architecture, variant, &layer(&busybox, &applets)?)?);
        }
    }
    Ok(images)
}

/// The names BusyBox answers to, with the folder of each: asked of one that runs here, as all are built alike.
fn applets(folder: &Path) -> anyhow::Result<Vec<String>> {
    for (debian, ..) in ARCHITECTURES {
        let Ok(listed) = Command::new(folder.join(debian).join("busybox"))
            .arg("--list-full")
            .output()
        else {
            continue;
        };
        if listed.status.success() {
            let mut applets: Vec<String> = String::from_utf8(listed.stdout)?
                .lines()
                .map(str::to_owned)
                .collect();
            applets.sort();
            return Ok(applets);
        }
    }
    bail!(
        "no BusyBox in {} runs on this machine: run scripts/setup",
        folder.display()
    )
}

fn layer(busybox: &[u8], applets: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode) in FOLDERS {
        append(
            &mut archive,
            tar::EntryType::Directory,
            &format!("{name}/"),
            mode,
            &[],
        )?;
    }
    for (name, content) in FILES {
        append(
            &mut archive,
            tar::EntryType::Regular,
            name,
            0o644,
            content.as_bytes(),
        )?;
    }
    append(
        &mut archive,
        tar::EntryType::Regular,
        "bin/busybox",
        0o755,
        busybox,
    )?;
    for applet in applets.iter().filter(|applet| *applet != "bin/busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, applet, "/bin/busybox")?;
    }
    Ok(archive.into_inner()?)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    name: &str,
    mode: u32,
    content: &[u8],
) -> anyhow::Result<()> {
    let mut header = header(kind, mode, content.len() as u64);
    Ok(archive.append_data(&mut header, name, content)?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MADE_AT);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn image(architecture: &str, variant: Option<&str>, layer: &[u8]) -> anyhow::Result<Image> {
    let mut config: Value = json!({
        "created": MADE_AT_TEXT,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        "history": [{"created": MADE_AT_TEXT, "created_by": "busybox-static", "comment": "base"}],
    });
    if let Some(variant) = variant {
        config["variant"] = json!(variant);
    }
    Ok(Image {
        config,
        layers: vec![gzip(layer)?],
    })
}

/// Compressed without a time or name in the header, so that equal content gives equal bytes.
pub fn gzip(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
    std::io::Write::write_all(&mut encoder, content)?;
    Ok(encoder.finish()?)
}
