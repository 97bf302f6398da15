//! What the catalog keeps of segments: entries, aggregates, and the nodes that hold them.
//!
//! An entry is a summary without its lists, and with the transaction whose record begins in the segment and ends in a
//! later one. An aggregate says of consecutive segments what a search needs to pass over all of them at once.
//!
//! # Encoding, version 2
//! Numbers are written as in `pg::scan`'s summaries: LEB128 of the shortest form; signed ones zigzagged.
//!
//! | part | fields |
//! |---|---|
//! | version | byte 2 |
//! | node | timeline; binary logarithm of the segment size; level; number: it covers the segments from number × 16^level on |
//! | 16 children | at level 1 an entry each, at others an aggregate |
//! | aggregate | transactions: count, or 0; aborts; earliest time; latest minus earliest; oldest xid or 0; if not 0: newest minus oldest. Restore points: count, or 0; if not 0: the 8 bytes of the names' bits. Checkpoints. Backup ends. Tablespaces and databases created or dropped. Changes of parameters. Of these, those to `wal_level = minimal`. 1 if a list of marks was left out, plus 2 if the last three are not known, else 0. At levels above 1: segments after which recovery does not go on |
//! | entry | edge: 0 follows, 1 broken, 2 stops; first record, or 0; if not 0: last minus first; good until; positions are distances from the segment's beginning. Crossing transaction: 0, or 1 plus the kind (0 commit, 1 abort, 2 commit prepared, 3 abort prepared), start, length, time, xid or 0. Its aggregate |
//!
//! Every byte string of version 2 that decodes is the only encoding of its node. Version 1 had not the three numbers
//! before the last of an aggregate: of its nodes these are not known. It is read, and written no more.

pub use super::aggregate::{Aggregate, MarkCounts};

use crate::limits::MAX_NODE_BYTES;
use crate::pg::scan::{PgTime, Record, XactEnd, XactKind, XactStats, Xid};
use crate::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};
use crate::varint::{put_varint, take_varint, unzigzag, zigzag};

/// Children of a node: segments at level 1, nodes of the level below at higher ones.
pub const FANOUT: u64 = 16;
/// Highest level: 16^11 segments of 1 MiB are all positions there can be.
pub const MAX_LEVEL: u32 = 11;

/// How a segment hangs together with the next one of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The next one follows, as far as both say.
    Follows,
    /// The next one is there and does not follow.
    Broken,
    /// Reading ends in this one: it is damaged, or has no more data.
    Stops,
    /// The next one is not there.
    Open,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub segment: SegmentName,
    /// Position of its first byte.
    pub start: Lsn,
    /// Where the first record that begins in it does, if one does.
    pub first_record: Option<Lsn>,
    /// Where the last one does.
    pub last_record: Option<Lsn>,
    /// Up to here it is good; the next segment's start if all is.
    pub good_until: Lsn,
    /// What is after it.
    pub edge: Edge,
    /// The transaction whose record begins in it and ends in a later one. The aggregate includes it.
    pub crossing: Option<Record<XactEnd>>,
    /// In numbers.
    pub aggregate: Aggregate,
}

/// What a node is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId {
    /// The timeline.
    pub timeline: Timeline,
    /// The cluster's segment size.
    pub size: WalSegmentSize,
    /// 1 to [`MAX_LEVEL`].
    pub level: u32,
    /// Its number in its level.
    pub number: u64,
}

/// Segments under a node of this level, or one segment at level 0.
pub fn span(level: u32) -> u64 {
    1_u64.checked_shl(level.saturating_mul(4)).unwrap_or(u64::MAX)
}

impl NodeId {
    /// Number of its first segment.
    pub fn first(&self) -> u64 {
        self.number.saturating_mul(span(self.level))
    }

    /// Number of its last segment.
    pub fn last(&self) -> u64 {
        self.first().saturating_add(span(self.level) - 1)
    }

    /// Whether every segment that it covers can exist.
    fn is_possible(&self) -> bool {
        let end = self.number.checked_add(1).and_then(|next| next.checked_mul(span(self.level)));
        (1..=MAX_LEVEL).contains(&self.level) && end.and_then(|end| end.checked_mul(self.size.bytes())).is_some()
    }
}

/// A node: 16 children in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is over.
    pub id: NodeId,
    /// What is known of them.
    pub children: Children,
}

/// The children of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children {
    /// At level 1: segments.
    Segments(Vec<Entry>),
    /// At higher levels: nodes of the level below.
    Nodes(Vec<Aggregate>),
}

/// Why bytes are not a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Written by another version of Walvis.
    #[error("the node has format version {0}, this Walvis knows {VERSION}")]
    Version(u8),
    /// Not what is written.
    #[error("the node is damaged: its {0} is wrong")]
    Part(&'static str),
}

const VERSION: u8 = 2;
/// Its aggregates have fewer numbers.
const VERSION_WITHOUT_COUNTS: u8 = 1;

impl Node {
    /// Of all children.
    pub fn aggregate(&self) -> Aggregate {
        match &self.children {
            Children::Segments(entries) => Aggregate::of(entries.iter().map(|entry| &entry.aggregate)),
            Children::Nodes(aggregates) => Aggregate::of(aggregates),
        }
    }

    /// Its bytes. `None` when it is not a complete node: not 16 consecutive children, or one whose upper edge is open.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        let id = &self.id;
        for number in [id.timeline.0.into(), id.size.bytes().trailing_zeros().into(), id.level.into(), id.number] {
            put_varint(&mut out, number);
        }
        match &self.children {
            Children::Segments(entries) => entries.iter().try_for_each(|entry| put_entry(&mut out, entry))?,
            Children::Nodes(aggregates) => aggregates.iter().for_each(|aggregate| {
                put_aggregate(&mut out, aggregate);
                put_varint(&mut out, aggregate.stops);
            }),
        }
        // What does not read back is not a node; nodes are small and written once.
        (Self::decode(&out).as_ref() == Ok(self)).then_some(out)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Unknown versions, and anything that is not written, trailing bytes included.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(NodeError::Part("length"));
        }
        let (version, rest) = bytes.split_first().ok_or(NodeError::Part("version"))?;
        if ![VERSION, VERSION_WITHOUT_COUNTS].contains(version) {
            return Err(NodeError::Version(*version));
        }
        let mut reader = Reader { rest, counted: *version == VERSION };
        let id = reader.id().ok_or(NodeError::Part("name"))?;
        let wrong = NodeError::Part("list of children");
        let children = if id.level == 1 {
            let entries: Option<Vec<Entry>> = (id.first()..=id.last()).map(|number| reader.entry(&id, number)).collect();
            Children::Segments(entries.ok_or(wrong)?)
        } else {
            let aggregates: Option<Vec<Aggregate>> = (0..FANOUT).map(|_| reader.child(span(id.level - 1))).collect();
            Children::Nodes(aggregates.ok_or(wrong)?)
        };
        if reader.rest.is_empty() { Ok(Self { id, children }) } else { Err(NodeError::Part("length")) }
    }
}

fn put_aggregate(out: &mut Vec<u8>, aggregate: &Aggregate) {
    XactStats::put(aggregate.xacts.as_ref(), out);
    let marks = &aggregate.marks;
    put_varint(out, marks.restore_points);
    if marks.restore_points > 0 {
        out.extend_from_slice(&marks.names.to_le_bytes());
    }
    put_varint(out, marks.checkpoints);
    put_varint(out, marks.backup_ends);
    for number in [marks.files, marks.parameters, marks.minimal] {
        put_varint(out, number);
    }
    put_varint(out, u64::from(marks.incomplete) | u64::from(marks.uncounted) << 1);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) -> Option<()> {
    let distance = |lsn: Lsn| lsn.0.wrapping_sub(entry.start.0);
    put_varint(
        out,
        match entry.edge {
            Edge::Follows => 0,
            Edge::Broken => 1,
            Edge::Stops => 2,
            Edge::Open => return None,
        },
    );
    put_varint(out, entry.first_record.map_or(0, distance));
    if let Some(first) = entry.first_record {
        put_varint(out, entry.last_record?.0.wrapping_sub(first.0));
    }
    put_varint(out, distance(entry.good_until));
    match &entry.crossing {
        None => put_varint(out, 0),
        Some(crossing) => {
            let kind = KINDS.iter().position(|kind| *kind == crossing.what.kind)?;
            put_varint(out, 1 + kind as u64);
            put_varint(out, distance(crossing.start));
            put_varint(out, crossing.end.0.wrapping_sub(crossing.start.0));
            put_varint(out, zigzag(crossing.what.time.0));
            put_varint(out, crossing.what.xid.map_or(0, |xid| xid.get().into()));
        }
    }
    put_aggregate(out, &entry.aggregate);
    Some(())
}

const KINDS: [XactKind; 4] = [XactKind::Commit, XactKind::Abort, XactKind::CommitPrepared, XactKind::AbortPrepared];

struct Reader<'a> {
    rest: &'a [u8],
    /// Whether aggregates have the counts that version 1 had not.
    counted: bool,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        take_varint(&mut self.rest)
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn time(&mut self) -> Option<PgTime> {
        self.number().map(|time| PgTime(unzigzag(time)))
    }

    fn id(&mut self) -> Option<NodeId> {
        let timeline = Timeline(self.u32()?);
        let size = WalSegmentSize::new(1_u64.checked_shl(self.u32()?)?)?;
        let id = NodeId { timeline, size, level: self.u32()?, number: self.number()? };
        id.is_possible().then_some(id)
    }

    /// The aggregate of a child that is a node.
    fn child(&mut self, segments: u64) -> Option<Aggregate> {
        let mut aggregate = self.aggregate(segments)?;
        aggregate.stops = self.number().filter(|stops| *stops <= segments)?;
        Some(aggregate)
    }

    fn aggregate(&mut self, segments: u64) -> Option<Aggregate> {
        let count = self.number()?;
        let xacts = if count == 0 { None } else { Some(XactStats::take(count, &mut self.rest)?) };
        let restore_points = self.number()?;
        let names = if restore_points == 0 {
            0
        } else {
            let (bytes, rest) = self.rest.split_first_chunk()?;
            self.rest = rest;
            Some(u64::from_le_bytes(*bytes)).filter(|names| *names != 0)?
        };
        let (checkpoints, backup_ends) = (self.number()?, self.number()?);
        let marks = MarkCounts { restore_points, names, checkpoints, backup_ends, ..MarkCounts::default() };
        let marks = if self.counted {
            let (files, parameters, minimal) = (self.number()?, self.number()?, self.number()?);
            let flags = self.number().filter(|flags| *flags <= 3 && minimal <= parameters)?;
            MarkCounts { files, parameters, minimal, incomplete: flags & 1 != 0, uncounted: flags & 2 != 0, ..marks }
        } else {
            let flag = self.number().filter(|flag| *flag <= 1)?;
            MarkCounts { incomplete: flag == 1, uncounted: true, ..marks }
        };
        Some(Aggregate { segments, xacts, marks, stops: 0 })
    }

    fn entry(&mut self, id: &NodeId, number: u64) -> Option<Entry> {
        let size = id.size.bytes();
        let start = Lsn(number.checked_mul(size)?);
        let inside = |distance: u64| (distance < size).then(|| Lsn(start.0 + distance));
        let edge = match self.number()? {
            0 => Edge::Follows,
            1 => Edge::Broken,
            2 => Edge::Stops,
            _ => return None,
        };
        let (first_record, last_record) = match self.number()? {
            0 => (None, None),
            first => {
                let last = first.checked_add(self.number()?)?;
                (Some(inside(first)?), Some(inside(last)?))
            }
        };
        let good_until = Lsn(start.0 + self.number().filter(|distance| *distance <= size)?);
        let crossing = match self.number()? {
            0 => None,
            kind => {
                let kind = *KINDS.get(usize::try_from(kind - 1).ok()?)?;
                let begin = inside(self.number()?)?;
                let end = Lsn(begin.0.checked_add(self.number()?)?);
                let what = XactEnd { kind, time: self.time()?, xid: Xid::new(self.u32()?) };
                Some(Record { start: begin, end, what })
            }
        };
        if crossing.is_some() && edge != Edge::Follows {
            return None;
        }
        let mut aggregate = self.aggregate(1)?;
        aggregate.stops = u64::from(edge != Edge::Follows);
        let segment = SegmentName::from_number(id.timeline, number, id.size)?;
        Some(Entry { segment, start, first_record, last_record, good_until, edge, crossing, aggregate })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::pg::scan::XidRange;

    fn xid() -> impl Strategy<Value = Xid> {
        (1..=u32::MAX).prop_map(|xid| Xid::new(xid).unwrap())
    }

    fn stats() -> impl Strategy<Value = XactStats> {
        (1..u64::MAX, any::<u64>(), any::<i64>(), any::<i64>(), option::of((xid(), xid()))).prop_map(
            |(count, aborts, a, b, xids)| XactStats {
                count,
                aborts: aborts % count,
                min_time: PgTime(a.min(b)),
                max_time: PgTime(a.max(b)),
                xids: xids.map(|(oldest, newest)| XidRange { oldest, newest }),
            },
        )
    }

    fn aggregate(segments: u64) -> impl Strategy<Value = Aggregate> {
        let marks = (option::of((1..u64::MAX, 1..u64::MAX)), any::<[u64; 5]>(), any::<[bool; 2]>());
        (option::of(stats()), marks, 0..=segments).prop_map(move |(xacts, marks, stops)| {
            let (names, [checkpoints, backup_ends, files, a, b], [incomplete, uncounted]) = marks;
            let (restore_points, names) = names.unwrap_or((0, 0));
            let (parameters, minimal) = (a.max(b), a.min(b));
            let marks =
                MarkCounts { restore_points, names, checkpoints, backup_ends, files, parameters, minimal, incomplete, uncounted };
            Aggregate { segments, xacts, marks, stops }
        })
    }

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(16 << 20).unwrap()
    }

    fn entry(number: u64) -> impl Strategy<Value = Entry> {
        let bytes = size().bytes();
        let crossing = (0..bytes, 24..u64::from(u32::MAX), any::<i64>(), option::of(xid()), 0..4_usize);
        (aggregate(1), option::of((1..bytes, 1..bytes)), 0..=bytes, option::of(crossing), 0..3_usize).prop_map(
            move |(aggregate, records, good, crossing, edge)| {
                let edge = [Edge::Follows, Edge::Broken, Edge::Stops][edge];
                let start = Lsn(number * bytes);
                let at = |distance| Lsn(start.0 + distance);
                Entry {
                    segment: SegmentName::from_number(Timeline(3), number, size()).unwrap(),
                    start,
                    first_record: records.map(|(a, b)| at(a.min(b))),
                    last_record: records.map(|(a, b)| at(a.max(b))),
                    good_until: at(good),
                    edge,
                    crossing: crossing.filter(|_| edge == Edge::Follows).map(|(from, len, time, xid, kind)| Record {
                        start: at(from),
                        end: at(from + len),
                        what: XactEnd { kind: KINDS[kind], time: PgTime(time), xid },
                    }),
                    aggregate: Aggregate { stops: u64::from(edge != Edge::Follows), ..aggregate },
                }
            },
        )
    }

    fn node() -> impl Strategy<Value = Node> {
        let id = |level, number| NodeId { timeline: Timeline(3), size: size(), level, number };
        let low = (0..1_u64 << 20).prop_flat_map(move |number| {
            let first = number * FANOUT;
            let entries: Vec<_> = (first..first + FANOUT).map(entry).collect();
            entries.prop_map(move |entries| Node { id: id(1, number), children: Children::Segments(entries) })
        });
        let high = (2..=6_u32, 0..64_u64).prop_flat_map(move |(level, number)| {
            let children = vec(aggregate(span(level - 1)), FANOUT as usize);
            children.prop_map(move |children| Node { id: id(level, number), children: Children::Nodes(children) })
        });
        prop_oneof![low, high]
    }

    proptest! {
        #[test]
        fn nodes_round_trip_and_every_change_is_another_node_or_none(node in node(), at: prop::sample::Index, bit in 0..8_u8) {
            let bytes = node.encode().unwrap();
            prop_assert!(bytes.len() <= MAX_NODE_BYTES);
            prop_assert_eq!(Node::decode(&bytes), Ok(node));
            let at = at.index(bytes.len());
            prop_assert!(Node::decode(&bytes[..at]).is_err());
            let mut other = bytes.clone();
            other[at] ^= 1_u8 << bit;
            if let Ok(node) = Node::decode(&other) {
                prop_assert_eq!(node.encode(), Some(other));
            }
            prop_assert!(Node::decode(&[bytes, vec![0]].concat()).is_err());
        }

        #[test]
        fn foreign_bytes_are_no_nodes_and_no_panic(mut bytes in vec(any::<u8>(), 0..600)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), Some(bytes));
            }
        }

        #[test]
        fn a_union_has_the_xids_of_all(ranges in vec((xid(), any::<u32>()), 1..40), wide: bool) {
            let ranges: Vec<XidRange> = ranges
                .into_iter()
                .filter_map(|(oldest, width)| {
                    let width = if wide { width } else { width % 1000 };
                    Some(XidRange { oldest, newest: Xid::new(oldest.get().wrapping_add(width))? })
                })
                .collect();
            let Some(union) = ranges.iter().copied().reduce(XidRange::union) else { return Ok(()) };
            for range in &ranges {
                let width = range.newest.get().wrapping_sub(range.oldest.get());
                for step in [0, 1, width / 3, width / 2, width.saturating_sub(1), width] {
                    if let Some(xid) = Xid::new(range.oldest.get().wrapping_add(step.min(width))) {
                        prop_assert!(union.contains(xid), "{:?} is not in {:?}", range, union);
                    }
                }
            }
        }
    }

    #[test]
    fn xids_that_go_around_stay_in_the_union() {
        // Two thousand million segments' worth of transactions: around more than once.
        let mut union: Option<XidRange> = None;
        let mut seen = Vec::new();
        for n in 0..200_u64 {
            let oldest = (n * 50_000_000 % u64::from(u32::MAX)) as u32 | 1;
            let range =
                XidRange { oldest: Xid::new(oldest).unwrap(), newest: Xid::new(oldest.wrapping_add(49_999_998) | 1).unwrap() };
            union = Some(union.map_or(range, |union| union.union(range)));
            seen.push(oldest);
            assert!(seen.iter().all(|xid| union.unwrap().contains(Xid::new(*xid).unwrap())), "{n}");
        }
    }

    #[test]
    fn a_node_is_complete() {
        let id = NodeId { timeline: Timeline(1), size: size(), level: 2, number: 0 };
        let child = Aggregate { segments: 16, ..Aggregate::default() };
        assert!(Node { id, children: Children::Nodes(vec![child; 16]) }.encode().is_some());
        assert_eq!(Node { id, children: Children::Nodes(vec![child; 15]) }.encode(), None);
        assert_eq!(Node { id, children: Children::Nodes(vec![child; 17]) }.encode(), None);
        assert_eq!(Node { id, children: Children::Nodes(vec![Aggregate { segments: 15, ..child }; 16]) }.encode(), None);
    }
}
