//! Whether there is room for what is restored.
use crate::error::{Error, Kind};
use crate::fsio::{self, Dir};
use crate::raw_text::shown;
use crate::restore::job::Job;
use crate::restore::target_directory::{LOST_AND_FOUND, local};
use std::path::{Path, PathBuf};

/// Room that is left for the first WAL segments of recovery.
const SPARE_SEGMENTS: u64 = 2;

impl Job<'_> {
    /// Whether there is room for all files, on each file system. What is there already counts as room.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        let segments = SPARE_SEGMENTS * self.source.summary.wal_segment_bytes;
        let mut needs = vec![(self.pgdata.as_path(), self.survey.bytes)];
        needs.push((self.request.waldir.as_deref().unwrap_or(&self.pgdata), segments));
        for (oid, _, to) in &self.tablespaces {
            needs.push((to.as_path(), self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default()));
        }
        let mut devices: Vec<(u64, &Path, u64, u64)> = Vec::new();
        let mut counted = std::collections::HashSet::new();
        for (path, bytes) in needs {
            let there = existing(path)?;
            let device = fsio::stat(there).map_err(local)?.map_or(0, |stat| stat.dev);
            // Twice the same place has its room once.
            let reused = match self.found(path) {
                Some(dir) if self.place.is_reused() && counted.insert(path) => used_bytes(dir)?,
                _ => 0,
            };
            match devices.iter_mut().find(|(known, ..)| *known == device) {
                Some((_, _, needed, freed)) => (*needed, *freed) = (needed.saturating_add(bytes), *freed + reused),
                None => devices.push((device, there, bytes, reused)),
            }
        }
        for (_, path, needed, freed) in devices {
            let available = fsio::available_bytes(path).map_err(local)?.saturating_add(freed);
            if available < needed {
                let missing = (needed - available).div_ceil(1 << 20);
                return Err(Error::new(
                    Kind::Config,
                    format!(
                        "the file system of {} has room for {} MiB, and the restore needs {} MiB: {missing} MiB are missing",
                        shown(path),
                        available >> 20,
                        needed.div_ceil(1 << 20)
                    ),
                )
                .hint("free space, or restore to another file system; nothing was touched"));
            }
        }
        Ok(())
    }
}

/// The path itself, or the nearest one above it that exists.
pub(crate) fn existing(path: &Path) -> Result<&Path, Error> {
    for above in path.ancestors() {
        if fsio::exists(above).map_err(local)? {
            return Ok(above);
        }
    }
    Err(Error::new(Kind::Config, format!("nothing exists above {}", shown(path))))
}

/// Bytes of the files in a directory and below; links are not followed.
fn used_bytes(directory: &Dir) -> Result<u64, Error> {
    let mut bytes = 0_u64;
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let Some(below) = directory.dir_beneath(&path).map_err(local)? else { continue };
        for item in below.items().map_err(local)? {
            if item.name.as_encoded_bytes() == LOST_AND_FOUND {
                continue;
            }
            match below.stat_beneath(Path::new(&item.name)).map_err(local)? {
                Some(stat) if stat.kind == fsio::ItemKind::Directory => open.push(path.join(item.name)),
                Some(stat) => bytes = bytes.saturating_add(stat.size_bytes),
                None => {}
            }
        }
    }
    Ok(bytes)
}
