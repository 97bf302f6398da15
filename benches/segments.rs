//! The segments that a benchmark is about.

use std::path::Path;

use walvis::pg::SegmentName;

/// Those that `WALVIS_BENCH_SEGMENTS` names: paths joined by `:`, files named as PostgreSQL names them.
pub fn given() -> Vec<(SegmentName, Vec<u8>)> {
    let paths = std::env::var_os("WALVIS_BENCH_SEGMENTS")
        .expect("WALVIS_BENCH_SEGMENTS names no segments: run benches/micro.sh, or give paths joined by `:`");
    let read = |path: &Path| {
        let name = path.file_name().and_then(|name| SegmentName::parse(name.to_str()?));
        let name = name.unwrap_or_else(|| panic!("{}: not a segment's name", path.display()));
        (name, std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    std::env::split_paths(&paths).map(|path| read(&path)).collect()
}
