//! Random histories of a server, or of a primary and its standby: work of all kinds, and a backup after some of it that
//! takes over what the log says is untouched. All that it stored is what the server has on disk, and what is restored
//! of it is what the server holds.

mod pages;
mod servers;
mod work;

use super::changed::{number, reads_all, same_as_a_full_read};
use std::time::Instant;

use super::*;
use crate::support::postgres::poll;
use pages::hold_against_disk;
use servers::Servers;
use work::{ACTIONS, TABLES};

/// What servers do by themselves, or to each other.
const SERVER_ACTIONS: [(&str, work::Action); 8] = [
    ("crash", |w| w.servers.crash(Stop::Immediate)),
    ("kill", |w| w.servers.kill()),
    ("restart", |w| w.servers.crash(Stop::Fast)),
    ("crash of the standby", |w| w.servers.restart_standby(Stop::Immediate)),
    ("restart of the standby", |w| w.servers.restart_standby(Stop::Fast)),
    ("switchover", |w| w.servers.switch_over()),
    ("failover", |w| w.servers.fail_over()),
    ("pg_rewind", World::part_and_rewind),
];

/// Kinds that not every version has, or that are not possible at every moment.
const NOT_EVERYWHERE: [&str; 13] = [
    "pg_rewind",
    "backup of a past that is given up",
    "database copied through the log",
    "database dropped",
    "database moved to another tablespace",
    "logged to unlogged",
    "busy backup",
    "pages that differ in hints",
    "hint bits that are logged",
    "hint bits that are not logged",
    "wal_compression = pglz",
    "wal_compression = lz4",
    "wal_compression = zstd",
];

/// How many histories of ten rounds the long test has.
const ALL_HISTORIES: u64 = 100;

/// What happened, by kind, and how often.
type Counts = BTreeMap<String, usize>;

/// What a history is made with.
#[derive(Debug, Clone, Copy)]
struct Plan {
    major: u32,
    seed: u64,
    rounds: usize,
    with_standby: bool,
    /// After how many backups one is restored; the last one is always.
    restores: usize,
}

/// A history as it goes on.
struct World {
    host: Arc<Host>,
    major: u32,
    options: Options,
    servers: Servers,
    what: String,
    /// Kinds of actions that are to happen before any of them happens again, in a random order.
    deck: Vec<(&'static str, work::Action)>,
    counts: Counts,
    /// Databases that were copied from `small`.
    databases: Vec<String>,
    /// Makes names that were not used yet.
    names: usize,
    /// The last value that the sequence `numbers` gave somebody.
    handed_out: u64,
    /// Where the tablespace is, if outside the data directory.
    elsewhere: Option<PathBuf>,
    /// Whether the newest backup is of a past that was given up.
    is_astray: bool,
    taken_over: u64,
}

impl World {
    fn begin(plan: Plan) -> Self {
        // Neighbours among seeds begin alike.
        fastrand::seed(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32));
        let host = Arc::new(Host::new());
        let on = |yes: bool| if yes { "on" } else { "off" };
        let options = Options { wal_segsize_mib: 1, checksums: fastrand::bool(), ..host.options() }
            .setting("autovacuum", "off")
            .setting("max_prepared_transactions", "5")
            .setting("wal_keep_size", "512MB")
            .setting("wal_compression", on(fastrand::bool()))
            .setting("full_page_writes", on(fastrand::bool()))
            .setting("wal_log_hints", on(fastrand::bool()))
            .setting("archive_mode", if plan.with_standby && fastrand::bool() { "always" } else { "on" });
        // Two servers of one machine cannot both have a directory outside; in the data directory each has its own.
        let options = if plan.with_standby { options.setting("allow_in_place_tablespaces", "on") } else { options };
        let what = format!("{plan:?}, checksums {}, {:?}", options.checksums, options.settings);
        println!("{what}");
        let servers = Servers::new(&host, plan.major, &options);
        let elsewhere = (!plan.with_standby).then(|| host.scratch.make_dir("elsewhere"));
        let location = elsewhere.as_ref().map_or_else(String::new, |path| path.display().to_string());
        servers.primary.sql(&format!("create tablespace elsewhere location '{location}'"));
        TABLES.iter().for_each(|statement| drop(servers.primary.sql(statement)));
        servers.primary.sql_in("small", "create table inside as select n, repeat('in', 50) t from generate_series(1, 2000) n");
        let mut world = Self {
            host,
            major: plan.major,
            options,
            servers,
            what,
            deck: Vec::new(),
            counts: Counts::new(),
            databases: Vec::new(),
            names: 0,
            handed_out: 0,
            elsewhere,
            is_astray: false,
            taken_over: 0,
        };
        let first = world.host.backup(&world.servers.primary, &[]);
        if plan.with_standby {
            world.servers.add_standby(&read_back(&world.host, &first));
        }
        world
    }

    fn sql(&self, sql: &str) -> String {
        self.servers.primary.sql(sql)
    }

    fn number(&self, sql: &str) -> u64 {
        self.sql(sql).parse().unwrap()
    }

    /// It happens, or the test fails.
    fn ok(&self, sql: &str) -> bool {
        self.sql(sql);
        true
    }

    /// Whether a relation has another file afterwards.
    fn new_file(&self, relation: &str, sql: &str) -> bool {
        let file = || self.sql(&format!("select pg_relation_filepath('{relation}')"));
        let before = file();
        self.sql(sql);
        file() != before
    }

    fn set(&self, setting: &str, value: &str) -> bool {
        self.sql(&format!("alter system set {setting} = '{value}'"));
        self.sql("select pg_reload_conf()");
        poll(|| (self.sql(&format!("show {setting}")) == value).then_some(())).is_some()
    }

    fn happened(&mut self, kind: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
    }

    fn act(&mut self, (kind, action): (&str, work::Action)) {
        let begun = Instant::now();
        if action(self) {
            println!("{kind}: {} ms", begun.elapsed().as_millis());
            self.happened(kind);
        }
    }

    /// Some actions, and sometimes a checkpoint after one.
    fn work(&mut self, actions: usize) {
        for _ in 0..actions {
            if self.deck.is_empty() {
                self.deck = ACTIONS.into_iter().chain(SERVER_ACTIONS).collect();
                fastrand::shuffle(&mut self.deck);
            }
            let next = self.deck.pop().unwrap();
            self.act(next);
            if fastrand::u8(..6) == 0 {
                self.sql("checkpoint");
            }
        }
    }

    /// The standby is promoted while the primary goes on. What that does is lost when it is made to follow.
    fn part_and_rewind(&mut self) -> bool {
        let Some(program) = self.servers.can_rewind() else { return false };
        let new = self.servers.promote_beside();
        let kept = (self.databases.clone(), self.handed_out);
        let some = |w: &mut Self| (0..fastrand::usize(2..5)).for_each(|_| w.act(fastrand::choice(ACTIONS).unwrap()));
        some(self);
        if fastrand::bool() {
            self.happened("backup of a past that is given up");
            let stored = self.back_up(false);
            self.restore(&stored, "current");
            self.is_astray = true;
        }
        let old = self.servers.leave_for(new);
        (self.databases, self.handed_out) = kept;
        some(self);
        self.servers.rewind(&program, old);
        true
    }

    /// Takes a backup of one of the servers, and holds it against what that one has.
    fn back_up(&mut self, may_be_busy: bool) -> Stored {
        let (host, primary) = (Arc::clone(&self.host), self.servers.primary.conninfo());
        let begun = Instant::now();
        let of_standby = self.servers.standby.is_some() && fastrand::bool();
        let is_busy = may_be_busy && fastrand::u8(..5) == 0;
        if of_standby {
            // Without full pages a standby refuses to begin a backup.
            assert!(self.set("full_page_writes", "on"));
            self.servers.restart_point();
        }
        let cluster = self.servers.standby.as_ref().filter(|_| of_standby).unwrap_or(&self.servers.primary);
        let more: &[&str] = if of_standby { &["--primary", &primary] } else { &[] };
        let mut running = host.start(cluster, more);
        while is_busy && !running.has_ended() {
            work::MEANWHILE.iter().for_each(|statement| drop(self.sql(statement)));
        }
        let report: Value = serde_json::from_str(&running.wait().exits(0).stdout).unwrap();
        schema::holds("base-backup", &report);
        let why = report["read_all_because"].as_str();
        if std::mem::take(&mut self.is_astray) {
            assert!(why.is_some_and(|why| why.contains("is not in the past of this server")), "{}: {report:#}", self.what);
        } else {
            assert_eq!(why, None, "{}: {report:#}", self.what);
        }
        assert_eq!(report["pages_damaged"], 0, "{}: {report:#}", self.what);
        self.taken_over += number(&report, "taken_over_bytes");
        let taken = begun.elapsed();
        let stored = read_back(&host, &report);
        let seen = hold_against_disk(&self.what, (&stored, &report), cluster, is_busy);
        let (whose, how) = (if of_standby { " of the standby" } else { "" }, if is_busy { ", busy" } else { "" });
        println!("backup{whose}{how}: {seen:?}, {} and {} ms", taken.as_millis(), begun.elapsed().as_millis());
        let kinds = [("backup of the primary", !of_standby), ("backup of the standby", of_standby), ("busy backup", is_busy)];
        kinds.iter().filter(|(_, is)| *is).for_each(|(kind, _)| self.happened(kind));
        assert!(seen.pages > 2000, "{}: {seen:?}", self.what);
        if seen.hints > 0 {
            self.happened("pages that differ in hints");
        }
        if is_busy {
            self.servers.primary.switch_and_archive();
        }
        stored
    }

    /// What is restored of a backup holds what the primary does.
    fn restore(&mut self, stored: &Stored, timeline: &str) {
        let begun = Instant::now();
        self.names += 1;
        let name = format!("restored{}", self.names);
        let scratch = Arc::clone(&self.host.scratch);
        let root = scratch.path().join(&name);
        stored.write_to(&scratch, &root);
        let space = self.elsewhere.as_ref().map(|there| {
            let here = scratch.make_dir(&format!("{name}.space"));
            stored.move_tablespace(&root, &here);
            let map = root.join("tablespace_map");
            let text = fs::read_to_string(&map).unwrap().replace(&there.display().to_string(), &here.display().to_string());
            scratch.write(&map, text.as_bytes());
            here
        });
        let _ = fs::remove_file(root.join("standby.signal"));
        let options = Options { archive_command: None, ..self.options.clone() }
            .setting("archive_mode", "off")
            .setting("recovery_target_timeline", timeline);
        let mut restored = Cluster::in_place(&scratch, &name, self.major, &options);
        scratch.write(&restored.data.join("recovery.signal"), b"");
        restored.spawn();
        let recovered = restored.wait_recovery();
        assert!(matches!(recovered, Recovery::Promoted), "{}: {recovered:?}", self.what);
        assert_eq!(work::contents(&restored), work::contents(&self.servers.primary), "{}", self.what);
        let next: u64 = restored.sql("select nextval('numbers')").parse().unwrap();
        assert!(next > self.handed_out, "{}: a sequence gives {next} after {}", self.what, self.handed_out);
        restored.amcheck();
        restored.destroy();
        println!("restored: {} ms", begun.elapsed().as_millis());
        space.into_iter().for_each(|space| fs::remove_dir_all(space).unwrap());
        self.happened("restore");
    }

    /// One more backup, which a backup that reads everything is like.
    fn end(self, rounds: usize) -> Counts {
        let (host, primary, what) = (&self.host, &self.servers.primary, &self.what);
        let report = host.backup(primary, &[]);
        let full = host.backup(primary, &["--read-all"]);
        assert!(reads_all(&full), "{what}: {full:#}");
        same_as_a_full_read(what, (&read_back(host, &report), &report), &read_back(host, &full));
        assert!(self.taken_over > rounds as u64 * 8_000_000, "{what}: only {} bytes were taken over", self.taken_over);
        let objects = files_below(&host.scratch.path().join("repository"));
        let nodes = objects.iter().filter(|path| path.to_str().unwrap().contains("/c1/")).count();
        assert!(nodes > 1, "{what}: the changes of 16 segments are in no node");
        self.counts
    }

    fn round(&mut self, actions: usize, is_restored: bool) {
        self.work(actions);
        let stored = self.back_up(true);
        if is_restored {
            self.restore(&stored, "latest");
        }
        if self.servers.has_lost_one() && fastrand::bool() {
            self.servers.add_standby(&stored);
            self.happened("standby made of a backup");
        }
    }
}

/// Rounds of work, each with a backup that is held against the server and restored; what happened in them.
fn history(plan: Plan) -> Counts {
    let mut world = World::begin(plan);
    // In the last round there is left of them what was not dealt yet.
    let each = (ACTIONS.len() + SERVER_ACTIONS.len()).div_ceil(plan.rounds);
    for round in 0..plan.rounds {
        println!("-- round {round}");
        world.what = format!("{plan:?}, round {round}");
        let is_last = round + 1 == plan.rounds;
        let actions = if is_last { world.deck.len().max(1) } else { fastrand::usize(each / 2..=each * 3 / 2) };
        world.round(actions, is_last || round % plan.restores == 0);
    }
    world.end(plan.rounds)
}

/// Of one version without a standby, and with one.
fn histories_of(major: u32) {
    let mut all = Counts::new();
    for (seed, with_standby, rounds) in [(1, false, 4), (2, true, 5)] {
        for (kind, count) in history(Plan { major, seed: u64::from(major) * 10 + seed, rounds, with_standby, restores: 2 }) {
            *all.entry(kind).or_default() += count;
        }
    }
    println!("{all:#?}");
    let missing: Vec<&str> = missing(&all).into_iter().filter(|kind| !NOT_EVERYWHERE.contains(kind)).collect();
    assert_eq!(missing, [""; 0], "kinds of actions that did not happen");
}

/// What did not happen of all kinds.
fn missing(counts: &Counts) -> Vec<&'static str> {
    let kinds = ACTIONS.into_iter().chain(SERVER_ACTIONS).map(|(kind, _)| kind);
    let others = work::BESIDES.into_iter();
    kinds.chain(others).filter(|kind| !counts.contains_key(*kind)).collect()
}

#[test]
#[ignore = "long: about 20 min"]
fn long_histories_of_each_release() {
    (13..=18).for_each(histories_of);
}

/// `WALVIS_TEST_SEED` says which is the first, `WALVIS_TEST_ROUNDS` how many histories.
#[test]
#[ignore = "long: about 100 min"]
fn long_random_histories() {
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = (given("WALVIS_TEST_SEED").unwrap_or(0), given("WALVIS_TEST_ROUNDS").unwrap_or(ALL_HISTORIES));
    let mut all = Counts::new();
    for seed in first..first + count {
        let plan = Plan {
            major: 13 + u32::try_from(seed % 6).unwrap(),
            seed: 1000 + seed,
            rounds: 10,
            with_standby: seed / 6 % 2 == 1,
            restores: 1,
        };
        let counts = history(plan);
        eprintln!("{plan:?} passed: {counts:?}");
        for (kind, count) in counts {
            *all.entry(kind).or_default() += count;
        }
    }
    eprintln!("{all:#?}");
    // Of a few histories nothing of the kind is promised.
    if count >= ALL_HISTORIES {
        assert_eq!(missing(&all), [""; 0], "kinds of actions that never happened");
    }
}
