//! What protects a bucket, as `check` says it; and the policies that `check --policies` prints, given to moto: with
//! them a host can do its work, and no more. Of conditions, and of what only other accounts do, moto knows nothing.

use serde_json::Value;
use walvis::limits::PART_BYTES;
use walvis::store::s3::S3Settings;
use walvis::store::{Created, Deleted, ErrorKind, Store};

use super::{create, id, key, list, names, noise, read_all, refuses};
use crate::support::command::Site;
use crate::support::s3::{Action, Moto, Op, S3Server, open};
use crate::support::schema;

/// What is printed for a repository.
fn printed(url: &str) -> Value {
    let site = Site::bare();
    let printed = site.run(["--json", "check", "--policies", "--repository", url]).exits(0).stdout;
    let mut policies: Value = serde_json::from_str(&printed).unwrap();
    schema::holds("check-policies", &policies);
    assert_eq!(policies.as_array().map(Vec::len), Some(1));
    policies[0].take()
}

/// Settings of a store as a user with this policy.
fn restricted(moto: &Moto, policy: &Value) -> S3Settings {
    let statements: Vec<String> = policy["Statement"].as_array().unwrap().iter().map(Value::to_string).collect();
    moto.restrict("backups", "pg", &statements.join(","))
}

/// What every host does.
fn works(store: &dyn Store) {
    assert_eq!(create(store, "a", b"x").unwrap(), Created::New);
    assert_eq!(create(store, "a", b"y").unwrap(), Created::Exists);
    assert_eq!(read_all(store, "a").unwrap(), b"x");
    refuses(read_all(store, "b"), ErrorKind::NotFound, "", "");
    let body = noise(PART_BYTES + 77, 1);
    let mut upload = store.begin(&key("large"), &id(&body)).unwrap();
    for part in body.chunks(PART_BYTES) {
        upload.part(bytes::Bytes::copy_from_slice(part)).unwrap();
    }
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    let mut dropped = store.begin(&key("dropped"), &id(b"")).unwrap();
    dropped.part(bytes::Bytes::from_static(b"x")).unwrap();
    drop(dropped);
    assert_eq!(names(&list(store, "", "").unwrap()), ["a", "large"]);
    assert_eq!(store.features().unwrap(), walvis::store::features::Features::none(), "it may ask");
}

#[test]
fn a_writing_host_can_do_its_work_and_delete_nothing() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let settings = restricted(&moto, &printed("s3://backups/pg")["writing_host"]);
    let store = open(settings.clone());
    works(&store);
    refuses(store.delete(&key("a")), ErrorKind::Denied, "AccessDenied", "");
    let outcomes = store.delete_many(&[key("a"), key("large")]).unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Deleted::Denied(_))), "{outcomes:?}");
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
    let outside = open(S3Settings { prefix: "other".to_owned(), ..settings });
    refuses(create(&outside, "a", b"x"), ErrorKind::Denied, "AccessDenied", "");
}

#[test]
fn an_expiring_host_can_delete_objects() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let settings = restricted(&moto, &printed("s3://backups/pg")["expiring_host"]);
    let store = open(settings.clone());
    works(&store);
    assert_eq!(store.delete_many(&[key("a"), key("large")]).unwrap(), vec![Deleted::Gone; 2]);
    assert!(list(&store, "", "").unwrap().is_empty());
    assert_eq!(store.leftovers(std::time::Duration::ZERO).unwrap(), []);
    let outside = open(S3Settings { prefix: "other".to_owned(), ..settings });
    refuses(outside.delete(&key("a")), ErrorKind::Denied, "AccessDenied", "");
}

/// AWS's grammar of policies, as far as moto checks it: the others would be refused.
#[test]
fn every_policy_is_taken_by_the_service() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let policies = printed("s3://backups/pg");
    restricted(&moto, &policies["purging_host"]);
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    let bucket = policies["bucket"].to_string();
    moto.admin(|c| c.put_bucket_policy().bucket("backups").policy(&bucket).send()).unwrap();
    let taken = moto.admin(|c| c.get_bucket_policy().bucket("backups").send()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(taken.policy().unwrap()).unwrap(), policies["bucket"]);
}

#[test]
fn policies_are_printed_for_people_and_only_where_there_are_any() {
    let site = Site::bare();
    let text = site.run(["check", "--policies", "--repository", "s3://backups/pg"]).exits(0).stdout;
    for word in ["s3:if-none-match", "EXPIRING-HOST", "IAM policy of the host that expires:", "arn:aws:s3:::backups/pg/*"] {
        assert!(text.contains(word), "{text}");
    }
    // Each document can be taken as it stands there.
    let documents: Vec<Value> = text
        .split("\n\n")
        .filter_map(|part| part.split_once(":\n{").map(|(_, rest)| serde_json::from_str(&format!("{{{rest}")).unwrap()))
        .collect();
    assert_eq!(documents.len(), 4);
    assert_eq!(documents[0], printed("s3://backups/pg")["writing_host"]);

    let local = format!("file://{}", site.path("repository").display());
    site.run(["check", "--policies", "--repository", &local]).exits(2).tells_the_way_out().says(&["no repository is in S3"]);
    site.run(["check", "--policies", "--no-server", "--repository", "s3://backups/pg"]).exits(2);
    // Nothing is asked.
    let server = S3Server::start();
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    server.clear_log();
    site.run(["check", "--policies"]).exits(0);
    assert!(server.log().is_empty());
}

/// What `check` says of the one repository of a site, and the messages of its findings.
fn check(site: &Site) -> (Value, String) {
    let mut report: Value = serde_json::from_str(&site.run(["--json", "check", "--no-server"]).exits(0).stdout).unwrap();
    schema::holds("check", &report);
    let messages: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["message"].as_str().unwrap()).collect();
    let messages = messages.join("\n");
    (report["repositories"][0]["protection"].take(), messages)
}

/// A host whose repository is in moto, with more settings of the store. Moto lets two writers through now and then:
/// with `claims` in use, a check that catches it at that has something to note, and not to fail for.
fn on_moto(moto: &Moto, bucket: &str, more: &str) -> Site {
    let mut site = Site::bare();
    for (name, value) in moto.env() {
        site.set(name, value);
    }
    let key = site.get("WALVIS_KEY_FILE").unwrap();
    site.configure(&format!(
        "[[repository]]\nurl = \"s3://{bucket}/pg\"\nkey_file = {key:?}\ncreate_if_absent = \"claims\"\n[repository.s3]\n\
         endpoint = \"{}\"\npath_style = true\n{more}",
        moto.settings(bucket, "pg").endpoint.unwrap()
    ));
    site
}

#[test]
fn a_check_says_what_protects_a_bucket() {
    let moto = Moto::start();
    moto.create_bucket("plain", false);
    moto.create_bucket("vault", true);
    let plain = on_moto(&moto, "plain", "");
    plain.init();
    let (protection, said) = check(&plain);
    let expected = serde_json::json!({
        "versioning": "off", "object_lock": "off", "lock_mode": null, "lock_days": null, "refuses_replacing": false
    });
    assert_eq!(protection, expected);
    assert!(said.contains("can delete the backups") && said.contains("can replace objects"), "{said}");

    let vault = on_moto(&moto, "vault", "object_lock_mode = \"governance\"\nobject_lock_days = 30\n");
    vault.init();
    let (protection, said) = check(&vault);
    let expected = serde_json::json!({
        "versioning": "on", "object_lock": "on", "lock_mode": "governance", "lock_days": 30, "refuses_replacing": false
    });
    assert_eq!(protection, expected);
    assert!(said.contains("younger than 30 days") && said.contains("keeps versions") && !said.contains("can replace"), "{said}");
    let text = vault.run(["check", "--no-server"]).exits(0).stdout;
    assert!(text.contains("object lock: yes, new objects for 30 days (governance)"), "{text}");
}

#[test]
fn a_check_sees_a_policy_and_says_what_it_cannot_see() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    server.hook(|seen| match (seen.op, seen.header("if-none-match")) {
        (Op::Put, None) => Action::s3_error(403, "AccessDenied", "explicit deny"),
        (Op::Settings, _) => Action::s3_error(403, "AccessDenied", "implicit deny"),
        _ => Action::Pass,
    });
    let (protection, said) = check(&site);
    assert_eq!((&protection["refuses_replacing"], &protection["versioning"]), (&true.into(), &"unknown".into()));
    assert!(said.contains("does not say whether it keeps versions") && !said.contains("can replace"), "{said}");
    assert!(server.objects("pg/probe/").is_empty(), "nothing is left behind");

    let (protection, said) = check(&Site::new());
    assert_eq!((&protection["refuses_replacing"], &protection["versioning"]), (&Value::Null, &"off".into()));
    assert!(!said.contains("can replace") && !said.contains("versions"), "{said}");
}
