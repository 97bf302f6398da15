//! Tests with WAL from the writer in `wal.rs`; properties of random WAL are in `properties.rs`, tests with WAL from
//! real servers in `tests/it/scan.rs`.

use super::event::CheckpointKind;
use super::wal::{SYSTEM_ID, Segments, Wal, Xact, main_data};
use super::*;
use crate::pg::{Lsn, Timeline};

/// Two pages: the smallest in which every case can be had.
pub(super) const SMALL: u64 = 16 << 10;
const MIB: u64 = 1 << 20;

pub(super) type Events = Vec<Record<Event>>;

pub(super) fn scan(segment: Segment, bytes: &[u8]) -> Scanned<Events> {
    let mut scanner = Scanner::new(segment, Events::new());
    scanner.push(bytes);
    scanner.finish()
}

/// What a catalog finds: the lists of the summaries, and what the chain joins. Anything wrong is in the second value.
pub(super) fn through_summaries(segments: &Segments) -> (Events, Vec<String>) {
    let (mut events, mut wrong) = (Events::new(), Vec::new());
    let mut chain = Chain::new();
    for (i, (segment, bytes)) in segments.iter().enumerate() {
        let scanned = scan(*segment, bytes);
        let summary = scanned.summary;
        // The last one is filled up with zeros.
        if !summary.is_complete() && i + 1 < segments.len() || matches!(summary.end, End::Damaged(_)) {
            wrong.push(format!("{:?}", summary.end));
        }
        if let Err(error) = chain.push(&summary, &mut events) {
            wrong.push(error.to_string());
            break;
        }
        let from_lists = summary.xacts.iter().flat_map(XactList::iter).map(|entry| (entry.lsn, Event::XactEnd(entry.end)));
        let marks = summary.marks.iter().flatten().map(|mark| (mark.start, Event::Mark(mark.what.clone())));
        let mut listed: Vec<_> = from_lists.chain(marks).collect();
        listed.sort_by_key(|(lsn, _)| *lsn);
        let seen = scanned.visitor.iter().filter(|r| matches!(r.what, Event::XactEnd(_) | Event::Mark(_)));
        assert!(seen.map(|record| (record.start, record.what.clone())).eq(listed));
        events.extend(scanned.visitor);
    }
    (events, wrong)
}

/// What a scan of segment after segment finds that carries records over.
pub(super) fn through_carry(segments: &Segments) -> Events {
    let (mut events, mut carry) = (Events::new(), None);
    for (segment, bytes) in segments {
        let mut scanner = Scanner::resume(*segment, carry, &mut events);
        scanner.push(bytes);
        let scanned = scanner.finish();
        assert_eq!(scanned.carry_break, None);
        carry = scanned.carry;
        assert_eq!(scanned.summary, scan(*segment, bytes).summary, "a summary does not depend on the neighbours");
    }
    events
}

fn damage(end: &End) -> (Reason, u64) {
    match end {
        End::Damaged(damage) => (damage.reason, damage.at.0),
        other => panic!("not damaged: {other:?}"),
    }
}

#[test]
fn one_segment_of_everything() {
    for major in 13..=18 {
        let mut wal = Wal::new(major, MIB, 3);
        wal.commit(1_000_000, 700);
        wal.prepare(1_000_001, 701, 100);
        wal.xact(&Xact { subxacts: 3, rels: 2, stats: 2, invals: 5, dbinfo: true, ..Xact::new(XactKind::Commit, 999_990, 702) });
        wal.xact(&Xact { subxacts: 300, rels: 1, stats: 1, invals: 7, ..Xact::new(XactKind::CommitPrepared, 1_000_100, 701) });
        wal.xact(&Xact { gid: Some("a gid"), origin: true, ..Xact::new(XactKind::AbortPrepared, 1_000_200, 690) });
        wal.xact(&Xact { rels: 1, stats: 1, invals: 9, ..Xact::new(XactKind::Abort, 1_000_300, 710) });
        wal.restore_point(1_000_400, "before the migration");
        wal.checkpoint(CheckpointKind::Online, 1_700_000_000);
        wal.filler(300_000);
        wal.checkpoint(CheckpointKind::Shutdown, 1_700_000_001);
        wal.switch();
        let (segments, found) = wal.segments();
        assert_eq!(segments.len(), 1);
        let Scanned { summary, visitor, carry, .. } = scan(segments[0].0, &segments[0].1);
        assert_eq!(visitor, found, "PostgreSQL {major}");
        assert!(carry.is_none());
        assert_eq!(summary.origin, Some(Origin { major, system_id: SYSTEM_ID }));
        assert_eq!(summary.head, Head::Record);
        assert_eq!(summary.end, End::Switch { rest_is_zero: true });
        let records = summary.records.unwrap();
        assert_eq!((records.count, records.first, records.before_first), (11, Lsn(3 * MIB + 40), Lsn(3 * MIB - 64)));
        let stats = summary.xact_stats.unwrap();
        assert_eq!((stats.count, stats.aborts, stats.min_time.0, stats.max_time.0), (5, 2, 999_990, 1_000_300));
        assert_eq!(stats.xids.map(|x| (x.oldest.get(), x.newest.get())), Some((690, 710)));
        assert_eq!(summary.marks.as_ref().unwrap().len(), 3);
        assert_eq!(Summary::decode(&summary.encode()), Ok(summary));
    }
}

#[test]
fn a_list_takes_few_bytes() {
    let mut wal = Wal::new(16, 4 * MIB, 1);
    let mut time = 750_000_000_000_000;
    for xid in 1000..7000_u32 {
        for _ in 0..4 {
            wal.filler(60);
        }
        time += 150 + i64::from(xid % 7) * 40;
        wal.commit(time - i64::from(xid % 3), xid ^ 1);
    }
    wal.switch();
    let (segments, found) = wal.segments();
    let summary = scan(segments[0].0, &segments[0].1).summary;
    let list = summary.xacts.as_ref().unwrap();
    assert!(
        list.iter().map(|entry| Event::XactEnd(entry.end)).eq(found.into_iter().map(|r| r.what).filter(|e| *e != Event::Switch))
    );
    assert!(summary.encode().len() < 6000 * 5, "{} bytes", summary.encode().len());
}

/// A record may begin in the last 8 or 16 bytes of a segment, with its header in two.
#[test]
fn headers_cross_boundaries() {
    for left in [8, 16, 24, 32, 40, 48, 64] {
        for kind in [XactKind::Commit, XactKind::AbortPrepared] {
            let mut wal = Wal::new(15, SMALL, 7);
            wal.filler((wal.left() - left - 24 - 5) as usize);
            wal.xact(&Xact { subxacts: 20, ..Xact::new(kind, 77, 900) });
            wal.commit(78, 901);
            wal.switch();
            let (segments, found) = wal.segments();
            assert_eq!(segments.len(), 2);
            let first = scan(segments[0].0, &segments[0].1).summary;
            let End::Continues(tail) = &first.end else { panic!("{:?}", first.end) };
            assert_eq!((tail.piece.len(), first.xact_stats), (left, None));
            assert_eq!(through_summaries(&segments), (found.clone(), vec![]));
            assert_eq!(through_carry(&segments), found);
        }
    }
}

#[test]
fn a_switch_crosses_the_boundary() {
    for left in [8, 16] {
        let mut wal = Wal::new(17, SMALL, 7);
        wal.filler((wal.left() - left - 24 - 5) as usize);
        wal.switch();
        wal.commit(5, 700);
        let (segments, found) = wal.segments();
        assert_eq!(segments.len(), 3);
        let summary = scan(segments[1].0, &segments[1].1).summary;
        assert_eq!((&summary.end, summary.records), (&End::Switch { rest_is_zero: true }, None));
        assert_eq!(through_summaries(&segments), (found.clone(), vec![]));
        assert_eq!(through_carry(&segments), found);

        // The same bytes after another record are the end of the data.
        let mut wal = Wal::new(17, SMALL, 7);
        wal.filler((wal.left() - left - 24 - 5) as usize);
        wal.record(10, 0x40, 700, &[]);
        let (segments, _) = wal.segments();
        let summary = scan(segments[1].0, &segments[1].1).summary;
        assert!(matches!(summary.end, End::EndOfData { .. }), "{:?}", summary.end);
    }
}

#[test]
fn a_record_fills_segments() {
    let xact =
        Xact { subxacts: 600_000, rels: 5000, invals: 20_000, dbinfo: true, ..Xact::new(XactKind::CommitPrepared, 4711, 12345) };
    for (gid, known) in [(None, true), (Some("0123456789"), false)] {
        for origin in [false, true] {
            let mut wal = Wal::new(18, MIB, 2);
            wal.commit(1, 700);
            wal.filler(200_000);
            wal.xact(&Xact { gid, origin, ..xact.clone() });
            wal.commit(2, 701);
            wal.switch();
            let (segments, found) = wal.segments();
            assert_eq!(segments.len(), 3);
            assert_eq!(through_carry(&segments), found);
            let summaries: Vec<_> = segments.iter().map(|(segment, bytes)| scan(*segment, bytes).summary).collect();
            assert_eq!((&summaries[1].end, summaries[1].first_record()), (&End::Continuation, None));
            let (joined, wrong) = through_summaries(&segments);
            assert_eq!(wrong, Vec::<String>::new());
            let Event::XactEnd(end) = joined[1].what else { panic!("{:?}", joined[1]) };
            assert_eq!((joined[1].start, joined[1].end, end.time), (found[1].start, found[1].end, PgTime(4711)));
            assert_eq!(end.xid.map(Xid::get), known.then_some(12345));
        }
    }
}

#[test]
fn dead_records_are_passed_over() {
    // In one segment, at its beginning, within its head, and over several.
    for pages in 1..=5 {
        for fill in [100, 8000, 9000] {
            let mut wal = Wal::new(14, SMALL, 9);
            wal.commit(1, 700);
            wal.filler(fill);
            wal.die(2, pages);
            wal.commit(3, 701);
            wal.switch();
            let (segments, found) = wal.segments();
            assert_eq!(through_summaries(&segments), (found.clone(), vec![]), "{pages} {fill}");
            assert_eq!(through_carry(&segments), found);
        }
    }
}

#[test]
fn every_damage_is_told() {
    let mut wal = Wal::new(15, MIB, 1);
    wal.commit(1, 700);
    let second = wal.lsn();
    wal.commit(2, 701);
    wal.filler(20_000);
    wal.commit(3, 702);
    wal.switch();
    let (segments, _) = wal.segments();
    let (segment, good) = &segments[0];
    let start = segment.start().0;
    let long = second + 40 - start;
    let check = |reason: Reason, at: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let scanned = scan(*segment, &bytes);
        assert_eq!(damage(&scanned.summary.end), (reason, at), "{:?}", scanned.summary.end);
        assert!(scanned.visitor.iter().all(|record| record.end.0 <= at));
        assert!(!scanned.summary.is_complete() && scanned.summary.good_until().0 == at);
        assert_eq!(Summary::decode(&scanned.summary.encode()), Ok(scanned.summary));
    };
    let second_at = (second - start) as usize;
    check(Reason::Short, segment.end().0 - 8, &|b| b.truncate(b.len() - 8));
    check(Reason::Short, start + long, &|b| b.truncate(9000));
    check(Reason::Long, segment.end().0, &|b| b.push(0));
    check(Reason::Long, segment.end().0, &|b| b.extend([0; 8192]));
    check(Reason::Magic, start, &|b| b[0] ^= 1);
    check(Reason::OtherMagic, start + long, &|b| b[8192] = 0x0D);
    check(Reason::PageFlags, start, &|b| b[2] = 0);
    check(Reason::PageFlags, start + long, &|b| b[8194] |= 2);
    check(Reason::PageFlags, start + long, &|b| b[8195] = 1);
    check(Reason::PageAddress, start, &|b| b[13] = 1);
    check(Reason::PageTimeline, start, &|b| b[4] = 2);
    check(Reason::PageTimeline, start + long, &|b| b[8196] = 0);
    check(Reason::SegmentSize, start, &|b| b[34] = 0x20);
    check(Reason::BlockSize, start, &|b| b[37] = 0x40);
    check(Reason::NoContinuation, start + long, &|b| b[8194] = 0);
    check(Reason::ContinuationLength, start + long, &|b| b[8192 + 16] ^= 1);
    check(Reason::ContinuationLength, start, &|b| b[2] |= 1);
    check(Reason::RecordLength, second, &|b| b[second_at] = 23);
    check(Reason::RecordLength, second, &|b| b[second_at + 3] = 0x40);
    check(Reason::Crc, second, &|b| b[second_at + 30] ^= 0x80);
    check(Reason::Crc, start + long, &|b| b[10_000] ^= 1);

    let mut wal = Wal::new(15, MIB, 1);
    wal.commit(1, 700);
    let second = wal.lsn();
    wal.last -= 8;
    wal.commit(1, 700);
    let (segments, _) = wal.segments();
    assert_eq!(damage(&scan(segments[0].0, &segments[0].1).summary.end), (Reason::PrevLink, second));

    for main in [vec![0; 7], vec![0; 72]] {
        let mut wal = Wal::new(15, MIB, 1);
        let third = if main.len() == 7 { wal.record(1, 0, 700, &main_data(&main)) } else { wal.record(0, 0x70, 0, &main[..1]) };
        let (segments, _) = wal.segments();
        assert_eq!(damage(&scan(segments[0].0, &segments[0].1).summary.end), (Reason::Body, third.0.0));
    }
    for (flags, reason) in [(1, Reason::UnexpectedContinuation), (8, Reason::UnexpectedOverwrite)] {
        let mut wal = Wal::new(15, MIB, 1);
        wal.filler(8192 - 40 - 24 - 5);
        let page = wal.lsn();
        wal.commit(1, 700);
        let (segments, _) = wal.segments();
        let mut bytes = segments[0].1.clone();
        bytes[8194] |= flags;
        assert_eq!(damage(&scan(segments[0].0, &bytes).summary.end), (reason, page));
    }
}

#[test]
fn zeros_are_the_end_of_data() {
    let mut wal = Wal::new(18, MIB, 1);
    wal.commit(1, 700);
    let end = wal.lsn();
    let (segments, found) = wal.segments();
    let scanned = scan(segments[0].0, &segments[0].1);
    assert_eq!((scanned.summary.end, scanned.visitor), (End::EndOfData { at: Lsn(end) }, found));
    let empty = scan(segments[0].0, &vec![0; MIB as usize]).summary;
    assert_eq!((&empty.end, empty.origin), (&End::EndOfData { at: segments[0].0.start() }, None));
    assert_eq!(Summary::decode(&empty.encode()), Ok(empty));
}

#[test]
fn chains_break_where_something_is_missing() {
    let mut wal = Wal::new(16, SMALL, 1);
    for i in 0..3000 {
        wal.xact(&Xact { subxacts: 7, ..Xact::new(XactKind::Commit, i, 700) });
    }
    wal.switch();
    let (segments, found) = wal.segments();
    let summaries: Vec<Summary> = segments.iter().map(|(segment, bytes)| scan(*segment, bytes).summary).collect();
    let run = |order: &[&Summary]| {
        let (mut chain, mut events) = (Chain::new(), Events::new());
        order.iter().try_for_each(|summary| chain.push(summary, &mut events)).map(|()| events)
    };
    let all: Vec<&Summary> = summaries.iter().collect();
    let joined = run(&all).unwrap();
    assert!(joined.len() > 3 && joined.iter().all(|record| found.contains(record)));
    assert!(matches!(run(&[all[0], all[2]]), Err(Break::Segment { .. })));

    // A whole segment's content gone, and everything after it moved down: only the links tell.
    let mut wal = Wal::new(16, SMALL, 2);
    (0..3000).for_each(|i| wal.commit(i, 701));
    let (other, _) = wal.segments();
    let other = scan(other[0].0, &other[0].1).summary;
    assert!(run(&[all[0], &other]).is_err());

    let mut damaged = segments[1].1.clone();
    damaged[9000] ^= 1;
    let damaged = scan(segments[1].0, &damaged).summary;
    assert_eq!(run(&[all[0], &damaged, all[2]]), Err(Break::Ended));
    // One bit of the record that crosses: neither segment knows alone.
    let mut flipped = segments[1].1.clone();
    flipped[41] ^= 1;
    let flipped = scan(segments[1].0, &flipped).summary;
    assert!(flipped.is_complete());
    assert!(matches!(run(&[all[0], &flipped]), Err(Break::Record { reason: Reason::Crc, .. })));
}

/// `ParseAbortRecord` knows no invalidations.
#[test]
fn aborts_have_no_invalidations() {
    let mut wal = Wal::new(15, SMALL, 1);
    let main = [&5_i64.to_le_bytes()[..], &numbers(&[8 | 0x10, 4711])].concat();
    wal.record(1, 0x40 | 0x80, 0, &main_data(&main));
    let (segments, _) = wal.segments();
    let end = XactEnd { kind: XactKind::AbortPrepared, time: PgTime(5), xid: Xid::new(4711) };
    assert_eq!(scan(segments[0].0, &segments[0].1).visitor[0].what, Event::XactEnd(end));
}

/// Everything a visitor of blocks is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Blocks {
    blocks: Vec<BlockRef>,
    storage: Vec<StorageChange>,
    unreadable: Vec<Lsn>,
}

impl Visitor for Blocks {
    const BLOCKS: bool = true;

    fn block(&mut self, _: Lsn, block: BlockRef) {
        self.blocks.push(block);
    }

    fn storage(&mut self, _: Lsn, change: StorageChange) {
        self.storage.push(change);
    }

    fn unreadable(&mut self, lsn: Lsn) {
        self.unreadable.push(lsn);
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[test]
fn blocks_and_files() {
    for major in [13, 14, 15, 18] {
        let mut wal = Wal::new(major, SMALL, 1);
        let rel = RelFile { tablespace: 1663, database: 5, relation: 16384 };
        let other = RelFile { relation: 16390, ..rel };
        // Block 7 of the main fork with a compressed image with a hole, 9 of the same relation's map, one of another
        // relation.
        let info = if major >= 15 { 0x01 | 0x08 } else { 0x01 | 0x02 };
        let mut body = vec![0, 0x10 | 0x20, 4, 0, 50, 0, 0, 0, info, 9, 9];
        body.extend(numbers(&[1663, 5, 16384, 7]));
        body.extend([1, 0x82, 0, 0]);
        body.extend(numbers(&[9]));
        body.extend([2, 0x00, 0, 0]);
        body.extend(numbers(&[1663, 5, 16390, 11]));
        body.extend([253, 1, 0, 252, 1, 2, 3, 4, 255, 3]);
        body.extend([0xEE; 50 + 4 + 3]);
        wal.record(10, 0, 700, &body);
        wal.filler(7900);
        // The same across a page, then with headers only.
        wal.record(10, 0, 700, &body);
        wal.record(2, 0x10, 700, &main_data(&numbers(&[1663, 5, 16384, 0])));
        wal.record(2, 0x20, 700, &main_data(&numbers(&[3, 1663, 5, 16384, 7])));
        wal.record(4, 0x00, 700, &main_data(&numbers(&[6, 1663, 5, 1663])));
        let (wal_log, drop) = if major >= 15 { (0x10, 0x20) } else { (0x00, 0x10) };
        wal.record(4, wal_log, 700, &main_data(&numbers(&[7, 1664, 0, 0])));
        wal.record(4, drop, 700, &main_data(&numbers(&[6, 2, 1663, 1664])));
        wal.xact(&Xact { rels: 2, ..Xact::new(XactKind::Commit, 1, 700) });
        wal.record(10, 0, 700, &[77]);
        wal.switch();
        let (segments, _) = wal.segments();
        assert_eq!(segments.len(), 1);
        let mut scanner = Scanner::new(segments[0].0, Blocks::default());
        scanner.push(&segments[0].1);
        let Scanned { summary, visitor, .. } = scanner.finish();
        assert_eq!(summary, scan(segments[0].0, &segments[0].1).summary, "the summary does not depend on the visitor");
        let three = [(rel, 0, 7), (rel, 2, 9), (other, 0, 11)].map(|(rel, fork, block)| BlockRef { rel, fork, block });
        assert_eq!(visitor.blocks, [three, three].concat());
        assert_eq!(visitor.unreadable.len(), 1, "a record of no known form");
        let dropped = |from: u32| {
            let number = |i: u32| u32::from_le_bytes([0, 1, 2, 3].map(|b| ((from + 4 * i + b) % 251) as u8 | 1));
            StorageChange::Drop(RelFile { tablespace: number(0), database: number(1), relation: number(2) })
        };
        let expected = [
            StorageChange::Create { rel, fork: 0 },
            StorageChange::Truncate { rel, blocks: 3, forks: 7 },
            StorageChange::CreateDatabase { tablespace: 1663, database: 6 },
            StorageChange::CreateDatabase { tablespace: 1664, database: 7 },
            StorageChange::DropDatabase { tablespace: 1663, database: 6 },
            StorageChange::DropDatabase { tablespace: 1664, database: 6 },
            dropped(0),
            dropped(12),
        ];
        assert_eq!(visitor.storage, expected, "PostgreSQL {major}");
    }
}

/// What a mark says is the same whether somebody asked for changes of files, and a record that says too little is
/// damage.
#[test]
fn tablespaces_and_databases() {
    let path = |text: &[u8]| TablespacePath::new(text).unwrap();
    for major in [13, 14, 15, 18] {
        let mut wal = Wal::new(major, MIB, 1);
        wal.mark(Mark::TablespaceCreate { tablespace: 16384, path: path(b"/srv/caf\xE9") });
        wal.mark(Mark::TablespaceCreate { tablespace: 16385, path: path(&[b'x'; MAX_TABLESPACE_PATH_BYTES]) });
        wal.mark(Mark::TablespaceCreate { tablespace: 16386, path: path(b"") });
        let copied_from = Some(DatabaseFiles { tablespace: 1663, database: 1 });
        wal.mark(Mark::DatabaseCreate { database: 16390, tablespace: 16384, copied_from });
        if major >= 15 {
            wal.mark(Mark::DatabaseCreate { database: 16391, tablespace: 16384, copied_from: None });
        }
        for tablespaces in [Some(vec![]), Some((1..=64).collect()), None] {
            wal.mark(Mark::DatabaseDrop { database: 16390, tablespaces });
        }
        wal.mark(Mark::TablespaceDrop { tablespace: 16384 });
        wal.switch();
        let (segments, found) = wal.segments();
        let scanned = scan(segments[0].0, &segments[0].1);
        assert_eq!(scanned.visitor, found, "PostgreSQL {major}");
        assert_eq!(Summary::decode(&scanned.summary.encode()), Ok(scanned.summary.clone()));
        let mut scanner = Scanner::new(segments[0].0, Blocks::default());
        scanner.push(&segments[0].1);
        let with_blocks = scanner.finish();
        assert_eq!(with_blocks.summary, scanned.summary);
        assert_eq!((with_blocks.visitor.unreadable.len(), with_blocks.visitor.storage.len() > 160), (0, true));
    }
    let too_long = [&16384_u32.to_le_bytes()[..], &[b'x'; 1 + MAX_TABLESPACE_PATH_BYTES], &[0]].concat();
    let odd: [(u8, u8, &[u8]); 6] = [
        (5, 0x00, &[1, 2, 3]),
        (5, 0x00, b"OIDX/without/an/end"),
        (5, 0x00, &too_long),
        (5, 0x10, &[1]),
        (4, 0x00, &[1, 0, 0, 0, 2, 0, 0, 0]),
        // A list that is longer than the record.
        (4, 0x20, &[1, 0, 0, 0, 99, 0, 0, 0, 3, 0, 0, 0]),
    ];
    for (rmid, info, main) in odd {
        let mut wal = Wal::new(18, MIB, 1);
        wal.record(rmid, info, 0, &main_data(main));
        wal.switch();
        let (segments, _) = wal.segments();
        assert_eq!(damage(&scan(segments[0].0, &segments[0].1).summary.end).0, Reason::Body, "{rmid} {info} {main:?}");
        let mut scanner = Scanner::new(segments[0].0, Blocks::default());
        scanner.push(&segments[0].1);
        assert_eq!(damage(&scanner.finish().summary.end).0, Reason::Body);
    }
}

#[test]
fn dropped_relations_across_segments() {
    for (rels, whole) in [(500, true), (5000, false)] {
        let mut wal = Wal::new(17, 2 * MIB, 1);
        wal.filler((wal.left() - 3000) as usize);
        wal.xact(&Xact { rels, ..Xact::new(XactKind::Commit, 1, 700) });
        wal.switch();
        let (segments, _) = wal.segments();
        assert_eq!(segments.len(), 2);
        let (mut chained, mut carried, mut chain, mut carry) = (Blocks::default(), Blocks::default(), Chain::new(), None);
        for (segment, bytes) in &segments {
            chain.push(&scan(*segment, bytes).summary, &mut chained).unwrap();
            let mut scanner = Scanner::resume(*segment, carry, &mut carried);
            scanner.push(bytes);
            carry = scanner.finish().carry;
        }
        assert_eq!((carried.storage.len(), carried.unreadable.len()), (rels as usize, 0));
        // What a chain can't know it says; nothing is missing silently.
        assert_eq!((chained.storage.len() == rels as usize, chained.unreadable.is_empty()), (whole, whole));
    }
}

#[test]
fn lists_beyond_their_bound_are_left_out() {
    let mut wal = Wal::new(18, MIB, 1);
    for i in 0..=MAX_MARKS as i64 {
        wal.restore_point(i, "again");
    }
    wal.commit(1, 700);
    wal.switch();
    let (segments, _) = wal.segments();
    let summary = scan(segments[0].0, &segments[0].1).summary;
    assert_eq!((summary.marks.is_none(), summary.xacts.is_some()), (true, true));
    assert_eq!(Summary::decode(&summary.encode()).unwrap(), summary);

    let mut wal = Wal::new(18, MIB, 1);
    wal.restore_point(1, "one");
    (0..9000).for_each(|i| wal.commit(i, 700));
    wal.switch();
    let (segments, _) = wal.segments();
    let summary = scan(segments[0].0, &segments[0].1).summary;
    let decoded = Summary::decode(&summary.encode_within(10_000).unwrap()).unwrap();
    assert_eq!(decoded, Summary { xacts: None, ..summary.clone() });
    assert_eq!(Summary::decode(&summary.encode_within(1 << 20).unwrap()).unwrap(), summary);
    assert_eq!(summary.encode_within(20), None);
}

#[test]
fn decode_rejects_other_versions_and_more_bytes() {
    let mut wal = Wal::new(18, MIB, 1);
    wal.commit(1, 700);
    let (segments, _) = wal.segments();
    let bytes = scan(segments[0].0, &segments[0].1).summary.encode();
    let mut other = bytes.clone();
    other[0] = 3;
    assert_eq!(Summary::decode(&other), Err(DecodeError::Version(3)));
    assert_eq!(Summary::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Part("length")));
    for cut in 0..bytes.len() {
        assert!(Summary::decode(&bytes[..cut]).is_err());
    }
}

#[test]
fn segments_have_names() {
    let size = crate::pg::WalSegmentSize::new(MIB).unwrap();
    let name = |text| crate::pg::SegmentName::parse(text).unwrap();
    let segment = Segment::new(name("0000000A0000000200000FFF"), size).unwrap();
    assert_eq!((segment.timeline(), segment.start(), segment.end()), (Timeline(10), Lsn(0x2_FFF0_0000), Lsn(0x3_0000_0000)));
    assert!(Segment::new(name("00000001FFFFFFFF00000FFF"), size).is_none());
    assert!(Segment::new(name("000000010000000000001000"), size).is_none());
}
