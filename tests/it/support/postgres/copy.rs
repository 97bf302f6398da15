//! Copies of data directories: the low-level base backup, and plain trees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Cluster, Scratch, create_private, parse_lsn, poll};

/// A base backup in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// Major version of the cluster it is of.
    pub(crate) major: u32,
    /// Segment size of that cluster in MiB.
    pub(crate) wal_segsize_mib: u32,
    /// From here on a recovery is consistent.
    pub(crate) stop_lsn: u64,
}

/// Directories whose content a backup leaves out; the directories themselves are needed.
const EMPTIED: [&str; 8] =
    ["pg_wal", "pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];
/// Files that a backup leaves out, by the beginning of their names.
const LEFT_OUT: [&str; 8] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "pg_internal.init",
    "backup_label",
    "tablespace_map",
    "pgsql_tmp",
];
const CONTROL: &str = "global/pg_control";

impl Cluster {
    /// Takes a base backup into `name` beside the data directory while the server runs, through the functions for it.
    ///
    /// <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP>
    pub(crate) fn backup_to(&self, name: &str) -> Backup {
        let major = self.postgres.major;
        let (begin, end) = if major >= 15 {
            ("select pg_backup_start('walvis test', true)", "from pg_backup_stop(true)")
        } else {
            ("select pg_start_backup('walvis test', true, false)", "from pg_stop_backup(false, true)")
        };
        let dir = self.scratch.path().join(name);
        let fails = |error: String| -> ! { self.fail(&format!("base backup: {error}")) };
        // One session from begin to end: when it closes early, the backup is over.
        let session = self.client();
        session.query(begin).unwrap_or_else(|error| fails(error));
        copy_dir(&self.data, &dir, &self.scratch, &|path| {
            let relative = path.strip_prefix(&self.data).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            let inside = |top: &str| relative.starts_with(top) && relative != Path::new(top);
            // `pg_wal/archive_status` is made below.
            EMPTIED.iter().any(|top| inside(top))
                || LEFT_OUT.iter().any(|prefix| name.starts_with(prefix))
                || relative == Path::new(CONTROL)
                || is_temporary_relation(&name)
        })
        .unwrap();
        assert_eq!(fs::read_dir(dir.join("pg_tblspc")).unwrap().count(), 0, "tablespaces are not copied here");
        make_dir(&dir.join("pg_wal/archive_status"), &self.scratch).unwrap();
        if major >= 17 {
            make_dir(&dir.join("pg_wal/summaries"), &self.scratch).unwrap();
        }
        // Last, and until it is whole: the server writes it without a lock against readers.
        let control = poll(|| read_control(&self.data.join(CONTROL), major));
        self.scratch.write(&dir.join(CONTROL), &control.unwrap_or_else(|| fails("pg_control is never whole".to_owned())));
        let stopped = session.rows(&format!("select lsn, labelfile, spcmapfile {end}")).unwrap_or_else(|error| fails(error));
        let [lsn, label, map] = &stopped[0][..] else { panic!("{stopped:?}") };
        self.scratch.write(&dir.join("backup_label"), label.as_bytes());
        if !map.is_empty() {
            self.scratch.write(&dir.join("tablespace_map"), map.as_bytes());
        }
        Backup { dir, major, wal_segsize_mib: u32::try_from(self.wal_segment_bytes >> 20).unwrap(), stop_lsn: parse_lsn(lsn) }
    }

    /// Copies what this crashed cluster has in `pg_wal`, and could not archive, into the one of `other`; says how many
    /// segments.
    pub(crate) fn save_wal(&self, other: &Self) -> usize {
        let mut saved = 0;
        for entry in fs::read_dir(self.data.join("pg_wal")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_segment = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_segment && !self.data.join(format!("pg_wal/archive_status/{name}.done")).exists() {
                copy_entry(&entry, &other.data.join("pg_wal").join(name), &self.scratch, &|_| false).unwrap();
                saved += 1;
            }
        }
        saved
    }
}

/// Copies a directory nobody writes to.
pub(crate) fn tree(from: &Path, to: &Path, scratch: &Scratch) {
    copy_dir(from, to, scratch, &|_| false).unwrap();
}

/// `t<backend>_<relation>` with an optional fork or segment.
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else { return false };
    let digits = |text: &str| text.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    backend.bytes().all(|byte| byte.is_ascii_digit()) && digits(backend) && digits(relation)
}

/// `pg_control` if its CRC-32C fits: of the bytes before it, whose number depends on the version.
fn read_control(path: &Path, major: u32) -> Option<Vec<u8>> {
    let content = fs::read(path).unwrap();
    let covered = if major >= 18 { 292 } else { 288 };
    let stored = u32::from_le_bytes(content.get(covered..covered + 4)?.try_into().unwrap());
    (content.len() == 8192 && crc32c::crc32c(&content[..covered]) == stored).then_some(content)
}

/// A directory as the server wants it; it may exist.
fn make_dir(path: &Path, scratch: &Scratch) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    scratch.give(path);
    Ok(())
}

fn copy_dir(from: &Path, to: &Path, scratch: &Scratch, skip: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    make_dir(to, scratch)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if skip(&entry.path()) {
            continue;
        }
        let target = to.join(entry.file_name());
        // What vanishes while it is copied was not needed: WAL says what became of it.
        match copy_entry(&entry, &target, scratch, skip) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn copy_entry(entry: &DirEntry, target: &Path, scratch: &Scratch, skip: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    let kind = entry.file_type()?;
    if kind.is_dir() {
        return copy_dir(&entry.path(), target, scratch, skip);
    }
    assert!(kind.is_file(), "neither file nor directory: {}", entry.path().display());
    // The length at the time of the look: what grows meanwhile is in WAL, what shrinks is filled up.
    let source = File::open(entry.path())?;
    let length = source.metadata()?.len();
    let mut copy = create_private(target)?;
    io::copy(&mut source.take(length), &mut copy)?;
    copy.set_len(length)?;
    scratch.give(target);
    Ok(())
}
