//! The conformance suite, on every S3 server there is.

use std::sync::Arc;
use std::time::Duration;

use walvis::store::claims::Claims;
use walvis::store::retry::Retry;
use walvis::store::s3::S3Settings;

use crate::conformance::{self, deadline, quick};
use crate::support::s3::{Action, S3Server, open};

#[test]
fn in_process() {
    let server = S3Server::start();
    server.set_page_len(9);
    conformance::run(&server.store("pg"), "suite");
    conformance::run(&server.store(""), "a/deeper/suite");
    assert!(server.objects("").is_empty() && server.uploads().is_empty());
}

#[test]
fn over_tls() {
    let server = S3Server::start_tls();
    conformance::run(&server.store("pg"), "suite");
}

#[test]
fn with_latency() {
    let server = S3Server::start();
    server.set_latency(Duration::from_millis(3));
    conformance::run(&server.store("pg"), "suite");
}

#[test]
fn behind_retries_when_many_requests_fail() {
    let server = S3Server::start();
    // Two in a row pass sometimes: some calls need two.
    server.hook(|seen| match seen.ordinal % 7 {
        0 => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
        2 => Action::Cut,
        4 => Action::html(502),
        _ => Action::Pass,
    });
    conformance::run(&Retry::new(Arc::new(server.store("pg")), quick(), deadline()), "suite");
}

#[test]
fn with_claims_on_a_store_that_ignores_conditions() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let store = open(S3Settings { conditional: false, ..server.settings("pg") });
    let retry = Retry::new(Arc::new(store), quick(), deadline());
    conformance::run(&Claims::new(Arc::new(retry), quick(), deadline()), "suite");
}

/// Any server that the environment names: `WALVIS_TEST_S3_URL` (`s3://bucket/prefix`), `WALVIS_TEST_S3_ENDPOINT` (none
/// for AWS), `WALVIS_TEST_S3_CA_FILE`, `WALVIS_TEST_S3_CONDITIONAL=false` for a store without create-if-absent;
/// credentials and region as usual.
#[test]
fn named_by_the_environment() {
    let Ok(url) = std::env::var("WALVIS_TEST_S3_URL") else { return };
    let endpoint = std::env::var("WALVIS_TEST_S3_ENDPOINT").ok();
    let conditional = std::env::var("WALVIS_TEST_S3_CONDITIONAL").as_deref() != Ok("false");
    let settings = S3Settings {
        path_style: endpoint.is_some(),
        endpoint,
        ca_file: std::env::var_os("WALVIS_TEST_S3_CA_FILE").map(Into::into),
        conditional,
        ..S3Settings::parse_url(&url).unwrap()
    };
    let retry = Retry::new(Arc::new(open(settings)), quick(), deadline());
    let prefix = format!("suite-{:016x}", fastrand::u64(..));
    if conditional {
        conformance::run(&retry, &prefix);
    } else {
        conformance::run(&Claims::new(Arc::new(retry), quick(), deadline()), &prefix);
    }
}
