//! The redb file under the records.
//!
//! After a failed write — a full disk, most likely — redb refuses everything until the file is opened again. So the
//! file is closed then, and each later use tries to open it: when there is room again, the daemon goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableError};

use super::{Batch, Table};

/// redb's default is a gigabyte; small records need little.
const CACHE_BYTES: usize = 4 << 20;

pub(super) struct MetadataFile {
    path: PathBuf,
    /// `None` after a failure.
    database: RwLock<Option<Database>>,
}

impl MetadataFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, redb::Error> {
        let database = RwLock::new(Some(create(&path)?));
        Ok(Self { path, database })
    }

    pub(super) fn read(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, redb::Error> {
        self.use_database(|database| {
            let transaction = database.begin_read()?;
            match transaction.open_table(table.definition()) {
                Ok(table) => Ok(table.get(key)?.map(|value| Arc::from(value.value()))),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    pub(super) fn keys(&self, table: Table) -> Result<Vec<Vec<u8>>, redb::Error> {
        self.use_database(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(table.definition()) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            table.iter()?.map(|entry| Ok(entry?.0.value().to_vec())).collect()
        })
    }

    pub(super) fn each(&self, table: Table, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), redb::Error> {
        self.use_database(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(table.definition()) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for entry in table.iter()? {
                let (key, value) = entry?;
                see(key.value(), value.value());
            }
            Ok(())
        })
    }

    pub(super) fn compact(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *database {
            Some(database) => Ok(database.compact().map(drop)?),
            None => Ok(()),
        }
    }

    /// Writes all of `batch`, durably, or nothing.
    pub(super) fn write(&self, batch: &Batch) -> Result<(), redb::Error> {
        let written = self.use_database(|database| write(database, batch));
        if written.is_err() {
            self.close();
        }
        written
    }

    /// As after a failed write.
    pub(super) fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn use_database<T>(
        &self,
        using: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            return using(database);
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = match &mut *database {
            Some(database) => database,
            closed => closed.insert(create(&self.path)?),
        };
        using(database)
    }
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut rest = batch.iter().peekable();
    while let Some(((table, _), _)) = rest.peek() {
        let current = *table;
        let mut open = transaction.open_table(current.definition())?;
        while let Some(((_, key), value)) = rest.next_if(|((table, _), _)| *table == current) {
            match value {
                Some(value) => drop(open.insert(key.as_slice(), &**value)?),
                None => drop(open.remove(key.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
