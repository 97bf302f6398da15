//! Waiting until the repository holds the WAL that a backup needs.

use crate::backup::source::Source;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, file_error};
use crate::limits::{COMPARED_SEGMENTS, NEEDED_WAL_FIRST_PAUSE, NEEDED_WAL_MAX_PAUSE, WAIT_REPORTED_AFTER};
use crate::pg::{Lsn, SegmentName, Timeline, WalFileName};
use crate::postgres::Server;
use crate::postgres::archiver::Watch;
use crate::repo::backups::BackupWal;
use crate::repo::{ClusterName, Facts, Repository};
use crate::waiting;
use crate::wal::compare::{self, Held};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The WAL of a backup.
pub(crate) struct NeededWal<'a> {
    pub repository: &'a Repository,
    pub cluster: &'a ClusterName,
    pub facts: Facts,
    /// From here.
    pub start: Lsn,
    /// To here.
    pub stop: Lsn,
    /// The timelines of these two positions; a standby may have followed its primary to a later one meanwhile.
    pub timelines: (Timeline, Timeline),
}

impl NeededWal<'_> {
    /// Numbers of the first and the last segment.
    fn segments(&self) -> (u64, u64) {
        let wal = BackupWal { timeline: self.timelines.0, start: self.start, stop: self.stop };
        wal.segments(self.facts.wal_segment_size).into_inner()
    }

    /// Adds those that the repository holds by now, from `from` on.
    fn look(&self, from: u64, present: &mut HashSet<u64>) -> Result<(), Error> {
        let (_, last) = self.segments();
        let (Timeline(first_timeline), Timeline(last_timeline)) = self.timelines;
        for timeline in first_timeline..=last_timeline {
            self.repository.visit_segments(self.cluster, self.facts, Timeline(timeline), (from, last), &mut |number, _| {
                present.insert(number);
            })?;
        }
        Ok(())
    }

    /// Waits until all segments are there. `patience` is how long nothing may happen.
    ///
    /// # Errors
    /// [`Kind::Server`] when nothing happens any more, with what to do; as the store's; as `go_on`'s.
    pub(crate) fn wait(
        &self,
        source: &Source<'_>,
        patience: Duration,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (first, last) = self.segments();
        let (mut next, mut present) = (first, HashSet::new());
        let (mut progress, mut said) = (Instant::now(), Instant::now());
        let (mut archived, mut pause) = (None, NEEDED_WAL_FIRST_PAUSE);
        // Where something else than the server's archiver ships WAL, only what arrives counts.
        let mode = source.server.setting("archive_mode").ok().flatten();
        let archives = !source.in_recovery && mode.is_none_or(|mode| mode != "off");
        // The backup is over for the server, so it may end: what counts is that the WAL arrives.
        let mut watch = match archives {
            true => Watch::new(&source.server, Some(&source.data_directory), true).ok(),
            false => None,
        };
        let waiting = waiting::on("the last WAL to be archived");
        loop {
            let before = present.len();
            self.look(next, &mut present)?;
            while present.contains(&next) {
                next += 1;
            }
            let is_offered = archives && self.is_offered(source, last)?;
            if next > last && !is_offered {
                return self.compare(source, go_on);
            }
            // The archiver may have a backlog of older segments.
            let count = source.server.value("SELECT archived_count FROM pg_catalog.pg_stat_archiver").ok();
            if present.len() > before || (count.is_some() && count != archived) {
                progress = Instant::now();
            }
            archived = count;
            let segment = self.name(next.min(last));
            if let Some(Err(error)) = watch.as_mut().map(|watch| watch.look(Some(&segment), go_on))
                && !source.server.is_closed()
            {
                return Err(error);
            }
            waiting.is_for(format!("{segment} to be archived, {} of {} segments are stored", present.len(), last - first + 1));
            if progress.elapsed() > patience {
                return Err(self.missing(source, &segment, patience));
            }
            if said.elapsed() > WAIT_REPORTED_AFTER {
                said = Instant::now();
                let hint = if source.in_recovery {
                    "; the primary archives it when it is full: run pg_switch_wal() there, or name the primary with --primary"
                } else {
                    ""
                };
                tracing::info!("waiting for {segment}, {} of {} segments are stored{hint}", present.len(), last - first + 1);
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                go_on()?;
                std::thread::sleep(NEEDED_WAL_FIRST_PAUSE.min(until.saturating_duration_since(Instant::now())));
            }
            pause = (pause * 2).min(NEEDED_WAL_MAX_PAUSE);
        }
    }

    /// Whether the archiver has not done with a segment: that something is stored under its name proves nothing.
    fn is_offered(&self, source: &Source<'_>, number: u64) -> Result<bool, Error> {
        let ready = format!("pg_wal/archive_status/{}.ready", self.name(number));
        fsio::exists(&source.data_directory.join(ready)).map_err(|e| file_error(Kind::Config, e))
    }

    /// Holds the last segments that are still in `pg_wal` against what is stored. The archiver sends them in order, so
    /// those before were not refused either. Of a standby's last one only what it has received counts.
    fn compare(&self, source: &Source<'_>, go_on: &dyn Fn() -> Result<(), Error>) -> Result<(), Error> {
        let (first, last) = self.segments();
        let size = self.facts.wal_segment_size;
        let from = if source.in_recovery { last } else { first.max(last.saturating_sub(COMPARED_SEGMENTS - 1)) };
        for number in from..=last {
            go_on()?;
            let Some(name) = SegmentName::from_number(self.timelines.1, number, size) else { continue };
            let file = WalFileName::Segment(name);
            let local = source.data_directory.join("pg_wal").join(file.to_string());
            let held = if source.in_recovery {
                let bytes = self.stop.0.saturating_sub(number.saturating_mul(size.bytes()));
                compare::compare_beginning(self.repository, self.cluster, self.facts, &file, &local, bytes)?
            } else {
                compare::compare(self.repository, self.cluster, self.facts, &file, &local)?
            };
            if held == Held::Other {
                return Err(compare::other_content(&file, self.repository));
            }
        }
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        let name = SegmentName::from_number(self.timelines.1, number, self.facts.wal_segment_size);
        name.map_or_else(|| number.to_string(), |name| name.to_string())
    }

    fn missing(&self, source: &Source<'_>, segment: &str, patience: Duration) -> Error {
        let statistics = source.server.row("SELECT last_archived_wal, last_failed_wal FROM pg_catalog.pg_stat_archiver");
        let said = match statistics.ok().flatten().as_deref() {
            Some([archived, failed]) => format!(
                "; the server's archiver last stored {}, and last failed with {}",
                archived.as_deref().unwrap_or("nothing"),
                failed.as_deref().unwrap_or("nothing")
            ),
            _ => String::new(),
        };
        let hint = if source.in_recovery {
            "the primary archives a segment when it is full: name it with --primary, or run pg_switch_wal() there during the backup; is \
             its archive_command 'walvis push-wal %p' with this repository and cluster name?"
        } else {
            "is archive_command 'walvis push-wal %p' with this repository and cluster name? The server's log says why it fails; \
             --timeout gives it more time"
        };
        Error::new(
            Kind::Server,
            format!(
                "WAL segment {segment} did not arrive in {} within {} s{said}: the backup does not count",
                self.repository.location(),
                patience.as_secs()
            ),
        )
        .hint(hint)
    }
}

/// Makes the primary of a standby end its current segment, so that it is archived.
///
/// # Errors
/// [`Kind::Server`]; [`Kind::Refused`] when it is not the primary of this cluster.
pub(crate) fn switch_on_primary(conninfo: &str, facts: Facts, deadline: Deadline) -> Result<(), Error> {
    let primary = Server::connect(Some(conninfo), deadline).map_err(|e| e.while_doing("connect to the primary"))?;
    let system_id = primary.value("SELECT system_identifier FROM pg_catalog.pg_control_system()")?;
    if system_id != facts.system_id.to_string() || primary.value("SELECT pg_catalog.pg_is_in_recovery()")? != "f" {
        return Err(Error::new(Kind::Refused, "the server named with --primary is not the primary of this cluster")
            .hint(format!("it has system identifier {system_id}")));
    }
    primary.value("SELECT pg_catalog.pg_switch_wal()").map(drop)
}

/// Whether the repository holds one of the last segments that were finished before this position.
///
/// # Errors
/// As the store's.
pub(crate) fn arrives(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    timeline: Timeline,
    position: Lsn,
) -> Result<bool, Error> {
    let number = position.0 / facts.wal_segment_size.bytes();
    let mut found = false;
    repository.visit_segments(cluster, facts, timeline, (number.saturating_sub(3), number), &mut |_, _| found = true)?;
    Ok(found)
}
