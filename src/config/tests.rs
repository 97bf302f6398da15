//! What settings are taken for, and what is said of those that are wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::definitions::{ALL, CLUSTER, CONFIG, DEFAULT_CLUSTER, KEY_FILE, KEY_SOURCES, TIMEOUT, of_key};
use super::setting::{Child, Fallback, Kind as ValueKind, Setting, Table};
use super::*;
use crate::error::{Error, Kind};
use crate::fsio;
use crate::limits::DEFAULT_TIMEOUT;
use crate::repo::{KeySource, StoreUrl};

/// Loads settings from a file's text (`None`: no file) and an environment.
fn load(text: Option<&str>, env: &[(&str, &str)], flags: Flags) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("walvis.toml");
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let flags = match text {
        Some(text) => {
            fsio::create_secret(&path, text.as_bytes()).unwrap();
            flags.with(&CONFIG, path)
        }
        None => flags,
    };
    Config::load(&flags, &|name| env.get(name).cloned(), &[])
}

fn file(text: &str) -> Result<Config, Error> {
    load(Some(text), &[], Flags::default())
}

#[test]
fn two_variables_are_enough() {
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_KEY_FILE", "/k")];
    let config = load(Some(""), &env, Flags::default()).unwrap();
    assert_eq!(config.cluster.to_string(), DEFAULT_CLUSTER);
    assert_eq!(config.repositories[0].store.url, StoreUrl::File("/r".into()));
    assert_eq!(config.repositories[0].key, KeySource::File("/k".into()));
    assert_eq!(config.timeout, DEFAULT_TIMEOUT);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let text = "cluster = 'f'\ntimeout_s = 1\n[[repository]]\nurl = 'file:///f'\nkey_file = '/f'\n";
    let env = [("WALVIS_CLUSTER", "e"), ("WALVIS_TIMEOUT_S", "2"), ("WALVIS_KEY_FILE", "/e")];
    let flags = Flags::default().with(&CLUSTER, "a").with(&TIMEOUT, 3).with(&KEY_FILE, PathBuf::from("/a"));
    let seen = |config: Config| {
        let key = config.repositories[0].key.clone();
        (config.cluster.to_string(), config.timeout.as_secs(), key)
    };
    assert_eq!(seen(file(text).unwrap()), ("f".into(), 1, KeySource::File("/f".into())));
    assert_eq!(seen(load(Some(text), &env, Flags::default()).unwrap()), ("e".into(), 2, KeySource::File("/e".into())));
    assert_eq!(seen(load(Some(text), &env, flags).unwrap()), ("a".into(), 3, KeySource::File("/a".into())));
}

#[test]
fn a_chosen_repository_keeps_its_settings_from_the_file() {
    let text = "[[repository]]\nurl = 'file:///a'\nkey_file = '/a'\n[[repository]]\nurl = 'file:///b/'\nkey_file = '/b'\noptional = true\n";
    assert_eq!(file(text).unwrap().repositories.len(), 2);
    let config = load(Some(text), &[("WALVIS_REPOSITORY", "file:///b")], Flags::default()).unwrap();
    assert_eq!(config.repositories.len(), 1);
    assert_eq!((&config.repositories[0].key, config.repositories[0].optional), (&KeySource::File("/b".into()), true));
}

#[test]
fn each_repository_has_rules_of_its_own() {
    let text = "[[repository]]\nurl = 'file:///a'\n[repository.retention]\nrecovery_window = '7d'\nkeep_last = 2\nkeep_within = '30d'\n\
                zone = 'Europe/Amsterdam'\ngrace = '36h'\nevidence = { keep_within = '52w' }\n[[repository]]\nurl = 'file:///b'\n\
                [repository.retention]\nzone = '+01:00'\n[[repository]]\nurl = 'file:///c'\n";
    let config = file(text).unwrap();
    let [a, b, c] = &config.repositories[..] else { panic!() };
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    let expected = Retention {
        recovery_window: Some(hours(7 * 24)),
        keep_last: Some(2),
        keep_within: Some(hours(30 * 24)),
        zone: crate::pg::target::Zone::parse("Europe/Amsterdam").unwrap(),
        grace: hours(36),
        evidence_within: Some(hours(52 * 7 * 24)),
        ..Retention::default()
    };
    assert_eq!((&a.retention, a.retention.has_rules()), (&expected, true));
    let said: Vec<String> = a.retention.said().into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    assert_eq!(said.join(", "), "recovery_window 7d, keep_last 2, keep_within 30d, zone Europe/Amsterdam, grace 36h");
    assert!(!b.retention.has_rules(), "a zone keeps nothing");
    assert_eq!((&c.retention, c.retention.has_rules()), (&Retention::default(), false));
}

#[test]
fn one_key_serves_the_repositories_that_have_none() {
    let text = "[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = 'file:///b'\nkey_file = '/b'\n";
    let config = load(Some(text), &[("WALVIS_KEY_COMMAND", "x")], Flags::default()).unwrap();
    let keys: Vec<&KeySource> = config.repositories.iter().map(|r| &r.key).collect();
    assert_eq!(keys, [&KeySource::Command("x".into()), &KeySource::File("/b".into())]);
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    let repository = |line: &str| format!("[[repository]]\nurl = 'file:///r'\n{line}\n");
    let s3 = |line: &str| format!("[[repository]]\nurl = 's3://bucket/p'\n[repository.s3]\n{line}\n");
    for (text, what, hint) in [
        ("clutser = 'x'".to_owned(), "unknown key clutser", "did you mean cluster?"),
        (repository("optionl = true"), "optionl", "did you mean optional?"),
        (s3("endpont = 'x'"), "endpont", "did you mean endpoint?"),
        ("cluster = 5".to_owned(), "cluster", "TOML"),
        ("cluster = ".to_owned(), "walvis.toml", "TOML"),
        ("timeout_s = 3\nserver = 'password=hunter2 \n".to_owned(), "line 2: server: ", "TOML"),
        ("server = password=hunter2\n".to_owned(), "line 1: server: ", "TOML"),
        (String::new(), "no repository", "WALVIS_REPOSITORY"),
        ("[[repository]]".to_owned(), "no url", "url ="),
        ("[[repository]]\nurl = '/r'".to_owned(), "/r", "file:///path"),
        ("[[repository]]\nurl = 'file://r'".to_owned(), "not absolute", "three slashes"),
        ("[[repository]]\nurl = 'ftp://r'".to_owned(), "ftp://r", "s3://bucket/prefix"),
        (repository("compression_level = 20"), "compression_level", "1 to 19"),
        (repository("request_timeout_s = 0"), "request_timeout_s", "1 to"),
        (repository("id = '12'"), "id of file:///r", "walvis init"),
        (repository("create_if_absent = 'maybe'"), "maybe", "auto, store or claims"),
        (repository("key_file = '/a'\nkey_command = 'b'"), "more than one key", "keep one"),
        (repository("s3.region = 'x'"), "S3 setting region", "remove it"),
        (repository("") + &repository(""), "twice", ""),
        (format!("cluster = '../x'\n{}", repository("")), "cluster name", "letters"),
        (format!("spool = 'x'\n{}", repository("")), "spool", "off"),
        (format!("timeout_s = 0\n{}", repository("")), "timeout_s", "1 to"),
        (s3("sse = 'x'"), "sse", "AES256"),
        (s3("sse = 'AES256'\nsse_kms_key_id = 'k'"), "sse", "aws:kms"),
        (s3("object_lock_days = 3"), "object_lock_mode", "governance"),
        (s3("object_lock_mode = 'x'\nobject_lock_days = 3"), "object_lock_mode", "compliance"),
        ("[repository]\nurl = 'file:///r'".to_owned(), "line 1: repository", "TOML"),
        (repository("id = '12'\nkey_file = '/k'\noptionl = true"), "line 5: unknown key repository.optionl", "optional"),
        (s3("checksums = 'x'"), "checksums", "when-required"),
        (repository("retention.keep_last = 0"), "repository.retention.keep_last of file:///r", "1 to"),
        (repository("retention.keep_within = '7'"), "repository.retention.keep_within of file:///r", "such as 7d"),
        (repository("retention.zone = 'CET'"), "zone of the retention of file:///r", "Europe/Amsterdam"),
        (repository("retention.keep_dayly = 3"), "unknown key repository.retention.keep_dayly", "keep_daily"),
        (repository("retention = 3"), "retention: the value has the type", "TOML"),
        (repository("retention.evidence = '7d'"), "a table [repository.retention.evidence]", "TOML"),
        (repository("retention.evidence.keep_within = '0d'"), "repository.retention.evidence.keep_within", "such as 7d"),
    ] {
        if cfg!(not(feature = "s3")) && text.contains("s3://") {
            continue;
        }
        let error = file(&text).expect_err(&text);
        assert_eq!(error.kind, Kind::Config, "{text}");
        assert!(error.what.contains(what), "{text}: {}", error.what);
        assert!(!error.what.contains("hunter2"), "{text}: {}", error.what);
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint);
    }
    let missing = Flags::default().with(&CONFIG, PathBuf::from("/nonexistent/walvis.toml"));
    assert!(load(None, &[], missing).unwrap_err().what.contains("/nonexistent/walvis.toml"));
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_TIMEOUT_S", "soon")];
    assert!(load(Some(""), &env, Flags::default()).unwrap_err().what.contains("soon"));
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_KEY_FILE", "/k"), ("WALVIS_PASSPHRASE", "x")];
    assert!(load(Some(""), &env, Flags::default()).unwrap_err().what.contains("more than one key"));
}

/// A value that a setting takes, and that is not its default, as somebody would write it.
fn sample(setting: &Setting) -> String {
    match (setting.name, setting.kind) {
        ("url", _) => "file:///sample".to_owned(),
        ("id", _) => "00112233445566778899aabbccddeeff".to_owned(),
        ("zone", _) => "+01:00".to_owned(),
        ("endpoint", _) => "https://s3.example.org".to_owned(),
        ("cluster" | "region" | "profile" | "sse_kms_key_id" | "storage_class", _) => "sample".to_owned(),
        ("spool", _) | (_, ValueKind::Path) => "/sample".to_owned(),
        ("server", _) => "host=sample".to_owned(),
        ("key_command", _) => "printf 'sample %s'".to_owned(),
        (_, ValueKind::Seconds(_) | ValueKind::Whole(..)) => "7".to_owned(),
        (_, ValueKind::Truth) => "true".to_owned(),
        (_, ValueKind::Period) => "36h".to_owned(),
        (_, ValueKind::Choice(words)) => (*words.last().unwrap()).to_owned(),
        (_, ValueKind::Secret) => "hunter2".to_owned(),
        (name, kind) => panic!("no sample of {name}, {kind:?}"),
    }
}

/// The same in TOML.
fn line(setting: &Setting) -> String {
    match setting.kind {
        ValueKind::Seconds(_) | ValueKind::Whole(..) | ValueKind::Truth => format!("{} = {}\n", setting.name, sample(setting)),
        _ => format!("{} = \"{}\"\n", setting.name, sample(setting)),
    }
}

/// Settings in which a setting can stand, without it.
fn around(setting: &Setting) -> String {
    let repository = match setting.table {
        Table::S3 => "url = \"s3://bucket/p\"\n[repository.s3]\n".to_owned(),
        Table::Retention | Table::Evidence => format!("url = \"file:///r\"\n{}\n", setting.table.header()),
        _ => "url = \"file:///r\"\n".to_owned(),
    };
    // One lock setting goes not without the other.
    let companion = match setting.name {
        "object_lock_mode" => "object_lock_days = 3\n",
        "object_lock_days" => "object_lock_mode = \"governance\"\n",
        _ => "",
    };
    format!("[[repository]]\n{repository}{companion}")
}

/// Whatever the file may have is in the table, each row is read by somebody, and no name stands for two things.
#[test]
fn every_key_of_the_table_has_an_effect_and_no_other_key_is_taken() {
    for setting in ALL.into_iter().filter(|setting| setting.is_in_file()) {
        if cfg!(not(feature = "s3")) && setting.table == Table::S3 {
            continue;
        }
        assert_eq!(of_key(setting.table, setting.name), Some(setting));
        let around = around(setting);
        let with = match setting.table {
            Table::Top => line(setting) + &around,
            _ if setting.name == "url" => format!("[[repository]]\n{}", line(setting)),
            _ => around.clone() + &line(setting),
        };
        let config = file(&with).unwrap_or_else(|e| panic!("{with}: {e}"));
        let without = if setting.name.starts_with("object_lock") { "[[repository]]\nurl = \"s3://bucket/p\"\n" } else { &around };
        let same = |config: Config| Config { handed_on: file(&with).unwrap().handed_on, file_texts: None, ..config };
        assert_ne!(same(config), same(file(without).unwrap()), "nobody reads {}", setting.table.path_of(setting.name));
        // It stands in its own table only, and is what it is said to be.
        let tables = [Table::Top, Table::Repository, Table::S3, Table::Retention, Table::Evidence];
        for table in tables.into_iter().filter(|table| *table != setting.table) {
            assert_ne!(of_key(table, setting.name), Some(setting));
        }
        let wrong = with.replace(&line(setting), &format!("{} = [1]\n", setting.name));
        let error = file(&wrong).unwrap_err();
        assert!(error.what.contains(setting.name) && error.what.contains("it has to be"), "{}", error.what);
    }
}

#[test]
fn names_are_unique_and_rows_are_whole() {
    let mut names = BTreeSet::new();
    for setting in ALL {
        assert!(names.insert((setting.table.path_of(setting.name), setting.is_in_file())), "{} is there twice", setting.name);
        assert!(!setting.help.is_empty() && !setting.help.ends_with('.'), "{}", setting.name);
        assert!(setting.more.is_empty() || setting.more.ends_with('.'), "{}", setting.name);
        // What cannot be set is no setting, and what a child gets can be written into a call.
        assert!(setting.is_in_file() || setting.variable.is_some() || setting.flag.is_some(), "{}", setting.name);
        assert!(setting.variable.is_none_or(|name| name.starts_with("WALVIS_")), "{}", setting.name);
        let is_secret = setting.kind == ValueKind::Secret;
        assert!(!is_secret || (setting.flag.is_none() && !setting.is_in_file()), "{} shows a secret", setting.name);
        assert_eq!(is_secret, setting.child == Child::NeedsInItsEnvironment, "{}", setting.name);
        // Of a flag of single commands nobody would know what becomes of it.
        let can_be_carried = setting.variable.is_some() || setting.flag.is_none() || setting.is_global_flag();
        assert!(setting.child == Child::DoesWithout || can_be_carried, "{}", setting.name);
        // A flag is handed on with its value.
        let has_value = !matches!(setting.kind, ValueKind::Switch | ValueKind::Truth | ValueKind::Count);
        assert!(setting.child == Child::DoesWithout || !setting.is_global_flag() || has_value, "{}", setting.name);
        assert!(
            !matches!(setting.kind, ValueKind::Seconds(_)) || matches!(setting.fallback, Fallback::Time(_)),
            "{}",
            setting.name
        );
    }
    for all in [
        ALL.into_iter().filter_map(|setting| setting.variable).collect::<Vec<_>>(),
        ALL.into_iter().filter_map(|setting| setting.flag.as_ref()).map(|flag| flag.long).collect(),
    ] {
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }
    assert!(KEY_SOURCES.into_iter().all(|setting| ALL.contains(&setting)));
    let is_row = |line: &&str| line.starts_with("pub static ") && line.contains(": Setting = ");
    assert_eq!(include_str!("definitions.rs").lines().filter(is_row).count(), ALL.len(), "a row is not in ALL");
}

/// What a variable says, a restored server's call says too, and nothing else: the one that is read there is the same.
#[test]
fn every_setting_that_a_child_needs_gets_through() {
    let mut checked = 0;
    for setting in ALL.into_iter().filter(|setting| setting.variable.is_some() && setting.name != "config") {
        if cfg!(not(feature = "s3")) && setting.table == Table::S3 {
            continue;
        }
        let text = sample(setting);
        let url = if setting.table == Table::S3 { "s3://bucket/p" } else { "file:///r" };
        let mut env = vec![("WALVIS_REPOSITORY", url)];
        env.retain(|(name, _)| Some(*name) != setting.variable);
        env.push((setting.variable.unwrap(), &text));
        let config = load(None, &env, Flags::default()).unwrap_or_else(|e| panic!("{env:?}: {e}"));
        let carried = config.handed_on.carried().unwrap();
        assert!(!format!("{carried:?}").contains("hunter2"), "{carried:?}");
        // As the call is read: flags are what the table says, which `cli` tests with clap.
        let flags = carried.options.chunks(2).fold(Flags::default(), |flags, pair| {
            let setting = ALL.into_iter().find(|setting| format!("--{}", setting.long()) == pair[0]).unwrap();
            match setting.kind {
                ValueKind::Path => flags.with(setting, PathBuf::from(&pair[1])),
                ValueKind::Seconds(_) => flags.with(setting, pair[1].parse::<i64>().unwrap()),
                _ => flags.with(setting, pair[1].as_str()),
            }
        });
        let env: Vec<(&str, &str)> = carried.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let child = load(None, &env, flags).unwrap();
        match setting.child {
            Child::Gets | Child::AlwaysGets => {
                assert_eq!(child, config, "{}", setting.name);
                assert!(format!("{carried:?}").contains(&text), "{}: {carried:?}", setting.name);
                checked += 1;
            }
            Child::DoesWithout | Child::NeedsInItsEnvironment => assert!(!format!("{carried:?}").contains(&text), "{carried:?}"),
        }
    }
    assert!(checked >= 9, "{checked}");
}

/// What is in the file stays there: the child reads it. But for the cluster's name, which the file may change later.
#[test]
fn a_child_does_not_get_what_is_in_the_file() {
    let text = "cluster = 'f'\ntimeout_s = 9\nspool = '/s'\n[[repository]]\nurl = 'file:///f'\nkey_file = '/f'\n";
    let carried = |config: Config| config.handed_on.carried().unwrap();
    let of_file = carried(file(text).unwrap());
    assert_eq!((of_file.environment, of_file.options[2..].join(" ")), (vec![], "--cluster f".to_owned()));
    assert_eq!(of_file.options[0], "--config");
    // A flag beats a variable here as everywhere, and a key that is beaten is not carried.
    let env = [("WALVIS_TIMEOUT_S", "2"), ("WALVIS_KEY_COMMAND", "x"), ("WALVIS_SPOOL", "off")];
    let flags = Flags::default().with(&TIMEOUT, 3).with(&KEY_FILE, PathBuf::from("a"));
    let set = carried(load(Some(text), &env, flags).unwrap());
    assert_eq!(set.environment, [("WALVIS_SPOOL".to_owned(), "off".to_owned())]);
    let key = std::path::absolute("a").unwrap();
    assert_eq!(set.options[2..], ["--cluster", "f", "--key-file", key.to_str().unwrap(), "--timeout", "3"].map(str::to_owned));
}

#[test]
fn a_variable_of_one_repository_is_refused_where_there_are_several() {
    let text = "[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = 'file:///b'\n";
    let error = load(Some(text), &[("WALVIS_REPOSITORY_ID", "x")], Flags::default()).unwrap_err();
    assert!(error.what.contains("WALVIS_REPOSITORY_ID is set, and there are several"), "{}", error.what);
    let config = load(Some(text), &[("WALVIS_REQUEST_TIMEOUT_S", "5")], Flags::default());
    assert_eq!(config.unwrap().repositories.len(), 2);
}

/// A secret of a kind, as `cli` finds them.
fn secret_in(kind: ValueKind, text: &str) -> Option<&'static str> {
    match kind {
        ValueKind::Conninfo => text.contains("password=").then_some("password"),
        ValueKind::ShellCommand => text.contains("walvis-key-1:").then_some("key"),
        _ => None,
    }
}

#[test]
fn secrets_in_a_file_that_others_can_read_are_named_and_not_repeated() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("walvis.toml");
    let warnings = |server: &str, command: &str, mode: u32| {
        // The second repository is not the one that is used: the file holds its key all the same.
        let text = format!(
            "server = '{server}'\n[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = 'file:///b'\nkey_command = '{command}'\n"
        );
        #[expect(clippy::disallowed_methods, reason = "a file of any mode")]
        {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let flags = Flags::default().with(&CONFIG, path.clone()).with(&definitions::URL, "file:///a");
        let env = |name: &str| (name == "WALVIS_SERVER").then(|| "host=b password=hunter3".to_owned());
        Config::load(&flags, &env, &[]).unwrap().file_texts.unwrap().exposed_secrets(secret_in)
    };
    let (server, command) = ("host=a password=hunter2", "echo walvis-key-1:00");
    let found = warnings(server, command, 0o644);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("server in it holds a password") && found[1].contains("key_command in it holds a key"),
        "{found:?}"
    );
    assert!(found.iter().all(|warning| warning.contains("chmod o-rwx") && warning.contains("walvis.toml")), "{found:?}");
    assert!(!format!("{found:?}").contains("hunter") && !format!("{found:?}").contains("key-1"), "{found:?}");
    // Its group may read it, as of a key file; and what holds no secret may be read by all.
    assert!(warnings(server, command, 0o640).is_empty());
    assert!(warnings("host=a", "cat /k", 0o644).is_empty());
}
