//! Hosts on which a real server archives into a repository that has rules of retention.

use std::path::Path;
use std::sync::Arc;

use crate::pitr::Site;
use crate::recovery::Archive;
use crate::support::postgres::Scratch;
use crate::support::s3::S3Server;

/// With a repository in a directory.
pub(super) fn in_a_directory(rules: &str) -> Site {
    let scratch = Scratch::new();
    let archive = Archive::walvis(&scratch);
    let config = scratch.path().join("walvis.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    scratch.write(&config, format!("{text}[repository.retention]\n{rules}").as_bytes());
    with(scratch, archive, &config)
}

/// With a repository on an S3 server, and this in the environment of server and program.
pub(super) fn on_s3(scratch: Arc<Scratch>, server: &S3Server, rules: &str, env: &[(String, String)]) -> Site {
    let made = Archive::walvis_s3(&scratch, server);
    let of = |name: &str| made.env.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let (url, key) = (of("WALVIS_REPOSITORY"), of("WALVIS_KEY_FILE"));
    let config = scratch.path().join("walvis.toml");
    let text = format!("[[repository]]\nurl = \"{url}\"\nkey_file = \"{key}\"\n[repository.retention]\n{rules}");
    scratch.write(&config, text.as_bytes());
    let is_in_the_file = |name: &str| ["WALVIS_REPOSITORY", "WALVIS_KEY_FILE"].contains(&name);
    let mut all: Vec<(String, String)> = made.env.into_iter().filter(|(name, _)| !is_in_the_file(name)).collect();
    all.extend_from_slice(env);
    let walvis = format!("'{}' --config '{}'", scratch.walvis().display(), config.display());
    let archive = Archive {
        archive_command: format!("{walvis} push-wal %p"),
        restore_command: format!("{walvis} fetch-wal %f %p"),
        env: all,
        directory: made.directory,
    };
    with(scratch, archive, &config)
}

fn with(scratch: Arc<Scratch>, archive: Archive, config: &Path) -> Site {
    Site::with(scratch, archive, vec!["--config".to_owned(), config.display().to_string()])
}
