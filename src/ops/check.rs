//! `walvis check`: does archiving really work, from the server's settings to the bytes in every repository?
//!
//! It looks at the repositories and at the server, makes the server switch to a new segment, waits until that segment
//! is in every repository, reads it back and holds it against its name. Everything wrong is a
//! [`Finding`](crate::report::check::Finding) with the way to mend it.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::format::descriptor::{CreateIfAbsent, RepositoryCipher};
use crate::fsio::as_owner_of;
use crate::limits::{CHECK_LOOK_EVERY, CHECK_STORE_GRACE, CHECK_TIME_RESERVE};
use crate::pg::{SegmentHead, SegmentName, WalFileName};
use crate::postgres::archiver::{Status, Watch};
use crate::postgres::archiving_settings::{ArchivingProblem, ArchivingSettings};
use crate::postgres::{Server, control_file};
use crate::repo::{Facts, Fetched, KeySource, Probed, Repository, SystemId};
use crate::report::check::{ArchiverCheck, CheckReport, RepositoryCheck, ServerCheck, Severity};
use crate::repositories;
use crate::waiting;
use crate::wal::compare::{self, Held};
use crate::wal::histories;
use crate::wal::missed::missing;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SET_COMMAND: &str = "ALTER SYSTEM SET archive_command = 'walvis push-wal %p'; SELECT pg_reload_conf();";

/// What is asked.
#[derive(Debug, Default)]
pub struct CheckRequest {
    /// Only the repositories, not the server.
    pub no_server: bool,
}

/// Does it all; what goes wrong is in the report.
pub fn run(config: &Config, request: &CheckRequest, deadline: Deadline) -> CheckReport {
    let mut report = CheckReport::new(config.cluster.to_string());
    let mut opened = Vec::new();
    for repository in &config.repositories {
        opened.push(check_repository(repository, &mut report, deadline));
    }
    compare_optional(config, &opened, &mut report);
    if request.no_server {
        return report;
    }
    // The session is idle while a segment is on its way.
    let connected = Server::connect(config.server.as_deref(), deadline);
    let server = match connected.and_then(|server| server.lift_timeouts().map(|()| server)) {
        Ok(server) => server,
        Err(error) => {
            report.add_error(Severity::Problem, "server", error);
            return report;
        }
    };
    if let Err(error) = check_server(&server, config, &opened, &mut report, deadline) {
        report.add_error(Severity::Problem, "server", error);
    }
    report
}

fn failed(repository: &RepositoryConfig) -> Severity {
    if repository.optional { Severity::Warning } else { Severity::Problem }
}

/// What optional repositories lack that the first required one has.
fn compare_optional(config: &Config, opened: &[Option<Repository>], report: &mut CheckReport) {
    let all = || config.repositories.iter().zip(opened).filter_map(|(settings, opened)| Some((settings, opened.as_ref()?)));
    let Some((_, required)) = all().find(|(settings, _)| !settings.optional) else { return };
    // What cannot be read here was found before, or is by the next look at it.
    let Some(system_id) = required.bindings(&config.cluster).ok().and_then(|b| Some(b.last()?.facts.system_id)) else { return };
    for (_, optional) in all().filter(|(settings, _)| settings.optional) {
        match missing(required, optional, &config.cluster, system_id) {
            Ok(files) => {
                let (Some(first), Some(last)) = (files.first(), files.last()) else { continue };
                let what = format!("{} files that {} has are missing there, {first} to {last}", files.len(), required.location());
                let hint =
                    "later pushes send them by themselves; to send them now: cd DATA_DIRECTORY && walvis push-wal --missed";
                report.add(Severity::Warning, optional.location(), what, hint);
            }
            Err(error) => report.add_error(Severity::Warning, optional.location(), error),
        }
    }
}

/// Whether a standby goes on when the repository does not answer.
fn check_standby(server: &Server, report: &mut CheckReport) -> Result<(), Error> {
    let setting = |name: &str| server.setting(name).map(Option::unwrap_or_default);
    let restore_command = setting("restore_command")?;
    if restore_command.contains("fetch-wal") {
        match on_error(&restore_command) {
            Some("stop") => report.add(
                Severity::Warning,
                "server",
                "restore_command says --on-error stop: when the repository does not answer, this standby waits for the whole time limit and \
                 then goes down",
                "take '--on-error stop' out of restore_command: a standby then goes on within seconds",
            ),
            Some("unavailable") => report.add(
                Severity::Warning,
                "server",
                "restore_command says --on-error unavailable: whatever keeps Walvis from telling what the repository has, a wrong key included, \
                 this standby goes on without it, and can be promoted without WAL that is there",
                "take '--on-error unavailable' out of restore_command: a standby then goes on only where nothing can be lost by it",
            ),
            _ => report.add(
                Severity::Note,
                "server",
                "when the repository does not answer, this standby goes on streaming; it is promoted only with all that it can know of \
                 (--on-error auto)",
                "",
            ),
        }
    }
    if !setting("promote_trigger_file")?.is_empty() {
        let what = "promote_trigger_file is set: Walvis cannot see a promotion by it, and may let the server go on without the repository";
        let hint = "promote with pg_ctl promote or pg_promote(), or say --on-error stop in restore_command";
        report.add(Severity::Warning, "server", what, hint);
    }
    Ok(())
}

/// What a restore_command says of it, if anything.
fn on_error(restore_command: &str) -> Option<&str> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '=' | '\'' | '"');
    let words = restore_command.split(is_between).filter(|word| !word.is_empty());
    words.skip_while(|word| *word != "--on-error").nth(1)
}

fn check_repository(repository: &RepositoryConfig, report: &mut CheckReport, deadline: Deadline) -> Option<Repository> {
    let location = repository.store.location();
    let mut check = RepositoryCheck {
        repository: location.clone(),
        opened: false,
        encrypted: None,
        store_refuses_overwrite: None,
        store_races: None,
        can_delete: None,
        protection: None,
        segment_verified: None,
        arrived_after_s: None,
    };
    let opened = match repositories::open(repository, deadline) {
        Ok(opened) => opened,
        Err(error) => {
            report.add_error(failed(repository), &location, error);
            report.repositories.push(check);
            return None;
        }
    };
    check.opened = true;
    check.encrypted = Some(opened.descriptor().cipher != RepositoryCipher::None);
    if check.encrypted == Some(false) {
        let what = format!("it is {}", repositories::UNENCRYPTED);
        report.add(Severity::Warning, &location, what, "for an encrypted one, make a new repository with a key");
        if let Err(error) = repositories::refuse_writable_by_everybody(&opened) {
            report.add_error(Severity::Problem, &location, error);
        }
    } else if !opened.is_named() {
        check_unnamed(repository, &opened, report);
    }
    match repository.store.measure(deadline) {
        Ok(probed) => {
            check_overwrite(repository, &opened, &probed, &mut check, report);
            check.can_delete = Some(probed.can_delete);
            match repositories::protection::check(&repository.store, probed.can_delete, deadline) {
                Ok((protection, findings)) => {
                    check.protection = Some(protection);
                    findings.into_iter().for_each(|finding| report.push(finding));
                }
                Err(error) => report.add_error(failed(repository), &location, error),
            }
        }
        Err(error) => report.add_error(failed(repository), &location, error),
    }
    report.repositories.push(check);
    Some(opened)
}

/// A key that names no repository opens whichever lies there.
fn check_unnamed(repository: &RepositoryConfig, opened: &Repository, report: &mut CheckReport) {
    let known = opened.known_as();
    let what = "nothing says that it is this repository that is meant: another one of the same key would pass for it, if somebody put it there";
    let hint = match repository.key {
        KeySource::File(_) => format!(
            "add the line {} to {}, or run 'walvis init' once as the user that the file belongs to",
            known.line(),
            repository.key.describe()
        ),
        _ => format!("write id = \"{known}\" into its settings, or set WALVIS_REPOSITORY_ID"),
    };
    report.add(Severity::Note, opened.location(), what, hint);
}

/// Does the store do what was recorded when the repository was made?
fn check_overwrite(
    repository: &RepositoryConfig,
    opened: &Repository,
    probed: &Probed,
    check: &mut RepositoryCheck,
    report: &mut CheckReport,
) {
    let location = opened.location();
    let in_use = repository.store.create_if_absent.unwrap_or(opened.descriptor().create_if_absent);
    check.store_refuses_overwrite = Some(probed.doubt.is_none());
    check.store_races = Some(probed.races);
    match (&probed.doubt, in_use) {
        (Some(doubt), CreateIfAbsent::Store) => report.add(
            failed(repository),
            location,
            format!("the store does not refuse to overwrite, but is used as if it did: {doubt}"),
            "set create_if_absent = \"claims\" for this repository on every host that writes to it",
        ),
        (Some(doubt), CreateIfAbsent::Claims) => report.add(
            Severity::Note,
            location,
            format!(
                "the store does not refuse to overwrite: {doubt}; writers announce themselves under claims/ first, with a few more requests"
            ),
            "",
        ),
        (None, _) => {}
    }
}

fn check_server(
    server: &Server,
    config: &Config,
    opened: &[Option<Repository>],
    report: &mut CheckReport,
    deadline: Deadline,
) -> Result<(), Error> {
    let settings = ArchivingSettings::read(server)?;
    let problems = settings.problems();
    let facts = ServerCheck {
        postgres_version: server.setting("server_version")?.unwrap_or_default(),
        system_id: server.value("SELECT system_identifier FROM pg_catalog.pg_control_system()")?,
        in_recovery: server.value("SELECT pg_catalog.pg_is_in_recovery()")? == "t",
        archive_mode: settings.archive_mode,
        archive_command: settings.archive_command,
        archive_library: settings.archive_library,
        wal_level: settings.wal_level,
        archive_timeout_s: number(server, "archive_timeout")?,
        wal_segment_bytes: number(server, "wal_segment_size")?,
        switched_segment: None,
        archiver: None,
    };
    let archives = check_settings(&facts, &problems, report);
    for repository in opened.iter().flatten() {
        check_binding(repository, config, &facts, report);
    }
    let in_recovery = facts.in_recovery;
    report.server = Some(facts);
    if in_recovery {
        check_standby(server, report)?;
        let what = "it is a standby: no segment can be switched here, so the way of a segment was not tried";
        report.add(Severity::Note, "server", what, "run check on the primary too");
        return Ok(());
    }
    if !archives {
        return Ok(());
    }
    let Some(known) = report.server.as_ref().and_then(server_facts) else { return Ok(()) };
    for repository in opened.iter().flatten() {
        if let Err(error) = compare::refuse_set_back(repository, &config.cluster, known, server) {
            // Whatever is archived from now on would be refused.
            report.add_error(Severity::Problem, repository.location(), error);
            return Ok(());
        }
    }
    let data_directory = visible_data_directory(server, known, deadline);
    // As root: as the user whose data directory it is. Where nothing can be read, nothing is.
    let _as = data_directory.as_deref().map(as_owner_of).transpose()?;
    let watch = Watch::new(server, data_directory.as_deref(), false)?;
    // A switch does nothing if nothing was written since the last one: write a message that nothing replays or decodes.
    let segment = server.value(
        "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal()) \
         FROM pg_catalog.pg_logical_emit_message(false, 'walvis', 'check')",
    )?;
    let switched = Instant::now();
    if let Some(facts) = &mut report.server {
        facts.switched_segment = Some(segment.clone());
    }
    match SegmentName::parse(&segment) {
        Some(name) => {
            let way = Way { config, opened, name, switched, facts: known, data_directory: data_directory.as_deref(), deadline };
            way.wait(watch, report)?;
            way.check_histories(report);
        }
        None => report.add(Severity::Problem, "server", format!("it names a segment {segment:?}"), ""),
    }
    Ok(())
}

/// A numeric setting in its base unit.
fn number(server: &Server, name: &str) -> Result<u64, Error> {
    let text = server.value(&format!("SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}'"))?;
    text.parse().map_err(|_| Error::new(crate::error::Kind::Server, format!("{name} is {text:?}, not a number")))
}

/// Says whether a switched segment can be expected to arrive.
fn check_settings(facts: &ServerCheck, problems: &[ArchivingProblem], report: &mut CheckReport) -> bool {
    let command = &facts.archive_command;
    for problem in problems {
        let (what, hint) = match problem {
            ArchivingProblem::Off => (
                "archive_mode is off: nothing is archived".to_owned(),
                "ALTER SYSTEM SET archive_mode = on; then restart the server",
            ),
            ArchivingProblem::MinimalWal => (
                "wal_level is minimal: WAL cannot be replayed".to_owned(),
                "ALTER SYSTEM SET wal_level = replica; then restart the server",
            ),
            ArchivingProblem::LibraryInstead => {
                let library = facts.archive_library.as_deref().unwrap_or_default();
                let what = format!("archive_library is '{library}', so archive_command is not used");
                (what, "ALTER SYSTEM RESET archive_library; SELECT pg_reload_conf();")
            }
            ArchivingProblem::NoCommand => ("archive_command is empty: WAL piles up in pg_wal".to_owned(), SET_COMMAND),
        };
        report.add(Severity::Problem, "server", what, hint);
    }
    let works = problems.is_empty();
    if works && !(command.contains("push-wal") && command.contains("%p")) {
        let what = format!("archive_command does not seem to call 'walvis push-wal %p': {command}");
        report.add(Severity::Warning, "server", what, SET_COMMAND);
    }
    if facts.in_recovery && facts.archive_mode == "on" {
        report.add(Severity::Note, "server", "this standby does not archive (archive_mode is not 'always')", "");
    }
    if facts.archive_timeout_s == 0 && !facts.in_recovery {
        report.add(
            Severity::Warning,
            "server",
            "archive_timeout is 0: on a quiet server the last commits are archived only when a segment is full",
            "ALTER SYSTEM SET archive_timeout = '60s'; SELECT pg_reload_conf(); it bounds what a lost host can lose",
        );
    }
    works
}

fn check_binding(repository: &Repository, config: &Config, facts: &ServerCheck, report: &mut CheckReport) {
    let location = repository.location();
    match repository.bindings(&config.cluster) {
        Err(error) => report.add_error(Severity::Problem, location, error),
        Ok(bindings) => match bindings.last() {
            None => report.add(
                Severity::Note,
                location,
                format!("cluster {} is new there; its first segment will bind the name", config.cluster),
                "",
            ),
            Some(binding) if binding.facts.system_id.to_string() != facts.system_id => report.add(
                Severity::Problem,
                location,
                format!(
                    "cluster name {} belongs to system identifier {}, the server is {}",
                    config.cluster, binding.facts.system_id, facts.system_id
                ),
                format!(
                    "use another cluster name; after pg_upgrade run 'walvis --cluster {} init --pgdata DIR --after-pg-upgrade' once",
                    config.cluster
                ),
            ),
            Some(binding) if binding.facts.wal_segment_size.bytes() != facts.wal_segment_bytes => report.add(
                Severity::Problem,
                location,
                format!(
                    "cluster name {} belongs to WAL segments of {} bytes, the server's have {}",
                    config.cluster,
                    binding.facts.wal_segment_size.bytes(),
                    facts.wal_segment_bytes
                ),
                "the size was changed with pg_resetwal: use another cluster name from now on, and take a base backup",
            ),
            Some(_) => {}
        },
    }
}

/// The server's data directory, if that is what is there as seen from here.
fn visible_data_directory(server: &Server, facts: Facts, deadline: Deadline) -> Option<PathBuf> {
    let path = server.text("pg_catalog.current_setting('data_directory', true)").ok().flatten()?;
    let _as = as_owner_of(path.as_path()).ok()?;
    let found = control_file::of_data_directory(path.as_path(), &deadline).ok().flatten()?;
    (found.system_id == facts.system_id).then(|| path.as_path().to_owned())
}

/// The way of a segment, from the server into every repository that could be opened.
struct Way<'a> {
    config: &'a Config,
    opened: &'a [Option<Repository>],
    name: SegmentName,
    switched: Instant,
    facts: Facts,
    /// Where it is visible from here.
    data_directory: Option<&'a Path>,
    deadline: Deadline,
}

impl Way<'_> {
    /// Waits until the archiver is done with the segment and it is in every repository, reading it back as soon as it
    /// is there.
    fn wait(&self, mut watch: Watch<'_>, report: &mut CheckReport) -> Result<(), Error> {
        let mut waiting: Vec<usize> =
            (0..self.opened.len()).filter(|i| self.opened.get(*i).is_some_and(Option::is_some)).collect();
        let (name, wait) = (self.name.to_string(), waiting::on(format!("{} to be archived", self.name)));
        let (mut status, mut failure, mut archived) = (None, None, None);
        while !waiting.is_empty() || !status.as_ref().is_some_and(|status: &Status| status.is_past(self.name)) {
            match watch.look(Some(&name), &|| Ok(())) {
                Ok(now) => {
                    wait.is_for(format!(
                        "{name} to be archived; the archiver stored {} files and failed {} times, last stored {}",
                        now.archived_count,
                        now.failed_count,
                        now.last_archived.as_deref().unwrap_or("nothing")
                    ));
                    status = Some(now);
                }
                Err(error) => failure = Some(error),
            }
            let is_archived = status.as_ref().is_some_and(|status| status.is_past(self.name));
            waiting.retain(|index| self.is_awaited(*index, is_archived, report));
            if is_archived {
                archived.get_or_insert_with(Instant::now);
            }
            // It went elsewhere.
            let is_elsewhere = archived.is_some_and(|at| at.elapsed() > CHECK_STORE_GRACE);
            if failure.is_some() || is_elsewhere || self.deadline.remaining() <= CHECK_TIME_RESERVE {
                break;
            }
            std::thread::sleep(CHECK_LOOK_EVERY);
        }
        if let (Some(server), Some(status)) = (&mut report.server, &status) {
            server.archiver = Some(ArchiverCheck {
                archived_count: status.archived_count,
                failed_count: status.failed_count,
                last_archived_file: status.last_archived.clone(),
                last_failed_file: status.last_failed.clone(),
                is_failing: status.is_failing,
            });
        }
        for index in &waiting {
            if let Some(check) = report.repositories.get_mut(*index) {
                check.segment_verified = Some(false);
            }
        }
        if let Some(error) = failure {
            report.add_error(Severity::Problem, "server", error);
            return Ok(());
        }
        let Some(status) = status else { return Ok(()) };
        self.say_what_is_missing(&waiting, &watch, &status, report);
        Ok(())
    }

    /// Whether a repository has yet to get it. What has only its name does not count.
    fn is_awaited(&self, index: usize, is_archived: bool, report: &mut CheckReport) -> bool {
        let (Some(Some(repository)), Some(settings)) = (self.opened.get(index), self.config.repositories.get(index)) else {
            return false;
        };
        let file = WalFileName::Segment(self.name);
        let local = self.data_directory.map(|directory| directory.join("pg_wal").join(file.to_string()));
        let held = match &local {
            Some(local) => compare::compare(repository, &self.config.cluster, self.facts, &file, local),
            None => repository
                .wal_metadata(&self.config.cluster, self.facts.system_id, &file)
                .map(|metadata| if metadata.is_some() { Held::Unknown } else { Held::Absent }),
        };
        let verified = match held {
            Ok(Held::Absent) => return true,
            // Where the server's file cannot be seen, the archiver's word has to do.
            Ok(Held::Unknown) if !is_archived => return true,
            Ok(Held::Other) => Err(compare::other_content(&file, repository)),
            Ok(Held::Same | Held::Unknown) => read_back(repository, self.config, self.facts, self.name),
            Err(error) => Err(error),
        };
        if let Some(check) = report.repositories.get_mut(index) {
            check.segment_verified = Some(verified.is_ok());
            check.arrived_after_s = Some(self.switched.elapsed().as_secs_f64());
        }
        if let Err(error) = verified {
            report.add_error(failed(settings), repository.location(), error);
        }
        false
    }

    fn say_what_is_missing(&self, waiting: &[usize], watch: &Watch<'_>, status: &Status, report: &mut CheckReport) {
        let (name, waited) = (self.name, self.switched.elapsed().as_secs());
        let none = || "none".to_owned();
        let mut said = format!(
            "; the archiver failed {} times (last: {}), and last archived {}",
            status.failed_count,
            status.last_failed.clone().unwrap_or_else(none),
            status.last_archived.clone().unwrap_or_else(none)
        );
        if watch.is_idle(status) {
            said += "; since the switch it did nothing: it is busy with one file, or it dies, which the server does not count (exit codes above \
                     125: a program that is not found)";
        }
        if let Some(why) = watch.not_tried() {
            said += &format!("; archive_command was not tried: {why}");
        }
        let is_past = status.is_past(name);
        let hint = if is_past {
            "the server sends it elsewhere: is archive_command 'walvis push-wal %p' with this repository and cluster name, in the settings \
             that the server has?"
        } else {
            "the server's log says why archive_command fails; run check on the database host as the server's user, and it is tried as the \
                    server does it; or the archiver has a backlog: see pg_wal/archive_status/*.ready, and give more time with --timeout"
        };
        for index in waiting {
            let (Some(settings), Some(check)) = (self.config.repositories.get(*index), report.repositories.get(*index)) else {
                continue;
            };
            let location = check.repository.clone();
            report.add(failed(settings), &location, format!("segment {name} did not arrive within {waited} s{said}"), hint);
        }
        if waiting.is_empty() && !is_past {
            let what = format!("the archiver is not done with {name} after {waited} s{said}");
            report.add(Severity::Problem, "server", what, hint);
        }
    }

    /// Recovery needs the history of the timeline that the server writes.
    fn check_histories(&self, report: &mut CheckReport) {
        let timeline = self.name.timeline;
        for (repository, settings) in self.opened.iter().zip(&self.config.repositories) {
            let Some(repository) = repository else { continue };
            match histories::is_stored(repository, &self.config.cluster, self.facts.system_id, timeline) {
                Ok(true) => {}
                Ok(false) => report.add_error(failed(settings), repository.location(), histories::missing(timeline, repository)),
                Err(error) => report.add_error(failed(settings), repository.location(), error),
            }
        }
    }
}

fn server_facts(server: &ServerCheck) -> Option<Facts> {
    Some(Facts {
        system_id: SystemId(server.system_id.parse().ok()?),
        wal_segment_size: crate::pg::WalSegmentSize::new(server.wal_segment_bytes)?,
        postgres_major: None,
    })
}

/// Fetches the whole segment as recovery would, and holds it against its name.
fn read_back(repository: &Repository, config: &Config, facts: Facts, name: SegmentName) -> Result<(), Error> {
    let mut head = SegmentHead::default();
    let wrong = |why: String| {
        Error::new(crate::error::Kind::Damaged, format!("segment {name} read back wrongly: {why}"))
            .hint("is something between Walvis and the store?")
    };
    match repository.get_wal(&config.cluster, facts, &WalFileName::Segment(name), &mut head)? {
        Fetched::Served(metadata) => match head.check(name, metadata.plaintext_bytes) {
            Ok(page) if page.system_id == facts.system_id.0 => Ok(()),
            Ok(page) => Err(wrong(format!("it is of system identifier {}", page.system_id))),
            Err(e) => Err(wrong(e.to_string())),
        },
        Fetched::Absent | Fetched::Missing { .. } => Err(wrong("it is gone again".to_owned())),
    }
}
