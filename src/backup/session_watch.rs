//! While a cluster is copied: whether the session on the server still is there, and whether what the server archives
//! arrives in the repository. May not live here: waiting for the last WAL ([`wal`](super::wal)).

use crate::backup::context::BackupContext;
use crate::error::{Error, Kind};
use crate::limits::SESSION_PROBED_EVERY;
use crate::pg::{Lsn, SegmentName, WalFileName};
use crate::postgres::archiver;
use crate::wal::compare::{self, Held};
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// Watches over the session and the archiver.
pub(crate) struct SessionWatch<'a> {
    backup: &'a BackupContext<'a>,
    /// Where the backup began.
    start: Lsn,
    archiver: RefCell<Option<archiver::Watch<'a>>>,
    /// When the session last answered.
    answered: Cell<Instant>,
}

impl<'a> SessionWatch<'a> {
    /// Counts from when the server was last asked: a long checkpoint, or a long list of files, is time without an
    /// answer.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(crate) fn new(backup: &'a BackupContext<'a>, start: Lsn) -> Result<Self, Error> {
        let source = backup.source;
        // A standby's archiver, if it has one, is not the one that counts.
        let archiver = match source.in_recovery {
            true => None,
            false => Some(archiver::Watch::new(&source.server, Some(&source.data_directory), true)?),
        };
        Ok(Self { backup, start, archiver: RefCell::new(archiver), answered: Cell::new(backup.asked) })
    }

    /// Whether to go on: asked several times a second.
    ///
    /// # Errors
    /// As `go_on`'s; [`Kind::Server`] when the session is lost or WAL goes elsewhere.
    pub(crate) fn look(&self) -> Result<(), Error> {
        (self.backup.hooks.go_on)()?;
        let lost = "the session on the server ended, and with it the backup";
        let hint = "did the server restart? The backup does not count; take another one";
        let say_if_lost =
            |e: Error| if self.backup.source.server.is_closed() { Error::new(Kind::Server, lost).hint(hint) } else { e };
        if self.backup.source.server.is_closed() {
            return Err(Error::new(Kind::Server, lost).hint(hint));
        }
        if self.answered.get().elapsed() < SESSION_PROBED_EVERY {
            return Ok(());
        }
        let statement = "SELECT last_archived_wal FROM pg_catalog.pg_stat_archiver";
        let row = self.backup.source.server.row(statement).map_err(|e| say_if_lost(e.while_doing(lost).hint(hint)))?;
        self.answered.set(Instant::now());
        // Now rather than after hours: what fails now would keep the backup from counting.
        if let Some(watch) = self.archiver.borrow_mut().as_mut() {
            watch.look(None, self.backup.hooks.go_on).map_err(say_if_lost)?;
        }
        let archived = row.and_then(|row| row.into_iter().next()).flatten();
        self.check_archived(self.start, archived.as_deref())
    }

    /// What the server says it archived since the backup began has to be in the repository: better to find out now that
    /// it goes elsewhere than after hours of copying.
    fn check_archived(&self, start: Lsn, archived: Option<&str>) -> Result<(), Error> {
        let size = self.backup.source.wal_segment_size;
        let Some(name) =
            archived.and_then(SegmentName::parse).filter(|_| self.backup.is_required && !self.backup.source.in_recovery)
        else {
            return Ok(());
        };
        if name.start(size).is_none_or(|first| first < start) {
            return Ok(());
        }
        let (file, wal) = (WalFileName::Segment(name), self.backup.source.data_directory.join("pg_wal"));
        let local = wal.join(file.to_string());
        match compare::compare(self.backup.repository, self.backup.cluster, self.backup.source.facts(), &file, &local)? {
            Held::Same | Held::Unknown => return Ok(()),
            Held::Other => return Err(compare::other_content(&file, self.backup.repository)),
            Held::Absent => {}
        }
        Err(Error::new(
            Kind::Server,
            format!("the server says that it archived {name}, but {} does not hold it", self.backup.repository.location()),
        )
        .hint("is archive_command 'walvis push-wal %p', with this repository and cluster name? 'walvis check' tells"))
    }
}
