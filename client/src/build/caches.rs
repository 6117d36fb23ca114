//! `--cache-from` and `--cache-to`: where a build may take results from, and where it leaves its own.
//!
//! A registry is the daemon's business. A folder of this machine (`type=local`) is served by the session as an OCI
//! layout; which cache in it is meant is found out, and noted, here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bake::csv;
use proto::control::{CacheOptions, CacheOptionsEntry};
use registry::Descriptor;
use sha2::Digest as _;

use super::solve::Response;
use crate::layout::{self, Layout};
use crate::output;

const LOCAL: &str = "local";
/// What the daemon answers of a cache that it has written.
const MANIFEST: &str = "cache.manifest";

#[derive(Debug, Default)]
pub struct Caches {
    pub options: CacheOptions,
    /// By the names that the daemon asks for.
    pub layouts: BTreeMap<String, Layout>,
    /// Folders that a cache is written to, and its tag.
    written: Vec<(PathBuf, String)>,
}

impl Caches {
    pub fn parse(from: &[String], to: &[String]) -> anyhow::Result<Self> {
        let mut caches = Self::default();
        for mut entry in entries(from)? {
            if entry.r#type == LOCAL && !caches.read(&mut entry)? {
                continue;
            }
            caches.options.imports.push(entry);
        }
        for mut entry in entries(to)? {
            if entry.r#type == LOCAL {
                caches.write(&mut entry)?;
            }
            caches.options.exports.push(entry);
        }
        Ok(caches)
    }

    /// Whether there is a cache to read: a first build has none yet.
    fn read(&mut self, entry: &mut CacheOptionsEntry) -> anyhow::Result<bool> {
        let folder = PathBuf::from(
            entry
                .attrs
                .get("src")
                .context("local cache importer requires src")?,
        );
        if !entry.attrs.contains_key("digest") {
            let tag = entry.attrs.remove("tag");
            let Some(digest) = layout::find(&folder, tag.as_deref())? else {
                output::warn(&format!("there is no cache in {} yet", folder.display()));
                return Ok(false);
            };
            entry.attrs.insert("digest".to_owned(), digest.to_string());
        }
        let name = self.offer(folder, false);
        entry.attrs.insert("src".to_owned(), name);
        Ok(true)
    }

    fn write(&mut self, entry: &mut CacheOptionsEntry) -> anyhow::Result<()> {
        let folder = PathBuf::from(
            entry
                .attrs
                .get("dest")
                .context("local cache exporter requires dest")?,
        );
        let tag = entry.attrs.remove("tag");
        let tag = tag.unwrap_or_else(|| layout::DEFAULT_TAG.to_owned());
        let name = self.offer(folder.clone(), true);
        entry.attrs.insert("dest".to_owned(), name);
        self.written.push((folder, tag));
        Ok(())
    }

    /// The name that the daemon will ask for the folder by.
    fn offer(&mut self, folder: PathBuf, writable: bool) -> String {
        let name = name_of(&folder);
        let layout = self.layouts.entry(format!("{LOCAL}:{name}")).or_insert(Layout {
            folder,
            writable: false,
        });
        layout.writable |= writable;
        name
    }

    /// Notes in the folders what the daemon has written to them.
    pub fn note(&self, response: &Response) -> anyhow::Result<()> {
        let Some(text) = response.get(MANIFEST).filter(|_| !self.written.is_empty()) else {
            return Ok(());
        };
        let entry: Descriptor =
            serde_json::from_str(text).context("cannot read what the builder says of the cache")?;
        for (folder, tag) in &self.written {
            layout::put(folder, entry.clone(), tag)?;
        }
        Ok(())
    }
}

/// The folder itself where it can stand in a header.
fn name_of(folder: &Path) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    match folder.to_str() {
        Some(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => text.to_owned(),
        _ => {
            let hash = sha2::Sha256::digest(folder.as_os_str().as_encoded_bytes());
            format!("folder-{}", &hex::encode(hash)[..24])
        }
    }
}

/// `REF`, or `type=KIND,NAME=VALUE,…`.
fn entries(values: &[String]) -> anyhow::Result<Vec<CacheOptionsEntry>> {
    let mut entries = Vec::new();
    for value in values {
        let fields = csv::fields(value, ',')?;
        if fields.iter().all(|field| !field.contains('=')) {
            entries.extend(fields.into_iter().map(|reference| CacheOptionsEntry {
                r#type: "registry".to_owned(),
                attrs: BTreeMap::from([("ref".to_owned(), reference)]),
            }));
            continue;
        }
        let mut attrs = BTreeMap::new();
        for field in fields {
            let (name, value) = field
                .split_once('=')
                .with_context(|| format!("invalid value {field}, write NAME=VALUE"))?;
            attrs.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let kind = attrs
            .remove("type")
            .with_context(|| format!("the cache \"{value}\" has no type"))?;
        entries.push(CacheOptionsEntry { r#type: kind, attrs });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use registry::media_type;

    use super::*;

    #[test]
    fn folders_are_offered_and_remember_what_was_written() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("cache").display().to_string();
        let (from, to) = (
            format!("type=local,src={folder}"),
            format!("type=local,dest={folder},mode=max,tag=x"),
        );
        let first = Caches::parse(std::slice::from_ref(&from), std::slice::from_ref(&to)).unwrap();
        assert!(first.options.imports.is_empty());
        assert_eq!(first.options.exports[0].attrs["dest"], folder);
        assert_eq!(first.options.exports[0].attrs["mode"], "max");
        assert!(first.layouts[&format!("local:{folder}")].writable);
        let entry = Descriptor::of(media_type::OCI_MANIFEST, b"cache");
        let answer = serde_json::to_string(&entry).unwrap();
        first
            .note(&Response::from([(MANIFEST.to_owned(), answer)]))
            .unwrap();
        for (from, found) in [
            (from.clone(), true),
            (format!("{from},tag=x"), true),
            (format!("{from},tag=y"), false),
        ] {
            let second = Caches::parse(std::slice::from_ref(&from), &[]);
            assert_eq!(second.is_ok(), found, "{from}");
            let Ok(second) = second else { continue };
            assert_eq!(second.options.imports[0].attrs["digest"], entry.digest.as_str());
            assert!(!second.layouts[&format!("local:{folder}")].writable);
        }
        for wrong in ["type=local", "ref=x", "type=local,x"] {
            assert!(Caches::parse(&[wrong.to_owned()], &[]).is_err(), "{wrong}");
            assert!(Caches::parse(&[], &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reference_is_a_cache_in_a_registry() {
        let caches = Caches::parse(&["a/b:c,d".to_owned()], &["type=inline".to_owned()]).unwrap();
        let names: Vec<&str> = caches
            .options
            .imports
            .iter()
            .map(|entry| entry.attrs["ref"].as_str())
            .collect();
        assert_eq!(names, ["a/b:c", "d"]);
        assert_eq!(caches.options.exports[0].r#type, "inline");
        let name = name_of(Path::new("/tmp/käse"));
        assert!(name.starts_with("folder-") && name.is_ascii());
    }
}
