//! Records that came in bundles: folders `imported/ID` below the configuration folder, each with the record
//! (`record.json`) and its files (`blobs/sha256-…`).
//!
//! A record is made beside its place and moved there, so that readers see all of it or nothing. Importing a record again
//! replaces it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::bundle::{ImportError, Kept, unpack};
use super::library::{Found, HistoryError, Place};
use super::local_state::create_private;
use crate::settings::Settings;

/// What stands for the builder of imported records, and for its node.
pub const BUILDER: &str = ".imported";
pub const NODE: &str = "_";

const RECORD: &str = "record.json";

#[derive(Clone, Debug)]
pub struct Imported {
    folder: PathBuf,
}

impl Imported {
    pub fn of(settings: &Settings) -> Self {
        Self {
            folder: settings.config_folder().join("imported"),
        }
    }

    /// Takes the records of a bundle and returns their ids.
    pub fn import(&self, bundle: impl Read) -> Result<Vec<String>, ImportError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source: io::Error| ImportError::Write { path, source }
        };
        create_private(&self.folder).map_err(failed(&self.folder))?;
        let work = tempfile::Builder::new()
            .prefix(".import-")
            .tempdir_in(&self.folder)
            .map_err(failed(&self.folder))?;
        let files = work.path().join("files");
        create_private(&files).map_err(failed(&files))?;
        let mut ids = Vec::new();
        for (number, record) in unpack(bundle, &files)?.into_iter().enumerate() {
            let made = work.path().join(number.to_string());
            let blobs = made.join("blobs");
            create_private(&blobs).map_err(failed(&blobs))?;
            for file in &record.files {
                let name = file.file_name().unwrap_or_default();
                // Records of one bundle may share files.
                std::fs::hard_link(file, blobs.join(name)).map_err(failed(file))?;
            }
            let path = made.join(RECORD);
            std::fs::write(&path, &record.json).map_err(failed(&path))?;
            let place = self.folder.join(&record.id);
            let old = work.path().join(format!("{number}-old"));
            match std::fs::rename(&place, &old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&place)(error)),
                _ => {}
            }
            std::fs::rename(&made, &place).map_err(failed(&place))?;
            ids.push(record.id);
        }
        Ok(ids)
    }

    pub fn list(&self) -> Result<Vec<Found>, HistoryError> {
        let reading = |path: &Path| {
            let path = path.to_owned();
            |source: io::Error| HistoryError::File {
                action: "reading",
                path,
                source,
            }
        };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(reading(&self.folder))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let place = entry.map_err(reading(&self.folder))?.path();
            let path = place.join(RECORD);
            let json = match std::fs::read(&path) {
                // Not a record, or one that was removed meanwhile.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                json => json.map_err(reading(&path))?,
            };
            let kept = Kept::from_json(&json).map_err(|source| HistoryError::Record { path, source })?;
            found.push(Found {
                record: kept.record,
                builder: BUILDER.to_owned(),
                node: NODE.to_owned(),
                place: Place::Imported(place),
                now: None,
                platform: (!kept.default_platform.is_empty()).then_some(kept.default_platform),
                remembered: kept.local_state,
            });
        }
        Ok(found)
    }

    /// Whether there was such a record.
    pub fn remove(&self, id: &str) -> Result<bool, HistoryError> {
        let known = self.list()?.into_iter().find(|found| found.id() == id);
        let Some(Place::Imported(place)) = known.map(|found| found.place) else {
            return Ok(false);
        };
        std::fs::remove_dir_all(&place).map_err(|source| HistoryError::File {
            action: "removing",
            path: place,
            source,
        })?;
        Ok(true)
    }
}
