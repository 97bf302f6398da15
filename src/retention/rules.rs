//! Which backups the rules of a repository keep.
//!
//! Lives here: the rules that look at nothing but times, and count. Pure. May not live here: what the window needs
//! (`recovery::promised`), and what a kept backup needs ([`plan`](super::plan)).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;

use crate::config::Retention;
use crate::format::extent::BackupId;
use crate::pg::scan::PgTime;
use crate::report::expire::Reason;

/// A backup, as far as the rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The backup.
    pub id: BackupId,
    /// When it began.
    pub began: PgTime,
    /// Whether it can be restored.
    pub is_good: bool,
}

/// Which backups are kept, and by which rules. All backups of a cluster count together, whatever system identifier they
/// are of.
pub fn kept(rules: &Retention, backups: &[Candidate], now: PgTime) -> BTreeMap<BackupId, BTreeSet<Reason>> {
    let mut kept: BTreeMap<BackupId, BTreeSet<Reason>> = BTreeMap::new();
    let mut keep = |backup: &Candidate, reason| {
        kept.entry(backup.id).or_default().insert(reason);
    };
    let mut good: Vec<&Candidate> = backups.iter().filter(|backup| backup.is_good).collect();
    good.sort_by_key(|backup| Reverse((backup.began, backup.id)));

    good.iter().take(1).for_each(|backup| keep(backup, Reason::Newest));
    good.iter().take(number(rules.keep_last)).for_each(|backup| keep(backup, Reason::Last));
    if let Some(period) = rules.keep_within {
        let since = before(now, period);
        backups.iter().filter(|backup| backup.began >= since).for_each(|backup| keep(backup, Reason::Within));
    }
    let rules_of_dates: [DateRule; 4] = [
        (rules.keep_daily, Reason::Daily, day),
        (rules.keep_weekly, Reason::Weekly, week),
        (rules.keep_monthly, Reason::Monthly, month),
        (rules.keep_yearly, Reason::Yearly, year),
    ];
    for (count, reason, part_of) in rules_of_dates {
        let mut seen = BTreeSet::new();
        for backup in &good {
            if seen.len() >= number(count) {
                break;
            }
            // The newest comes first.
            let part = rules.zone.date(backup.began).map(part_of);
            if seen.insert(part) {
                keep(backup, reason);
            }
        }
    }
    kept
}

/// The moment a period before another one.
pub fn before(now: PgTime, period: Duration) -> PgTime {
    PgTime(now.0.saturating_sub(i64::try_from(period.as_micros()).unwrap_or(i64::MAX)))
}

/// The moment a period after another one.
pub fn after(moment: PgTime, period: Duration) -> PgTime {
    PgTime(moment.0.saturating_add(i64::try_from(period.as_micros()).unwrap_or(i64::MAX)))
}

fn number(count: Option<u32>) -> usize {
    count.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// A day, week, month or year: two are the same if these numbers are.
type Part = (i16, i16);
/// How many of the parts of time that count, why a backup of one is kept, and which part a date is in.
type DateRule = (Option<u32>, Reason, fn(Date) -> Part);

fn day(date: Date) -> Part {
    (date.year(), date.day_of_year())
}

/// Weeks are those of ISO 8601: from Monday.
fn week(date: Date) -> Part {
    let week = date.iso_week_date();
    (week.year(), week.week().into())
}

fn month(date: Date) -> Part {
    (date.year(), date.month().into())
}

fn year(date: Date) -> Part {
    (date.year(), 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pg::target::{Zone, parse_time};

    const HOUR: i64 = 3_600_000_000;

    fn id(number: u32) -> BackupId {
        BackupId::new(1_790_000_000, number).unwrap()
    }

    fn utc(text: &str) -> PgTime {
        parse_time(text, Some(&Zone::utc()), PgTime(0)).unwrap()
    }

    fn backup(number: u32, began: PgTime) -> Candidate {
        Candidate { id: id(number), began, is_good: true }
    }

    /// The numbers of those that a reason keeps.
    fn by(kept: &BTreeMap<BackupId, BTreeSet<Reason>>, reason: Reason) -> Vec<u32> {
        kept.iter().filter(|(_, reasons)| reasons.contains(&reason)).map(|(id, _)| id.random).collect()
    }

    /// For each day (week, …) from the newest one back: is there a good backup, and which is the last one? Days are
    /// counted in hours from a Monday, in a zone of a fixed offset.
    fn plain(backups: &[Candidate], count: u32, offset_h: i64, part_of: impl Fn(i64) -> i64) -> Vec<u32> {
        let part = |backup: &Candidate| part_of((backup.began.0 + offset_h * HOUR).div_euclid(HOUR));
        let mut parts: Vec<i64> = backups.iter().filter(|backup| backup.is_good).map(part).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut found = Vec::new();
        for wanted in parts.iter().rev().take(usize::try_from(count).unwrap()) {
            let own = backups.iter().filter(|backup| backup.is_good && part(backup) == *wanted);
            found.push(own.max_by_key(|backup| (backup.began, backup.id)).unwrap().id.random);
        }
        found.sort_unstable();
        found
    }

    proptest! {
        /// As plain tables say.
        #[test]
        fn rules_keep_what_a_plain_table_says(
            hours in prop::collection::vec((0..24 * 90_i64, prop::bool::weighted(0.8)), 0..60),
            count in 1..9_u32,
            offset_h in -11..12_i64,
            within_h in 1..24 * 60_u64,
        ) {
            // A Monday.
            let monday = utc("2026-06-01 00:00:00");
            let backups: Vec<Candidate> = (0..).zip(&hours).map(|(number, (hour, is_good))| {
                Candidate { id: id(number), began: PgTime(monday.0 + hour * HOUR), is_good: *is_good }
            }).collect();
            let now = PgTime(monday.0 + 24 * 90 * HOUR);
            let sign = if offset_h < 0 { '-' } else { '+' };
            let rules = Retention {
                keep_last: Some(count),
                keep_within: Some(Duration::from_secs(within_h * 3600)),
                keep_daily: Some(count),
                keep_weekly: Some(count),
                keep_monthly: Some(count),
                zone: Zone::parse(&format!("{sign}{:02}:00", offset_h.abs())).unwrap(),
                ..Retention::default()
            };
            let kept = kept(&rules, &backups, now);
            let hour_0 = monday.0 / HOUR;
            prop_assert_eq!(by(&kept, Reason::Daily), plain(&backups, count, offset_h, |hour| (hour - hour_0).div_euclid(24)));
            prop_assert_eq!(by(&kept, Reason::Weekly), plain(&backups, count, offset_h, |hour| (hour - hour_0).div_euclid(7 * 24)));
            // May (of what is before midnight in the zone), June of 30 days, July, August, September.
            let month = |hour: i64| match (hour - hour_0).div_euclid(24) {
                i64::MIN..0 => 5,
                0..30 => 6,
                30..61 => 7,
                61..92 => 8,
                _ => 9,
            };
            prop_assert_eq!(by(&kept, Reason::Monthly), plain(&backups, count, offset_h, month));
            prop_assert_eq!(by(&kept, Reason::Yearly), Vec::<u32>::new());
            let within: Vec<u32> = (0..).zip(&hours)
                .filter(|(_, (hour, _))| 24 * 90 - hour <= i64::try_from(within_h).unwrap())
                .map(|(number, _)| number).collect();
            prop_assert_eq!(by(&kept, Reason::Within), within, "good or not");
            let mut good: Vec<(i64, u32)> =
                (0..).zip(&hours).filter(|(_, (_, good))| *good).map(|(number, (hour, _))| (*hour, number)).collect();
            good.sort_unstable();
            let mut last: Vec<u32> = good.iter().rev().take(usize::try_from(count).unwrap()).map(|(_, number)| *number).collect();
            last.sort_unstable();
            prop_assert_eq!(by(&kept, Reason::Last), last);
            prop_assert_eq!(by(&kept, Reason::Newest), good.last().map(|(_, number)| *number).into_iter().collect::<Vec<_>>());
        }
    }

    /// Days begin where the zone says, summer or winter.
    #[test]
    fn days_weeks_and_years_are_those_of_the_zone() {
        let rules = Retention {
            keep_daily: Some(1),
            keep_weekly: Some(9),
            keep_yearly: Some(9),
            zone: Zone::parse("Europe/Amsterdam").unwrap(),
            ..Retention::default()
        };
        // In summer the day begins at 22:00 UTC, in winter at 23:00.
        for (evening, next, same_day) in [
            ("2026-07-01 21:59:59", "2026-07-01 22:00:00", false),
            ("2026-07-01 22:00:00", "2026-07-02 21:59:59", true),
            ("2026-01-01 22:59:59", "2026-01-01 23:00:00", false),
            ("2026-01-01 22:00:00", "2026-01-01 22:59:59", true),
        ] {
            let two = Retention { keep_daily: Some(2), ..rules.clone() };
            let kept = kept(&two, &[backup(1, utc(evening)), backup(2, utc(next))], utc(next));
            assert_eq!(by(&kept, Reason::Daily), if same_day { vec![2] } else { vec![1, 2] }, "{evening}, {next}");
        }
        // 2026-12-31 is a Thursday: its week goes on into January, its year does not.
        let around = [backup(1, utc("2026-12-31 12:00:00")), backup(2, utc("2027-01-03 12:00:00"))];
        let kept_around = kept(&rules, &around, utc("2027-01-05 00:00:00"));
        assert_eq!((by(&kept_around, Reason::Weekly), by(&kept_around, Reason::Yearly)), (vec![2], vec![1, 2]));
        // Sunday and Monday are of two weeks.
        let weekend = [backup(1, utc("2027-01-03 12:00:00")), backup(2, utc("2027-01-04 12:00:00"))];
        assert_eq!(by(&kept(&rules, &weekend, utc("2027-01-05 00:00:00")), Reason::Weekly), [1, 2]);
    }

    #[test]
    fn without_rules_only_the_newest_good_one_is_kept_and_a_bad_one_takes_no_place() {
        let bad = Candidate { is_good: false, ..backup(3, utc("2026-07-03 00:00:00")) };
        let backups = [backup(1, utc("2026-07-01 00:00:00")), backup(2, utc("2026-07-02 00:00:00")), bad];
        let now = utc("2026-07-04 00:00:00");
        let none = kept(&Retention::default(), &backups, now);
        assert_eq!(none.keys().map(|id| id.random).collect::<Vec<_>>(), [2]);
        assert_eq!(by(&none, Reason::Newest), [2]);
        let rules = Retention { keep_last: Some(2), keep_daily: Some(2), ..Retention::default() };
        let two = kept(&rules, &backups, now);
        assert_eq!((by(&two, Reason::Last), by(&two, Reason::Daily)), (vec![1, 2], vec![1, 2]));
        assert!(kept(&rules, &[bad], now).is_empty(), "what is not good is kept by its age or not at all");
        // Ends of what can be written as a time.
        let all_of_time = Retention { keep_within: Some(Duration::MAX), keep_daily: Some(1), ..Retention::default() };
        let ends = [backup(1, PgTime(i64::MIN)), backup(2, PgTime(i64::MAX))];
        assert_eq!(by(&kept(&all_of_time, &ends, PgTime(i64::MIN)), Reason::Within), [1, 2]);
    }
}
