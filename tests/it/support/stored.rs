//! Base backups in a repository that are made of a copied data directory: what a restore can be tried on by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walvis::codec::pack::RecordKind;
use walvis::crypto::KeyFile;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, StoredExtent};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content, Database, DirectoryEntry, FileEntry, Item, ManifestWriter, PageChecksums, TableRef,
    Tablespace,
};
use walvis::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, MAX_INLINE_EXTENTS};
use walvis::pg::{BackupLabel, ControlFile, Lsn};
use walvis::repo::backups::{PackTarget, PackWriter, with_packs};
use walvis::repo::{ClusterName, Repository, Secret, StoreSettings, StoreUrl, SystemId};

const HASH_KEY: [u8; 32] = [0x5a; 32];

/// A data directory to be stored.
pub struct Copied<'a> {
    /// Root of the repository.
    pub repository: &'a Path,
    /// Its key file.
    pub key: &'a Path,
    /// The copy, with `backup_label`.
    pub dir: &'a Path,
    /// Where it is consistent.
    pub stop_lsn: u64,
    /// `server_version_num`.
    pub version: u32,
    /// Directories outside, by object id: where they were, and where their copy is.
    pub tablespaces: Vec<(u32, PathBuf, PathBuf)>,
    /// When it began; now if nothing is said.
    pub started: Option<SystemTime>,
    /// Whose names are recorded, if not the copy's.
    pub owner: Option<&'a str>,
}

impl<'a> Copied<'a> {
    pub fn new(repository: &'a Path, key: &'a Path, dir: &'a Path, stop_lsn: u64, major: u32) -> Self {
        Self { repository, key, dir, stop_lsn, version: major * 10_000, tablespaces: Vec::new(), started: None, owner: None }
    }

    /// The repository.
    pub fn open(&self) -> Repository {
        let settings = StoreSettings { url: StoreUrl::File(self.repository.to_owned()), create_if_absent: None, known: None };
        let secret = Secret::Key(KeyFile::parse(&fs::read_to_string(self.key).unwrap()).unwrap());
        Repository::open(&settings, &secret, 3, Deadline::after(Duration::from_secs(60))).unwrap()
    }

    /// Stores it in cluster `main`.
    pub fn store(&self) -> BackupId {
        let repository = self.open();
        let cluster = ClusterName::new("main").unwrap();
        let label = BackupLabel::parse(&fs::read(self.dir.join("backup_label")).unwrap()).unwrap();
        let control = ControlFile::parse(&fs::read(self.dir.join("global/pg_control")).unwrap()).unwrap();
        let system_id = SystemId(control.system_id);
        let started = self.started.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap();
        let id = BackupId::new(started.as_secs().cast_signed(), fastrand::u32(..)).unwrap();

        let mut paths = vec![(Vec::new(), self.dir.to_owned())];
        walk(self.dir, b"", &mut paths);
        for (oid, _, copy) in &self.tablespaces {
            let below = format!("pg_tblspc/{oid}").into_bytes();
            paths.push((below.clone(), copy.clone()));
            walk(copy, &below, &mut paths);
        }
        paths.sort();
        let target = PackTarget { pack_bytes: 1 << 20, ..PackTarget::for_jobs(&repository, &cluster, system_id, id, 3, 2) };
        let (items, packed) = with_packs(&target, |writers| {
            // Two writers take turns, as two workers would: neighbours are in different packs.
            let mut two = [writers.writer()?, writers.writer()?];
            let items: Vec<(Item, Uses)> =
                paths.iter().enumerate().map(|(i, (path, at))| self.item(path, at, &mut two[i % 2])).collect();
            for writer in two {
                writer.finish()?;
            }
            Ok(items)
        })
        .unwrap();
        let mut manifest = ManifestWriter::new(Vec::new());
        let (mut files, mut bytes) = (0, 0);
        for (item, uses) in &items {
            manifest.add(item, uses).unwrap();
            if let Item::File(file) = item {
                files += 1;
                bytes += file.size_bytes;
            }
        }
        let live = manifest.live_bytes();
        let facts = BackupFacts {
            attachments: vec![],
            hash_key: hex::encode(HASH_KEY),
            databases: vec![Database { oid: 5, name: "postgres".into(), bytes: Some(1) }],
            tablespaces: self
                .tablespaces
                .iter()
                .map(|(oid, was, _)| Tablespace { oid: *oid, path: was.as_path().into() })
                .collect(),
            annotations: BTreeMap::new(),
            damage: vec![],
            warnings: vec![],
            verified_up_to: 0,
        };
        let (body, head) = manifest.finish(&facts, |pack| packed.packs.get(&pack).copied()).unwrap();
        let whole = [head, body].concat();
        let summary = BackupSummary {
            id,
            label: "copied".to_owned(),
            started_unix_us: i64::try_from(started.as_micros()).unwrap(),
            stopped_unix_us: i64::try_from(started.as_micros()).unwrap() + 2_000_000,
            start_lsn: label.start,
            checkpoint_lsn: label.checkpoint,
            stop_lsn: Lsn(self.stop_lsn),
            timeline: label.timeline.0,
            system_id: system_id.to_string(),
            postgres_version_num: self.version,
            catalog_version: control.catalog_version,
            wal_segment_bytes: control.wal_segment_size.bytes(),
            from_standby: label.from_standby,
            files,
            bytes,
            new_bytes: packed.stored_bytes,
            reused_bytes: 0,
            stored_bytes: live,
            pages: PageChecksums { enabled: true, verified: 7, damaged: 0 },
            parent: None,
            data_directory: self.dir.into(),
            warnings: vec![],
            warnings_total: 0,
            parameters: None,
            jobs: 2,
        };
        repository.put_manifest(&cluster, system_id, &summary, || Box::new(Cursor::new(whole.clone()))).unwrap();
        id
    }

    fn item(&self, path: &[u8], at: &Path, writer: &mut PackWriter<'_>) -> (Item, Uses) {
        let meta = fs::metadata(at).unwrap();
        let named =
            |name: Option<String>, id: u32| self.owner.map_or_else(|| name.unwrap_or_else(|| id.to_string()), str::to_owned);
        let user = nix::unistd::User::from_uid(meta.uid().into()).unwrap().map(|user| user.name);
        let group = nix::unistd::Group::from_gid(meta.gid().into()).unwrap().map(|group| group.name);
        let (owner, group, mode) = (named(user, meta.uid()), named(group, meta.gid()), meta.mode() & 0o7777);
        if meta.is_dir() {
            return (Item::Directory(DirectoryEntry { path: path.to_vec(), mode, owner, group }), Vec::new());
        }
        let content = fs::read(at).unwrap();
        let mut uses: BTreeMap<PackId, u64> = BTreeMap::new();
        let mut extents = Vec::new();
        for bytes in content.chunks(EXTENT_BYTES) {
            if bytes.iter().all(|byte| *byte == 0) {
                extents.push(Extent::zeros(bytes.len()));
                continue;
            }
            let place = writer.append(RecordKind::Extent, bytes).unwrap();
            let hash = *blake3::keyed_hash(&HASH_KEY, bytes).as_bytes().first_chunk().unwrap();
            extents.push(Extent { crc32c: crc32c::crc32c(bytes), stored: Some(StoredExtent { hash, place }) });
        }
        let content_at = if extents.len() <= MAX_INLINE_EXTENTS {
            Content::Extents(extents)
        } else {
            let mut tables = Vec::new();
            for (number, piece) in extents.chunks(EXTENTS_PER_TABLE).enumerate() {
                for stored in piece.iter().filter_map(|extent| extent.stored) {
                    *uses.entry(stored.place.pack).or_default() += u64::from(stored.place.sealed_bytes);
                }
                let bytes = (content.len() - number * EXTENTS_PER_TABLE * EXTENT_BYTES).min(EXTENTS_PER_TABLE * EXTENT_BYTES);
                let table = ExtentTable { bytes: bytes as u64, extents: piece.to_vec() };
                let place = writer.append(RecordKind::Table, &table.encode().unwrap()).unwrap();
                tables.push(TableRef { place, crc32c: table.crc32c() });
            }
            Content::Tables(tables)
        };
        let file = FileEntry {
            path: path.to_vec(),
            size_bytes: content.len() as u64,
            mode,
            owner,
            group,
            modified_unix_us: meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000,
            crc32c: crc32c::crc32c(&content),
            content: content_at,
        };
        (Item::File(file), uses.into_iter().collect())
    }
}

/// What tables refer to.
type Uses = Vec<(PackId, u64)>;

/// Everything below a directory; links are left out.
fn walk(dir: &Path, below: &[u8], found: &mut Vec<(Vec<u8>, PathBuf)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let path = if below.is_empty() { name.as_bytes().to_vec() } else { [below, b"/", name.as_bytes()].concat() };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&entry.path(), &path, found);
        }
        if !kind.is_symlink() {
            found.push((path, entry.path()));
        }
    }
}
