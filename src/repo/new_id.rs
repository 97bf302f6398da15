//! Ids of what is made now: backups, tombstones, evidence.

use crate::crypto::random_bytes;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;

/// The id of what begins at this moment, with random bits.
///
/// # Errors
/// [`Kind::Config`] when the clock is outside the years that an id can say.
pub fn new_id(begun: jiff::Timestamp) -> Result<BackupId, Error> {
    let random = random_bytes().map_err(|e| Error::new(Kind::Bug, e))?;
    BackupId::begun_at(begun.as_microsecond(), u32::from_le_bytes(random)).ok_or_else(|| {
        Error::new(Kind::Config, format!("the clock says {begun}")).hint("set the clock of this host, and try again")
    })
}
