//! PostgreSQL's programs on this host: where those of a major version are.
//!
//! Programs are run as the user that the server will run as, never as root: others may have put them there.

use crate::error::{Error, Kind};
use crate::fsio::{self, Owner};
use crate::process;
use crate::raw_text::shown;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the programs of a major version: the one that is named, Debian's, Red Hat's, or what `PATH` and
/// `pg_config` lead to. They are asked for their version as the user that the server will run as, never as root: others
/// may have put them there.
///
/// # Errors
/// [`Kind::Config`] when there is none.
pub fn find_programs(named: Option<&Path>, major: u32, owner: Owner) -> Result<PathBuf, Error> {
    let is_right = |directory: &Path| version_of(&directory.join("postgres"), owner) == Some(major);
    if let Some(directory) = named {
        return if is_right(directory) {
            Ok(directory.to_owned())
        } else {
            Err(Error::new(Kind::Config, format!("{} has no 'postgres' of version {major}", shown(directory)))
                .hint("name the directory that holds 'postgres' and 'pg_ctl' of that major version with --bin-dir"))
        };
    }
    let mut places =
        vec![PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), PathBuf::from(format!("/usr/pgsql-{major}/bin"))];
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path).filter(|directory| directory.is_absolute()));
    }
    if let Some(output) = said_by("pg_config", "--bindir", owner) {
        places.push(PathBuf::from(output.trim()));
    }
    places.into_iter().find(|directory| is_right(directory)).ok_or_else(|| {
        Error::new(Kind::Config, format!("PostgreSQL {major} is not found on this host, so --start cannot start it"))
            .hint("install it, or name the directory of its programs with --bin-dir")
    })
}

/// The major version that `postgres --version` prints: `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version_of(program: &Path, owner: Owner) -> Option<u32> {
    if !fsio::exists(program).ok()? {
        return None;
    }
    major_in(&said_by(program, "--version", owner)?)
}

/// What a program prints, run as the server's user.
fn said_by(program: impl AsRef<OsStr>, argument: &str, owner: Owner) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(argument).current_dir("/");
    run_as(&mut command, owner);
    Some(String::from_utf8_lossy(&process::output(&mut command).ok()?.stdout).into_owned())
}

/// As root, has a command run as the server's user, in no group but that one.
pub(super) fn run_as(command: &mut Command, owner: Owner) {
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid).gid(owner.gid);
    }
}

fn major_in(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// A program that others could have put there.
    #[test]
    fn programs_are_asked_as_the_server_s_user() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let (program, ran) = (place.path().join("postgres"), place.path().join("ran"));
        std::fs::write(&ran, "").unwrap();
        std::fs::set_permissions(&ran, std::fs::Permissions::from_mode(0o666)).unwrap();
        let script = format!("#!/bin/sh\nid -u >> {0}; id -G >> {0}\necho 'postgres (PostgreSQL) 15.1'\n", ran.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let owner = Owner { uid: 65_534, gid: 65_534 };
        assert_eq!(find_programs(Some(place.path()), 15, owner).unwrap(), place.path());
        if is_root {
            assert_eq!(std::fs::read_to_string(&ran).unwrap(), "65534\n65534\n");
        }
    }

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("bash 5.2", None),
            ("", None),
        ] {
            assert_eq!(major_in(text), expected, "{text}");
        }
    }
}
