//! The choice of the timeline: which path a recovery to a target takes, where nobody says it.
//!
//! `docs/CATALOG.md` has the rules; `--target-timeline` always decides.

use crate::error::{Error, Kind};
use crate::format::manifest::BackupSummary;
use crate::limits::TIMELINES_AT_ONCE;
use crate::pg::scan::{PgTime, XactEntry};
use crate::pg::target::{Target, TargetTimeline};
use crate::pg::{Lsn, Timeline};
use crate::recovery::choice_of_backup::on_path;
use crate::recovery::ends::{last_commit, last_commits, newest};
use crate::recovery::log::Log as _;
use crate::recovery::path_log::PathLog;
use crate::recovery::reach::{occurrence, transaction};
use crate::recovery::resolver::{Line, Resolver};
use crate::recovery::stop::{Found, Stop, Unreachable, Wanted, find, places};
use crate::repo::catalog::{Leg, TimelineInfo};
use crate::report::resolve::{OtherTimeline, TargetOccurrence};
use crate::threads::at_once;
use std::collections::HashMap;

/// From when to when a timeline was alive, as far as its own WAL says.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// `None`: from the beginning of the archive.
    from: Option<PgTime>,
    until: PgTime,
}

impl Life {
    fn has(&self, time: PgTime) -> bool {
        self.from.is_none_or(|from| from <= time) && time <= self.until
    }
}

/// What came of the question.
pub(super) struct Decision<'a> {
    pub(super) line: Line<'a>,
    /// Why this one, where there was a choice.
    pub(super) why: Option<String>,
    /// More than one fits: none is taken.
    pub(super) candidates: Vec<TargetOccurrence>,
    /// Timelines with transactions that the chosen one does not have.
    pub(super) others: Vec<OtherTimeline>,
}

impl<'a> Decision<'a> {
    fn sure(line: Line<'a>) -> Self {
        Self { line, why: None, candidates: Vec::new(), others: Vec::new() }
    }
}

/// Where a recovery stops, so that two can be compared: on which timeline the record was written, and what becomes of
/// it.
type Spot = (Timeline, Option<Stop>);
/// What a line comes to, by its place among the lines.
type End = (usize, Result<Found, Unreachable>);

impl Line<'_> {
    fn own(&self) -> Leg {
        let last = self.log.path().legs().last().copied();
        last.unwrap_or(Leg { timeline: self.timeline, begin: Lsn(0), end: Lsn(u64::MAX), stored: None })
    }

    /// Where the path leaves a timeline; `None` if it does not go over it, or ends on it.
    fn leaves(&self, timeline: Timeline) -> Option<Lsn> {
        let leg = self.log.path().legs().iter().find(|leg| leg.timeline == timeline)?;
        (leg.end.0 != u64::MAX).then_some(leg.end)
    }

    fn life(&self) -> Result<Option<Life>, Error> {
        let own = self.own();
        if own.stored.is_none() {
            return Ok(None);
        }
        // Where its history is missing nobody knows when it began: what it has is all that is known to be its own.
        let is_first = own.begin.0 == 0 && (self.timeline.0 <= 1 || self.log.has_history());
        let from = if is_first { None } else { self.log.first_time(own.begin)? };
        let until = self.log.last_time(own.begin)?;
        Ok(until.filter(|_| is_first || from.is_some()).map(|until| Life { from, until }))
    }

    fn last_commit(&self) -> Result<Option<XactEntry>, Error> {
        last_commit(&self.log)
    }

    fn spot(&self, found: &Found) -> Spot {
        let on = |lsn| self.log.leg(lsn).map_or(self.timeline, |leg| leg.timeline);
        (found.stop.map_or(self.timeline, |stop| on(stop.lsn)), found.stop)
    }
}

/// The line that a recovery to the end takes.
fn newest_of(lines: &[Line<'_>]) -> Result<usize, Error> {
    let logs: Vec<&PathLog<'_>> = lines.iter().map(|line| &line.log).collect();
    let times = last_commits(&logs)?.into_iter().map(|end| end.map(|end| end.end.time));
    let info = |line: &Line<'_>| TimelineInfo { timeline: line.timeline, history: None, segments: line.own().stored };
    let ends: Vec<_> = lines.iter().map(info).zip(times).collect();
    Ok(newest(&ends).unwrap_or_default())
}

/// Which positions of which timelines were looked at.
#[derive(Default)]
struct Seen(HashMap<Timeline, Vec<(Lsn, Lsn)>>);

impl Seen {
    /// The parts of a leg that were not looked at yet, in their order; from now on they are.
    fn rest_of(&mut self, leg: &Leg) -> Vec<(Lsn, Lsn)> {
        let seen = self.0.entry(leg.timeline).or_default();
        let (mut rest, mut next) = (Vec::new(), leg.begin);
        for (from, to) in seen.iter().copied() {
            if next < from && next < leg.end {
                rest.push((next, from.min(leg.end)));
            }
            next = next.max(to);
        }
        if next < leg.end {
            rest.push((next, leg.end));
        }
        seen.extend(&rest);
        seen.sort_unstable();
        rest
    }
}

impl<'a> Resolver<'a> {
    fn lines(&self) -> Result<Vec<Line<'a>>, Error> {
        let known = self.catalog.timelines().iter().filter(|info| info.segments.is_some() || info.history.is_some());
        let known: Vec<Timeline> = known.map(|info| info.timeline).collect();
        let logs = PathLog::open_all(self.repository, self.cluster, self.catalog, &known)?;
        let mut lines: Vec<Line<'a>> = known.into_iter().zip(logs).map(|(timeline, log)| Line { timeline, log }).collect();
        // A backup leads to some of them only.
        let leads = |line: &Line<'_>, backup: &BackupSummary| on_path(line.log.legs(), backup).is_ok();
        if let Some(backup) = self.named
            && lines.iter().any(|line| leads(line, backup))
        {
            lines.retain(|line| leads(line, backup));
        }
        Ok(lines)
    }

    /// Decides.
    pub(super) fn decide(&self) -> Result<Decision<'a>, Error> {
        let none = || Error::new(Kind::Target, "no WAL is stored of this cluster").hint("'walvis list' shows what is stored");
        if let Some(timeline) = self.request.timeline {
            return self.open(self.explicit(timeline)?).map(Decision::sure);
        }
        if let (Target::Immediate, Some(backup)) = (&self.request.target, self.named) {
            // Recovery never leaves the timeline of the backup.
            return self.open(Timeline(backup.timeline)).map(Decision::sure);
        }
        let mut lines = self.lines()?;
        match lines.len() {
            0 => return Err(none()),
            1 => return lines.pop().map(Decision::sure).ok_or_else(none),
            _ => {}
        }
        let decision = match self.request.target {
            Target::Time(time) => self.by_time(lines, time)?,
            Target::Lsn(lsn) => self.by_lsn(lines, lsn)?,
            Target::Latest | Target::Immediate => self.by_newest(lines)?,
            Target::Xid(_) | Target::Name(_) => self.by_identity(lines)?,
        };
        Ok(decision)
    }

    fn explicit(&self, timeline: TargetTimeline) -> Result<Timeline, Error> {
        let timelines = self.catalog.timelines();
        let none = || Error::new(Kind::Target, "no WAL is stored of this cluster").hint("'walvis list' shows what is stored");
        match timeline {
            TargetTimeline::Number(timeline) => Ok(timeline),
            TargetTimeline::Latest => timelines.last().map(|info| info.timeline).ok_or_else(none),
            TargetTimeline::Current => {
                if let Some(backup) = self.named {
                    return Ok(Timeline(backup.timeline));
                }
                let Some(from) = self.request.from else {
                    return timelines.iter().find(|info| info.segments.is_some()).map(|info| info.timeline).ok_or_else(none);
                };
                match self.holding(from)[..] {
                    [timeline] => Ok(timeline),
                    [] => {
                        Err(Error::new(Kind::Target, format!("no timeline has {from}"))
                            .hint("'walvis catalog' shows what there is"))
                    }
                    _ => Err(Error::new(
                        Kind::Usage,
                        format!("{from} is on several timelines, so nothing says which one is current"),
                    )
                    .hint("name one with --target-timeline")),
                }
            }
        }
    }

    /// The timelines that have a position in WAL of their own.
    fn holding(&self, lsn: Lsn) -> Vec<Timeline> {
        let size = self.catalog.facts().wal_segment_size;
        let has = |info: &&TimelineInfo| {
            let begins = info.history.as_ref().and_then(|history| history.ancestors.last()).map_or(Lsn(0), |a| a.switch);
            let ends = info.segments.and_then(|(_, last)| last.start(size)).map(|start| start.0.saturating_add(size.bytes()));
            begins <= lsn && ends.is_some_and(|end| lsn.0 < end)
        };
        self.catalog.timelines().iter().filter(has).map(|info| info.timeline).collect()
    }

    fn wanted(&self) -> Wanted {
        Wanted { target: self.request.target.clone(), inclusive: self.request.inclusive, from: self.request.from }
    }

    /// By when each was alive.
    fn by_time(&self, lines: Vec<Line<'a>>, time: PgTime) -> Result<Decision<'a>, Error> {
        let lives = at_once(&lines, TIMELINES_AT_ONCE, Line::life).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut alive: Vec<usize> =
            (0..lines.len()).filter(|i| matches!(lives.get(*i), Some(Some(life)) if life.has(time))).collect();
        let mut why = match alive[..] {
            [one] => lines.get(one).map(|line| format!("timeline {} is the only one that was alive then", line.timeline)),
            _ => None,
        };
        if alive.is_empty() {
            // What was there at that moment is what the last one left that had ended by then.
            let ended = |i: &usize| lives.get(*i).copied().flatten().map(|life| life.until).filter(|until| *until < time);
            let last = (0..lines.len()).filter(|i| ended(i).is_some()).max_by_key(ended);
            let first = (0..lines.len()).find(|i| lives.get(*i).copied().flatten().is_some());
            let chosen = last.or(first).unwrap_or_default();
            why = lines.get(chosen).map(|line| {
                format!(
                    "no timeline has anything of that moment; timeline {} is the last that was alive before it",
                    line.timeline
                )
            });
            alive.push(chosen);
        }
        self.choose_of(lines, &alive, why)
    }

    /// By which of them have that position in WAL of their own.
    fn by_lsn(&self, lines: Vec<Line<'a>>, lsn: Lsn) -> Result<Decision<'a>, Error> {
        let holding = self.holding(lsn);
        let having: Vec<usize> =
            (0..lines.len()).filter(|i| lines.get(*i).is_some_and(|l| holding.contains(&l.timeline))).collect();
        if having.is_empty() {
            return self.by_newest(lines);
        }
        let why = match having[..] {
            [one] => lines.get(one).map(|line| format!("timeline {} is the only one that has this position", line.timeline)),
            _ => None,
        };
        self.choose_of(lines, &having, why)
    }

    /// Takes the one that all of some lines come to, or none.
    fn choose_of(&self, lines: Vec<Line<'a>>, some: &[usize], why: Option<String>) -> Result<Decision<'a>, Error> {
        let mut ends: Vec<End> = Vec::new();
        for index in some {
            for end in self.follow(&lines, *index)? {
                let spot =
                    |(index, found): &End| found.as_ref().ok().and_then(|found| lines.get(*index).map(|line| line.spot(found)));
                let is_known = ends.iter().any(|known| known.0 == end.0 || (spot(known).is_some() && spot(known) == spot(&end)));
                if !is_known {
                    ends.push(end);
                }
            }
        }
        let chosen = ends.first().map_or(0, |(index, _)| *index);
        let candidates = if ends.len() > 1 {
            let place = |(index, found): &End| lines.get(*index).map(|line| self.candidate(line, found));
            ends.iter().filter_map(place).collect::<Result<Vec<_>, _>>()?
        } else {
            Vec::new()
        };
        // Without its own history a timeline cannot be a target; one that came after it and leads over the same record
        // can.
        let mut chosen = chosen;
        if let Some((_, Ok(found))) = ends.first()
            && let Some(line) = lines.get(chosen).filter(|line| !line.log.has_history())
        {
            let later = lines.iter().position(|later| {
                later.log.has_history()
                    && later.leaves(line.timeline).is_some_and(|left| found.stop.is_some_and(|stop| stop.lsn < left))
            });
            chosen = later.unwrap_or(chosen);
        }
        self.decision(lines, chosen, why, candidates)
    }

    fn decision(
        &self,
        lines: Vec<Line<'a>>,
        chosen: usize,
        why: Option<String>,
        candidates: Vec<TargetOccurrence>,
    ) -> Result<Decision<'a>, Error> {
        let line = lines.into_iter().nth(chosen).ok_or_else(|| Error::new(Kind::Bug, "no timeline is left to choose"))?;
        let why = if candidates.is_empty() { why } else { None };
        Ok(Decision { line, why, candidates, others: Vec::new() })
    }

    /// What a line comes to. Where everything on a timeline is before the target, and others went on from its very end,
    /// it is what these come to: nothing was lost between them.
    fn follow(&self, lines: &[Line<'a>], index: usize) -> Result<Vec<End>, Error> {
        let Some(line) = lines.get(index) else { return Ok(Vec::new()) };
        let own = find(&line.log, &self.wanted())?;
        if !matches!(own, Err(Unreachable::After)) {
            return Ok(vec![(index, own)]);
        }
        let mut further = Vec::new();
        for (at, later) in lines.iter().enumerate() {
            let Some(left) = later.leaves(line.timeline) else { continue };
            let gone_on = match self.request.target {
                Target::Time(_) => line.log.has_transactions(left)?,
                _ => line.log.windows().last().is_some_and(|window| left < window.until),
            };
            if gone_on {
                continue;
            }
            if let Ok(found) = find(&later.log, &self.wanted())? {
                further.push((at, Ok(found)));
            }
        }
        if further.is_empty() {
            further.push((index, own));
        }
        Ok(further)
    }

    /// The line whose last transaction is newest, and what the others have besides.
    fn by_newest(&self, lines: Vec<Line<'a>>) -> Result<Decision<'a>, Error> {
        let chosen = newest_of(&lines)?;
        let Some(line) = lines.get(chosen) else { return Err(Error::new(Kind::Bug, "no timeline is left to choose")) };
        let others = self.others(&lines, line)?;
        let why = format!("timeline {} has the newest transaction", line.timeline);
        let decision = self.decision(lines, chosen, Some(why), Vec::new())?;
        Ok(Decision { others, ..decision })
    }

    fn others(&self, lines: &[Line<'a>], chosen: &Line<'a>) -> Result<Vec<OtherTimeline>, Error> {
        let others: Vec<&Line<'a>> =
            lines.iter().filter(|line| line.timeline != chosen.timeline && line.own().stored.is_some()).collect();
        let has_besides = |line: &&Line<'a>| {
            let begin = line.own().begin;
            let from = chosen.leaves(line.timeline).unwrap_or(begin).max(begin);
            let transactions = line.log.count_commits(from)?;
            if transactions == 0 {
                return Ok(None);
            }
            let last = line.last_commit()?.map(|end| transaction(&line.log, &end));
            Ok(Some(OtherTimeline {
                timeline: line.timeline.0,
                from_lsn: from.to_string(),
                transactions,
                last_transaction: last,
            }))
        };
        at_once(&others, TIMELINES_AT_ONCE, has_besides).into_iter().filter_map(Result::transpose).collect()
    }

    /// On the newest line, unless others have it too.
    fn by_identity(&self, lines: Vec<Line<'a>>) -> Result<Decision<'a>, Error> {
        let chosen = newest_of(&lines)?;
        let Some(base) = lines.get(chosen) else { return Err(Error::new(Kind::Bug, "no timeline is left to choose")) };
        // What several paths have is looked through once; what the newest has, by whoever asks for its stop.
        let mut seen = Seen::default();
        base.log.path().legs().iter().for_each(|leg| drop(seen.rest_of(leg)));
        let mut parts: Vec<(&Line<'a>, (Lsn, Lsn))> = Vec::new();
        for line in lines.iter().filter(|line| line.timeline != base.timeline && line.own().stored.is_some()) {
            for leg in line.log.path().legs() {
                parts.extend(seen.rest_of(leg).into_iter().map(|part| (line, part)));
            }
        }
        let look = |(line, part): &(&Line<'a>, (Lsn, Lsn))| {
            let found = places(&line.log, *part, &self.request.target)?;
            found.into_iter().map(|lsn| occurrence(&line.log, lsn)).collect::<Result<Vec<_>, _>>()
        };
        let found = at_once(&parts, TIMELINES_AT_ONCE, look).into_iter().collect::<Result<Vec<_>, _>>()?;
        self.decision(lines, chosen, None, found.into_iter().flatten().collect())
    }

    /// What a line would bring back.
    fn candidate(&self, line: &Line<'a>, found: &Result<Found, Unreachable>) -> Result<TargetOccurrence, Error> {
        let report = |end: &XactEntry| transaction(&line.log, end);
        Ok(match found {
            Ok(Found { stop: Some(stop), last_included, first_excluded, .. }) => TargetOccurrence {
                timeline: line.timeline.0,
                last_included: last_included.as_ref().map(report),
                first_excluded: first_excluded.as_ref().map(report),
                ..occurrence(&line.log, stop.lsn)?
            },
            _ => {
                let last = line.last_commit()?;
                let end = line.log.windows().last().map_or(Lsn(0), |window| window.until);
                TargetOccurrence {
                    time: last.map(|end| end.end.time.into()),
                    lsn: end.to_string(),
                    timeline: line.timeline.0,
                    last_included: last.as_ref().map(report),
                    first_excluded: None,
                }
            }
        })
    }
}
