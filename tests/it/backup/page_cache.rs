//! A backup reads everything, and leaves the page cache of the server's host as it was.

use std::io::IoSliceMut;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use super::*;

const PAGE_BYTES: u64 = 4096;

/// How many pages of a file are in the cache, and how many it has.
fn cached(path: &Path) -> (usize, usize) {
    let file = fs::File::open(path).unwrap();
    // Otherwise the first page that is not there would bring in others.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    let is_there = |at: &u64| preadv2(&file, &mut [IoSliceMut::new(&mut [0])], *at, ReadWriteFlags::NOWAIT).is_ok();
    let pages = (0..file.metadata().unwrap().len()).step_by(PAGE_BYTES as usize);
    (pages.clone().filter(is_there).count(), pages.count())
}

/// Writes a file to the disk and takes it out of the cache.
fn cool_down(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

#[test]
fn what_the_server_had_in_the_cache_stays_there_and_nothing_comes_to_it() {
    let host = Host::new();
    let cluster = host.cluster("server", 16, &host.options().setting("autovacuum", "off"));
    let paths = ["cold", "warm"].map(|table| {
        cluster.sql(&format!("create table {table} as select i, repeat(md5(i::text), 30) from generate_series(1, 20000) i"));
        pages_of(&cluster, table).0
    });
    cluster.sql("checkpoint");
    let [cold, warm] = &paths;
    paths.iter().for_each(|path| cool_down(path));
    if cached(cold).0 > 0 {
        eprintln!("{} is kept in memory alone, or the kernel does not say what is in its cache: not tested", cold.display());
        return;
    }
    // A kernel that is busy may keep some pages: it counts what is so once.
    let mut outcomes = Vec::new();
    let is_so = (0..8).any(|_| {
        // Asking brought in pages.
        paths.iter().for_each(|path| cool_down(path));
        fs::read(warm).unwrap();
        let all = cached(warm);
        let report = host.backup(&cluster, &["--jobs", "2", "--read-all"]);
        assert!(report["read_bytes"].as_u64().unwrap() > 2 * all.0 as u64 * PAGE_BYTES, "{report:#}");
        outcomes.push((all, cached(warm), cached(cold)));
        let Some(((before, pages), (after, _), (left, of))) = outcomes.last() else { return false };
        assert!(*pages > 2000 && *of > 2000, "{outcomes:?}");
        // Where the kernel cannot tell, the ends of ranges may stay.
        before == pages && after == pages && left * 100 <= *of
    });
    assert!(is_so, "a backup pushed out what the server had in the cache, or left there what nobody had: {outcomes:?}");
}
