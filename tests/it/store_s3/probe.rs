//! Stores that look first and write then are found out, good ones are not suspected, and probes at the same time don't
//! meet.

use std::time::Duration;

use serde_json::Value;
use walvis::deadline::Deadline;
use walvis::repo::{Probed, StoreSettings, StoreUrl};
use walvis::store::s3::S3Settings;

use crate::support::command::Site;
use crate::support::s3::{Action, LooksFirst, Moto, S3Server};

fn measure(settings: S3Settings) -> Probed {
    let settings = StoreSettings { url: StoreUrl::S3(Box::new(settings)), create_if_absent: None, known: None };
    settings.measure(Deadline::after(Duration::from_secs(120))).unwrap()
}

#[test]
fn a_store_that_looks_first_is_found_out() {
    for looks_first in [LooksFirst { puts: true, completions: false }, LooksFirst { puts: false, completions: true }] {
        let server = S3Server::start();
        let site = Site::on_s3(&server);
        server.set_looks_first(looks_first);
        let report: Value = serde_json::from_str(&site.run(["--json", "check", "--no-server"]).exits(18).stdout).unwrap();
        assert_eq!(report["repositories"][0]["store_refuses_overwrite"], false, "{looks_first:?}: {report:#}");
        let finding = report["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "problem").unwrap();
        assert!(finding["message"].as_str().unwrap().contains("got the answer that theirs is stored"), "{finding}");
        assert!(finding["hint"].as_str().unwrap().contains("create_if_absent = \"claims\""), "{finding}");

        let mut other = Site::bare();
        other.use_s3(&server, "other");
        let init = other.run(["init"]).exits(0);
        assert!(init.stdout.contains("claims/"), "{init:?}");
        let descriptor = server.objects("other/walvis.json").remove("other/walvis.json").unwrap();
        assert!(String::from_utf8(descriptor).unwrap().contains("\"claims\""));
        assert!(server.objects("other/probe/").is_empty());
    }
}

#[test]
fn a_good_store_is_not_suspected_under_load() {
    let server = S3Server::start();
    server.set_latency(Duration::from_millis(2));
    // Answers that are lost, refused and late, and conflicts as AWS tells of them.
    server.hook(|seen| match seen.ordinal % 11 {
        0 => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
        3 => Action::ServeAndCut,
        5 => Action::Delay(Duration::from_millis(20)),
        7 if seen.header("if-none-match").is_some() => Action::s3_error(409, "ConditionalRequestConflict", "try again"),
        _ => Action::Pass,
    });
    let found = measure(server.settings("pg"));
    assert_eq!((found.doubt.clone(), found.can_delete), (None, true), "{found:?}");
    assert!(found.races > 0);
}

#[test]
fn probes_at_the_same_time_do_not_disturb_each_other() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let (site, server) = (&site, &server);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                let ran = site.run(["--json", "check", "--no-server"]).exits(0);
                let report: Value = serde_json::from_str(&ran.stdout).unwrap();
                let repository = &report["repositories"][0];
                assert_eq!(
                    (&repository["store_refuses_overwrite"], &repository["can_delete"]),
                    (&true.into(), &true.into()),
                    "{report:#}"
                );
            });
            scope.spawn(move || {
                let found = measure(server.settings("pg"));
                assert_eq!((found.doubt, found.can_delete), (None, true));
            });
        }
    });
    assert!(server.objects("pg/probe/").is_empty());
}

#[test]
fn credentials_without_delete_leave_a_few_objects_once() {
    let server = S3Server::start();
    server.hook(|seen| if seen.method == "DELETE" { Action::s3_error(403, "AccessDenied", "no") } else { Action::Pass });
    let found = measure(server.settings("pg"));
    assert_eq!((found.doubt, found.can_delete, found.races > 0), (None, false, true));
    // The next one asks the object that is kept.
    let found = measure(server.settings("pg"));
    assert_eq!((found.doubt, found.can_delete, found.races), (None, false, 0));
    // A store that overwrites it is found out all the same.
    server.set_ignores_conditions(true);
    let found = measure(server.settings("pg"));
    assert!(found.doubt.unwrap().contains("replaces what is there"));
}

#[test]
fn moto_is_found_out() {
    let moto = Moto::start();
    moto.create_bucket("backups", false);
    // Its completions look first. A probe that misses the moment is rare; three that do are not.
    let doubts: Vec<_> = (0..3).map(|n| measure(moto.settings("backups", &format!("pg{n}"))).doubt).collect();
    println!("moto: {doubts:?}");
    assert!(doubts.iter().any(Option::is_some), "{doubts:?}");
}
