//! The error that commands end with: what happened, what to do, and the kind that decides the exit code.
//!
//! Lives here: [`Error`] and [`Kind`]. The table from kind to exit code is in `cli/exit.rs`. Depends on nothing.

use std::fmt;

/// What decides the exit code. `docs/EXIT-CODES.md` has a line for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `fetch-wal` only: proven absent from every repository.
    Absent,
    /// `fetch-wal` for a standby only: it is not known at the moment, and the server may go on without it and ask
    /// again.
    Unavailable,
    /// Wrong arguments.
    Usage,
    /// A setting, a file of settings, or a local file the user named.
    Config,
    /// The repository cannot be reached, is full, or did not answer in time.
    Unreachable,
    /// Credentials, permissions or a wrong key.
    Denied,
    /// Other content is stored under this name.
    Conflict,
    /// Stored or local data fails authentication, hash or format.
    Damaged,
    /// A recovery target that cannot be reached.
    Target,
    /// Refused to protect data: foreign system identifier, not empty, held.
    Refused,
    /// The PostgreSQL server.
    Server,
    /// `check` or `base-backup` found problems.
    Problems,
    /// A defect of Walvis.
    Bug,
}

/// What a command ends with when it fails.
#[derive(Debug)]
pub struct Error {
    /// What decides the exit code.
    pub kind: Kind,
    /// What happened: one line, naming the thing, without a trailing period.
    pub what: String,
    /// What to do about it: one line.
    pub hint: Option<String>,
    /// What others said about it, where that takes several lines: the end of a log, the place in a file.
    pub detail: Option<String>,
}

impl Error {
    /// Makes an error without a hint.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None, detail: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what others said, in several lines.
    #[must_use]
    pub fn detail(mut self, lines: impl Into<String>) -> Self {
        self.detail = Some(lines.into()).filter(|lines| !lines.is_empty());
        self
    }

    /// Puts what was being done in front: `open repository file:///x: …`.
    #[must_use]
    pub fn while_doing(mut self, action: impl fmt::Display) -> Self {
        self.what = format!("{action}: {}", self.what);
        self
    }

    /// The hint for a line of the log: in brackets, with a space in front; empty where there is none.
    pub fn hint_in_brackets(&self) -> String {
        self.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"))
    }

    /// What several repositories said, as one error in one line. It has the kind and the hint of the first that found
    /// damage, which says more than an outage, and else of the first.
    pub fn from_several(mut errors: Vec<Self>) -> Option<Self> {
        let first = errors.iter().position(|error| error.kind == Kind::Damaged).unwrap_or(0);
        if errors.is_empty() {
            return None;
        }
        let mut error = errors.remove(first);
        for other in errors {
            error.what.push_str(&format!("; and {other}"));
        }
        Some(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_errors_damage_decides() {
        assert!(Error::from_several(Vec::new()).is_none());
        let outage = || Error::new(Kind::Unreachable, "no route").hint("check the network");
        let alone = Error::from_several(vec![outage()]).unwrap();
        assert_eq!(
            (alone.kind, alone.what.as_str(), alone.hint_in_brackets().as_str()),
            (Kind::Unreachable, "no route", " (check the network)")
        );
        let all = Error::from_several(vec![outage(), Error::new(Kind::Damaged, "a gap"), outage()]).unwrap();
        assert_eq!((all.kind, all.what.as_str()), (Kind::Damaged, "a gap; and no route; and no route"));
        assert_eq!(all.hint_in_brackets(), "", "the hint is that of the error that decides");
    }
}
