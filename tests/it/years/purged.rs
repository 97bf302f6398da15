//! `expire --confirm --purge-versions` by the program itself, in buckets of moto that keep versions or lock objects: of
//! what went no version is left, what stays keeps all of its own, and what is locked is held and told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode,
    VersioningConfiguration,
};
use serde_json::Value;
use walvis::store::Store as _;

use super::history::{History, Script};
use crate::support::command::Site;
use crate::support::s3::{Moto, open};
use crate::support::schema;

const RULES: &str = "[repository.retention]\nkeep_last = 1\ngrace = '1s'\n";
/// Longer than the grace period, by clocks of whole seconds.
const LATER: Duration = Duration::from_millis(2100);
const BUCKET: &str = "vault";

/// Whether it is of a backup or of the log.
fn is_content(name: &str) -> bool {
    ["/wal/", "/packs/", "/backups/"].iter().any(|part| name.contains(part))
}

/// How many versions there are of each name, and how many marks that hide it.
type Versions = BTreeMap<String, (usize, usize)>;

struct Vault {
    moto: Moto,
    site: Site,
}

impl Vault {
    /// A bucket with a history, after the first phase, whose grace period is over.
    fn new(has_locks: bool) -> Self {
        let moto = Moto::start();
        moto.create_bucket(BUCKET, has_locks);
        if !has_locks {
            let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            moto.admin(|c| c.put_bucket_versioning().bucket(BUCKET).versioning_configuration(on).send()).unwrap();
        }
        let mut site = Site::bare();
        for (name, value) in moto.env() {
            site.set(name, value);
        }
        site.configure(&format!("[[repository]]\nurl = \"s3://{BUCKET}/pg\"\n{RULES}"));
        let vault = Self { moto, site };
        let history = History::make(&Script::quiet(21, 4));
        for (_, key, bytes) in history.store.stored_in(i64::MIN, history.end) {
            vault.put(&format!("pg/{key}"), &bytes);
        }
        vault.expire(&[], 0);
        std::thread::sleep(LATER);
        vault
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let body = ByteStream::from(bytes.to_vec());
        self.moto.admin(|c| c.put_object().bucket(BUCKET).key(name).body(body).send()).unwrap();
    }

    /// Hides an object, as somebody does who deletes it past the program.
    fn hide(&self, name: &str) {
        self.moto.admin(|c| c.delete_object().bucket(BUCKET).key(name).send()).unwrap();
    }

    fn expire(&self, further: &[&str], code: i32) -> Value {
        let ran = self.site.run([&["expire", "--confirm", "--json"], further].concat()).exits(code);
        if ran.stdout.is_empty() {
            return Value::String(ran.stderr);
        }
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        schema::holds("expire", &report);
        report[0]["done"].clone()
    }

    fn versions(&self) -> Versions {
        let mut found = Versions::new();
        let mut after: (Option<String>, Option<String>) = (None, None);
        loop {
            let (key, version) = after;
            let page = self
                .moto
                .admin(|c| c.list_object_versions().bucket(BUCKET).set_key_marker(key).set_version_id_marker(version).send());
            let page = page.unwrap();
            for version in page.versions() {
                found.entry(version.key().unwrap().to_owned()).or_default().0 += 1;
            }
            for mark in page.delete_markers() {
                found.entry(mark.key().unwrap().to_owned()).or_default().1 += 1;
            }
            if page.is_truncated() != Some(true) {
                return found;
            }
            after = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
        }
    }

    /// Those of backups and of the log.
    fn content(&self) -> Versions {
        self.versions().into_iter().filter(|(name, _)| is_content(name)).collect()
    }

    /// The names of what a plan lets go: what the same history in a directory no longer has in the end.
    fn stays() -> BTreeSet<String> {
        let vault = Self::new(false);
        vault.expire(&[], 0);
        vault.content().into_iter().filter(|(_, (_, marks))| *marks == 0).map(|(name, _)| name).collect()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn no_version_is_left_of_what_went_and_all_of_what_stays() {
    let vault = Vault::new(false);
    let before = vault.content();
    assert!(before.values().all(|versions| *versions == (1, 0)));
    let backups: Vec<&String> = before.keys().filter(|name| name.contains("/backups/")).collect();
    let (going, staying) = (backups[0].clone(), (*backups.last().unwrap()).clone());
    // Of both there is an older version, and one that goes is hidden already. The last is another program's.
    for name in [&going, &staying] {
        let body = vault.moto.admin(|c| c.get_object().bucket(BUCKET).key(name).send()).unwrap().body;
        let bytes = vault.moto.admin(|_| body.collect()).unwrap().into_bytes();
        vault.put(name, &bytes);
    }
    let hidden = before.keys().find(|name| name.contains("/packs/")).unwrap().clone();
    vault.hide(&hidden);
    vault.put("pg/notes", b"of another program");
    vault.hide("pg/notes");

    let done = vault.expire(&["--purge-versions"], 0);
    let after = vault.content();
    let gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(gone.contains(&&going) && gone.contains(&&hidden), "{gone:?}");
    // Nothing is hidden: what is there is there.
    assert!(after.values().all(|(_, marks)| *marks == 0), "{after:?}");
    assert_eq!(after[&staying], (2, 0));
    assert!(after.iter().all(|(name, versions)| *name == staying || *versions == (1, 0)), "{after:?}");
    assert_eq!(after.keys().filter(|name| name.contains("/backups/")).count(), 1);
    assert!(number(&done["purged_objects"]) >= gone.len() as u64 && number(&done["purged_bytes"]) > 1000, "{done:#}");
    assert_eq!((number(&done["held_objects"]), number(&done["denied_objects"])), (0, 0));
    let versions = vault.versions();
    assert_eq!(versions["pg/notes"], (1, 1));
    // Each run makes a probe and deletes it, and this one took also those of earlier runs along.
    assert!(versions.keys().all(|name| !name.starts_with("pg/probe/")), "{versions:?}");
    vault.site.run(["verify", "--quick"]).exits(0);
    // The next run finds what led there, and what it left itself.
    std::thread::sleep(LATER);
    vault.expire(&["--purge-versions"], 0);
    assert_eq!(vault.content(), after);
}

#[test]
fn without_the_right_to_delete_versions_all_of_them_stay() {
    let vault = Vault::new(false);
    let before = vault.content();
    let all = r#"{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject","s3:DeleteObject"],"Resource":"arn:aws:s3:::vault/pg/*"},
                 {"Effect":"Allow","Action":["s3:ListBucket","s3:ListBucketVersions","s3:ListBucketMultipartUploads","s3:GetBucketVersioning","s3:GetBucketObjectLockConfiguration"],"Resource":"arn:aws:s3:::vault"}"#;
    let restricted = vault.moto.restrict(BUCKET, "pg", all);
    let mut site = vault.site.twin();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        site.unset(name);
    }
    site.set("AWS_SHARED_CREDENTIALS_FILE", restricted.credentials_file.clone().unwrap());
    let hidden = || {
        let mut names = BTreeSet::new();
        let store = open(restricted.clone());
        let listed = store.hidden("", "", &mut |hidden| {
            names.extend((!hidden.versions.is_empty()).then(|| hidden.key.to_string()));
            ControlFlow::Continue(())
        });
        listed.unwrap();
        names
    };
    let mut found = BTreeSet::new();
    for _ in 0..2 {
        let ran = site.run(["expire", "--confirm", "--purge-versions"]).exits(12).tells_the_way_out();
        ran.says(&["cannot remove versions", "s3:DeleteObjectVersion"]);
        assert!(hidden().is_superset(&found), "no version went");
        found = hidden();
        assert!(found.iter().filter(|name| name.contains("/packs/")).count() > 1, "{found:?}");
    }
    assert!(found.iter().all(|name| before.contains_key(&format!("pg/{name}")) || !is_content(name)), "{found:?}");
}

#[test]
fn what_is_locked_is_held_until_it_may_go() {
    let stays = Vault::stays();
    let vault = Vault::new(true);
    let before = vault.content();
    let doomed = |part: &str| {
        let of_part = before.keys().filter(|name| name.contains(part) && !stays.contains(*name));
        of_part.cloned().collect::<Vec<String>>()
    };
    // The pack is of a later backup than the manifest, which does not need it.
    let (locked, legal) = (doomed("/packs/").pop().unwrap(), doomed("/backups/")[0].clone());
    assert!(!stays.is_empty() && stays.len() < before.len());
    let until = jiff::Timestamp::now().as_second() + 86_400;
    let lock = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(DateTime::from_secs(until))
        .build();
    vault.moto.admin(|c| c.put_object_retention().bucket(BUCKET).key(&locked).retention(lock).send()).unwrap();
    let hold = |status| {
        let hold = ObjectLockLegalHold::builder().status(status).build();
        vault.moto.admin(|c| c.put_object_legal_hold().bucket(BUCKET).key(&legal).legal_hold(hold).send()).unwrap();
    };
    hold(ObjectLockLegalHoldStatus::On);

    let done = vault.expire(&["--purge-versions"], 0);
    let after = vault.content();
    assert_eq!((after[&locked], after[&legal]), ((1, 0), (1, 0)), "neither deleted nor hidden");
    assert!(number(&done["held_objects"]) >= 2 && number(&done["denied_objects"]) == 0, "{done:#}");
    assert!(done["held_until_at"].is_string() || done["held_until_at"].is_object(), "{done:#}");
    let text = vault.site.run(["expire", "--confirm", "--purge-versions"]).exits(0).stdout;
    assert!(text.contains("held"), "{text}");
    // What a backup needs that is held waits for it; nothing else does.
    assert!(after.len() < before.len() && after.values().all(|(_, marks)| *marks == 0), "{after:?}");

    // Lifted, it goes with all of its versions; the other is hidden by somebody, and held all the same.
    hold(ObjectLockLegalHoldStatus::Off);
    vault.hide(&locked);
    let done = vault.expire(&["--purge-versions"], 0);
    let after = vault.content();
    assert_eq!((after.get(&locked), after.get(&legal)), (Some(&(1, 1)), None), "{done:#}");
    assert!(number(&done["held_objects"]) >= 1, "{done:#}");
    // In the end nothing else is there that ought to be gone.
    std::thread::sleep(LATER);
    vault.expire(&["--purge-versions"], 0);
    let left: BTreeSet<String> = vault.content().into_keys().collect();
    let mut expected = stays;
    expected.insert(locked);
    assert_eq!(left, expected);
    vault.site.run(["verify", "--quick"]).exits(0);
}
