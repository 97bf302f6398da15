//! The one table from an error's kind to its exit code; `docs/EXIT-CODES.md` prints it.

use crate::error::Kind;

/// PostgreSQL's recovery ends at exit codes 1 to 125 and stops the server above: `fetch-wal` answers this for
/// everything but a proven absence.
pub(super) const FETCH_FAILED: u8 = 200;

/// What `--help` prints of them.
macro_rules! exit_codes {
    () => {
        "Exit codes:
    0  done
    1  fetch-wal: proven absent from every repository
    2  wrong usage
   10  configuration
   11  repository unreachable, full, or timed out
   12  access denied: permissions, credentials, wrong key
   13  conflict: other content is stored under this name
   14  damaged: authentication, hash or format; or a file that is not what its name says
   15  recovery target not reachable
   16  refused, to protect data
   17  PostgreSQL server problem
   18  check found problems; base-backup found damaged pages
   70  bug
  200  fetch-wal: anything but served and proven absent"
    };
}
pub(super) use exit_codes;

/// The exit code of a command that failed. `push-wal` never exits above 125: PostgreSQL's archiver would die.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Absent | Kind::Unavailable => 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_code() {
        let kinds = [
            Kind::Absent,
            Kind::Usage,
            Kind::Config,
            Kind::Unreachable,
            Kind::Denied,
            Kind::Conflict,
            Kind::Damaged,
            Kind::Target,
            Kind::Refused,
            Kind::Server,
            Kind::Problems,
            Kind::Bug,
        ];
        let codes = kinds.map(exit_code).into_iter().chain([0, FETCH_FAILED]);
        for code in codes {
            assert!(exit_codes!().lines().any(|line| line.split_whitespace().next() == Some(&code.to_string())), "{code}");
        }
    }
}
