//! OCI layouts: folders with images or with a build cache in them.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use registry::{Descriptor, Digest, Index, media_type};

const INDEX: &str = "index.json";
const MARK: &str = "oci-layout";
const TAG: &str = "org.opencontainers.image.ref.name";
const NAME: &str = "io.containerd.image.name";
/// The tag that is meant if none is named.
pub const DEFAULT_TAG: &str = "latest";

/// A layout that the daemon may use during a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub folder: PathBuf,
    /// It may also be written to.
    pub writable: bool,
}

/// Where a blob lies in a layout.
pub fn blob(folder: &Path, digest: &Digest) -> PathBuf {
    folder
        .join("blobs")
        .join(digest.algorithm().name())
        .join(digest.hex())
}

/// What a layout has under a tag; without one the only thing in it, or what is called `latest`. Nothing if there is no
/// layout.
pub fn find(folder: &Path, tag: Option<&str>) -> anyhow::Result<Option<Digest>> {
    let Some(index) = read(folder)? else {
        return Ok(None);
    };
    let wanted = tag.unwrap_or(DEFAULT_TAG);
    let named = |entry: &&Descriptor| {
        let full = entry.annotation(NAME).and_then(|name| name.rsplit_once(':'));
        entry.annotation(TAG) == Some(wanted) || full.is_some_and(|(_, found)| found == wanted)
    };
    match (index.manifests.iter().find(named), index.manifests.as_slice()) {
        (Some(entry), _) => Ok(Some(entry.digest.clone())),
        (None, [only]) if tag.is_none() => Ok(Some(only.digest.clone())),
        _ => bail!("{} has nothing with the tag {wanted:?}", folder.display()),
    }
}

/// Gives what a layout has a tag, which nothing else in it keeps.
pub fn put(folder: &Path, mut entry: Descriptor, tag: &str) -> anyhow::Result<()> {
    let doing = || format!("writing the index of {}", folder.display());
    fs::create_dir_all(folder).with_context(doing)?;
    // Several builds may write to one folder.
    let lock = File::create(folder.join(format!("{INDEX}.lock"))).with_context(doing)?;
    lock.lock().with_context(doing)?;
    let mut index = read(folder)?.unwrap_or_else(|| Index::new(media_type::OCI_INDEX, Vec::new()));
    index
        .manifests
        .retain(|other| other.annotation(TAG) != Some(tag) && other.digest != entry.digest);
    entry.set_annotation(TAG, tag);
    index.manifests.push(entry);
    replace(folder, INDEX, &serde_json::to_vec(&index)?).with_context(doing)?;
    replace(folder, MARK, br#"{"imageLayoutVersion":"1.0.0"}"#).with_context(doing)
}

fn read(folder: &Path) -> anyhow::Result<Option<Index>> {
    let path = folder.join(INDEX);
    match fs::read(&path) {
        Ok(bytes) => {
            let index = serde_json::from_slice(&bytes);
            Ok(Some(
                index.with_context(|| format!("reading {}", path.display()))?,
            ))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn replace(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(folder.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_what_was_put_last() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("new/layout");
        assert_eq!(find(&folder, None).unwrap(), None);
        let entry = |text: &str| Descriptor::of(media_type::OCI_MANIFEST, text.as_bytes());
        put(&folder, entry("one"), "a").unwrap();
        assert_eq!(find(&folder, None).unwrap(), Some(entry("one").digest));
        put(&folder, entry("two"), DEFAULT_TAG).unwrap();
        put(&folder, entry("three"), "a").unwrap();
        assert_eq!(find(&folder, None).unwrap(), Some(entry("two").digest));
        assert_eq!(find(&folder, Some("a")).unwrap(), Some(entry("three").digest));
        assert!(find(&folder, Some("b")).is_err());
        assert!(folder.join(MARK).is_file());
        fs::write(folder.join(INDEX), "{").unwrap();
        assert!(find(&folder, None).is_err());
    }
}
