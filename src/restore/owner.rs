//! Whose a restored data directory is. One user owns everything in it, as PostgreSQL wants it, and root does everything
//! in it with that user's rights: see [`crate::fsio::Identity`].

use crate::error::{Error, Kind};
use crate::format::manifest::DirectoryEntry;
use crate::fsio::{Identity, Owner};
use crate::raw_text::shown;
use crate::restore::target_directory::Taken;
use std::path::Path;

/// The user whose the files are where nothing else says it.
const USUAL: &str = "postgres";
/// Users below this are for services, not for people (`UID_MIN` of `login.defs`).
const FIRST_PERSON: u32 = 1000;

/// Decides it. A user other than root owns what it makes. For root it is, in this order: the one whose the directory
/// is, or whose the nearest directory above it is, if that is not root; the one that the backup recorded, if he exists
/// here and is a user for services; `postgres`. It is never root.
///
/// A backup is a claim of its writer: it does not choose among the people of this host.
///
/// # Errors
/// [`Kind::Config`] where there is no such user.
pub(crate) fn decide(pgdata: &Path, taken: &Taken, recorded: Option<&DirectoryEntry>) -> Result<Identity, Error> {
    let own = Identity::own();
    if own.owner().uid != 0 {
        return Ok(own);
    }
    if let Some(identity) = taken.whose.filter(|identity| !identity.is_own()) {
        return Ok(identity);
    }
    let of_backup = recorded.and_then(|root| lookup(&root.owner, &root.group)).filter(is_for_services);
    let owner = of_backup.or_else(|| lookup(USUAL, USUAL)).filter(|owner| owner.uid != 0);
    owner.map(|owner| Identity::of_user(owner.uid, owner.gid)).ok_or_else(|| {
        Error::new(Kind::Config, format!("no user is known who could own {}: a server does not run as root", shown(pgdata)))
            .hint("make the directory and give it to the server's user (chown), or run the restore as that user")
    })
}

fn is_for_services(owner: &Owner) -> bool {
    (1..FIRST_PERSON).contains(&owner.uid)
}

/// The ids of names. A number stands for itself: in a container the user often has no name.
fn lookup(user: &str, group: &str) -> Option<Owner> {
    let known = nix::unistd::User::from_name(user).ok().flatten();
    let uid = known.as_ref().map(|user| user.uid.as_raw()).or_else(|| user.parse().ok())?;
    let gid = nix::unistd::Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw());
    let gid = gid.or_else(|| group.parse().ok()).or(known.map(|user| user.gid.as_raw())).unwrap_or(uid);
    Some(Owner { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(lookup("root", "root"), Some(Owner { uid: 0, gid: 0 }));
        assert_eq!(lookup("4001", "4002"), Some(Owner { uid: 4001, gid: 4002 }));
        assert_eq!(lookup("no-such-user-here", "root"), None);
    }

    #[test]
    fn a_backup_names_no_person_and_not_root() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let recorded =
            |owner: &str| DirectoryEntry { path: Vec::new(), mode: 0o700, owner: owner.to_owned(), group: "root".to_owned() };
        let of = |whose, owner: &str| {
            decide(Path::new("/x"), &Taken { dir: None, whose }, Some(&recorded(owner))).map(|found| found.owner())
        };
        assert_eq!(of(None, "999").unwrap().uid, 999);
        assert_ne!(of(None, "999").unwrap().gid, 0);
        for no in ["root", "0", "1000", "no-such-user-here"] {
            let found = of(None, no).map(|owner| owner.uid).ok();
            assert_eq!(found, lookup(USUAL, USUAL).map(|owner| owner.uid), "{no}");
        }
        let nobody = Identity::of_user(65_534, 65_534);
        assert_eq!(of(Some(nobody), "999").unwrap(), nobody.owner());
    }
}
