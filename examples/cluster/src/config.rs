//! The configuration file of a cluster.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vsr::{Config, Storage};
use vsr_storage_file::FileStorage;

use crate::Error;

/// Where the log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Preallocated files; pure Rust.
    #[default]
    File,
    /// RocksDB; only when built with the feature `rocksdb`.
    Rocksdb,
}

/// The same file for every replica and client of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The number that names the cluster.
    pub cluster: u64,
    /// The addresses of the replicas, in the order of their ids.
    pub replicas: Vec<String>,
    /// The folder that holds a folder for each replica. Relative to the configuration file.
    pub folder: PathBuf,
    /// Where the log is kept.
    #[serde(default)]
    pub storage: StorageKind,
    /// Where each replica serves its metrics; none if left out.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Listen on, and connect to, addresses other than loopback although nothing is encrypted.
    #[serde(default)]
    pub allow_insecure: bool,
}

impl ClusterConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// In words that name the file.
    pub fn read(path: &Path) -> Result<ClusterConfig, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut config: ClusterConfig =
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if config.folder.is_relative() {
            config.folder = path.parent().unwrap_or(Path::new("")).join(config.folder);
        }
        if !config.metrics.is_empty() && config.metrics.len() != config.replicas.len() {
            return Err(format!("{}: `metrics` needs an address for each replica", path.display()).into());
        }
        Ok(config)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(std::fs::write(path, toml::to_string(self)?)?)
    }

    /// What a replica is told.
    ///
    /// # Errors
    /// When the cluster cannot work as configured.
    pub fn replica(&self, id: u8) -> Result<Config, Error> {
        Ok(Config::new(self.cluster.into(), id, self.replicas.iter().cloned())?)
    }

    fn folder_of(&self, id: u8) -> PathBuf {
        self.folder.join(format!("replica-{id}"))
    }

    /// Formats the disk of a replica.
    ///
    /// # Errors
    /// When there is something already, or the disk refuses.
    pub fn format(&self, id: u8) -> Result<(), Error> {
        let (folder, config) = (self.folder_of(id), self.replica(id)?);
        match self.storage {
            StorageKind::File => Ok(FileStorage::format(folder, &config)?),
            #[cfg(feature = "rocksdb")]
            StorageKind::Rocksdb => Ok(vsr_storage_rocksdb::RocksStorage::format(folder, &config)?),
            #[cfg(not(feature = "rocksdb"))]
            StorageKind::Rocksdb => Err(WITHOUT_ROCKSDB.into()),
        }
    }

    /// Opens the disk of a replica.
    ///
    /// # Errors
    /// When it is not formatted, in use, or damaged.
    pub fn open(&self, id: u8) -> Result<Box<dyn Storage>, Error> {
        let folder = self.folder_of(id);
        match self.storage {
            StorageKind::File => Ok(Box::new(FileStorage::open(folder)?)),
            #[cfg(feature = "rocksdb")]
            StorageKind::Rocksdb => Ok(Box::new(vsr_storage_rocksdb::RocksStorage::open(folder)?)),
            #[cfg(not(feature = "rocksdb"))]
            StorageKind::Rocksdb => Err(WITHOUT_ROCKSDB.into()),
        }
    }
}

#[cfg(not(feature = "rocksdb"))]
const WITHOUT_ROCKSDB: &str = "this program was built without RocksDB: build it with `--features rocksdb`";
