//! WAL files in a repository: stored under their names, fetched whole, or proven absent.
//!
//! PostgreSQL takes "not there" for the end of the log and promotes. So absence is answered only when all of this
//! holds:
//! - the store says that the object does not exist, and its listing says so too;
//! - nothing proves that the file must have existed: no later segment on the same timeline (unless the timeline began
//!   later), no later timeline that left this one beyond the segment, no later timeline history.

use std::io::Write;
use std::ops::ControlFlow;

use super::cluster::{ClusterName, Facts, SystemId};
use super::content::{Content, Stored};
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::ListedObject;
use super::repository::Repository;
use super::stored_name::{StoredName, may_have_copies};
use crate::error::{Error, Kind};
use crate::format::envelope::Metadata;
use crate::limits::{LATE_ARRIVAL, MAX_COPIES, MAX_HISTORY_FILE_BYTES, MISSING_ATTEMPTS, MISSING_DELAY};
use crate::pg::{SegmentName, Timeline, TimelineHistory, WalFileName, WalSegmentSize};
use crate::store::Created;

/// Under which name a WAL file is kept, and whether it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Whether it was stored now.
    pub stored: Stored,
    /// The name that has this content.
    pub name: StoredName,
}

/// What became of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The sink has the whole file, authenticated.
    Served(Metadata),
    /// It is not there and nothing says that it ever was.
    Absent,
    /// It is not there although it must have existed: to say "not there" would end recovery too early.
    Missing {
        /// What proves it.
        because: String,
    },
}

/// What proves that a file must have existed.
enum Proof {
    /// The store lists it: it came meanwhile, or the store contradicts itself.
    Listed,
    Because {
        reason: String,
        /// When the later file was stored that proves it, if that is what does, and the store tells.
        stored_unix_s: Option<i64>,
    },
}

/// What a listing shows from a file's own name on.
enum Next {
    Itself,
    /// The first wanted file after it, and when it was stored, in Unix seconds.
    Later(WalFileName, Option<i64>),
    Nothing,
}

/// Whether something was stored so lately that what was pushed at the same time may still be on its way. Where the
/// store's clock and ours differ by more than that, it counts as old.
fn is_recent(stored_unix_s: i64) -> bool {
    let age = jiff::Timestamp::now().as_second().abs_diff(stored_unix_s);
    age < LATE_ARRIVAL.as_secs()
}

/// Says of a conflict what it means for this file.
fn fitting(error: Error, file: &WalFileName) -> Error {
    let (Kind::Conflict, WalFileName::History(timeline)) = (error.kind, file) else { return error };
    let timeline = timeline.0;
    error.hint(format!(
        "two servers were promoted to timeline {timeline}, and the other one's is archived: if that one goes on, stop this one and make \
         it anew as its standby; if this one goes on, give it a cluster name of its own (WALVIS_CLUSTER, --cluster) and take a base backup. \
         A server whose restore_command reaches the archive takes a free timeline when it is promoted"
    ))
}

impl Repository {
    /// Stores a WAL file, once. What recovery never asks for must not keep from being archived what it needs: other
    /// content under the name of a `.partial` or `.backup` file, or damage there, is left as it is, and this content is
    /// kept beside it.
    ///
    /// # Errors
    /// As [`put`](Repository::put).
    pub fn put_wal(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        file: &WalFileName,
        content: &Content<'_>,
    ) -> Result<Kept, Error> {
        let mut name = StoredName::from(file);
        loop {
            let object = ObjectName::wal(cluster, system_id, name);
            if self.sealer().create(&object, content)? == Created::New {
                return Ok(Kept { stored: Stored::New, name });
            }
            match self.opener().compare(&object, content.digest) {
                Ok(stored) => return Ok(Kept { stored, name }),
                Err(error)
                    if matches!(error.kind, Kind::Conflict | Kind::Damaged)
                        && may_have_copies(file)
                        && name.copy < MAX_COPIES =>
                {
                    name.copy += 1;
                }
                Err(error) => return Err(fitting(error, file)),
            }
        }
    }

    /// A stored WAL file's metadata; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Opener::metadata`](crate::repo::Opener::metadata).
    pub fn wal_metadata(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        file: &WalFileName,
    ) -> Result<Option<Metadata>, Error> {
        self.opener().metadata(&ObjectName::wal(cluster, system_id, file))
    }

    /// Writes a WAL file to `sink`, or proves that it is not there.
    ///
    /// # Errors
    /// Anything but a proven answer. What the sink got then must be thrown away.
    pub fn get_wal(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        file: &WalFileName,
        sink: &mut dyn Write,
    ) -> Result<Fetched, Error> {
        self.get_stored(cluster, facts, file.into(), sink)
    }

    /// The same of one of several contents of a name.
    ///
    /// # Errors
    /// As [`get_wal`](Self::get_wal).
    pub fn get_stored(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        stored: StoredName,
        sink: &mut dyn Write,
    ) -> Result<Fetched, Error> {
        let file = &stored.file;
        let name = ObjectName::wal(cluster, facts.system_id, stored);
        // What a name stands for is never longer, and what it is written to may be the disk that the server needs.
        let limit = match file {
            WalFileName::Segment(_) | WalFileName::Partial(_) => facts.wal_segment_size.bytes(),
            WalFileName::History(_) | WalFileName::Backup(..) => MAX_HISTORY_FILE_BYTES,
        };
        if let Some(metadata) = self.opener().get_at_most(&name, limit, sink)? {
            return Ok(Fetched::Served(metadata));
        }
        let Some(proof) = self.must_have_existed(cluster, facts, file, &name)? else {
            return Ok(Fetched::Absent);
        };
        // Who replaces a damaged segment deletes it first, and only where a later one proves that it was there.
        if let Some(metadata) = self.opener().get_copy_at_most(&name, limit, sink)? {
            return Ok(Fetched::Served(metadata));
        }
        // It may have been stored at this moment, and files may arrive out of order while another process pushes
        // several at once.
        let may_come = || matches!(proof, Proof::Because { stored_unix_s: Some(stored_unix_s), .. } if is_recent(stored_unix_s));
        let mut attempts = 0;
        while attempts < MISSING_ATTEMPTS || may_come() {
            attempts += 1;
            if let Some(metadata) = self.opener().get_at_most(&name, limit, sink)? {
                return Ok(Fetched::Served(metadata));
            }
            std::thread::sleep(MISSING_DELAY);
        }
        match proof {
            Proof::Because { reason, .. } => Ok(Fetched::Missing { because: reason }),
            Proof::Listed => Err(Error::new(
                Kind::Unreachable,
                format!("{name} in {}: the store says that it does not exist and lists it", self.location()),
            )
            .hint("nothing is proven by such an answer: try again, and see that nothing is deleted there")),
        }
    }

    /// Whether a segment that is not there must have existed: a fetch says [`Fetched::Missing`] then.
    ///
    /// # Errors
    /// Unreachable, denied, damaged.
    pub fn is_hole(&self, cluster: &ClusterName, facts: Facts, segment: SegmentName) -> Result<bool, Error> {
        let file = WalFileName::Segment(segment);
        let name = ObjectName::wal(cluster, facts.system_id, StoredName::from(file));
        Ok(matches!(self.must_have_existed(cluster, facts, &file, &name)?, Some(Proof::Because { .. })))
    }

    /// What proves that a file which is not there must have existed, if anything does.
    fn must_have_existed(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        file: &WalFileName,
        name: &ObjectName,
    ) -> Result<Option<Proof>, Error> {
        let later_segment = |other: &WalFileName| matches!((other, file), (WalFileName::Segment(other), WalFileName::Segment(own)) if other > own);
        let later_history = |other: &WalFileName| matches!((other, file), (WalFileName::History(other), WalFileName::History(own)) if other > own);
        let wanted: Option<&dyn Fn(&WalFileName) -> bool> = match file {
            WalFileName::Segment(_) => Some(&later_segment),
            WalFileName::History(timeline) if timeline.0 > 1 => Some(&later_history),
            // The first timeline has no parent and so no history. The server asks for it all the same when it copies
            // the parent's history into that of a new timeline (`writeTimeLineHistory`). For the others PostgreSQL
            // never asks in recovery.
            WalFileName::History(_) | WalFileName::Partial(_) | WalFileName::Backup(..) => None,
        };
        let prefix = match file {
            WalFileName::History(_) => Prefix::Histories(cluster, facts.system_id),
            _ => Prefix::Timeline(cluster, facts.system_id, file.timeline()),
        };
        let later = match self.next(prefix, name, wanted)? {
            Next::Itself => return Ok(Some(Proof::Listed)),
            Next::Later(file, stored_unix_s) => Some((file, stored_unix_s)),
            Next::Nothing => None,
        };
        let stored_unix_s = later.as_ref().and_then(|(_, stored_unix_s)| *stored_unix_s);
        let reason = match (file, later) {
            (WalFileName::Segment(segment), later) => {
                self.segment_must_have_existed(cluster, facts, *segment, later.map(|(file, _)| file))?
            }
            (_, later) => later.map(|(later, _)| format!("{later} is there, and timelines are numbered without gaps")),
        };
        Ok(reason.map(|reason| Proof::Because { reason, stored_unix_s }))
    }

    fn segment_must_have_existed(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        segment: SegmentName,
        later: Option<WalFileName>,
    ) -> Result<Option<String>, Error> {
        let size = facts.wal_segment_size;
        let Some(number) = segment.number(size) else {
            return Err(Error::new(Kind::Usage, format!("{segment} is impossible with segments of {} bytes", size.bytes())));
        };
        if let Some(later) = later {
            if segment.timeline.0 > 1 {
                match self.history(cluster, facts.system_id, segment.timeline)? {
                    Some(history) if history.first_segment(size).is_some_and(|first| number < first) => return Ok(None),
                    Some(_) => {}
                    None => return Ok(Some(format!("{later} is there, and {:08X}.history is missing too", segment.timeline.0))),
                }
            }
            return Ok(Some(format!("{later} is there, which comes after it")));
        }
        self.left_beyond(cluster, facts.system_id, segment.timeline, number, size)
    }

    /// A later timeline that left this one in a segment after this one. Its history also says where this one began:
    /// what was before that never was on it.
    fn left_beyond(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        timeline: Timeline,
        number: u64,
        size: WalSegmentSize,
    ) -> Result<Option<String>, Error> {
        let own = ObjectName::wal(cluster, system_id, WalFileName::History(timeline)).to_string();
        let mut children = Vec::new();
        self.objects().list(Prefix::Histories(cluster, system_id), &own, &mut |object| {
            if let Some(WalFileName::History(child)) = object.name.wal_file() {
                children.push(*child);
            }
            ControlFlow::Continue(())
        })?;
        for child in children {
            let Some(history) = self.history(cluster, system_id, child)? else { continue };
            let Some(at) = history.ancestors.iter().position(|entry| entry.timeline == timeline) else { continue };
            let began = at.checked_sub(1).and_then(|parent| history.ancestors.get(parent)).map_or(0, |parent| parent.switch.0);
            let Some(left) = history.ancestors.get(at).map(|entry| entry.switch) else { continue };
            if (began / size.bytes()..left.0 / size.bytes()).contains(&number) {
                return Ok(Some(format!("timeline {child} left timeline {timeline} only at {left}")));
            }
        }
        Ok(None)
    }

    /// A timeline's history; `None` when it is not stored.
    ///
    /// # Errors
    /// Unreachable, denied, damaged.
    pub fn history(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        timeline: Timeline,
    ) -> Result<Option<TimelineHistory>, Error> {
        let name = ObjectName::wal(cluster, system_id, WalFileName::History(timeline));
        let Some(bytes) = self.opener().read_small(&name)? else {
            return Ok(None);
        };
        TimelineHistory::parse(timeline, &bytes)
            .map(Some)
            .map_err(|e| Error::new(Kind::Damaged, format!("{name} in {} is no timeline history: {e}", self.location())))
    }

    /// What the store lists at `name`, which it said does not exist, or the first wanted file after it. The listing
    /// begins just before the name, and ends there where no other file is wanted.
    fn next(&self, prefix: Prefix<'_>, name: &ObjectName, wanted: Option<&dyn Fn(&WalFileName) -> bool>) -> Result<Next, Error> {
        let text = name.to_string();
        let before = text.get(..text.len() - 1).unwrap_or_default();
        let mut next = Next::Nothing;
        self.objects().list(prefix, before, &mut |object| {
            if object.name == *name {
                next = Next::Itself;
                return ControlFlow::Break(());
            }
            if object.name.to_string() < text {
                return ControlFlow::Continue(());
            }
            let Some(wanted) = wanted else { return ControlFlow::Break(()) };
            match object.name.wal_file() {
                Some(file) if wanted(file) => {
                    next = Next::Later(*file, object.modified_unix_s);
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        })?;
        Ok(next)
    }

    /// Visits the stored segments of a timeline from number `first` to `last` in order, with stored sizes.
    ///
    /// # Errors
    /// As the store's.
    pub fn visit_segments(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        timeline: Timeline,
        (first, last): (u64, u64),
        visit: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Error> {
        self.visit_listed_segments(cluster, facts, timeline, (first, last), &mut |number, object| {
            visit(number, object.size_bytes)
        })
    }

    /// As [`visit_segments`](Self::visit_segments), with all that the listing says of each.
    ///
    /// # Errors
    /// As the store's.
    pub fn visit_listed_segments(
        &self,
        cluster: &ClusterName,
        facts: Facts,
        timeline: Timeline,
        (first, last): (u64, u64),
        visit: &mut dyn FnMut(u64, &ListedObject),
    ) -> Result<(), Error> {
        let before = first.checked_sub(1).and_then(|number| SegmentName::from_number(timeline, number, facts.wal_segment_size));
        let after = match before {
            Some(name) => ObjectName::wal(cluster, facts.system_id, WalFileName::Segment(name)).to_string(),
            None => String::new(),
        };
        self.objects().list(Prefix::Timeline(cluster, facts.system_id, timeline), &after, &mut |object| {
            if let Some(WalFileName::Segment(name)) = object.name.wal_file()
                && let Some(number) = name.number(facts.wal_segment_size)
            {
                if number > last {
                    return ControlFlow::Break(());
                }
                visit(number, &object);
            }
            ControlFlow::Continue(())
        })
    }
}
