//! The servers of a history: one takes writes, and another one may follow it; they crash, change places and part ways.

use super::*;

/// A primary, and perhaps a standby of it.
pub(super) struct Servers {
    pub primary: Cluster,
    pub standby: Option<Cluster>,
    host: Arc<Host>,
    options: Options,
    major: u32,
    made: usize,
}

impl Servers {
    pub(super) fn new(host: &Arc<Host>, major: u32, options: &Options) -> Self {
        let primary = host.cluster("server0", major, options);
        Self { primary, standby: None, host: Arc::clone(host), options: options.clone(), major, made: 0 }
    }

    /// What a standby of `primary` is told besides.
    fn following(&self, primary: &Cluster) -> Options {
        self.options.clone().setting("primary_conninfo", &primary.conninfo())
    }

    /// Makes a standby of a stored backup.
    pub(super) fn add_standby(&mut self, stored: &Stored) {
        self.made += 1;
        let name = format!("server{}", self.made);
        stored.write_to(&self.host.scratch, &self.host.scratch.path().join(&name));
        let standby = Cluster::in_place(&self.host.scratch, &name, self.major, &self.following(&self.primary));
        self.host.scratch.write(&standby.data.join("standby.signal"), b"");
        self.standby = Some(standby);
        self.standby.as_mut().unwrap().start();
    }

    /// Waits until the standby has replayed all that the primary has logged.
    pub(super) fn catch_up(&self) {
        let Some(standby) = &self.standby else { return };
        let position = self.primary.sql("select pg_current_wal_lsn()");
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{position}'");
        if poll(|| (standby.sql(&replayed) == "t").then_some(())).is_none() {
            standby.fail(&format!("the standby does not get to {position}"));
        }
    }

    /// A checkpoint of the primary becomes one of the standby: a backup of it begins there.
    pub(super) fn restart_point(&self) {
        // The first one may have begun under other settings.
        (0..2).for_each(|_| drop(self.primary.sql("checkpoint")));
        self.catch_up();
        if let Some(standby) = &self.standby {
            standby.sql("checkpoint");
        }
    }

    /// The primary ends amid a transaction, and starts again.
    pub(super) fn crash(&mut self, how: Stop) -> bool {
        let open = self.primary.client();
        open.query("begin; update heap set r = r + 7 where id % 30 = 2; insert into tail select n, 'open' from generate_series(1, 300) n").unwrap();
        // What is logged is on disk: that of the open transaction, too.
        self.primary.sql("create table if not exists logged (n int); insert into logged values (1)");
        self.primary.stop(how);
        self.primary.start();
        true
    }

    /// The same with SIGKILL for all processes.
    pub(super) fn kill(&mut self) -> bool {
        let open = self.primary.client();
        open.query("begin; delete from heap where id % 30 = 2").unwrap();
        self.primary.sql("create table if not exists logged (n int); insert into logged values (2)");
        self.primary.kill();
        self.primary.start();
        true
    }

    /// The standby, if there is one, ends and starts again.
    pub(super) fn restart_standby(&mut self, how: Stop) -> bool {
        let Some(standby) = &mut self.standby else { return false };
        standby.stop(how);
        standby.start();
        true
    }

    /// All that the primary has logged is in the repository, and with the standby.
    fn archived(&mut self) {
        self.primary.switch_and_archive();
        self.catch_up();
    }

    fn promote(&mut self) -> Cluster {
        let standby = self.standby.take().unwrap();
        let before = self.primary_timeline();
        assert_eq!(standby.sql("select pg_promote()"), "t");
        assert!(standby.timeline() > before, "no new timeline");
        standby
    }

    fn primary_timeline(&self) -> u32 {
        let control = fs::read(self.primary.data.join("global/pg_control")).unwrap();
        walvis::pg::ControlFile::parse(&control).unwrap().timeline.0
    }

    fn follow(&mut self, mut old: Cluster) {
        old.configure(&self.following(&self.primary));
        self.host.scratch.write(&old.data.join("standby.signal"), b"");
        old.start();
        self.standby = Some(old);
        self.catch_up();
    }

    /// The two change places, in good order.
    pub(super) fn switch_over(&mut self) -> bool {
        if self.standby.is_none() {
            return false;
        }
        self.archived();
        self.primary.stop(Stop::Fast);
        let new = self.promote();
        let old = std::mem::replace(&mut self.primary, new);
        self.follow(old);
        true
    }

    /// The primary is lost, and the standby takes its place.
    pub(super) fn fail_over(&mut self) -> bool {
        if self.standby.is_none() {
            return false;
        }
        self.archived();
        self.primary.sql("update heap set r = r + 1 where id % 80 = 3; create table if not exists streamed (n int)");
        self.catch_up();
        self.primary.sql("update heap set r = r + 1 where id % 90 = 3; insert into streamed values (1)");
        self.primary.kill();
        let new = self.promote();
        std::mem::replace(&mut self.primary, new).destroy();
        true
    }

    /// `pg_rewind` of this version, if there is one and a standby, and pages are logged as it needs.
    pub(super) fn can_rewind(&self) -> Option<PathBuf> {
        self.standby.as_ref()?;
        let program = self.host.scratch.client_tool(self.major, "pg_rewind")?;
        let version = run(self.host.scratch.command(&program).arg("--version"));
        let fits = version.contains(&format!(" {}.", self.major));
        let logs = "select current_setting('data_checksums') = 'on' or current_setting('wal_log_hints') = 'on'";
        (fits && self.primary.sql(logs) == "t").then_some(program)
    }

    /// Promotes the standby, while the primary goes on.
    pub(super) fn promote_beside(&mut self) -> Cluster {
        self.archived();
        self.promote()
    }

    /// Ends the primary; another one takes its place.
    pub(super) fn leave_for(&mut self, new: Cluster) -> Cluster {
        self.primary.stop(Stop::Fast);
        std::mem::replace(&mut self.primary, new)
    }

    /// Makes the files of a server that parted ways those of the primary, which it then follows. The primary is down
    /// meanwhile: over a connection `pg_rewind` does not understand tablespaces in the data directory.
    pub(super) fn rewind(&mut self, pg_rewind: &Path, old: Cluster) {
        self.primary.stop(Stop::Fast);
        let mut rewind = self.host.scratch.command(pg_rewind);
        rewind.arg("--target-pgdata").arg(&old.data).arg("--source-pgdata").arg(&self.primary.data);
        let output = rewind.arg("--restore-target-wal").output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success() && said.contains("Done!"), "{said}");
        self.primary.start();
        self.follow(old);
    }

    /// Whether a standby took the place of a primary that is gone.
    pub(super) fn has_lost_one(&self) -> bool {
        self.made > 0 && self.standby.is_none()
    }
}
