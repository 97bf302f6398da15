//! Users and groups: those of this process and of this thread, and their names. Depends on nothing.

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

/// The user of this process, no matter whom this thread works as.
pub fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The user whose rights this thread works with: that of the process, unless the process is root's.
pub(super) fn thread_user() -> u32 {
    // An id that nobody can have changes nothing, and the one before is returned.
    nix::unistd::setfsuid(Uid::from_raw(u32::MAX)).as_raw()
}

/// The group whose rights this thread works with.
pub(super) fn thread_group() -> u32 {
    nix::unistd::setfsgid(Gid::from_raw(u32::MAX)).as_raw()
}

/// The name of a user, or the number where it has none.
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("id {uid}"), |user| user.name)
}

/// The name of a user, and the home directory; `None` for a user whom the system does not know.
pub fn user_and_home(uid: u32) -> Option<(String, PathBuf)> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    Some((user.name, user.dir))
}

/// The name of a group, or the number where it has none.
pub(super) fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| format!("id {gid}"), |group| group.name)
}
