//! A stop without the locks of what is excluded.
//!
//! Just before the commit of a `DROP TABLE`, replay holds that transaction's `AccessExclusiveLock` already: while recovery is paused there,
//! `SELECT` and `pg_dump` wait for the very table that somebody came for. Recovery can stop earlier with the same data: after the last record
//! that leaves another state behind ([`Effect`] has what does so), which most often is the last commit that is included. Of the positions
//! between that record and the stop, the first with the fewest locks is taken; the server's own stop where no other one has fewer. A stop is
//! also moved before the record that removes the files of a database or tablespace whose drop is excluded.
//!
//! Which locks are held is known from the last snapshot of the running transactions on: it repeats them all.

use std::collections::HashSet;

use super::log::PathLog;
use super::search::Stop;
use crate::error::Error;
use crate::pg::Lsn;
use crate::pg::scan::{Effect, Event, Lock, Record, RelFile, StorageChange, Visitor};

/// How far back from the server's own stop another one is looked for, in segments.
const MAX_BACK_SEGMENTS: u64 = 8;
/// How far back from there a snapshot is looked for.
const MAX_SNAPSHOT_SEGMENTS: u64 = 4;
/// Most relations and locks that are remembered.
const MAX_REMEMBERED: usize = 100_000;

/// Where recovery stops, and what is locked there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// The stop, with the same data as at the server's own.
    pub stop: Stop,
    /// `AccessExclusiveLock`s that replay holds there.
    pub held: Vec<Lock>,
    /// Whether these are all.
    pub is_all: bool,
    /// The files of a database or tablespace are removed before this stop, and its drop is excluded.
    pub removed: bool,
}

/// Looks for a stop between `lowest` and the server's own; where nothing may be moved, `lowest` is that stop's own record. `begin` is where
/// recovery begins.
///
/// # Errors
/// As the repository's.
pub fn quiet(log: &PathLog<'_>, begin: Lsn, lowest: Lsn, stop: Stop) -> Result<Option<Quiet>, Error> {
    let leg = log.leg(stop.lsn).map_or(begin, |leg| leg.begin);
    let lowest = lowest.max(leg).max(log.segments_before(stop.lsn, MAX_BACK_SEGMENTS)).max(begin);
    let mut found = None;
    for back in 0..=MAX_SNAPSHOT_SEGMENTS {
        let from = log.segments_before(lowest, back).max(begin);
        let Some(watch) = log.read(from, Lsn(stop.lsn.0.saturating_add(1)), Watch::new(from, lowest, stop))? else { break };
        let is_from_begin = from == begin;
        let quiet = watch.settle(is_from_begin);
        let is_known = quiet.is_all;
        found = Some(quiet);
        if is_known || is_from_begin {
            break;
        }
    }
    Ok(found)
}

/// A position at which recovery can stop.
#[derive(Debug, Clone)]
struct Candidate {
    stop: Stop,
    held: Vec<Lock>,
    removed: bool,
}

/// Follows the replay.
struct Watch {
    from: Lsn,
    lowest: Lsn,
    stop: Stop,
    /// With the position of the record that told of it last.
    held: Vec<(Lock, Lsn)>,
    /// Transactions that have removed files and have not ended.
    removals: Vec<u32>,
    /// Where the last snapshots were: the second last and the last one.
    snapshots: (Option<Lsn>, Option<Lsn>),
    /// Whether a snapshot was seen before the first candidate, so that all locks are known.
    is_all: bool,
    /// A hot standby takes queries.
    is_ready: bool,
    /// Made since the first candidate, and not to be seen before their transaction commits.
    made: HashSet<RelFile>,
    best: Option<Candidate>,
    /// No later position counts: what is removed by then must not be.
    is_settled: bool,
}

impl Watch {
    fn new(from: Lsn, lowest: Lsn, stop: Stop) -> Self {
        Self {
            from,
            lowest,
            stop,
            held: Vec::new(),
            removals: Vec::new(),
            snapshots: (None, None),
            is_all: false,
            is_ready: false,
            made: HashSet::new(),
            best: None,
            is_settled: false,
        }
    }

    /// Whether a record is replayed. The first that may be left out makes a candidate of the position before it.
    fn is_replayed(&mut self, lsn: Lsn) -> bool {
        let is_replayed = self.from <= lsn && (lsn < self.stop.lsn || (self.stop.after && lsn == self.stop.lsn));
        if is_replayed && lsn >= self.lowest && self.best.is_none() {
            self.is_all = self.snapshots.1.is_some();
            self.best = Some(self.candidate(Stop { lsn, after: false }));
        }
        is_replayed
    }

    fn candidate(&self, stop: Stop) -> Candidate {
        Candidate { stop, held: self.held.iter().map(|(lock, _)| *lock).collect(), removed: !self.removals.is_empty() }
    }

    /// Recovery must not stop before this record.
    fn must_replay(&mut self, lsn: Lsn) {
        if lsn >= self.lowest && !self.is_settled {
            self.best = Some(self.candidate(Stop { lsn, after: true }));
        }
    }

    fn lock(&mut self, lsn: Lsn, lock: Lock) {
        if let Some((_, told_at)) = self.held.iter_mut().find(|(held, _)| *held == lock) {
            *told_at = lsn;
        } else if self.held.len() < MAX_REMEMBERED {
            self.held.push((lock, lsn));
        }
    }

    fn snapshot(&mut self, lsn: Lsn, overflowed: bool) {
        // Each snapshot repeats what is held. What the last one did not is released: a subtransaction's, whose end has not its number.
        if let Some(last) = self.snapshots.1 {
            self.held.retain(|(_, told_at)| *told_at > last);
        }
        self.snapshots = (self.snapshots.1, Some(lsn));
        if !self.is_ready {
            // Without it there would be no queries at all, and a pause would be none.
            self.must_replay(lsn);
        }
        self.is_ready |= !overflowed;
    }

    fn ended(&mut self, lsn: Lsn, xid: Option<u32>, is_commit: bool) {
        self.held.retain(|(lock, _)| Some(lock.xid) != xid);
        self.removals.retain(|removal| Some(*removal) != xid);
        if is_commit {
            self.must_replay(lsn);
        } else if self.best.as_ref().is_some_and(|best| lsn >= self.lowest && self.held.len() < best.held.len())
            && !self.is_settled
        {
            self.best = Some(self.candidate(Stop { lsn, after: true }));
        }
    }

    fn settle(self, is_from_begin: bool) -> Quiet {
        let own = self.candidate(self.stop);
        let best = match self.best {
            Some(best) if best.held.len() < own.held.len() || (own.removed && !best.removed) => best,
            _ => own,
        };
        Quiet { stop: best.stop, held: best.held, is_all: self.is_all || is_from_begin, removed: best.removed }
    }
}

impl Visitor for Watch {
    const EFFECTS: bool = true;

    fn record(&mut self, start: Lsn) {
        let _ = self.is_replayed(start);
    }

    fn found(&mut self, record: &Record<Event>) {
        if !self.is_replayed(record.start) {
            return;
        }
        if let Event::XactEnd(end) = &record.what {
            self.ended(record.start, end.xid.map(crate::pg::scan::Xid::get), end.kind.is_commit());
        }
    }

    fn effect(&mut self, lsn: Lsn, effect: Effect) {
        if !self.is_replayed(lsn) {
            return;
        }
        match effect {
            Effect::Lasting => self.must_replay(lsn),
            Effect::Lock(lock) => self.lock(lsn, lock),
            Effect::Snapshot { overflowed } => self.snapshot(lsn, overflowed),
            Effect::Sequence(rel) if self.made.contains(&rel) => {}
            Effect::Sequence(_) => self.must_replay(lsn),
            Effect::Removal { xid, .. } => {
                self.is_settled |= lsn >= self.lowest;
                self.removals.push(xid);
            }
        }
    }

    fn storage(&mut self, lsn: Lsn, change: StorageChange) {
        if let StorageChange::Create { rel, .. } = change
            && self.is_replayed(lsn)
            && lsn >= self.lowest
            && self.made.len() < MAX_REMEMBERED
        {
            self.made.insert(rel);
        }
    }

    fn unreadable(&mut self, lsn: Lsn) {
        if self.is_replayed(lsn) {
            self.must_replay(lsn);
        }
    }
}
