//! What the kernel says about who uses a directory: its processes, their shared memory, when it was booted, and whether
//! another kernel could have the file system mounted too.

use crate::limits::MAX_PROC_BYTES;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, fstatfs};

use super::links::read_link_at;
use super::{Boot, Dir, FsError, Problem, Stat, list_dir, read_bounded, stat};

/// Inode of the kernel's first namespace of processes, and of its first one of clocks (`linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const FIRST_TIME_NAMESPACE: u64 = 0xEFFF_FFFA;

/// File systems that one kernel alone has mounted (`linux/magic.h`, and ZFS's and bcachefs's own).
#[rustfmt::skip]
const LOCAL: [i64; 13] = [
    0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994, 0x8584_58F6, 0x2FC1_2FC1, 0x794C_7630, 0x3153_464A, 0x3434,
    0xCA45_1A4E, 0x5265_4973, 0x2405_1905,
];

impl Dir {
    /// Whether its file system can be mounted by this kernel only: ext4, XFS, Btrfs and the like, not NFS.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn is_local(&self) -> Result<bool, FsError> {
        let FsType(kind) =
            fstatfs(self.fd()).map_err(|e| FsError::new("ask for the file system of", self.path(), e))?.filesystem_type();
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)] // The types differ between architectures.
        let kind = kind as i64 & 0xFFFF_FFFF;
        Ok(LOCAL.contains(&kind))
    }
}

/// Whether this process may make files in an existing directory, as far as permissions say. `false` when it is not
/// known.
pub fn may_write(directory: &Path) -> bool {
    use nix::unistd::{AccessFlags, eaccess};
    eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// When this kernel was booted, in Unix seconds by the clock as it is set now; `None` where that is not known.
pub fn booted_unix_s() -> Option<i64> {
    // In a namespace of clocks the time since the boot is whatever was written there.
    let clocks = stat(Path::new("/proc/self/ns/time")).ok()?;
    if clocks.is_some_and(|clocks| clocks.ino != FIRST_TIME_NAMESPACE) {
        return None;
    }
    let since = i64::try_from(Boot::now()?.since.as_secs()).ok()?;
    Some(jiff::Timestamp::now().as_second() - since)
}

/// A process, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its user; root's where the system hides it, as it does for a program with rights of its own.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its working directory.
    pub directory: Option<PathBuf>,
    /// Its environment: variables that each end with a zero byte.
    pub environment: Vec<u8>,
}

/// Looks at a process; `None` where none of that number can be seen. Nothing of another process is taken for this
/// one's, should it end meanwhile.
///
/// # Errors
/// [`Problem::Denied`] where it may not be looked at; [`Problem::TooLarge`] for a longer environment.
pub fn process(id: u32, max_environment_bytes: usize) -> Result<Option<Process>, FsError> {
    use std::io::Read;
    // A descriptor of this directory stands for this very process.
    let dir = match Dir::open(&Path::new("/proc").join(id.to_string())) {
        Ok(dir) => dir,
        Err(e) if e.problem == Problem::Absent => return Ok(None),
        Err(e) => return Err(e),
    };
    let own = nix::sys::stat::fstat(dir.fd()).map_err(|e| FsError::new("stat", dir.path(), e))?;
    let directory = read_link_at(dir.fd(), Path::new("cwd")).map_err(|e| FsError::new("read link", dir.path().join("cwd"), e))?;
    let path = dir.path().join("environ");
    let Some(file) = dir.open_file("environ", nix::fcntl::OFlag::O_RDONLY, 0)? else { return Ok(None) };
    let (mut environment, limit) = (Vec::new(), u64::try_from(max_environment_bytes).unwrap_or(u64::MAX).saturating_add(1));
    file.take(limit).read_to_end(&mut environment).map_err(|e| FsError::new("read", &path, e))?;
    if environment.len() > max_environment_bytes {
        let detail = format!("it is larger than {max_environment_bytes} bytes");
        return Err(FsError::because(Problem::TooLarge, "read", path, detail));
    }
    Ok(Some(Process { uid: own.st_uid, gid: own.st_gid, directory, environment }))
}

/// A process that works in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its id, as this process sees it.
    pub process: i32,
    /// The name of its program; empty where that cannot be read.
    pub program: String,
}

/// The processes whose working directory is `directory`, of those that this process can see.
///
/// Processes of other users than `user` are not looked at; one of `user` that does not let itself be looked at is an
/// error when `program` is in the name of its program.
///
/// # Errors
/// [`Problem::Denied`] when a process cannot be looked at; others when there is no `/proc`.
pub fn workers_in(directory: &Stat, user: u32, program: &str) -> Result<Vec<Worker>, FsError> {
    let mut found = Vec::new();
    for name in list_dir(Path::new("/proc"))? {
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let of = |what: &str| PathBuf::from(format!("/proc/{process}/{what}"));
        let has_ended = || stat(&of("")).is_ok_and(|there| there.is_none());
        let status = match read_bounded(&of("status"), MAX_PROC_BYTES) {
            Ok(status) => String::from_utf8_lossy(&status).into_owned(),
            Err(e) if e.problem == Problem::Absent || has_ended() => continue,
            Err(e) => return Err(e),
        };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
        if field("Uid:").split_whitespace().nth(1).and_then(|uid| uid.parse().ok()) != Some(user) {
            continue;
        }
        match stat(&of("cwd")) {
            Ok(Some(there)) if (there.dev, there.ino) == (directory.dev, directory.ino) => {
                found.push(Worker { process, program: field("Name:").to_owned() });
            }
            // One that has ended, and whose parent has not noticed, works nowhere.
            Ok(_) => {}
            // The user's other processes may be closed to him, such as those that log him in.
            Err(_) if !field("Name:").to_lowercase().contains(program) || has_ended() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Whether this process sees every process of this kernel, as a process in a container does not.
pub fn sees_every_process() -> bool {
    stat(Path::new("/proc/self/ns/pid")).is_ok_and(|own| own.is_some_and(|own| own.ino == FIRST_PID_NAMESPACE))
}

/// A segment of System V shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemory {
    /// Its key.
    pub key: i32,
    /// Its id.
    pub id: i64,
    /// The process that made it, as this process sees it.
    pub creator: i32,
    /// How many processes use it.
    pub attached: u64,
    /// When it was made, or its owner changed, in Unix seconds.
    pub changed_unix_s: i64,
}

/// The segments of shared memory that this process can see; none where the kernel does not say.
pub fn shared_memory() -> Vec<SharedMemory> {
    let Ok(bytes) = read_bounded(Path::new("/proc/sysvipc/shm"), MAX_PROC_BYTES) else { return Vec::new() };
    segments_in(&String::from_utf8_lossy(&bytes))
}

fn segments_in(text: &str) -> Vec<SharedMemory> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let read = |line: &str| {
        let values: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| values.get(names.iter().position(|known| *known == name)?)?.parse::<i64>().ok();
        Some(SharedMemory {
            key: i32::try_from(value("key")?).ok()?,
            id: value("shmid")?,
            creator: i32::try_from(value("cpid")?).ok()?,
            attached: u64::try_from(value("nattch")?).ok()?,
            changed_unix_s: value("ctime")?,
        })
    };
    lines.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n  -5310812          3   600                    56  4711  4800      6   107   112   107   112 1795712400 1795712401 1795712399                  4096                     0\nbroken\n";
        let expected = SharedMemory { key: -5_310_812, id: 3, creator: 4711, attached: 6, changed_unix_s: 1_795_712_399 };
        assert_eq!(segments_in(text), [expected]);
        assert!(segments_in("").is_empty());
    }

    #[test]
    fn who_works_in_a_directory_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let user = nix::unistd::geteuid().as_raw();
        let directory = stat(place.path()).unwrap().unwrap();
        assert_eq!(workers_in(&directory, user, "sleep").unwrap(), []);
        let mut child = std::process::Command::new("sleep").arg("600").current_dir(place.path()).spawn().unwrap();
        let found = workers_in(&directory, user, "sleep").unwrap();
        assert_eq!(found.iter().map(|worker| worker.process).collect::<Vec<_>>(), [child.id().cast_signed()]);
        assert_eq!(workers_in(&directory, user.wrapping_add(1), "").unwrap(), []);
        child.kill().unwrap();
        // Ended, though nobody has waited for it.
        while !workers_in(&directory, user, "sleep").unwrap().is_empty() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(Dir::open(Path::new("/proc")).unwrap().is_local().is_ok_and(|local| !local));
        assert!(booted_unix_s().is_none_or(|at| at < jiff::Timestamp::now().as_second()));
    }
}
