//! Settings outside the data directory, as Debian has them: they come back with the backup, and the server starts with
//! them.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::pitr::{Site, exists};
use crate::support::postgres::load::Client;
use crate::support::postgres::{Cluster, poll};

/// A server whose files of settings are in `etc`.
struct Debian {
    cluster: Cluster,
    child: Child,
    /// Kills what works in its directory when it goes.
    _made: Cluster,
}

impl Debian {
    fn start(site: &Site) -> Self {
        let made = Cluster::init(&site.scratch, "primary", 15, &site.options);
        let etc = site.scratch.make_dir("etc");
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "test.conf"] {
            fs::rename(made.data.join(name), etc.join(name)).unwrap();
        }
        let directory = site.scratch.make_dir("etc/conf.d");
        site.scratch.write(&directory.join("more.conf"), b"work_mem = '7MB'\n");
        let main = etc.join("postgresql.conf");
        let mut text = fs::read_to_string(&main).unwrap();
        text.push_str("include_dir = 'conf.d'\n");
        for (name, path) in
            [("data_directory", &made.data), ("hba_file", &etc.join("pg_hba.conf")), ("ident_file", &etc.join("pg_ident.conf"))]
        {
            text.push_str(&format!("{name} = '{}'\n", path.display()));
        }
        site.scratch.write(&main, text.as_bytes());
        let log = fs::File::create(site.scratch.path().join("debian.log")).unwrap();
        let mut command = site.scratch.command(&made.postgres().home.join("bin/postgres"));
        let child =
            command.arg("-D").arg(&etc).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let cluster = Cluster::started_by_others(&site.scratch, "primary", 15, &site.options, &made);
        assert!(poll(|| Client::connect(&cluster).ok().map(drop)).is_some(), "the server does not start");
        Self { cluster, child, _made: made }
    }

    fn stop(&mut self) {
        self.cluster.kill();
        self.child.wait().unwrap();
    }
}

#[test]
fn pg15_settings_outside_the_data_directory_come_back() {
    let site = Site::new();
    let mut debian = Debian::start(&site);
    let primary = &mut debian.cluster;
    primary.sql("create table t as select 1 as i");
    site.backup(primary, &[]);
    primary.sql("insert into t values (2)");
    primary.switch_and_archive();
    debian.stop();
    let primary = &debian.cluster;
    let (etc, new) = (site.place("etc"), site.place("new etc"));
    let programs = primary.postgres().home.join("bin");
    let latest = ["--target", "latest"];
    let start = ["--start", "--bin-dir", programs.to_str().unwrap()];

    // That it cannot start is known before anything is done.
    let refused = site.try_restore("restored", &[&latest[..], &start].concat()).exits(10);
    refused.says(&["--start", etc.to_str().unwrap(), "--config-to"]).tells_the_way_out();
    assert!(!exists(&site.place("restored")));
    let place = site.place("restored");
    let report = site.json(&[&["pitr-restore", "--pgdata", place.to_str().unwrap(), "--plan"], &latest[..]].concat());
    assert!(report["plan"]["restore"]["notes"].to_string().contains("--config-to DIR"), "{report:#}");

    let config_to = ["--config-to", new.to_str().unwrap()];
    let _server = Cluster::started_by_others(&site.scratch, "restored", 15, &site.options, primary);
    let report = site.json(&[&["pitr-restore", "--pgdata", place.to_str().unwrap()], &latest[..], &start, &config_to].concat());
    assert_eq!(report["server"]["state"], "promoted", "{report:#}");
    assert_eq!(primary.sql("select count(*) from t"), "2");
    assert_eq!(primary.sql("show work_mem"), "7MB");
    for (setting, path) in [
        ("data_directory", place.clone()),
        ("config_file", new.join("postgresql.conf")),
        ("hba_file", new.join("pg_hba.conf")),
        ("ident_file", new.join("pg_ident.conf")),
    ] {
        assert_eq!(Path::new(&primary.sql(&format!("show {setting}"))), path, "{setting}");
    }

    // Other files of those names are never lost.
    let rules = etc.join("pg_hba.conf");
    site.scratch.write(&rules, b"precious");
    let over = ["--config-to", etc.to_str().unwrap()];
    site.try_restore("other", &[&latest[..], &over].concat()).exits(16).says(&["is there with other content"]);
    site.try_restore("other", &[&latest[..], &over, &["--delta"]].concat()).exits(0);
    assert_eq!(fs::read(etc.join("pg_hba.conf.before-restore")).unwrap(), b"precious");
    assert_eq!(fs::read(&rules).unwrap(), fs::read(new.join("pg_hba.conf")).unwrap());
}
