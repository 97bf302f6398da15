//! Hostile descriptors and key objects. Where a genuine one is there too, it is found and used.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use walvis::crypto::{Argon2id, DataKey, KeyFile, KeyId, WrappingKey};
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::format::descriptor::{Descriptor, KeyObject};
use walvis::limits::{MAX_DESCRIPTOR_BYTES, MAX_KEY_OBJECTS};
use walvis::repo::{Repository, Secret, StoreSettings, StoreUrl};
use walvis::store::fault::Fault;
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, Store};

use super::{asked, finish, kind_of, round, rounds};
use crate::support::command::files_below;

/// A repository in memory, opened with a key file or a passphrase.
struct World {
    memory: Arc<MemoryStore>,
    key: KeyFile,
    is_passphrase: bool,
    repository_id: [u8; 16],
    /// Where the genuine key is.
    genuine: Key,
}

const PASSPHRASE: &[u8] = b"correct horse battery staple";

fn cheap(random: &mut fastrand::Rng) -> Argon2id {
    let mut salt = [0; 16];
    random.fill(&mut salt);
    Argon2id { salt, memory_kib: 64, passes: 1, lanes: 1 }
}

impl World {
    fn new(is_passphrase: bool, random: &mut fastrand::Rng) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        let argon2id = cheap(random);
        let key = if is_passphrase { argon2id.derive(PASSPHRASE).unwrap() } else { WrappingKey::generate().unwrap() };
        let key = KeyFile::from(key);
        let secret = Secret::Key(KeyFile::parse(&key.to_text()).unwrap());
        Repository::init(&settings, &secret, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = Arc::new(MemoryStore::new());
        let mut genuine = None;
        let mut repository_id = [0; 16];
        for file in files_below(&root) {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let mut body = std::fs::read(&file).unwrap();
            if name.starts_with("keys/") {
                let mut object = KeyObject::parse(&body).unwrap();
                object.argon2id = is_passphrase.then(|| argon2id.clone());
                repository_id = object.repository_id;
                body = object.encode();
                genuine = Some(Key::new(name.clone()).unwrap());
            }
            let _ = memory.create(&Key::new(name).unwrap(), Bytes::from(body), &ContentId([0; 16])).unwrap();
        }
        let genuine = genuine.unwrap();
        // Who adds objects adds later ones.
        assert!(memory.backdate(&genuine, Duration::from_secs(3600)));
        Self { memory, key, is_passphrase, repository_id, genuine }
    }

    fn secret(&self) -> Secret {
        if self.is_passphrase {
            return Secret::Passphrase(PASSPHRASE.to_vec().into());
        }
        Secret::Key(KeyFile::parse(&self.key.to_text()).unwrap())
    }

    fn open(&self) -> Result<Repository, Error> {
        Repository::over(Arc::clone(&self.memory) as Arc<dyn Store>, &self.secret(), 1)
    }

    fn put(&self, name: &str, body: Vec<u8>) {
        let key = Key::new(name).unwrap();
        self.memory.delete(&key).unwrap();
        let _ = self.memory.create(&key, Bytes::from(body), &ContentId([0; 16])).unwrap();
    }

    fn read(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut object = self.memory.read(key, walvis::store::ReadRange::All).unwrap();
        std::io::Read::read_to_end(&mut object.body, &mut bytes).unwrap();
        bytes
    }

    /// A key object that opens nothing, under a name that fits it.
    fn bogus(&self, random: &mut fastrand::Rng, argon2id: Option<Argon2id>) -> KeyObject {
        let mut object = KeyObject::parse(&self.read(&self.genuine)).unwrap();
        random.fill(&mut object.key_id.0);
        random.fill(&mut object.wrapped.sealed);
        object.generation = random.u64(..);
        object.argon2id = argon2id;
        object
    }

    fn add(&self, object: &KeyObject) {
        self.put(&format!("keys/{}/{}.json", object.key_id, object.wrapping_key_id), object.encode());
    }
}

fn odd_number(random: &mut fastrand::Rng) -> Value {
    let numbers = [
        json!(0),
        json!(-1),
        json!(1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!("1"),
        json!(null),
        json!([[[]]]),
        json!({}),
    ];
    random.choice(&numbers).unwrap().clone()
}

/// Adds an object below `keys/`, or several: none of them is a reason not to open.
fn add_keys(world: &World, random: &mut fastrand::Rng) -> String {
    match random.u32(0..8) {
        0 => {
            for _ in 0..random.usize(1..40) {
                world.add(&world.bogus(random, None));
            }
            "objects of our wrapping key".to_owned()
        }
        1 => {
            for _ in 0..random.usize(1..20) {
                let argon2id = cheap(random);
                let mut object = world.bogus(random, Some(argon2id));
                random.fill(&mut object.wrapping_key_id.0);
                world.add(&object);
            }
            "objects of passphrases".to_owned()
        }
        2 => {
            let asks = Argon2id { salt: [1; 16], memory_kib: random.u32(..), passes: random.u32(..), lanes: random.u32(..) };
            let what = format!("an object that asks for {asks:?}");
            world.add(&world.bogus(random, Some(asks)));
            what
        }
        3 => {
            // Of another repository, and genuine there.
            let (mut object, data) = (world.bogus(random, None), DataKey::generate().unwrap());
            random.fill(&mut object.repository_id);
            object.key_id = data.id();
            let descriptor = Descriptor { repository_id: object.repository_id, ..world.open().unwrap().descriptor().clone() };
            let associated = KeyObject::associated(&descriptor, object.key_id, object.generation);
            object.wrapped = world.key.key.wrap(&data, &associated).unwrap();
            world.add(&object);
            "the key of another repository".to_owned()
        }
        4 => {
            let object = world.bogus(random, None);
            let name = format!("keys/{}/{}.json", KeyId([7; 16]), object.wrapping_key_id);
            world.put(&name, object.encode());
            "an object under another name".to_owned()
        }
        5 => {
            let name = format!("keys/{}/{}.json", KeyId([8; 16]), world.key.key.id());
            world.put(&name, vec![b'['; random.usize(0..2 * MAX_DESCRIPTOR_BYTES)]);
            "brackets".to_owned()
        }
        6 => {
            let object = world.bogus(random, None);
            let mut text: Value = serde_json::from_slice(&object.encode()).unwrap();
            let fields = text.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let field = random.choice(&fields).unwrap();
            text[field] = odd_number(random);
            world.put(&format!("keys/{}/{}.json", object.key_id, object.wrapping_key_id), serde_json::to_vec(&text).unwrap());
            format!("an object whose {field} is {}", text[field])
        }
        _ => {
            // The genuine one once more, of a later generation: what it seals says which generation it is.
            let mut object = KeyObject::parse(&world.read(&world.genuine)).unwrap();
            object.generation += 1;
            random.fill(&mut object.key_id.0);
            world.add(&object);
            "the genuine key as a later one".to_owned()
        }
    }
}

fn change_descriptor(world: &World, random: &mut fastrand::Rng) -> (String, bool) {
    let key = Key::new("walvis.json").unwrap();
    let text = world.read(&key);
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    let fields = json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let field = random.choice(&fields).unwrap().clone();
    let (what, may_open) = match random.u32(0..6) {
        0 => (format!("{field} is {}", json[&field]), odd_number(random)),
        1 => ("another repository".to_owned(), json!(hex::encode([random.u8(..); 16]))),
        2 => ("no encryption".to_owned(), json!("none")),
        3 => ("a later format".to_owned(), json!(random.u32(2..))),
        4 => ("an unknown field".to_owned(), json!(1)),
        _ => ("a long descriptor".to_owned(), json!("x".repeat(random.usize(1..2 * MAX_DESCRIPTOR_BYTES)))),
    };
    let value = may_open;
    match what.as_str() {
        "another repository" => json["repository_id"] = value,
        "no encryption" => json["cipher"] = value,
        "a later format" => json["format"] = value,
        "an unknown field" => json["unknown"] = value,
        "a long descriptor" => json["check"] = value,
        _ => json[&field] = value,
    }
    // A writer that knows the format writes the right check.
    let names = ["format", "repository_id", "cipher", "create_if_absent", "created_unix_s"];
    let mut hasher = blake3::Hasher::new();
    for name in names {
        let value = json[name].as_str().map_or_else(|| json[name].to_string(), str::to_owned);
        hasher.update(format!("{name}={value}\n").as_bytes());
    }
    if what != "a long descriptor" && field != "check" {
        json["check"] = hasher.finalize().to_hex().to_string().into();
    }
    world.put("walvis.json", serde_json::to_vec(&json).unwrap());
    let may_open = json == serde_json::from_slice::<Value>(&text).unwrap();
    (format!("descriptor: {what}: {json}"), may_open)
}

#[test]
fn hostile_keys_and_descriptors_stop_nobody_who_has_the_key() {
    rounds("keys::read_hostile_keys", 200);
}

#[test]
#[ignore = "long: about 1 min"]
fn long_many_hostile_keys_and_descriptors() {
    rounds("keys::read_hostile_keys", 10_000);
}

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn read_hostile_keys() {
    let (seed, count) = asked();
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..count {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let world = World::new(random.bool(), &mut random);
        let genuine = world.open().unwrap().descriptor().clone();
        assert_eq!(genuine.repository_id, world.repository_id);
        if random.u32(0..3) > 0 {
            let what = format!("WALVIS_TEST_SEED={} {}", seed.wrapping_add(number), add_keys(&world, &mut random));
            let opened = round(number, &what, || world.open());
            *tally.entry(format!("keys {}", kind_of(&opened))).or_default() += 1;
            assert!(opened.is_ok(), "{:?}: {what}", opened.err());
        } else {
            let (what, may_open) = change_descriptor(&world, &mut random);
            let what = format!("WALVIS_TEST_SEED={} {what}", seed.wrapping_add(number));
            let opened = round(number, &what, || world.open());
            *tally.entry(format!("descriptor {}", kind_of(&opened))).or_default() += 1;
            match opened {
                Ok(_) => assert!(may_open, "{what}"),
                Err(error) => assert!(matches!(error.kind, Kind::Damaged | Kind::Refused), "{error:?}: {what}"),
            }
        }
    }
    finish(&tally);
}

/// Ten thousand objects that could be ours, of which each would cost a request, or an Argon2id run.
#[test]
fn a_flood_of_key_objects_costs_a_bounded_number_of_requests_and_derivations() {
    let mut random = fastrand::Rng::with_seed(5);
    for is_passphrase in [false, true] {
        let world = World::new(is_passphrase, &mut random);
        for number in 0..10_000 {
            let mut object = world.bogus(&mut random, is_passphrase.then(|| cheap(&mut fastrand::Rng::with_seed(number))));
            if is_passphrase {
                random.fill(&mut object.wrapping_key_id.0);
            }
            world.add(&object);
        }
        let mut listed = 0;
        world
            .memory
            .list("keys/", "", &mut |_| {
                listed += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(listed, 10_001);
        let counted = Arc::new(Fault::new(Arc::clone(&world.memory) as Arc<dyn Store>));
        Repository::over(Arc::clone(&counted) as Arc<dyn Store>, &world.secret(), 1).unwrap();
        let read = counted.calls(walvis::store::fault::Op::Read);
        // The descriptor, too.
        assert_eq!(read, MAX_KEY_OBJECTS + 1, "passphrase: {is_passphrase}");
    }
}
