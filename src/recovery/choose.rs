//! The choice of the repository that serves a target, and of the cluster's system identifier in it.
//!
//! Lives here: which answer counts, where several repositories could give one. May not live here: how repositories are
//! opened, in which order and how long each is waited for ([`repositories::choose`]), and what one of them answers
//! ([`answer`](super::answer())).

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::pg::Lsn;
use crate::pg::target::Target;
use crate::recovery::answer::answer;
use crate::recovery::request::ResolveRequest;
use crate::recovery::verified;
use crate::repo::{ClusterName, Facts, Repository, of_system};
use crate::report::resolve::ResolveReport;
use crate::repositories;
use std::ops::ControlFlow;

/// An answer, and where it is from.
pub struct Answer {
    /// The repository.
    pub repository: Repository,
    /// The cluster, as it was with the system identifier that the answer is of.
    pub facts: Facts,
    /// What it says.
    pub report: ResolveReport,
}

impl Answer {
    /// The base backup that the answer begins with.
    ///
    /// # Errors
    /// [`Kind::Target`] when it was deleted meanwhile; [`Kind::Damaged`]; as the store's.
    pub fn backup(&self, cluster: &ClusterName) -> Result<BackupSummary, Error> {
        let chosen = self.report.backup.as_ref().and_then(|backup| backup.backup_id.as_deref()).and_then(BackupId::parse);
        let id = chosen.ok_or_else(|| Error::new(Kind::Bug, "a target is reached from no backup"))?;
        self.repository
            .backup_summary(cluster, self.facts.system_id, id)?
            .ok_or_else(|| Error::new(Kind::Target, format!("backup {id} is gone")).hint("try again to have another one chosen"))
    }
}

/// Resolves a target in the first repository that can serve it: with its own backup, histories and WAL.
///
/// Repositories are asked one after the other ([`repositories::ask_in_order`]), each by itself: what is spread over
/// several is not put together. For the end of the archive all are asked, and the one that goes furthest is taken. What
/// is ambiguous in one is not looked for in others. If none has the target, the answer is that of the first that gave
/// one. What the others said is in the notes.
///
/// # Errors
/// When no repository gives an answer, the first one's error: unreachable, denied, damaged; usage. A target that is out
/// of reach is a report.
pub fn choose(config: &Config, request: &ResolveRequest, deadline: Deadline) -> Result<Answer, Error> {
    let mut asked = Asked { asks_all: request.target == Target::Latest, ..Asked::default() };
    let ask = |opened: repositories::Opened| in_repository(opened.repository, &config.cluster, request);
    let stopped = repositories::ask_in_order(config, deadline, &ask, &mut |location, answered| match answered {
        Ok(answer) => asked.hear(location, answer),
        Err(error) if matches!(error.kind, Kind::Usage | Kind::Bug) => ControlFlow::Break(Err(error)),
        Err(error) => {
            asked.notes.push(format!("no answer from {location}: {error}"));
            asked.failure.get_or_insert(error);
            ControlFlow::Continue(())
        }
    });
    stopped.unwrap_or(Ok(()))?;
    match (asked.reached.or(asked.out_of_reach), asked.failure) {
        (Some(mut answer), _) => {
            if config.repositories.len() > 1 {
                answer.report.notes.append(&mut asked.notes);
            }
            verified::add(&answer.repository, &config.cluster, answer.facts, &mut answer.report);
            Ok(answer)
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(repositories::none_configured()),
    }
}

/// What the repositories have said so far.
#[derive(Default)]
struct Asked {
    /// Whether all are asked, and the one that goes furthest is taken.
    asks_all: bool,
    reached: Option<Answer>,
    out_of_reach: Option<Answer>,
    failure: Option<Error>,
    notes: Vec<String>,
}

impl Asked {
    /// Takes an answer, if it is better than those before; breaks when no other repository has to be asked.
    fn hear(&mut self, location: &str, answer: Answer) -> ControlFlow<Result<(), Error>> {
        // Something that is there twice is no clearer elsewhere.
        if answer.report.is_ambiguous && self.reached.is_none() {
            self.reached = Some(answer);
            return ControlFlow::Break(Ok(()));
        }
        if !answer.report.reachable {
            self.notes.push(format!("out of reach in {location}: {}", answer.report.reason.as_deref().unwrap_or_default()));
            self.out_of_reach.get_or_insert(answer);
            return ControlFlow::Continue(());
        }
        match &self.reached {
            Some(first) if !goes_further(&answer.report, &first.report) => {}
            Some(first) => {
                self.notes.push(format!("{} does not go as far", first.report.repository));
                self.reached = Some(answer);
            }
            None => {
                self.reached = Some(answer);
                if !self.asks_all {
                    return ControlFlow::Break(Ok(()));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether one archive ends after another.
fn goes_further(one: &ResolveReport, other: &ResolveReport) -> bool {
    let last = |report: &ResolveReport| report.last_included.as_ref().map(|end| end.time);
    let end = |report: &ResolveReport| report.end_lsn.as_ref().and_then(|end| end.parse::<Lsn>().ok());
    (last(one), end(one)) > (last(other), end(other))
}

/// Resolves a target in one repository: for the system identifier that is named, for that of the backup that is named,
/// or for the current one. A moment or a restore point that it does not have may be from before the cluster's system
/// identifier changed.
fn in_repository(repository: Repository, cluster: &ClusterName, request: &ResolveRequest) -> Result<Answer, Error> {
    let systems = repository.systems(cluster)?;
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
        return of_system(systems, cluster, wanted);
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
