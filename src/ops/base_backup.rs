//! `walvis base-backup`: copies a running cluster into a repository. `docs/BACKUP.md` has the design.
//!
//! The backup counts from the moment its manifest is stored, which is the last thing that happens: whatever goes wrong
//! before leaves packs that nothing refers to, and a session whose end ends the backup on the server, too.

use crate::backup::context::BackupContext;
pub use crate::backup::context::{BackupRequest, Hooks};
use crate::backup::copy_cluster::copy_cluster;
use crate::backup::finish::{FinishedBackup, check_databases, finish_manifest, refuse_wal_that_goes, wait_for_wal};
use crate::backup::progress::Progress;
use crate::backup::source::Source;
use crate::backup::{attachments, parent, preflight};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, file_error};
use crate::repo::new_id;
use crate::report::backup::{BackupReport, Outcome};
use crate::repositories;
use crate::wal::histories;
use std::time::Instant;

/// Takes a backup into the first repository.
///
/// `deadline` bounds single requests, not the backup; it is also how long the archiver may make no progress at the end.
///
/// # Errors
/// [`Kind::Server`]: the server, its archiver, or the session; [`Kind::Config`]: a file cannot be read;
/// [`Kind::Refused`]: another server's directory, another cluster's name, or `expire` gave the backup up; as the
/// store's. Damaged pages are no error here: they are in the report.
pub fn run(config: &Config, request: &BackupRequest, deadline: Deadline, hooks: &Hooks<'_>) -> Result<BackupReport, Error> {
    let since = Instant::now();
    request.check()?;
    fsio::try_scratch().map_err(|e| file_error(Kind::Config, e))?;
    let cluster = &config.cluster;
    let (settings, repository) = repositories::for_backups(config, deadline)?;
    let source = Source::connect(config.server.as_deref(), request.pgdata.as_deref(), deadline)?;
    let _as_owner = source.act_as_owner()?;
    let control = preflight::check(&repository, cluster, &source, request, deadline, hooks)?;

    let started = jiff::Timestamp::now();
    let id = new_id(started)?;
    let label = request.label.clone().unwrap_or_else(|| format!("walvis {id}"));
    let backup = BackupContext {
        repository: &repository,
        compression_level: settings.backup_compression_level,
        is_required: !settings.optional,
        cluster,
        source: &source,
        control,
        request,
        hooks,
        id,
        workers: request.workers(),
        asked: Instant::now(),
    };
    // Before anything is looked at that the backup will refer to, and in this order: docs/RETENTION.md.
    repository.begin_backup(cluster, source.system_id, id)?;
    let tombstoned = repository.tombstoned(cluster, source.facts(), &[])?;
    let mut warnings = Vec::new();
    let parent = parent::read_newest(&repository, cluster, source.system_id, &tombstoned, &mut warnings)?;
    (hooks.progress)(Progress::Starting);
    let named = attachments::find(&source.server, &source.data_directory);
    let start = source.start(&label, request.fast, hooks.go_on)?;
    source.check_checkpoint()?;
    tracing::info!("backup {id} begins at {start}");
    let copied = copy_cluster(&backup, start, parent, named, warnings)?;
    let finished = finish_manifest(&backup, copied, label, started)?;
    refuse_wal_that_goes(&backup, &finished, &tombstoned.names)?;

    let waiting = Instant::now();
    wait_for_wal(&backup, &finished, deadline)?;
    histories::ensure(&repository, cluster, source.system_id, finished.stop_timeline, &source.wal_directory())?;
    let waited = waiting.elapsed();
    check_databases(&backup, &finished)?;
    (hooks.go_on)()?;
    let FinishedBackup { manifest, facts, summary, read, .. } = finished;
    let manifest_bytes = repository.complete_backup(cluster, source.system_id, &summary, || manifest.bytes())?;
    // The backup counts: what is derived from it may come with the next one.
    if let Err(error) = repository.index_backups(cluster, source.system_id) {
        tracing::warn!("the index of backups could not be brought up to date: {error}");
    }
    let outcome = Outcome { manifest_bytes, read, whole: since.elapsed(), waited_for_wal: waited };
    Ok(BackupReport::new(repository.location(), &cluster.to_string(), summary, facts, outcome))
}
