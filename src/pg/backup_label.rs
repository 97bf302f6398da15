//! `backup_label`: what `pg_backup_stop` says about a backup, and what recovery begins with (`access/xlogbackup.c`).

use super::lsn::{Lsn, Timeline};

/// What Walvis needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where recovery begins: the redo position of the backup's checkpoint.
    pub start: Lsn,
    /// The record of that checkpoint.
    pub checkpoint: Lsn,
    /// The timeline it was taken on.
    pub timeline: Timeline,
    /// Whether a standby was read.
    pub from_standby: bool,
}

/// Why a text is not a usable `backup_label`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is missing or makes no sense.
    #[error("it has no usable line '{0}'")]
    Line(&'static str),
    /// A backup that needs others to be restored.
    #[error("it is of an incremental backup, which cannot be restored by itself")]
    Incremental,
}

impl BackupLabel {
    /// Reads the file of any version from 13 to 18. Times in it are in the server's log time zone and are not read.
    ///
    /// # Errors
    /// See [`BackupLabelError`].
    pub fn parse(content: &[u8]) -> Result<Self, BackupLabelError> {
        // Only the label may be anything but ASCII: it is in the encoding of the database that was asked.
        let text = String::from_utf8_lossy(content);
        let line = |name: &'static str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.ok_or(BackupLabelError::Line(name))
        };
        let lsn = |name: &'static str| -> Result<Lsn, BackupLabelError> {
            let first = line(name)?.split(' ').next().unwrap_or_default();
            first.parse().map_err(|_| BackupLabelError::Line(name))
        };
        if line("INCREMENTAL FROM LSN").is_ok() {
            return Err(BackupLabelError::Incremental);
        }
        let timeline = line("START TIMELINE")?.trim().parse().ok().filter(|number| *number > 0);
        let from_standby = match line("BACKUP FROM")? {
            "standby" => true,
            // 13 says "master".
            "primary" | "master" => false,
            _ => return Err(BackupLabelError::Line("BACKUP FROM")),
        };
        Ok(Self {
            start: lsn("START WAL LOCATION")?,
            checkpoint: lsn("CHECKPOINT LOCATION")?,
            timeline: Timeline(timeline.ok_or(BackupLabelError::Line("START TIMELINE"))?),
            from_standby,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "START WAL LOCATION: 16/4000028 (file 000000010000001600000004)\nCHECKPOINT LOCATION: 16/4000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-21 06:15:00 UTC\nLABEL: nightly: 3\nSTART TIMELINE: 1\n";

    #[test]
    fn it_reads_all_versions() {
        let label = BackupLabel::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(
            label,
            BackupLabel {
                start: Lsn(0x16_0400_0028),
                checkpoint: Lsn(0x16_0400_0060),
                timeline: Timeline(1),
                from_standby: false,
            }
        );
        assert_eq!(BackupLabel::parse(GOOD.replace("primary", "master").as_bytes()), Ok(label));
        assert!(BackupLabel::parse(GOOD.replace("primary", "standby").as_bytes()).unwrap().from_standby);
    }

    #[test]
    fn what_misses_a_line_or_needs_others_is_refused() {
        for name in ["START WAL LOCATION", "CHECKPOINT LOCATION", "BACKUP FROM", "START TIMELINE"] {
            assert_eq!(BackupLabel::parse(GOOD.replace(name, "OTHER").as_bytes()), Err(BackupLabelError::Line(name)));
        }
        assert!(BackupLabel::parse(GOOD.replace("TIMELINE: 1", "TIMELINE: 0").as_bytes()).is_err());
        assert!(BackupLabel::parse(GOOD.replace("16/4000028", "16-4000028").as_bytes()).is_err());
        let incremental = format!("{GOOD}INCREMENTAL FROM LSN: 0/1\n");
        assert_eq!(BackupLabel::parse(incremental.as_bytes()), Err(BackupLabelError::Incremental));
        assert!(BackupLabel::parse(b"\xFF").is_err());
        let odd = [GOOD.replace("nightly", "caf").as_bytes(), b"X: \xe9\n"].concat();
        assert_eq!(BackupLabel::parse(&odd), BackupLabel::parse(GOOD.as_bytes()));
    }
}
