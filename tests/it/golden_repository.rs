//! Golden vectors of what is read before any data key is known: descriptor, key file, key objects.
//! `tests/golden/repository` holds two repositories of version 1 without data, which must be opened for ever, and
//! `edits.json` says what must be refused, and by which layer. `WALVIS_TEST_BLESS=1` writes them anew, for a new
//! version of the format only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use walvis::crypto::{Argon2id, DataKey, KeyFile, WrappingKey};
use walvis::deadline::Deadline;
use walvis::error::Error;
use walvis::format::descriptor::{CreateIfAbsent, Descriptor, KeyObject, RepositoryCipher};
use walvis::repo::{KeySource, Repository, StoreSettings, StoreUrl};

use crate::support::command::files_below;

const DATA_KEY: [u8; 32] = *b"thirty-two bytes, not too secret";

/// One that must be refused.
#[derive(Debug, Serialize, Deserialize)]
struct Edit {
    what: String,
    /// `walvis.json`, `key` (the key file) or `keys` (the key object).
    file: String,
    /// This text in it…
    find: String,
    /// … becomes this one.
    replace: String,
    /// Whether the check is made to fit again, as a forger does.
    recheck: bool,
    /// The layer that must refuse it: `key file`, `parser`, `key` (the sealed data key does not open) or `known` (it is
    /// another one).
    rejected_by: String,
    says: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repository")
}

fn open(dir: &Path, key: &KeySource) -> Result<Repository, Error> {
    let deadline = Deadline::after(Duration::from_secs(60));
    let settings = StoreSettings { url: StoreUrl::File(dir.to_owned()), create_if_absent: None, known: None };
    Repository::open(&settings, &key.read(&deadline)?, 1, deadline)
}

const DESCRIPTOR: &[&str] = &["format", "repository_id", "cipher", "create_if_absent", "created_unix_s"];
const KEY_OBJECT: &[&str] =
    &["format", "repository_id", "key_id", "generation", "wrapping_key_id", "argon2id", "nonce", "sealed_key", "created_unix_s"];

/// Makes the check fit the fields, as docs/FORMAT.md has it.
fn recheck(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap();
    let value = |name: &str| match &json[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = if json.get("key_id").is_some() { KEY_OBJECT } else { DESCRIPTOR };
    let fields: String = names.iter().map(|name| format!("{name}={}\n", value(name))).collect();
    text.replace(json["check"].as_str().unwrap(), blake3::hash(fields.as_bytes()).to_hex().as_str())
}

#[test]
fn repositories_of_version_1_are_opened_and_forged_ones_refused() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let (by_file, by_passphrase) = (directory().join("by-key-file"), directory().join("by-passphrase"));
    let key = |dir: &Path| KeySource::File(dir.join("../key"));
    let opened = open(&by_file, &key(&by_file)).unwrap();
    assert!(opened.is_named() && opened.known_as().generation == 1);
    assert_eq!(opened.descriptor().create_if_absent, CreateIfAbsent::Claims);
    let opened = open(&by_passphrase, &KeySource::PassphraseFile(directory().join("passphrase"))).unwrap();
    assert_eq!(opened.descriptor().create_if_absent, CreateIfAbsent::Store);

    let edits: Vec<Edit> = serde_json::from_str(&fs::read_to_string(directory().join("edits.json")).unwrap()).unwrap();
    assert!(edits.len() >= 12);
    for edit in edits {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("by-key-file");
        for file in files_below(&by_file) {
            let to = dir.join(file.strip_prefix(&by_file).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
        fs::copy(directory().join("key"), scratch.path().join("key")).unwrap();
        let path = match edit.file.as_str() {
            "key" => scratch.path().join("key"),
            "keys" => files_below(&dir.join("keys")).remove(0),
            name => dir.join(name),
        };
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(&edit.find).count(), 1, "{}", edit.what);
        let text = text.replace(&edit.find, &edit.replace);
        fs::write(&path, if edit.recheck { recheck(&text) } else { text }).unwrap();
        let Err(error) = open(&dir, &key(&dir)) else { panic!("{}: it was opened", edit.what) };
        assert!(error.what.contains(&edit.says), "{} ({}): {error}", edit.what, edit.rejected_by);
    }
}

/// Writes all of them.
fn bless() {
    let (root, created_unix_s) = (directory(), 1_800_000_000);
    let _ = fs::remove_dir_all(&root);
    let data_key = DataKey::from_bytes(DATA_KEY);
    let argon2id = Argon2id { salt: [0xA5; 16], memory_kib: 1024, passes: 2, lanes: 1 };
    let passphrase = "correct horse battery staple";
    let mut key_id = String::new();
    for (name, by_passphrase) in [("by-key-file", false), ("by-passphrase", true)] {
        let descriptor = Descriptor {
            repository_id: if by_passphrase { *b"golden vectors 2" } else { *b"golden vectors 1" },
            cipher: RepositoryCipher::ChaCha20Poly1305,
            create_if_absent: if by_passphrase { CreateIfAbsent::Store } else { CreateIfAbsent::Claims },
            created_unix_s,
        };
        let wrapping =
            if by_passphrase { argon2id.derive(passphrase.as_bytes()).unwrap() } else { WrappingKey::generate().unwrap() };
        let object = KeyObject {
            repository_id: descriptor.repository_id,
            key_id: data_key.id(),
            generation: 1,
            wrapping_key_id: wrapping.id(),
            argon2id: by_passphrase.then(|| argon2id.clone()),
            wrapped: wrapping.wrap(&data_key, &KeyObject::associated(&descriptor, data_key.id(), 1)).unwrap(),
            created_unix_s,
        };
        let keys = root.join(name).join(format!("keys/{}", data_key.id()));
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join(format!("{}.json", wrapping.id())), object.encode()).unwrap();
        fs::write(root.join(name).join("walvis.json"), descriptor.encode()).unwrap();
        if by_passphrase {
            fs::write(root.join("passphrase"), format!("{passphrase}\n")).unwrap();
        } else {
            key_id = wrapping.id().to_string();
            let known = format!("walvis-repository-1:{}:1\n", hex::encode(descriptor.repository_id));
            fs::write(root.join("key"), KeyFile::from(wrapping).to_text().to_string() + &known).unwrap();
        }
    }
    let id = hex::encode(b"golden vectors 1");
    let other = hex::encode(b"golden vectors 9");
    let (forged, by_accident) = (true, false);
    let edits = [
        ("a field, by accident", "walvis.json", "claims", "store", by_accident, "parser", "do not fit its check"),
        ("claims switched off", "walvis.json", "claims", "store", forged, "key", "fails authentication"),
        ("another date", "walvis.json", "1800000000", "1800000001", forged, "key", "fails authentication"),
        ("another id", "walvis.json", id.as_str(), other.as_str(), forged, "key", "no data key"),
        ("another cipher", "walvis.json", "chacha20-poly1305", "none", forged, "parser", "not encrypted"),
        ("a later format", "walvis.json", "\"format\": 1", "\"format\": 2", forged, "parser", "format 2"),
        ("a field too many", "walvis.json", "\"format\": 1", "\"format\": 1,\n  \"x\": 1", forged, "parser", "unknown field"),
        ("another generation", "keys", "\"generation\": 1", "\"generation\": 2", forged, "key", "fails authentication"),
        ("of another repository", "keys", id.as_str(), other.as_str(), forged, "key", "no data key"),
        ("under another name", "keys", key_id.as_str(), other.as_str(), forged, "parser", "under the name of another key"),
        ("a field of the key, by accident", "keys", "\"generation\": 1", "\"generation\": 2", by_accident, "parser", "check"),
        ("a key file for another repository", "key", id.as_str(), other.as_str(), by_accident, "known", "the key belongs to"),
        ("a newer data key is known", "key", &format!("{id}:1"), &format!("{id}:2"), by_accident, "known", "generation 2"),
        ("a repository line that names none", "key", &format!("{id}:1"), "x", by_accident, "key file", "names no repository"),
        ("a line that is nothing", "key", "walvis-repository-1", "walvis-repository-2", by_accident, "key file", "neither"),
    ];
    let edits: Vec<Edit> = edits
        .into_iter()
        .map(|(what, file, find, replace, recheck, layer, says)| Edit {
            what: what.to_owned(),
            file: file.to_owned(),
            find: find.to_owned(),
            replace: replace.to_owned(),
            recheck,
            rejected_by: layer.to_owned(),
            says: says.to_owned(),
        })
        .collect();
    fs::write(root.join("edits.json"), serde_json::to_string_pretty(&edits).unwrap() + "\n").unwrap();
}
