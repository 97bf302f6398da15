//! Properties of scans of random WAL.

use proptest::prelude::*;

use super::event::CheckpointKind;
use super::tests::{Blocks, Events, SMALL, scan, through_carry, through_summaries};
use super::wal::{Segments, Wal, Xact};
use super::*;

#[derive(Debug, Clone)]
enum Op {
    Filler(usize),
    Xact(Xact),
    Prepare(usize),
    RestorePoint,
    Mark(Mark),
    Checkpoint,
    Switch,
    Die(usize),
    /// Fills the segment but for this many bytes.
    Until(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(vec![XactKind::Commit, XactKind::Abort, XactKind::CommitPrepared, XactKind::AbortPrepared]);
    let counts = [0..50_u32, 0..6, 0..6, 0..30];
    let xact =
        (kind, any::<i32>(), 3..u32::MAX, any::<[bool; 3]>(), counts).prop_map(|(kind, time, xid, [a, b, c], counts)| Xact {
            dbinfo: a,
            origin: b,
            gid: c.then_some("gid-\u{e9}-1"),
            subxacts: counts[0],
            rels: counts[1],
            stats: counts[2],
            invals: counts[3],
            ..Xact::new(kind, time.into(), xid)
        });
    let large = (0..20_000_u32, 0..3000_u32);
    prop_oneof![
        6 => (0..2000_usize).prop_map(Op::Filler),
        1 => (0..60_000_usize).prop_map(Op::Filler),
        6 => xact.clone().prop_map(Op::Xact),
        1 => (xact, large).prop_map(|(xact, (subxacts, invals))| Op::Xact(Xact { subxacts, invals, ..xact })),
        1 => (0..9000_usize).prop_map(Op::Prepare),
        1 => Just(Op::RestorePoint),
        2 => mark().prop_map(Op::Mark),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Switch),
        1 => (1..6_usize).prop_map(Op::Die),
        3 => (0..20_u64).prop_map(|n| Op::Until(n * 8)),
    ]
}

/// Tablespaces, databases and parameters: all that is made anew or not by replay.
fn mark() -> impl Strategy<Value = Mark> {
    let path = prop::collection::vec(1..=255_u8, 0..=MAX_TABLESPACE_PATH_BYTES);
    let source = prop::option::of(any::<[u32; 2]>());
    let list = prop::option::of(prop::collection::vec(any::<u32>(), 0..=MAX_DROPPED_TABLESPACES));
    prop_oneof![
        2 => (any::<u32>(), path).prop_map(|(tablespace, path)| Mark::TablespaceCreate {
            tablespace,
            path: TablespacePath::new(&path).unwrap(),
        }),
        1 => any::<u32>().prop_map(|tablespace| Mark::TablespaceDrop { tablespace }),
        2 => (any::<[u32; 2]>(), source).prop_map(|([database, tablespace], source)| Mark::DatabaseCreate {
            database,
            tablespace,
            copied_from: source.map(|[database, tablespace]| DatabaseFiles { tablespace, database }),
        }),
        2 => (any::<u32>(), list).prop_map(|(database, tablespaces)| Mark::DatabaseDrop { database, tablespaces }),
        1 => (any::<[i32; 6]>(), any::<[bool; 2]>()).prop_map(|([a, b, c, d, e, wal_level], [hints, timestamps])| {
            Mark::ParameterChange(Parameters {
                max_connections: a,
                max_worker_processes: b,
                max_wal_senders: c,
                max_prepared_transactions: d,
                max_locks_per_transaction: e,
                wal_level,
                wal_log_hints: hints,
                track_commit_timestamp: timestamps,
            })
        }),
    ]
}

fn write(major: u16, segment_bytes: u64, ops: &[Op]) -> (Segments, Events) {
    let mut wal = Wal::new(major, segment_bytes, 5);
    // At least one segment.
    wal.filler(1);
    for (i, op) in ops.iter().enumerate() {
        match op {
            Op::Filler(len) => wal.filler(*len),
            Op::Xact(xact) => wal.xact(xact),
            Op::Prepare(len) => wal.prepare(i as i64, 800, *len),
            Op::RestorePoint => wal.restore_point(i as i64, "a point"),
            // Before 15 every database is copied.
            Op::Mark(Mark::DatabaseCreate { copied_from: None, .. }) if major < 15 => {}
            Op::Mark(mark) => wal.mark(mark.clone()),
            Op::Checkpoint => wal.checkpoint(CheckpointKind::Online, i as i64),
            Op::Switch => wal.switch(),
            Op::Die(pages) => wal.die(i as i64, *pages),
            Op::Until(left) => {
                if let Some(len) = wal.left().checked_sub(left + 24 + 5) {
                    wal.filler(len as usize);
                }
            }
        }
    }
    wal.segments()
}

fn stream() -> impl Strategy<Value = (u16, u64, Vec<Op>)> {
    (13..=18_u16, prop::sample::select(vec![SMALL, 2 * SMALL, 8 * SMALL]), prop::collection::vec(op(), 1..40))
}

/// An xid may be unknown only of a prepared transaction with a GID that crosses segments and is too long to be kept
/// whole.
fn same(found: &Record<Event>, expected: &Record<Event>) -> bool {
    match (&found.what, &expected.what) {
        (Event::XactEnd(a), Event::XactEnd(b)) if a.xid.is_none() => {
            let long = expected.end.0 - expected.start.0 > PIECE_FIRST_BYTES as u64;
            a.kind.is_prepared() && long && (a.kind, a.time) == (b.kind, b.time) && found.start == expected.start
        }
        _ => found == expected,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn split_scans_join_to_the_whole((major, size, ops) in stream()) {
        let (segments, expected) = write(major, size, &ops);
        let (found, wrong) = through_summaries(&segments);
        prop_assert_eq!(wrong, Vec::<String>::new());
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!(same(found, expected), "{:?} {:?}", found, expected);
        }
        prop_assert_eq!(through_carry(&segments), expected);
    }

    #[test]
    fn pieces_and_encoding_change_nothing((major, size, ops) in stream(), cuts in prop::collection::vec(1..20_000_usize, 1..20)) {
        let (segments, _) = write(major, size, &ops);
        for (segment, bytes) in &segments {
            let whole = scan(*segment, bytes);
            let mut scanner = Scanner::new(*segment, Events::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                scanner.push(part);
                rest = more;
            }
            let pieces = scanner.finish();
            prop_assert_eq!(&pieces.summary, &whole.summary);
            prop_assert_eq!(pieces.visitor, whole.visitor);
            prop_assert_eq!(Summary::decode(&whole.summary.encode()), Ok(whole.summary));
        }
    }

    /// The promise that matters: one flipped bit changes nothing that is reported, or is told.
    #[test]
    fn a_flipped_bit_is_never_silent((major, size, ops) in stream(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (mut segments, expected) = write(major, size, &ops);
        // The last segment has nobody after it to tell.
        let covered = segments.len() - 1;
        if covered > 0 {
            let at = at.index(covered * size as usize);
            segments[at / size as usize].1[at % size as usize] ^= 1 << bit;
            let (found, wrong) = through_summaries(&segments);
            if wrong.is_empty() {
                prop_assert_eq!(found.len(), expected.len());
                prop_assert!(found.iter().zip(&expected).all(|(found, expected)| same(found, expected)));
            }
            for (segment, bytes) in &segments {
                let until = scan(*segment, bytes);
                let last = until.summary.good_until();
                prop_assert!(until.visitor.iter().all(|record| record.end <= last));
                prop_assert!(until.visitor.iter().all(|record| expected.contains(record)));
            }
        }
    }

    #[test]
    fn cut_segments_give_their_beginning((major, size, ops) in stream(), at in any::<prop::sample::Index>()) {
        let (segments, expected) = write(major, size, &ops);
        let (segment, bytes) = &segments[0];
        let cut = at.index(bytes.len());
        let scanned = scan(*segment, &bytes[..cut]);
        prop_assert!(!scanned.summary.is_complete());
        let whole: Events = expected.into_iter().filter(|record| record.end.0 - segment.start().0 <= (cut / 8192 * 8192) as u64).collect();
        prop_assert_eq!(scanned.visitor, whole);
    }

    /// Anything at all, in a segment or over one that was good.
    #[test]
    fn no_bytes_panic(
        (major, size, ops) in stream(),
        splices in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..200)), 0..6),
        random in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        let (mut segments, _) = write(major, size, &ops);
        let segment = segments[0].0;
        for (at, bytes) in &splices {
            let target = &mut segments[0].1;
            let at = at.index(target.len());
            for (to, from) in target[at..].iter_mut().zip(bytes) {
                *to = *from;
            }
        }
        for bytes in [&segments[0].1, &random] {
            let summary = scan(segment, bytes).summary;
            prop_assert_eq!(Summary::decode(&summary.encode()), Ok(summary.clone()));
            let mut scanner = Scanner::new(segment, Blocks::default());
            scanner.push(bytes);
            prop_assert_eq!(scanner.finish().summary, summary);
        }
        let _ = through_summaries(&segments);
    }

    #[test]
    fn decoding_is_canonical((major, size, ops) in stream(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>()) {
        let (segments, _) = write(major, size, &ops);
        for (segment, bytes) in &segments {
            let mut encoded = scan(*segment, bytes).summary.encode();
            for (at, byte) in &changes {
                let at = at.index(encoded.len());
                encoded[at] = *byte;
            }
            for bytes in [&encoded[..], &encoded[..cut.index(encoded.len())]] {
                if let Ok(summary) = Summary::decode(bytes) {
                    prop_assert_eq!(summary.encode(), bytes);
                    // Whatever decodes can be used.
                    let mut chain = Chain::new();
                    let _ = chain.push(&summary, &mut Events::new());
                    let _ = chain.push(&summary, &mut Blocks::default());
                    let _ = (summary.good_until(), summary.first_record(), summary.last_record());
                }
            }
        }
    }

    /// Summaries of the first version have no marks of files, and say so.
    #[test]
    fn an_earlier_version_stays_readable((major, size, ops) in stream()) {
        let (segments, _) = write(major, size, &ops);
        for (segment, bytes) in &segments {
            let mut summary = scan(*segment, bytes).summary;
            let encoded = Summary { knows_files: false, ..summary.clone() }.encode();
            prop_assert_eq!(encoded[0], 1);
            let is_file = |mark: &Mark| !matches!(mark, Mark::RestorePoint { .. } | Mark::Checkpoint { .. } | Mark::ParameterChange(_) | Mark::Overwrite { .. });
            if summary.marks.iter().flatten().any(|mark| is_file(&mark.what)) {
                prop_assert_eq!(Summary::decode(&encoded), Err(DecodeError::Part("list of marks")));
                summary.marks.iter_mut().for_each(|marks| marks.retain(|mark| !is_file(&mark.what)));
            }
            let earlier = Summary { knows_files: false, ..summary };
            let encoded = earlier.encode();
            prop_assert_eq!(Summary::decode(&encoded), Ok(earlier));
        }
    }

    #[test]
    fn random_bytes_decode_to_nothing_or_themselves(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for version in [1, 2] {
            let bytes = [&[version, 1, 20, 1], &bytes[..]].concat();
            if let Ok(summary) = Summary::decode(&bytes) {
                prop_assert_eq!(summary.encode(), bytes);
            }
        }
    }
}
