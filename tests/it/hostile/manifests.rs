//! Hostile manifests, and `pitr-restore` of what they say, beside files that must stay as they are.

#[path = "mutations.rs"]
mod mutations;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use walvis::codec::Digest;
use walvis::codec::pack::RecordKind;
use walvis::config::{Config, Flags, definitions};
use walvis::crypto::{KeyFile, WrappingKey};
use walvis::deadline::Deadline;
use walvis::error::Kind;
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, RecordLocation, StoredExtent};
use walvis::limits::EXTENT_BYTES;
use walvis::ops::pitr_restore;
use walvis::pg::settings::{Invocation, TargetAction};
use walvis::pg::target::{Target, Zone};
use walvis::recovery::ResolveRequest;
use walvis::repo::backups::{PackTarget, with_packs};
use walvis::repo::{ClusterName, Content as Stored, ObjectName, Repository, Secret, StoreSettings, StoreUrl};
use walvis::restore::request::{RestoreRequest, TablespaceKey};

use super::raw::{DIRECTORY, EXTENTS, Raw, RawItem, RawPack, RawPlace, TABLES};
use super::{asked, canary, finish, is_refusal, kind_of, prepared, round, rounds, scratch};
use crate::resolve_random::{facts, put};
use crate::support::wal::{SEGMENT_BYTES, SYSTEM_ID, Writer};

const HASH_KEY: [u8; 32] = [0x5a; 32];
const CATALOG_VERSION: u32 = 202_307_071;
const OID: u32 = 16_400;

/// A repository with a log, the packs of a backup, and the truth about it.
pub(super) struct World {
    pub place: TempDir,
    pub config: Config,
    pub repository: Repository,
    pub cluster: ClusterName,
    pub id: BackupId,
    pub truth: Raw,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn directory(path: &str) -> RawItem {
    let path = path.as_bytes().to_vec();
    let (kind, mode) = (DIRECTORY, 0o700);
    RawItem { kind, path, shared: None, mode, owner: 0, group: 1, size: 0, modified: 0, crc: 0, places: vec![] }
}

impl World {
    pub fn new() -> Self {
        let place = scratch();
        let at = |name: &str| place.path().join(name);
        let key = KeyFile::from(WrappingKey::generate().unwrap());
        fs::write(at("key"), key.to_text().as_bytes()).unwrap();
        fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(at("walvis.toml"), "").unwrap();
        let settings = StoreSettings { url: StoreUrl::File(at("repository")), create_if_absent: None, known: None };
        let deadline = Deadline::after(Duration::from_secs(600));
        let (repository, _) = Repository::init(&settings, &Secret::Key(key), 1, deadline).unwrap();
        let repository_url = format!("file://{}", at("repository").display());
        let flags = Flags::default()
            .with(&definitions::CONFIG, at("walvis.toml"))
            .with(&definitions::URL, repository_url.as_str())
            .with(&definitions::KEY_FILE, at("key"));
        let config = Config::load(&flags, &|_| None, &[]).unwrap();
        let cluster = ClusterName::new("main").unwrap();
        repository.bind(&cluster, facts()).unwrap();
        let mut writer = Writer::new(7, 1);
        writer.busy(2);
        let start = writer.lsn();
        writer.busy(2);
        writer.backup_end(start);
        let stop = writer.lsn();
        writer.busy(2);
        for (_, name, bytes) in writer.finish().segments {
            put(&repository, &cluster, name, &bytes, true);
        }
        let id = BackupId::new(1_790_000_000, 7).unwrap();
        let (mut truth, contents) = backup(&repository, &cluster, id);
        truth.summary = json!({
            "id": id.to_string(), "label": "truth", "started_unix_us": 1_790_000_000_000_000_i64,
            "stopped_unix_us": 1_790_000_001_000_000_i64, "start_lsn": start.to_string(), "checkpoint_lsn": start.to_string(),
            "stop_lsn": stop.to_string(), "timeline": 1, "system_id": SYSTEM_ID.to_string(), "postgres_version_num": 160_002,
            "catalog_version": CATALOG_VERSION, "wal_segment_bytes": SEGMENT_BYTES, "from_standby": false, "files": 8,
            "bytes": 900_000, "new_bytes": 900_000, "reused_bytes": 0, "stored_bytes": 900_000,
            "pages": {"enabled": true, "verified": 1, "damaged": 0}, "parent": null, "data_directory": "/var/lib/data", "jobs": 2,
        });
        for name in ["outside", "outside/below"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        std::os::unix::fs::symlink(at("outside/file"), at("outside/link")).unwrap();
        Self { config, repository, cluster, id, truth, contents, place }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Stores a manifest in place of the one before.
    pub fn store(&self, raw: &Raw) {
        let name = format!("clusters/main/{SYSTEM_ID}/backups/{}", self.id);
        let _ = fs::remove_file(self.at("repository").join(&name));
        let plain = raw.encode();
        let digest = Digest::of(&mut plain.as_slice()).unwrap();
        let content =
            Stored::known(digest, || Box::new(plain.as_slice())).described_by(serde_json::to_vec(&raw.summary).unwrap());
        self.repository.put(&ObjectName::parse(&name).unwrap(), &content).unwrap();
    }

    pub fn request(&self, config_to: bool) -> RestoreRequest {
        RestoreRequest {
            pgdata: self.at("target"),
            target: ResolveRequest {
                target: Target::Immediate,
                inclusive: true,
                timeline: None,
                from: None,
                backup: None,
                system_id: None,
                zone: Zone::parse("UTC").unwrap(),
            },
            action: TargetAction::Promote,
            tablespace_map: vec![(TablespaceKey::Oid(OID), self.at("space"))],
            tablespaces_at_original_places: false,
            delta: false,
            server_is_stopped: false,
            discard_unarchived_wal: false,
            overwrite_tablespaces_of_the_log: false,
            waldir: None,
            config_to: config_to.then(|| self.at("etc")),
            plan: false,
            start: false,
            archiving: false,
            standby: false,
            primary: None,
            jobs: Some(2),
            bin_dir: None,
            invocation: Invocation { environment: vec![], program: "/usr/bin/walvis".to_owned(), options: vec![] },
        }
    }

    fn clear(&self) {
        for name in ["target", "space", "etc"] {
            match fs::remove_dir_all(self.at(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{name}: {e}"),
                _ => {}
            }
        }
    }

    /// Holds what was restored against the truth.
    fn is_right(&self) -> Result<(), String> {
        for (path, content) in &self.contents {
            let at = self.at("target").join(std::str::from_utf8(path).unwrap());
            let found = fs::read(&at).map_err(|e| format!("{}: {e}", at.display()))?;
            // The restore has its own settings and its own map.
            if !path.ends_with(b".conf") && !path.ends_with(b"tablespace_map") && found != *content {
                return Err(format!("{} came back otherwise", at.display()));
            }
        }
        Ok(())
    }

    /// Whatever was made has a mode that a server's file has, and no link leads anywhere but to the tablespace.
    fn is_tame(&self, what: &str) {
        for name in ["target", "space", "etc"] {
            let mut open = vec![self.at(name)];
            while let Some(path) = open.pop() {
                let Ok(meta) = fs::symlink_metadata(&path) else { continue };
                if meta.is_symlink() {
                    assert_eq!(fs::read_link(&path).unwrap(), self.at("space"), "{what}: {}", path.display());
                    continue;
                }
                let mode = meta.permissions().mode() & 0o7777;
                let allowed: &[u32] = if meta.is_dir() { &[0o700, 0o750] } else { &[0o600, 0o640] };
                assert!(allowed.contains(&mode), "{what}: {} has mode {mode:o}", path.display());
                if meta.is_dir() {
                    open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        }
        if let Ok(entries) = fs::read_dir(self.at("space")) {
            for entry in entries {
                assert_eq!(entry.unwrap().file_name().to_str(), Some(&*format!("PG_16_{CATALOG_VERSION}")), "{what}");
            }
        }
    }
}

/// Packs, and a manifest that tells the truth about them.
fn backup(repository: &Repository, cluster: &ClusterName, id: BackupId) -> (Raw, BTreeMap<Vec<u8>, Vec<u8>>) {
    let version = format!("PG_16_{CATALOG_VERSION}");
    let space = format!("pg_tblspc/{OID}/{version}/5/16999");
    let contents: BTreeMap<Vec<u8>, Vec<u8>> = [
        ("PG_VERSION", b"16\n".to_vec()),
        ("backup_label", b"START WAL LOCATION: 0/0 (file 000000010000000000000001)\n".to_vec()),
        ("base/5/1259", noise(1, 100_000)),
        ("base/5/16384", noise(2, 400_000)),
        ("base/5/16385", vec![0; 300_000]),
        ("base/5/16386", vec![]),
        ("global/pg_control", noise(3, 8192)),
        ("pg_hba.conf", b"# nobody\n".to_vec()),
        ("postgresql.conf", b"port = 1\n".to_vec()),
        (space.as_str(), noise(4, 8192)),
        ("tablespace_map", b"16400 /was/there\n".to_vec()),
    ]
    .into_iter()
    .map(|(path, content)| (path.as_bytes().to_vec(), content))
    .collect();
    let target = PackTarget { pack_bytes: 300_000, ..PackTarget::for_jobs(repository, cluster, facts().system_id, id, 1, 1) };
    let (stored, packed) = with_packs(&target, |writers| {
        let mut writer = writers.writer()?;
        let mut stored: BTreeMap<Vec<u8>, Vec<(Extent, Option<RecordLocation>)>> = BTreeMap::new();
        for (path, content) in &contents {
            let mut extents = Vec::new();
            for bytes in content.chunks(EXTENT_BYTES) {
                if bytes.iter().all(|byte| *byte == 0) {
                    extents.push(Extent::zeros(bytes.len()));
                    continue;
                }
                let place = writer.append(RecordKind::Extent, bytes)?;
                let hash = *blake3::keyed_hash(&HASH_KEY, bytes).as_bytes().first_chunk().unwrap();
                extents.push(Extent { crc32c: crc32c::crc32c(bytes), stored: Some(StoredExtent { hash, place }) });
            }
            let places = if extents.len() > 4 {
                let table = ExtentTable { bytes: content.len() as u64, extents };
                let place = writer.append(RecordKind::Table, &table.encode().unwrap())?;
                vec![(Extent { crc32c: table.crc32c(), stored: None }, Some(place))]
            } else {
                extents.into_iter().map(|extent| (extent, None)).collect()
            };
            stored.insert(path.clone(), places);
        }
        writer.finish()?;
        Ok(stored)
    })
    .unwrap();
    let packs: Vec<(PackId, u64)> = packed.packs.iter().map(|(pack, total)| (*pack, *total)).collect();
    let index = |pack: PackId| packs.iter().position(|(other, _)| *other == pack).unwrap() as u64;
    let raw_place = |(extent, table): &(Extent, Option<RecordLocation>)| {
        let place = table.or(extent.stored.map(|stored| stored.place));
        RawPlace {
            pack: place.map(|place| index(place.pack)),
            offset: place.map_or(0, |place| place.offset.into()),
            sealed: place.map_or(0, |place| place.sealed_bytes.into()),
            hash: extent.stored.map_or([0; 16], |stored| stored.hash),
            crc: extent.crc32c,
        }
    };
    let mut items: Vec<RawItem> = ["", "base", "base/5", "global", "pg_tblspc", "pg_wal"].map(directory).to_vec();
    items.extend(
        [format!("pg_tblspc/{OID}"), format!("pg_tblspc/{OID}/{version}"), format!("pg_tblspc/{OID}/{version}/5")]
            .map(|path| directory(&path)),
    );
    for (path, content) in &contents {
        let places: Vec<RawPlace> = stored[path].iter().map(raw_place).collect();
        let kind = if content.len() > 4 * EXTENT_BYTES { TABLES } else { EXTENTS };
        let (size, crc) = (content.len() as u64, crc32c::crc32c(content));
        let modified = 1_790_000_000_000_000;
        items.push(RawItem {
            kind,
            path: path.clone(),
            shared: None,
            mode: 0o600,
            owner: 0,
            group: 1,
            size,
            modified,
            crc,
            places,
        });
    }
    items.sort_by(|a, b| a.path.cmp(&b.path));
    let hba = stored[b"pg_hba.conf".as_slice()][0].0;
    let tablespaces = json!([{"oid": OID, "path": "/was/there"}]);
    let attachment = json!({
        "path": "/etc/postgresql/16/main/pg_hba.conf", "setting": "hba_file", "mode": 0o640, "owner": "postgres",
        "group": "postgres", "modified_unix_us": 5, "size_bytes": 9, "crc32c": hba.crc32c, "extents": [hba],
    });
    let raw = Raw {
        version: 1,
        summary: Value::Null,
        facts: json!({
            "hash_key": hex::encode(HASH_KEY), "databases": [{"oid": 5, "name": "postgres", "bytes": 7}], "tablespaces": tablespaces,
            "annotations": {"ticket": "42"}, "damage": [], "warnings": ["odd"], "attachments": [attachment],
        }),
        names: vec![b"postgres".to_vec(), b"nogroup".to_vec()],
        packs: packs
            .iter()
            .map(|(pack, total)| RawPack {
                started_unix_s: pack.backup.started_unix_s,
                random: pack.backup.random,
                number: pack.number.into(),
                live: *total,
                total: *total,
            })
            .collect(),
        items,
        facts_bytes: None,
        name_count: None,
        pack_count: None,
        item_count: None,
        tail: vec![],
        cut: 0,
    };
    (raw, contents)
}

#[test]
fn what_a_hostile_manifest_says_goes_nowhere() {
    rounds("manifests::read_hostile_manifests", 550);
}

#[test]
#[ignore = "long: about 4 min"]
fn long_what_many_hostile_manifests_say_goes_nowhere() {
    rounds("manifests::read_hostile_manifests", 20_000);
}

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn read_hostile_manifests() {
    let (seed, count) = asked();
    let world = World::new();
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    // The truth first: what refuses everything is no reader.
    world.store(&world.truth);
    pitr_restore::run(&world.config, &world.request(true), Deadline::after(Duration::from_secs(60)), &mut |_| Ok(())).unwrap();
    world.is_right().unwrap();
    world.is_tame("the truth");
    world.clear();
    let repository = world.at("repository");
    let before = canary(world.place.path(), &[&repository]);
    prepared();
    for number in 0..count {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let mut raw = world.truth.clone();
        let changes: Vec<(String, mutations::Fate)> =
            (0..random.usize(1..=3)).map(|_| mutations::mutate(&mut raw, &mut random)).collect();
        let what = changes.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>().join(", ");
        let what = format!("WALVIS_TEST_SEED={} {what}", seed.wrapping_add(number));
        world.store(&raw);
        let request = world.request(random.bool());
        let result = round(number, &what, || {
            pitr_restore::run(&world.config, &request, Deadline::after(Duration::from_secs(60)), &mut |_| Ok(()))
        });
        *tally.entry(kind_of(&result)).or_default() += 1;
        let fates: Vec<mutations::Fate> = changes.iter().map(|(_, fate)| *fate).collect();
        match &result {
            Ok(_) => assert_ne!(fates, [mutations::Fate::Refused], "it was believed: {what}"),
            Err(error) => {
                assert!(fates.iter().any(|fate| *fate != mutations::Fate::Harmless), "{error:?}: {what}");
                // Lies about positions and timelines lead to no target; a file as long as the world has no room.
                let is_elsewhere = fates.contains(&mutations::Fate::Elsewhere) && error.kind == Kind::Target;
                let has_no_room = error.kind == Kind::Config && error.what.contains("has room for");
                // The request maps a tablespace that is not there any more.
                let has_no_tablespace = error.kind == Kind::Usage && error.what.contains("has no tablespace");
                assert!(is_refusal(error) || is_elsewhere || has_no_room || has_no_tablespace, "{error:?}: {what}");
            }
        }
        if result.is_ok() && fates.iter().all(|fate| *fate == mutations::Fate::Harmless) {
            world.is_right().unwrap_or_else(|e| panic!("{e}: {what}"));
        }
        world.is_tame(&what);
        world.clear();
        assert_eq!(canary(world.place.path(), &[&repository]), before, "something else changed: {what}");
    }
    finish(&tally);
}
