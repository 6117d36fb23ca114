//! The state folder on disk: who may use it, what lies where, and what is swept when it is opened.
//!
//! ```text
//! lock                       held while a daemon uses the folder; its text is that daemon's process id
//! metadata.redb              all records
//! blobs/<algorithm>/<hex>    compressed layers, configs, manifests; complete and verified once they have this name
//! layers/<id>/fs             layer folders in overlayfs upper format, immutable once they have this name
//! caches/<hex>               folders that steps keep between builds, written in place
//! repositories/<hash>        bare git repositories, one for each remote
//! stubs/                     the constant bottom layer of the sandboxes
//! tmp/                       everything half-made; moved to the trash when the folder is opened
//! trash/                     waits for the thread that deletes it
//! ```
//! All of it is one file system, so that a rename publishes a finished thing in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::remove::remove_tree;

/// The locked folder. Dropping it ends the deleting thread and frees the lock.
#[derive(Debug)]
pub(super) struct StateFolder {
    root: PathBuf,
    trash: Trash,
    _lock: File,
}

impl StateFolder {
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        let fail = |doing: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Folder { doing, path, source }
        };
        make_private(root).map_err(fail("create", root))?;
        let root = root.canonicalize().map_err(fail("resolve", root))?;
        let lock = take_lock(&root)?;
        for name in [
            "tmp",
            "trash",
            "layers",
            "stubs",
            "blobs",
            "repositories",
            "caches",
        ] {
            let path = root.join(name);
            make_private(&path).map_err(fail("create", &path))?;
        }
        let tmp = root.join("tmp");
        let half_made = fs::read_dir(&tmp).map_err(fail("read", &tmp))?.next().is_some();
        if half_made {
            let trash = root.join("trash").join(random_name());
            fs::rename(&tmp, &trash).map_err(fail("sweep", &tmp))?;
            make_private(&tmp).map_err(fail("create", &tmp))?;
        }
        spread(&tmp);
        let trash = Trash::start(root.join("trash")).map_err(fail("start deleting in", &root))?;
        Ok(Self {
            root,
            trash,
            _lock: lock,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn caches(&self) -> PathBuf {
        self.root.join("caches")
    }

    pub(super) fn stubs(&self) -> PathBuf {
        self.root.join("stubs")
    }

    /// A name in `tmp/` that nobody has used.
    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(random_name())
    }

    /// Takes `path` away at once; its bytes are freed in the background. What cannot be moved stays in `tmp/` until
    /// the next start.
    pub(super) fn discard(&self, path: &Path) {
        match fs::rename(path, self.trash.folder.join(random_name())) {
            Ok(()) => self.trash.wake(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "left behind until the next start"),
        }
    }
}

/// Asks ext4 to put each folder made in this one into another part of the disk. A step's overlay makes and deletes
/// some ten files; ext4 passes over every recently deleted inode of a part when it makes one there, which after some
/// hundred steps costs as much as all the rest of starting one. Other file systems know no such flag.
fn spread(folder: &Path) {
    let flagged = File::open(folder).and_then(|folder| {
        let flags = rustix::fs::ioctl_getflags(&folder)?;
        Ok(rustix::fs::ioctl_setflags(
            &folder,
            flags | rustix::fs::IFlags::TOPDIR,
        )?)
    });
    if let Err(error) = flagged {
        tracing::debug!(path = %folder.display(), %error, "layers are not spread over the disk");
    }
}

/// 128 random bits in hex.
pub(super) fn random_name() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Creates a folder that only its owner may enter, and makes an existing one so.
fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path)?;
            if !metadata.is_dir() {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn take_lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let fail = |doing: &'static str| {
        let path = path.clone();
        move |source| OpenError::Folder { doing, path, source }
    };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(fail("open"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            (&lock)
                .take(20)
                .read_to_string(&mut holder)
                .map_err(fail("read"))?;
            return Err(OpenError::InUse {
                path: root.to_path_buf(),
                process: holder.trim().parse().ok(),
            });
        }
        Err(error) => return Err(fail("lock")(error.into())),
    }
    lock.set_len(0)
        .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()))
        .map_err(fail("write"))?;
    Ok(lock)
}

/// Deletes what is moved into `trash/`, on one thread, so that nobody waits for a big tree to go.
#[derive(Debug)]
struct Trash {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    wake: Mutex<Option<SyncSender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    fn start(folder: PathBuf) -> io::Result<Self> {
        // One waiting wake-up is enough: the thread looks at the whole folder each time.
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("store-trash".into()).spawn({
            let folder = folder.clone();
            let stop = Arc::clone(&stop);
            move || {
                empty(&folder, &stop);
                while woken.recv().is_ok() {
                    empty(&folder, &stop);
                }
            }
        })?;
        Ok(Self {
            folder,
            stop,
            wake: Mutex::new(Some(wake)),
            thread: Some(thread),
        })
    }

    fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            // Full means that a wake-up waits already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that deletes discarded files panicked");
        }
    }
}

fn empty(folder: &Path, stop: &AtomicBool) {
    let opened = fs::read_dir(folder).and_then(|entries| Ok((entries, File::open(folder)?)));
    let (entries, parent) = match opened {
        Ok(opened) => opened,
        Err(error) => return tracing::warn!(path = %folder.display(), %error, "cannot read the trash"),
    };
    for entry in entries.flatten() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_tree(&parent, &entry.file_name()).map_err(io::Error::from),
            _ => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot delete discarded files");
        }
    }
}
