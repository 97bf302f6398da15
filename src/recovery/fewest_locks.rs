//! A stop without the locks of what is excluded.
//!
//! Just before the commit of a `DROP TABLE`, replay holds that transaction's `AccessExclusiveLock` already: while
//! recovery is paused there, `SELECT` and `pg_dump` wait for the very table that somebody came for. Recovery can stop
//! earlier with the same data: after the last record that leaves another state behind ([`Effect`] has what does so),
//! which most often is the last commit that is included. Of the positions between that record and the stop, the first
//! with the fewest locks is taken; the server's own stop where no other one has fewer. A stop is also moved before the
//! record that removes the files of a database or tablespace whose drop is excluded.
//!
//! Which locks are held is known from the last snapshot of the running transactions on: it repeats them all.

use crate::error::Error;
use crate::limits::{MAX_BACK_SEGMENTS, MAX_REMEMBERED_LOCKS, MAX_SNAPSHOT_SEGMENTS};
use crate::pg::Lsn;
use crate::pg::scan::{Effect, Event, Lock, Record, RelFile, StorageChange, Visitor};
use crate::recovery::path_log::PathLog;
use crate::recovery::stop::Stop;
use std::collections::HashSet;

/// Where recovery stops, and what is locked there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FewestLocks {
    /// The stop, with the same data as at the server's own.
    pub stop: Stop,
    /// `AccessExclusiveLock`s that replay holds there.
    pub held: Vec<Lock>,
    /// Whether these are all.
    pub is_all: bool,
    /// The files of a database or tablespace are removed before this stop, and its drop is excluded.
    pub removed: bool,
}

/// Looks for a stop between `lowest` and the server's own; where nothing may be moved, `lowest` is that stop's own
/// record. `begin` is where recovery begins.
///
/// # Errors
/// As the repository's.
pub fn fewest_locks(log: &PathLog<'_>, begin: Lsn, lowest: Lsn, stop: Stop) -> Result<Option<FewestLocks>, Error> {
    let leg = log.leg(stop.lsn).map_or(begin, |leg| leg.begin);
    let lowest = lowest.max(leg).max(log.segments_before(stop.lsn, MAX_BACK_SEGMENTS)).max(begin);
    let mut found = None;
    for back in 0..=MAX_SNAPSHOT_SEGMENTS {
        let from = log.segments_before(lowest, back).max(begin);
        let Some(watch) = log.read(from, Lsn(stop.lsn.0.saturating_add(1)), Watch::new(from, lowest, stop))? else { break };
        let is_from_begin = from == begin;
        let least = watch.finish(is_from_begin);
        let is_known = least.is_all;
        found = Some(least);
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
        } else if self.held.len() < MAX_REMEMBERED_LOCKS {
            self.held.push((lock, lsn));
        }
    }

    fn snapshot(&mut self, lsn: Lsn, overflowed: bool) {
        // Each snapshot repeats what is held. What the last one did not is released: a subtransaction's, whose end has
        // not its number.
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

    fn finish(self, is_from_begin: bool) -> FewestLocks {
        let own = self.candidate(self.stop);
        let best = match self.best {
            Some(best) if best.held.len() < own.held.len() || (own.removed && !best.removed) => best,
            _ => own,
        };
        FewestLocks { stop: best.stop, held: best.held, is_all: self.is_all || is_from_begin, removed: best.removed }
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
            && self.made.len() < MAX_REMEMBERED_LOCKS
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::scan::{PgTime, XactEnd, XactKind, Xid};

    /// What a record is, at which position.
    enum Is {
        Nothing,
        Effect(Effect),
        New(u32),
        Commit(u32),
        Abort(u32),
    }

    fn rel(relation: u32) -> RelFile {
        RelFile { tablespace: 1663, database: 5, relation }
    }

    fn lock(xid: u32) -> Is {
        Is::Effect(Effect::Lock(Lock { xid, database: 5, relation: xid * 10 }))
    }

    fn snapshot(overflowed: bool) -> Is {
        Is::Effect(Effect::Snapshot { overflowed })
    }

    /// Records at 8, 16, …; the server's own stop is before the last one.
    fn stop_of(lowest: u64, records: Vec<Is>) -> (Stop, Vec<u32>, bool, bool) {
        let own = Stop { lsn: Lsn(records.len() as u64 * 8), after: false };
        let mut watch = Watch::new(Lsn(0), Lsn(lowest), own);
        for (i, record) in records.into_iter().enumerate() {
            let lsn = Lsn((i as u64 + 1) * 8);
            let end = |kind, xid| Record {
                start: lsn,
                end: Lsn(lsn.0 + 8),
                what: Event::XactEnd(XactEnd { kind, time: PgTime(0), xid: Xid::new(xid) }),
            };
            // In the order of a scan: effects, then that there is a record, then what it says.
            match &record {
                Is::Effect(effect) => watch.effect(lsn, *effect),
                Is::New(relation) => watch.storage(lsn, StorageChange::Create { rel: rel(*relation), fork: 0 }),
                _ => {}
            }
            watch.record(lsn);
            match record {
                Is::Commit(xid) => watch.found(&end(XactKind::Commit, xid)),
                Is::Abort(xid) => watch.found(&end(XactKind::Abort, xid)),
                _ => {}
            }
        }
        let least = watch.finish(false);
        (least.stop, least.held.iter().map(|lock| lock.xid).collect(), least.is_all, least.removed)
    }

    fn after(lsn: u64) -> Stop {
        Stop { lsn: Lsn(lsn), after: true }
    }

    fn before(lsn: u64) -> Stop {
        Stop { lsn: Lsn(lsn), after: false }
    }

    #[test]
    fn it_stops_after_what_must_be_replayed_and_before_the_lock() {
        use Is::{Commit, Effect as E, New, Nothing};
        // The last commit, and a drop with a snapshot in the middle.
        let drop = || vec![snapshot(false), Commit(3), Nothing, lock(7), snapshot(false), lock(7), Nothing, Commit(7)];
        assert_eq!(stop_of(16, drop()), (after(16), vec![], true, false));
        // Nothing is gained: the server's own.
        assert_eq!(stop_of(16, vec![snapshot(false), Commit(3), Nothing, Commit(7)]), (before(32), vec![], true, false));
        // Somebody else's commit, or a sequence that goes on, is behind the lock; a sequence that is new is not seen.
        assert_eq!(stop_of(24, vec![snapshot(false), lock(7), Commit(3), Commit(7)]), (before(32), vec![7], true, false));
        let sequence = |new| vec![snapshot(false), Commit(3), lock(7), New(new), E(Effect::Sequence(rel(70))), Commit(7)];
        assert_eq!(stop_of(16, sequence(71)).0, before(48));
        assert_eq!(stop_of(16, sequence(70)).0, after(16));
        // What is lasting comes first: then the lock.
        let prepared = vec![snapshot(false), Commit(3), Nothing, E(Effect::Lasting), Nothing, lock(7), Commit(7)];
        assert_eq!(stop_of(16, prepared).0, after(32));
        // Nothing has committed since the backup was consistent.
        assert_eq!(stop_of(16, vec![snapshot(false), Nothing, lock(7), Commit(7)]).0, before(16));
        // Without a snapshot before it nobody could look around: the first must be replayed, and the next as long as it
        // is not whole.
        let unready = |overflowed| vec![Commit(3), lock(7), snapshot(overflowed), lock(8), lock(7), snapshot(false), Commit(7)];
        assert_eq!(stop_of(8, unready(false)).0, after(24));
        assert_eq!(stop_of(8, unready(true)).0, before(56));
        assert!(!stop_of(8, unready(true)).2);
    }

    #[test]
    fn locks_are_released_with_their_transaction_or_by_a_snapshot() {
        use Is::{Abort, Commit, Nothing};
        // A rollback leaves fewer locks than the commit before it.
        let rollback = vec![snapshot(false), lock(5), Commit(3), Abort(5), lock(7), Commit(7)];
        assert_eq!(stop_of(24, rollback), (after(32), vec![], true, false));
        // A subtransaction's lock goes with the second snapshot that does not repeat it.
        let sub = |n: usize| {
            let mut records = vec![snapshot(false), lock(5)];
            records.extend((0..n).map(|_| snapshot(false)));
            records.extend([Commit(3), Nothing, Commit(7)]);
            let lowest = (records.len() as u64 - 2) * 8;
            stop_of(lowest, records).1
        };
        assert_eq!((sub(1), sub(2)), (vec![5], vec![]));
    }

    #[test]
    fn files_that_are_dropped_later_stay() {
        use Is::{Commit, Effect as E, Nothing};
        let removal = || E(Effect::Removal { xid: 7, is_database: true });
        let database = vec![snapshot(false), Commit(3), Nothing, removal(), E(Effect::Lasting), Commit(7)];
        assert_eq!(stop_of(16, database), (after(16), vec![], true, false));
        // Somebody else committed after the files were removed.
        let too_late = vec![snapshot(false), removal(), Commit(3), Nothing, Commit(7)];
        assert_eq!(stop_of(24, too_late), (before(40), vec![], true, true));
        // A drop that is included is no matter.
        let included = vec![snapshot(false), removal(), Commit(7), Nothing, Commit(8)];
        assert_eq!(stop_of(24, included), (before(40), vec![], true, false));
    }
}
