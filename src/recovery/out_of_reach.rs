//! What is said of a target that is out of reach: why, what is nearest, and what to do about it.

use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::target::{Target, now, show};
use crate::recovery::log::Log as _;
use crate::recovery::reach::{nearest, occurrence};
use crate::recovery::resolver::{Line, Resolver};
use crate::recovery::stop::Unreachable;
use crate::report::resolve::{ResolveReport, ResolvedBackup, TargetOccurrence};

/// How the newest WAL gets into the archive.
const ARCHIVE_NOW: &str = "wait for archive_timeout, or run SELECT pg_switch_wal() on the primary, and ask again";

impl<'a> Resolver<'a> {
    /// Says it in the report.
    ///
    /// # Errors
    /// As the log's.
    pub(super) fn out_of_reach(
        &self,
        report: &mut ResolveReport,
        line: &Line<'a>,
        why: &Unreachable,
        elsewhere: Vec<TargetOccurrence>,
    ) -> Result<(), Error> {
        let reaches = self.reaches(line, &[])?;
        let around = |at: Lsn| nearest(&line.log, &reaches, at);
        let (reason, hint) = match why {
            Unreachable::Empty => {
                ("nothing is stored on the path to this timeline".to_owned(), "see 'walvis catalog'".to_owned())
            }
            Unreachable::Before => {
                (report.nearest_before, report.nearest_after) = around(Lsn(0))?;
                (
                    "it is before everything that is archived".to_owned(),
                    "look for older WAL in another repository; from this one nothing earlier can be recovered".to_owned(),
                )
            }
            Unreachable::After => {
                (report.nearest_before, report.nearest_after) = around(Lsn(u64::MAX))?;
                let reason = match self.request.target {
                    Target::Time(time) if time > now() => "that moment is still to come, by the clock of this host",
                    Target::Time(_) => "that moment is not archived yet: no transaction that ended later is",
                    _ => "it is not archived yet: it is after everything that is",
                };
                (reason.to_owned(), not_yet(report))
            }
            Unreachable::Gap { from, until } => {
                (report.nearest_before, report.nearest_after) = around(*from)?;
                let reason = format!(
                    "it is in or beyond a gap in the archive: nothing leads from {from} to {until}{}",
                    self.segments_of(line, *from, *until)
                );
                (reason, "look for the missing WAL in another repository, or choose a target on one side".to_owned())
            }
            Unreachable::Minimal(minimal) => {
                (report.nearest_before, report.nearest_after) = around(minimal.from)?;
                let from = minimal.from;
                let hint = match minimal.until {
                    Some(until) => {
                        format!("choose a target before {from}, or one that a backup leads to which was taken after {until}")
                    }
                    None => format!(
                        "choose a target before {from}; then set wal_level to replica again, and take a backup: no earlier one leads \
                         further"
                    ),
                };
                (minimal.to_string(), hint)
            }
            Unreachable::NoStart => {
                let from = self.request.from.unwrap_or(Lsn(0));
                (format!("the WAL at {from}, where recovery would begin, is not archived"), "see 'walvis catalog'".to_owned())
            }
            Unreachable::BeforeConsistency { backup, stop } => {
                report.backup = backup.map(|backup| ResolvedBackup::in_wal(backup.start, backup.stop));
                let reason = match backup {
                    Some(backup) => format!("recovery would stop at {stop}, before the backup ends at {}", backup.stop),
                    None => format!("{stop} is before the start of recovery"),
                };
                let hint = match self.request.from {
                    Some(_) => "begin at an older backup: leave --from out to have one looked for",
                    None => "look for an older backup in another repository",
                };
                (reason, hint.to_owned())
            }
            Unreachable::NotFound(unknown) => {
                let mut reason = format!("no {} is on the path to timeline {}", describe(&self.request.target), report.timeline);
                for minimal in line.log.minimal() {
                    reason.push_str(&format!("; {minimal}"));
                }
                if let Some(lsn) = unknown {
                    reason.push_str(&format!("; of the prepared transaction that ends at {lsn} the id is not known"));
                }
                let hint = match elsewhere.first() {
                    Some(place) => format!("it is on timeline {}: use --target-timeline {0}", place.timeline),
                    None => format!(
                        "if it is new, it may not be archived yet: {ARCHIVE_NOW}; 'walvis catalog --commits' and '--restore-points' list \
                         what is"
                    ),
                };
                report.candidates = elsewhere;
                (reason, hint)
            }
            Unreachable::Ambiguous(places) => {
                report.candidates = places.iter().map(|lsn| occurrence(&line.log, *lsn)).collect::<Result<_, _>>()?;
                report.candidates.extend(elsewhere);
                (
                    format!("more than one fits {}", describe(&self.request.target)),
                    "choose one: with --from, recovery takes the first after that position; or its LSN with --target-lsn"
                        .to_owned(),
                )
            }
            Unreachable::NoBackup => (
                "the end of no base backup is known from the WAL, so nothing says where a recovery is consistent".to_owned(),
                "name the start LSN of a backup with --from".to_owned(),
            ),
        };
        (report.reason, report.hint) = (Some(reason), Some(hint));
        Ok(())
    }
}

/// What to do about a target that may still be archived. `latest` is no way out: by the time of the restore it may have
/// the mistake.
fn not_yet(report: &ResolveReport) -> String {
    // One that no backup leads to is no way out either.
    let last = report.nearest_before.as_ref().and_then(|nearest| nearest.transaction.as_ref());
    let timeline =
        report.timeline_reason.as_ref().map_or_else(String::new, |_| format!(" --target-timeline {}", report.timeline));
    let now = last.map_or_else(String::new, |last| {
        format!(
            "; --target-lsn {}{timeline} stops after the newest transaction that is, whatever is archived meanwhile",
            last.lsn
        )
    });
    format!("{ARCHIVE_NOW}{now}")
}

/// A target in words.
pub(super) fn describe(target: &Target) -> String {
    match target {
        Target::Time(time) => format!("time {}", show(*time)),
        Target::Lsn(lsn) => format!("LSN {lsn}"),
        Target::Xid(xid) => format!("transaction {xid}"),
        Target::Name(name) => format!("restore point {name:?}"),
        Target::Latest => "latest".to_owned(),
        Target::Immediate => "immediate".to_owned(),
    }
}
