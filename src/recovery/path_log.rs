//! A path of the catalog as the search sees it: stretches without a gap, and what is in them.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::format::node::{Aggregate, Edge, Entry};
use crate::limits::TIMELINES_AT_ONCE;
use crate::pg::scan::{End, Mark, PgTime, Record, Scanner, Segment, Visitor, XactEntry};
use crate::pg::{Lsn, Timeline, WalFileName, WalSegmentSize};
use crate::recovery::log::{BackupEnd, Log, Minimal, WantedEnds, WantedMarks, Window};
use crate::recovery::stretches::{Stretches, gone, scanned};
use crate::repo::catalog::{Leg, Path, Step};
use crate::repo::{Catalog, ClusterName, Fetched, Repository};
use crate::threads::at_once;

/// One path.
pub struct PathLog<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    catalog: &'a Catalog<'a>,
    path: Path,
    has_history: bool,
    windows: Vec<Window>,
    minimal: Vec<Minimal>,
}

impl<'a> PathLog<'a> {
    /// The path to a timeline, with its stretches found.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn open(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        catalog: &'a Catalog<'a>,
        target: Timeline,
    ) -> Result<Self, Error> {
        Self::of_path(repository, cluster, catalog, catalog.path(target)?)
    }

    /// The path to a timeline whose own history may be missing.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn open_as_known(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        catalog: &'a Catalog<'a>,
        target: Timeline,
    ) -> Result<Self, Error> {
        Self::of_path(repository, cluster, catalog, catalog.path_as_known(target)?)
    }

    /// The paths to several timelines, in their order, as [`open_as_known`](Self::open_as_known) opens each. What they
    /// have in common is looked at once, so the cost is that of the timelines and not of the paths; several timelines
    /// are read at once.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn open_all(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        catalog: &'a Catalog<'a>,
        targets: &[Timeline],
    ) -> Result<Vec<Self>, Error> {
        let paths = targets.iter().map(|target| catalog.path_as_known(*target)).collect::<Result<Vec<_>, _>>()?;
        if paths.len() > 1 {
            // The catalog remembers what is read here. What fails is asked for again where it matters.
            let look = |path: &Path| catalog.walk(path, own_begin(path), Lsn(u64::MAX), &|a| a.stops > 0, &mut |_| GO_ON);
            let failed = at_once(&paths, TIMELINES_AT_ONCE, look).into_iter().filter_map(Result::err).next();
            if let Some(error) = failed {
                tracing::debug!("look at all timelines: {error}");
            }
        }
        let mut begun: Vec<(Path, Stretches)> = Vec::new();
        let mut logs = Vec::with_capacity(paths.len());
        for path in paths {
            let parent = begun.iter().rev().find_map(|(parent, stretches)| stretches.up_to(&path, parent));
            let stretches = Stretches::find(catalog, &path, parent.unwrap_or_default())?;
            begun.push((path.clone(), stretches.clone()));
            logs.push(Self::of_stretches(repository, cluster, catalog, path, stretches)?);
        }
        Ok(logs)
    }

    fn of_path(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        catalog: &'a Catalog<'a>,
        path: Path,
    ) -> Result<Self, Error> {
        let stretches = Stretches::find(catalog, &path, Stretches::default())?;
        Self::of_stretches(repository, cluster, catalog, path, stretches)
    }

    fn of_stretches(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        catalog: &'a Catalog<'a>,
        path: Path,
        Stretches { windows, may_be_minimal, .. }: Stretches,
    ) -> Result<Self, Error> {
        let has_history = catalog.has_history(path.target());
        let mut log = Self { repository, cluster, catalog, path, has_history, windows, minimal: Vec::new() };
        if may_be_minimal {
            log.end_at_minimal()?;
        }
        Ok(log)
    }

    /// Ends stretches where `wal_level = minimal` begins; the rest of each begins again where that ends.
    fn end_at_minimal(&mut self) -> Result<(), Error> {
        let (mut windows, mut minimal) = (Vec::new(), Vec::new());
        for window in &self.windows {
            let mut changes: Vec<(Lsn, bool)> = Vec::new();
            self.marks(window.from, window.until, WantedMarks::Parameters, &mut |mark| {
                if let Mark::ParameterChange(parameters) = &mark.what {
                    changes.push((mark.start, parameters.is_minimal()));
                }
                ControlFlow::Continue(())
            })?;
            let (mut from, mut ended): (Lsn, Option<Lsn>) = (window.from, None);
            for (at, is_minimal) in changes {
                match (ended, is_minimal) {
                    (None, true) => {
                        windows.extend((from < at).then_some(Window { from, until: at }));
                        ended = Some(at);
                    }
                    (Some(begun), false) => {
                        minimal.push(Minimal { from: begun, until: Some(at) });
                        (from, ended) = (at, None);
                    }
                    (None, false) | (Some(_), true) => {}
                }
            }
            match ended {
                None => windows.push(Window { from, until: window.until }),
                Some(begun) => minimal.push(Minimal { from: begun, until: None }),
            }
        }
        (self.windows, self.minimal) = (windows, minimal);
        Ok(())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the history of the path's last timeline is stored, or none is needed. Without it the server does not
    /// know the timeline as a target, and stays on it only if the backup is of it.
    pub fn has_history(&self) -> bool {
        self.has_history
    }

    /// The legs on which a backup may be from which the server gets to the end of the path.
    pub fn legs(&self) -> &[Leg] {
        let legs = self.path.legs();
        if self.has_history { legs } else { legs.get(legs.len().saturating_sub(1)..).unwrap_or(legs) }
    }

    /// The leg on which a record begins.
    pub fn leg(&self, lsn: Lsn) -> Option<&Leg> {
        self.path.legs().iter().find(|leg| leg.begin <= lsn && lsn < leg.end)
    }

    fn size(&self) -> WalSegmentSize {
        self.catalog.facts().wal_segment_size
    }

    /// The earliest time that is known at or after a position.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn first_time(&self, from: Lsn) -> Result<Option<PgTime>, Error> {
        let mut first = None;
        self.entries(from, Lsn(u64::MAX), &is_timed, &mut |entry| {
            first = self.times(entry, from)?.map(|(first, _)| first);
            Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(first)
    }

    /// The latest time that is known, of records that begin at or after a position.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn last_time(&self, from: Lsn) -> Result<Option<PgTime>, Error> {
        let mut last = None;
        self.catalog.walk_back(&self.path, from, Lsn(u64::MAX), &is_timed, &mut |step| {
            if let Some(entry) = self.entry_of(step)? {
                last = self.times(&entry, from)?.map(|(_, last)| last);
            }
            Ok(if last.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(last)
    }

    /// The first and last time in a segment. Those of checkpoints are in whole seconds, cut off.
    fn times(&self, entry: &Entry, from: Lsn) -> Result<Option<(PgTime, PgTime)>, Error> {
        let mut times: Option<(PgTime, PgTime)> = None;
        let mut add = |time: PgTime| {
            times = Some(times.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
        };
        match entry.aggregate.xacts {
            // All of them count, and what they have together is known.
            Some(xacts) if from <= entry.start && !self.path.leaves_in(entry.segment) => {
                add(xacts.min_time);
                add(xacts.max_time);
            }
            _ => {
                let _ = self.catalog.ends(&self.path, entry, (from, Lsn(u64::MAX)), WantedEnds::All, &mut |end| {
                    add(end.end.time);
                    ControlFlow::Continue(())
                })?;
            }
        }
        for mark in self.catalog.marks(&self.path, entry, false)?.iter().filter(|mark| mark.start >= from) {
            match &mark.what {
                Mark::RestorePoint { time, .. } | Mark::EndOfRecovery { time, .. } => add(*time),
                Mark::Checkpoint { time_unix_s, .. } => {
                    time_unix_s.checked_mul(1_000_000).and_then(PgTime::from_unix_us).into_iter().for_each(&mut add);
                }
                _ => {}
            }
        }
        Ok(times)
    }

    /// Whether a transaction ends at or after a position.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn has_transactions(&self, from: Lsn) -> Result<bool, Error> {
        let mut has = false;
        self.ends(from, Lsn(u64::MAX), WantedEnds::All, &mut |_| {
            has = true;
            ControlFlow::Break(())
        })?;
        Ok(has)
    }

    /// How many transactions commit in records that begin at or after a position. What nodes say of whole blocks is
    /// taken as it is.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn count_commits(&self, from: Lsn) -> Result<u64, Error> {
        let size = self.size().bytes();
        let next = Lsn((from.0 / size).saturating_add(1).saturating_mul(size));
        let mut count = 0;
        // A fork is somewhere within a segment.
        self.ends(from, next, WantedEnds::All, &mut |end| {
            count += u64::from(end.end.kind.is_commit());
            ControlFlow::Continue(())
        })?;
        Ok(self.count_in(next, Lsn(u64::MAX), u64::MAX)?.saturating_add(count))
    }

    /// Commits in whole segments; of blocks of at least this many the parts are looked at.
    fn count_in(&self, from: Lsn, to: Lsn, part: u64) -> Result<u64, Error> {
        let (mut count, mut larger) = (0, Vec::new());
        let commits = |aggregate: &Aggregate| aggregate.xacts.map_or(0, |xacts| xacts.count.saturating_sub(xacts.aborts));
        self.catalog.walk(&self.path, from, to, &|aggregate| aggregate.segments >= part, &mut |step| {
            match step {
                // At the edges a node may be of more segments than those asked for.
                Step::Skipped { first, last, aggregate } => match (first.start(self.size()), last.start(self.size())) {
                    (Some(first), Some(last)) if (last.0 - first.0) / self.size().bytes() + 1 < aggregate.segments => {
                        larger.push((first, last, aggregate.segments));
                    }
                    _ => count = commits(&aggregate).saturating_add(count),
                },
                step => count = self.entry_of(step)?.map_or(0, |entry| commits(&entry.aggregate)).saturating_add(count),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (first, last, segments) in larger {
            count = self.count_in(first, last, segments)?.saturating_add(count);
        }
        Ok(count)
    }

    /// Where reading ends in a stretch that nothing follows: behind its last whole record.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn end_of_records(&self, window: &Window) -> Result<Lsn, Error> {
        let mut end = window.until;
        self.catalog.walk_back(&self.path, window.from, Lsn(window.until.0.saturating_sub(1)), &|_| true, &mut |step| {
            let Some(entry) = self.entry_of(step)? else { return Ok(ControlFlow::Continue(())) };
            let Some(last) = entry.last_record else { return Ok(ControlFlow::Continue(())) };
            let summary = self.catalog.summary(entry.segment)?;
            if summary.is_some_and(|summary| matches!(summary.end, End::Continues(_))) {
                end = end.min(last);
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(end)
    }

    /// Where the segment begins that the server needs last to read the record at `lsn` whole.
    ///
    /// # Errors
    /// As the catalog's.
    pub fn segment_of_end(&self, lsn: Lsn) -> Result<Lsn, Error> {
        let Some(entry) = self.catalog.entry_at(&self.path, lsn)? else { return Err(gone(lsn)) };
        if let Some(crossing) = entry.crossing.as_ref().filter(|crossing| crossing.start == lsn) {
            return Ok(Lsn(crossing.end.0.saturating_sub(1)));
        }
        // Of all records only the last that begins in a segment can cross its end, and the first that begins after it
        // begins where it ends or later.
        let crosses = entry.edge == Edge::Follows && entry.last_record == Some(lsn) && {
            let summary = self.catalog.summary(entry.segment)?.ok_or_else(|| gone(lsn))?;
            matches!(&summary.end, End::Continues(tail) if tail.start == lsn)
        };
        let mut end = entry.start;
        if crosses {
            let next = Lsn(entry.start.0.saturating_add(self.size().bytes()));
            self.entries(next, Lsn(u64::MAX), &|_| true, &mut |entry| {
                end = entry.start;
                Ok(if entry.first_record.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(end)
    }

    /// Walks over the entries between two positions that are wanted.
    fn entries(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: &dyn Fn(&Aggregate) -> bool,
        visit: &mut dyn FnMut(&Entry) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        let mut on_step = |step| match self.entry_of(step)? {
            Some(entry) => visit(&entry),
            None => Ok(ControlFlow::Continue(())),
        };
        self.catalog.walk(&self.path, from, Lsn(to.0 - 1), wanted, &mut on_step)
    }

    /// The entry of a step; one is made of a segment that was stored without.
    fn entry_of(&self, step: Step) -> Result<Option<Entry>, Error> {
        match step {
            Step::Segment(entry) => Ok(Some(entry)),
            Step::Unscanned(name) => scanned(self.catalog, &self.path, name).map(Some),
            // Between stretches, which is where nobody looks, or deleted since.
            Step::Skipped { .. } | Step::Missing { .. } => Ok(None),
        }
    }

    /// Has a visitor read the segments that hold `from..to`, which lies in one window. `None` when one of them is gone.
    ///
    /// # Errors
    /// As the repository's.
    pub fn read<V: Visitor>(&self, from: Lsn, to: Lsn, visitor: V) -> Result<Option<V>, Error> {
        let (mut visitor, mut carry) = (Some(visitor), None);
        let begin = Lsn(from.0 - from.0 % self.size().bytes());
        self.entries(begin, to, &|_| true, &mut |entry| {
            let segment = Segment::new(entry.segment, self.size()).ok_or_else(|| gone(entry.start))?;
            let Some(taken) = visitor.take() else { return Ok(ControlFlow::Break(())) };
            let mut scanner = Scanner::resume(segment, carry.take(), taken);
            let file = WalFileName::Segment(entry.segment);
            match self.repository.get_wal(self.cluster, self.catalog.facts(), &file, &mut scanner)? {
                Fetched::Served(_) => {}
                Fetched::Absent | Fetched::Missing { .. } => return Ok(ControlFlow::Break(())),
            }
            let scanned = scanner.finish();
            (visitor, carry) = (Some(scanned.visitor), scanned.carry);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(visitor)
    }

    /// Where the segment of a position begins that is this many segments before it.
    pub fn segments_before(&self, lsn: Lsn, segments: u64) -> Lsn {
        let size = self.size().bytes();
        Lsn((lsn.0 - lsn.0 % size).saturating_sub(segments.saturating_mul(size)))
    }

    /// The first record that begins and ends in the stretch, in this segment.
    fn first_in(&self, entry: &Entry, from: Lsn) -> Result<Option<Lsn>, Error> {
        let (Some(first), Some(last)) = (entry.first_record, entry.last_record) else { return Ok(None) };
        if last < from {
            return Ok(None);
        }
        let follows = entry.edge == Edge::Follows;
        if follows && first >= from {
            return Ok(Some(first));
        }
        let segment = Segment::new(entry.segment, self.size()).ok_or_else(|| gone(from))?;
        let mut scanner = Scanner::new(segment, FirstRecord { from, found: None });
        let file = WalFileName::Segment(entry.segment);
        match self.repository.get_wal(self.cluster, self.catalog.facts(), &file, &mut scanner)? {
            Fetched::Served(_) => {}
            Fetched::Absent | Fetched::Missing { .. } => return Err(gone(from)),
        }
        let complete = scanner.finish().visitor.found;
        // What the segment's end cuts is complete when the next segment follows.
        Ok(complete.or(follows.then_some(last)))
    }
}

/// Whether anything in a part of the log has a time.
fn is_timed(Aggregate { xacts, marks, .. }: &Aggregate) -> bool {
    xacts.is_some() || marks.incomplete || marks.restore_points > 0 || marks.checkpoints > 0
}

const GO_ON: Result<ControlFlow<()>, Error> = Ok(ControlFlow::Continue(()));

/// Where the last leg of a path begins.
fn own_begin(path: &Path) -> Lsn {
    path.legs().last().map_or(Lsn(0), |leg| leg.begin)
}

impl Log for PathLog<'_> {
    fn windows(&self) -> &[Window] {
        &self.windows
    }

    fn minimal(&self) -> &[Minimal] {
        &self.minimal
    }

    fn ends(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedEnds,
        visit: &mut dyn FnMut(&XactEntry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let may_have = |aggregate: &Aggregate| match wanted {
            WantedEnds::All => aggregate.xacts.is_some(),
            WantedEnds::AtOrAfter(time) => aggregate.may_end_at_or_after(time),
            WantedEnds::Between(from, to) => aggregate.may_end_at_or_after(from) && aggregate.may_end_at_or_before(to),
            WantedEnds::Xid(xid) => aggregate.may_have_xid(xid),
        };
        self.entries(from, to, &may_have, &mut |entry| {
            if !may_have(&entry.aggregate) {
                return Ok(ControlFlow::Continue(()));
            }
            self.catalog.ends(&self.path, entry, (from, to), wanted, visit)
        })
    }

    fn last_commit(&self, from: Lsn, to: Lsn) -> Result<Option<XactEntry>, Error> {
        let mut last = None;
        if from >= to {
            return Ok(last);
        }
        let commits = |aggregate: &Aggregate| aggregate.xacts.is_some_and(|xacts| xacts.count > xacts.aborts);
        self.catalog.walk_back(&self.path, from, Lsn(to.0 - 1), &commits, &mut |step| {
            if let Some(entry) = self.entry_of(step)?
                && entry.aggregate.xacts.is_some()
            {
                last = self.catalog.last_commit(&self.path, &entry, (from, to))?;
            }
            Ok(if last.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(last)
    }

    fn last_backup(&self, from: Lsn, to: Lsn) -> Result<Option<BackupEnd>, Error> {
        let mut last = None;
        if from >= to {
            return Ok(last);
        }
        let may_have = |aggregate: &Aggregate| aggregate.marks.incomplete || aggregate.marks.backup_ends > 0;
        self.catalog.walk_back(&self.path, from, Lsn(to.0 - 1), &may_have, &mut |step| {
            if let Some(entry) = self.entry_of(step)?
                && may_have(&entry.aggregate)
            {
                let found = self.catalog.marks(&self.path, &entry, false)?;
                let within = |mark: &&Record<Mark>| from <= mark.start && mark.start < to;
                last = found.iter().filter(within).filter_map(BackupEnd::of).rfind(|backup| backup.start >= from);
            }
            Ok(if last.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(last)
    }

    fn marks(
        &self,
        from: Lsn,
        to: Lsn,
        wanted: WantedMarks<'_>,
        visit: &mut dyn FnMut(&Record<Mark>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let may_have = |Aggregate { marks, .. }: &Aggregate| {
            marks.incomplete
                || match wanted {
                    WantedMarks::Timed => marks.restore_points > 0 || marks.checkpoints > 0,
                    WantedMarks::RestorePoints | WantedMarks::Named(_) => marks.restore_points > 0,
                    WantedMarks::BackupEnds => marks.backup_ends > 0,
                    WantedMarks::Files => marks.may_have_files(),
                    WantedMarks::Parameters => marks.may_have_parameters(),
                }
        };
        let named = |aggregate: &Aggregate| match wanted {
            WantedMarks::Named(name) => may_have(aggregate) && aggregate.may_have_restore_point(name.as_bytes()),
            _ => may_have(aggregate),
        };
        self.entries(from, to, &named, &mut |entry| {
            if !named(&entry.aggregate) {
                return Ok(ControlFlow::Continue(()));
            }
            let found = self.catalog.marks(&self.path, entry, wanted == WantedMarks::Files)?;
            let mut within = found.iter().filter(|mark| from <= mark.start && mark.start < to);
            Ok(if within.any(|mark| visit(mark).is_break()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    fn first_record(&self, from: Lsn, to: Lsn) -> Result<Option<Lsn>, Error> {
        let mut found = None;
        self.entries(from, to, &|_| true, &mut |entry| {
            found = self.first_in(entry, from)?;
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found.filter(|lsn| *lsn < to))
    }
}

struct FirstRecord {
    from: Lsn,
    found: Option<Lsn>,
}

impl Visitor for FirstRecord {
    fn record(&mut self, start: Lsn) {
        if start >= self.from {
            self.found.get_or_insert(start);
        }
    }
}
