//! A base backup among tombstones: what it refers to, and when it must not count. `docs/RETENTION.md` has the protocol.

use super::*;
use walvis::format::extent::PackId;
use walvis::repo::backups::Given;
use walvis::repo::{Facts, ObjectSet, TombstoneId};

impl Host {
    fn facts(&self) -> (Repository, ClusterName, Facts) {
        let (repository, name) = (self.repository(), ClusterName::new("main").unwrap());
        let facts = repository.facts(&name).unwrap();
        (repository, name, facts)
    }

    /// Stores a tombstone, as another user of the repository would.
    fn tombstone(&self, name: impl FnOnce(&mut ObjectSet)) -> TombstoneId {
        let (repository, cluster, facts) = self.facts();
        let mut names = ObjectSet::new(facts.wal_segment_size);
        name(&mut names);
        let id = repository.put_tombstone(&cluster, facts.system_id, &names).unwrap();
        repository.complete_tombstone(&cluster, facts.system_id, id).unwrap();
        self.hand_over();
        id
    }

    /// Gives what this process stored to the user of the servers.
    fn hand_over(&self) {
        let root = self.scratch.path().join("repository");
        let mut command = std::process::Command::new("chown");
        run_program(command.arg("-R").arg("--reference").arg(root.join("walvis.json")).arg(&root)).exits(0);
    }

    /// Starts a backup, and stops its process as soon as the repository says that it has begun.
    fn begun(&self, cluster: &Cluster) -> (Running, BackupId) {
        let (repository, name, facts) = self.facts();
        let all = || repository.begun_backups(&name, facts.system_id).unwrap();
        let before = all();
        let mut running = self.start(cluster, &["--max-rate", "8"]);
        eventually("the backup begins", || {
            assert!(!running.has_ended(), "it ended first");
            all().len() > before.len()
        });
        running.signal(Signal::SIGSTOP);
        let id = all().into_iter().find(|backup| !before.contains(backup)).unwrap().id;
        (running, id)
    }
}

fn id_of(report: &Value) -> BackupId {
    BackupId::parse(report["backup_id"].as_str().unwrap()).unwrap()
}

/// The backups whose packs one refers to.
fn refers_to(host: &Host, report: &Value) -> Vec<BackupId> {
    let mut backups: Vec<BackupId> = read_back(host, report).head.packs.iter().map(|used| used.pack.backup).collect();
    backups.dedup();
    backups
}

#[test]
fn nothing_is_referred_to_that_a_tombstone_names() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 18, &host.options());
    let first = host.backup(&cluster, &[]);
    let second = host.backup(&cluster, &[]);
    let (of_first, of_second) = (id_of(&first), id_of(&second));
    assert!(refers_to(&host, &second).contains(&of_first));

    let tombstone = host.tombstone(|names| (0..100).for_each(|number| names.insert_pack(PackId { backup: of_first, number })));
    let third = host.backup(&cluster, &[]);
    let of_third = id_of(&third);
    let referred = refers_to(&host, &third);
    assert!(referred.contains(&of_third) && !referred.contains(&of_first), "{referred:?}");
    assert_eq!(third["warnings"].as_array().map(Vec::len), Some(0), "{third:#}");

    // What was withdrawn goes nowhere.
    let (repository, name, facts) = host.facts();
    assert!(repository.withdraw_tombstone(&name, facts.system_id, tombstone).unwrap());
    host.hand_over();
    let named_anew = host.tombstone(|names| (0..100).for_each(|number| names.insert_pack(PackId { backup: of_second, number })));
    let fourth = host.backup(&cluster, &[]);
    assert!(refers_to(&host, &fourth).contains(&of_third), "{fourth:#}");

    // One that nobody can read might name everything.
    let directory = format!("clusters/main/{}/tombstones", facts.system_id);
    let file = host.scratch.path().join("repository").join(directory).join(named_anew.to_string());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, b"no tombstone").unwrap();
    let fifth = host.backup(&cluster, &[]);
    assert_eq!(refers_to(&host, &fifth), [id_of(&fifth)]);
    let warnings = fifth["warnings"].to_string();
    assert!(warnings.contains(&named_anew.to_string()) && warnings.contains("all is stored anew"), "{warnings}");
    fs::remove_file(&file).unwrap();

    // Each has begun, and the report of each was true.
    let begun: Vec<BackupId> = repository.begun_backups(&name, facts.system_id).unwrap().iter().map(|b| b.id).collect();
    assert_eq!(begun, [&first, &second, &third, &fourth, &fifth].map(id_of));

    // Its own WAL: nothing can be stored anew.
    let tombstone = host.tombstone(|names| names.insert_segments(Timeline(1), 0, 10_000));
    let before = host.manifests();
    let words = ["0000000100000000", "tombstone", "does not count"];
    host.ran(&cluster, &[]).exits(16).says(&words).tells_the_way_out();
    assert_eq!(host.manifests(), before);
    assert!(repository.withdraw_tombstone(&name, facts.system_id, tombstone).unwrap());
    host.hand_over();
    host.backup(&cluster, &[]);
    cluster.stop(Stop::Fast);
}

#[test]
fn a_backup_that_expire_gave_up_fails_and_one_that_was_finished_first_stays() {
    let host = Host::new();
    let mut cluster = host.cluster("server", 17, &host.options());
    let first = host.backup(&cluster, &[]);
    let (repository, name, facts) = host.facts();
    let before = host.manifests();

    // It read the tombstones before this one was there, so it may refer to what it names.
    let (running, id) = host.begun(&cluster);
    let tombstone = host.tombstone(|names| names.insert_pack(PackId { backup: id_of(&first), number: 0 }));
    let deletion = repository.begin_deletion(&name, facts.system_id, tombstone).unwrap().unwrap();
    assert_eq!(deletion.given_up, [id]);
    host.hand_over();
    running.signal(Signal::SIGCONT);
    running.wait().exits(16).says(&[&id.to_string(), "was given up", "does not count"]).tells_the_way_out();
    assert_eq!(repository.backup_ids(&name, facts.system_id).unwrap(), [id_of(&first)]);
    assert_eq!(host.manifests(), before + 1, "the void");
    let listed = run_program(&mut host.command(&["--json", "list"])).exits(0).stdout;
    assert!(listed.contains(first["backup_id"].as_str().unwrap()) && !listed.contains(&id.to_string()), "{listed}");

    // This one is finished in time.
    let (running, id) = host.begun(&cluster);
    let tombstone = host.tombstone(|names| names.insert_pack(PackId { backup: id_of(&first), number: 0 }));
    running.signal(Signal::SIGCONT);
    running.wait().exits(0);
    let deletion = repository.begin_deletion(&name, facts.system_id, tombstone).unwrap().unwrap();
    assert_eq!(deletion.given_up, []);
    assert_eq!(repository.give_up(&name, facts.system_id, id, "a test").unwrap(), Given::Manifest);
    assert_eq!(repository.backup_ids(&name, facts.system_id).unwrap(), [id_of(&first), id]);
    cluster.stop(Stop::Fast);
}
