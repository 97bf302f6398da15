//! Which cluster a data directory is: read from its `global/pg_control`.

use std::path::Path;

use super::file_error;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem};
use crate::pg::{ControlFile, ControlFileError, PG_CONTROL_BYTES};
use crate::repo::{Facts, SystemId};

/// How often a `pg_control` that seems damaged is read again: the server rewrites it without a lock that others could take.
const ATTEMPTS: usize = 20;

/// Reads a data directory's `pg_control`; `None` when the directory has none.
///
/// # Errors
/// [`Kind::Config`] when it cannot be read, [`Kind::Damaged`] when it stays damaged.
pub fn of_data_directory(data_directory: &Path, deadline: &Deadline) -> Result<Option<Facts>, Error> {
    Ok(control_of(data_directory, deadline)?.map(|(control, _)| Facts {
        system_id: SystemId(control.system_id),
        wal_segment_size: control.wal_segment_size,
        postgres_major: None,
    }))
}

/// As [`of_data_directory`]: what it says, and its bytes.
///
/// # Errors
/// As [`of_data_directory`].
pub fn control_of(data_directory: &Path, deadline: &Deadline) -> Result<Option<(ControlFile, Vec<u8>)>, Error> {
    let path = data_directory.join("global/pg_control");
    let mut attempt = 0;
    loop {
        attempt += 1;
        let bytes = match fsio::read_bounded(&path, PG_CONTROL_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.problem == Problem::Absent => return Ok(None),
            Err(e) => return Err(file_error(Kind::Config, e)),
        };
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(Some((control, bytes))),
            Err(ControlFileError::Checksum) if attempt < ATTEMPTS && !deadline.is_over() => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) => {
                return Err(Error::new(Kind::Damaged, format!("{}: {e}", path.display()))
                    .hint("is this the data directory of a PostgreSQL 13 to 18?"));
            }
        }
    }
}
