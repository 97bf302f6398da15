//! Names of the objects of a tombstone. `docs/RETENTION.md` says what they are for.

use crate::format::extent::BackupId;

/// The id of a tombstone: when it was made, and random bits, as of a backup.
pub type TombstoneId = BackupId;
/// The id of evidence: when it was made, and random bits, as of a backup.
pub type EvidenceId = BackupId;

/// The objects of a tombstone, in the order in which they are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TombstonePart {
    /// What shall go.
    Names,
    /// Which backups had begun when it was there, and had no manifest.
    Open,
    /// From here on it is deleted.
    Begun,
}

impl TombstonePart {
    /// What the name of the object ends with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Names => "",
            Self::Open => ".open",
            Self::Begun => ".begun",
        }
    }

    /// Takes a name apart: the id, and which part it is.
    pub(super) fn parse(file: &str) -> Option<(TombstoneId, Self)> {
        let (id, part) = match file.split_once('.') {
            None => (file, Self::Names),
            Some((id, "open")) => (id, Self::Open),
            Some((id, "begun")) => (id, Self::Begun),
            Some(_) => return None,
        };
        Some((TombstoneId::parse(id)?, part))
    }
}
