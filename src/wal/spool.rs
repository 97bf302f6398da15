//! The spool: what one call leaves to the calls after it. docs/SPOOL.md is its design.
//!
//! Lives here: where it is, records and plans, their checks, the start of helpers. May not live here: what helpers do
//! ([`push_ahead`](crate::wal::push_ahead), [`fetch_ahead`](crate::wal::fetch_ahead)). Nothing in it is needed: whatever is missing, damaged, of another boot, of
//! other settings or too old counts as not there, and errors of the spool are never errors of a call. Root has none, unless all on the
//! way to it is root's own: what root does by hand in a server's directory, it does at once.
use crate::config::{Config, HELPER_VARIABLE, SpoolPlace};
use crate::deadline::Deadline;
use crate::fsio::{self, Boot, FsError, ItemKind, Lock, Stat};
use crate::limits::{HEARTBEAT_LOST, MAX_SPOOL_RECORD_BYTES, SPOOL_TIME};
use crate::pg::WalFileName;
use crate::process;
use crate::repo::{StoreUrl, SystemId};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a helper says that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
const _: () = assert!(HEARTBEAT.as_millis() * 3 < HEARTBEAT_LOST.as_millis());

const FIRST_LINE: &str = "walvis-record-1";

/// Which of the helpers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Pushes what waits to be archived.
    Push,
    /// Downloads what recovery will ask for.
    Fetch,
    /// Sends what optional repositories missed.
    Missed,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Fetch => "fetch",
            Self::Missed => "missed",
        }
    }
}

/// The spool of one directory of WAL files.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    below: Option<String>,
    directory: PathBuf,
    boot: String,
    settings: String,
    /// `walvis.json` of every repository that is a directory.
    descriptors: Vec<PathBuf>,
}

impl Spool {
    /// The spool of the WAL files in this directory, which may not have been made yet. `None` where it cannot be used.
    pub fn find(config: &Config, wal_directory: &Path) -> Option<Self> {
        // The server's user alone works ahead: what root does by hand needs none of it, and root keeps out of what others can change.
        let is_safe = |place: &Path| match fsio::own_user() {
            0 => match fsio::changeable_by_others(place) {
                Ok(exposure) => exposure.is_none(),
                Err(e) => e.problem == fsio::Problem::Absent,
            },
            _ => true,
        };
        let place = match &config.spool {
            SpoolPlace::Off => return None,
            SpoolPlace::BesideWal => wal_directory,
            SpoolPlace::At(root) => root,
        };
        if !is_safe(place) || !is_safe(wal_directory) {
            return None;
        }
        let (root, below) = match &config.spool {
            SpoolPlace::Off => return None,
            SpoolPlace::BesideWal => (wal_directory.join("walvis"), None),
            SpoolPlace::At(root) => {
                let stat = fsio::stat(wal_directory).ok().flatten()?;
                (root.clone(), Some(format!("{:x}-{:x}", stat.dev, stat.ino)))
            }
        };
        let directory = below.as_ref().map_or_else(|| root.clone(), |below| root.join(below));
        let descriptors = config.repositories.iter().filter_map(|repository| match &repository.store.url {
            StoreUrl::File(path) => Some(path.join("walvis.json")),
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => None,
        });
        Some(Self {
            root,
            below,
            directory,
            boot: Boot::now()?.id,
            settings: fingerprint(config),
            descriptors: descriptors.collect(),
        })
    }

    /// Makes it, if it is not there, for the owner of the WAL files alone: what root did by hand must not keep the server out of it.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to somebody else.
    pub fn make(&self, wal_directory: &Path) -> Result<(), FsError> {
        if fsio::owner(wal_directory)? != fsio::own_user() {
            return Err(FsError::because(fsio::Problem::Denied, "make", &self.directory, "the WAL files belong to another user"));
        }
        if self.below.is_some() {
            fsio::make_dirs(&self.root)?;
        }
        fsio::make_own_dir(&self.directory)?;
        for below in ["pushed", "fetched"] {
            fsio::make_own_dir(&self.directory.join(below))?;
        }
        Ok(())
    }

    /// What identifies its directory; `None` when it is not there or must not be used.
    pub fn place(&self) -> Option<(u64, u64)> {
        let stat = fsio::private_dir(&self.directory).ok().flatten()?;
        Some((stat.dev, stat.ino))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The id of this boot and its clock.
    pub(super) fn now(&self) -> Option<Duration> {
        Boot::now().filter(|boot| boot.id == self.boot).map(|boot| boot.since)
    }

    /// A record or plan, if it is whole, of this boot and of these settings, and not older than `limit`.
    pub(super) fn read(&self, path: &Path, limit: Duration) -> Option<Record> {
        let record = Record::decode(&fsio::read_bounded(path, MAX_SPOOL_RECORD_BYTES).ok()?)?;
        let written = Duration::from_millis(record.get("at")?.parse().ok()?);
        let age = self.now()?.checked_sub(written)?;
        (record.get("boot")? == self.boot && record.get("settings")? == self.settings && age <= limit).then_some(record)
    }

    pub(super) fn write(&self, path: &Path, mut record: Record) -> Result<(), FsError> {
        let now = self.now().ok_or_else(|| FsError::because(fsio::Problem::Failed, "date", path, "there is no clock"))?;
        record.add("boot", &self.boot);
        record.add("settings", &self.settings);
        // A moment of this boot before now: rounded down, it can only make the record older.
        record.add("at", now.as_millis());
        fsio::write_volatile(path, &record.encode())
    }

    /// What the descriptors of all repositories that are directories are; `None` when one is not there.
    pub(super) fn descriptors(&self) -> Option<String> {
        let mut all = String::new();
        for path in &self.descriptors {
            let stat = fsio::stat(path).ok().flatten()?;
            all.push_str(&format!("{}-{}-{}.{} ", stat.dev, stat.ino, stat.changed.0, stat.changed.1));
        }
        Some(all)
    }

    /// Whether it is on record that this very file is stored in every required repository.
    pub fn pushed(&self, file: &WalFileName, path: &Path) -> Option<Pushed> {
        self.place()?;
        let record = self.read(&self.record_of_pushed(file), SPOOL_TIME)?;
        let stat = fsio::stat(path).ok().flatten().filter(|stat| stat.kind == ItemKind::File)?;
        let same = record.get("file")? == file.to_string() && record.get("identity")? == identity(&stat);
        (same && record.get("descriptors")? == self.descriptors()?).then(|| {
            let all = |name| record.all(name).map(str::to_owned).collect();
            Pushed { bytes: stat.size_bytes, failures: all("failed"), notes: all("note") }
        })
    }

    fn record_of_pushed(&self, file: &WalFileName) -> PathBuf {
        self.directory.join("pushed").join(file.to_string())
    }

    /// Puts on record that a file with this state is stored. `descriptors` were taken before that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_pushed(
        &self,
        file: &WalFileName,
        stat: &Stat,
        descriptors: &str,
        failures: &[String],
        notes: &[String],
    ) -> Result<(), FsError> {
        let mut record = Record::default();
        record.add("file", file);
        record.add("identity", identity(stat));
        record.add("descriptors", descriptors);
        for failure in failures {
            record.add("failed", failure.chars().take(500).collect::<String>());
        }
        for note in notes {
            record.add("note", note);
        }
        self.write(&self.record_of_pushed(file), record)
    }

    /// Removes a record.
    pub fn forget_pushed(&self, file: &WalFileName) {
        remove(&self.record_of_pushed(file));
    }

    /// Removes the records of files that are not wanted any more.
    pub fn sweep_pushed(&self, is_wanted: &dyn Fn(&str) -> bool) {
        for name in fsio::list_dir(&self.path("pushed")).unwrap_or_default() {
            if !name.to_str().is_some_and(is_wanted) {
                remove(&self.path("pushed").join(name));
            }
        }
    }

    fn lock_path(&self, side: Side) -> PathBuf {
        self.path(&format!("{}.lock", side.name()))
    }

    fn plan_path(&self, side: Side) -> PathBuf {
        self.path(&format!("{}.plan", side.name()))
    }

    /// Becomes the one helper of this side. An earlier one's plan is withdrawn.
    pub fn lock(&self, side: Side) -> Option<Lock> {
        let held = fsio::lock(&self.lock_path(side)).ok().flatten()?;
        remove(&self.plan_path(side));
        Some(held)
    }

    /// Says what a helper works on, and that it is alive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_plan(&self, side: Side, files: &[String]) -> Result<(), FsError> {
        let mut record = Record::default();
        for file in files {
            record.add("file", file);
        }
        self.write(&self.plan_path(side), record)
    }

    /// Says why a helper ended, for calls that log it.
    pub fn end_plan(&self, side: Side, why: &str) {
        let mut record = Record::default();
        record.add("ended", why);
        if let Err(error) = self.write(&self.plan_path(side), record) {
            tracing::debug!(%error, "cannot write the plan");
        }
    }

    /// Whether a helper lives that works on this file.
    pub fn is_planned(&self, side: Side, file: &WalFileName) -> bool {
        let Some(plan) = self.read(&self.plan_path(side), HEARTBEAT_LOST) else { return false };
        if let Some(why) = plan.get("ended") {
            tracing::debug!("working ahead ended: {why}");
        }
        let file = file.to_string();
        plan.all("file").any(|planned| planned == file) && self.has_helper(side)
    }

    /// Whether a helper of this side lives.
    pub fn has_helper(&self, side: Side) -> bool {
        fsio::is_locked(&self.lock_path(side))
    }

    /// Waits until `look` finds what a helper leaves, for as long as one lives that works on this file, at most half of the time that is
    /// left: the other half is for doing it without.
    pub fn wait<T>(&self, side: Side, file: &WalFileName, deadline: Deadline, look: impl Fn() -> Option<T>) -> Option<T> {
        let until = deadline.at_most(deadline.remaining() / 2);
        while !until.is_over() {
            if !self.is_planned(side, file) {
                break;
            }
            for _ in 0..10 {
                if let Some(found) = look() {
                    return Some(found);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // It may have been left between the last look and the end of the plan.
        look()
    }

    pub(super) fn remove(&self, path: &Path) {
        remove(path);
    }

    /// Puts on record that a segment that was authenticated as a whole lies in `fetched`, in this state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_fetched(&self, file: &WalFileName, fetched: &FetchedFile) -> Result<(), FsError> {
        let mut record = Record::default();
        record.add("file", file);
        record.add("identity", identity(&fetched.stat));
        record.add("system", fetched.system_id);
        record.add("hash", hex::encode(fetched.blake3));
        record.add("from", &fetched.repository);
        self.write(&self.record_of_fetched(file), record)
    }

    /// A segment in `fetched` that is in the very state in which it was authenticated.
    pub fn fetched(&self, file: &WalFileName, system_id: SystemId) -> Option<FetchedFile> {
        self.place()?;
        let record = self.read(&self.record_of_fetched(file), SPOOL_TIME)?;
        let stat = fsio::stat_no_follow(&self.fetched_path(file)).ok().flatten().filter(|stat| stat.kind == ItemKind::File)?;
        let same = record.get("file")? == file.to_string()
            && record.get("identity")? == identity(&stat)
            && record.get("system")? == system_id.to_string();
        let blake3 = hex::decode(record.get("hash")?).ok()?.try_into().ok()?;
        same.then(|| FetchedFile { stat, system_id, blake3, repository: record.get("from").unwrap_or_default().to_owned() })
    }

    /// Where a fetched segment lies.
    pub fn fetched_path(&self, file: &WalFileName) -> PathBuf {
        self.directory.join("fetched").join(file.to_string())
    }

    fn record_of_fetched(&self, file: &WalFileName) -> PathBuf {
        self.directory.join("fetched").join(format!("{file}.ok"))
    }

    /// Removes a fetched segment, and its record first.
    pub fn forget_fetched(&self, file: &WalFileName) {
        remove(&self.record_of_fetched(file));
        remove(&self.fetched_path(file));
    }

    /// Removes what is in `fetched` but what is wanted and in order. Only for the fetch helper, or where there is none.
    pub fn sweep_fetched(&self, is_wanted: &dyn Fn(&WalFileName) -> bool) {
        for name in fsio::list_dir(&self.path("fetched")).unwrap_or_default() {
            let file = name.to_str().and_then(|name| WalFileName::parse(name.strip_suffix(".ok").unwrap_or(name)));
            if !file.is_some_and(|file| is_wanted(&file)) {
                remove(&self.path("fetched").join(name));
            }
        }
    }

    /// Notes which segment recovery was given last, for the helper to follow.
    pub fn note_asked(&self, file: &WalFileName) {
        let mut record = Record::default();
        record.add("file", file);
        if let Err(error) = self.write(&self.path("fetch.asked"), record) {
            tracing::debug!(%error, "cannot say what was asked for");
        }
    }

    /// What was noted last, and when, in milliseconds of the boot's clock.
    pub fn asked(&self) -> Option<(WalFileName, u64)> {
        let note = self.read(&self.path("fetch.asked"), SPOOL_TIME)?;
        Some((WalFileName::parse(note.get("file")?)?, note.get("at")?.parse().ok()?))
    }
}

fn remove(path: &Path) {
    if let Err(error) = fsio::remove_file(path) {
        tracing::debug!(%error, "it stays in the spool");
    }
}

/// A file that is stored.
#[derive(Debug)]
pub struct Pushed {
    /// Its length.
    pub bytes: u64,
    /// What went wrong with optional repositories.
    pub failures: Vec<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// A segment in the spool.
#[derive(Debug)]
pub struct FetchedFile {
    /// Its state after it was authenticated and got its name.
    pub stat: Stat,
    /// Whose it is.
    pub system_id: SystemId,
    /// Of the whole content.
    pub blake3: [u8; 32],
    /// Where it came from.
    pub repository: String,
}

/// What a changed or replaced file does not share.
fn identity(stat: &Stat) -> String {
    let Stat { dev, ino, size_bytes, modified, changed, .. } = stat;
    format!("{dev} {ino} {size_bytes} {}.{} {}.{}", modified.0, modified.1, changed.0, changed.1)
}

/// Stands for all settings that decide where files go, and for what the environment says to the S3 client. Secrets have no part in it.
fn fingerprint(config: &Config) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: String| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(format!("{} {}", env!("CARGO_PKG_VERSION"), config.cluster));
    for repository in &config.repositories {
        add(format!("{:?} {:?} {}", repository.store, repository.key, repository.optional));
    }
    let mut aws: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|n| n.starts_with("AWS_") && !n.contains("SECRET") && !n.contains("TOKEN")))
        .collect();
    aws.sort_unstable();
    for (name, value) in aws {
        add(format!("{name:?}={value:?}"));
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

/// Lines of a name and a value, and a hash of them, so that a torn one counts as none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record(Vec<(String, String)>);

impl Record {
    pub(super) fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string().replace(['\n', '\r'], " ")));
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for (name, value) in &self.0 {
            text.push_str(&format!("{name} {value}\n"));
        }
        let hash = blake3::hash(text.as_bytes());
        text.push_str(&format!("blake3 {hash}\n"));
        text.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (lines, hash) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let lines = text.get(..lines.len() + 1)?;
        if blake3::hash(lines.as_bytes()).to_hex().as_str() != hash.strip_prefix("blake3 ")? {
            return None;
        }
        let fields = lines.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.lines();
        fields.map(|line| line.split_once(' ').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect::<Option<_>>().map(Self)
    }
}

/// What the environment of a helper has more than that of a call: how the C library keeps what several threads gave back. Long buffers
/// go back to the kernel, and threads share what is left.
pub const HELPER_ENVIRONMENT: [(&str, &str); 3] =
    [(HELPER_VARIABLE, "1"), ("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "2097152")];

/// Starts a helper: this program with these arguments. It begins a session of its own, and shares no descriptor with us. Nobody waits
/// for it: it outlives the call. The list of processes says where it works.
pub fn start_helper(arguments: &[OsString]) {
    let started = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        let mut name = OsString::from("walvis in ");
        name.push(std::env::current_dir()?);
        command.arg0(name).args(arguments);
        // It does what we do, so it needs all that we need: credentials and a passphrase from the environment, too.
        command.envs(HELPER_ENVIRONMENT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::spawn(&mut command)
    });
    if let Err(error) = started {
        tracing::debug!(%error, "cannot start a helper");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_none() {
        let mut record = Record::default();
        record.add("file", "000000010000000000000001");
        record.add("failed", "one\nline");
        record.add("empty", "");
        let bytes = record.encode();
        let decoded = Record::decode(&bytes).unwrap();
        assert_eq!((decoded.get("failed"), decoded.get("empty"), decoded.get("none")), (Some("one line"), Some(""), None));
        assert_eq!(decoded.encode(), bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), None, "{cut}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Record::decode(&bytes), None, "{at}");
        }
    }
}
