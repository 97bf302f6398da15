//! `global/pg_control`: which cluster a data directory is (`catalog/pg_control.h`).

use super::lsn::WalSegmentSize;

/// Size of the file; the content is shorter.
pub const PG_CONTROL_BYTES: usize = 8192;
/// Offset of `xlog_seg_size`, the same in all versions.
const WAL_SEGMENT_SIZE_AT: usize = 228;

/// What Walvis needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// System identifier.
    pub system_id: u64,
    /// `pg_control_version`: 1300 for 13 to 16, 1700, 1800.
    pub control_version: u32,
    /// WAL segment size.
    pub wal_segment_size: WalSegmentSize,
}

/// Why the bytes are not a readable `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Too short.
    #[error("pg_control has only {0} bytes")]
    Short(usize),
    /// Written by a version that Walvis does not know.
    #[error("pg_control version {0} is of no PostgreSQL from 13 to 18")]
    Version(u32),
    /// CRC-32C does not fit: damaged, or read while it was being written (read it again).
    #[error("pg_control is damaged: its checksum does not fit")]
    Checksum,
    /// A segment size that no cluster can have.
    #[error("pg_control says an impossible WAL segment size, {0}")]
    SegmentSize(u32),
}

impl ControlFile {
    /// Reads it. The checksum covers everything before it, at byte 288 (13 to 17) or 292 (18).
    ///
    /// # Errors
    /// See [`ControlFileError`]; only `Checksum` can pass by reading again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = || ControlFileError::Short(bytes.len());
        let u32_at = |i: usize| -> Option<u32> { bytes.get(i..)?.first_chunk().map(|b| u32::from_le_bytes(*b)) };
        let control_version = u32_at(8).ok_or_else(short)?;
        let crc_at = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlFileError::Version(other)),
        };
        let covered = bytes.get(..crc_at).ok_or_else(short)?;
        if crc32c::crc32c(covered) != u32_at(crc_at).ok_or_else(short)? {
            return Err(ControlFileError::Checksum);
        }
        let segment_bytes = u32_at(WAL_SEGMENT_SIZE_AT).ok_or_else(short)?;
        let wal_segment_size =
            WalSegmentSize::new(u64::from(segment_bytes)).ok_or(ControlFileError::SegmentSize(segment_bytes))?;
        let system_id = bytes.first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or_else(short)?;
        Ok(Self { system_id, control_version, wal_segment_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u32, crc_at: usize) -> Vec<u8> {
        let mut bytes = vec![0; PG_CONTROL_BYTES];
        bytes[0..8].copy_from_slice(&7_123_456_789u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[228..232].copy_from_slice(&(64u32 << 20).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn it_reads_every_layout_and_refuses_damage() {
        for (version, crc_at) in [(1300, 288), (1700, 288), (1800, 292)] {
            let good = file(version, crc_at);
            let control = ControlFile::parse(&good).unwrap();
            assert_eq!((control.system_id, control.wal_segment_size.bytes()), (7_123_456_789, 64 << 20));
            for i in 0..crc_at + 4 {
                let mut bad = good.clone();
                bad[i] ^= 1;
                assert!(ControlFile::parse(&bad).is_err(), "byte {i}");
            }
            for len in 0..crc_at + 4 {
                assert!(ControlFile::parse(&good[..len]).is_err());
            }
        }
        assert_eq!(ControlFile::parse(&file(1201, 288)), Err(ControlFileError::Version(1201)));
    }
}
