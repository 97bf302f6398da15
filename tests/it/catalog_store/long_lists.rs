//! Segments with more transactions than a summary holds: they are read up to the answer, and once for each question.

use walvis::repo::catalog::WantedEnds;

use super::*;

impl World {
    /// As a push does that leaves the list of transactions out.
    fn put_without_list(&self, name: SegmentName, bytes: &[u8]) {
        let mut scanner = Scanner::new(Segment::new(name, size()).unwrap(), ());
        scanner.push(bytes);
        let mut summary = scanner.finish().summary;
        summary.xacts = None;
        let content = Content::known(Digest::of(&mut &*bytes).unwrap(), || Box::new(bytes));
        let content = content.with_summary(summary.encode_within(MAX_SUMMARY_BYTES));
        self.repository.put_wal(&self.cluster, self.facts.system_id, &WalFileName::Segment(name), &content).unwrap();
    }
}

#[test]
fn a_list_that_is_not_stored_is_read_once_for_each_question() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut writer = Writer::new(11, 1);
    for _ in 0..6 {
        (0..12).for_each(|_| writer.little());
        writer.segment();
    }
    let log = writer.finish();
    let (listed, world) = (World::new(), World::new());
    for (_, name, bytes) in &log.segments {
        listed.put(*name, bytes, true);
        world.put_without_list(*name, bytes);
    }
    let (with_list, without) = (listed.catalog(), world.catalog());
    let path = without.path(Timeline(1)).unwrap();
    let mut asked = 0;
    for (number, ..) in &log.segments {
        let at = Lsn(number * SEGMENT_BYTES);
        let entry = without.entry_at(&path, at).unwrap().unwrap();
        let all = with_list.transactions(&path, &with_list.entry_at(&path, at).unwrap().unwrap()).unwrap();
        assert_eq!(without.transactions(&path, &entry).unwrap(), all);
        for _ in 0..20 {
            let mut position = || Lsn(at.0 + random.u64(0..SEGMENT_BYTES / 8) * 8);
            let (from, to) = (position(), position());
            let Some(some) = all.get(random.usize(0..all.len().max(1))) else { continue };
            let wanted = match random.u8(0..4) {
                0 => WantedEnds::All,
                1 => WantedEnds::AtOrAfter(some.end.time),
                2 => WantedEnds::Between(PgTime(some.end.time.0 - 5000), some.end.time),
                _ => WantedEnds::Xid(some.end.xid.unwrap_or(Xid::new(7).unwrap())),
            };
            let is_wanted = |end: &XactEnd| match wanted {
                WantedEnds::All => true,
                WantedEnds::AtOrAfter(time) => end.time >= time,
                WantedEnds::Between(from, to) => from <= end.time && end.time <= to,
                WantedEnds::Xid(xid) => end.xid.is_none_or(|own| own == xid),
            };
            let expected: Vec<_> = all.iter().filter(|x| from <= x.lsn && x.lsn < to && is_wanted(&x.end)).copied().collect();
            let ends = |most: usize| {
                let mut found = Vec::new();
                let _ = without
                    .ends(&path, &entry, (from, to), wanted, &mut |end| {
                        found.push(*end);
                        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    })
                    .unwrap();
                found
            };
            let first: Vec<_> = expected.iter().take(1).copied().collect();
            assert_eq!(ends(1), first, "{from} {to} {wanted:?}");
            assert_eq!(ends(usize::MAX), expected, "{from} {to} {wanted:?}");
            let last = |of: &Catalog<'_>| of.last_commit(&path, &entry, (from, to)).unwrap();
            let commit = all.iter().rfind(|x| from <= x.lsn && x.lsn < to && x.end.kind.is_commit()).copied();
            assert_eq!((last(&with_list), last(&without)), (commit, commit));
            let reads = world.store.calls(Op::Read);
            assert_eq!((ends(1), last(&without)), (first, commit));
            // The xid of one that crosses the segments' edge may have to be looked for again.
            let may_read = entry.crossing.as_ref().is_some_and(|crossing| crossing.what.xid.is_none()) || expected.is_empty();
            assert!(may_read || world.store.calls(Op::Read) == reads, "{from} {to} {wanted:?}");
            asked += usize::from(!may_read);
        }
    }
    assert!(asked > 10, "{asked}");
}
