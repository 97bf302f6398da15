//! PostgreSQL's own `backup_manifest` (`backup/backup_manifest.c`), which `pg_verifybackup` and `pg_combinebackup`
//! read.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use super::lsn::{Lsn, Timeline};

/// WAL that a backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// On which timeline.
    pub timeline: Timeline,
    /// From here.
    pub start: Lsn,
    /// To here.
    pub end: Lsn,
}

/// Writes a manifest as a stream, file by file.
pub struct BackupManifest<W> {
    sink: W,
    checksum: Sha256,
    line: Vec<u8>,
    files: u64,
}

impl<W: Write> BackupManifest<W> {
    /// Begins a manifest as the server of this major version writes it: 17 and later name the system identifier.
    ///
    /// # Errors
    /// As the sink's, here and below.
    pub fn new(sink: W, postgres_major: u32, system_id: u64) -> io::Result<Self> {
        let mut manifest = Self { sink, checksum: Sha256::new(), line: Vec::new(), files: 0 };
        if postgres_major >= 17 {
            write!(manifest.line, "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_id},\n")?;
        } else {
            manifest.line.extend_from_slice(b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n");
        }
        manifest.line.extend_from_slice(b"\"Files\": [");
        manifest.flush_line()?;
        Ok(manifest)
    }

    /// Adds a file, with its path relative to the data directory (`pg_tblspc/16399/PG_15_…/5/16401`), the time of its
    /// last change in microseconds since 1970 UTC, and the CRC-32C of its content. `pg_wal` and the manifest itself do
    /// not belong in it.
    ///
    /// # Errors
    /// As the sink's.
    pub fn add_file(&mut self, path: &[u8], size_bytes: u64, modified_unix_us: i64, crc32c: u32) -> io::Result<()> {
        self.line.extend_from_slice(if self.files == 0 { b"\n" } else { b",\n" });
        self.files += 1;
        match std::str::from_utf8(path) {
            Ok(path) => {
                self.line.extend_from_slice(b"{ \"Path\": ");
                serde_json::to_writer(&mut self.line, path)?;
                self.line.extend_from_slice(b", ");
            }
            Err(_) => write!(self.line, "{{ \"Encoded-Path\": \"{}\", ", hex::encode(path))?,
        }
        let time = jiff::Timestamp::from_second(modified_unix_us.div_euclid(1_000_000)).unwrap_or_default();
        write!(
            self.line,
            "\"Size\": {size_bytes}, \"Last-Modified\": \"{} GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
            time.strftime("%Y-%m-%d %H:%M:%S"),
            // The server writes the number's bytes as they are in memory.
            hex::encode(crc32c.to_le_bytes())
        )?;
        self.flush_line()
    }

    /// Ends it. Nothing is synced.
    ///
    /// # Errors
    /// As the sink's.
    pub fn finish(mut self, ranges: &[WalRange]) -> io::Result<W> {
        self.line.extend_from_slice(b"\n],\n\"WAL-Ranges\": [\n");
        for (i, range) in ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { ",\n" };
            write!(
                self.line,
                "{comma}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                range.timeline, range.start, range.end
            )?;
        }
        self.line.extend_from_slice(b"\n],\n");
        self.flush_line()?;
        let checksum = hex::encode(self.checksum.finalize_reset());
        self.sink.write_all(format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").as_bytes())?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn flush_line(&mut self) -> io::Result<()> {
        self.checksum.update(&self.line);
        self.sink.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_the_servers_own() {
        let range = WalRange { timeline: Timeline(3), start: Lsn(0x200_0028), end: Lsn(0x1_0000_0100) };
        for (major, head) in [
            (13, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n"),
            (17, "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7123456789,\n\"Files\": [\n"),
        ] {
            let mut manifest = BackupManifest::new(Vec::new(), major, 7_123_456_789).unwrap();
            manifest.add_file(b"base/5/1259", 8192, 1_600_000_000_999_999, 0x0403_0201).unwrap();
            manifest.add_file(b"odd \"name\"", 0, -1, 0).unwrap();
            manifest.add_file(b"\xFFx", 1, 0, 0xFFFF_FFFF).unwrap();
            let text = String::from_utf8(manifest.finish(&[range]).unwrap()).unwrap();
            let body = format!(
                "{head}{}",
                "{ \"Path\": \"base/5/1259\", \"Size\": 8192, \"Last-Modified\": \"2020-09-13 12:26:40 GMT\", \
                 \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"01020304\" },\n\
                 { \"Path\": \"odd \\\"name\\\"\", \"Size\": 0, \"Last-Modified\": \"1969-12-31 23:59:59 GMT\", \
                 \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" },\n\
                 { \"Encoded-Path\": \"ff78\", \"Size\": 1, \"Last-Modified\": \"1970-01-01 00:00:00 GMT\", \
                 \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"ffffffff\" }\n],\n\"WAL-Ranges\": [\n\
                 { \"Timeline\": 3, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"1/100\" }\n],\n"
            );
            let checksum = hex::encode(Sha256::digest(body.as_bytes()));
            assert_eq!(text, format!("{body}\"Manifest-Checksum\": \"{checksum}\"}}\n"));
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
