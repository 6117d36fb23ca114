//! The daemon's image: made from executables that are already on this machine, so that nothing has to be pulled.
//!
//! It holds `builderd`, the machine's certificate authorities, and the static QEMU interpreters found here, so that the
//! daemon can register emulators for an engine whose host has none. Its tag is the hash of what went in; an image that
//! is there is used as it is.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::Digest as _;
use tokio_util::io::ReaderStream;

use super::{DriverError, executable};
use crate::settings::Settings;

pub const REPOSITORY: &str = "trimaran/builderd";
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
const INTERPRETERS: &str = "/usr/bin";

struct Entry {
    /// Where it goes, relative to the root of the image.
    target: String,
    source: PathBuf,
    mode: u32,
}

/// Makes sure that the engine has the image, and returns its name.
pub async fn provide(settings: &Settings, docker: &Docker) -> Result<String, DriverError> {
    let executable = executable::find(settings)?;
    let collected = tokio::task::spawn_blocking(move || {
        let entries = collect(&executable);
        let tag = tag(&entries)?;
        Ok::<_, DriverError>((entries, tag))
    });
    let (entries, tag) = collected.await.map_err(stopped)??;
    let name = format!("{REPOSITORY}:{tag}");
    if docker.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let archive = tokio::task::spawn_blocking(move || archive(&entries))
        .await
        .map_err(stopped)??;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(REPOSITORY)
        .tag(&tag)
        .changes(vec![
            r#"ENTRYPOINT ["/usr/bin/builderd"]"#.to_owned(),
            "ENV PATH=/usr/bin:/bin".to_owned(),
        ])
        .build();
    let body = ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 << 10);
    docker
        .create_image(Some(options), Some(bollard::body_try_stream(body)), None)
        .map(|line| line.map(|_| ()))
        .try_collect::<()>()
        .await
        .map_err(|source| DriverError::Request {
            action: format!("import the image {name}"),
            source,
        })?;
    // For people, who run it by hand: the one made last.
    let latest = TagImageOptionsBuilder::new()
        .repo(REPOSITORY)
        .tag("latest")
        .build();
    docker
        .tag_image(&name, Some(latest))
        .await
        .map_err(|source| DriverError::Request {
            action: format!("name the image {name}"),
            source,
        })?;
    Ok(name)
}

fn stopped(error: tokio::task::JoinError) -> DriverError {
    file_error("packing", Path::new("the image"))(io::Error::other(error))
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DriverError + use<> {
    let path = path.display().to_string();
    move |source| DriverError::File { action, path, source }
}

fn collect(executable: &Path) -> Vec<Entry> {
    let mut entries = vec![Entry {
        target: "usr/bin/builderd".to_owned(),
        source: executable.to_owned(),
        mode: 0o755,
    }];
    let authorities = Path::new("/").join(AUTHORITIES);
    if authorities.is_file() {
        entries.push(Entry {
            target: AUTHORITIES.to_owned(),
            source: authorities,
            mode: 0o644,
        });
    }
    for machine in [
        "aarch64",
        "arm",
        "riscv64",
        "s390x",
        "ppc64le",
        "i386",
        "x86_64",
        "mips64",
        "mips64el",
        "loongarch64",
    ] {
        let name = format!("qemu-{machine}-static");
        let source = Path::new(INTERPRETERS).join(&name);
        if source.is_file() {
            entries.push(Entry {
                target: format!("usr/bin/{name}"),
                source,
                mode: 0o755,
            });
        }
    }
    entries
}

/// What is made around the entries; raised when that changes.
const LAYOUT: &[u8] = b"2";

fn tag(entries: &[Entry]) -> Result<String, DriverError> {
    let mut whole = sha2::Sha256::new();
    whole.update(LAYOUT);
    for entry in entries {
        whole.update(entry.target.as_bytes());
        whole.update(executable::hash(&entry.source)?);
    }
    Ok(hex::encode(whole.finalize())[..32].to_owned())
}

/// The root file system as a tar file without a name, ready to be read.
fn archive(entries: &[Entry]) -> Result<File, DriverError> {
    let failed = |source| DriverError::File {
        action: "packing",
        path: "the image".to_owned(),
        source,
    };
    let mut tar = tar::Builder::new(tempfile::tempfile().map_err(failed)?);
    for (folder, mode) in [
        ("tmp/", 0o1777),
        ("run/", 0o755),
        ("var/", 0o755),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
    ] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut header, folder, io::empty())
            .map_err(failed)?;
    }
    for entry in entries {
        let file = File::open(&entry.source).map_err(file_error("opening", &entry.source))?;
        let size = file
            .metadata()
            .map_err(file_error("reading", &entry.source))?
            .len();
        let mut header = header(tar::EntryType::Regular, entry.mode, size);
        tar.append_data(&mut header, &entry.target, file)
            .map_err(file_error("packing", &entry.source))?;
    }
    // The names under which BuildKit's users and tools call the daemon, its helper, and what registers emulators.
    for name in ["buildkitd", "buildctl", "binfmt"] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("usr/bin/{name}"), "builderd")
            .map_err(failed)?;
    }
    let mut file = tar.into_inner().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
