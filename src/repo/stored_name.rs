//! Names of WAL files as they are stored: PostgreSQL's, and a number where there are several contents of one name.

use std::fmt;

use crate::pg::WalFileName;

/// A WAL file under the name that it is stored by: the server's, and behind it the number of the content, if it is not
/// the first of this name. Only what recovery never asks for can have more than one: two promotions off one segment
/// leave two `.partial` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredName {
    /// The server's name.
    pub file: WalFileName,
    /// Which content of this name, from 1.
    pub copy: u32,
}

impl StoredName {
    /// Reads a name; `None` if nothing is stored under such a one.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(file) = WalFileName::parse(text) {
            return Some(file.into());
        }
        let (file, number) = text.rsplit_once('.')?;
        let stored = Self { file: WalFileName::parse(file)?, copy: number.parse().ok()? };
        (stored.copy > 1 && may_have_copies(&stored.file) && stored.to_string() == text).then_some(stored)
    }
}

impl From<WalFileName> for StoredName {
    fn from(file: WalFileName) -> Self {
        Self { file, copy: 1 }
    }
}

impl From<&WalFileName> for StoredName {
    fn from(file: &WalFileName) -> Self {
        (*file).into()
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.copy {
            1 => write!(f, "{}", self.file),
            copy => write!(f, "{}.{copy}", self.file),
        }
    }
}

/// Whether several contents of one name are kept: recovery reads neither of these.
pub(super) fn may_have_copies(file: &WalFileName) -> bool {
    matches!(file, WalFileName::Partial(_) | WalFileName::Backup(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_recovery_never_reads_has_copies() {
        for name in [
            "00000001000000A0000000FE",
            "00000001000000A0000000FE.partial",
            "00000001000000A0000000FE.partial.2",
            "0000000B.history",
        ] {
            assert_eq!(StoredName::parse(name).map(|stored| stored.to_string()).as_deref(), Some(name));
        }
        for name in ["0000000B.history.2", "00000001000000A0000000FE.2", "00000001000000A0000000FE.partial.1", "x.partial.2"]
            .into_iter()
            .chain(["00000001000000A0000000FE.partial.02", "00000001000000A0000000FE.partial.-2"])
        {
            assert_eq!(StoredName::parse(name), None, "{name}");
        }
    }
}
