//! A temporary directory whose content the server may own, and the user it runs as.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use nix::unistd::{Gid, Uid, User};
use tempfile::TempDir;

use super::{Postgres, SUPERUSER, create_private, run};

/// A temporary directory with a short path (a Unix socket's is limited to 107 bytes). As root it belongs to an
/// unprivileged user, and so does all that is made through it. Removed when the last user of it is dropped.
pub(crate) struct Scratch {
    dir: TempDir,
    user: Option<(Uid, Gid)>,
    staged: Mutex<Option<Arc<Staged>>>,
}

impl Scratch {
    /// Makes one.
    pub(crate) fn new() -> Arc<Self> {
        let user = Uid::effective().is_root().then(|| {
            let known = |name| User::from_name(name).unwrap();
            let user = known("postgres").or_else(|| known("nobody")).expect("a user to drop to: postgres or nobody");
            (user.uid, user.gid)
        });
        let dir = temp_dir(user.is_some());
        let scratch = Self { dir, user, staged: Mutex::new(None) };
        scratch.give(scratch.path());
        Arc::new(scratch)
    }

    /// Whether the server's user is another one than ours.
    pub(crate) fn has_other_user(&self) -> bool {
        self.user.is_some()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A directory in it that the server owns.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap();
        self.give(&path);
        path
    }

    /// Writes a file that the server owns.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) {
        create_private(path).unwrap().write_all(content).unwrap();
        self.give(path);
    }

    /// Hands a file or directory over to the server's user.
    pub(crate) fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
        }
    }

    /// As [`give`](Self::give), with everything below it.
    pub(crate) fn give_all(&self, path: &Path) {
        self.give(path);
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| self.give_all(&entry.unwrap().path()));
        }
    }

    /// A command that runs as the server's user, in this directory, without settings of the caller that could
    /// interfere.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("LC_ALL", "C").env("HOME", self.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["PG", "WALVIS_", "AWS_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&*name);
            }
        }
        // Whoever runs the tests: that is the only role.
        command.env("PGUSER", SUPERUSER);
        if let Some((uid, gid)) = self.user {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// `walvis` itself, where the server's user can run it.
    pub(crate) fn walvis(&self) -> PathBuf {
        self.reachable(Path::new(env!("CARGO_BIN_EXE_walvis")), Path::new(env!("CARGO_BIN_EXE_walvis")))
    }

    /// The installation, where the server's user can run it.
    pub(crate) fn reachable_postgres(&self, postgres: &Postgres) -> Postgres {
        Postgres { major: postgres.major, home: self.reachable(&postgres.home, &postgres.home.join("bin/postgres")) }
    }

    /// A client program, where the server's user can run it.
    pub(crate) fn client_tool(&self, major: u32, name: &str) -> Option<PathBuf> {
        let program = Postgres::find(major).client_tool(name)?;
        let home = program.parent()?.parent()?;
        Some(self.reachable(home, &program).join("bin").join(name))
    }

    /// `tree` itself if the server's user can run the `program` in it, else a copy. (A checkout below `/root` is closed
    /// to all others.)
    fn reachable(&self, tree: &Path, program: &Path) -> PathBuf {
        let runs = || self.command(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if self.user.is_none() || runs() {
            return tree.to_owned();
        }
        let mut staged = self.staged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        staged.get_or_insert_with(Staged::shared).copy_of(tree)
    }
}

/// Copies of programs that the server's user can reach, shared by all tests that run at the moment.
struct Staged {
    dir: TempDir,
    copies: Mutex<HashMap<PathBuf, PathBuf>>,
}

impl Staged {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Staged>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self { dir: temp_dir(true), copies: Mutex::default() });
            *shared = Arc::downgrade(&new);
            new
        })
    }

    fn copy_of(&self, tree: &Path) -> PathBuf {
        let mut copies = self.copies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = self.dir.path().join(copies.len().to_string());
        copies
            .entry(tree.to_owned())
            .or_insert_with(|| {
                // Hard links where that is possible, since a tree has some 60 MB.
                let linked = Command::new("cp").arg("-aL").arg("--link").arg(tree).arg(&next).stderr(Stdio::null()).status();
                if !linked.is_ok_and(|status| status.success()) {
                    let _ = fs::remove_dir_all(&next);
                    run(Command::new("cp").arg("-aL").arg(tree).arg(&next));
                }
                next
            })
            .clone()
    }
}

/// As root in `/tmp`, which every user can enter; else where the caller wants it, unless that makes socket paths too
/// long.
fn temp_dir(root: bool) -> TempDir {
    let wanted = std::env::temp_dir();
    let parent = if root || wanted.as_os_str().len() > 40 { PathBuf::from("/tmp") } else { wanted };
    let dir = tempfile::Builder::new().prefix("walvis-").tempdir_in(parent).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
