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
   18  check found problems; base-backup found damaged pages; verify found damage that matters
   70  bug
  200  fetch-wal: anything but served and proven absent"
    };
}
pub(super) use exit_codes;

/// The one table: the exit code of an error, and the word that JSON has for its kind.
fn row(kind: Kind) -> (u8, &'static str) {
    match kind {
        Kind::Absent => (1, "absent"),
        Kind::Unavailable => (1, "unavailable"),
        Kind::Usage => (2, "usage"),
        Kind::Config => (10, "config"),
        Kind::Unreachable => (11, "unreachable"),
        Kind::Denied => (12, "denied"),
        Kind::Conflict => (13, "conflict"),
        Kind::Damaged => (14, "damaged"),
        Kind::Target => (15, "target"),
        Kind::Refused => (16, "refused"),
        Kind::Server => (17, "server"),
        Kind::Problems => (18, "problems"),
        Kind::Bug => (70, "bug"),
    }
}

/// The exit code of a command that failed. `push-wal` never exits above 125: PostgreSQL's archiver would die.
pub fn exit_code(kind: Kind) -> u8 {
    row(kind).0
}

/// The word that JSON has for a kind of error. It never changes.
pub fn kind_word(kind: Kind) -> &'static str {
    row(kind).1
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) const KINDS: [Kind; 13] = [
        Kind::Absent,
        Kind::Unavailable,
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

    #[test]
    fn the_help_has_every_code() {
        let codes = KINDS.map(exit_code).into_iter().chain([0, FETCH_FAILED]);
        for code in codes {
            assert!(exit_codes!().lines().any(|line| line.split_whitespace().next() == Some(&code.to_string())), "{code}");
        }
    }

    /// docs/JSON.md lists the kinds beside the exit codes, and no others.
    #[test]
    fn the_document_has_every_kind() {
        let document = include_str!("../../docs/JSON.md");
        let rows: Vec<(String, String)> = document
            .split("## Errors")
            .nth(1)
            .unwrap()
            .lines()
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|');
                Some((cells.next()?.trim().trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
            })
            .collect();
        assert_eq!(rows, KINDS.map(|kind| (kind_word(kind).to_owned(), exit_code(kind).to_string())));
    }
}
