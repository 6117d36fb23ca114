//! What lies in the state folder and how much of the disk it takes, one entry for each layer.
//!
//! What a folder takes is measured once and noted in its record; after that a listing costs a look at the records
//! and at the names of the blobs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use registry::digest::Digest;
use serde::{Deserialize, Serialize};

use super::layer_record::LayerRecord;
use super::measure::disk_size;
use super::metadata::{ReadError, Table};
use super::repositories::RepositoryUse;
use super::{LayerId, Store, WorkLost};
use crate::filter::{Filter, Value};

/// The entry that stands for all manifests and configs of images that were looked up.
pub(super) const DOCUMENTS: &str = "image-documents";
/// Before the name of a git repository.
pub(super) const REPOSITORY: &str = "repository-";

/// What a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// What steps made and images brought.
    #[default]
    Regular,
    /// A folder of a client.
    Local,
    /// A checkout of a git repository.
    Git,
    /// A cache that steps share.
    CacheMount,
    /// What the daemon keeps for itself.
    Internal,
}

impl Content {
    /// BuildKit's name of the record type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Local => "source.local",
            Self::Git => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Internal => "internal",
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's skip_serializing_if passes a reference to the field"
    )]
    pub(super) fn is_regular(&self) -> bool {
        *self == Self::Regular
    }
}

/// One thing that takes space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub id: String,
    pub content: Content,
    pub description: String,
    /// Ids of what this was made on; they stay as long as this does.
    pub parents: Vec<String>,
    /// Bytes on the disk: files, and the blobs made of them.
    pub size: u64,
    /// It changes while it is used; layers never do.
    pub mutable: bool,
    /// A build works with it now.
    pub in_use: bool,
    pub created_at: SystemTime,
    pub last_used: SystemTime,
    /// How many builds have used it.
    pub uses: u64,
}

impl Usage {
    /// Whether a client's filter means this.
    pub fn is_meant_by(&self, filter: &Filter) -> bool {
        filter.matches(|field| match field {
            "id" => Value::text(&*self.id),
            "parents" => Value::text(self.parents.join(";")),
            "description" => Value::text(&*self.description),
            "type" => Value::text(self.content.name()),
            "inuse" => Value::flag(self.in_use),
            "mutable" => Value::flag(self.mutable),
            "immutable" => Value::flag(!self.mutable),
            // Nobody outside of the state folder has a part in what is there.
            "private" => Value::Flag,
            _ => Value::Absent,
        })
    }

    pub fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        age.is_zero()
            || now
                .duration_since(self.last_used)
                .is_ok_and(|unused| unused >= age)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("cannot list what is in the state folder")]
    Records(#[from] ReadError),
    #[error("cannot read {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lost(#[from] WorkLost),
}

/// The records and blobs there are, at one time.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub layers: BTreeMap<LayerId, LayerRecord>,
    /// Blobs that neither a layer nor a build record names: manifests and configs of images.
    pub documents: Vec<(Digest, BlobFile)>,
    repositories: Vec<RepositoryUse>,
    blobs: HashMap<Digest, BlobFile>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BlobFile {
    pub size: u64,
    pub modified: SystemTime,
}

impl Store {
    /// Everything that takes space, except the metadata and the records of builds. Takes longer when there are layers
    /// that nobody has measured yet.
    pub async fn usage(&self) -> Result<Vec<Usage>, UsageError> {
        let store = self.clone();
        self.pool()
            .run(move || {
                store.note_uses();
                let inventory = store.inventory()?;
                Ok(store.usage_of(&inventory))
            })
            .await?
    }

    /// Adds the uses since the last call to the records: not with each use, so that builds do not wait for it.
    pub fn note_uses(&self) {
        for (layer, uses) in self.inner().holds.take_uses() {
            let noted = self.update_existing_layer(&layer, |record| {
                record.uses += uses.count;
                record.last_used = record.last_used.max(uses.last);
                if record.content == Content::CacheMount {
                    record.disk_size = None;
                }
            });
            if let Err(error) = noted {
                tracing::debug!(%layer, error = &error as &dyn std::error::Error, "use not noted");
            }
        }
    }

    pub(super) fn inventory(&self) -> Result<Inventory, UsageError> {
        let repositories = self.repositories().map_err(|source| UsageError::Folder {
            path: self.inner().folder.repositories(),
            source,
        })?;
        let mut inventory = Inventory {
            blobs: self.blob_files()?,
            repositories,
            ..Inventory::default()
        };
        self.inner().metadata.each(Table::Layers, |key, value| {
            let id = LayerId::new(String::from_utf8_lossy(key));
            match serde_json::from_slice::<LayerRecord>(value) {
                Ok(record) => drop(inventory.layers.insert(id, record)),
                Err(error) => tracing::warn!(layer = %id, %error, "layer record ignored"),
            }
        })?;
        let mut named: HashSet<Digest> = self.blobs_of_builds()?;
        for record in inventory.layers.values() {
            named.extend(blobs_of(record).cloned());
        }
        for (digest, file) in &inventory.blobs {
            if !named.contains(digest) {
                inventory.documents.push((digest.clone(), *file));
            }
        }
        Ok(inventory)
    }

    fn blob_files(&self) -> Result<HashMap<Digest, BlobFile>, UsageError> {
        let folder = self.inner().folder.blobs();
        let mut blobs = HashMap::new();
        let algorithms = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(source) => return Err(UsageError::Folder { path: folder, source }),
        };
        for algorithm in algorithms.flatten() {
            let path = algorithm.path();
            let entries = fs::read_dir(&path).map_err(|source| UsageError::Folder { path, source })?;
            for entry in entries.flatten() {
                let (Some(algorithm), Some(hex)) = (
                    algorithm.file_name().to_str().map(str::to_owned),
                    entry.file_name().to_str().map(str::to_owned),
                ) else {
                    continue;
                };
                // A blob may go while one looks.
                if let (Ok(digest), Ok(file)) = (format!("{algorithm}:{hex}").parse(), entry.metadata()) {
                    let file = BlobFile {
                        size: file.len(),
                        modified: file.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    };
                    blobs.insert(digest, file);
                }
            }
        }
        Ok(blobs)
    }

    pub(super) fn usage_of(&self, inventory: &Inventory) -> Vec<Usage> {
        let mut entries: Vec<Usage> = inventory
            .layers
            .iter()
            .map(|(id, record)| self.usage_of_layer(id, record, inventory))
            .collect();
        if !inventory.documents.is_empty() {
            let times = inventory.documents.iter().map(|(_, file)| file.modified);
            entries.push(Usage {
                id: DOCUMENTS.to_owned(),
                content: Content::Internal,
                description: "manifests and configs of images".to_owned(),
                parents: Vec::new(),
                size: inventory.documents.iter().map(|(_, file)| file.size).sum(),
                mutable: false,
                in_use: false,
                created_at: times.clone().min().unwrap_or(SystemTime::UNIX_EPOCH),
                last_used: times.max().unwrap_or(SystemTime::UNIX_EPOCH),
                uses: 0,
            });
        }
        let repositories = inventory.repositories.iter();
        entries.extend(repositories.map(|repository| Usage {
            id: format!("{REPOSITORY}{}", repository.name),
            content: Content::Git,
            description: "git repository".to_owned(),
            parents: Vec::new(),
            size: repository.size,
            mutable: true,
            in_use: repository.in_use,
            created_at: repository.created_at,
            last_used: repository.last_used,
            uses: 0,
        }));
        entries
    }

    fn usage_of_layer(&self, id: &LayerId, record: &LayerRecord, inventory: &Inventory) -> Usage {
        let blobs: u64 = blobs_of(record)
            .filter_map(|digest| inventory.blobs.get(digest))
            .map(|file| file.size)
            .sum();
        let parent = record
            .parent
            .as_ref()
            .filter(|parent| inventory.layers.contains_key(parent));
        let is_cache = record.content == Content::CacheMount;
        let files = match is_cache {
            true => self.cache_size(id, record),
            false => self.folder_size(id, record),
        };
        Usage {
            id: id.to_string(),
            content: record.content,
            description: description(record),
            parents: parent.iter().map(ToString::to_string).collect(),
            size: files + blobs,
            mutable: is_cache,
            in_use: self.inner().holds.lock().holds_layer(id),
            created_at: record.created_at,
            last_used: record.last_used,
            uses: record.uses,
        }
    }

    /// Bytes of the files of a layer, which are measured if nobody did that before.
    fn folder_size(&self, id: &LayerId, record: &LayerRecord) -> u64 {
        if let Some(known) = record.disk_size {
            return known;
        }
        if !self.has_folder(id) {
            return 0;
        }
        let size = match disk_size(&self.layer_folder(id)) {
            Ok(size) => size,
            Err(error) => {
                tracing::debug!(layer = %id, %error, "layer not measured");
                return 0;
            }
        };
        let noted = self.update_existing_layer(id, |record| record.disk_size = Some(size));
        if let Err(error) = noted {
            tracing::debug!(layer = %id, error = &error as &dyn std::error::Error, "size not noted");
        }
        size
    }
}

/// The blobs that a layer has in the blob store, or may have.
pub(super) fn blobs_of(record: &LayerRecord) -> impl Iterator<Item = &Digest> {
    let came_as = record.remote.iter().map(|remote| &remote.descriptor.digest);
    let made = record.blobs.values().map(|made| &made.digest);
    let converted = record.converted.iter().map(|made| &made.descriptor.digest);
    let mut seen = HashSet::new();
    came_as
        .chain(made)
        .chain(converted)
        .filter(move |digest| seen.insert(*digest))
}

fn description(record: &LayerRecord) -> String {
    let origin = || {
        let remote = record.remote.as_ref()?;
        Some(format!(
            "pulled from {}@{}",
            remote.repositories.first()?,
            remote.descriptor.digest
        ))
    };
    let of_content = || match record.content {
        Content::Local => "local source".to_owned(),
        _ => String::new(),
    };
    [&record.step, &record.description]
        .into_iter()
        .find(|text| !text.is_empty())
        .cloned()
        .or_else(origin)
        .unwrap_or_else(of_content)
}
