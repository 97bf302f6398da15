//! The fetch helper: `walvis fetch-wal --ahead`. It downloads the segments that recovery will ask for next, so that the
//! calls for them only have to rename them. docs/SPOOL.md is its design.
//!
//! It answers nothing, and never that something is absent. What it could not do, the call for that segment does again.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, FsError};
use crate::limits::{
    AHEAD_TIME, FETCH_AHEAD_MAX_THREADS, FETCH_HELPER_LOOK_EVERY, FETCH_IDLE, FETCH_LISTED, FETCHED_BYTES, FETCHED_FILES,
    FETCHED_FREE_TIMES, FETCHED_MIN_FILES,
};
use crate::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use crate::postgres::control_file;
use crate::repo::{Facts, Fetched, Repository, SystemId};
use crate::repositories;
use crate::wal::ahead::workers::{Next, Shared, Work, worker_count};
use crate::wal::download::download;
use crate::wal::restore_call::is_in_recovery;
use crate::wal::spool::{FetchedFile, HelperKind, PlanWriter, Spool, SpoolId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Fetches ahead of a segment that was just served, until recovery or the archive ends, or something fails.
///
/// # Errors
/// What ended it early; only the plan says it.
pub fn run(config: &Config, name: &str, destination: &Path, deadline: Deadline) -> Result<(), Error> {
    let mut segment = SegmentName::parse(name).ok_or_else(|| Error::new(Kind::Usage, format!("{name:?} is no segment")))?;
    let Some(wal_directory) = destination.parent() else { return Ok(()) };
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    loop {
        let Some(spool_id) = spool.id() else { return Ok(()) };
        let Some(held) = spool.lock(HelperKind::Fetch) else { return Ok(()) };
        let mut heeded = None;
        let outcome = fetch_after(config, &spool, spool_id, segment, &mut heeded, deadline);
        if spool.id() != Some(spool_id) {
            return outcome;
        }
        spool.sweep_fetched(&|_| false);
        let why = outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string);
        spool.end_plan(HelperKind::Fetch, &why);
        drop(held);
        outcome?;
        // A call that came while we were ending took us for alive, and has started no helper.
        match spool.last_asked() {
            Some((WalFileName::Segment(asked), at)) if heeded.is_some_and(|heeded| heeded != at) && !deadline.is_over() => {
                segment = asked
            }
            _ => return Ok(()),
        }
    }
}

/// Fetches ahead of a segment. `heeded` becomes the moment of the last call that was taken into account.
fn fetch_after(
    config: &Config,
    spool: &Spool,
    spool_id: SpoolId,
    segment: SegmentName,
    heeded: &mut Option<u64>,
    deadline: Deadline,
) -> Result<(), Error> {
    let Some(here) = control_file::of_data_directory(Path::new("."), &deadline)? else { return Ok(()) };
    let size = here.wal_segment_size;
    let Some(number) = segment.number(size) else { return Ok(()) };
    let kept = (FETCHED_BYTES / size.bytes()).clamp(FETCHED_MIN_FILES, FETCHED_FILES);
    let position = Position { timeline: segment.timeline, number };
    let is_next = |file: &WalFileName| match file {
        WalFileName::Segment(name) => {
            name.number(size).is_some_and(|number| position.is_followed_by(name.timeline, number, kept))
        }
        _ => false,
    };
    // What an earlier helper left may serve.
    spool.sweep_fetched(&|file| is_next(file) && spool.fetched(file, here.system_id).is_some());
    // Before anything that takes time: a call that comes now had better wait than do the same. What is not there, or
    // here already, is taken out as soon as that is known.
    let next = (1..=kept).filter_map(|ahead| SegmentName::from_number(segment.timeline, number.checked_add(ahead)?, size));
    spool.write_plan(HelperKind::Fetch, &next.map(WalFileName::Segment).collect::<Vec<_>>()).map_err(local)?;
    let (mut sources, mut failure) = (Vec::new(), None);
    for repository in &config.repositories {
        let opened = repositories::open(repository, deadline)
            .and_then(|opened| opened.facts_of(&config.cluster, Some(here.system_id)).map(|facts| Source { opened, facts }));
        match opened {
            Ok(source) => sources.push(source),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // What another one has can be fetched all the same.
    if let (true, Some(error)) = (sources.is_empty(), failure) {
        return Err(error);
    }
    let queue = Queue { spool, size, kept, position, files: BTreeMap::new(), failure: None, is_over: false };
    let helper =
        FetchHelper { config, spool, spool_id, sources, size, kept, system_id: here.system_id, queue: Shared::new(queue) };
    let workers = worker_count(FETCH_AHEAD_MAX_THREADS, size.bytes());
    helper.queue.run(workers, |job| helper.fetch(job), || helper.steer(heeded, deadline))?;
    let failure = helper.queue.lock().failure.take();
    failure.map_or(Ok(()), |(_, error)| Err(error))
}

fn local(error: FsError) -> Error {
    Error::new(Kind::Config, error.to_string())
}

/// The segment that recovery was given last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    timeline: Timeline,
    number: u64,
}

impl Position {
    fn is_followed_by(self, timeline: Timeline, number: u64, within: u64) -> bool {
        timeline == self.timeline && number > self.number && number - self.number <= within
    }
}

/// How far a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is in the repository with this index.
    Waits(usize),
    /// A worker downloads it.
    Begun,
    /// It is in the spool.
    Fetched,
}

/// A segment to be downloaded.
#[derive(Debug, Clone, Copy)]
struct Job {
    timeline: Timeline,
    number: u64,
    /// Index of the repository.
    source: usize,
}

struct Queue<'a> {
    spool: &'a Spool,
    size: WalSegmentSize,
    /// How many segments are kept ahead.
    kept: u64,
    position: Position,
    /// Segments of the position's timeline, by number.
    files: BTreeMap<u64, Progress>,
    /// The lowest number that could not be fetched, and why: what is before it is still of use.
    failure: Option<(u64, Error)>,
    is_over: bool,
}

fn name(timeline: Timeline, number: u64, size: WalSegmentSize) -> Option<WalFileName> {
    SegmentName::from_number(timeline, number, size).map(WalFileName::Segment)
}

impl Queue<'_> {
    fn unfinished(&self) -> Vec<WalFileName> {
        let unfinished = self.files.iter().filter(|(_, progress)| **progress != Progress::Fetched);
        unfinished.filter_map(|(number, _)| name(self.position.timeline, *number, self.size)).collect()
    }

    /// Removes a segment from the spool.
    fn remove_file(&self, timeline: Timeline, number: u64) {
        if let Some(name) = name(timeline, number, self.size) {
            self.spool.forget_fetched(&name);
        }
    }

    /// Finds out how far recovery is. What vanished from the spool was served; what was served otherwise was noted.
    /// Says whether anything was asked for since the last time.
    fn follow(&mut self, heeded: &mut Option<u64>) -> bool {
        let mut moved = false;
        let Position { timeline, .. } = self.position;
        let is_gone = |number: &u64| {
            name(timeline, *number, self.size)
                .is_some_and(|name| fsio::stat_no_follow(&self.spool.fetched_path(&name)).is_ok_and(|s| s.is_none()))
        };
        let fetched: Vec<u64> = self.files.iter().filter(|(_, p)| **p == Progress::Fetched).map(|(n, _)| *n).collect();
        if let Some(last) = fetched.into_iter().filter(is_gone).max() {
            self.position.number = last.max(self.position.number);
            moved = true;
        }
        if let Some((WalFileName::Segment(asked), at)) = self.spool.last_asked()
            && *heeded != Some(at)
        {
            *heeded = Some(at);
            moved = true;
            if let Some(number) = asked.number(self.size) {
                if asked.timeline != timeline {
                    self.failure = None;
                    for number in std::mem::take(&mut self.files).into_keys() {
                        self.remove_file(timeline, number);
                    }
                }
                self.position = Position { timeline: asked.timeline, number };
            }
        }
        let Position { timeline, number: position } = self.position;
        let kept = self.kept;
        let passed: Vec<u64> = self.files.keys().copied().filter(|n| *n <= position || *n > position + kept).collect();
        for number in passed {
            self.files.remove(&number);
            self.remove_file(timeline, number);
        }
        moved
    }

    /// Takes in what comes next, as far as there is no gap.
    fn take_in(&mut self, listed: &Listed, system_id: SystemId) {
        let Position { timeline, number: position } = self.position;
        for number in position + 1..=position + self.kept {
            let Some(source) = listed.found.get(&number) else { break };
            if self.failure.as_ref().is_some_and(|(failed, _)| number >= *failed) {
                break;
            }
            let is_fetched =
                || name(timeline, number, self.size).is_some_and(|name| self.spool.fetched(&name, system_id).is_some());
            let progress = || if is_fetched() { Progress::Fetched } else { Progress::Waits(*source) };
            self.files.entry(number).or_insert_with(progress);
        }
    }
}

impl Work for Queue<'_> {
    type File = Job;
    type Done = ();

    /// The next one that recovery will ask for.
    fn take_next(&mut self) -> Next<Job> {
        if self.is_over {
            return Next::End;
        }
        let next = self.files.iter_mut().find_map(|(number, progress)| match *progress {
            Progress::Waits(source) => Some((*number, progress, source)),
            _ => None,
        });
        let Some((number, progress, source)) = next else { return Next::Wait };
        *progress = Progress::Begun;
        Next::File(Job { timeline: self.position.timeline, number, source })
    }

    fn finish(&mut self, Job { timeline, number, .. }: Job, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) if self.position.timeline == timeline && self.files.get(&number) == Some(&Progress::Begun) => {
                self.files.insert(number, Progress::Fetched);
            }
            // Recovery has gone elsewhere.
            Ok(()) => self.remove_file(timeline, number),
            Err(error) => {
                self.files.retain(|other, progress| *other < number || *progress == Progress::Fetched);
                if self.failure.as_ref().is_none_or(|(failed, _)| number < *failed) {
                    self.failure = Some((number, error));
                }
            }
        }
    }

    fn end(&mut self) {
        self.is_over = true;
    }
}

/// A repository that segments are downloaded from.
struct Source {
    opened: Repository,
    facts: Facts,
}

/// What is known to be in the repositories: the segments of a timeline in a range of numbers, and the index of a
/// repository.
struct Listed {
    timeline: Timeline,
    first: u64,
    last: u64,
    found: BTreeMap<u64, usize>,
}

struct FetchHelper<'a> {
    config: &'a Config,
    spool: &'a Spool,
    spool_id: SpoolId,
    sources: Vec<Source>,
    size: WalSegmentSize,
    /// How many segments are kept ahead.
    kept: u64,
    system_id: SystemId,
    queue: Shared<Queue<'a>>,
}

impl FetchHelper<'_> {
    /// Follows recovery and hands out work, until there is none.
    fn steer(&self, heeded: &mut Option<u64>, deadline: Deadline) -> Result<(), Error> {
        let mut plan = PlanWriter::new(self.spool, HelperKind::Fetch);
        let (began, mut asked_at) = (Instant::now(), Instant::now());
        let mut listed: Option<Listed> = None;
        loop {
            if self.spool.id() != Some(self.spool_id) || !is_in_recovery() || deadline.is_over() {
                return Ok(());
            }
            let position = {
                let mut queue = self.queue.lock();
                if queue.follow(heeded) {
                    asked_at = Instant::now();
                }
                queue.position
            };
            if began.elapsed() < AHEAD_TIME && self.has_room() {
                let last = position.number + self.kept;
                let is_known = |listed: &Listed| {
                    listed.timeline == position.timeline && listed.first <= position.number && listed.last >= last
                };
                let known = match listed.take().filter(is_known) {
                    Some(known) => known,
                    None => self.list(position)?,
                };
                self.queue.change(|queue| queue.take_in(&known, self.system_id));
                listed = Some(known);
            }
            let (unfinished, is_empty) = {
                let queue = self.queue.lock();
                (queue.unfinished(), queue.files.is_empty())
            };
            if is_empty || asked_at.elapsed() > FETCH_IDLE {
                return Ok(());
            }
            plan.update(unfinished);
            self.queue.wait(FETCH_HELPER_LOOK_EVERY);
        }
    }

    fn has_room(&self) -> bool {
        let free = fsio::available_bytes(&self.spool.path("fetched"));
        free.map_or(true, |free| free / FETCHED_FREE_TIMES >= self.kept * self.size.bytes())
    }

    /// Which of the next segments are there, in the first repository that has them.
    fn list(&self, position: Position) -> Result<Listed, Error> {
        let (first, last) = (position.number + 1, position.number + FETCH_LISTED);
        let mut found = BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            source.opened.visit_segments(
                &self.config.cluster,
                source.facts,
                position.timeline,
                (first, last),
                &mut |number, _| {
                    found.entry(number).or_insert(index);
                },
            )?;
        }
        // At the end of the archive the list is as long as it is true: what comes later is found by the next helper.
        Ok(Listed { timeline: position.timeline, first: position.number, last, found })
    }

    fn fetch(&self, Job { timeline, number, source }: Job) -> Result<(), Error> {
        let gone = || Error::new(Kind::Damaged, format!("segment {number} of timeline {timeline} is gone"));
        let (source, name) = self.sources.get(source).zip(name(timeline, number, self.size)).ok_or_else(gone)?;
        let path = self.spool.fetched_path(&name);
        let Fetched::Served(metadata) = download(&source.opened, &self.config.cluster, source.facts, name, &path)? else {
            return Err(gone());
        };
        let stat = fsio::stat_no_follow(&path).map_err(local)?.ok_or_else(gone)?;
        let repository = source.opened.location().to_owned();
        let fetched = FetchedFile { stat, system_id: self.system_id, blake3: metadata.plaintext_blake3, repository };
        self.spool.record_fetched(&name, &fetched).map_err(local)
    }
}
