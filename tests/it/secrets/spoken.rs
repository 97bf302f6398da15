//! What is said: secrets among arguments are refused, errors and logs repeat none, tokens in clear are warned about.

use crate::support::command::Site;

const SECRET: &str = "hunter2-so-secret";

#[test]
fn secrets_among_arguments_are_refused_and_not_repeated() {
    let site = Site::new();
    let words = format!("host=/nonexistent user=x password={SECRET}");
    let url = format!("postgresql://x:{SECRET}@localhost/db");
    let pgdata = site.path("restored");
    let pgdata = pgdata.to_str().unwrap();
    for conninfo in [words.as_str(), &url, &format!("host=x password = '{SECRET}'"), &format!("sslpassword={SECRET}")] {
        let calls: [&[&str]; 4] = [
            &["check", "--server", conninfo],
            &["base-backup", "--server", conninfo],
            &["base-backup", "--primary", conninfo],
            &["pitr-restore", "--pgdata", pgdata, "--standby", "--primary", conninfo],
        ];
        for call in calls {
            let ran = site.run(call).exits(2).tells_the_way_out().says(&["pass"]);
            assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
        }
    }
    // A file that holds it is the way out.
    let passfile = "host=/nonexistent passfile=/nonexistent";
    site.run(["check", "--server", passfile]).exits(18);
    for url in [format!("s3://AKIA:{SECRET}@bucket/x"), format!("https://u:{SECRET}@host/x"), format!("file://u:{SECRET}@host/x")]
    {
        for arguments in [&["list", "--repository", &url][..], &["-vv", "push-wal", "--repository", &url, "x"]] {
            let ran = site.run(arguments).exits(10).tells_the_way_out();
            assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
        }
    }
    // In the settings, a mistake beside a secret does not show it.
    std::fs::write(site.path("walvis.toml"), format!("server = \"host=x password={SECRET}\" x\n")).unwrap();
    let ran = site.run(["list"]).exits(10).tells_the_way_out().says(&["line 1"]);
    assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
}

/// What stands in plain text in a settings file that others can read is named by its key, without repeating it.
#[test]
fn a_settings_file_that_others_can_read_holds_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let mut site = Site::new();
    let key = std::fs::read_to_string(site.path("key")).unwrap();
    let key_line = key.lines().find(|line| line.starts_with("walvis-key-1:")).unwrap();
    let repository = format!("[[repository]]\nurl = \"file://{}\"\n", site.repository().display());
    let path = site.path("walvis.toml");
    site.set("WALVIS_CONFIG", &path);
    let run = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        site.run(["list"]).exits(0)
    };
    let exposed = "can be read by every user of this host";
    let server = format!("server = \"host=x password={SECRET}\"\n{repository}");
    let ran = run(&server, 0o644).says(&[path.to_str().unwrap(), exposed, "server in it holds a password", "chmod o-rwx"]);
    assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
    let command = format!("{repository}key_command = \"echo {key_line}\"\n");
    let ran = run(&command, 0o644).says(&[exposed, "key_command in it holds a key"]);
    assert!(!format!("{ran:?}").contains(key_line), "{ran:?}");
    // Private, or without a secret.
    let harmless = format!("server = \"host=x passfile=/x\"\n{repository}key_file = \"{}\"\n", site.path("key").display());
    for ran in [run(&server, 0o600), run(&command, 0o640), run(&harmless, 0o644)] {
        assert!(!format!("{ran:?}").contains(exposed), "{ran:?}");
    }
}

#[test]
fn a_token_in_clear_is_warned_about_once() {
    let mut site = Site::bare();
    for (name, value) in [
        ("WALVIS_REPOSITORY", "s3://bucket/x"),
        ("AWS_ACCESS_KEY_ID", "AKIAX"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        site.set(name, value);
    }
    // An address of documentation (RFC 5737): nobody is there.
    for (endpoint, token, warned) in [
        ("http://192.0.2.1:9", true, true),
        ("http://192.0.2.1:9", false, false),
        ("https://192.0.2.1:9", true, false),
        ("http://127.0.0.1:9", true, false),
    ] {
        site.set("WALVIS_S3_ENDPOINT", endpoint);
        site.unset("AWS_SESSION_TOKEN");
        if token {
            site.set("AWS_SESSION_TOKEN", format!("token-{SECRET}"));
        }
        let ran = site.run(["-vv", "list", "--timeout", "1"]).exits(11);
        let count = ran.stderr.matches("session token of the credentials is sent in clear").count();
        assert_eq!(count, usize::from(warned), "{endpoint} {token}: {ran:?}");
        assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
    }
}
