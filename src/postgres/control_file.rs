//! Which cluster a data directory is: read from its `global/pg_control`.

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, Dir, FsError, Problem, file_error};
use crate::limits::{CONTROL_FILE_ATTEMPTS, CONTROL_FILE_PAUSE};
use crate::pg::{ControlFile, ControlFileError, PG_CONTROL_BYTES};
use crate::repo::{Facts, SystemId};
use std::path::Path;

const PG_CONTROL: &str = "global/pg_control";

/// Reads a data directory's `pg_control`; `None` when the directory has none.
///
/// # Errors
/// [`Kind::Config`] when it cannot be read, [`Kind::Damaged`] when it stays damaged.
pub fn of_data_directory(data_directory: &Path, deadline: &Deadline) -> Result<Option<Facts>, Error> {
    Ok(control_of(data_directory, deadline)?.map(|(control, _)| facts_of(&control)))
}

/// As [`of_data_directory`]: what it says, and its bytes.
///
/// # Errors
/// As [`of_data_directory`].
pub fn control_of(data_directory: &Path, deadline: &Deadline) -> Result<Option<(ControlFile, Vec<u8>)>, Error> {
    let path = data_directory.join(PG_CONTROL);
    let read = || match fsio::read_bounded(&path, PG_CONTROL_BYTES) {
        Err(e) if e.problem == Problem::Absent => Ok(None),
        other => other.map(Some),
    };
    control_from(&path, read, deadline)
}

/// As [`of_data_directory`], of an open one, with the rights of its owner.
///
/// # Errors
/// As [`of_data_directory`].
pub fn of_open_directory(data_directory: &Dir, deadline: &Deadline) -> Result<Option<Facts>, Error> {
    let path = data_directory.path().join(PG_CONTROL);
    let read = || data_directory.read_bounded(PG_CONTROL, PG_CONTROL_BYTES);
    Ok(control_from(&path, read, deadline)?.map(|(control, _)| facts_of(&control)))
}

fn facts_of(control: &ControlFile) -> Facts {
    Facts { system_id: SystemId(control.system_id), wal_segment_size: control.wal_segment_size, postgres_major: None }
}

fn control_from(
    path: &Path,
    read: impl Fn() -> Result<Option<Vec<u8>>, FsError>,
    deadline: &Deadline,
) -> Result<Option<(ControlFile, Vec<u8>)>, Error> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let unreadable = |e: FsError| {
            let error = file_error(Kind::Config, e);
            if error.hint.is_some() { error } else { error.hint("is this the data directory of a PostgreSQL 13 to 18?") }
        };
        let Some(bytes) = read().map_err(unreadable)? else { return Ok(None) };
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(Some((control, bytes))),
            Err(ControlFileError::Checksum) if attempt < CONTROL_FILE_ATTEMPTS && !deadline.is_over() => {
                std::thread::sleep(CONTROL_FILE_PAUSE);
            }
            Err(e) => {
                return Err(Error::new(Kind::Damaged, format!("{}: {e}", path.display()))
                    .hint("is this the data directory of a PostgreSQL 13 to 18?"));
            }
        }
    }
}
