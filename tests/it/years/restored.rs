//! Weeks of a real server under rules of retention: its clock, that of the program and that of the store are set on
//! together, and `expire --confirm` runs every other day. What the rules promise is restored with a real server, and
//! every row is as it was seen at that moment.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Weekday;
use serde_json::Value;

use super::hosts;
use crate::pitr::{Made, Site, promote};
use crate::resolve_clock::Clock;
use crate::support::command::Ran;
use crate::support::postgres::{Cluster, Scratch, Stop, poll};
use crate::support::s3::S3Server;
use crate::support::schema;

const MAJOR: u32 = 15;
const RULES: &str = "recovery_window = '7d'\nkeep_last = 2\nkeep_weekly = 3\ngrace = '24h'\n";
const WINDOW_S: i64 = 7 * DAY_S;
const DAY_S: i64 = 24 * 3600;
/// As PostgreSQL writes times.
const NOW: &str = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')";
const ROWS: &str = "select string_agg(i || ':' || payload, ',' order by i) from t";

/// What was seen at a moment, and on which timeline where another one has that moment, too.
#[derive(Debug, Clone)]
struct Moment {
    unix_s: i64,
    time: String,
    timeline: Option<u32>,
    rows: String,
}

impl Moment {
    fn target(&self) -> Vec<String> {
        let mut target = vec!["--target-time".to_owned(), self.time.clone()];
        if let Some(timeline) = self.timeline {
            target.extend(["--target-timeline".to_owned(), timeline.to_string()]);
        }
        target
    }
}

/// A base backup, and what was in the table when it was taken.
#[derive(Debug)]
struct Taken {
    unix_s: i64,
    rows: String,
}

struct Weeks {
    site: Site,
    server: S3Server,
    clock: Clock,
    /// The first midnight: so far behind the present that the last day ends with it.
    begin_s: i64,
    days: i64,
    rows: u32,
    moments: Vec<Moment>,
    taken: BTreeMap<String, Taken>,
    restores: usize,
    deleted: BTreeMap<&'static str, u64>,
}

impl Weeks {
    fn new(days: i64) -> Self {
        let server = S3Server::start_tls();
        let scratch = Scratch::new();
        let clock = Clock::new(&scratch);
        let site = hosts::on_s3(scratch, &server, RULES, &clock.env);
        let begin_s = Timestamp::now().as_second() - days * DAY_S;
        let (moments, taken) = (Vec::new(), BTreeMap::new());
        Self { site, server, clock, begin_s, days, rows: 0, moments, taken, restores: 0, deleted: BTreeMap::new() }
    }

    /// Sets all clocks.
    fn at(&self, day: i64, hour: i64) {
        let ahead_s = (day - self.days) * DAY_S + hour * 3600;
        self.clock.set(&self.site.scratch, i32::try_from(ahead_s).unwrap());
        self.server.set_clock(ahead_s);
    }

    /// The present by them, in Unix seconds, from the server that everything is about.
    fn now_s(&self, cluster: &Cluster) -> i64 {
        let now = cluster.sql("select extract(epoch from clock_timestamp())::bigint").parse().unwrap();
        assert!(now >= self.begin_s, "the clock is set");
        now
    }

    fn insert(&mut self, cluster: &Cluster) {
        self.rows += 1;
        let (i, change) = (self.rows, self.rows / 2);
        cluster.sql(&format!("insert into t values ({i}, md5('{i}'))"));
        cluster.sql(&format!("update t set payload = md5(payload || {i}) where i = {change}"));
        // Something for the log.
        cluster.sql("update bulk set n = n + 1");
    }

    /// Notes what is there now. The next commit is later.
    fn note(&mut self, cluster: &Cluster, timeline: Option<u32>) -> Moment {
        let moment = Moment { unix_s: self.now_s(cluster), time: cluster.sql(NOW), timeline, rows: cluster.sql(ROWS) };
        self.moments.push(moment.clone());
        moment
    }

    /// Half a day of work.
    fn works(&mut self, cluster: &mut Cluster, day: i64) {
        for hour in [2, 9, 16] {
            self.at(day, hour);
            self.insert(cluster);
            self.note(cluster, None);
        }
        self.at(day, 18);
        self.insert(cluster);
        cluster.switch_and_archive();
    }

    fn back_up(&mut self, cluster: &Cluster) -> String {
        let (unix_s, rows) = (self.now_s(cluster), cluster.sql(ROWS));
        let made: Made = self.site.backup(cluster, &[]);
        self.taken.insert(made.id().to_owned(), Taken { unix_s, rows });
        made.id().to_owned()
    }

    /// One run; it must succeed.
    fn expire(&mut self) -> Value {
        let report = self.site.json(&["expire", "--confirm"]);
        schema::holds("expire", &report);
        let done = &report[0]["done"];
        assert_eq!((&done["denied_objects"], &done["held_objects"]), (&0.into(), &0.into()), "{report:#}");
        for field in ["deleted_manifests", "deleted_packs", "deleted_wal_files"] {
            *self.deleted.entry(field).or_default() += done[field].as_u64().unwrap();
        }
        report[0].clone()
    }

    /// The server's host is lost. A copy takes over, which does not have the last that was archived: that stays on a
    /// timeline of its own.
    fn fails_over(&mut self, mut old: Cluster, day: i64, name: &str) -> Cluster {
        let timeline = old.timeline();
        self.at(day, 19);
        old.sql(&format!("select pg_create_restore_point('{name}')"));
        for hour in [20, 21] {
            self.at(day, hour);
            self.insert(&old);
            self.note(&old, Some(timeline));
        }
        // After both moments, so that the log says that they were over.
        self.insert(&old);
        old.switch_and_archive();
        old.kill();
        self.at(day, 22);
        let arguments = ["--target-name", name, "--target-action", "promote", "--archiving", "keep"];
        let mut new = self.site.restore(name, MAJOR, &arguments);
        new.configure(&self.site.options);
        promote(&mut new);
        let history = format!("{:08X}.history", timeline + 1);
        let is_stored = || self.server.objects("").keys().any(|key| key.ends_with(&history)).then_some(());
        assert!(poll(is_stored).is_some(), "{history} is not archived");
        old.destroy();
        self.rows = new.sql("select max(i) from t").parse().unwrap();
        new
    }

    fn restores(&mut self, arguments: &[&str], rows: &str) {
        self.restores += 1;
        let name = format!("r{}", self.restores);
        let mut cluster = self.site.recover(&name, MAJOR, arguments);
        let is = cluster.sql(ROWS);
        let said = || self.site.run(&[&["--json", "resolve"], arguments].concat()).stdout;
        assert!(is == rows, "{arguments:?}: {is} should be {rows}, and resolve says {}", said());
        assert_eq!(cluster.sql("select count(*) from bulk"), "400");
        cluster.stop(Stop::Fast);
        cluster.destroy();
    }

    fn restores_moment(&mut self, moment: &Moment) {
        let target = moment.target();
        self.restores(&target.iter().map(String::as_str).collect::<Vec<_>>(), &moment.rows);
    }

    fn resolves(&self, moment: &Moment) -> Ran {
        let target = moment.target();
        self.site.run(&[&["--json", "resolve"], &*target.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    }

    /// The moments that are promised at this time.
    fn in_the_window(&self, now_s: i64) -> Vec<Moment> {
        self.moments.iter().filter(|moment| moment.unix_s >= now_s - WINDOW_S).cloned().collect()
    }

    /// What the rules that count keep, by what they say: the newest two, and the newest of each of the last three weeks
    /// that have one.
    fn counted(&self) -> BTreeSet<String> {
        let mut newest = self.taken.iter().collect::<Vec<_>>();
        newest.sort_by_key(|(_, taken)| -taken.unix_s);
        let week = |taken: &Taken| {
            let date = Timestamp::from_second(taken.unix_s).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
            if date.weekday() == Weekday::Monday { date } else { date.nth_weekday(-1, Weekday::Monday).unwrap() }
        };
        let mut weeks = BTreeSet::new();
        let newest_of_week = newest.iter().filter(|(_, taken)| weeks.insert(week(taken))).take(3);
        newest_of_week.chain(newest.iter().take(2)).map(|(id, _)| (*id).clone()).collect()
    }

    /// Takes the next server through the last days of a history, and looks at everything that is promised.
    fn ends(&mut self, cluster: &mut Cluster, pinned: &str, sample: usize) {
        // What was named goes a day later.
        self.at(self.days, 0);
        self.expire();
        self.at(self.days + 1, 1);
        let report = self.expire();
        let now_s = self.now_s(cluster);
        let stays: BTreeSet<String> = self.site.backups().into_iter().collect();
        let mut expected = self.counted();
        expected.insert(pinned.to_owned());
        assert!(stays.is_superset(&expected), "{expected:?} of {stays:?}: {report:#}");
        // All others the window needs: they are older than it, or lead to what only another timeline has.
        let more: Vec<&String> = stays.difference(&expected).collect();
        assert!(more.len() <= 2 && stays.len() + 3 <= self.taken.len(), "{more:?} of {stays:?}: {report:#}");
        for field in ["deleted_manifests", "deleted_packs", "deleted_wal_files"] {
            assert!(self.deleted[field] > 3, "{field}: {:?}", self.deleted);
        }
        self.site.run(&["verify", "--quick"]).exits(0);
        self.site.run(&["verify", "--full"]).exits(0);

        // Every moment of the window can be reached, of both timelines that were alive in it.
        let promised = self.in_the_window(now_s);
        assert!(promised.len() >= 8 && promised.iter().any(|moment| moment.timeline.is_some()), "{promised:?}");
        for moment in &promised {
            self.resolves(moment).exits(0);
        }
        // The first, one that only the lost server has, and some of the others.
        let orphan = promised.iter().position(|moment| moment.timeline.is_some()).unwrap();
        let mut chosen = BTreeSet::from([0, orphan]);
        let mut random = fastrand::Rng::with_seed(now_s.unsigned_abs());
        while chosen.len() < sample.min(promised.len()) {
            chosen.insert(random.usize(..promised.len()));
        }
        for index in chosen {
            self.restores_moment(&promised[index]);
        }
        let last = cluster.sql(ROWS);
        self.restores(&["--target", "latest"], &last);
        let of_pinned = self.taken[pinned].rows.clone();
        self.restores(&["--backup", pinned, "--target", "immediate"], &of_pinned);

        // Before the window: said before anything is touched.
        let first = self.taken.values().map(|taken| taken.unix_s).min().unwrap();
        let early: Vec<Moment> =
            self.moments.iter().filter(|moment| moment.unix_s > first && moment.unix_s < first + 6 * DAY_S).cloned().collect();
        assert!(early.len() > 3, "{early:?}");
        for moment in &early {
            self.resolves(moment).exits(15);
        }
        let refused = self.site.try_restore("early", &early[0].target().iter().map(String::as_str).collect::<Vec<_>>()).exits(15);
        assert!(!self.site.place("early").exists(), "{refused:?}");
    }
}

fn lives(days: i64, lost_on: [i64; 2], sample: usize, restored_on_the_way: &[i64]) {
    let mut weeks = Weeks::new(days);
    weeks.at(0, 0);
    let mut cluster = weeks.site.primary(MAJOR);
    cluster.sql("create table t (i int primary key, payload text)");
    cluster.sql("create table bulk as select i, 0 as n, repeat(md5(i::text), 8) as filler from generate_series(1, 400) i");
    let mut pinned = None;
    for day in (0..days).step_by(2) {
        weeks.works(&mut cluster, day);
        if lost_on.contains(&day) {
            cluster = weeks.fails_over(cluster, day, &format!("lost{day}"));
        }
        weeks.at(day, 23);
        let id = weeks.back_up(&cluster);
        if day == 2 {
            weeks.site.run(&["pin", &id, "--reason", "the audit"]).exits(0);
            pinned = Some(id);
        }
        weeks.expire();
        weeks.site.run(&["verify", "--quick"]).exits(0);
        if restored_on_the_way.contains(&day) {
            let first = weeks.in_the_window(weeks.now_s(&cluster))[0].clone();
            weeks.restores_moment(&first);
        }
    }
    // Later than the last moment.
    weeks.at(days, 0);
    weeks.insert(&cluster);
    cluster.switch_and_archive();
    weeks.ends(&mut cluster, &pinned.unwrap(), sample);
}

/// Behind a backup that is kept for its own sake all WAL is gone. Servers from 15 on would ask for it.
fn an_island_is_restored(major: u32) {
    let site = hosts::in_a_directory("keep_last = 1\ngrace = '1s'\n");
    let mut cluster = site.primary(major);
    cluster.sql("create table t as select i, md5(i::text) as payload from generate_series(1, 20) i");
    let pinned = site.backup(&cluster, &[]).id().to_owned();
    let rows = cluster.sql(ROWS);
    site.run(&["pin", &pinned, "--reason", "the audit"]).exits(0);
    for i in 21..24 {
        cluster.sql(&format!("insert into t values ({i}, '')"));
        cluster.switch_and_archive();
    }
    site.backup(&cluster, &[]);
    cluster.stop(Stop::Fast);
    site.run(&["expire", "--confirm"]).exits(0);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    site.run(&["expire", "--confirm"]).exits(0);
    let target = ["--backup", &pinned, "--target", "immediate"];
    let resolved = site.json(&[&["resolve"], &target[..]].concat());
    let settings = resolved["settings"].as_array().unwrap();
    let is_off = settings.iter().any(|setting| setting["name"] == "recovery_prefetch" && setting["value"] == "off");
    assert_eq!(is_off, major >= 15, "{resolved:#}");
    let last = resolved["wal"]["last_segment"].as_str().unwrap();
    let next = format!("{}{:08X}", &last[..16], u32::from_str_radix(&last[16..], 16).unwrap() + 1);
    assert!(site.archive.objects(&next).is_empty(), "{next} went");
    let restored = site.recover("restored", major, &target);
    assert_eq!(restored.sql(ROWS), rows);
    // Taken out with the other settings of the recovery.
    let left = std::fs::read_to_string(restored.data.join("postgresql.auto.conf")).unwrap();
    assert!(!left.contains("recovery_prefetch"), "{left}");
}

#[test]
fn pg14_a_backup_behind_which_all_wal_is_gone() {
    an_island_is_restored(14);
}

#[test]
fn pg15_a_backup_behind_which_all_wal_is_gone() {
    an_island_is_restored(15);
}

#[test]
fn pg18_a_backup_behind_which_all_wal_is_gone() {
    an_island_is_restored(18);
}

#[test]
fn what_the_rules_promise_is_restored_with_a_real_server() {
    lives(22, [8, 18], 3, &[14]);
}

#[test]
#[ignore = "long: about 7 min"]
fn long_ten_weeks_are_restored_with_a_real_server() {
    lives(70, [24, 66], 16, &[12, 20, 30, 40, 50, 60]);
}
