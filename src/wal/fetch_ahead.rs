//! The fetch helper: `walvis fetch-wal --ahead`. It downloads the segments that recovery will ask for next, so that the calls for them
//! only have to rename them. docs/SPOOL.md is its design.
//!
//! It answers nothing: least of all that something is not there. What it could not do, the call for that segment does again.
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, FsError};
use crate::limits::{
    AHEAD_BYTES_IN_FLIGHT, AHEAD_MIN_THREADS, AHEAD_TIME, FETCH_AHEAD_MAX_THREADS, FETCH_IDLE, FETCH_LISTED, FETCHED_BYTES,
    FETCHED_FILES, FETCHED_MIN_FILES,
};
use crate::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use crate::postgres::control_file;
use crate::repo::{Facts, Fetched, Repository, SystemId};
use crate::repositories;
use crate::wal::fetch::{cluster, download};
use crate::wal::spool::{FetchedFile, HEARTBEAT, Side, Spool};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// So many times what is kept must be free where it is kept: a recovery needs the place more than we do.
const FREE_TIMES: u64 = 4;

/// Whether the server of a data directory is in archive recovery, or will be when it is started.
pub fn is_in_recovery(data_directory: &Path) -> bool {
    ["recovery.signal", "standby.signal"].iter().any(|name| fsio::exists(&data_directory.join(name)).unwrap_or(false))
}

/// Fetches ahead of a segment that was just served, until recovery or the archive ends, or something fails.
///
/// # Errors
/// What ended it early; nobody is told but the plan.
pub fn run(config: &Config, name: &str, destination: &Path, deadline: Deadline) -> Result<(), Error> {
    let mut segment = SegmentName::parse(name).ok_or_else(|| Error::new(Kind::Usage, format!("{name:?} is no segment")))?;
    let Some(wal_directory) = destination.parent() else { return Ok(()) };
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    loop {
        let Some(place) = spool.place() else { return Ok(()) };
        let Some(held) = spool.lock(Side::Fetch) else { return Ok(()) };
        let mut noted = None;
        let outcome = ahead(config, &spool, place, segment, &mut noted, deadline);
        if spool.place() != Some(place) {
            return outcome;
        }
        spool.sweep_fetched(&|_| false);
        spool.end_plan(Side::Fetch, &outcome.as_ref().err().map_or_else(|| "nothing is left".to_owned(), Error::to_string));
        drop(held);
        outcome?;
        // A call that came while we were ending took us for alive, and has started no helper.
        match spool.asked() {
            Some((WalFileName::Segment(asked), at)) if noted.is_some_and(|noted| noted != at) && !deadline.is_over() => {
                segment = asked
            }
            _ => return Ok(()),
        }
    }
}

/// Fetches ahead of a segment. `noted` becomes the moment of the last call that was heeded.
fn ahead(
    config: &Config,
    spool: &Spool,
    place: (u64, u64),
    segment: SegmentName,
    noted: &mut Option<u64>,
    deadline: Deadline,
) -> Result<(), Error> {
    let Some(here) = control_file::of_data_directory(Path::new("."), &deadline)? else { return Ok(()) };
    let size = here.wal_segment_size;
    let Some(number) = segment.number(size) else { return Ok(()) };
    let kept = (FETCHED_BYTES / size.bytes()).clamp(FETCHED_MIN_FILES, FETCHED_FILES);
    let position = Position { timeline: segment.timeline, number };
    let wanted = |file: &WalFileName| match file {
        WalFileName::Segment(name) => {
            name.number(size).is_some_and(|number| position.is_followed_by(name.timeline, number, kept))
        }
        _ => false,
    };
    // What an earlier helper left may serve.
    spool.sweep_fetched(&|file| wanted(file) && spool.fetched(file, here.system_id).is_some());
    // Before anything that takes time: a call that comes now had better wait than do the same. What is not there, or here already,
    // is taken out as soon as that is known.
    let next = (1..=kept).filter_map(|ahead| SegmentName::from_number(segment.timeline, number.checked_add(ahead)?, size));
    spool.write_plan(Side::Fetch, &next.map(|name| name.to_string()).collect::<Vec<_>>()).map_err(local)?;
    let (mut sources, mut failure) = (Vec::new(), None);
    for repository in &config.repositories {
        let opened = repositories::open(repository, deadline)
            .and_then(|opened| cluster(&opened, config, Some(here.system_id)).map(|facts| Source { opened, facts }));
        match opened {
            Ok(source) => sources.push(source),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // What another one has can be fetched all the same.
    if let (true, Some(error)) = (sources.is_empty(), failure) {
        return Err(error);
    }
    let state = State { position, files: BTreeMap::new(), failure: None, is_over: false };
    let run = Run {
        config,
        spool,
        place,
        sources,
        size,
        kept,
        here: here.system_id,
        state: Mutex::new(state),
        changed: Condvar::new(),
    };
    let wanted = available_parallelism().map_or(1, usize::from) * 2;
    let fit = usize::try_from(AHEAD_BYTES_IN_FLIGHT / size.bytes()).unwrap_or(usize::MAX);
    let threads = wanted.clamp(AHEAD_MIN_THREADS, FETCH_AHEAD_MAX_THREADS).min(fit).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            if let Err(e) = std::thread::Builder::new().spawn_scoped(scope, || run.work()) {
                run.end();
                return Err(Error::new(Kind::Unreachable, format!("cannot start a thread: {e}")));
            }
        }
        let steered = catch_unwind(AssertUnwindSafe(|| run.steer(noted, deadline)));
        run.end();
        steered.unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a thread panicked")))
    })?;
    run.lock().failure.take().map_or(Ok(()), |(_, error)| Err(error))
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
    Runs,
    /// In the spool.
    Here,
}

struct State {
    position: Position,
    /// Segments of the position's timeline, by number.
    files: BTreeMap<u64, Progress>,
    /// The lowest number that could not be fetched, and why: what is before it is still of use.
    failure: Option<(u64, Error)>,
    is_over: bool,
}

struct Source {
    opened: Repository,
    facts: Facts,
}

struct Run<'a> {
    config: &'a Config,
    spool: &'a Spool,
    place: (u64, u64),
    sources: Vec<Source>,
    size: WalSegmentSize,
    /// Segments ahead.
    kept: u64,
    here: SystemId,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is known to be in the repositories: the segments of a timeline in a range of numbers, and the index of a repository.
struct Listed {
    timeline: Timeline,
    first: u64,
    last: u64,
    found: BTreeMap<u64, usize>,
}

impl Run<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    fn name(&self, timeline: Timeline, number: u64) -> Option<WalFileName> {
        SegmentName::from_number(timeline, number, self.size).map(WalFileName::Segment)
    }

    /// Follows recovery and hands out work, until there is none.
    fn steer(&self, noted: &mut Option<u64>, deadline: Deadline) -> Result<(), Error> {
        let since = Instant::now();
        let (mut asked_at, mut said_at, mut said) = (Instant::now(), None::<Instant>, Vec::new());
        let mut listed: Option<Listed> = None;
        loop {
            if self.spool.place() != Some(self.place) || !is_in_recovery(Path::new(".")) || deadline.is_over() {
                return Ok(());
            }
            if self.follow(noted) {
                asked_at = Instant::now();
            }
            let position = self.lock().position;
            let has_room = || {
                fsio::available_bytes(&self.spool.path("fetched"))
                    .map_or(true, |free| free / FREE_TIMES >= self.kept * self.size.bytes())
            };
            if since.elapsed() < AHEAD_TIME && has_room() {
                let last = position.number + self.kept;
                let is_known = listed
                    .as_ref()
                    .is_some_and(|l| l.timeline == position.timeline && l.first <= position.number && l.last >= last);
                if !is_known {
                    listed = Some(self.list(position)?);
                }
                if let Some(listed) = &listed {
                    self.take(position, listed);
                }
            }
            let (unfinished, is_empty) = {
                let state = self.lock();
                let unfinished = state.files.iter().filter(|(_, progress)| **progress != Progress::Here);
                let names: Vec<String> =
                    unfinished.filter_map(|(number, _)| Some(self.name(position.timeline, *number)?.to_string())).collect();
                (names, state.files.is_empty())
            };
            if is_empty || asked_at.elapsed() > FETCH_IDLE {
                return Ok(());
            }
            if unfinished != said || said_at.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
                if let Err(error) = self.spool.write_plan(Side::Fetch, &unfinished) {
                    tracing::debug!(%error, "cannot write the plan");
                }
                (said, said_at) = (unfinished, Some(Instant::now()));
            }
            let state = self.lock();
            drop(self.changed.wait_timeout(state, Duration::from_millis(10)).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Finds out how far recovery is. What vanished from the spool was served; what was served otherwise was noted. Says whether
    /// anything was asked for since the last time.
    fn follow(&self, noted: &mut Option<u64>) -> bool {
        let mut moved = false;
        let mut state = self.lock();
        let Position { timeline, .. } = state.position;
        let is_gone = |number: &u64| {
            self.name(timeline, *number)
                .is_some_and(|name| fsio::stat_no_follow(&self.spool.fetched_path(&name)).is_ok_and(|s| s.is_none()))
        };
        let here: Vec<u64> = state.files.iter().filter(|(_, p)| **p == Progress::Here).map(|(n, _)| *n).collect();
        if let Some(last) = here.into_iter().filter(is_gone).max() {
            state.position.number = last.max(state.position.number);
            moved = true;
        }
        if let Some((WalFileName::Segment(name), at)) = self.spool.asked()
            && *noted != Some(at)
        {
            *noted = Some(at);
            moved = true;
            if let Some(number) = name.number(self.size) {
                let position = state.position;
                if name.timeline != position.timeline {
                    let others = std::mem::take(&mut state.files);
                    state.failure = None;
                    for number in others.into_keys() {
                        self.drop_file(position.timeline, number);
                    }
                }
                state.position = Position { timeline: name.timeline, number };
            }
        }
        let Position { timeline, number: position } = state.position;
        let kept = self.kept;
        let passed: Vec<u64> = state.files.keys().copied().filter(|n| *n <= position || *n > position + kept).collect();
        for number in passed {
            state.files.remove(&number);
            self.drop_file(timeline, number);
        }
        moved
    }

    fn drop_file(&self, timeline: Timeline, number: u64) {
        if let Some(name) = self.name(timeline, number) {
            self.spool.forget_fetched(&name);
        }
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

    /// Takes in what comes next, as far as there is no gap.
    fn take(&self, position: Position, listed: &Listed) {
        let mut state = self.lock();
        for number in position.number + 1..=position.number + self.kept {
            let Some(source) = listed.found.get(&number) else { break };
            if state.failure.as_ref().is_some_and(|(failed, _)| number >= *failed) {
                break;
            }
            let is_here =
                || self.name(position.timeline, number).is_some_and(|name| self.spool.fetched(&name, self.here).is_some());
            state.files.entry(number).or_insert_with(|| if is_here() { Progress::Here } else { Progress::Waits(*source) });
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Downloads one segment after the other, the next one first.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let (timeline, number, source) = loop {
                if state.is_over {
                    return;
                }
                let next = state.files.iter().find_map(|(number, progress)| match progress {
                    Progress::Waits(source) => Some((*number, *source)),
                    _ => None,
                });
                match next {
                    Some((number, source)) => break (state.position.timeline, number, source),
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.files.insert(number, Progress::Runs);
            drop(state);
            let bug = |_| Err(Error::new(Kind::Bug, "a thread panicked"));
            let outcome = catch_unwind(AssertUnwindSafe(|| self.fetch(timeline, number, source))).unwrap_or_else(bug);
            let mut state = self.lock();
            match outcome {
                Ok(()) if state.position.timeline == timeline && state.files.get(&number) == Some(&Progress::Runs) => {
                    state.files.insert(number, Progress::Here);
                }
                // Recovery has gone elsewhere.
                Ok(()) => self.drop_file(timeline, number),
                Err(error) => {
                    state.files.retain(|other, progress| *other < number || *progress == Progress::Here);
                    if state.failure.as_ref().is_none_or(|(failed, _)| number < *failed) {
                        state.failure = Some((number, error));
                    }
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    fn fetch(&self, timeline: Timeline, number: u64, source: usize) -> Result<(), Error> {
        let gone = || Error::new(Kind::Damaged, format!("segment {number} of timeline {timeline} is gone"));
        let (source, name) = self.sources.get(source).zip(self.name(timeline, number)).ok_or_else(gone)?;
        let path = self.spool.fetched_path(&name);
        let Fetched::Served(metadata) = download(&source.opened, self.config, source.facts, name, &path)? else {
            return Err(gone());
        };
        let stat = fsio::stat_no_follow(&path).map_err(local)?.ok_or_else(gone)?;
        let repository = source.opened.location().to_owned();
        let fetched = FetchedFile { stat, system_id: self.here, blake3: metadata.plaintext_blake3, repository };
        self.spool.record_fetched(&name, &fetched).map_err(local)
    }
}
