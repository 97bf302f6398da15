//! The one table from an error's kind to its exit code; the README prints it.

use crate::error::Kind;

/// PostgreSQL's recovery ends at exit codes 1 to 125 and stops the server above: `fetch-wal` answers this for everything but a
/// proven absence.
pub(super) const FETCH_FAILED: u8 = 200;

/// The exit code of a command that failed. `push-wal` never exits above 125: PostgreSQL's archiver would die.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Absent => 1,
        Kind::Usage => 2,
        Kind::Config => 10,
        Kind::Unreachable => 11,
        Kind::Denied => 12,
        Kind::Conflict => 13,
        Kind::Damaged => 14,
        Kind::Target => 15,
        Kind::Refused => 16,
        Kind::Server => 17,
        Kind::Problems => 18,
        Kind::Bug => 70,
    }
}
