//! Credentials that change while a store is open, and those that can't be had.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;
use walvis::limits::MIB;
use walvis::store::retry::Retry;
use walvis::store::s3::S3Settings;
use walvis::store::{Created, ErrorKind};

use super::{create, read_all, refuses};
use crate::conformance::{deadline, quick};
use crate::support::command::{Ran, Site};
use crate::support::s3::{ACCESS_KEY, Action, OTHER_ACCESS_KEY, Op, S3Server, SECRET_KEY, credentials, open};
use crate::support::segment::{self, Content, Segment};

/// A credentials file, and a store that is retried with it.
struct Rotating {
    server: S3Server,
    dir: TempDir,
    /// Requests that were refused.
    refused: Arc<AtomicUsize>,
}

impl Rotating {
    fn new() -> Self {
        Self { server: S3Server::start(), dir: TempDir::new().unwrap(), refused: Arc::default() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    fn store(&self) -> Retry {
        let settings = S3Settings { credentials_file: Some(self.file()), ..self.server.settings("pg") };
        Retry::new(Arc::new(open(settings)), quick(), deadline())
    }

    /// From now on the first key is refused.
    fn refuse(&self, status: u16, code: &'static str) {
        self.refuse_and(status, code, |_| {});
    }

    /// The same; and tells of the how many-th refusal it is.
    fn refuse_and(&self, status: u16, code: &'static str, and: impl Fn(usize) + Send + Sync + 'static) {
        let refused = Arc::clone(&self.refused);
        refused.store(0, Ordering::SeqCst);
        self.server.hook(move |seen| {
            if !seen.header("authorization").unwrap().contains(ACCESS_KEY) {
                return Action::Pass;
            }
            and(refused.fetch_add(1, Ordering::SeqCst) + 1);
            Action::s3_error(status, code, "The provided token has expired.")
        });
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

/// As an agent replaces it.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[test]
fn a_file_with_new_ones_is_read_again() {
    for (status, code) in [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "AccessDenied")] {
        let site = Rotating::new();
        replace(&site.file(), &credentials(ACCESS_KEY, SECRET_KEY));
        let store = site.store();
        assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
        replace(&site.file(), &credentials(OTHER_ACCESS_KEY, SECRET_KEY));
        site.refuse(status, code);
        // Many at once: all go on.
        std::thread::scope(|scope| {
            for n in 0..6 {
                let store = &store;
                scope.spawn(move || assert_eq!(create(store, &format!("b{n}"), b"y").unwrap(), Created::New, "{code}"));
            }
        });
        assert!((1..=6).contains(&site.refused()), "{code}: {}", site.refused());
        let before = site.refused();
        assert_eq!(read_all(&store, "a").unwrap(), b"x");
        assert_eq!(site.refused(), before, "{code}: the old ones are used no more");
    }
}

#[test]
fn new_ones_that_come_a_little_late_are_waited_for() {
    let site = Rotating::new();
    replace(&site.file(), &credentials(ACCESS_KEY, SECRET_KEY));
    let store = site.store();
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    let file = site.file();
    site.refuse_and(400, "ExpiredToken", move |nth| {
        if nth == 4 {
            replace(&file, &credentials(OTHER_ACCESS_KEY, SECRET_KEY));
        }
    });
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
    assert!(site.refused() >= 4);
}

#[test]
fn what_is_denied_with_the_same_ones_is_denied_at_once() {
    let site = Rotating::new();
    replace(&site.file(), &credentials(ACCESS_KEY, SECRET_KEY));
    let store = site.store();
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    for (status, code) in [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch")] {
        site.refuse(status, code);
        assert!(refuses(read_all(&store, "a"), ErrorKind::Denied, code, "").is_permanent());
        assert_eq!(site.refused(), 1, "{code}");
    }
    // A session that never worked is not waited for.
    let fresh = site.store();
    site.refuse(400, "ExpiredToken");
    refuses(read_all(&fresh, "a"), ErrorKind::Denied, "ExpiredToken", "get new credentials");
    assert_eq!(site.refused(), 1);
}

#[test]
fn a_program_is_run_again() {
    let site = Rotating::new();
    let answer = site.dir.path().join("answer");
    let runs = site.dir.path().join("runs");
    let program = site.dir.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\necho run >> {}\ncat {}\n", runs.display(), answer.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let json = |key: &str| {
        format!("{{\"Version\":1,\"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"{SECRET_KEY}\",\"SessionToken\":\"t\"}}")
    };
    replace(&answer, &json(ACCESS_KEY));
    replace(&site.file(), &format!("[default]\ncredential_process = {}\n", program.display()));
    let store = site.store();
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    replace(&answer, &json(OTHER_ACCESS_KEY));
    site.refuse(400, "ExpiredToken");
    assert_eq!(read_all(&store, "a").unwrap(), b"x");
    assert_eq!(create(&store, "b", b"y").unwrap(), Created::New);
    assert_eq!(site.refused(), 1);
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 2, "once for each");
}

#[test]
fn a_push_that_is_under_way_goes_on() {
    let server = S3Server::start();
    let site = without_credentials(&server);
    let file = site.path("aws-credentials");
    replace(&file, &credentials(ACCESS_KEY, SECRET_KEY));
    site.init();
    site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
    let name = site.make(&Segment::new(1).sized(16 * MIB).holding(Content::Noise(1)));
    // Everything from the second part on needs the new ones.
    let expired = AtomicBool::new(false);
    server.hook(move |seen| {
        if seen.op == Op::Part && seen.nth == 1 {
            replace(&file, &credentials(OTHER_ACCESS_KEY, SECRET_KEY));
            expired.store(true, Ordering::SeqCst);
        }
        if expired.load(Ordering::SeqCst) && seen.header("authorization").unwrap().contains(ACCESS_KEY) {
            Action::s3_error(400, "ExpiredToken", "The provided token has expired.")
        } else {
            Action::Pass
        }
    });
    site.push(&name).exits(0);
    site.fetches(&name);
}

/// A site on a server, with no credentials in the environment.
fn without_credentials(server: &S3Server) -> Site {
    let mut site = Site::bare();
    site.use_s3(server, "pg");
    site.unset("AWS_ACCESS_KEY_ID");
    site.unset("AWS_SECRET_ACCESS_KEY");
    site.set("AWS_SHARED_CREDENTIALS_FILE", site.path("aws-credentials"));
    site.set("AWS_CONFIG_FILE", site.path("aws-config"));
    site
}

#[track_caller]
fn fails_at_once(site: &Site, code: i32, words: &[&str]) -> Ran {
    let ran = site.run(["list"]).exits(code).tells_the_way_out().says(words);
    assert!(!ran.stderr.contains("trying again"), "{ran:?}");
    ran
}

#[test]
fn what_cannot_be_had_is_named_and_not_tried_again() {
    let server = S3Server::start();
    let mut site = without_credentials(&server);
    let file = site.path("aws-credentials");
    let file = file.to_str().unwrap();
    std::fs::write(file, credentials(ACCESS_KEY, SECRET_KEY)).unwrap();
    site.set("AWS_PROFILE", "nobody");
    fails_at_once(&site, 12, &["no profile \"nobody\"", file, "there is: default"]);
    site.unset("AWS_PROFILE");
    std::fs::write(file, "[default]\ncredential_process = /nonexistent/program --fast\n").unwrap();
    fails_at_once(&site, 12, &["/nonexistent/program", "profile default", file, "credential_process"]);
    std::fs::write(file, "[default]\ncredential_process = echo nothing\n").unwrap();
    fails_at_once(&site, 12, &["the credential program gives no credentials", "profile default"]);
    std::fs::write(file, "[default\nnot a file of AWS").unwrap();
    fails_at_once(&site, 12, &[file]);
    std::fs::write(file, "").unwrap();
    site.set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup");
    site.set("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token");
    fails_at_once(&site, 12, &["cannot read the token file /nonexistent/token"]);
    assert!(server.log().is_empty(), "nothing was asked of the store");
}

#[test]
fn a_credentials_file_that_is_not_there_is_named() {
    let server = S3Server::start();
    let settings = server.settings("pg");
    let missing = S3Settings { credentials_file: Some("/nonexistent/credentials".into()), ..settings.clone() };
    let error = refuses(read_all(&open(missing), "a"), ErrorKind::Denied, "/nonexistent/credentials", "`credentials_file`");
    assert!(error.is_permanent());
    let nobody = S3Settings { profile: Some("nobody".to_owned()), ..settings };
    let error = refuses(read_all(&open(nobody), "a"), ErrorKind::Denied, "no profile \"nobody\"", "`profile`");
    assert!(error.is_permanent());
}

#[test]
fn an_expired_session_of_the_environment_stays_expired() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    server.clear_log();
    server.hook(
        |seen| if seen.ordinal > 0 { Action::s3_error(400, "ExpiredToken", "&quot;t&#34; has expired") } else { Action::Pass },
    );
    let ran = fails_at_once(&site, 12, &["ExpiredToken", "\"t\" has expired", "get new credentials"]);
    assert!(server.log().len() <= 3, "{ran:?}");
}
