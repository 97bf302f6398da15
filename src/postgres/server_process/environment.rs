//! The environment of a server that this program starts. The server outlives this program, hands its environment on to
//! whatever it runs, and shows it to everybody who may look at its processes: so it gets no secret that nothing in it
//! needs.
//!
//! Lives here: what any server needs. May not live here: what its `restore_command` needs; its caller decides that.

use crate::fsio::{self, Owner};
use crate::process;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where programs are if nobody says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the server itself, and libpq in it, read (`postmaster.c`, `guc.c`, `fe-connect.c`), but for passwords.
const OF_POSTGRES: [&str; 22] = [
    "PGPORT",
    "PGDATESTYLE",
    "PGTZ",
    "PG_OOM_ADJUST_FILE",
    "PG_OOM_ADJUST_VALUE",
    "PGSYSCONFDIR",
    "PGLOCALEDIR",
    "PGPASSFILE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGCHANNELBINDING",
    "PGREQUIREAUTH",
    "PGREQUIRESSL",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "KRB5_CONFIG",
    "KRB5CCNAME",
];
/// Whether a server, or libpq in it, reads a variable, and needs no secret for it.
pub fn is_read_by_a_server(name: &str) -> bool {
    process::is_basic(OsStr::new(name)) || OF_POSTGRES.contains(&name)
}

/// Whether a server gets a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It does not get it.
    Dropped,
    /// It gets it.
    Passed,
    /// It gets it, and that is worth a word: it may be a secret.
    Told,
}

/// The environment of a server.
#[derive(Debug, Default)]
pub struct Environment {
    /// All of it.
    pub variables: Vec<(OsString, OsString)>,
    /// The names of those that may hold a secret.
    pub told: Vec<String>,
}

impl Environment {
    /// Of the variables of this process those that a server of this user gets. `judge` decides by the name.
    pub fn of_server(judge: &dyn Fn(&str) -> Passing, owner: Owner) -> Self {
        let other_user = nix::unistd::geteuid().is_root().then_some(owner.uid);
        Self::choose(judge, std::env::vars_os(), other_user)
    }

    /// Chooses among variables; as another user the server gets that one's home.
    pub(crate) fn choose(
        judge: &dyn Fn(&str) -> Passing,
        variables: impl Iterator<Item = (OsString, OsString)>,
        user: Option<u32>,
    ) -> Self {
        let mut chosen = Self::default();
        for (name, value) in variables {
            // One whose name is no text is none that we know.
            let passing = name.to_str().map_or(Passing::Dropped, judge);
            if passing == Passing::Dropped || value.is_empty() || name == "PATH" {
                continue;
            }
            if passing == Passing::Told {
                chosen.told.extend(name.to_str().map(str::to_owned));
            }
            chosen.variables.push((name, value));
        }
        chosen.told.sort();
        chosen.set("PATH", safe_path(std::env::var_os("PATH").as_deref()));
        if let Some(user) = user {
            // Ours are root's.
            for name in ["HOME", "USER", "LOGNAME"] {
                chosen.variables.retain(|(known, _)| known != name);
            }
            if let Some((name, home)) = fsio::user_and_home(user) {
                chosen.set("HOME", home.into_os_string());
                chosen.set("USER", OsString::from(&name));
                chosen.set("LOGNAME", OsString::from(name));
            }
        }
        chosen
    }

    fn set(&mut self, name: &str, value: OsString) {
        self.variables.push((name.into(), value));
    }
}

/// Without what depends on the directory that a program happens to run in.
fn safe_path(path: Option<&OsStr>) -> OsString {
    let absolute: Vec<PathBuf> =
        path.map(|path| std::env::split_paths(path).filter(|place| Path::is_absolute(place)).collect()).unwrap_or_default();
    match std::env::join_paths(absolute) {
        Ok(path) if !path.is_empty() => path,
        _ => PATH.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_not_looked_for_in_the_working_directory() {
        let path = |text: &str| safe_path(Some(OsStr::new(text)));
        assert_eq!(path("/bin:.::x/bin:/usr/bin"), OsStr::new("/bin:/usr/bin"));
        assert_eq!(path(".:"), OsStr::new(PATH));
        assert_eq!(safe_path(None), OsStr::new(PATH));
    }
}
