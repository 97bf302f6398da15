//! The server that is backed up: what it says about itself, and the session that the backup runs on.

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::manifest::{DamagedPage, Database};
use crate::fsio::{Entered, Identity, as_owner_of, file_error};
use crate::limits::{
    ARCHIVER_LOOK_EVERY, ARCHIVER_PATIENCE, CHECKPOINT_ATTEMPTS, CHECKPOINT_PAUSE, MAX_NAMED_DATABASES, SIZES_TIMEOUT_S,
};
use crate::pg::data_directory::relation_file;
use crate::pg::{BackupLabel, ClusterState, ControlFile, Lsn, SegmentName, Timeline, WalSegmentSize};
use crate::postgres::archiving_settings::{ArchivingProblem, ArchivingSettings};
use crate::postgres::postmaster_pid::PostmasterPid;
use crate::postgres::{Server, archiver, control_file, hex_of, of_hex, quoted};
use crate::raw_text::{RawText, shown};
use crate::repo::{Facts, SystemId};
use crate::waiting;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Oldest and newest supported major version.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// What the server says.
pub(crate) struct Source<'a> {
    /// The session of the backup.
    pub server: Server,
    conninfo: Option<&'a str>,
    deadline: Deadline,
    /// `server_version_num`.
    pub version_num: u32,
    /// System identifier.
    pub system_id: SystemId,
    /// Segment size.
    pub wal_segment_size: WalSegmentSize,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The data directory, by the server's account or the caller's.
    pub data_directory: PathBuf,
    /// `stats_temp_directory` relative to the data directory (13 and 14).
    pub statistics: Option<PathBuf>,
    /// Databases, with sizes where they may be asked for.
    pub databases: Vec<Database>,
}

/// What `pg_backup_stop` says.
pub(crate) struct Stopped {
    /// Where a restored cluster is consistent.
    pub stop: Lsn,
    /// `backup_label`, byte for byte.
    pub label_file: Vec<u8>,
    /// The same, read.
    pub label: BackupLabel,
    /// `tablespace_map`, byte for byte; empty when there are no tablespaces.
    pub map_file: Vec<u8>,
}

fn server_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Server, what)
}

impl<'a> Source<'a> {
    /// Connects and asks.
    ///
    /// # Errors
    /// [`Kind::Server`], also for a version that is not supported.
    pub(crate) fn connect(conninfo: Option<&'a str>, pgdata: Option<&Path>, deadline: Deadline) -> Result<Self, Error> {
        let server = Server::connect(conninfo, deadline)?;
        server.value("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")?;
        let databases = databases(&server)?;
        // The session is idle for as long as the copying takes, and starting may wait for a checkpoint.
        server.lift_timeouts()?;
        let number = |name: &str| -> Result<u64, Error> {
            let text = server.value(&format!("SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}'"))?;
            text.parse().map_err(|_| server_error(format!("the server says {name} = {text}")))
        };
        let version_num = u32::try_from(number("server_version_num")?).unwrap_or_default();
        if !MAJORS.contains(&(version_num / 10_000)) {
            return Err(server_error(format!("the server's version is {}", version_num / 10_000))
                .hint("this version of Walvis backs up PostgreSQL 13 to 18"));
        }
        let system_id = server.value("SELECT system_identifier FROM pg_catalog.pg_control_system()")?;
        let system_id = system_id.parse().map_err(|_| server_error(format!("the server says system identifier {system_id}")))?;
        let segment_bytes = number("wal_segment_size")?;
        let wal_segment_size = WalSegmentSize::new(segment_bytes)
            .ok_or_else(|| server_error(format!("the server says WAL segments of {segment_bytes} bytes")))?;
        let data_directory = match pgdata {
            Some(path) => path.to_owned(),
            None => match server.text("pg_catalog.current_setting('data_directory', true)") {
                Ok(Some(path)) => path.as_path().to_owned(),
                Ok(None) => return Err(server_error("the server does not say where its data directory is")),
                Err(e) => {
                    return Err(e.hint("name the data directory with --pgdata, or GRANT pg_read_all_settings to the role"));
                }
            },
        };
        // Not a setting any more since 15.
        let statistics = server.text("pg_catalog.current_setting('stats_temp_directory', true)").ok().flatten();
        let statistics = statistics.map(|path| path.as_path().to_owned());
        let statistics = statistics.and_then(|path| match path.strip_prefix(&data_directory) {
            Ok(relative) => Some(relative.to_owned()),
            Err(_) if path.is_relative() => Some(path),
            Err(_) => None,
        });
        let in_recovery = server.value("SELECT pg_catalog.pg_is_in_recovery()")? == "t";
        let system_id = SystemId(system_id);
        Ok(Self {
            server,
            conninfo,
            deadline,
            version_num,
            system_id,
            wal_segment_size,
            in_recovery,
            data_directory,
            statistics,
            databases,
        })
    }

    /// Major version.
    pub(crate) fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// What the cluster's name is bound to.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            system_id: self.system_id,
            wal_segment_size: self.wal_segment_size,
            postgres_major: u16::try_from(self.major()).ok(),
        }
    }

    /// Makes sure that the data directory is this server's, and one that Walvis can read.
    ///
    /// # Errors
    /// [`Kind::Refused`] when it is another server's; [`Kind::Config`] when it cannot be read.
    pub(crate) fn check_directory(&self, control: &ControlFile) -> Result<(), Error> {
        let path = self.data_directory.display();
        let refused = |why: String| {
            Error::new(Kind::Refused, format!("{path} is not the data directory of the server that was asked: {why}"))
                .hint("run the backup on the database host; name the directory with --pgdata and the server with --server")
        };
        if control.system_id != self.system_id.0 {
            return Err(refused(format!("its system identifier is {}, the server's {}", control.system_id, self.system_id)));
        }
        if !control.has_usual_layout() {
            return Err(server_error(format!(
                "the server was built with pages of {} bytes and {} of them per file",
                control.page_bytes, control.pages_per_file
            ))
            .hint("Walvis backs up servers with the usual 8192 and 131072"));
        }
        let pid_file = PostmasterPid::read(&self.data_directory).map_err(|e| file_error(Kind::Config, e))?;
        let Some(pid_file) = pid_file else { return Err(refused("no server runs there".to_owned())) };
        // A standby of the same cluster has the same system identifier, and may run on the same host.
        let recovers = control.state == ClusterState::ArchiveRecovery;
        if recovers != self.in_recovery {
            let role = |standby: bool| if standby { "a standby" } else { "a primary" };
            return Err(refused(format!("it is of {}, the server is {}", role(recovers), role(self.in_recovery))));
        }
        let port = self.server.setting("port")?.unwrap_or_default();
        if pid_file.port().as_bytes() != port.as_bytes() {
            return Err(refused(format!("the server there has port {}, the one asked {port}", pid_file.port())));
        }
        // Not every role may know it.
        let sockets = self.server.text("pg_catalog.current_setting('unix_socket_directories', true)").ok().flatten();
        let sockets = sockets.unwrap_or_default();
        let first = sockets.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        let first = RawText::from(first.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(first));
        let socket = pid_file.socket_directory();
        if !first.as_bytes().is_empty() && !socket.as_bytes().is_empty() && socket != first {
            return Err(refused(format!("the server there has its socket in {socket}, the one asked in {first}")));
        }
        Ok(())
    }

    /// As root, acts as the owner of the data directory, so that nothing comes into the backup that this
    /// user could not read: neither by a link there, nor by what the server says of itself. Threads that are started
    /// meanwhile do the same.
    ///
    /// # Errors
    /// [`Kind::Refused`] where it is root's.
    pub(crate) fn act_as_owner(&self) -> Result<Entered, Error> {
        let entered = as_owner_of(&self.data_directory)?;
        if Identity::current().owner().uid == 0 {
            return Err(Error::new(
                Kind::Refused,
                format!("{} belongs to root, and no PostgreSQL server runs as root", shown(&self.data_directory)),
            )
            .hint("name the data directory of the server with --pgdata"));
        }
        Ok(entered)
    }

    /// Its `pg_wal`.
    pub(crate) fn wal_directory(&self) -> PathBuf {
        self.data_directory.join("pg_wal")
    }

    /// What `pg_control` says now, and its bytes: read until its checksum fits. `None` when it is gone.
    ///
    /// # Errors
    /// [`Kind::Config`] when it cannot be read.
    pub(crate) fn control_bytes(&self) -> Result<Option<(ControlFile, Vec<u8>)>, Error> {
        control_file::control_of(&self.data_directory, &self.deadline)
    }

    /// What `pg_control` says now.
    ///
    /// # Errors
    /// [`Kind::Config`] when it cannot be read.
    pub(crate) fn control(&self) -> Result<ControlFile, Error> {
        let found = self.control_bytes()?;
        let (control, _) = found.ok_or_else(|| {
            Error::new(Kind::Config, format!("{} is no data directory that can be seen from here", self.data_directory.display()))
                .hint("run the backup on the database host, or name the directory with --pgdata")
        })?;
        Ok(control)
    }

    /// The checkpoint that the server knows is the one in the directory: another proof that the two belong together,
    /// since a standby of the same cluster has the same system identifier.
    ///
    /// # Errors
    /// [`Kind::Refused`] when they do not; [`Kind::Server`].
    pub(crate) fn check_checkpoint(&self) -> Result<(), Error> {
        let mut seen = (String::new(), String::new());
        for _ in 0..CHECKPOINT_ATTEMPTS {
            let server = self.server.value("SELECT checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()")?;
            let directory = self.control()?.checkpoint.to_string();
            if server == directory {
                return Ok(());
            }
            seen = (server, directory);
            // Another checkpoint came in between.
            std::thread::sleep(CHECKPOINT_PAUSE);
        }
        let path = self.data_directory.display();
        let (server, directory) = seen;
        Err(Error::new(
            Kind::Refused,
            format!("{path} is not the data directory of the server that was asked: its checkpoint is {directory}, the server's {server}"),
        )
        .hint("name the directory with --pgdata and the server with --server"))
    }

    /// Makes sure that WAL is archived at all: a backup without it is worth nothing, and that should not be found out
    /// after hours.
    ///
    /// # Errors
    /// [`Kind::Server`], with what to do.
    pub(crate) fn check_archiving(
        &self,
        arrives: &dyn Fn() -> Result<bool, Error>,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.in_recovery {
            // The primary archives, or this server with archive_mode = always.
            return Ok(());
        }
        let problems = ArchivingSettings::read(&self.server)?.problems();
        let hint = "set archive_mode = on and archive_command = 'walvis push-wal %p' and restart; 'walvis check' tells more";
        if problems.contains(&ArchivingProblem::MinimalWal) {
            return Err(server_error("wal_level is minimal: no backup can be taken").hint("set wal_level = replica and restart"));
        }
        if problems.contains(&ArchivingProblem::Off) {
            // Something else may send WAL there.
            return if arrives()? {
                Ok(())
            } else {
                Err(server_error(
                    "archive_mode is off, and the repository holds no recent WAL of this server: a backup could not \
                     be restored",
                )
                .hint(hint))
            };
        }
        if problems.contains(&ArchivingProblem::NoCommand) && !arrives()? {
            return Err(server_error("archive_command is empty: WAL is kept, but not archived").hint(hint));
        }
        if archiver::would_work(&self.server, &self.data_directory, go_on)? {
            return Ok(());
        }
        let _waiting = waiting::on("the archiver, which failed last time");
        let since = Instant::now();
        loop {
            let status = archiver::Status::of(&self.server)?;
            if !status.is_failing {
                return Ok(());
            }
            if since.elapsed() > ARCHIVER_PATIENCE {
                return Err(archiver::fails_by_itself(&status, status.failed_count));
            }
            go_on()?;
            std::thread::sleep(ARCHIVER_LOOK_EVERY);
        }
    }

    /// Begins the backup, which may wait for a checkpoint. Says where recovery from it begins.
    ///
    /// # Errors
    /// [`Kind::Server`]; as `go_on`'s.
    pub(crate) fn start(&self, label: &str, fast: bool, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Lsn, Error> {
        // What the database's encoding may not have must not keep a backup from being taken: the manifest has it in any
        // case.
        let is_sayable = label.is_ascii() || self.server.setting("server_encoding")?.as_deref() == Some("UTF8");
        let label = quoted(if is_sayable { label } else { "walvis" });
        let call = if self.major() >= 15 {
            format!("SELECT pg_catalog.pg_backup_start({label}, {fast})")
        } else {
            format!("SELECT pg_catalog.pg_start_backup({label}, {fast}, false)")
        };
        let hint =
            "the role must be a superuser, or have EXECUTE on the functions that start and stop backups, and pg_read_all_stats";
        let hasten = if fast { "" } else { "; --fast or CHECKPOINT hastens it" };
        let _waiting = waiting::on(format!("the server's checkpoint{hasten}"));
        let row = self.server.row_patiently(&call, go_on).map_err(|e| if e.hint.is_none() { e.hint(hint) } else { e })?;
        lsn(row.into_iter().next().flatten())
    }

    /// Ends the backup. The session must be the one that began it; a server that restarted meanwhile, or a standby that
    /// was promoted, says no.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(crate) fn stop(&self, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Stopped, Error> {
        let call = if self.major() >= 15 { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
        // As hexadecimal digits: paths in the map are bytes, whatever the encoding of the database.
        let statement =
            format!("SELECT lsn, {}, {} FROM pg_catalog.{call}", hex_of("labelfile"), hex_of("coalesce(spcmapfile, '')"));
        let mut row = self
            .server
            .row_patiently(&statement, go_on)
            .map_err(|e| {
                Error { hint: None, ..e }.while_doing("end the backup").hint("the backup does not count; take another one")
            })?
            .into_iter();
        let stop = lsn(row.next().flatten())?;
        let mut file = || of_hex(&row.next().flatten().unwrap_or_default()).map(|bytes| bytes.as_bytes().to_vec());
        let (label_file, map_file) = (file()?, file()?);
        let label = BackupLabel::parse(&label_file).map_err(|e| server_error(format!("the server's backup_label: {e}")))?;
        Ok(Stopped { stop, label_file, label, map_file })
    }

    /// The timeline that the server writes, or replays: a checkpoint may lag behind a promotion.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(crate) fn timeline(&self, of_control: Timeline) -> Result<u32, Error> {
        if self.in_recovery {
            return self.stop_timeline(of_control.0);
        }
        let name = self.server.value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())")?;
        SegmentName::parse(&name)
            .map(|name| name.timeline.0)
            .ok_or_else(|| server_error(format!("the server says WAL file {name:?}")))
    }

    /// The timeline on which the stop position is.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(crate) fn stop_timeline(&self, started_on: u32) -> Result<u32, Error> {
        if !self.in_recovery {
            return Ok(started_on);
        }
        let text = self.server.value("SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()")?;
        Ok(text.parse().unwrap_or(started_on).max(started_on))
    }

    /// Finds the names of damaged relations, as far as that is possible.
    pub(crate) fn name_relations(&self, damage: &mut [DamagedPage]) {
        let of = |page: &DamagedPage| relation_file(page.file.as_bytes());
        let mut databases: Vec<Option<u32>> = damage.iter().filter_map(of).map(|(directory, _)| directory.database).collect();
        databases.sort_unstable();
        databases.dedup();
        for database in databases.into_iter().take(MAX_NAMED_DATABASES) {
            let name = match database {
                Some(oid) => self.databases.iter().find(|known| known.oid == oid).map(|known| known.name.clone()),
                // Shared relations have the same names everywhere.
                None => self.server.text("pg_catalog.current_database()").ok().flatten(),
            };
            let Some(name) = name else { continue };
            // Nothing but UTF-8 can be asked for; the file's name has to do then.
            let Some(utf8) = name.as_str() else { continue };
            let Ok(server) = Server::connect_to(self.conninfo, Some(utf8), self.deadline) else { continue };
            for page in damage.iter_mut() {
                let Some((directory, file)) = of(page).filter(|(directory, _)| directory.database == database) else { continue };
                // 1664 is pg_global; 0 the database's own tablespace.
                let tablespace = directory.tablespace.unwrap_or(if database.is_none() { 1664 } else { 0 });
                let relation = format!("pg_catalog.pg_filenode_relation({tablespace}, {})::pg_catalog.regclass", file.number);
                page.relation = server
                    .text(&relation)
                    .ok()
                    .flatten()
                    .map(|relation| [utf8.as_bytes(), b": ", relation.as_bytes()].concat().into());
            }
        }
    }
}

fn lsn(value: Option<String>) -> Result<Lsn, Error> {
    let text = value.unwrap_or_default();
    text.parse().map_err(|_| server_error(format!("the server says {text:?}, which is no LSN")))
}

fn databases(server: &Server) -> Result<Vec<Database>, Error> {
    // The server looks at every file for this; where that takes too long, the names have to do.
    server.value(&format!("SELECT pg_catalog.set_config('statement_timeout', '{SIZES_TIMEOUT_S}s', false)"))?;
    let name = hex_of("d.datname");
    let rows = server.rows(&format!(
        "SELECT d.oid, {name}, CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') \
         OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN pg_catalog.pg_database_size(d.oid) END \
         FROM pg_catalog.pg_database d ORDER BY d.oid"
    ));
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!("the sizes of databases are not known: {}", error.what);
            server.rows(&format!("SELECT d.oid, {name} FROM pg_catalog.pg_database d ORDER BY d.oid"))?
        }
    };
    let mut databases = Vec::with_capacity(rows.len());
    for row in rows {
        let mut row = row.into_iter();
        let oid = row.next().flatten().and_then(|oid| oid.parse().ok());
        let (Some(oid), Some(name)) = (oid, row.next().flatten()) else { continue };
        let name = of_hex(&name)?;
        databases.push(Database { oid, name, bytes: row.next().flatten().and_then(|bytes| bytes.parse().ok()) });
    }
    Ok(databases)
}
