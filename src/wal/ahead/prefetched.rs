//! The call's side of fetching ahead: a segment that the helper has downloaded, or is about to, and the start of a
//! helper.

use crate::codec::Digest;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::fsio::{self, Durability, Problem};
use crate::pg::{SegmentHead, SegmentName, WalFileName};
use crate::repo::SystemId;
use crate::report::fetch::FetchReport;
use crate::wal::destination::begin;
use crate::wal::restore_call::{is_in_recovery, is_pg_wal};
use crate::wal::spool::{FetchedFile, HelperKind, Spool, start_helper};
use std::ffi::OsString;
use std::path::Path;

/// A segment that recovery asks for, and that a helper may have downloaded.
pub struct Prefetched<'a> {
    spool: Spool,
    segment: SegmentName,
    system_id: SystemId,
    destination: &'a Path,
}

impl<'a> Prefetched<'a> {
    /// Only for segments, in a data directory, into its `pg_wal`: only recovery calls it that way.
    pub fn find(config: &Config, name: WalFileName, system_id: SystemId, destination: &'a Path) -> Option<Self> {
        let WalFileName::Segment(segment) = name else { return None };
        let wal_directory = destination.parent()?;
        let spool = Spool::find(config, wal_directory).filter(|_| is_pg_wal(wal_directory))?;
        Some(Self { spool, segment, system_id, destination })
    }

    fn name(&self) -> WalFileName {
        WalFileName::Segment(self.segment)
    }

    /// Serves it from the spool, if it is there or about to be. A helper is waited for at most half of the time that is
    /// left.
    pub fn serve(&self, deadline: Deadline) -> Option<FetchReport> {
        let look = || self.spool.fetched(&self.name(), self.system_id);
        let fetched = look().or_else(|| self.spool.wait(HelperKind::Fetch, &self.name(), deadline, look))?;
        match self.move_to_destination(&fetched) {
            Ok(()) => {
                self.spool.end_served(&self.name());
                let (repository, bytes) = (fetched.repository, fetched.stat.size_bytes);
                Some(FetchReport { file: self.name().to_string(), repository, bytes })
            }
            Err(why) => {
                tracing::debug!("{} in the spool is not used: {why}", self.name());
                None
            }
        }
    }

    fn move_to_destination(&self, fetched: &FetchedFile) -> Result<(), String> {
        let path = self.spool.fetched_path(&self.name());
        let (file, stat) = fsio::open_regular(&path).map_err(|e| e.to_string())?;
        if stat != fetched.stat {
            return Err("it changed".to_owned());
        }
        let head = SegmentHead::read(fsio::reader(&file)).map_err(|e| e.to_string())?;
        let page = head.check(self.segment, stat.size_bytes).map_err(|e| e.to_string())?;
        if page.system_id != self.system_id.0 {
            return Err(format!("it is of system identifier {}", page.system_id));
        }
        let mut output = begin(self.destination).map_err(|e| e.to_string())?;
        match fsio::rename_over(&path, self.destination) {
            Ok(()) => {
                // What was checked, and not what took its name meanwhile.
                let there = fsio::stat_no_follow(self.destination).ok().flatten();
                let is_it = there.is_some_and(|there| (there.dev, there.ino) == (stat.dev, stat.ino));
                return if is_it { Ok(()) } else { Err("another file took its place".to_owned()) };
            }
            Err(e) if e.problem == Problem::Unsupported => {}
            Err(e) => return Err(e.to_string()),
        }
        // On another file system. The copy is proven by its hash.
        let digest = Digest::of_copied(&mut fsio::reader(&file), &mut output).map_err(|e| e.to_string())?;
        if digest.blake3 != fetched.blake3 {
            return Err("it is damaged".to_owned());
        }
        output.publish_over(Durability::Volatile).map_err(|e| e.to_string())
    }

    /// Notes how far recovery is, for the helper that runs, or starts one with these arguments. Only where recovery
    /// goes on.
    pub fn fetch_next(&self, arguments: &[OsString]) {
        if !is_in_recovery() {
            return;
        }
        match self.spool.create() {
            Ok(()) => {
                self.spool.note_asked(&self.name());
                if !self.spool.has_helper(HelperKind::Fetch) {
                    start_helper(arguments);
                }
            }
            Err(error) => tracing::debug!(%error, "no spool, so nothing is fetched ahead"),
        }
    }
}
