//! Opening the directory that a tree begins with, so that root is not led astray on the way to it.
//!
//! # Whose is it?
//! Root follows the path name by name. As long as every directory on the way is root's own and nobody else can write to
//! it, what lies there was put there by root: links are followed. (In a sticky directory such as `/tmp` that is so for
//! what belongs to root.) At the first name that belongs to somebody else the rest is looked up under that user's
//! identity, and so is everything that is done in the tree later. The directory at the end must be the same user's:
//! where two users could move each other's directories, it is not clear whose tree it is, and root keeps out.
//!
//! # Making it
//! A directory that is missing is made by its future owner, where that user may. Where only root may, and nobody else
//! can write, root makes it and gives it away by its descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid};

use super::identity::Identity;
use super::links::read_link_at;
use super::users::group_name;
use super::way::{Begins, Way};
use super::{Dir, FsError, Problem, user_name};

const OPEN_DIR: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// To look at what has a name, whatever it is.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory that a tree begins with. Its [`Dir`] works under the identity of the owner of the tree.
#[derive(Debug)]
pub struct Rooted {
    /// The directory.
    pub dir: Dir,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// What there is where a tree is to begin.
#[derive(Debug)]
pub enum Found {
    /// The directory.
    There(Dir),
    /// Nothing. Where a directory above it belongs to somebody who is not root, that user would own the tree.
    Absent(Option<Identity>),
}

/// What may be made that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The last directory of the path.
    Last,
    /// Those above it too.
    All,
}

impl Rooted {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`Problem::Unsafe`] when it is not clear who owns the tree; [`Problem::Absent`], [`Problem::Denied`], others.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        Walk::new(path)?.go_on(None)
    }

    /// Looks whether there is a directory, and makes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Problem::Failed`] for a link that leads nowhere.
    pub fn look(path: &Path) -> Result<Found, FsError> {
        let mut walk = Walk::new(path)?;
        match walk.go_on(None) {
            Ok(rooted) => Ok(Found::There(rooted.dir)),
            Err(e) if e.problem == Problem::Absent => Ok(Found::Absent(walk.territory.filter(|whose| !whose.is_own()))),
            Err(e) => Err(e),
        }
    }

    /// Opens a directory, and makes it (mode 0700) for `owner` when it is not there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_or_make(path: &Path, owner: Identity, missing: Missing) -> Result<Self, FsError> {
        Walk::new(path)?.go_on(Some((owner, missing)))
    }

    /// The identity that it is worked in under.
    pub fn identity(&self) -> Identity {
        self.dir.identity()
    }

    /// Gives a directory of root's own, in which there is nothing but what `counts_for_nothing`, to another user, and
    /// works as that one from then on. One that is somebody else's already stays so.
    ///
    /// # Errors
    /// [`Problem::Exists`] when there is something in it; others.
    pub fn give_to(self, owner: Identity, counts_for_nothing: impl Fn(&OsStr) -> bool) -> Result<Self, FsError> {
        if !self.identity().is_own() || owner.is_own() || !nix::unistd::geteuid().is_root() {
            return Ok(self);
        }
        let path = self.dir.path().to_owned();
        if self.dir.names()?.iter().any(|name| !counts_for_nothing(name)) {
            return Err(FsError::because(Problem::Exists, "give away", path, "it is not empty"));
        }
        give(self.dir.fd(), &path, owner)?;
        let fd = self.dir.fd().try_clone_to_owned().map_err(|e| FsError::new("open directory", &path, e))?;
        Ok(Self { dir: Dir::opened(fd, path, owner), is_new: self.is_new })
    }
}

/// What others can do in a directory of root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// Nothing.
    Firm,
    /// Make things, but not touch what is root's: it is sticky.
    Sticky,
    /// Replace anything.
    Loose,
}

impl Ground {
    fn of(stat: &FileStat) -> Self {
        let mode = Mode::from_bits_truncate(stat.st_mode);
        match (mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH), mode.contains(Mode::S_ISVTX)) {
            (false, _) => Self::Firm,
            (true, true) => Self::Sticky,
            (true, false) => Self::Loose,
        }
    }
}

/// What to make, and for whom.
type Make = Option<(Identity, Missing)>;

/// A way from `/`, through what is root's.
struct Walk {
    /// As it was given, for messages.
    path: PathBuf,
    /// Where it has come to, links resolved, for messages.
    at: PathBuf,
    here: OwnedFd,
    way: Way,
    /// Whose what comes next is, if it is not root's.
    territory: Option<Identity>,
    is_new: bool,
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == kind
}

impl Walk {
    fn new(path: &Path) -> Result<Self, FsError> {
        let path = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
        let here =
            open_at(None, OsStr::new("/"), LOOK | OFlag::O_DIRECTORY).map_err(|e| FsError::new("open directory", "/", e))?;
        let way = Way::along(&path);
        Ok(Self { path, at: PathBuf::from("/"), here, way, territory: None, is_new: false })
    }

    /// Whether a directory that is missing, by the name that was taken last, may be made.
    fn may_make(&self, make: Make) -> Result<bool, FsError> {
        if !self.way.is_own_name() {
            return Err(self.leads_nowhere());
        }
        Ok(make.is_some_and(|(_, missing)| self.way.is_at_end() || missing == Missing::All))
    }

    fn leads_nowhere(&self) -> FsError {
        FsError::because(Problem::Failed, "follow", &self.path, "a symbolic link leads nowhere")
            .with_hint("mount or make what it leads to, or remove the link")
    }

    fn fail(&self, e: Errno) -> FsError {
        let error = FsError::new("open directory", &self.path, e);
        match e {
            Errno::ENOTDIR | Errno::ELOOP => error.with_hint("name a directory, or remove what lies there"),
            _ => error,
        }
    }

    fn unsafe_here(&self, detail: String) -> FsError {
        FsError::because(Problem::Unsafe, "use", &self.path, detail)
    }

    fn go_on(&mut self, make: Make) -> Result<Rooted, FsError> {
        let own = Identity::own();
        if own.owner().uid != 0 {
            return self.rest_as(own, make, true);
        }
        loop {
            let stat = nix::sys::stat::fstat(&self.here).map_err(|e| self.fail(e))?;
            if stat.st_uid != 0 {
                return self.rest_as(identity_of(&stat, make), make, false);
            }
            let ground = Ground::of(&stat);
            let Some(name) = self.way.next_name() else { return self.arrive(&stat, ground, own) };
            match open_at(Some(self.here.as_fd()), &name, LOOK) {
                Ok(next) => {
                    let found = nix::sys::stat::fstat(&next).map_err(|e| self.fail(e))?;
                    // A second name for a link of root's could have been made by anybody.
                    let is_link = is(&found, SFlag::S_IFLNK);
                    let is_anybodys = ground == Ground::Loose || ground == Ground::Sticky && is_link && found.st_nlink > 1;
                    if found.st_uid == 0 && is_anybodys {
                        return Err(self.loose(&stat));
                    }
                    if !is_link {
                        self.at.push(&name);
                        self.here = next;
                    } else if found.st_uid == 0 {
                        self.follow(&next)?;
                    } else {
                        self.way.put_back(name);
                        return self.rest_as(identity_of(&found, make), make, false);
                    }
                }
                Err(Errno::ENOENT) => match make {
                    _ if !self.may_make(make)? => return Err(self.fail(Errno::ENOENT)),
                    Some((owner, _)) => self.make_as_root(&name, owner, &stat, ground)?,
                    None => return Err(self.fail(Errno::ENOENT)),
                },
                Err(e) => return Err(self.fail(e)),
            }
        }
    }

    /// Goes on with what a link of root's says.
    fn follow(&mut self, link: &OwnedFd) -> Result<(), FsError> {
        let target = read_link_at(link, Path::new("")).map_err(|e| self.fail(e))?.ok_or_else(|| self.fail(Errno::ENOENT))?;
        match self.way.follow(&target).ok_or_else(|| self.fail(Errno::ELOOP))? {
            Begins::AtRoot => {
                self.here = open_at(None, OsStr::new("/"), LOOK | OFlag::O_DIRECTORY).map_err(|e| self.fail(e))?;
                self.at = PathBuf::from("/");
            }
            Begins::Here => {}
        }
        Ok(())
    }

    /// The directory at the end is root's.
    fn arrive(&self, stat: &FileStat, ground: Ground, own: Identity) -> Result<Rooted, FsError> {
        if ground != Ground::Firm {
            return Err(self.loose(stat));
        }
        let fd = open_at(Some(self.here.as_fd()), OsStr::new("."), OPEN_DIR).map_err(|e| self.fail(e))?;
        Ok(Rooted { dir: Dir::opened(fd, self.path.clone(), own), is_new: self.is_new })
    }

    fn loose(&self, stat: &FileStat) -> FsError {
        let at = self.at.display();
        let who = if Mode::from_bits_truncate(stat.st_mode).contains(Mode::S_IWOTH) {
            "every user".to_owned()
        } else {
            format!("group {}", group_name(stat.st_gid))
        };
        self.unsafe_here(format!("it is root's, and {who} can change what lies in {at}, which root must not rely on")).with_hint(
            format!("take the write permission for {at} away from {who}, or run the command as the owner of the directory"),
        )
    }

    /// The rest of the way under another identity. `may_be_anybodys`: where there is no root to protect.
    fn rest_as(&mut self, identity: Identity, make: Make, may_be_anybodys: bool) -> Result<Rooted, FsError> {
        self.territory = Some(identity);
        let _as = identity.enter()?;
        let at = self.at.clone();
        while let Some(name) = self.way.next_name() {
            let next = open_at(Some(self.here.as_fd()), &name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
            self.here = match next {
                Ok(next) => next,
                // A link of that name leads nowhere.
                Err(Errno::ENOENT) if self.is_there(&name)? => return Err(self.leads_nowhere()),
                Err(Errno::ENOENT) if self.may_make(make)? => {
                    self.is_new = true;
                    self.make_here(&name)?
                }
                Err(e) => return Err(self.fail(e)),
            };
        }
        let fd = open_at(Some(self.here.as_fd()), OsStr::new("."), OPEN_DIR).map_err(|e| self.fail(e))?;
        let stat = nix::sys::stat::fstat(&fd).map_err(|e| self.fail(e))?;
        if stat.st_uid != identity.owner().uid && !may_be_anybodys {
            let (owner, other) = (user_name(stat.st_uid), identity.name());
            let detail = format!("it belongs to user {owner}, and user {other} can change the way to it ({})", at.display());
            return Err(self.unsafe_here(detail).with_hint(format!(
                "give it to {other} (chown), or run the command as user {owner}, such as with 'runuser -u {owner} -- walvis …'"
            )));
        }
        Ok(Rooted { dir: Dir::opened(fd, self.path.clone(), identity), is_new: self.is_new })
    }

    fn is_there(&self, name: &OsStr) -> Result<bool, FsError> {
        match open_at(Some(self.here.as_fd()), name, LOOK) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(self.fail(e)),
        }
    }

    /// Makes a directory here, under the identity of this moment, and opens this very one.
    fn make_here(&self, name: &OsStr) -> Result<OwnedFd, FsError> {
        let fail = |e| FsError::new("make directory", &self.path, e);
        nix::sys::stat::mkdirat(&self.here, name, Mode::S_IRWXU).map_err(fail)?;
        open_at(Some(self.here.as_fd()), name, OPEN_DIR | OFlag::O_NOFOLLOW).map_err(fail)
    }

    /// Makes a directory in one of root's.
    fn make_as_root(&mut self, name: &OsStr, owner: Identity, parent: &FileStat, ground: Ground) -> Result<(), FsError> {
        if owner.is_own() && ground == Ground::Loose {
            return Err(self.loose(parent));
        }
        // Where others can write, its owner makes it himself, if he is one of them.
        let is_given = ground == Ground::Firm && !owner.is_own();
        let made = {
            let _as = if is_given { Identity::own() } else { owner }.enter()?;
            self.make_here(name)?
        };
        let is_still_it = |uid: u32| -> Result<bool, FsError> {
            let fail = |e| FsError::new("make directory", &self.path, e);
            let dir = Dir::opened(
                made.try_clone().map_err(|e| FsError::new("open directory", &self.path, e))?,
                self.path.clone(),
                Identity::own(),
            );
            Ok(nix::sys::stat::fstat(&made).map_err(fail)?.st_uid == uid && dir.names()?.is_empty())
        };
        if !is_still_it(if is_given { 0 } else { owner.owner().uid })? {
            return Err(self.unsafe_here("somebody else put it there while it was being made".to_owned()));
        }
        if is_given {
            give(made.as_fd(), &self.path, owner)?;
        }
        self.at.push(name);
        self.here = made;
        self.is_new = true;
        Ok(())
    }
}

/// Whose something is; of the one for whom the tree is made it is as he was given.
fn identity_of(stat: &FileStat, make: Make) -> Identity {
    let wanted = make.map(|(owner, _)| owner).filter(|owner| owner.owner().uid == stat.st_uid);
    wanted.unwrap_or_else(|| Identity::of_user(stat.st_uid, stat.st_gid))
}

fn open_at(dir: Option<BorrowedFd<'_>>, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    match dir {
        Some(dir) => nix::fcntl::openat(dir, name, flags, Mode::empty()),
        None => nix::fcntl::open(name, flags, Mode::empty()),
    }
}

fn give(dir: BorrowedFd<'_>, path: &Path, owner: Identity) -> Result<(), FsError> {
    let owner = owner.owner();
    nix::unistd::fchown(dir, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
        .map_err(|e| FsError::new("change owner of", path, e))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::fsio::Owner;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    const USER: u32 = 65_534;
    const OTHER: u32 = 65_533;

    /// A place that everybody can look into, and two users who are not root; `None` where the test is not root either.
    fn place() -> Option<(tempfile::TempDir, Identity)> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        mode(place.path(), 0o755);
        Some((place, Identity::of_owner(Owner { uid: USER, gid: USER })))
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn make(path: &Path, owner: u32, bits: u32) {
        std::fs::create_dir(path).unwrap();
        chown(path, Some(owner), Some(owner)).unwrap();
        mode(path, bits);
    }

    fn link(target: &Path, path: &Path, owner: u32) {
        symlink(target, path).unwrap();
        std::os::unix::fs::lchown(path, Some(owner), Some(owner)).unwrap();
    }

    fn whose(outcome: Result<Rooted, FsError>) -> Result<u32, Problem> {
        outcome.map(|rooted| rooted.identity().owner().uid).map_err(|e| e.problem)
    }

    #[test]
    fn root_follows_its_own_links_and_another_users_only_with_his_rights() {
        let Some((place, _)) = place() else { return };
        let at = |path: &str| place.path().join(path);
        let open = |path: &str| whose(Rooted::open(&at(path)));
        make(&at("roots"), 0, 0o700);
        make(&at("users"), USER, 0o755);
        make(&at("users/data"), USER, 0o700);
        make(&at("others"), OTHER, 0o755);
        link(&at("users/data"), &at("link"), 0);
        link(&at("roots"), &at("link_to_roots"), 0);
        assert_eq!(open("roots"), Ok(0));
        assert_eq!(open("link_to_roots"), Ok(0));
        assert_eq!(open("users/data"), Ok(USER));
        assert_eq!(open("link"), Ok(USER));
        assert_eq!(open("others"), Ok(OTHER));
        assert_eq!(open("none"), Err(Problem::Absent));
        assert_eq!(open("users/none"), Err(Problem::Absent));
        // What the user planted leads where he could go himself.
        link(&at("roots"), &at("users/planted"), USER);
        link(&at("others"), &at("users/to_others"), USER);
        link(&at("users/data"), &at("users/to_own"), USER);
        link(&at("roots"), &at("users_link"), USER);
        assert_eq!(open("users/planted"), Err(Problem::Denied));
        assert_eq!(open("users_link"), Err(Problem::Denied));
        mode(&at("roots"), 0o755);
        assert_eq!(open("users/planted"), Err(Problem::Unsafe));
        assert_eq!(open("users/to_others"), Err(Problem::Unsafe));
        assert_eq!(open("users/to_own"), Ok(USER));
        make(&at("users/roots"), 0, 0o755);
        let error = Rooted::open(&at("users/roots")).unwrap_err();
        let expected = format!(
            "cannot use {}: it belongs to user root, and user nobody can change the way to it ({})",
            at("users/roots").display(),
            at("users").display()
        );
        assert_eq!(error.to_string(), expected);
        let look = |path: &str| match Rooted::look(&at(path)) {
            Ok(Found::There(dir)) => Ok(Some(dir.identity().owner().uid)),
            Ok(Found::Absent(whose)) => Err(whose.map(|whose| whose.owner().uid)),
            Err(e) => panic!("{e}"),
        };
        assert_eq!((look("users/data"), look("roots")), (Ok(Some(USER)), Ok(Some(0))));
        assert_eq!((look("users/x/y"), look("x/y")), (Err(Some(USER)), Err(None)));
        for (path, owner) in [("nowhere", 0), ("users/nowhere", USER)] {
            link(&at("none"), &at(path), owner);
            assert_eq!(Rooted::look(&at(path)).unwrap_err().problem, Problem::Failed);
            assert_eq!(whose(Rooted::open_or_make(&at(path), Identity::own(), Missing::All)), Err(Problem::Failed));
        }
        assert!(!at("none").exists());
        link(&at("loop"), &at("loop"), 0);
        assert_eq!(open("loop"), Err(Problem::Unsupported));
    }

    #[test]
    fn root_does_not_rely_on_what_everybody_can_replace() {
        let Some((place, _)) = place() else { return };
        let at = |path: &str| place.path().join(path);
        let open = |path: &str| whose(Rooted::open(&at(path)));
        for (bits, expected) in [(0o1777, Ok(0)), (0o777, Err(Problem::Unsafe)), (0o775, Err(Problem::Unsafe)), (0o755, Ok(0))] {
            let name = format!("{bits:o}");
            make(&at(&name), 0, bits);
            make(&at(&name).join("roots"), 0, 0o700);
            make(&at(&name).join("users"), USER, 0o700);
            link(&at(&name).join("roots"), &at(&name).join("link"), 0);
            assert_eq!(open(&format!("{name}/roots")), expected, "{name}");
            assert_eq!(open(&format!("{name}/link")), expected, "{name}");
            assert_eq!(open(&format!("{name}/users")), Ok(USER), "{name}");
        }
        // A tree cannot begin there either.
        assert_eq!(open("1777"), Err(Problem::Unsafe));
        // A second name for a link of root's.
        std::fs::hard_link(at("755/link"), at("1777/second")).unwrap();
        assert_eq!(open("1777/second"), Err(Problem::Unsafe));
        assert_eq!(open("755/link"), Ok(0));
    }

    #[test]
    fn a_directory_is_made_by_its_owner_or_by_root_where_nobody_else_can_write() {
        let Some((place, user)) = place() else { return };
        let at = |path: &str| place.path().join(path);
        let open = |path: &str, owner: Identity, missing| Rooted::open_or_make(&at(path), owner, missing);
        let is = |path: &str| std::fs::metadata(at(path)).map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777)).unwrap();
        make(&at("users"), USER, 0o700);
        make(&at("sticky"), 0, 0o1777);
        make(&at("loose"), 0, 0o777);
        make(&at("others"), OTHER, 0o700);
        for (path, whose) in
            [("new", USER), ("users/new", USER), ("sticky/new", USER), ("loose/new", USER), ("others/new", OTHER)]
        {
            let made = open(path, user, Missing::Last).unwrap();
            assert!(made.is_new && made.identity().owner().uid == whose, "{path}");
            assert_eq!(is(path), (whose, made.identity().owner().gid, 0o700), "{path}");
            assert!(!open(path, user, Missing::Last).unwrap().is_new);
        }
        assert_eq!(whose(open("a/b/c", user, Missing::Last)), Err(Problem::Absent));
        assert_eq!(whose(open("a/b/c", user, Missing::All)), Ok(USER));
        assert_eq!((is("a"), is("a/b/c")), ((USER, USER, 0o700), (USER, USER, 0o700)));
        assert_eq!(whose(open("own", Identity::own(), Missing::Last)), Ok(0));
        assert_eq!(whose(open("sticky/own", Identity::own(), Missing::Last)), Ok(0));
        assert_eq!(whose(open("loose/own", Identity::own(), Missing::Last)), Err(Problem::Unsafe));
        assert!(!at("loose/own").exists());
        // Not through what lies there already.
        link(&at("nowhere"), &at("sticky/planted"), OTHER);
        assert!(open("sticky/planted", user, Missing::Last).is_err());
        assert!(!at("nowhere").exists());
    }

    #[test]
    fn an_empty_directory_of_roots_is_given_away_and_nothing_else() {
        let Some((place, user)) = place() else { return };
        let at = |path: &str| place.path().join(path);
        let give = |path: &str| whose(Rooted::open(&at(path)).unwrap().give_to(user, |name| name == "lost+found"));
        make(&at("empty"), 0, 0o700);
        make(&at("empty/lost+found"), 0, 0o700);
        make(&at("full"), 0, 0o700);
        std::fs::write(at("full/file"), "").unwrap();
        make(&at("others"), OTHER, 0o700);
        assert_eq!(give("empty"), Ok(USER));
        assert_eq!(give("full"), Err(Problem::Exists));
        assert_eq!(give("others"), Ok(OTHER));
        assert_eq!(std::fs::metadata(at("empty")).unwrap().uid(), USER);
        assert_eq!(std::fs::metadata(at("empty/lost+found")).unwrap().uid(), 0);
        assert_eq!(std::fs::metadata(at("full")).unwrap().uid(), 0);
    }
}
