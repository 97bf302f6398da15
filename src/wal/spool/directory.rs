//! The directory of the spool: where it is, who may use it, and reading and writing records in it.
//!
//! Lives here: [`Spool`], and the conditions under which a record counts: whole, of this boot, of these settings, not
//! too old. May not live here: what the records say.

use super::record::Record;
use crate::config::{Config, SpoolPlace};
use crate::fsio::{self, Boot, FsError};
use crate::limits::MAX_SPOOL_RECORD_BYTES;
use crate::pg::WalFileName;
use crate::repo::{ObjectName, StoreUrl};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The spool of one directory of WAL files.
#[derive(Debug)]
pub struct Spool {
    wal_directory: PathBuf,
    /// The directory that the settings name, where several servers may have their spools.
    shared_root: Option<PathBuf>,
    directory: PathBuf,
    boot: String,
    /// Fingerprint of the settings.
    settings: String,
    /// `walvis.json` of every repository that is a directory.
    pub(super) descriptors: Vec<PathBuf>,
}

impl Spool {
    /// The spool of the WAL files in this directory, which may not have been made yet. `None` where it cannot be used.
    pub fn find(config: &Config, wal_directory: &Path) -> Option<Self> {
        // The server's user alone works ahead: what root does by hand needs none of it, and root keeps out of what
        // others can change.
        let is_safe = |directory: &Path| match fsio::own_user() {
            0 => match fsio::changeable_by_others(directory) {
                Ok(exposure) => exposure.is_none(),
                Err(e) => e.problem == fsio::Problem::Absent,
            },
            _ => true,
        };
        let place = match &config.spool {
            SpoolPlace::Off => return None,
            SpoolPlace::BesideWal => wal_directory,
            SpoolPlace::At(root) => root,
        };
        if !is_safe(place) || !is_safe(wal_directory) {
            return None;
        }
        let (shared_root, directory) = match &config.spool {
            SpoolPlace::Off => return None,
            SpoolPlace::BesideWal => (None, wal_directory.join("walvis")),
            SpoolPlace::At(root) => {
                let stat = fsio::stat(wal_directory).ok().flatten()?;
                (Some(root.clone()), root.join(format!("{:x}-{:x}", stat.dev, stat.ino)))
            }
        };
        let descriptors = config.repositories.iter().filter_map(|repository| descriptor_of(&repository.store.url));
        Some(Self {
            wal_directory: wal_directory.to_owned(),
            shared_root,
            directory,
            boot: Boot::now()?.id,
            settings: fingerprint(config),
            descriptors: descriptors.collect(),
        })
    }

    /// The spool that may know of a WAL file, and the file's name.
    pub fn of_file(config: &Config, path: &Path) -> Option<(Self, WalFileName)> {
        let name = WalFileName::parse(path.file_name()?.to_str()?)?;
        Some((Self::find(config, fsio::directory_of(path))?, name))
    }

    /// The directory of the WAL files.
    pub fn wal_directory(&self) -> &Path {
        &self.wal_directory
    }

    /// Makes the directory, if it is not there, for the owner of the WAL files alone: what root did by hand must not
    /// keep the server out of it.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to another user.
    pub fn create(&self) -> Result<(), FsError> {
        if fsio::owner(&self.wal_directory)? != fsio::own_user() {
            return Err(FsError::because(fsio::Problem::Denied, "make", &self.directory, "the WAL files belong to another user"));
        }
        if let Some(root) = &self.shared_root {
            fsio::make_dirs(root)?;
        }
        fsio::make_own_dir(&self.directory)?;
        for below in ["pushed", "fetched"] {
            fsio::make_own_dir(&self.directory.join(below))?;
        }
        Ok(())
    }

    /// The spool, created if need be; `None` where that fails: calls do without it.
    pub fn created(&self) -> Option<&Self> {
        match self.create() {
            Ok(()) => Some(self),
            Err(error) => {
                tracing::debug!(%error, "no spool");
                None
            }
        }
    }

    /// Identifies the directory; `None` when it is not there or must not be used.
    pub fn id(&self) -> Option<SpoolId> {
        let stat = fsio::private_dir(&self.directory).ok().flatten()?;
        Some(SpoolId { device: stat.dev, inode: stat.ino })
    }

    /// Where something lies in the spool.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The time since this boot; `None` when it is another one by now.
    pub(super) fn now(&self) -> Option<Duration> {
        Boot::now().filter(|boot| boot.id == self.boot).map(|boot| boot.since)
    }

    /// A record or plan, if it is whole, of this boot and of these settings, and not older than `limit`.
    pub(super) fn read(&self, path: &Path, limit: Duration) -> Option<Record> {
        let record = Record::decode(&fsio::read_bounded(path, MAX_SPOOL_RECORD_BYTES).ok()?)?;
        let written = Duration::from_millis(record.get("at")?.parse().ok()?);
        let age = self.now()?.checked_sub(written)?;
        (record.get("boot")? == self.boot && record.get("settings")? == self.settings && age <= limit).then_some(record)
    }

    /// Writes a record or plan, with what [`Self::read`] will ask for.
    pub(super) fn write(&self, path: &Path, mut record: Record) -> Result<(), FsError> {
        let now = self.now().ok_or_else(|| FsError::because(fsio::Problem::Failed, "date", path, "there is no clock"))?;
        record.add("boot", &self.boot);
        record.add("settings", &self.settings);
        // A moment of this boot before now: rounded down, it can only make the record older.
        record.add("at", now.as_millis());
        fsio::write_volatile(path, &record.encode())
    }

    /// The state of `walvis.json` of every repository that is a directory: another repository in its place has another
    /// one. `None` when one is not there.
    pub fn descriptors(&self) -> Option<String> {
        let mut all = String::new();
        for path in &self.descriptors {
            let stat = fsio::stat(path).ok().flatten()?;
            all.push_str(&format!("{}-{}-{}.{} ", stat.dev, stat.ino, stat.changed.0, stat.changed.1));
        }
        Some(all)
    }

    /// Removes something; what cannot be removed stays, and does not count for long.
    pub(super) fn remove(&self, path: &Path) {
        if let Err(error) = fsio::remove_file(path) {
            tracing::debug!(%error, "it stays in the spool");
        }
    }
}

/// Device and inode of a spool's directory: one that was removed and made again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolId {
    device: u64,
    inode: u64,
}

/// Where the descriptor of a repository is, if that is a directory.
fn descriptor_of(url: &StoreUrl) -> Option<PathBuf> {
    match url {
        StoreUrl::File(path) => Some(path.join(ObjectName::Descriptor.to_string())),
        #[cfg(feature = "s3")]
        StoreUrl::S3(_) => None,
    }
}

/// A hash of all settings that decide where files go, and of what the environment says to the S3 client. Secrets have
/// no part in it.
fn fingerprint(config: &Config) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: String| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(format!("{} {}", env!("CARGO_PKG_VERSION"), config.cluster));
    for repository in &config.repositories {
        add(format!("{:?} {:?} {}", repository.store, repository.key, repository.optional));
    }
    let mut aws: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|n| n.starts_with("AWS_") && !n.contains("SECRET") && !n.contains("TOKEN")))
        .collect();
    aws.sort_unstable();
    for (name, value) in aws {
        add(format!("{name:?}={value:?}"));
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}
