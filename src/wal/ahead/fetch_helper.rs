//! The fetch helper: `walvis fetch-wal --ahead`. It downloads the segments that recovery will ask for next, so that the
//! calls for them only have to rename them. docs/SPOOL.md is its design.
//!
//! It answers nothing, and never that something is absent. What it could not do, the call for that segment does again.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, Became, Change, Changes, FsError, Names, Watch};
use crate::limits::{
    AHEAD_TIME, FETCH_AHEAD_MAX_THREADS, FETCH_IDLE, FETCH_LISTED, FETCHED_BYTES, FETCHED_FILES, FETCHED_FREE_TIMES,
    FETCHED_MIN_FILES, HELPER_LOOKS_EVERY, NEAR_FILES,
};
use crate::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use crate::postgres::control_file;
use crate::repo::{Facts, Fetched, Repository, SystemId};
use crate::repositories;
use crate::wal::ahead::looks::{Look, Looks};
use crate::wal::ahead::workers::{Next, Shared, Work, worker_count};
use crate::wal::download::download_if;
use crate::wal::restore_call::{SIGNAL_FILES, is_in_recovery};
use crate::wal::spool::{FetchedFile, Held, HelperKind, PlanWriter, Spool};
use std::collections::{BTreeMap, BTreeSet};
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
        let Some(held) = spool.lock(HelperKind::Fetch) else { return Ok(()) };
        let mut heeded = None;
        let outcome = fetch_after(config, &spool, &held, segment, &mut heeded, deadline);
        if !spool.is_held(&held) {
            return outcome;
        }
        spool.sweep_fetched(&|_| false);
        let why = outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string);
        spool.end_plan(&held, &why);
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
    held: &Held,
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
    // Before the first look at anything: what changes afterwards is told.
    let watch = watch(spool);
    // What an earlier helper left may serve.
    spool.sweep_fetched(&|file| is_next(file) && spool.fetched(file, here.system_id).is_some());
    // Before anything that takes time: a call that comes now had better wait than do the same. What is not there, or
    // here already, is taken out as soon as that is known.
    let next = (1..=kept).filter_map(|ahead| SegmentName::from_number(segment.timeline, number.checked_add(ahead)?, size));
    spool.write_plan(held, &next.map(WalFileName::Segment).collect::<Vec<_>>()).map_err(local)?;
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
        FetchHelper { config, spool, held, sources, size, kept, system_id: here.system_id, queue: Shared::new(queue, watch) };
    // What is in flight is on the disk, within what may be kept there, and not in memory.
    let workers = worker_count(FETCH_AHEAD_MAX_THREADS, kept);
    helper.queue.run(workers, |job| helper.fetch(job), || helper.steer(heeded, deadline))?;
    let failure = helper.queue.lock().failure.take();
    failure.map_or(Ok(()), |(_, error)| Err(error))
}

fn local(error: FsError) -> Error {
    Error::new(Kind::Config, error.to_string())
}

/// The directories that are watched, by their place.
const SPOOL: usize = 0;
const FETCHED: usize = 1;
const DATA: usize = 2;

/// Tells of what is served, asked for and taken away, and of the end of recovery.
fn watch(spool: &Spool) -> Option<Watch> {
    Watch::on(&[
        (&spool.path(""), Names::All),
        (&spool.path("fetched"), Names::Going),
        (Path::new("."), Names::Going),
        (spool.wal_directory(), Names::None),
    ])
}

/// Whether a change says something to a fetch helper. What it writes and renames itself does not.
fn concerns(change: &Change) -> bool {
    let is = |name: &str| change.name == name;
    match change.directory {
        SPOOL => {
            is(Spool::ASKED) || change.became != Became::There && (is("fetched") || is(&Spool::lock_name(HelperKind::Fetch)))
        }
        FETCHED => fetched_segment(change).is_some(),
        DATA => SIGNAL_FILES.iter().any(|name| is(name)) || is("pg_wal"),
        _ => true,
    }
}

/// The fetched segment of which a change tells, be it of the segment or of its record.
fn fetched_segment(change: &Change) -> Option<SegmentName> {
    let name = change.name.to_str().filter(|_| change.directory == FETCHED)?;
    SegmentName::parse(name.strip_suffix(".ok").unwrap_or(name))
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

    /// The fetched segments that are not in the spool any more: those among `told`, or all.
    fn gone(&self, told: Option<&BTreeSet<u64>>) -> BTreeSet<u64> {
        let Position { timeline, .. } = self.position;
        let is_gone = |number: &u64| {
            name(timeline, *number, self.size)
                .is_some_and(|name| fsio::stat_no_follow(&self.spool.fetched_path(&name)).is_ok_and(|s| s.is_none()))
        };
        let fetched = self.files.iter().filter(|(_, progress)| **progress == Progress::Fetched).map(|(number, _)| *number);
        fetched.filter(|number| told.is_none_or(|told| told.contains(number))).filter(is_gone).collect()
    }

    /// Finds out how far recovery is. What was served vanished from the spool; what was served otherwise was noted.
    /// Says whether anything was asked for since the last time.
    fn follow(&mut self, served: &BTreeSet<u64>, asked: Option<(WalFileName, u64)>, heeded: &mut Option<u64>) -> bool {
        let mut moved = false;
        let Position { timeline, .. } = self.position;
        if let Some(last) = served.last() {
            self.position.number = self.position.number.max(*last);
            moved = true;
        }
        if let Some((WalFileName::Segment(asked), at)) = asked
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

    /// Takes in what comes next, as far as there is no gap. Says whether anything of it has to be downloaded.
    fn take_in(&mut self, listed: &Listed, system_id: SystemId) -> bool {
        let mut has_more = false;
        let Position { timeline, number: position } = self.position;
        for number in position + 1..=position + self.kept {
            let Some(source) = listed.found.get(&number) else { break };
            if self.failure.as_ref().is_some_and(|(failed, _)| number >= *failed) {
                break;
            }
            let is_fetched =
                || name(timeline, number, self.size).is_some_and(|name| self.spool.fetched(&name, system_id).is_some());
            self.files.entry(number).or_insert_with(|| {
                if is_fetched() {
                    return Progress::Fetched;
                }
                has_more = true;
                Progress::Waits(*source)
            });
        }
        has_more
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
    held: &'a Held,
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
        let mut plan = PlanWriter::new(self.spool, self.held);
        let (began, mut asked_at) = (Instant::now(), Instant::now());
        let mut listed: Option<Listed> = None;
        let mut looks = Looks::new(self.queue.is_watched());
        let mut changes = Changes::unknown();
        loop {
            if !self.spool.is_held(self.held) || !is_in_recovery() || deadline.is_over() {
                return Ok(());
            }
            let Some(moved) = self.follow(&changes, &mut looks, heeded) else {
                self.held.give_up();
                return Ok(());
            };
            if moved {
                asked_at = Instant::now();
            }
            let position = self.queue.lock().position;
            if began.elapsed() < AHEAD_TIME && self.has_room() {
                let last = position.number + self.kept;
                let is_known = |listed: &Listed| {
                    listed.timeline == position.timeline && listed.first <= position.number && listed.last >= last
                };
                let known = match listed.take().filter(is_known) {
                    Some(known) => known,
                    None => self.list(position)?,
                };
                self.queue.change_if(|queue| queue.take_in(&known, self.system_id));
                listed = Some(known);
            }
            let (unfinished, is_empty, has_failed) = {
                let queue = self.queue.lock();
                (queue.unfinished(), queue.files.is_empty(), queue.failure.is_some())
            };
            if is_empty || asked_at.elapsed() >= FETCH_IDLE {
                return Ok(());
            }
            let is_near = |file: &WalFileName| match file {
                WalFileName::Segment(name) => name.number(self.size).is_some_and(|n| n <= position.number + NEAR_FILES as u64),
                _ => true,
            };
            plan.update(unfinished, is_near, has_failed);
            let ends = FETCH_IDLE.saturating_sub(asked_at.elapsed()).min(deadline.remaining());
            let pause = plan.next_heartbeat().map_or(ends, |heartbeat| ends.min(heartbeat)).min(looks.pause());
            changes = self.queue.wait(pause, concerns);
        }
    }

    /// Takes in what was served and asked for. Says whether anything was; `None` where somebody takes the spool away:
    /// what is served is renamed, and nobody else but us removes anything there.
    fn follow(&self, changes: &Changes, looks: &mut Looks, heeded: &mut Option<u64>) -> Option<bool> {
        let look = looks.next(changes);
        let told = |became: fn(Became) -> bool| -> BTreeSet<u64> {
            let names = changes.names.iter().filter(|change| became(change.became)).filter_map(fetched_segment);
            names.filter_map(|name| name.number(self.size)).collect()
        };
        let (all, renamed) = (told(|_| true), told(|became| became == Became::Renamed));
        let gone = self.queue.lock().gone((look == Look::AtChanges).then_some(&all));
        let asked_for = |change: &Change| change.is_of(SPOOL, Spool::ASKED);
        let asked = if look != Look::AtChanges || changes.names.iter().any(asked_for) { self.spool.last_asked() } else { None };
        if !looks.is_told() || changes.is_partial {
            // Whether it was served cannot be told. Who removes the spool is done with it soon, and that shows.
            if !gone.is_empty() {
                std::thread::sleep(HELPER_LOOKS_EVERY);
            }
            if !self.spool.is_held(self.held) {
                return None;
            }
        } else if gone.iter().any(|number| all.contains(number) && !renamed.contains(number)) {
            return None;
        }
        let is_untold = |moved: bool| moved && look == Look::ToBeSure && changes.is_empty();
        let moved = self.queue.lock().follow(&gone, asked, heeded);
        if is_untold(moved) {
            looks.found_untold();
        }
        Some(moved)
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
        let is_held = || self.spool.is_held(self.held);
        if !is_held() {
            return Err(gone());
        }
        let fetched = download_if(&source.opened, &self.config.cluster, source.facts, name, &path, is_held)?;
        let Fetched::Served(metadata) = fetched else { return Err(gone()) };
        let stat = fsio::stat_no_follow(&path).map_err(local)?.ok_or_else(gone)?;
        let repository = source.opened.location().to_owned();
        let fetched = FetchedFile { stat, system_id: self.system_id, blake3: metadata.plaintext_blake3, repository };
        self.spool.record_fetched(self.held, &name, &fetched).map_err(|error| {
            // Without a record it is of no use, and in the way of whoever removes the spool.
            self.spool.forget_fetched(&name);
            local(error)
        })
    }
}
