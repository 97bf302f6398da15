//! Two servers promoted off one segment: what recovery never asks for does not stop archiving, and what it asks for is
//! never guessed.

use std::fs;
use std::path::Path;

use crate::recovery::Archive;
use crate::support::command::Site;
use crate::support::postgres::{Cluster, Options, Recovery, Role, Scratch, poll, run};
use crate::support::segment::{self, Content, Segment};

#[track_caller]
fn promoted(cluster: &mut Cluster, timeline: u32) {
    match cluster.wait_recovery() {
        Recovery::Promoted => assert_eq!(cluster.timeline(), timeline),
        Recovery::Exited(status) => cluster.fail(&format!("recovery ended with {status}")),
    }
}

#[test]
fn of_two_promotions_off_one_segment_both_partials_are_kept() {
    let scratch = Scratch::new();
    let archive = Archive::walvis(&scratch);
    let options = Options { wal_segsize_mib: 1, ..archive.options() };
    let mut primary = Cluster::init(&scratch, "primary", 16, &options);
    primary.start();
    primary.sql("create table t(i int)");
    let backup = primary.backup_to("base");
    primary.switch_and_archive();
    primary.sql("insert into t values(1)");
    primary.kill();

    // The first one is promoted, archives what it has to, and its host is lost.
    let mut first = Cluster::restore(&scratch, "first", &backup, Role::Recovery, &options);
    assert!(primary.save_wal(&first) > 0);
    first.spawn();
    promoted(&mut first, 2);
    let partials = || {
        let mut names: Vec<String> = archive
            .objects("00000001")
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .filter(|name| name.contains(".partial"))
            .collect();
        names.sort();
        names
    };
    assert!(poll(|| (partials().len() == 1).then_some(())).is_some(), "{}", first.log());
    first.destroy();

    // The old primary had gone on in the same segment, and the second one is promoted off that.
    primary.configure(&Options { archive_command: Some("true".into()), ..options.clone() });
    primary.start();
    primary.sql("insert into t values(2)");
    primary.kill();
    let current = options.clone().setting("recovery_target_timeline", "current");
    let mut second = Cluster::restore(&scratch, "second", &backup, Role::Recovery, &current);
    assert!(primary.save_wal(&second) > 0);
    second.spawn();
    promoted(&mut second, 3);
    second.sql("insert into t values(3)");
    second.switch_and_archive();
    let kept = partials();
    assert_eq!(kept, [kept[0].clone(), format!("{}.2", kept[0])]);
    let log = second.log();
    assert!(log.contains(&format!("kept beside it as {}", kept[1])), "{log}");
    assert!(!log.contains("archive command failed"), "{log}");

    // Both are listed and can be fetched, each with its own content; and recovery goes the second one's way.
    let walvis = |arguments: &str| {
        let walvis = archive.archive_command.strip_suffix(" push-wal %p").unwrap();
        run(scratch.command(Path::new("sh")).arg("-c").arg(format!("{walvis} {arguments}")).current_dir(&second.data))
    };
    let listed = walvis("list --files");
    let [one, two] = [0, 1].map(|n| {
        assert!(listed.lines().any(|line| line.ends_with(&kept[n])), "{listed}");
        walvis(&format!("fetch-wal {} fetched{n}", kept[n]));
        fs::read(second.data.join(format!("fetched{n}"))).unwrap()
    });
    assert!(one != two && one.len() == two.len());
    let mut third = Cluster::restore(&scratch, "third", &backup, Role::Recovery, &options);
    third.spawn();
    promoted(&mut third, 4);
    assert_eq!(third.sql("select string_agg(i::text, ' ' order by i) from t"), "1 2 3");

    // One that does not see the archive takes timeline 2, which is taken. Its history is what a recovery goes by: it is
    // refused.
    let sees_segments = format!("case %f in *.history) exit 1;; esac; {}", archive.options().restore_command.unwrap());
    let blind = Options { restore_command: Some(sees_segments), ..options };
    let mut fourth = Cluster::restore(&scratch, "fourth", &backup, Role::Recovery, &blind);
    assert!(primary.save_wal(&fourth) > 0);
    fourth.spawn();
    promoted(&mut fourth, 2);
    let said = poll(|| fourth.log().contains("two servers were promoted to timeline 2").then_some(()));
    assert!(said.is_some(), "{}", fourth.log());
}

#[test]
fn what_recovery_never_asks_for_is_kept_beside_what_has_its_name() {
    let site = Site::new();
    let segment = Segment::new(3);
    let (backup, text) = segment::backup(&segment);
    let partial = format!("{}.partial", segment.name());
    let contents =
        |n: u64| [segment.holding(Content::Records(n)).bytes(), text.replace("LABEL: x", &format!("LABEL: {n}")).into()];
    for n in 1..=3 {
        for (name, content) in [&partial, &backup].into_iter().zip(contents(n)) {
            site.write(name, content);
            let ran = site.push(name).exits(0);
            assert_eq!(ran.stderr.contains("is kept beside it as"), n > 1, "{}", ran.stderr);
            // Again, as after a lost answer: nothing is stored twice, and nothing is said twice.
            assert_eq!(site.push(name).exits(0).stderr, "");
        }
    }
    let ran = site.run(["push-wal", "--json", &format!("pg_wal/{partial}")]).exits(0);
    assert!(ran.stdout.contains(&format!("\"stored_as\": \"{partial}.3\"")), "{}", ran.stdout);
    let names = |name: &str| [name.to_owned(), format!("{name}.2"), format!("{name}.3")];
    assert_eq!(site.stored(), [names(&backup), names(&partial)].concat());
    for n in 1..=3 {
        for (name, content) in [&partial, &backup].into_iter().zip(contents(n as u64)) {
            site.write(&names(name)[n - 1], content);
            site.fetches(&names(name)[n - 1]);
        }
    }
    site.fetch_fails(&format!("{partial}.4"), 1);

    // Damaged in the repository or on this disk: it does not keep archiving from going on either.
    let object = site.object(&partial);
    fs::write(&object, "damaged").unwrap();
    site.write(&partial, &contents(4)[0]);
    site.push(&partial).exits(0);
    site.fetch_fails(&partial, 200).says(&["damaged"]);
    for (name, bytes) in [(&partial, vec![0; 8192]), (&backup, Vec::new())] {
        site.write(name, bytes);
        site.push(name).exits(0).says(&[name, "not what its name says", "recovery never asks for it"]);
    }
}
