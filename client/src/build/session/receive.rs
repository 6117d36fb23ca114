//! The receiving end of a `local` export: entries become files below the output folder.
//!
//! The listing has been checked before it comes here: every path is clean, and its parent was listed as a folder. What
//! already stands in the output folder is not trusted: something that is not a folder is replaced and never followed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use futures::Stream;
use proto::fsutil::{Packet, Stat};
use proto::transfer::{self, Event, Kind, Receiving};
use tokio::sync::mpsc;
use tonic::Status;

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("making {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is a device, which the local exporter does not write", path.display())]
    Device { path: PathBuf },
    #[error(transparent)]
    Transfer(#[from] transfer::ReceiveError),
}

pub async fn into_folder<S>(
    folder: &Path,
    packets: S,
    replies: mpsc::Sender<Packet>,
) -> Result<(), ReceiveError>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let mut receiving = Receiving::new(packets, replies);
    match write(folder, &mut receiving).await {
        Ok(()) => Ok(()),
        Err(error) => {
            receiving.abort(&crate::error::chain(&error)).await;
            Err(error)
        }
    }
}

async fn write<S>(folder: &Path, receiving: &mut Receiving<S>) -> Result<(), ReceiveError>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    fs::create_dir_all(folder).map_err(|source| ReceiveError::Make {
        path: folder.to_owned(),
        source,
    })?;
    let mut open: HashMap<u32, (File, PathBuf, Stat)> = HashMap::new();
    let mut folders = Vec::new();
    while let Some(event) = receiving.next().await? {
        match event {
            Event::Entry { id, kind, stat } => {
                let path = folder.join(&stat.path);
                let wants_content = receiving.has_content(id);
                let file = make(folder, &path, kind, &stat).map_err(|source| ReceiveError::Make {
                    path: path.clone(),
                    source,
                })?;
                match (file, kind) {
                    (Some(file), _) if wants_content => {
                        receiving.request(id)?;
                        open.insert(id, (file, path, stat));
                    }
                    (_, Kind::Directory) => folders.push((path, stat)),
                    (_, Kind::CharDevice | Kind::BlockDevice) => return Err(ReceiveError::Device { path }),
                    _ => {}
                }
            }
            Event::EndOfListing => {}
            Event::Data { id, data } => {
                if let Some((file, path, _)) = open.get_mut(&id) {
                    file.write_all(&data).map_err(|source| ReceiveError::Write {
                        path: path.clone(),
                        source,
                    })?;
                }
            }
            Event::EndOfFile { id } => {
                if let Some((file, path, stat)) = open.remove(&id) {
                    finish(&file, &stat).map_err(|source| ReceiveError::Write { path, source })?;
                }
            }
        }
    }
    // Folders last, deepest first: writing into one changes its time and may be forbidden by its mode.
    for (path, stat) in folders.into_iter().rev() {
        let failed = |source| ReceiveError::Write {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        finish(&file, &stat).map_err(failed)?;
    }
    Ok(())
}

/// Makes an entry, and returns the file to be filled.
fn make(root: &Path, path: &Path, kind: Kind, stat: &Stat) -> io::Result<Option<File>> {
    let standing = fs::symlink_metadata(path).ok();
    if let Some(standing) = &standing {
        match (standing.is_dir(), kind) {
            (true, Kind::Directory) => {}
            (true, _) => fs::remove_dir_all(path)?,
            (false, _) => fs::remove_file(path)?,
        }
    }
    match kind {
        Kind::Directory if standing.as_ref().is_some_and(fs::Metadata::is_dir) => Ok(None),
        Kind::Directory => fs::create_dir(path).map(|()| None),
        Kind::Symlink => std::os::unix::fs::symlink(&stat.linkname, path).map(|()| None),
        Kind::File if !stat.linkname.is_empty() => {
            fs::hard_link(root.join(&stat.linkname), path).map(|()| None)
        }
        Kind::File => File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(Some),
        Kind::Fifo => {
            let mode =
                nix::sys::stat::Mode::from_bits_truncate(transfer::mode::permissions(stat.mode) & 0o777);
            nix::unistd::mkfifo(path, mode)
                .map_err(io::Error::from)
                .map(|()| None)
        }
        // Devices are refused by the caller; sockets come as empty files.
        _ => Ok(None),
    }
}

/// Mode and time, and the owner if we may set it.
fn finish(file: &File, stat: &Stat) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(stat.uid), Some(stat.gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(transfer::mode::permissions(stat.mode)))?;
    let nanoseconds = u64::try_from(stat.mod_time).unwrap_or_default();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanoseconds))
}
