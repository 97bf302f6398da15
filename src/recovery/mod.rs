//! `walvis resolve`: where a recovery to a target stops, and whether everything it needs is there. Touches nothing.
//!
//! [`choose`] is the one answer that all commands give: it asks one repository after the other, and each about the system identifiers
//! that the cluster had. [`answer()`] is what one of them says of one: [`search`] has the server's rules, [`mod@log`] gives it a path of
//! the catalog, `timelines` decides which path, [`mod@quiet`] an equal stop with fewer locks, [`backups`] chooses from where, [`reach`] knows what is around, [`report`] is what
//! comes out.

mod answer;
pub mod backups;
pub mod log;
pub mod quiet;
pub mod reach;
pub mod replay;
pub mod search;
mod timelines;

#[cfg(test)]
mod tests;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::pg::Lsn;
use crate::pg::target::{Target, TargetTimeline, Zone};
use crate::repo::{ClusterName, Facts, Repository, SystemId};
use crate::report::resolve::ResolveReport;
use crate::repositories;
pub use answer::answer;
pub use timelines::{last_commit, newest};

/// What is asked.
#[derive(Debug, Clone)]
pub struct ResolveRequest {
    /// Where to stop.
    pub target: Target,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// Which timeline; `None` is the one that the target is on, if that is one.
    pub timeline: Option<TargetTimeline>,
    /// Where recovery begins: a backup's start LSN.
    pub from: Option<Lsn>,
    /// From which backup of the repository; `None` is the newest that fits.
    pub backup: Option<BackupId>,
    /// Of which system identifier; `None` is the current one, or the one that the target is of.
    pub system_id: Option<SystemId>,
    /// The zone in which moments are shown beside UTC.
    pub zone: Zone,
}

/// An answer, and where it is from.
pub struct Answer {
    /// The repository.
    pub repository: Repository,
    /// The cluster, as it was with the system identifier that the answer is of.
    pub facts: Facts,
    /// What it says.
    pub report: ResolveReport,
}

/// Resolves a target in the first repository that can serve it: with its own backup, histories and WAL.
///
/// Repositories are asked in the order of the settings, each by itself: what is spread over several is not put together. For the end of
/// the archive all are asked, and the one that goes furthest is taken. What is ambiguous in one is not looked for in others. If none has
/// the target, the answer is that of the first that gave one. What was said by the others is in the notes.
///
/// # Errors
/// When no repository gives an answer, the first one's error: unreachable, denied, damaged; usage. A target that is out of reach is a
/// report.
pub fn choose(config: &Config, request: &ResolveRequest, deadline: Deadline) -> Result<Answer, Error> {
    let (mut reached, mut out_of_reach, mut failure) = (None::<Answer>, None::<Answer>, None);
    let mut notes = Vec::new();
    for (place, repository) in config.repositories.iter().enumerate() {
        let location = repository.store.location();
        // One that falls silent when it was opened leaves some time for those after it. Where each request has a limit of its own, there
        // is time.
        let has_all = place + 1 == config.repositories.len() || deadline.is_each();
        let within = if has_all { deadline } else { deadline.at_most(deadline.remaining() / 4 * 3) };
        let answered = repositories::open_known(config, place, within)
            .and_then(|(opened, _)| in_repository(opened, &config.cluster, request));
        match answered {
            // Something that is there twice is no clearer elsewhere.
            Ok(answer) if answer.report.is_ambiguous && reached.is_none() => {
                reached = Some(answer);
                break;
            }
            Ok(answer) if answer.report.reachable => match &reached {
                Some(first) if !goes_further(&answer.report, &first.report) => {}
                Some(first) => {
                    notes.push(format!("{} does not go as far", first.report.repository));
                    reached = Some(answer);
                }
                None => {
                    reached = Some(answer);
                    if request.target != Target::Latest {
                        break;
                    }
                }
            },
            Ok(answer) => {
                notes.push(format!("out of reach in {location}: {}", answer.report.reason.as_deref().unwrap_or_default()));
                out_of_reach.get_or_insert(answer);
            }
            Err(error) if matches!(error.kind, Kind::Usage | Kind::Bug) => return Err(error),
            Err(error) => {
                notes.push(format!("no answer from {location}: {error}"));
                failure.get_or_insert(error);
            }
        }
    }
    match (reached.or(out_of_reach), failure) {
        (Some(mut answer), _) => {
            if config.repositories.len() > 1 {
                answer.report.notes.append(&mut notes);
            }
            Ok(answer)
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::new(Kind::Config, "no repository is configured")),
    }
}

/// Whether one archive ends after another.
fn goes_further(one: &ResolveReport, other: &ResolveReport) -> bool {
    let last = |report: &ResolveReport| report.last_included.as_ref().map(|end| end.time);
    let end = |report: &ResolveReport| report.end_lsn.as_ref().and_then(|end| end.parse::<Lsn>().ok());
    (last(one), end(one)) > (last(other), end(other))
}

/// Resolves a target in one repository: for the system identifier that is named, for that of the backup that is named, or for the
/// current one. A moment or a restore point that it does not have may be from before the cluster's system identifier changed.
fn in_repository(repository: Repository, cluster: &ClusterName, request: &ResolveRequest) -> Result<Answer, Error> {
    let systems = repositories::systems(&repository, cluster)?;
    let facts = chosen_system(&repository, cluster, request, &systems)?;
    let own = answer(&repository, cluster, facts, request);
    let is_settled = request.system_id.is_some() || request.backup.is_some() || request.from.is_some();
    let is_out = match &own {
        Ok(report) => !report.reachable && !report.is_ambiguous,
        Err(error) => error.kind == Kind::Target,
    };
    if !is_out || is_settled {
        return own.map(|report| Answer { repository, facts, report });
    }
    for earlier in systems.iter().filter(|earlier| earlier.system_id != facts.system_id) {
        let Ok(mut report) = answer(&repository, cluster, *earlier, request) else { continue };
        if !report.reachable && !report.is_ambiguous {
            continue;
        }
        let system_id = earlier.system_id;
        if matches!(request.target, Target::Time(_) | Target::Name(_)) {
            report.notes.push(format!(
                "this is of system identifier {system_id}, which cluster {cluster} had before it got {}",
                facts.system_id
            ));
            return Ok(Answer { repository, facts: *earlier, report });
        }
        // Positions, transactions and ends of two clusters have nothing to do with each other.
        let hint = format!(
            "of system identifier {system_id}, which cluster {cluster} had before, it is there: add --system-id {system_id}"
        );
        return match own {
            Ok(report) => Ok(Answer { repository, facts, report: ResolveReport { hint: Some(hint), ..report } }),
            Err(error) => Err(error.hint(hint)),
        };
    }
    own.map(|report| Answer { repository, facts, report })
}

/// Which of the system identifiers of a cluster is asked about. `systems` are the newest first.
fn chosen_system(
    repository: &Repository,
    cluster: &ClusterName,
    request: &ResolveRequest,
    systems: &[Facts],
) -> Result<Facts, Error> {
    if let Some(wanted) = request.system_id {
        return repositories::of_system(systems, cluster, wanted);
    }
    if let Some(backup) = request.backup {
        for facts in systems {
            if repository.backup_ids(cluster, facts.system_id)?.contains(&backup) {
                return Ok(*facts);
            }
        }
    }
    systems.first().copied().ok_or_else(|| Error::new(Kind::Bug, "a cluster without a system identifier"))
}
