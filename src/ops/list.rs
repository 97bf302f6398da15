//! `walvis list`: what the repositories hold. Reads names, sizes, bindings, and what is known of each base backup; no
//! content.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::format::extent::BackupId;
use crate::format::manifest::Database;
use crate::limits::MAX_GAPS_LISTED;
use crate::pg::{SegmentName, WalFileName, WalSegmentSize};
use crate::recovery::ends::TimelineEnds;
use crate::recovery::verified::remembered;
use crate::repo::backups::KnownBackup;
use crate::repo::{Binding, ClusterName, Facts, Remembered, Repository, StoredName, Surveyed, SystemId};
use crate::report::list::{
    ListReport, ListedBackup, ListedCluster, ListedSystem, ListedTimeline, ReadableBackup, StoredFile, WindowEnd,
};
use crate::report::pin::PinnedUntil;
use crate::report::segments::SegmentRange;
use crate::report::time::Time;
use crate::report::verified;
use crate::repositories;

/// Receives every stored file as it is seen.
pub type OnFile<'a> = &'a mut dyn FnMut(&StoredFile);

/// What is listed; everything, if nothing is said.
#[derive(Debug, Default)]
pub struct ListRequest<'a> {
    /// Nothing of other clusters.
    pub cluster: Option<&'a ClusterName>,
    /// Nothing of other system identifiers.
    pub system_id: Option<SystemId>,
    /// Only those backups that hold a database of this name.
    pub database: Option<&'a str>,
}

impl ListRequest<'_> {
    fn wants(&self, system_id: SystemId) -> bool {
        self.system_id.is_none_or(|wanted| wanted == system_id)
    }
}

/// Lists all repositories. With `on_file` each stored file is reported as it is seen.
///
/// # Errors
/// The first repository that cannot be listed; [`Kind::Config`] when no repository has anything of what is asked for by
/// name.
pub fn run(
    config: &Config,
    request: &ListRequest<'_>,
    deadline: Deadline,
    mut on_file: Option<OnFile<'_>>,
) -> Result<Vec<ListReport>, Error> {
    let only = request.cluster;
    let mut reports = Vec::new();
    // Of the clusters that were asked for, whichever system identifier they have.
    let mut has_clusters = false;
    repositories::every(config, deadline, &mut |opened| {
        let mut clusters = Vec::new();
        let mut on_file = |cluster: &ClusterName, system_id: SystemId, file: &StoredName, stored_bytes| {
            if let Some(on_file) = on_file.as_mut().filter(|_| request.wants(system_id)) {
                on_file(&StoredFile {
                    repository: opened.location().to_owned(),
                    cluster: cluster.to_string(),
                    file: file.to_string(),
                    stored_bytes,
                });
            }
        };
        opened.survey(only, &mut on_file, &mut |surveyed| {
            has_clusters = true;
            let report = cluster(&opened, &surveyed, request)?;
            if request.system_id.is_none() || !report.systems.is_empty() {
                clusters.push(report);
            }
            Ok(())
        })?;
        reports.push(ListReport { repository: opened.location().to_owned(), encrypted: is_encrypted(&opened), clusters });
        Ok(())
    })?;
    if reports.iter().any(|report| !report.clusters.is_empty()) {
        return Ok(reports);
    }
    match (only, request.system_id) {
        (Some(only), None) => Err(Error::new(Kind::Config, format!("nothing is stored of cluster {only}"))
            .hint("'walvis list' without --cluster shows the clusters")),
        (Some(only), Some(_)) if !has_clusters => Err(Error::new(Kind::Config, format!("nothing is stored of cluster {only}"))
            .hint("'walvis list' without --cluster and --system-id shows the clusters")),
        (Some(only), Some(wanted)) => {
            Err(Error::new(Kind::Config, format!("nothing is stored of system identifier {wanted} of cluster {only}"))
                .hint(format!("'walvis --cluster {only} list' without --system-id shows those that it had")))
        }
        (None, Some(wanted)) => Err(Error::new(Kind::Config, format!("nothing is stored of system identifier {wanted}"))
            .hint("'walvis list' without --system-id shows all")),
        (None, None) => Ok(reports),
    }
}

/// One cluster.
fn cluster(repository: &Repository, surveyed: &Surveyed, request: &ListRequest<'_>) -> Result<ListedCluster, Error> {
    let name = &surveyed.cluster;
    let mut systems: Vec<ListedSystem> = Vec::new();
    for binding in repository.surveyed_bindings(surveyed)? {
        let system_id = binding.facts.system_id;
        if !request.wants(system_id) || systems.iter().any(|system| system.system_id == system_id.to_string()) {
            continue;
        }
        let mut system = listed_system(&binding);
        for (_, file, bytes) in surveyed.wal.iter().filter(|(of, ..)| *of == system_id) {
            add_file(&mut system, file, *bytes);
        }
        // Where there is no evidence, none is listed once more.
        let remembered = match surveyed.with_evidence.contains(&system_id) {
            true => remembered(repository, name, system_id),
            false => Some(Remembered::default()),
        };
        system.last_verifications =
            remembered.as_ref().map(|remembered| remembered.last_runs().into_iter().map(Into::into).collect());
        if surveyed.with_backups.contains(&system_id) {
            system.backups = backups(repository, name, binding.facts, remembered.as_ref(), request.database)?;
        }
        systems.push(system);
    }
    Ok(ListedCluster { cluster: name.to_string(), systems })
}

/// The base backups of a cluster, newest first.
fn backups(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    remembered: Option<&Remembered>,
    database: Option<&str>,
) -> Result<Vec<ListedBackup>, Error> {
    let listed = repository.known_backups(cluster, facts.system_id)?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    // A damaged catalog is no reason to hide the backups.
    let catalog = match repository.catalog(cluster, facts) {
        Ok(catalog) => Ok(catalog),
        Err(e) if matches!(e.kind, Kind::Damaged | Kind::Target) => Err(e),
        Err(e) => return Err(e),
    };
    let ends = match catalog
        .as_ref()
        .map_err(|e| Error::new(e.kind, e.what.clone()))
        .and_then(|catalog| TimelineEnds::of(repository, cluster, catalog))
    {
        Ok(ends) => Some(ends),
        Err(e) if matches!(e.kind, Kind::Damaged | Kind::Target) => {
            tracing::warn!("how far the WAL of the backups reaches is not known: {e}");
            None
        }
        Err(e) => return Err(e),
    };
    let now = jiff::Timestamp::now().as_second();
    let pins = repository.pins(cluster, facts.system_id)?;
    let mut lines = Vec::new();
    for KnownBackup { id, summary, .. } in listed.into_iter().rev() {
        let line = match summary {
            Err(e) if e.kind == Kind::Damaged => ListedBackup::Damaged { backup_id: id.to_string(), damage: e.what },
            Err(e) => return Err(e),
            Ok(summary) => {
                let databases = match database {
                    Some(name) => match databases(repository, cluster, facts, id)? {
                        found if found.iter().any(|database| database.name == *name) => Some(found),
                        _ => continue,
                    },
                    None => None,
                };
                let checked = remembered.and_then(|remembered| remembered.backup(id));
                let reach = ends.as_ref().and_then(|ends| ends.reach_of(&summary));
                ListedBackup::Readable(Box::new(ReadableBackup {
                    has_wal: ends.as_ref().map(|_| reach.is_some()),
                    window_until: reach.map(|reach| WindowEnd {
                        lsn: reach.until.to_string(),
                        time: reach.time.map(Time::from),
                        timeline: reach.timeline.0,
                    }),
                    pin: pins.iter().find(|pin| pin.backup == id && pin.keeps_at(now)).map(PinnedUntil::of),
                    databases,
                    verified_at: checked.and_then(|checked| verified::at(checked.after_unix_s)),
                    damaged_objects: checked.map(|checked| checked.damaged),
                    ..ReadableBackup::new(&summary)
                }))
            }
        };
        lines.push(line);
    }
    Ok(lines)
}

/// The databases of a backup: at the head of its manifest.
fn databases(repository: &Repository, cluster: &ClusterName, facts: Facts, id: BackupId) -> Result<Vec<Database>, Error> {
    let read = repository.read_manifest_head(cluster, facts.system_id, id)?;
    Ok(read.map(|(_, head)| head.facts.databases).unwrap_or_default())
}

fn is_encrypted(repository: &Repository) -> bool {
    repository.descriptor().cipher != RepositoryCipher::None
}

fn listed_system(binding: &Binding) -> ListedSystem {
    ListedSystem {
        system_id: binding.facts.system_id.to_string(),
        postgres_major: binding.facts.postgres_major,
        wal_segment_bytes: binding.facts.wal_segment_size.bytes(),
        timelines: Vec::new(),
        histories: Vec::new(),
        stored_bytes: 0,
        backups: Vec::new(),
        last_verifications: None,
    }
}

/// Adds a file; files come in the order of their names.
fn add_file(system: &mut ListedSystem, file: &WalFileName, bytes: u64) {
    system.stored_bytes = system.stored_bytes.saturating_add(bytes);
    if let WalFileName::History(_) = file {
        system.histories.push(file.to_string());
        return;
    }
    let number = file.timeline().0;
    if system.timelines.last().is_none_or(|t| t.timeline != number) {
        system.timelines.push(ListedTimeline {
            timeline: number,
            segments: 0,
            first_segment: None,
            last_segment: None,
            missing_runs: 0,
            missing: Vec::new(),
            partials: 0,
            backup_histories: 0,
            stored_bytes: 0,
        });
    }
    let size = WalSegmentSize::new(system.wal_segment_bytes);
    let Some(timeline) = system.timelines.last_mut() else { return };
    timeline.stored_bytes = timeline.stored_bytes.saturating_add(bytes);
    match file {
        WalFileName::Segment(name) => add_segment(timeline, *name, size),
        WalFileName::Partial(_) => timeline.partials += 1,
        WalFileName::Backup(..) => timeline.backup_histories += 1,
        WalFileName::History(_) => {}
    }
}

fn add_segment(timeline: &mut ListedTimeline, name: SegmentName, size: Option<WalSegmentSize>) {
    let before = timeline.last_segment.as_deref().and_then(WalFileName::parse);
    let gap = size.and_then(|size| {
        let Some(WalFileName::Segment(before)) = before else { return None };
        let (missing_from, here) = (before.number(size)? + 1, name.number(size)?);
        let text = |number| SegmentName::from_number(name.timeline, number, size).map(|n| n.to_string());
        if missing_from < here {
            Some(SegmentRange { first_segment: text(missing_from)?, last_segment: text(here - 1)? })
        } else {
            None
        }
    });
    if let Some(gap) = gap {
        timeline.missing_runs += 1;
        if timeline.missing.len() < MAX_GAPS_LISTED {
            timeline.missing.push(gap);
        }
    }
    timeline.segments += 1;
    timeline.first_segment.get_or_insert_with(|| name.to_string());
    timeline.last_segment = Some(name.to_string());
}
