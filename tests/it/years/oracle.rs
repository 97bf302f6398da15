//! What must stay and what may go, worked out from `docs/RETENTION.md` and from what is true of a history: plainly,
//! slowly, with everything in memory, and with nothing of `walvis::retention` or `walvis::recovery`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use walvis::format::extent::{BackupId, PackId};
use walvis::pg::{SegmentName, Timeline, WalFileName};
use walvis::repo::StoredName;

use super::history::{Backup, DAY, System, Truth, size};
use crate::support::wal::SEGMENT_BYTES;

/// The settings of a repository.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub keep_last: u32,
    /// Days.
    pub keep_within: Option<i64>,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    pub keep_yearly: u32,
    /// Days.
    pub recovery_window: Option<i64>,
    pub zone: Option<&'static str>,
}

/// An object that can go, of one system identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Segment(u64, u32, u64),
    /// A `.partial` or `.backup` file.
    File(u64, String),
    Pack(u64, PackId),
    Manifest(u64, BackupId),
}

impl Object {
    /// A WAL file; histories never go.
    pub fn wal(system: u64, file: &StoredName) -> Option<Self> {
        match file.file {
            WalFileName::Segment(name) => Some(Self::Segment(system, name.timeline.0, name.number(size())?)),
            WalFileName::History(_) => None,
            WalFileName::Partial(_) | WalFileName::Backup(..) => Some(Self::File(system, file.to_string())),
        }
    }

    pub fn key(&self) -> String {
        match self {
            Self::Segment(system, timeline, number) => {
                let name = SegmentName::from_number(Timeline(*timeline), *number, size()).unwrap();
                format!("clusters/main/{system}/wal/{timeline:08X}/{:08X}/{name}", name.log)
            }
            Self::File(system, name) => format!("clusters/main/{system}/wal/{}/{}/{name}", &name[..8], &name[8..16]),
            Self::Pack(system, pack) => format!("clusters/main/{system}/packs/{pack}"),
            Self::Manifest(system, backup) => format!("clusters/main/{system}/backups/{backup}"),
        }
    }
}

impl Object {
    /// The nodes of the catalog that are over it.
    pub fn nodes(&self) -> Vec<String> {
        let Self::Segment(system, timeline, number) = self else { return Vec::new() };
        let node = |level: u32| {
            let first = number >> (4 * level) << (4 * level);
            format!("clusters/main/{system}/index/{timeline:08X}/{level}/{:012x}/{first:016x}", first >> 16)
        };
        (1..5).map(node).collect()
    }
}

/// What is said of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stays,
    Goes,
    /// The document leaves it open: the copy that a parent has of the segment in which it was left, WAL to which no
    /// backup leads.
    Open,
}

/// Until when each backup is pinned; `None` for ever.
pub type Pins = BTreeMap<BackupId, Option<i64>>;

/// What is said of all.
#[derive(Debug, Default)]
pub struct Verdict {
    pub fates: BTreeMap<Object, Fate>,
    /// Which rule keeps a backup.
    pub kept: BTreeMap<BackupId, String>,
    /// The timelines on which the window is promised.
    pub alive: BTreeSet<(u64, u32)>,
    /// The first segment, stored or not, from which on something is promised on a timeline.
    leads_from: BTreeMap<(u64, u32), u64>,
    /// Timelines on paths of which nothing is promised, since nothing leads to them: what is there may stay.
    may_stay: BTreeSet<(u64, u32)>,
}

impl Verdict {
    pub fn of(&self, object: &Object) -> Fate {
        self.fates.get(object).copied().unwrap_or(Fate::Stays)
    }

    /// The backups that are kept, in one line.
    pub fn told(&self) -> String {
        self.kept.iter().map(|(id, why)| format!("{id} {why}, ")).collect()
    }

    /// What stays for one reason stays, whatever else is said.
    fn say(&mut self, object: &Object, fate: Fate) {
        if let Some(known) = self.fates.get_mut(object).filter(|known| **known != Fate::Stays) {
            *known = fate;
        }
    }
}

/// All that a history has stored by then.
pub fn stored(truth: &Truth, now: i64) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for system in &truth.systems {
        for (timeline, line) in &system.timelines {
            let by_now = line.segments.iter().filter(|(_, at)| **at <= now);
            found.extend(by_now.map(|(number, _)| Object::Segment(system.id, *timeline, *number)));
        }
        let by_now = system.files.iter().filter(|(.., at)| *at <= now);
        found.extend(by_now.map(|(name, ..)| Object::File(system.id, name.clone())));
        for backup in system.backups.iter().filter(|backup| backup.stored <= now) {
            found.insert(Object::Manifest(system.id, backup.id));
            found.extend(backup.packs.iter().map(|pack| Object::Pack(system.id, *pack)));
        }
        found.extend(system.left_packs.iter().filter(|p| p.backup.started_unix_s <= now).map(|p| Object::Pack(system.id, *p)));
        for lost in &system.lost_packs {
            found.remove(&Object::Pack(system.id, *lost));
        }
    }
    found
}

/// The verdict about what is present.
pub fn judge(truth: &Truth, present: &BTreeSet<Object>, policy: &Policy, pins: &Pins, now: i64) -> Verdict {
    let mut verdict = Verdict::default();
    let systems: Vec<Judged<'_>> =
        truth.systems.iter().filter(|s| s.since <= now).map(|system| Judged { system, present, now }).collect();
    let there: Vec<(&Judged<'_>, &Backup)> =
        systems.iter().flat_map(|judged| judged.backups().map(move |backup| (judged, backup))).collect();
    if there.is_empty() {
        return verdict;
    }
    verdict.kept = kept_by_rules(&there, policy, pins, now);
    for object in present {
        verdict.fates.insert(object.clone(), Fate::Goes);
    }
    // Until the current one has a good backup, what leads to the present is of the one before.
    let mut leads_to_present = true;
    for judged in systems.iter().rev() {
        judged.window(policy.recovery_window, leads_to_present, &mut verdict);
        leads_to_present &= !judged.backups().any(|backup| judged.is_good(backup));
    }
    for (judged, backup) in &there {
        if verdict.kept.contains_key(&backup.id) {
            judged.keep(backup, Fate::Stays, &mut verdict);
        }
    }
    for judged in &systems {
        // They may be of a backup that is under way.
        for pack in judged.system.left_packs.iter().filter(|pack| now - pack.backup.started_unix_s < 2 * DAY) {
            verdict.say(&Object::Pack(judged.system.id, *pack), Fate::Open);
        }
        judged.files(&mut verdict);
    }
    verdict
}

/// Which backups the rules that are about backups keep, and the first of them that does.
fn kept_by_rules(there: &[(&Judged<'_>, &Backup)], policy: &Policy, pins: &Pins, now: i64) -> BTreeMap<BackupId, String> {
    let mut kept: BTreeMap<BackupId, String> = BTreeMap::new();
    let mut keep = |id: BackupId, why: &str| {
        kept.entry(id).or_insert_with(|| why.to_owned());
    };
    let mut good: Vec<&Backup> = there.iter().filter(|(judged, backup)| judged.is_good(backup)).map(|(_, b)| *b).collect();
    good.sort_by_key(|backup| std::cmp::Reverse((time_of(backup), backup.id)));
    for (rank, backup) in good.iter().enumerate() {
        if rank == 0 || rank < policy.keep_last as usize {
            keep(backup.id, "last");
        }
    }
    for (_, backup) in there {
        if policy.keep_within.is_some_and(|days| time_of(backup) >= now - days * DAY) {
            keep(backup.id, "within");
        }
        if pins.get(&backup.id).is_some_and(|until| until.is_none_or(|until| until > now)) {
            keep(backup.id, "pin");
        }
    }
    let zone = policy.zone.map_or(TimeZone::UTC, |name| TimeZone::get(name).unwrap());
    let date = |backup: &Backup| Timestamp::from_second(time_of(backup)).unwrap().to_zoned(zone.clone()).date();
    type Period<'a> = (u32, &'a str, &'a dyn Fn(&Backup) -> (i16, i16));
    let day = |backup: &Backup| (date(backup).year(), date(backup).day_of_year());
    let week = |backup: &Backup| (date(backup).iso_week_date().year(), i16::from(date(backup).iso_week_date().week()));
    let month = |backup: &Backup| (date(backup).year(), i16::from(date(backup).month()));
    let year = |backup: &Backup| (date(backup).year(), 0);
    let periods: [Period<'_>; 4] = [
        (policy.keep_daily, "daily", &day),
        (policy.keep_weekly, "weekly", &week),
        (policy.keep_monthly, "monthly", &month),
        (policy.keep_yearly, "yearly", &year),
    ];
    for (count, why, period) in periods {
        let mut seen = BTreeSet::new();
        for backup in &good {
            // The newest of its period comes first.
            if seen.len() < count as usize && seen.insert(period(backup)) {
                keep(backup.id, why);
            }
        }
    }
    kept
}

/// When it began; a clock that was ahead does not make it younger.
fn time_of(backup: &Backup) -> i64 {
    backup.began.min(backup.stored)
}

/// A system identifier, and what is present of it.
struct Judged<'a> {
    system: &'a System,
    present: &'a BTreeSet<Object>,
    now: i64,
}

/// The path to a timeline: timelines with where each begins and is left.
type Legs = Vec<(u32, u64, u64)>;

impl<'a> Judged<'a> {
    fn backups(&self) -> impl Iterator<Item = &'a Backup> {
        let (id, present) = (self.system.id, self.present);
        self.system.backups.iter().filter(move |backup| present.contains(&Object::Manifest(id, backup.id)))
    }

    fn has(&self, timeline: u32, number: u64) -> bool {
        self.present.contains(&Object::Segment(self.system.id, timeline, number))
    }

    /// Whether a `.partial` or `.backup` file of a timeline was stored since then.
    fn has_file_since(&self, timeline: u32, unix_s: i64) -> bool {
        let of_it = self.system.files.iter().filter(|(_, of, _, at)| *of == timeline && (unix_s..=self.now).contains(at));
        of_it.map(|(name, ..)| Object::File(self.system.id, name.clone())).any(|file| self.present.contains(&file))
    }

    fn is_good(&self, backup: &Backup) -> bool {
        let packs = backup.packs.iter().all(|pack| self.present.contains(&Object::Pack(self.system.id, *pack)));
        packs && segments_of(backup).all(|number| self.has(backup.timeline, number))
    }

    /// A backup with all that it needs.
    fn keep(&self, backup: &Backup, fate: Fate, verdict: &mut Verdict) {
        let id = self.system.id;
        let packs = backup.packs.iter().map(|pack| Object::Pack(id, *pack));
        let wal = segments_of(backup).map(|number| Object::Segment(id, backup.timeline, number));
        for object in [Object::Manifest(id, backup.id)].into_iter().chain(packs).chain(wal) {
            verdict.say(&object, fate);
        }
    }

    fn legs(&self, timeline: u32) -> Legs {
        let (mut legs, mut of, mut end) = (Legs::new(), timeline, u64::MAX);
        loop {
            let parent = self.system.timelines[&of].parent;
            legs.insert(0, (of, parent.map_or(0, |(_, fork)| fork), end));
            match parent {
                Some((parent, fork)) => (of, end) = (parent, fork),
                None => return legs,
            }
        }
    }

    /// The stretches of a path: of each the numbers of its segments, and which timeline stands for each.
    fn stretches(&self, legs: &Legs) -> Vec<BTreeMap<u64, u32>> {
        let numbers = legs.iter().filter_map(|(timeline, ..)| {
            let segments = &self.system.timelines[timeline].segments;
            Some((*segments.keys().next()?, *segments.keys().next_back()?))
        });
        let (first, last) = numbers.fold((u64::MAX, 0), |(first, last), (a, b)| (first.min(a), last.max(b)));
        let mut found: Vec<BTreeMap<u64, u32>> = Vec::new();
        let mut goes_on = false;
        for number in first..=last {
            let covers =
                |(_, begin, end): &&(u32, u64, u64)| (begin / SEGMENT_BYTES..=(end - 1) / SEGMENT_BYTES).contains(&number);
            let stands = legs.iter().rev().filter(covers).find(|(timeline, ..)| self.has(*timeline, number));
            let Some((timeline, _, end)) = stands else {
                goes_on = false;
                continue;
            };
            if !goes_on {
                found.push(BTreeMap::new());
            }
            found.last_mut().unwrap().insert(number, *timeline);
            // A parent's last segment leads no further.
            goes_on = *end >= (number + 1) * SEGMENT_BYTES;
        }
        found
    }

    /// Ends of transactions on a path, in the order of the log, with the stretch that each is in.
    fn ends(&self, legs: &Legs, stretches: &[BTreeMap<u64, u32>]) -> Vec<(usize, u64, i64)> {
        let mut found = Vec::new();
        for (leg, (timeline, begin, end)) in legs.iter().enumerate() {
            // A later timeline has a copy of what the segment in which it began has of this one.
            let has_it = |by: &u32| legs.iter().skip(leg).any(|(other, ..)| other == by);
            for (lsn, time) in &self.system.timelines[timeline].ends {
                let inside = begin <= lsn && lsn < end;
                let is_in = |stretch: &BTreeMap<u64, u32>| stretch.get(&(lsn / SEGMENT_BYTES)).is_some_and(has_it);
                let stretch = stretches.iter().position(is_in);
                found.extend(stretch.filter(|_| inside).map(|stretch| (stretch, *lsn, *time)));
            }
        }
        found
    }

    /// What the window needs.
    fn window(&self, days: Option<i64>, leads_to_present: bool, verdict: &mut Verdict) {
        let from_unix_s = self.now - days.unwrap_or_default() * DAY;
        let from = from_unix_s * 1_000_000;
        let default = if leads_to_present { self.default_timeline() } else { None };
        for (timeline, line) in &self.system.timelines {
            let legs = self.legs(*timeline);
            let stretches = self.stretches(&legs);
            let ends = self.ends(&legs, &stretches);
            let begin = legs.last().unwrap().1;
            let has_own = line.segments.iter().any(|(number, at)| *at <= self.now && self.has(*timeline, *number));
            let ended = ends.iter().any(|(_, lsn, time)| *lsn >= begin && *time > from);
            let stored = line.segments.iter().any(|(n, at)| (from_unix_s..=self.now).contains(at) && self.has(*timeline, *n));
            let is_alive = days.is_some() && (has_own && (ended || stored) || self.has_file_since(*timeline, from_unix_s));
            if !is_alive && default != Some(*timeline) {
                continue;
            }
            verdict.alive.insert((self.system.id, *timeline));
            let on_path = |backup: &&Backup| {
                legs.iter().any(|(leg, _, end)| *leg == backup.timeline && backup.start < *end && backup.stop <= *end)
            };
            let good: Vec<&Backup> = self.backups().filter(on_path).filter(|backup| self.is_good(backup)).collect();
            let stretch_of = |lsn: u64| stretches.iter().position(|stretch| stretch.contains_key(&(lsn / SEGMENT_BYTES)));
            let first_in = |stretch: usize| {
                good.iter().filter(|backup| stretch_of(backup.start) == Some(stretch)).min_by_key(|backup| backup.stop).copied()
            };
            let whole = ends.iter().find(|(.., time)| *time > from);
            let mut needed: Vec<&Backup> = Vec::new();
            match whole {
                // Nothing is later: what leads to the present.
                None => needed.extend(good.iter().max_by_key(|backup| backup.stop)),
                Some((first_stretch, first_lsn, _)) => {
                    let reaches = |backup: &&&Backup| {
                        let own = stretch_of(backup.start);
                        let of_own = |(stretch, ..): &&(usize, u64, i64)| Some(*stretch) == own;
                        let stop = ends.iter().filter(of_own).find(|(_, lsn, time)| *lsn >= backup.start && *time > from);
                        let before = ends.iter().filter(of_own).rfind(|(_, lsn, _)| *lsn < backup.start);
                        // Also when nothing is there any more before the segment that it begins in.
                        let kept_from = backup.start / SEGMENT_BYTES * SEGMENT_BYTES;
                        let shows = |(_, lsn, time): &(usize, u64, i64)| {
                            (kept_from..stop.map_or(0, |(_, lsn, _)| *lsn)).contains(lsn) && *time <= from
                        };
                        stop.is_some_and(|(_, lsn, _)| {
                            let is_quiet = backup.began * 1_000_000 <= from && before.is_none_or(|(.., time)| *time <= from);
                            let is_first = lsn == first_lsn && ends.iter().filter(of_own).any(shows);
                            *lsn >= backup.stop && (is_first || is_quiet)
                        })
                    };
                    let newest = good.iter().filter(reaches).max_by_key(|backup| backup.stop).copied();
                    // What cannot be reached any more is not promised: what can begins with the first backup.
                    needed.extend(newest.or_else(|| first_in(*first_stretch)));
                    for stretch in first_stretch + 1..stretches.len() {
                        needed.extend(first_in(stretch));
                    }
                }
            }
            if needed.is_empty() {
                // Nothing of the window can be restored. What comes nearest to it may stay.
                for backup in &good {
                    self.keep(backup, Fate::Open, verdict);
                }
            }
            let why = format!("window on timeline {timeline}");
            for backup in &needed {
                verdict.kept.entry(backup.id).or_insert_with(|| why.clone());
            }
            let start = needed.iter().map(|backup| backup.start).min();
            self.keep_wal(&legs, &stretches, start, verdict);
        }
    }

    /// All WAL of a path from there on; nothing is said of it where no backup leads.
    fn keep_wal(&self, legs: &Legs, stretches: &[BTreeMap<u64, u32>], start: Option<u64>, verdict: &mut Verdict) {
        for (timeline, begin, end) in legs {
            let last = (end - 1) / SEGMENT_BYTES;
            if start.is_none() {
                verdict.may_stay.insert((self.system.id, *timeline));
            }
            if let Some(start) = start.filter(|start| start < end) {
                let first = start.max(*begin) / SEGMENT_BYTES;
                let known = verdict.leads_from.entry((self.system.id, *timeline)).or_insert(first);
                *known = first.min(*known);
            }
            for number in self.system.timelines[timeline].segments.keys().filter(|n| (begin / SEGMENT_BYTES..=last).contains(n)) {
                let stands = stretches.iter().any(|stretch| stretch.get(number) == Some(timeline));
                let fate = match start {
                    Some(start) if *number >= start / SEGMENT_BYTES && stands => Fate::Stays,
                    Some(start) if *number < start / SEGMENT_BYTES => continue,
                    _ => Fate::Open,
                };
                verdict.say(&Object::Segment(self.system.id, *timeline, *number), fate);
            }
        }
    }

    /// The one whose last transaction is newest.
    fn default_timeline(&self) -> Option<u32> {
        let last = |timeline: &u32| {
            let legs = self.legs(*timeline);
            let stretches = self.stretches(&legs);
            self.ends(&legs, &stretches).last().map(|(.., time)| *time)
        };
        self.system.timelines.keys().copied().max_by_key(|timeline| (last(timeline), *timeline))
    }

    /// `.partial` and `.backup` files below the first segment that stays on their timeline.
    fn files(&self, verdict: &mut Verdict) {
        for (name, timeline, number, _) in &self.system.files {
            let object = Object::File(self.system.id, name.clone());
            if !verdict.fates.contains_key(&object) {
                continue;
            }
            let first = |fates: &[Fate]| {
                let of_line = |other: &&u64| {
                    let segment = Object::Segment(self.system.id, *timeline, **other);
                    verdict.fates.get(&segment).is_some_and(|fate| fates.contains(fate))
                };
                self.system.timelines[timeline].segments.keys().find(of_line).copied()
            };
            // Also where not one segment was stored of the timeline, because it was left within the one it began in.
            let is_on_the_way = verdict.leads_from.get(&(self.system.id, *timeline)).is_some_and(|first| first <= number);
            let fate = match (first(&[Fate::Stays]), first(&[Fate::Stays, Fate::Open])) {
                _ if is_on_the_way => Fate::Stays,
                (Some(first), _) if first <= *number => Fate::Stays,
                (_, Some(first)) if first <= *number => Fate::Open,
                _ if verdict.may_stay.contains(&(self.system.id, *timeline)) => Fate::Open,
                // The last segment of a timeline is a `.partial` of which no segment is stored.
                (_, Some(_)) | (_, None) => Fate::Goes,
            };
            verdict.fates.insert(object, fate);
        }
    }
}

/// The numbers of the segments between start and stop.
pub fn segments_of(backup: &Backup) -> std::ops::RangeInclusive<u64> {
    backup.start / SEGMENT_BYTES..=(backup.stop - 1) / SEGMENT_BYTES
}
