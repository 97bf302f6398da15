//! The threat model of docs/FORMAT.md, row by row: somebody who can write to the bucket, and what they get for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;
use walvis::crypto::{DataKey, KeyFile};
use walvis::format::descriptor::{Descriptor, KeyObject};

use crate::support::command::{Site, WALVIS, files_below, is_root, run};
use crate::support::s3::{Op, S3Server};
use crate::support::segment::{self, Content, Segment};

/// Changes a field of `walvis.json`, and makes the check fit again, which takes no key.
fn forge_descriptor(text: &[u8], field: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(text).unwrap();
    assert!(json.get(field).is_some());
    json[field] = value.into();
    let fields: String = ["format", "repository_id", "cipher", "create_if_absent", "created_unix_s"]
        .iter()
        .map(|name| format!("{name}={}\n", json[*name].as_str().map_or_else(|| json[*name].to_string(), str::to_owned)))
        .collect();
    json["check"] = blake3::hash(fields.as_bytes()).to_hex().to_string().into();
    serde_json::to_vec(&json).unwrap()
}

/// All files below a directory with their content.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The forged one is what its check says; without a key nothing more can be known, and this shows that the forgery is a
/// good one.
#[test]
fn a_rewritten_descriptor_opens_no_encrypted_repository() {
    for (field, value) in [
        ("create_if_absent", Value::from("claims")),
        ("created_unix_s", Value::from(1)),
        ("repository_id", Value::from("00112233445566778899aabbccddeeff")),
    ] {
        let site = Site::new();
        site.archive(&[1]);
        let descriptor = site.repository().join("walvis.json");
        fs::write(&descriptor, forge_descriptor(&fs::read(&descriptor).unwrap(), field, value.clone())).unwrap();
        let before = contents(&site.repository());
        let name = site.make(&Segment::new(2));
        site.push(&name).exits(14).tells_the_way_out().says(if field == "repository_id" {
            &["no data key"]
        } else {
            &["walvis.json"]
        });
        site.fetch_fails(&Segment::new(1).name(), 200);
        site.fetch_fails("00000002.history", 200);
        site.run(["init"]).exits(14).tells_the_way_out();
        assert_eq!(before, contents(&site.repository()), "{field}");
    }
    let site = Site::unencrypted();
    site.archive(&[1]);
    let descriptor = site.repository().join("walvis.json");
    fs::write(&descriptor, forge_descriptor(&fs::read(&descriptor).unwrap(), "create_if_absent", "claims")).unwrap();
    site.fetches(&Segment::new(1).name());
}

/// On a store that overwrites, writers that no longer announce themselves would destroy each other's objects.
#[test]
fn nobody_can_switch_off_the_announcements_of_writers() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let site = Site::on_s3(&server);
    site.archive(&[1]);
    let descriptor = server.objects("pg/walvis.json").remove("pg/walvis.json").unwrap();
    assert!(std::str::from_utf8(&descriptor).unwrap().contains("\"claims\""));
    server.insert("pg/walvis.json", &forge_descriptor(&descriptor, "create_if_absent", "store"));
    server.clear_log();
    let name = site.make(&Segment::new(2));
    site.push(&name).exits(14).says(&["walvis.json"]);
    assert_eq!(server.seen(Op::Put).len(), 0);
    // Put right again, it goes on.
    server.insert("pg/walvis.json", &descriptor);
    site.push(&name).exits(0);
}

/// Where they cannot be deleted, claims stay. Their names do not say that two objects hold the same.
#[test]
fn announcements_tell_nothing_of_contents() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let site = Site::on_s3(&server);
    server.clear_log();
    let segment = Segment::new(1);
    let partial = format!("{}.partial", segment.name());
    site.write(&partial, segment.bytes());
    site.archive(&[1]);
    site.push(&partial).exits(0);
    let puts = server.seen(Op::Put);
    let claims = puts.iter().map(|seen| seen.path.as_str()).filter(|path| path.contains("/claims/") && path.contains("/wal/"));
    let contents: Vec<&str> = claims.map(|key| key.rsplit_once('/').unwrap().1.split_once('-').unwrap().0).collect();
    assert_eq!((contents.len(), contents.iter().collect::<BTreeSet<_>>().len()), (2, 2), "{contents:?}");
}

/// Two hosts with repositories of their own under one key: the first, and where the second keeps its repository. What
/// they hold differs.
fn two_of_one_key() -> (Site, Site) {
    let production = Site::new();
    let mut staging = Site::without_repository();
    // The key as it was generated, before it belonged to production.
    let key = fs::read_to_string(production.path("key")).unwrap();
    fs::write(staging.path("key"), key.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    staging.init();
    staging.set("WALVIS_CLUSTER", "main");
    production.archive(&[1]);
    let segment = Segment::new(1).holding(Content::Noise(7));
    staging.write(&segment.name(), segment.bytes());
    staging.push(&segment.name()).exits(0);
    (production, staging)
}

/// Puts all of one repository in place of another.
fn replace(ours: &Site, theirs: &Site) {
    fs::rename(ours.repository(), ours.path("aside")).unwrap();
    copy_tree(&theirs.repository(), &ours.repository());
}

fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Gives a tree to another user.
fn give(tree: &Path, user: &str) {
    assert!(std::process::Command::new("chown").args(["-R", user]).arg(tree).status().unwrap().success());
}

fn id_of(site: &Site) -> String {
    let json: Value = serde_json::from_slice(&fs::read(site.repository().join("walvis.json")).unwrap()).unwrap();
    json["repository_id"].as_str().unwrap().to_owned()
}

#[test]
fn another_repository_of_the_same_key_does_not_pass_for_ours() {
    let (production, staging) = two_of_one_key();
    let (ours, theirs) = (id_of(&production), id_of(&staging));
    replace(&production, &staging);
    let key = fs::read_to_string(production.path("key")).unwrap();
    let before = contents(&production.repository());
    let name = Segment::new(1).name();
    production.push(&name).exits(16).tells_the_way_out().says(&[&ours, &theirs, &format!("walvis-repository-1:{theirs}:1")]);
    production.fetch_fails(&name, 200).says(&[&ours, &theirs]);
    production.run(["list"]).exits(16).says(&[&theirs]);
    production.run(["catalog"]).exits(16).says(&[&theirs]);
    production.run(["resolve", "--target", "latest"]).exits(16).says(&[&theirs]);
    let restored = production.path("restored");
    let arguments = ["pitr-restore", "--target", "latest", "--pgdata", restored.to_str().unwrap()];
    production.run(arguments).exits(16).says(&[&theirs]);
    assert!(!restored.exists());
    production.run(["check", "--no-server"]).exits(18);
    production.run(["init"]).exits(16).tells_the_way_out().says(&[&theirs, "--share-key"]);
    assert_eq!((key.clone(), before), (fs::read_to_string(production.path("key")).unwrap(), contents(&production.repository())));
    // A copy of our own has our id, wherever it is.
    fs::remove_dir_all(production.repository()).unwrap();
    copy_tree(&production.path("aside"), &production.repository());
    production.fetches(&name);
    // Whoever means the other one says so.
    let mut reader = production.twin();
    reader.set("WALVIS_REPOSITORY", format!("file://{}", staging.repository().display()));
    reader.fetch_fails(&name, 200);
    fs::write(production.path("key"), format!("{key}walvis-repository-1:{theirs}\n")).unwrap();
    reader.fetch(&name).exits(0);
}

#[test]
fn objects_copied_between_buckets_do_not_pass_either() {
    let server = S3Server::start();
    let production = Site::on_s3(&server);
    let mut staging = production.twin();
    staging.use_s3(&server, "staging");
    staging.init_sharing_the_key();
    let key = fs::read_to_string(production.path("key")).unwrap();
    assert_eq!(key.matches("walvis-repository-1:").count(), 2, "{key}");
    // The key of production's host is as it was before.
    fs::write(production.path("key"), key.trim_end().rsplit_once('\n').unwrap().0).unwrap();
    production.archive(&[1]);
    for (name, body) in server.objects("staging/") {
        server.insert(&name.replacen("staging/", "pg/", 1), &body);
    }
    production.push(&Segment::new(1).name()).exits(16).says(&["belongs to"]);
    production.fetch_fails(&Segment::new(1).name(), 200);
}

/// A key that belongs to nothing yet opens whatever it opens: `check` says so, and `init` mends it.
#[test]
fn a_key_comes_to_know_its_repository() {
    let (production, staging) = two_of_one_key();
    let path = production.path("key");
    let bound = fs::read_to_string(&path).unwrap();
    let unbound: String = bound.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&path, &unbound).unwrap();
    let note = |site: &Site| {
        let report: Value = serde_json::from_str(&site.run(["--json", "check", "--no-server"]).exits(0).stdout).unwrap();
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().find(|f| f["message"].as_str().unwrap().contains("this repository that is meant"))
    };
    let found = note(&production).unwrap();
    assert_eq!(found["severity"], "note");
    assert!(found["hint"].as_str().unwrap().contains(&format!("walvis-repository-1:{}:1", id_of(&production))), "{found}");
    replace(&production, &staging);
    production.fetch(&Segment::new(1).name()).exits(0);
    fs::remove_file(production.destination()).unwrap();
    fs::remove_dir_all(production.repository()).unwrap();
    fs::rename(production.path("aside"), production.repository()).unwrap();
    let said = production.run(["init"]).exits(0).stdout;
    assert!(said.contains("belongs to it now"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), bound);
    assert!(note(&production).is_none());
    // Once is enough.
    production.init();
    assert_eq!(fs::read_to_string(&path).unwrap(), bound);
}

/// A key file that is not ours to write: the line is printed, and serves when it is added by hand.
#[test]
fn a_key_file_that_cannot_be_written_is_not() {
    let site = Site::without_repository();
    let (path, real) = (site.path("key"), site.path("real"));
    fs::rename(&path, &real).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let before = fs::read_to_string(&real).unwrap();
    let said = site.run(["init"]).exits(0).stdout;
    let line = format!("walvis-repository-1:{}:1", id_of(&site));
    assert!(said.contains("symbolic link") && said.lines().any(|l| l.trim() == line), "{said}");
    assert_eq!(fs::read_to_string(&real).unwrap(), before);
    fs::write(&real, format!("{before}{line}\n")).unwrap();
    assert!(!site.run(["init"]).exits(0).stdout.contains(&line));
    site.archive(&[1]);
    if is_root() {
        let site = Site::without_repository();
        let path = site.path("key");
        let before = fs::read_to_string(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(site.run(["init"]).exits(0).stdout.contains("another user"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}

/// As the README sets it up: the key is root's, readable for the server's group, and the repository is the server's.
/// Root makes both known to each other, and what is written stays whose it was. A limit on the length of files stands
/// for the disk: of the line only the beginning fits.
#[test]
fn a_key_file_on_a_full_disk_stays_as_it_was() {
    const LIMIT: usize = 4096;
    let site = Site::without_repository();
    let path = site.path("key");
    let mut key = fs::read_to_string(&path).unwrap();
    let room = LIMIT - 20 - key.len();
    key.push_str(&format!("#{}\n", "x".repeat(room - 2)));
    fs::write(&path, &key).unwrap();
    let limited = format!("trap '' XFSZ; exec prlimit --fsize={LIMIT} \"$@\"");
    let mut init = site.wrapped(["sh", "-c", &limited, "sh"], [WALVIS, "init"]);
    init.env("PATH", "/usr/bin:/bin");
    let ran = run(&mut init).exits(0);
    let line = format!("walvis-repository-1:{}:1", id_of(&site));
    assert!(ran.stdout.contains(&line), "the line is printed for the operator: {ran:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    // Half a line would have spoiled the key for every command.
    site.run(["list"]).exits(0);
}

#[test]
fn root_ties_its_key_to_the_servers_repository() {
    if !is_root() {
        return;
    }
    let site = Site::without_repository();
    let (key, data) = (site.path("key"), site.data());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(site.repository()).unwrap();
    give(&site.repository(), "nobody");
    give(&data, "nobody");
    std::os::unix::fs::chown(&key, None, Some(group)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(&key).unwrap().ino();
    let said = site.run(["init", "--pgdata", data.to_str().unwrap()]).exits(0).stdout;
    assert!(said.contains("belongs to it now"), "{said}");
    let after = fs::metadata(&key).unwrap();
    assert_eq!((after.ino(), after.uid(), after.gid(), after.mode() & 0o777), (inode, 0, group, 0o640));
    assert!(fs::read_to_string(&key).unwrap().ends_with(&format!("walvis-repository-1:{}:1\n", id_of(&site))));
    for path in files_below(&site.repository()) {
        assert_eq!(fs::metadata(&path).unwrap().uid(), user, "{}", path.display());
    }
}

/// Repositories of one settings file share a key; one of other settings only when that is said.
#[test]
fn a_key_is_shared_on_purpose_only() {
    let mut site = Site::bare();
    let repository = |name: &str, further: &str| {
        format!("[[repository]]\nurl = \"file://{}\"\nkey_file = {:?}\n{further}", site.path(name).display(), site.path("key"))
    };
    let (one, two, three) = (repository("one", ""), repository("two", ""), repository("three", ""));
    site.configure(&one);
    site.init();
    site.configure(&format!("{two}{one}"));
    site.init();
    let key = fs::read_to_string(site.path("key")).unwrap();
    assert_eq!(key.matches("walvis-repository-1:").count(), 2, "{key}");
    site.archive(&[1]);
    site.configure(&three);
    site.run(["init"]).exits(16).tells_the_way_out().says(&["belongs to repository", "key generate", "--share-key"]);
    assert_eq!(files_below(&site.path("three")), [] as [std::path::PathBuf; 0]);
    site.init_sharing_the_key();
    site.archive(&[1]);
    assert_eq!(fs::read_to_string(site.path("key")).unwrap().matches("walvis-repository-1:").count(), 3);
}

/// What has no key file says in the settings, or the environment, which repository it means.
#[test]
fn passphrases_and_commands_have_the_id_in_the_settings() {
    let command = |site: &Site| format!("cat '{}'", site.path("own.key").display());
    for kind in ["passphrase_file", "key_command", "environment"] {
        let mut site = Site::bare();
        fs::write(site.path("secret"), "correct horse battery staple\n").unwrap();
        fs::copy(site.path("key"), site.path("own.key")).unwrap();
        let url = format!("file://{}", site.repository().display());
        let key = match kind {
            "key_command" => format!("key_command = {:?}", command(&site)),
            _ => format!("passphrase_file = {:?}", site.path("secret")),
        };
        let settings = |id: &str| format!("[[repository]]\nurl = {url:?}\n{key}\n{id}\n");
        site.configure(&settings(""));
        let said = site.run(["init"]).exits(0).stdout;
        let id = id_of(&site);
        let line = if kind == "key_command" { format!("walvis-repository-1:{id}:1") } else { format!("id = \"{id}:1\"") };
        assert!(said.lines().any(|l| l.trim() == line), "{said}");
        site.archive(&[1]);
        let name = Segment::new(1).name();
        let (right, wrong) = (format!("{id}:1"), "0".repeat(32));
        for (value, code) in [(&right, 0), (&id, 0), (&wrong, 16)] {
            if kind == "environment" {
                site.set("WALVIS_REPOSITORY_ID", value.as_str());
            } else {
                site.configure(&settings(&format!("id = {value:?}")));
            }
            let ran = site.push(&name).exits(code);
            assert!(code == 0 || ran.stderr.contains(&id), "{ran:?}");
        }
        // Nothing is there: the id that is meant cannot be made.
        fs::remove_dir_all(site.repository()).unwrap();
        site.run(["init"]).exits(16).tells_the_way_out().says(&[&wrong, "an id of its own"]);
        assert!(!site.repository().join("walvis.json").exists());
    }
}

/// A second data key, as a rotation makes it; the name of its object.
fn rotate(site: &Site) -> std::path::PathBuf {
    let file = KeyFile::parse(&fs::read_to_string(site.path("key")).unwrap()).unwrap();
    let descriptor = Descriptor::parse(&fs::read(site.repository().join("walvis.json")).unwrap()).unwrap();
    let data_key = DataKey::generate().unwrap();
    let (key_id, generation) = (data_key.id(), 2);
    let object = KeyObject {
        repository_id: descriptor.repository_id,
        key_id,
        generation,
        wrapping_key_id: file.key.id(),
        argon2id: None,
        wrapped: file.key.wrap(&data_key, &KeyObject::associated(&descriptor, key_id, generation)).unwrap(),
        created_unix_s: descriptor.created_unix_s,
    };
    let path = site.repository().join(format!("keys/{key_id}/{}.json", file.key.id()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, object.encode()).unwrap();
    path
}

/// Whoever has an earlier data key deletes the newer one, so that what is pushed is sealed with the earlier one again.
#[test]
fn a_newer_data_key_that_is_gone_is_missed() {
    let site = Site::new();
    site.archive(&[1]);
    let newer = rotate(&site);
    site.archive(&[2]);
    let sealed_with = |number: u64| fs::read(site.object(&Segment::new(number).name())).unwrap()[16..32].to_vec();
    let newer_id = hex::decode(newer.parent().unwrap().file_name().unwrap().to_str().unwrap()).unwrap();
    assert!(sealed_with(1) != newer_id && sealed_with(2) == newer_id);
    let key = fs::read_to_string(site.path("key")).unwrap();
    let path = site.path("key");
    // What a rotation has to see to.
    fs::write(&path, key.replace(":1\n", ":2\n")).unwrap();
    let object = fs::read(&newer).unwrap();
    fs::remove_file(&newer).unwrap();
    let three = site.make(&Segment::new(3));
    site.push(&three).exits(14).tells_the_way_out().says(&["generation 1", "generation 2", "keys/"]);
    site.fetch_fails(&Segment::new(1).name(), 200).says(&["generation"]);
    assert!(!site.stored().contains(&three));
    // A key file that knows of no newer one lets writers go back; what was sealed with it is never called absent.
    fs::write(&path, &key).unwrap();
    site.push(&three).exits(0);
    assert!(sealed_with(3) != newer_id);
    site.fetch_fails(&Segment::new(2).name(), 200).says(&["data key"]);
    fs::write(&newer, object).unwrap();
    for number in [1, 2, 3] {
        site.fetches(&Segment::new(number).name());
    }
}

/// In an unencrypted repository nothing stands in the way: what comes back is what the attacker chose.
#[test]
fn who_writes_to_an_unencrypted_repository_chooses_what_comes_back() {
    let (mine, other) = (Site::unencrypted(), Site::unencrypted());
    let warned = mine.run(["init", "--unencrypted"]).exits(0);
    assert!(warned.stderr.contains("can run programs as the server's user"), "{warned:?}");
    mine.archive(&[1]);
    // The attacker's own program, at our repository.
    fs::remove_dir_all(mine.repository().join("clusters/main").join(segment::SYSTEM_ID.to_string())).unwrap();
    let forged = Segment::new(1).holding(Content::Noise(9));
    let mut attacker = other;
    attacker.set("WALVIS_REPOSITORY", format!("file://{}", mine.repository().display()));
    attacker.write(&forged.name(), forged.bytes());
    attacker.push(&forged.name()).exits(0);
    mine.fetch(&forged.name()).exits(0);
    assert!(fs::read(mine.destination()).unwrap() == forged.bytes());
    // Without a key the same ends at an encrypted one.
    let encrypted = Site::new();
    encrypted.archive(&[1]);
    attacker.set("WALVIS_REPOSITORY", format!("file://{}", encrypted.repository().display()));
    attacker.push(&forged.name()).exits(10).says(&["no key"]);
    fs::copy(mine.object(&forged.name()), encrypted.object(&forged.name())).unwrap();
    encrypted.fetch_fails(&forged.name(), 200).says(&["not encrypted"]);
    // A directory that everybody can write to is a problem where it is not encrypted.
    let check = |site: &Site, code: i32| site.run(["--json", "check", "--no-server"]).exits(code).stdout;
    assert!(check(&mine, 0).contains("can run programs as the server's user"));
    for (site, code) in [(&mine, 18), (&encrypted, 0)] {
        // Root relies on no directory of its own that others can write to, whatever is in it.
        if is_root() {
            give(&site.repository(), "nobody");
        }
        fs::set_permissions(site.repository(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check(site, code).contains("every user of this host") == (code == 18));
    }
}

/// What is gone at the end cannot be told from what was never archived; what is gone in the middle is missed. A
/// repository that is set back to an earlier state takes up again what is pushed.
#[test]
fn what_is_withheld_is_missed_in_the_middle() {
    let site = Site::new();
    site.archive(&[1, 2]);
    copy_tree(&site.repository(), &site.path("earlier"));
    site.archive(&[3, 4]);
    let object = site.object(&Segment::new(3).name());
    let bytes = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    site.fetch_fails(&Segment::new(3).name(), 200).says(&["missing"]);
    fs::write(&object, bytes).unwrap();
    site.fetches(&Segment::new(3).name());
    fs::remove_dir_all(site.repository()).unwrap();
    fs::rename(site.path("earlier"), site.repository()).unwrap();
    site.fetch_fails(&Segment::new(3).name(), 1);
    site.archive(&[3, 4]);
    site.fetches(&Segment::new(4).name());
}
