//! The settings by which a server archives, and whether it can with them.
//!
//! Lives here: reading and judging them. May not live here: what a command says of it. Whether the archiver really
//! works is [`archiver`](super::archiver)'s to find out.

use crate::error::Error;
use crate::postgres::Server;

/// What a server without `archive_mode` shows for its command.
const DISABLED: &str = "(disabled)";

/// The settings, as `SHOW` prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchivingSettings {
    /// `archive_mode`.
    pub archive_mode: String,
    /// `archive_command`.
    pub archive_command: String,
    /// `archive_library` (15 and later).
    pub archive_library: Option<String>,
    /// `wal_level`.
    pub wal_level: String,
}

/// Why nothing, or nothing of use, is archived by `archive_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchivingProblem {
    /// `archive_mode` is off.
    Off,
    /// `wal_level` is minimal: the WAL cannot be replayed.
    MinimalWal,
    /// `archive_library` is set: the command is not used.
    LibraryInstead,
    /// `archive_command` is empty: WAL is kept.
    NoCommand,
}

impl ArchivingSettings {
    /// Asks a server.
    ///
    /// # Errors
    /// [`Kind::Server`](crate::error::Kind::Server).
    pub fn read(server: &Server) -> Result<Self, Error> {
        let setting = |name: &str| server.setting(name).map(Option::unwrap_or_default);
        Ok(Self {
            archive_mode: setting("archive_mode")?,
            archive_command: setting("archive_command")?,
            archive_library: server.setting("archive_library")?,
            wal_level: setting("wal_level")?,
        })
    }

    /// What keeps WAL from being archived by the command.
    pub fn problems(&self) -> Vec<ArchivingProblem> {
        let mut problems = Vec::new();
        let is_off = self.archive_mode == "off";
        if is_off {
            problems.push(ArchivingProblem::Off);
        }
        if self.wal_level == "minimal" {
            problems.push(ArchivingProblem::MinimalWal);
        }
        if self.archive_library.as_deref().is_some_and(|library| !library.is_empty()) {
            problems.push(ArchivingProblem::LibraryInstead);
        } else if !is_off && (self.archive_command.is_empty() || self.archive_command == DISABLED) {
            problems.push(ArchivingProblem::NoCommand);
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_server_from_archiving_is_told() {
        use ArchivingProblem::{LibraryInstead, MinimalWal, NoCommand, Off};
        let problems = |mode: &str, command: &str, library: Option<&str>, level: &str| {
            let settings = ArchivingSettings {
                archive_mode: mode.to_owned(),
                archive_command: command.to_owned(),
                archive_library: library.map(str::to_owned),
                wal_level: level.to_owned(),
            };
            settings.problems()
        };
        assert_eq!(problems("on", "walvis push-wal %p", Some(""), "replica"), []);
        assert_eq!(problems("always", "walvis push-wal %p", None, "logical"), []);
        assert_eq!(problems("off", "(disabled)", Some(""), "minimal"), [Off, MinimalWal]);
        assert_eq!(problems("on", "", None, "replica"), [NoCommand]);
        assert_eq!(problems("on", "(disabled)", Some(""), "replica"), [NoCommand]);
        assert_eq!(problems("on", "", Some("basic_archive"), "replica"), [LibraryInstead]);
        assert_eq!(problems("off", "", Some("basic_archive"), "replica"), [Off, LibraryInstead]);
    }
}
