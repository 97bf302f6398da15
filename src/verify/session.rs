//! A verification of a cluster in one repository as the command does it: what earlier ones remember, the share that is
//! due because of it, the look, repair, and what is remembered of all that for the next one.
//!
//! Lives here: the order of these. May not live here: each of them. What was read is written down however the look
//! ends, and meanwhile, so that a process that is killed loses little.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::remember::{Memory, Occasion, Shares};
use super::repair::{RepairSource, remove_needless_copies};
use super::repair_found::{RepairRun, repair_found};
use super::request::{Hooks, Keep, Mode, SeenManifests, VerifyRequest, Window};
use super::run::{Listed, Verified, verify_listed};
use crate::error::{Error, Kind};
use crate::repo::{ClusterName, Repository, VerificationMode};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Listings, heads of manifests, nodes of the catalog.
    Quick,
    /// Every byte.
    Full,
    /// So much that every byte is read once in this time.
    Rolling(Duration),
}

impl Look {
    /// The same without the period.
    pub fn mode(self) -> VerificationMode {
        match self {
            Self::Quick => VerificationMode::Quick,
            Self::Full => VerificationMode::Full,
            Self::Rolling(_) => VerificationMode::Rolling,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy)]
pub struct SessionRequest<'a> {
    /// What is looked at.
    pub look: Look,
    /// How many threads read.
    pub jobs: usize,
    /// Stored bytes that may be read in a second.
    pub max_bytes_per_s: Option<u64>,
    /// What is needed of the log besides what backups need themselves.
    pub window: Window,
    /// Where good copies come from, if what is wrong is to be repaired.
    pub source: Option<&'a Repository>,
    /// What was read is written down so often while objects are read.
    pub keep_every: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Session {
    /// What was looked at, and found.
    pub verified: Verified,
    /// What was brought back, where that was asked, and came to its end.
    pub repaired: Option<RepairRun>,
    /// How long it took.
    pub took: Duration,
    /// What ended it before its end. What was read by then is known, and remembered if that could be.
    pub ended_by: Option<Error>,
}

/// Verifies a cluster, and remembers what was read and found.
///
/// # Errors
/// [`Kind::Config`]: nothing is stored of the cluster; unreachable, denied, as `go_on`'s, before objects are read.
/// Damage is no error: it is found.
pub fn session(
    repository: &Repository,
    cluster: &ClusterName,
    request: &SessionRequest<'_>,
    hooks: &Hooks<'_>,
) -> Result<Session, Error> {
    let (began, since) = (jiff::Timestamp::now(), Instant::now());
    let mut memory = Memory::of(repository, cluster)?;
    let period = match request.look {
        Look::Rolling(period) => Some(period),
        Look::Quick | Look::Full => None,
    };
    // One listing tells what is stored, and how old it is.
    let ages = period.map(|period| memory.ages(period, began.as_second())).unwrap_or_default();
    let mut listed = Listed::of(repository, cluster, &ages, hooks)?;
    let shares = match period {
        Some(_) => Some(Shares::of(repository, cluster, &ages, listed.take_tallies())?),
        None => None,
    };
    let occasion = |interrupted: bool| Occasion {
        mode: request.look.mode(),
        period,
        began_unix_us: began.as_microsecond(),
        took: since.elapsed(),
        interrupted,
    };
    let seen = memory.seen_manifests();
    let asked = asked(request, shares.as_ref(), &seen);
    let cell = RefCell::new(&mut memory);
    let keep = Keep {
        every: request.keep_every,
        keep: &|checked, findings| {
            let written =
                cell.borrow_mut().write_part((repository, cluster), &occasion(true), shares.as_ref(), checked, findings);
            written.or_else(passed_over)
        },
    };
    let verified = verify_listed((repository, cluster), listed, &asked, hooks, Some(keep))?;
    let mut session = Session { verified, ..Session::default() };
    session.ended_by = session.verified.ended_by.take();
    if let (Some(source), None) = (request.source, &session.ended_by) {
        match mend((repository, cluster), source, &asked, hooks, &mut session.verified) {
            Ok(run) => session.repaired = Some(run),
            Err(error) => session.ended_by = Some(error),
        }
    }
    session.verified.add_evidence_problems(memory.problems());
    let occasion = occasion(session.ended_by.is_some());
    if let Err(error) = memory.write(repository, cluster, &occasion, shares.as_ref(), &session.verified)
        && let Err(error) = passed_over(error)
    {
        session.ended_by.get_or_insert(error);
    }
    session.took = since.elapsed();
    Ok(session)
}

/// What is looked at. Where nothing is due, that all is there is looked at all the same.
fn asked<'s>(request: &SessionRequest<'_>, shares: Option<&'s Shares>, seen: &'s SeenManifests) -> VerifyRequest<'s> {
    let mode = match shares {
        Some(shares) if shares.due_bytes() == 0 => Mode::Quick,
        Some(shares) => Mode::Selected(&shares.objects),
        None if request.look == Look::Quick => Mode::Quick,
        None => Mode::Full,
    };
    let SessionRequest { jobs, max_bytes_per_s, window, .. } = *request;
    VerifyRequest { mode, jobs, max_bytes_per_s, window, seen: Some(seen) }
}

/// Repairs what was found.
fn mend(
    (repository, cluster): (&Repository, &ClusterName),
    source: &Repository,
    asked: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
    verified: &mut Verified,
) -> Result<RepairRun, Error> {
    let source = RepairSource::new(repository, source);
    let run = repair_found((repository, cluster), &source, asked, hooks, verified)?;
    if let Some(error) = verified.ended_by.take() {
        return Err(error);
    }
    remove_needless_copies(repository, hooks.go_on)?;
    Ok(run)
}

/// Credentials that cannot write are no reason not to verify: what was found is as good without.
fn passed_over(error: Error) -> Result<(), Error> {
    if error.kind != Kind::Denied {
        return Err(error);
    }
    tracing::warn!("nothing is remembered of this verification: {error}");
    Ok(())
}
