//! How much room there is.

use std::path::Path;

use super::FsError;

/// Bytes that an ordinary user can still write to the file system of an existing path.
///
/// # Errors
/// When the file system does not say.
pub fn available_bytes(path: &Path) -> Result<u64, FsError> {
    let room = nix::sys::statvfs::statvfs(path).map_err(|e| FsError::new("ask for free space at", path, e))?;
    #[allow(clippy::useless_conversion)] // The types differ between architectures.
    Ok(u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_and_the_lack_of_a_path_too() {
        let place = tempfile::tempdir().unwrap();
        assert!(available_bytes(place.path()).unwrap() > 0);
        assert!(available_bytes(&place.path().join("none")).is_err());
    }
}
