//! Holds what a backup stored against what the server has on disk: what a full read would have stored.
//!
//! Between two pages of one LSN only hints may differ, which nothing logs; what they are is here as PostgreSQL's own
//! check of replay has it (`access/common/bufmask.c`, `heap_mask`, `btree_mask` and so on). A page that was changed
//! after the backup began is written anew by replay.

use super::*;
use crate::changed_pages::{PAGE_BYTES, lsn};
use walvis::pg::data_directory::{Fork, RelationFileName, relation_file};

/// How often a page is looked at that the server may be writing just now.
const LOOKS: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Pages in all.
    pub pages: usize,
    /// Pages that differ in hints.
    pub hints: usize,
}

/// The main fork of a relation that is in backups.
fn main_fork(path: &str) -> Option<RelationFileName> {
    relation_file(path.as_bytes()).map(|(_, name)| name).filter(|name| name.fork == Fork::Main)
}

/// The main forks of all relations on disk that are logged, by their path in the data directory.
fn on_disk(data: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open: Vec<String> = ["base", "global", "pg_tblspc"].map(str::to_owned).into();
    while let Some(below) = open.pop() {
        let entries = fs::read_dir(data.join(&below)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = entries.collect();
        for name in &names {
            let path = format!("{below}/{name}");
            if data.join(&path).is_dir() {
                open.push(path);
            } else if let Some(file) = main_fork(&path)
                && !names.contains(&format!("{}_init", file.number))
            {
                found.insert(path.clone(), data.join(path));
            }
        }
    }
    found
}

/// Every page that the backup stored is what the server has on disk. With `is_changing` the server went on working
/// while the backup ran: relations may have come, gone, grown or shrunk since, which replay does again.
pub(super) fn hold_against_disk(what: &str, (stored, report): (&Stored, &Value), cluster: &Cluster, is_changing: bool) -> Seen {
    let start: Lsn = report["start_lsn"].as_str().unwrap().parse().unwrap();
    let disk = on_disk(&cluster.data);
    let files: BTreeMap<&String, &Vec<u8>> =
        stored.files.iter().filter(|(path, _)| main_fork(path).is_some()).map(|(path, (_, bytes))| (path, bytes)).collect();
    if !is_changing {
        assert_eq!(files.keys().copied().collect::<Vec<_>>(), disk.keys().collect::<Vec<_>>(), "{what}");
    }
    let mut seen = Seen::default();
    for (path, is) in files {
        let Some(real) = disk.get(path) else { continue };
        let should = fs::read(real).unwrap();
        assert!(is_changing || is.len() == should.len(), "{what}: {path} has {} bytes, should have {}", is.len(), should.len());
        for (number, (is, should)) in is.chunks(PAGE_BYTES).zip(should.chunks(PAGE_BYTES)).enumerate() {
            seen.pages += 1;
            if is == should || lsn(should) >= start {
                continue;
            }
            let place = || format!("{what}: page {number} of {path}");
            let same_but_for_lsn = without_hints(is).get(8..) == without_hints(should).get(8..);
            seen.hints += 1;
            // Replay passes over the record of a hint where full_page_writes is off: then only LSNs tell two servers'
            // pages apart.
            if lsn(is) != lsn(should) {
                let (is, on_disk) = (lsn(is), lsn(should));
                assert!(same_but_for_lsn, "{}: it is of {is}, and that on disk of {on_disk}", place());
                continue;
            }
            let is_same = |now: &[u8]| without_hints(is) == without_hints(now);
            let looks = (0..LOOKS).map(|_| page_of(real, number));
            assert!(is_same(should) || looks.into_iter().any(|now| is_same(&now) || lsn(&now) >= start), "{}: {}", place(), {
                let (is, should) = (without_hints(is), without_hints(should));
                let at: Vec<usize> = (0..is.len()).filter(|at| is[*at] != should[*at]).collect();
                let (special, len) = (u16::from_le_bytes([is[16], is[17]]), at.len());
                let end = is.get(special.into()..).unwrap_or_default();
                format!("not only hints differ, but {len} bytes, from {:?} on; it ends with {end:x?}", at.first())
            });
        }
    }
    seen
}

fn page_of(file: &Path, number: usize) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    let file = fs::File::open(file).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut page, (number * PAGE_BYTES) as u64).unwrap();
    page
}

/// What pages of these kinds end with.
const HASH_PAGE: u16 = 0xff80;
const GIST_PAGE: u16 = 0xff81;
const SPGIST_PAGE: u16 = 0xff82;
/// `SEQ_MAGIC`, with which what follows begins.
const SEQUENCE_PAGE: u16 = 0x1717;
const BRIN_PAGES: std::ops::RangeInclusive<u16> = 0xf091..=0xf093;

/// `SPGIST_META`.
const SPGIST_META: u16 = 0x01;
/// `BRIN_EVACUATE_PAGE`.
const BRIN_HINTS: u16 = 0x01;
/// `BTP_SPLIT_END` and `BTP_HAS_GARBAGE`.
const BTREE_HINTS: u16 = 0x20 | 0x40;
/// `LH_PAGE_HAS_DEAD_TUPLES`.
const HASH_HINTS: u16 = 0x80;
/// `F_FOLLOW_RIGHT`, `F_HAS_GARBAGE`, and `F_TUPLES_DELETED`, which replay does not set.
const GIST_HINTS: u16 = 0x02 | 0x08 | 0x10;
/// `HEAP_XMIN_COMMITTED`, `HEAP_XMIN_INVALID`, `HEAP_XMAX_COMMITTED` and `HEAP_XMAX_INVALID`; and `HEAP_COMBOCID`,
/// which says what kind of number the command's is: replay knows none.
const TUPLE_HINTS: u16 = 0x0f20;
/// `PD_HAS_FREE_LINES` and `PD_PAGE_FULL`.
const PAGE_HINTS: u16 = 0x03;

/// A page without its checksum, its hints, and what is in no use.
fn without_hints(page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    let get = |page: &[u8], at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let clear = |page: &mut [u8], at: usize, bits: u16| {
        let left = get(page, at) & !bits;
        page[at..at + 2].copy_from_slice(&left.to_le_bytes());
    };
    let (lower, upper, special) = (get(&page, 12) as usize, get(&page, 14) as usize, get(&page, 16) as usize);
    if !(24 <= lower && lower <= upper && upper <= special && special <= PAGE_BYTES) {
        return page;
    }
    clear(&mut page, 8, u16::MAX);
    clear(&mut page, 10, PAGE_HINTS);
    page[20..24].fill(0);
    page[lower..upper].fill(0);
    let last = get(&page, PAGE_BYTES - 2);
    match PAGE_BYTES - special {
        0 => {}
        16 if last == HASH_PAGE => clear(&mut page, special + 12, HASH_HINTS),
        16 if last == GIST_PAGE => {
            clear(&mut page, special + 12, GIST_HINTS);
            page[special..special + 8].fill(0);
        }
        16 => {
            clear(&mut page, special + 12, BTREE_HINTS);
            clear(&mut page, special + 14, u16::MAX);
        }
        8 if last == SPGIST_PAGE && get(&page, special) & SPGIST_META > 0 => {
            // Which pages have room: a cache of its own.
            page[28..lower].fill(0);
            return page;
        }
        8 if get(&page, special) == SEQUENCE_PAGE && last == 0 => {
            // `last_value` and `log_cnt`: replay knows only the value up to which was logged ahead. From whichever of
            // the two a sequence goes on, it gives no value twice.
            let tuple = upper + 24;
            page[tuple..tuple + 16].fill(0);
            return page;
        }
        8 if BRIN_PAGES.contains(&last) => {
            clear(&mut page, special + 4, BRIN_HINTS);
            return page;
        }
        _ => return page,
    }
    for item in (24..lower.saturating_sub(3)).step_by(4) {
        let pointer = u32::from_le_bytes([page[item], page[item + 1], page[item + 2], page[item + 3]]);
        let (at, flags, bytes) = ((pointer & 0x7fff) as usize, (pointer >> 15) & 3, pointer >> 17);
        if special < PAGE_BYTES {
            // `LP_DEAD` of an entry of an index that has its place still.
            if flags == 3 && bytes > 0 {
                let normal = (pointer & !(3 << 15)) | (1 << 15);
                page[item..item + 4].copy_from_slice(&normal.to_le_bytes());
            }
        } else if flags == 1 && at + 24 <= PAGE_BYTES {
            clear(&mut page, at + 20, TUPLE_HINTS);
            // The command's number, which replay does not know.
            page[at + 8..at + 12].fill(0);
        }
    }
    page
}

#[test]
fn only_hints_count_as_hints() {
    let mut heap = vec![0_u8; PAGE_BYTES];
    heap[12..14].copy_from_slice(&28_u16.to_le_bytes());
    heap[14..16].copy_from_slice(&8100_u16.to_le_bytes());
    heap[16..18].copy_from_slice(&8192_u16.to_le_bytes());
    heap[24..28].copy_from_slice(&(8100_u32 | (1 << 15) | (90 << 17)).to_le_bytes());
    heap[8100..].fill(1);
    let differs = |at: usize, bits: u8| {
        let mut other = heap.clone();
        other[at] ^= bits;
        without_hints(&heap) != without_hints(&other)
    };
    for (at, bits) in [(8, 255), (9, 255), (10, 3), (20, 255), (23, 255), (28, 1), (8099, 1), (8120, 0x20), (8121, 0x0f)] {
        assert!(!differs(at, bits), "{at}");
    }
    for (at, bits) in [(10, 4), (13, 1), (18, 1), (27, 1), (8100, 1), (8120, 1), (8121, 0x10), (8122, 1), (8130, 1), (8191, 1)] {
        assert!(differs(at, bits), "{at}");
    }
}
