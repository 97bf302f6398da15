//! Change sets of consecutive segments as one, with the proof that nothing is missing between them.

use std::fmt;

use super::collect::Collector;
use super::extents::Extents;
use super::set::ChangeSet;
use crate::limits::MAX_CHANGES_MEMORY_BYTES;
use crate::pg::scan::{Break, Chain, End, Head, Summary};
use crate::pg::{Lsn, SegmentName, WalSegmentSize};

/// Joins what single segments say, in order along one path of timelines.
///
/// A set of a segment has the blocks of the records that lie in it. Of a record that crosses into the next one each
/// segment has a part only, so those are read here, as [`Chain`] puts them together.
#[derive(Debug)]
pub struct Joined {
    size: WalSegmentSize,
    chain: Chain,
    crossing: Collector,
    set: ChangeSet,
    until: Option<Lsn>,
    last: Option<SegmentName>,
}

/// Why it is not known what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// A segment is not stored.
    Missing(SegmentName),
    /// A segment is stored without a change set.
    Unknown(SegmentName),
    /// A segment does not follow the one before.
    Broken(SegmentName, Break),
    /// The log ends in a segment, at this position.
    Ends(SegmentName, Lsn),
    /// The record at this position goes on in a segment that is not stored.
    Open(Lsn),
    /// The positions are not on the path, or in no order.
    NoRange,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(segment) => write!(f, "segment {segment} is not stored"),
            Self::Unknown(segment) => write!(f, "it is not known what segment {segment} changed"),
            Self::Broken(segment, why) => write!(f, "segment {segment} does not follow the one before: {why}"),
            Self::Ends(segment, at) => write!(f, "the log ends in segment {segment}, at {at}"),
            Self::Open(at) => write!(f, "the record at {at} goes on in a segment that is not stored"),
            Self::NoRange => f.write_str("the positions do not follow each other on this timeline"),
        }
    }
}

impl Joined {
    /// Of no segments.
    pub fn new(size: WalSegmentSize) -> Self {
        Self { size, chain: Chain::new(), crossing: Collector::new(size.bytes()), set: ChangeSet::new(), until: None, last: None }
    }

    /// Adds the next segment.
    ///
    /// # Errors
    /// When it does not follow the last one.
    pub fn push(&mut self, summary: &Summary, set: &ChangeSet) -> Result<(), Incomplete> {
        self.follow(summary)?;
        self.add(set);
        let segment = summary.segment;
        self.last = SegmentName::holding(segment.timeline(), segment.start(), self.size);
        self.until = Some(summary.good_until());
        Ok(())
    }

    /// The segment after the last one, whose own changes are not wanted: a record may end in it. Says whether one is
    /// still open.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_follower(&mut self, summary: &Summary) -> Result<bool, Incomplete> {
        let before = self.chain.open_record();
        if let (Some(open), Head::Continuation { rem_len, piece, dead: false }) = (before, &summary.head)
            && piece.len() < u64::from(*rem_len)
            && !summary.is_complete()
        {
            return Err(Incomplete::Open(open));
        }
        // A record that begins in it is none of ours.
        if matches!(summary.end, End::Continues(_)) {
            self.follow(&Summary { end: End::Full, xacts: None, ..summary.clone() })?;
            return Ok(false);
        }
        self.follow(summary)?;
        Ok(before.is_some() && self.chain.open_record() == before)
    }

    /// Adds changes of segments that were joined before, all of whose records are known to their end. Whatever is
    /// pushed next begins anew, so let the next segment be a [follower](Self::push_follower) first.
    pub fn add_known(&mut self, set: &ChangeSet, until: Lsn) {
        self.add(set);
        self.chain = Chain::new();
        (self.until, self.last) = (Some(until), None);
    }

    /// Adds changes of whatever was joined before.
    pub fn add_set(&mut self, set: &ChangeSet) {
        self.add(set);
    }

    fn follow(&mut self, summary: &Summary) -> Result<(), Incomplete> {
        self.chain.push(summary, &mut self.crossing).map_err(|why| {
            let segment = summary.segment;
            match SegmentName::holding(segment.timeline(), segment.start(), self.size) {
                Some(segment) => Incomplete::Broken(segment, why),
                None => Incomplete::NoRange,
            }
        })
    }

    fn add(&mut self, set: &ChangeSet) {
        self.set.union(set);
        let segment = self.until.map_or(0, |until| until.0.saturating_sub(1) / self.size.bytes());
        self.set.shrink(MAX_CHANGES_MEMORY_BYTES, segment, Extents::memory_bytes);
    }

    /// Up to where it is known what changed, so far.
    pub fn until(&self) -> Option<Lsn> {
        self.until
    }

    /// Where the record begins that goes on after the last segment, if one does.
    pub fn open_record(&self) -> Option<Lsn> {
        self.chain.open_record()
    }

    /// What changed by records that begin before `to`, and maybe by later ones.
    ///
    /// # Errors
    /// When the log does not go so far, or a record before there is not known to its end.
    pub fn finish(mut self, to: Lsn) -> Result<ChangeSet, Incomplete> {
        let until = self.until.ok_or(Incomplete::NoRange)?;
        if until < to {
            return Err(self.last.map_or(Incomplete::NoRange, |last| Incomplete::Ends(last, until)));
        }
        if let Some(open) = self.chain.open_record().filter(|open| *open < to) {
            return Err(Incomplete::Open(open));
        }
        let crossing = std::mem::replace(&mut self.crossing, Collector::new(self.size.bytes())).finish();
        self.add(&crossing);
        Ok(self.set)
    }
}
