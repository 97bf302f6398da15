//! What settings are taken for, and what is said of those that are wrong.

use std::collections::BTreeMap;

use super::*;

/// Loads settings from a file's text (`None`: no file) and an environment.
fn load(text: Option<&str>, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("walvis.toml");
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config = text.map(|text| {
        fsio::create_secret(&path, text.as_bytes()).unwrap();
        path.clone()
    });
    let config = config.or(overrides.config.clone());
    Config::load(&Overrides { config, ..overrides }, &|name| env.get(name).cloned(), &[])
}

fn file(text: &str) -> Result<Config, Error> {
    load(Some(text), &[], Overrides::default())
}

#[test]
fn two_variables_are_enough() {
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_KEY_FILE", "/k")];
    let config = load(Some(""), &env, Overrides::default()).unwrap();
    assert_eq!(config.cluster.to_string(), DEFAULT_CLUSTER);
    assert_eq!(config.repositories[0].store.url, StoreUrl::File("/r".into()));
    assert_eq!(config.repositories[0].key, KeySource::File("/k".into()));
    assert_eq!(config.timeout, DEFAULT_TIMEOUT);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let text = "cluster = 'f'\ntimeout_s = 1\n[[repository]]\nurl = 'file:///f'\nkey_file = '/f'\n";
    let env = [("WALVIS_CLUSTER", "e"), ("WALVIS_TIMEOUT_S", "2"), ("WALVIS_KEY_FILE", "/e")];
    let flags = Overrides { cluster: Some("a".into()), timeout_s: Some(3), key_file: Some("/a".into()), ..Overrides::default() };
    let seen = |config: Config| {
        let key = config.repositories[0].key.clone();
        (config.cluster.to_string(), config.timeout.as_secs(), key)
    };
    assert_eq!(seen(file(text).unwrap()), ("f".into(), 1, KeySource::File("/f".into())));
    assert_eq!(seen(load(Some(text), &env, Overrides::default()).unwrap()), ("e".into(), 2, KeySource::File("/e".into())));
    assert_eq!(seen(load(Some(text), &env, flags).unwrap()), ("a".into(), 3, KeySource::File("/a".into())));
}

#[test]
fn a_chosen_repository_keeps_its_settings_from_the_file() {
    let text = "[[repository]]\nurl = 'file:///a'\nkey_file = '/a'\n[[repository]]\nurl = 'file:///b/'\nkey_file = '/b'\noptional = true\n";
    assert_eq!(file(text).unwrap().repositories.len(), 2);
    let config = load(Some(text), &[("WALVIS_REPOSITORY", "file:///b")], Overrides::default()).unwrap();
    assert_eq!(config.repositories.len(), 1);
    assert_eq!((&config.repositories[0].key, config.repositories[0].optional), (&KeySource::File("/b".into()), true));
}

#[test]
fn one_key_serves_the_repositories_that_have_none() {
    let text = "[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = 'file:///b'\nkey_file = '/b'\n";
    let config = load(Some(text), &[("WALVIS_KEY_COMMAND", "x")], Overrides::default()).unwrap();
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
        (s3("checksums = 'x'"), "checksums", "when-required"),
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
    let missing = Overrides { config: Some("/nonexistent/walvis.toml".into()), ..Overrides::default() };
    assert!(load(None, &[], missing).unwrap_err().what.contains("/nonexistent/walvis.toml"));
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_TIMEOUT_S", "soon")];
    assert!(load(Some(""), &env, Overrides::default()).unwrap_err().what.contains("soon"));
    let env = [("WALVIS_REPOSITORY", "file:///r"), ("WALVIS_KEY_FILE", "/k"), ("WALVIS_PASSPHRASE", "x")];
    assert!(load(Some(""), &env, Overrides::default()).unwrap_err().what.contains("more than one key"));
}

/// The list for suggestions is complete: every key that the file can have is in it, and nothing else.
#[test]
fn every_known_key_is_accepted_and_the_list_is_complete() {
    let text = "cluster = 'c'\nzone = 'z'\ntimeout_s = 1\nserver = 's'\nspool = '/s'\n[[repository]]\nurl = 's3://bucket/p'\nid = 'i'\nkey_file = 'k'\nkey_command = 'k'\n\
                passphrase_file = 'k'\noptional = true\ncompression_level = 1\nrequest_timeout_s = 1\ncreate_if_absent = 'auto'\n\
                [repository.s3]\nendpoint = 'e'\nregion = 'r'\nprofile = 'p'\ncredentials_file = 'c'\npath_style = true\nca_file = 'c'\n\
                checksums = 'c'\nsse = 's'\nsse_kms_key_id = 'k'\nstorage_class = 's'\nobject_lock_mode = 'm'\nobject_lock_days = 1\n";
    parse_file(text, Path::new("x")).unwrap();
    for key in KNOWN_KEYS {
        let table = ["repository", "s3"].contains(&key);
        assert!(table || text.contains(&format!("{key} = ")), "{key}");
    }
    assert_eq!(text.matches(" = ").count() + 2, KNOWN_KEYS.len());
}
