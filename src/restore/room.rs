//! Whether the file systems have room for what is restored.
//!
//! Lives here: room by file system. May not live here: what is written where ([`job`](super::job)), and what of it is
//! zeros ([`zeros`](super::zeros)): these are left out of new files.

use crate::error::{Error, Kind};
use crate::fsio::{self, Dir};
use crate::raw_text::shown;
use crate::restore::target_directory::{LOST_AND_FOUND, local};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What is going to be written below a path.
pub(crate) struct Needed<'a> {
    /// Where.
    pub(crate) path: &'a Path,
    /// How much, in bytes, without the zeros.
    pub(crate) bytes: u64,
    /// How much of zeros, which need room only where a file that is there has room for them already.
    pub(crate) zeros: u64,
    /// The directory that is there and whose files are replaced: they count as room.
    pub(crate) reused: Option<&'a Dir>,
}

/// Whether each file system has room for everything that is going to be written to it.
///
/// # Errors
/// [`Kind::Config`] when one has not.
pub(crate) fn check(needs: &[Needed<'_>]) -> Result<(), Error> {
    let mut devices: Vec<(u64, &Path, u64, u64)> = Vec::new();
    let mut counted = HashSet::new();
    for Needed { path, bytes, zeros, reused } in needs {
        let there = existing(path)?;
        let device = fsio::stat(there).map_err(local)?.map_or(0, |stat| stat.dev);
        // A path that is named twice gives its room once.
        let reused = match reused {
            Some(dir) if counted.insert(*path) => used_bytes(dir)?,
            _ => 0,
        };
        let bytes = &bytes.saturating_add(reused.min(*zeros));
        match devices.iter_mut().find(|(known, ..)| *known == device) {
            Some((_, _, needed, freed)) => (*needed, *freed) = (needed.saturating_add(*bytes), *freed + reused),
            None => devices.push((device, there, *bytes, reused)),
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

/// The path itself, or the nearest one above it that exists.
pub(crate) fn existing(path: &Path) -> Result<&Path, Error> {
    for above in path.ancestors() {
        if fsio::exists(above).map_err(local)? {
            return Ok(above);
        }
    }
    Err(Error::new(Kind::Config, format!("nothing exists above {}", shown(path))))
}

/// What the files in a directory and below take, in bytes; links are not followed.
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
                Some(stat) => bytes = bytes.saturating_add(stat.allocated_bytes),
                None => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_room_and_only_once() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), vec![0; 4096]).unwrap();
        let dir = Dir::open(&data).unwrap();
        let used = used_bytes(&dir).unwrap();
        assert!((4096..1 << 20).contains(&used), "{used}");
        // A hole takes nothing, and so gives nothing.
        std::fs::File::create(data.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(used_bytes(&dir).unwrap() < 1 << 20);
        assert_eq!(existing(&data.join("not/there")).unwrap(), data);
        let needed = |bytes, reused| Needed { path: &data, bytes, zeros: 0, reused };
        assert!(check(&[needed(1, None)]).is_ok());
        let available = fsio::available_bytes(&data).unwrap();
        // Others use the disk meanwhile: by far more, or by far less.
        assert_eq!(check(&[needed(available.saturating_mul(2), None)]).unwrap_err().kind, Kind::Config);
        assert_eq!(check(&[needed(available, None), needed(available, None)]).unwrap_err().kind, Kind::Config);
        let zeros = |zeros, reused| Needed { path: &data, bytes: 1, zeros, reused };
        assert!(check(&[zeros(u64::MAX, None), zeros(u64::MAX, Some(&dir))]).is_ok());
    }
}
