//! Making a directory with all that is missing above it.

use std::path::Path;

use super::{Dir, FsError, Identity, Missing, Problem, Rooted, stat};

/// Makes a directory and whatever is missing above it, mode 0750 less the umask, and makes them durable. Finding them
/// there is fine, and then they are made durable too: who made them may have been killed before that.
///
/// # Errors
/// [`Problem::Exists`] or [`Problem::Unsupported`] when something on the way is not a directory; [`Problem::Denied`],
/// others.
pub fn make_dirs(path: &Path) -> Result<(), FsError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&path).map_err(|e| FsError::new("make directory", &path, e))?;
    let mut child = stat(&path)?;
    for parent in path.ancestors().skip(1) {
        // A mount point was not made by us, and what is above it is another file system's business. So is a directory
        // that may be passed but not read: nothing could have been made in it either.
        let here = stat(parent)?;
        if here.map(|s| s.dev) != child.map(|s| s.dev) {
            break;
        }
        match Dir::open(parent) {
            Ok(dir) => dir.sync()?,
            Err(e) if e.problem == Problem::Denied => {}
            Err(e) => return Err(e),
        }
        child = here;
    }
    Ok(())
}

/// As [`make_dirs`]; as root they are made for `owner` where nobody else's directory is on the way, and by its owner
/// where one is. Says whose the directory is now.
///
/// # Errors
/// As [`make_dirs`] and [`Rooted::open_or_make`]; [`Problem::Denied`] when that user could not reach it.
pub fn make_dirs_for(path: &Path, owner: Identity) -> Result<Identity, FsError> {
    if !nix::unistd::geteuid().is_root() {
        return make_dirs(path).map(|()| Identity::own());
    }
    let path = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
    let rooted = match Rooted::open_or_make(&path, owner, Missing::All) {
        // Somebody else has made it just now.
        Err(e) if e.problem == Problem::Exists => Rooted::open_or_make(&path, owner, Missing::All)?,
        rooted => rooted?,
    };
    let identity = rooted.identity();
    let _as = identity.enter()?;
    // By its path, as that user will.
    Dir::open(&path).map_err(|e| match e.problem {
        Problem::Denied => e.with_hint(format!("let user {} pass the directories above it (chmod o+x)", identity.name())),
        _ => e,
    })?;
    // It is there: this makes it durable.
    make_dirs(&path).map(|()| identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_and_found() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a/b/c");
        make_dirs(&dir).unwrap();
        make_dirs(&dir).unwrap();
        assert!(stat(&dir).unwrap().is_some());
        std::fs::write(place.path().join("file"), b"").unwrap();
        let problem = make_dirs(&place.path().join("file/x")).map_err(|e| e.problem);
        assert!(matches!(problem, Err(Problem::Unsupported | Problem::Exists)));
    }
}
