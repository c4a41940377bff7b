//! The configuration file of a cluster.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vsr::config::FormatFor;
use vsr::protocol::limits::CHECKPOINT_BYTES;
use vsr::storage::StorageError;
use vsr::{ClusterId, Config, ReplicaId, Storage};
use vsr_storage_file::{FileOptions, FileStorage};

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

impl StorageKind {
    /// The storage whose files are in a folder.
    pub(crate) fn of(folder: &Path) -> StorageKind {
        if folder.join("seal").exists() { StorageKind::Rocksdb } else { StorageKind::File }
    }

    /// Opens the folder of a replica.
    ///
    /// # Errors
    /// When it is not formatted, in use, or damaged.
    pub(crate) fn open(self, folder: &Path) -> Result<Box<dyn Storage>, Error> {
        match self {
            StorageKind::File => Ok(Box::new(FileStorage::open(folder)?)),
            #[cfg(feature = "rocksdb")]
            StorageKind::Rocksdb => Ok(Box::new(vsr_storage_rocksdb::RocksStorage::open(folder)?)),
            #[cfg(not(feature = "rocksdb"))]
            StorageKind::Rocksdb => Err(WITHOUT_ROCKSDB.into()),
        }
    }

    /// Tells the folder of a replica that the place where it is now is meant.
    pub(crate) fn accept_place(self, folder: &Path) -> Result<(), Error> {
        match self {
            StorageKind::File => Ok(FileStorage::accept_place(folder)?),
            #[cfg(feature = "rocksdb")]
            StorageKind::Rocksdb => Ok(vsr_storage_rocksdb::RocksStorage::accept_place(folder)?),
            #[cfg(not(feature = "rocksdb"))]
            StorageKind::Rocksdb => Err(WITHOUT_ROCKSDB.into()),
        }
    }
}

/// The same file for every replica and client of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The number that names the cluster, as messages show it.
    #[serde(serialize_with = "write_cluster", deserialize_with = "read_cluster")]
    pub cluster: ClusterId,
    /// The addresses of the replicas, in the order of their ids.
    pub replicas: Vec<String>,
    /// The folder that holds a folder for each replica. Relative to the configuration file.
    pub folder: PathBuf,
    /// Where the log is kept.
    #[serde(default)]
    pub storage: StorageKind,
    /// Bytes that the log of a replica may grow to, decided when its disk is formatted; 1 GiB if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// Ops between two checkpoints, the same for all replicas, decided when their disks are formatted; 0 for none, a million if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_ops: Option<u64>,
    /// Where each replica serves its metrics; none if left out.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Listen on, and connect to, addresses other than loopback although nothing is encrypted.
    #[serde(default)]
    pub allow_insecure: bool,
}

impl ClusterConfig {
    /// Reads a file, and refuses what cannot work.
    ///
    /// # Errors
    /// In words that name the file.
    pub fn read(path: &Path) -> Result<ClusterConfig, Error> {
        let named = |error: &dyn fmt::Display| Error::from(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let mut config: ClusterConfig = toml::from_str(&text).map_err(|error| named(&error))?;
        if config.folder.is_relative() {
            config.folder = path.parent().unwrap_or(Path::new("")).join(config.folder);
        }
        config.check().map_err(|error| named(&error))?;
        Ok(config)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(std::fs::write(path, toml::to_string(self)?)?)
    }

    fn check(&self) -> Result<(), Error> {
        if self.replicas.is_empty() {
            return Err("`replicas` is empty: list the address of each replica, as host:port".into());
        }
        if !self.metrics.is_empty() && self.metrics.len() != self.replicas.len() {
            return Err("`metrics` needs an address for each replica".into());
        }
        let mut taken: Vec<&str> = Vec::new();
        let replicas = self.replicas.iter().map(|address| ("replicas", address));
        for (list, address) in replicas.chain(self.metrics.iter().map(|address| ("metrics", address))) {
            let port = port_of(address).map_err(|why| format!("`{list}`: {address:?} is not an address: {why}"))?;
            if port == 0 && list == "replicas" {
                return Err(format!("`replicas`: {address:?} has port 0: no peer could connect to this replica").into());
            }
            if list == "replicas" {
                self.check_literal(address)?;
            }
            if port != 0 && taken.iter().any(|other| is_same(other, address)) {
                return Err(format!("`{list}`: {address:?} stands twice: give each an address of its own").into());
            }
            taken.push(address);
        }
        // What else the protocol wants of members and limits.
        self.replica(0).map(|_| ())
    }

    /// Whether others may connect to an address that is no name. What a name stands for is looked at when it is used.
    fn check_literal(&self, address: &str) -> Result<(), Error> {
        let Ok(literal) = address.parse::<SocketAddr>() else { return Ok(()) };
        if literal.ip().is_unspecified() {
            return Err(format!(
                "`replicas`: {address:?} stands for every machine, and no peer can connect to it: write the address of the \
                 replica's own machine"
            )
            .into());
        }
        if !literal.ip().is_loopback() && !self.allow_insecure {
            return Err(format!(
                "`replicas`: {address:?} is not a loopback address, and nothing is encrypted: write `allow_insecure = true` if \
                 the network is trusted"
            )
            .into());
        }
        Ok(())
    }

    /// What a replica is told.
    ///
    /// # Errors
    /// When the cluster cannot work as configured.
    pub fn replica(&self, id: u8) -> Result<Config, Error> {
        let mut config = Config::new(self.cluster, ReplicaId(id), self.replicas.iter().cloned())?;
        if let Some(ops) = self.checkpoint_ops {
            config.membership.constants.checkpoint_ops = ops;
            config.validate().map_err(|error| format!("`checkpoint_ops`: {error}"))?;
        }
        if let Some(limit) = self.log_limit {
            config.log_bytes_max = limit;
            // Three intervals of checkpoints fit into the log.
            let constants = &mut config.membership.constants;
            let interval = limit.saturating_sub(constants.log_room_min()) / 3;
            constants.checkpoint_bytes = constants.checkpoint_bytes.min(interval).max(CHECKPOINT_BYTES.min);
            // Its name in the file.
            config.validate().map_err(|error| format!("`log_limit`: {error}"))?;
        }
        Ok(config)
    }

    /// Where a replica keeps its files.
    #[must_use]
    pub fn folder_of(&self, id: u8) -> PathBuf {
        self.folder.join(format!("replica-{id}"))
    }

    /// Formats the disk of a replica.
    ///
    /// # Errors
    /// When there is something already, or the disk refuses.
    pub fn format(&self, id: u8) -> Result<(), Error> {
        self.format_disk(id, FormatFor::NewCluster)
    }

    /// Gives a replica a new disk, in the place of one that is lost or must not be used any more. What is in its folder is moved aside: where to.
    ///
    /// # Errors
    /// When a process runs on the folder, the cluster is too small, or the disk refuses.
    pub fn recover(&self, id: u8) -> Result<Option<PathBuf>, Error> {
        let folder = self.folder_of(id);
        self.replica(id)?.first_state(FormatFor::LostDisk)?;
        let is_something = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        if !is_something {
            self.format_disk(id, FormatFor::LostDisk)?;
            return Ok(None);
        }
        if let Err(error) = self.open(id)
            && let Some(StorageError::InUse(_)) = error.downcast_ref()
        {
            return Err(error);
        }
        let name = |at: u32| self.folder.join(format!("replica-{id}.replaced-{at}"));
        let aside = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
        fs::rename(&folder, &aside).map_err(|error| format!("moving {} aside: {error}", folder.display()))?;
        self.format_disk(id, FormatFor::LostDisk)?;
        Ok(Some(aside))
    }

    pub(crate) fn format_disk(&self, id: u8, purpose: FormatFor) -> Result<(), Error> {
        let (folder, config) = (self.folder_of(id), self.replica(id)?);
        match self.storage {
            StorageKind::File => {
                let mut options = FileOptions::default();
                if let Some(limit) = self.log_limit {
                    options.log_limit = limit;
                }
                Ok(FileStorage::format_for(folder, &config, purpose, options)?)
            }
            #[cfg(feature = "rocksdb")]
            StorageKind::Rocksdb => {
                let mut options = vsr_storage_rocksdb::RocksOptions::default();
                if let Some(limit) = self.log_limit {
                    options.log_limit = limit;
                }
                Ok(vsr_storage_rocksdb::RocksStorage::format_for(folder, &config, purpose, options)?)
            }
            #[cfg(not(feature = "rocksdb"))]
            StorageKind::Rocksdb => Err(WITHOUT_ROCKSDB.into()),
        }
    }

    /// Opens the disk of a replica.
    ///
    /// # Errors
    /// When it is not formatted, in use, or damaged.
    pub fn open(&self, id: u8) -> Result<Box<dyn Storage>, Error> {
        self.storage.open(&self.folder_of(id))
    }
}

#[cfg(not(feature = "rocksdb"))]
const WITHOUT_ROCKSDB: &str = "this program was built without RocksDB: build it with `--features rocksdb`";

/// The port of `host:port`.
fn port_of(address: &str) -> Result<u16, &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("write host:port")?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host == "[]" || address.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err("write host:port");
    }
    if host.contains(':') && !is_bracketed {
        return Err("write an IPv6 address in brackets, as [::1]:4000");
    }
    // A sign would be read, too.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| is_number).ok_or("the port is a number from 1 to 65535")
}

/// Whether two texts are the same address, however it is written.
fn is_same(one: &str, other: &str) -> bool {
    match (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// TOML's integers end at 63 bits; a larger number is written as a text.
fn write_cluster<S: Serializer>(cluster: &ClusterId, serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(cluster.0) {
        Ok(number) => serializer.serialize_i64(number),
        Err(_) => serializer.collect_str(cluster),
    }
}

fn read_cluster<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
    deserializer.deserialize_any(ClusterVisitor)
}

struct ClusterVisitor;

impl Visitor<'_> for ClusterVisitor {
    type Value = ClusterId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number that names the cluster, as 7 or \"7\"")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ClusterId, E> {
        self.visit_i128(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ClusterId, E> {
        Ok(ClusterId(number.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, number: i128) -> Result<ClusterId, E> {
        u128::try_from(number).map(ClusterId).map_err(|_| E::custom("the number of a cluster is not negative"))
    }

    fn visit_u128<E: serde::de::Error>(self, number: u128) -> Result<ClusterId, E> {
        Ok(ClusterId(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ClusterId, E> {
        text.parse().map_err(|_| E::custom(format_args!("{text:?} is not the number of a cluster")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClusterConfig, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cluster.toml");
        std::fs::write(&path, text).expect("the file");
        ClusterConfig::read(&path).map_err(|error| {
            let text = error.to_string();
            assert!(text.contains("cluster.toml"), "the file is named: {text}");
            text
        })
    }

    #[test]
    fn addresses_without_a_meaning_are_refused_in_words() {
        let good = "\"127.0.0.1:4000\", \"localhost:4001\", \"[::1]:4002\"";
        read(&format!("cluster = 7\nfolder = \"data\"\nreplicas = [{good}]\n")).expect("it can work");
        let bad = [
            ("", "is empty"),
            ("\"\"", "write host:port"),
            ("\"127.0.0.1\"", "write host:port"),
            ("\":4000\"", "write host:port"),
            ("\"local host:4000\"", "write host:port"),
            ("\"http://localhost:4000\"", "write host:port"),
            ("\"::1:4000\"", "in brackets"),
            ("\"localhost:http\"", "1 to 65535"),
            ("\"localhost:70000\"", "1 to 65535"),
            ("\"localhost:-1\"", "1 to 65535"),
            ("\"localhost:+1\"", "1 to 65535"),
            ("\"localhost:0\"", "port 0"),
            ("\"localhost:1\", \"LOCALHOST:1\"", "stands twice"),
            ("\"0.0.0.0:4000\"", "every machine"),
            ("\"[::]:4000\"", "every machine"),
            ("\"192.0.2.1:4000\"", "allow_insecure"),
            ("\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:1\"", "stands twice"),
            ("\"[::1]:1\", \"[0:0:0:0:0:0:0:1]:1\"", "stands twice"),
            ("\"h:1\",\"h:2\",\"h:3\",\"h:4\",\"h:5\",\"h:6\",\"h:7\",\"h:8\",\"h:9\",\"h:10\"", "members"),
        ];
        for (replicas, words) in bad {
            let error = read(&format!("cluster = 7\nfolder = \"data\"\nreplicas = [{replicas}]\n"));
            let error = error.expect_err(replicas);
            assert!(error.contains(words), "{replicas}: {error}");
        }
        let small = "cluster = 7\nfolder = \"data\"\nlog_limit = 5\nreplicas = [\"h:1\"]\n";
        assert!(read(small).expect_err("no op fits").contains("`log_limit`"));
        let absurd = "cluster = 7\nfolder = \"data\"\ncheckpoint_ops = 9000000000000\nreplicas = [\"h:1\"]\n";
        assert!(read(absurd).expect_err("never due").contains("`checkpoint_ops`"));
        let trusted = "cluster = 7\nfolder = \"data\"\nallow_insecure = true\nreplicas = [\"192.0.2.1:4000\"]\n";
        read(trusted).expect("it can work");
        let error = read("cluster = 7\nfolder = \"data\"\nreplicas = [\"h:1\"]\nmetrics = [\"h:1\"]\n");
        assert!(error.expect_err("one port for two").contains("stands twice"));
    }

    /// What a message shows can be put into the file.
    #[test]
    fn a_cluster_id_is_read_as_it_is_shown() {
        let rest = "folder = \"data\"\nreplicas = [\"localhost:1\"]\n";
        for number in [0, 77, u128::from(u64::MAX), u128::MAX] {
            let shown = ClusterId(number).to_string();
            let config = read(&format!("cluster = \"{shown}\"\n{rest}")).expect("it can work");
            assert_eq!(config.cluster, ClusterId(number));
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("again.toml");
            config.write(&path).expect("the file");
            assert_eq!(ClusterConfig::read(&path).expect("it can work").cluster, ClusterId(number));
        }
        assert_eq!(read(&format!("cluster = 77\n{rest}")).expect("it can work").cluster, ClusterId(77));
        assert!(read(&format!("cluster = -1\n{rest}")).expect_err("below zero").contains("not negative"));
        assert!(read(&format!("cluster = \"4d\"\n{rest}")).expect_err("no number").contains("not the number"));
    }
}
