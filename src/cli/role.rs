//! What a call is for, as far as PostgreSQL reads its exit code: an archiver's, a restorer's, a helper's.
//!
//! Lives here: [`Role`], and finding it in arguments that may be wrong otherwise. May not live here: the codes
//! themselves (`exit`).

use super::exit::{FETCH_FAILED, exit_code};
use super::flags::{global_flags, takes_value};
use crate::config::HELPER_VARIABLE;
use crate::error::Kind;
use std::ffi::OsString;

/// The flag of a helper.
pub(super) const AHEAD: &str = "--ahead";

/// How failures of this run become exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// By the table.
    Ordinary,
    /// By the table, and never above 125 nor by a signal.
    Archiver,
    /// 1 for a proven absence, and where the server may go on without an answer; 200 for everything else.
    Restorer,
    /// 0, whatever happens: where the server is the first process of a container, it inherits helpers, and takes any
    /// exit code above 1 for the crash of one of its own.
    Helper,
    /// 1 for a proven absence and for whatever keeps it from being told; 200 for wrong usage and what is refused.
    PatientRestorer,
}

impl Role {
    /// The exit code of an error.
    pub(super) fn code(self, kind: Kind) -> u8 {
        match (self, kind) {
            (Self::Helper, _) => 0,
            (Self::Ordinary | Self::Archiver, kind) => exit_code(kind),
            (Self::Restorer | Self::PatientRestorer, kind @ (Kind::Absent | Kind::Unavailable)) => exit_code(kind),
            (Self::PatientRestorer, kind) if !matches!(kind, Kind::Usage | Kind::Refused | Kind::Bug) => {
                exit_code(Kind::Unavailable)
            }
            (Self::Restorer | Self::PatientRestorer, _) => FETCH_FAILED,
        }
    }
}

/// The role that the command's name gives, as far as it can be told from arguments that may be wrong. Anybody who
/// writes `fetch_wal` or `wal-fetch` into `restore_command` means it: an exit code below 126 would end recovery.
pub(super) fn role_of(arguments: &[OsString], word: Option<(usize, Role)>) -> Role {
    let Some((at, role)) = word else { return Role::Ordinary };
    // The variable, too: anybody who writes the flag into the server's settings must not be told that all is well.
    let is_helper = arguments.get(at + 1).is_some_and(|word| word == AHEAD) && std::env::var_os(HELPER_VARIABLE).is_some();
    if is_helper && role != Role::Ordinary { Role::Helper } else { role }
}

/// Makes of the arguments of a call, whose command stands at this place, those of its helper.
pub(super) fn helper_arguments(arguments: &[OsString], command_at: Option<usize>) -> Option<Vec<OsString>> {
    let (before, after) = arguments.split_at_checked(command_at? + 1)?;
    Some(before.iter().skip(1).cloned().chain([AHEAD.into()]).chain(after.iter().cloned()).collect())
}

/// Where the command's name stands among the arguments, and the role that it gives.
pub(super) fn command_word(arguments: &[OsString]) -> Option<(usize, Role)> {
    let mut words = arguments.iter().enumerate().skip(1).map(|(at, word)| (at, word.to_string_lossy()));
    while let Some((at, word)) = words.next() {
        if word.strip_prefix("--").is_some_and(|long| global_flags().any(|flag| takes_value(flag) && flag.long() == long)) {
            words.next();
        } else if !word.starts_with('-') {
            let role = match word.to_lowercase() {
                name if name.contains("fetch") => Role::Restorer,
                name if name.contains("push") => Role::Archiver,
                _ => Role::Ordinary,
            };
            return Some((at, role));
        }
    }
    None
}
