//! Names of objects: everything that a repository can hold. The tree in `docs/FORMAT.md` lists the same, and a test
//! holds one against the other.
//!
//! Lives here: reading and writing names, and what kind of object one stands for. May not live here: I/O. All code that
//! makes a name, or takes one apart, does so here, in [`prefix`](super::prefix) and in
//! [`stored_name`](super::stored_name).

use std::fmt;

use super::cluster::{ClusterName, SystemId};
use super::prefix::Prefix;
use super::stored_name::StoredName;
use super::tombstone_name::{EvidenceId, TombstoneId, TombstonePart};
use crate::crypto::KeyId;
use crate::error::{Error, Kind};
use crate::format::envelope::ObjectKind;
use crate::format::extent::{BackupId, PackId};
use crate::format::node::{MAX_LEVEL, span};
use crate::limits::MAX_CHANGES_LEVEL;
use crate::pg::{Timeline, WalFileName};
use crate::store::Key;
use crate::store::claim_name::ClaimName;

/// The name of an object.
///
/// ```
/// use walvis::repo::{NameKind, ObjectName};
///
/// let name = ObjectName::parse("clusters/main/7579128459364321234/wal/history/00000002.history").ok_or("name")?;
/// assert_eq!(name.kind(), NameKind::History);
/// assert_eq!(name.cluster().ok_or("cluster")?.to_string(), "main");
/// assert_eq!(ObjectName::parse("clusters/main/notes.txt"), None, "a repository holds no such object");
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectName {
    /// The descriptor of the repository.
    Descriptor,
    /// A data key, sealed under a wrapping key.
    DataKey {
        /// Of the data key.
        key_id: KeyId,
        /// Of the wrapping key.
        wrapping_key_id: KeyId,
    },
    /// The binding of a cluster's name to a system identifier.
    Binding {
        /// The cluster.
        cluster: ClusterName,
        /// 1, 2, …; at most 8 digits.
        generation: u32,
    },
    /// A file that PostgreSQL archived.
    Wal {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The file, and which of several contents of its name.
        file: StoredName,
    },
    /// A node of the catalog.
    Node {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The timeline of the segments below it.
        timeline: Timeline,
        /// 1 to [`MAX_LEVEL`].
        level: u32,
        /// Number of the first segment below it, a multiple of the segments that a node of this level covers.
        first_segment: u64,
    },
    /// What consecutive segments changed.
    Changes {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The timeline of the segments.
        timeline: Timeline,
        /// 1 to [`MAX_CHANGES_LEVEL`].
        level: u32,
        /// Number of the first of them, a multiple of the segments that a node of this level covers.
        first_segment: u64,
    },
    /// A pack: extents of base backups.
    Pack {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The pack.
        pack: PackId,
    },
    /// The manifest of a base backup.
    Manifest {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The backup.
        backup: BackupId,
    },
    /// What is known of the backups from one to another, without their files.
    BackupIndex {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The first backup.
        first: BackupId,
        /// The last one.
        last: BackupId,
    },
    /// A base backup that has begun: created before its writer looks at anything that it will refer to.
    BegunBackup {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The backup.
        backup: BackupId,
    },
    /// What shall go, and how far that is.
    Tombstone {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// Of the tombstone.
        id: TombstoneId,
        /// Which of its objects.
        part: TombstonePart,
    },
    /// That a backup is to be kept, or need not be any more: the highest number counts.
    Pin {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// The backup.
        backup: BackupId,
        /// 1, 2, …; at most 8 digits.
        number: u32,
    },
    /// What a verification looked at, and found.
    Evidence {
        /// The cluster.
        cluster: ClusterName,
        /// Its system identifier.
        system_id: SystemId,
        /// Of the evidence.
        id: EvidenceId,
    },
    /// A good copy of an object that is damaged, and could not be replaced.
    Repair {
        /// 1, 2, …: the newest counts.
        number: u32,
        /// The object.
        of: Box<ObjectName>,
    },
    /// The claim of a writer on an object that it creates, on stores without create-if-absent.
    Claim(ClaimName),
    /// What a probe of the store left, by its name below `probe/`.
    Probe(Key),
}

/// Kinds of names, one for each line of the tree in `docs/FORMAT.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// [`ObjectName::Descriptor`].
    Descriptor,
    /// [`ObjectName::DataKey`].
    DataKey,
    /// [`ObjectName::Binding`].
    Binding,
    /// A segment, `.partial` or `.backup` file, the first of its name.
    WalFile,
    /// A `.partial` or `.backup` file of which other content was stored first.
    WalCopy,
    /// A timeline history file.
    History,
    /// [`ObjectName::Node`].
    Node,
    /// [`ObjectName::Changes`].
    Changes,
    /// [`ObjectName::Pack`].
    Pack,
    /// [`ObjectName::Manifest`].
    Manifest,
    /// [`ObjectName::BackupIndex`].
    BackupIndex,
    /// [`ObjectName::BegunBackup`].
    BegunBackup,
    /// [`TombstonePart::Names`].
    Tombstone,
    /// [`TombstonePart::Open`].
    TombstoneOpen,
    /// [`TombstonePart::Begun`].
    TombstoneBegun,
    /// [`ObjectName::Pin`].
    Pin,
    /// [`ObjectName::Evidence`].
    Evidence,
    /// [`ObjectName::Repair`].
    Repair,
    /// [`ObjectName::Claim`].
    Claim,
    /// [`ObjectName::Probe`].
    Probe,
}

impl NameKind {
    /// All of them, in the order of the tree in `docs/FORMAT.md`.
    pub const ALL: [Self; 20] = [
        Self::Descriptor,
        Self::DataKey,
        Self::Binding,
        Self::WalFile,
        Self::WalCopy,
        Self::History,
        Self::Node,
        Self::Changes,
        Self::Pack,
        Self::Manifest,
        Self::BackupIndex,
        Self::BegunBackup,
        Self::Tombstone,
        Self::TombstoneOpen,
        Self::TombstoneBegun,
        Self::Pin,
        Self::Evidence,
        Self::Repair,
        Self::Claim,
        Self::Probe,
    ];
}

impl ObjectName {
    /// The name of a file that PostgreSQL archived, or of a later content of its name.
    pub fn wal(cluster: &ClusterName, system_id: SystemId, file: impl Into<StoredName>) -> Self {
        Self::Wal { cluster: cluster.clone(), system_id, file: file.into() }
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` of any other name: readers ignore such objects.
    pub fn parse(text: &str) -> Option<Self> {
        let name = Self::take_apart(text)?;
        (name.to_string() == text).then_some(name)
    }

    /// Reads a name; what it was written by is for the caller to compare.
    fn take_apart(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        match *parts.as_slice() {
            ["walvis.json"] => Some(Self::Descriptor),
            ["keys", key, file] => {
                Some(Self::DataKey { key_id: KeyId::parse(key)?, wrapping_key_id: KeyId::parse(file.strip_suffix(".json")?)? })
            }
            ["clusters", cluster, "bindings", generation] if generation.len() == 8 => {
                Some(Self::Binding { cluster: ClusterName::new(cluster).ok()?, generation: generation.parse().ok()? })
            }
            ["clusters", cluster, system_id, ref below @ ..] => {
                Self::of_system(ClusterName::new(cluster).ok()?, SystemId(system_id.parse().ok()?), below)
            }
            ["repairs", number, ..] => {
                let of = text.strip_prefix("repairs/")?.split_once('/')?.1;
                let of = Self::parse(of).filter(|of| of.sealed_kind().is_some() && !matches!(of, Self::Repair { .. }))?;
                Some(Self::Repair { number: number.parse().ok().filter(|number| *number > 0)?, of: Box::new(of) })
            }
            ["claims", ..] => ClaimName::parse(text).map(Self::Claim),
            ["probe", ..] => Key::new(text.strip_prefix("probe/")?).ok().map(Self::Probe),
            _ => None,
        }
    }

    /// Reads what follows the system identifier.
    fn of_system(cluster: ClusterName, system_id: SystemId, below: &[&str]) -> Option<Self> {
        match *below {
            ["wal", "history", file] | ["wal", _, _, file] => {
                Some(Self::Wal { cluster, system_id, file: StoredName::parse(file)? })
            }
            ["index", "backups", last, first] => {
                Some(Self::BackupIndex { cluster, system_id, first: BackupId::parse(first)?, last: BackupId::parse(last)? })
            }
            ["index", timeline, level, _, first_segment] => {
                let timeline = Timeline(u32::from_str_radix(timeline, 16).ok()?);
                let first_segment = u64::from_str_radix(first_segment, 16).ok()?;
                let is_one =
                    |level: u32, highest: u32| (1..=highest).contains(&level) && first_segment.is_multiple_of(span(level));
                match level.strip_prefix('c') {
                    Some(level) => {
                        let level = level.parse().ok().filter(|level| is_one(*level, MAX_CHANGES_LEVEL))?;
                        Some(Self::Changes { cluster, system_id, timeline, level, first_segment })
                    }
                    None => {
                        let level = level.parse().ok().filter(|level| is_one(*level, MAX_LEVEL))?;
                        Some(Self::Node { cluster, system_id, timeline, level, first_segment })
                    }
                }
            }
            ["packs", backup, number] => {
                Some(Self::Pack { cluster, system_id, pack: PackId::parse(&format!("{backup}/{number}"))? })
            }
            ["backups", backup] => Some(Self::Manifest { cluster, system_id, backup: BackupId::parse(backup)? }),
            ["begun", backup] => Some(Self::BegunBackup { cluster, system_id, backup: BackupId::parse(backup)? }),
            ["tombstones", file] => {
                let (id, part) = TombstonePart::parse(file)?;
                Some(Self::Tombstone { cluster, system_id, id, part })
            }
            ["pins", backup, number] if number.len() == 8 => {
                Some(Self::Pin { cluster, system_id, backup: BackupId::parse(backup)?, number: number.parse().ok()? })
            }
            ["evidence", id] => Some(Self::Evidence { cluster, system_id, id: EvidenceId::parse(id)? }),
            _ => None,
        }
    }

    /// What kind of name it is.
    pub fn kind(&self) -> NameKind {
        match self {
            Self::Descriptor => NameKind::Descriptor,
            Self::DataKey { .. } => NameKind::DataKey,
            Self::Binding { .. } => NameKind::Binding,
            Self::Wal { file: StoredName { file: WalFileName::History(_), .. }, .. } => NameKind::History,
            Self::Wal { file: StoredName { copy: 1, .. }, .. } => NameKind::WalFile,
            Self::Wal { .. } => NameKind::WalCopy,
            Self::Node { .. } => NameKind::Node,
            Self::Changes { .. } => NameKind::Changes,
            Self::Pack { .. } => NameKind::Pack,
            Self::Manifest { .. } => NameKind::Manifest,
            Self::BackupIndex { .. } => NameKind::BackupIndex,
            Self::BegunBackup { .. } => NameKind::BegunBackup,
            Self::Tombstone { part: TombstonePart::Names, .. } => NameKind::Tombstone,
            Self::Tombstone { part: TombstonePart::Open, .. } => NameKind::TombstoneOpen,
            Self::Tombstone { part: TombstonePart::Begun, .. } => NameKind::TombstoneBegun,
            Self::Pin { .. } => NameKind::Pin,
            Self::Evidence { .. } => NameKind::Evidence,
            Self::Repair { .. } => NameKind::Repair,
            Self::Claim(_) => NameKind::Claim,
            Self::Probe(_) => NameKind::Probe,
        }
    }

    /// The kind that is bound into the seal of the object; `None` where an object of this name is not sealed.
    pub fn sealed_kind(&self) -> Option<ObjectKind> {
        match self {
            Self::Descriptor | Self::DataKey { .. } | Self::Claim(_) | Self::Probe(_) => None,
            Self::Binding { .. } => Some(ObjectKind::Binding),
            Self::Wal { file, .. } => Some(match file.file {
                WalFileName::Segment(_) => ObjectKind::Segment,
                WalFileName::Partial(_) => ObjectKind::Partial,
                WalFileName::Backup(..) => ObjectKind::Backup,
                WalFileName::History(_) => ObjectKind::History,
            }),
            Self::Node { .. } => Some(ObjectKind::Node),
            Self::Changes { .. } => Some(ObjectKind::Changes),
            Self::Pack { .. } => Some(ObjectKind::Pack),
            Self::Manifest { .. } => Some(ObjectKind::Manifest),
            Self::BackupIndex { .. } => Some(ObjectKind::BackupIndex),
            Self::BegunBackup { .. } => Some(ObjectKind::BegunBackup),
            Self::Tombstone { .. } => Some(ObjectKind::Tombstone),
            Self::Pin { .. } => Some(ObjectKind::Pin),
            Self::Evidence { .. } => Some(ObjectKind::Evidence),
            Self::Repair { of, .. } => of.sealed_kind(),
        }
    }

    /// The object that this one is a good copy of, if it is a repair.
    pub fn repaired(&self) -> Option<&Self> {
        match self {
            Self::Repair { of, .. } => Some(of),
            _ => None,
        }
    }

    /// The file that PostgreSQL archived, if it is one.
    pub fn wal_file(&self) -> Option<&WalFileName> {
        match self {
            Self::Wal { file, .. } => Some(&file.file),
            _ => None,
        }
    }

    /// The cluster that it belongs to, if it belongs to one.
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Descriptor | Self::DataKey { .. } | Self::Claim(_) | Self::Probe(_) => None,
            Self::Binding { cluster, .. }
            | Self::Wal { cluster, .. }
            | Self::Node { cluster, .. }
            | Self::Changes { cluster, .. }
            | Self::Pack { cluster, .. }
            | Self::Manifest { cluster, .. }
            | Self::BackupIndex { cluster, .. }
            | Self::BegunBackup { cluster, .. }
            | Self::Tombstone { cluster, .. }
            | Self::Pin { cluster, .. }
            | Self::Evidence { cluster, .. } => Some(cluster),
            Self::Repair { of, .. } => of.cluster(),
        }
    }

    /// The system identifier that it belongs to, if it belongs to one.
    pub fn system_id(&self) -> Option<SystemId> {
        match self {
            Self::Descriptor | Self::DataKey { .. } | Self::Binding { .. } | Self::Claim(_) | Self::Probe(_) => None,
            Self::Wal { system_id, .. }
            | Self::Node { system_id, .. }
            | Self::Changes { system_id, .. }
            | Self::Pack { system_id, .. }
            | Self::Manifest { system_id, .. }
            | Self::BackupIndex { system_id, .. }
            | Self::BegunBackup { system_id, .. }
            | Self::Tombstone { system_id, .. }
            | Self::Pin { system_id, .. }
            | Self::Evidence { system_id, .. } => Some(*system_id),
            Self::Repair { of, .. } => of.system_id(),
        }
    }

    /// The key that the object has in a store.
    ///
    /// # Errors
    /// [`Kind::Bug`]: names are made of checked parts, so this fails only by a defect.
    pub fn key(&self) -> Result<Key, Error> {
        Key::new(self.to_string()).map_err(|e| Error::new(Kind::Bug, e.to_string()))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor => f.write_str("walvis.json"),
            Self::DataKey { key_id, wrapping_key_id } => write!(f, "{}{key_id}/{wrapping_key_id}.json", Prefix::DataKeys),
            Self::Binding { cluster, generation } => write!(f, "{}{generation:08}", Prefix::Bindings(cluster)),
            Self::Wal { cluster, system_id, file: stored } => match &stored.file {
                WalFileName::History(_) => write!(f, "{}{stored}", Prefix::Histories(cluster, *system_id)),
                WalFileName::Segment(name) | WalFileName::Partial(name) | WalFileName::Backup(name, _) => {
                    write!(f, "{}{:08X}/{stored}", Prefix::Timeline(cluster, *system_id, name.timeline), name.log)
                }
            },
            // A directory of the nodes of 65,536 segments is read quickly; one of all would not be.
            Self::Node { cluster, system_id, timeline, level, first_segment: first } => {
                write!(f, "{}{:012x}/{first:016x}", Prefix::Nodes(cluster, *system_id, *timeline, *level), first >> 16)
            }
            Self::Changes { cluster, system_id, timeline, level, first_segment: first } => {
                write!(f, "{}{:012x}/{first:016x}", Prefix::Changes(cluster, *system_id, *timeline, *level), first >> 16)
            }
            Self::Pack { cluster, system_id, pack } => write!(f, "{}{pack}", Prefix::Packs(cluster, *system_id)),
            Self::Manifest { cluster, system_id, backup } => write!(f, "{}{backup}", Prefix::Manifests(cluster, *system_id)),
            Self::BackupIndex { cluster, system_id, first, last } => {
                write!(f, "{}{last}/{first}", Prefix::BackupIndex(cluster, *system_id))
            }
            Self::BegunBackup { cluster, system_id, backup } => {
                write!(f, "{}{backup}", Prefix::BegunBackups(cluster, *system_id))
            }
            Self::Tombstone { cluster, system_id, id, part } => {
                write!(f, "{}{id}{}", Prefix::Tombstones(cluster, *system_id), part.suffix())
            }
            Self::Pin { cluster, system_id, backup, number } => {
                write!(f, "{}{backup}/{number:08}", Prefix::Pins(cluster, *system_id))
            }
            Self::Evidence { cluster, system_id, id } => write!(f, "{}{id}", Prefix::Evidence(cluster, *system_id)),
            Self::Repair { number, of } => write!(f, "{}{number}/{of}", Prefix::Repairs),
            Self::Claim(claim) => write!(f, "{claim}"),
            Self::Probe(name) => write!(f, "{}{name}", Prefix::Probes),
        }
    }
}

#[cfg(test)]
mod tests;
