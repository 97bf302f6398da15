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
    /// [`ObjectName::Pack`].
    Pack,
    /// [`ObjectName::Manifest`].
    Manifest,
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
    pub const ALL: [Self; 18] = [
        Self::Descriptor,
        Self::DataKey,
        Self::Binding,
        Self::WalFile,
        Self::WalCopy,
        Self::History,
        Self::Node,
        Self::Pack,
        Self::Manifest,
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
            ["index", timeline, level, _, first_segment] => {
                let timeline = Timeline(u32::from_str_radix(timeline, 16).ok()?);
                let (level, first_segment) = (level.parse().ok()?, u64::from_str_radix(first_segment, 16).ok()?);
                let is_node = (1..=MAX_LEVEL).contains(&level) && first_segment.is_multiple_of(span(level));
                is_node.then_some(Self::Node { cluster, system_id, timeline, level, first_segment })
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
            Self::Pack { .. } => NameKind::Pack,
            Self::Manifest { .. } => NameKind::Manifest,
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
            Self::Pack { .. } => Some(ObjectKind::Pack),
            Self::Manifest { .. } => Some(ObjectKind::Manifest),
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
            | Self::Pack { cluster, .. }
            | Self::Manifest { cluster, .. }
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
            | Self::Pack { system_id, .. }
            | Self::Manifest { system_id, .. }
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
            Self::Pack { cluster, system_id, pack } => write!(f, "{}{pack}", Prefix::Packs(cluster, *system_id)),
            Self::Manifest { cluster, system_id, backup } => write!(f, "{}{backup}", Prefix::Manifests(cluster, *system_id)),
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::pg::SegmentName;
    use crate::store::ContentId;

    fn wal_file() -> impl Strategy<Value = StoredName> {
        let segment = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(timeline, log, segment)| SegmentName {
            timeline: Timeline(timeline),
            log,
            segment,
        });
        (segment, any::<u32>(), 0..4_u8, 1..10_u32).prop_map(|(name, offset, kind, copy)| match kind {
            0 => WalFileName::Segment(name).into(),
            1 => WalFileName::History(name.timeline).into(),
            2 => StoredName { file: WalFileName::Partial(name), copy },
            _ => StoredName { file: WalFileName::Backup(name, offset), copy },
        })
    }

    fn backup_id() -> impl Strategy<Value = BackupId> {
        (0..200_000_000_000_i64, any::<u32>()).prop_map(|(second, random)| BackupId::new(second, random).unwrap())
    }

    fn of_a_cluster() -> impl Strategy<Value = ObjectName> {
        let cluster = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}".prop_map(|name| ClusterName::new(&name).unwrap());
        let level = (1..=MAX_LEVEL, any::<u64>()).prop_map(|(level, number)| (level, number / span(level) * span(level)));
        let parts = (cluster, any::<u64>().prop_map(SystemId), wal_file(), backup_id(), any::<u32>(), level, 0..9_u8);
        parts.prop_map(|(cluster, system_id, file, backup, number, (level, first_segment), kind)| match kind {
            0 => ObjectName::Binding { cluster, generation: number % 100_000_000 },
            1 => ObjectName::Node { cluster, system_id, timeline: Timeline(number), level, first_segment },
            2 => ObjectName::Pack { cluster, system_id, pack: PackId { backup, number } },
            3 => ObjectName::Manifest { cluster, system_id, backup },
            4 => ObjectName::BegunBackup { cluster, system_id, backup },
            5 => {
                let part = [TombstonePart::Names, TombstonePart::Open, TombstonePart::Begun][(number % 3) as usize];
                ObjectName::Tombstone { cluster, system_id, id: backup, part }
            }
            6 => ObjectName::Pin { cluster, system_id, backup, number: number % 100_000_000 },
            7 => ObjectName::Evidence { cluster, system_id, id: backup },
            _ => ObjectName::Wal { cluster, system_id, file },
        })
    }

    fn any_name() -> impl Strategy<Value = ObjectName> {
        let key = "[a-z0-9]{1,9}(/[a-z0-9][a-z0-9._-]{0,9}){0,3}".prop_map(|key| Key::new(key).unwrap());
        (of_a_cluster(), key, any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), 0..9_u8).prop_map(
            |(name, key, one, other, random, kind)| match kind {
                0 => ObjectName::Descriptor,
                1 => ObjectName::DataKey { key_id: KeyId(one), wrapping_key_id: KeyId(other) },
                2 => ObjectName::Probe(key),
                4 => ObjectName::Repair { number: 1 + u32::from(one[0]), of: Box::new(name) },
                3 => ObjectName::Claim(ClaimName { object: key, content: ContentId(one), random }),
                _ => name,
            },
        )
    }

    proptest! {
        #[test]
        fn a_name_that_is_written_is_read_again(name in any_name()) {
            let text = name.to_string();
            prop_assert_eq!(name.key().unwrap().to_string(), text.clone());
            prop_assert_eq!(ObjectName::parse(&text), Some(name));
        }

        /// One character more, less or otherwise makes it another name or none; nothing has two spellings.
        #[test]
        fn every_name_has_one_spelling(name in any_name(), at in any::<prop::sample::Index>(), change in 0..3, other in "[ -~]") {
            let mut text = name.to_string();
            let at = at.index(text.len());
            let end = if change == 0 { at } else { at + 1 };
            text.replace_range(at..end, if change == 1 { "" } else { &other });
            if let Some(read) = ObjectName::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
        }

        #[test]
        fn names_of_others_are_read_without_a_panic(text in "[a-zA-Z0-9/._-]{0,80}|\\PC{0,40}") {
            if let Some(read) = ObjectName::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn kinds_follow_from_names() {
        let segment = "00000001000000A0000000FE";
        let zeros = "0".repeat(32);
        let tombstone = |suffix: &str| format!("clusters/main/7/tombstones/20260102T030405Z-0000beef{suffix}");
        let names = [
            ("walvis.json".to_owned(), NameKind::Descriptor, None),
            (format!("keys/{zeros}/{zeros}.json"), NameKind::DataKey, None),
            ("clusters/main/bindings/00000001".to_owned(), NameKind::Binding, Some(ObjectKind::Binding)),
            (format!("clusters/main/7/wal/00000001/000000A0/{segment}"), NameKind::WalFile, Some(ObjectKind::Segment)),
            (format!("clusters/main/7/wal/00000001/000000A0/{segment}.partial"), NameKind::WalFile, Some(ObjectKind::Partial)),
            (
                format!("clusters/main/7/wal/00000001/000000A0/{segment}.00000028.backup"),
                NameKind::WalFile,
                Some(ObjectKind::Backup),
            ),
            (format!("clusters/main/7/wal/00000001/000000A0/{segment}.partial.2"), NameKind::WalCopy, Some(ObjectKind::Partial)),
            ("clusters/main/7/wal/history/0000000B.history".to_owned(), NameKind::History, Some(ObjectKind::History)),
            ("clusters/main/7/index/00000001/2/000000000001/0000000000010100".to_owned(), NameKind::Node, Some(ObjectKind::Node)),
            ("clusters/main/7/packs/20260102T030405Z-0000beef/0000000a".to_owned(), NameKind::Pack, Some(ObjectKind::Pack)),
            ("clusters/main/7/backups/20260102T030405Z-0000beef".to_owned(), NameKind::Manifest, Some(ObjectKind::Manifest)),
            (format!("claims/walvis.json/{zeros}-00000000000000ff"), NameKind::Claim, None),
            ("clusters/main/7/begun/20260102T030405Z-0000beef".to_owned(), NameKind::BegunBackup, Some(ObjectKind::BegunBackup)),
            (tombstone(""), NameKind::Tombstone, Some(ObjectKind::Tombstone)),
            (tombstone(".open"), NameKind::TombstoneOpen, Some(ObjectKind::Tombstone)),
            (tombstone(".begun"), NameKind::TombstoneBegun, Some(ObjectKind::Tombstone)),
            ("clusters/main/7/pins/20260102T030405Z-0000beef/00000001".to_owned(), NameKind::Pin, Some(ObjectKind::Pin)),
            ("clusters/main/7/evidence/20260102T030405Z-0000beef".to_owned(), NameKind::Evidence, Some(ObjectKind::Evidence)),
            ("repairs/1/clusters/main/bindings/00000001".to_owned(), NameKind::Repair, Some(ObjectKind::Binding)),
            ("probe/kept".to_owned(), NameKind::Probe, None),
        ];
        let mut seen = HashSet::new();
        for (text, kind, sealed) in names {
            let name = ObjectName::parse(&text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!((name.kind(), name.sealed_kind(), name.to_string().as_str()), (kind, sealed, text.as_str()));
            assert_eq!(name.cluster().is_some(), text.contains("clusters/"));
            seen.insert(kind);
        }
        assert_eq!(seen, HashSet::from(NameKind::ALL));
    }

    #[test]
    fn other_names_are_ignored() {
        let (zeros, segment) = ("0".repeat(32), "00000001000000A0000000FE");
        for text in [
            "",
            "walvis.json/x",
            "Walvis.json",
            "clusters/main",
            "clusters/-main/bindings/00000001",
            "clusters/main/bindings/1",
            "clusters/main/bindings/000000001",
            "clusters/main/7/bindings/00000001",
            "clusters/main/07/backups/20260102T030405Z-0000beef",
            "clusters/main/7/backups/20260102T030405Z-0000BEEF",
            "clusters/main/7/backups/20260102T030405Z-0000beef/x",
            "clusters/main/7/packs/20260102T030405Z-0000beef/A",
            "clusters/main/7/packs/20260102T030405Z-0000beef",
            // Of another directory, of no level, of the middle of a node.
            "clusters/main/7/index/00000001/1/000000000002/0000000000010100",
            "clusters/main/7/index/00000001/0/000000000001/0000000000010100",
            "clusters/main/7/index/00000001/12/000000000000/0000000000000000",
            "clusters/main/7/index/00000001/2/000000000001/0000000000010110",
            "clusters/main/7/index/0000000a/2/000000000001/0000000000010100",
            "clusters/main/7/wal/history/0000000B.history.2",
            "clusters/main/7/wal/0000000B/00000000/0000000B.history",
            "claims/walvis.json",
            "probe/",
            "probe/.x",
            "dumps/x",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("keys/{zeros}/{zeros}"),
            format!("keys/{}/{zeros}.json", "A".repeat(32)),
            format!("clusters/main/7/wal/00000002/000000A0/{segment}"),
            format!("clusters/main/7/wal/history/{segment}"),
            format!("clusters/main/7/wal/00000001/000000A0/{segment}.2"),
            format!("claims/walvis.json/{zeros}-ff"),
        ]) {
            assert_eq!(ObjectName::parse(&text), None, "{text}");
        }
    }
}
