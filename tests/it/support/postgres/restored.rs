//! Restored data directories: what can be checked before, while and after a server runs on them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s3s::crypto::{Checksum as _, Sha256};

use super::{Cluster, Options, Scratch, poll, run};

const PAGE_BYTES: usize = 8192;
/// What a restore writes itself: `backup_manifest` does not count these, nor what is in `pg_wal`.
const OWN: [&str; 4] = ["backup_manifest", "postgresql.auto.conf", "recovery.signal", "standby.signal"];

impl Cluster {
    /// A data directory that was restored as `name` into the scratch directory, with sockets of its own. It is not
    /// started.
    pub(crate) fn restored(scratch: &Arc<Scratch>, name: &str, major: u32, options: &Options) -> Self {
        let cluster = Self::prepare(scratch, name, major, options);
        assert!(cluster.data.join("PG_VERSION").exists(), "nothing is restored in {}", cluster.data.display());
        cluster.configure(&Options { archive_command: None, restore_command: None, ..options.clone() });
        cluster
    }

    /// A data directory on which somebody else starts a server: `sockets_of` has made its settings. It is killed in the
    /// end.
    pub(crate) fn started_by_others(
        scratch: &Arc<Scratch>,
        name: &str,
        major: u32,
        options: &Options,
        sockets_of: &Self,
    ) -> Self {
        let mut cluster = Self::prepare(scratch, name, major, options);
        cluster.sockets.clone_from(&sockets_of.sockets);
        cluster.foreign = true;
        cluster
    }

    /// Waits until recovery has reached its target and pauses there.
    pub(crate) fn wait_paused(&mut self) {
        let paused = poll(|| {
            if let Some(status) = self.exited() {
                self.fail(&format!("recovery ended with {status}, it was to pause"));
            }
            let answer =
                super::load::Client::connect(self).and_then(|client| client.query("select pg_is_wal_replay_paused()")).ok()?;
            (answer == "t").then_some(())
        });
        if paused.is_none() {
            self.fail("recovery does not get to its target");
        }
    }

    /// Checks all indexes and tables of the database with `amcheck`. The server takes writes.
    pub(crate) fn amcheck(&self) {
        self.sql("create extension if not exists amcheck");
        let indexes = self.sql(
            "select c.oid, bt_index_check(c.oid, true) from pg_class c join pg_am a on a.oid = c.relam join pg_index i on i.indexrelid = c.oid
             where a.amname = 'btree' and i.indisvalid and c.relpersistence <> 't'",
        );
        assert!(indexes.lines().count() > 100, "amcheck looked at {indexes}");
        if self.postgres().major >= 14 {
            let damage = self.sql(
                "select c.oid::regclass, v.blkno, v.msg from pg_class c join pg_am a on a.oid = c.relam, lateral verify_heapam(c.oid) v
                 where a.amname = 'heap' and c.relkind in ('r', 't', 'm') and c.relpersistence <> 't'",
            );
            assert_eq!(damage, "", "amcheck found damage");
        }
    }

    /// Checks every page of a stopped cluster: by ourselves, and with `pg_checksums` where there is one that knows this
    /// version.
    pub(crate) fn assert_checksums(&self) {
        let (pages, wrong) = wrong_pages(&self.data);
        assert!(pages > 500 && wrong.is_empty(), "{pages} pages, of wrong checksum: {wrong:?}");
        if let Some(Err(said)) = self.pg_checksums() {
            self.fail(&said);
        }
    }

    /// Whether `pg_checksums` finds all pages right, else what it says, if there is one that knows this version.
    pub(crate) fn pg_checksums(&self) -> Option<Result<(), String>> {
        let program = self.tool("pg_checksums")?;
        let output = self.scratch.command(&program).args(["--check", "--pgdata"]).arg(&self.data).output().unwrap();
        let said = || [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text)).concat();
        Some(if output.status.success() { Ok(()) } else { Err(format!("pg_checksums ended with {}: {}", output.status, said())) })
    }

    /// A program of the client tools, if it fits this cluster: 13 to 16 have the same control file and manifest.
    fn tool(&self, name: &str) -> Option<PathBuf> {
        let own = self.postgres.home.join("bin").join(name);
        if own.exists() {
            return Some(own);
        }
        let path = self.scratch.client_tool(self.postgres.major, name)?;
        let version = run(self.scratch.command(&path).arg("--version"));
        let of_tool: u32 = version.split_whitespace().nth(2).unwrap().split('.').next().unwrap().parse().unwrap();
        // In a tablespace the tools look only for the directory of their own version.
        let knows_tablespaces = name != "pg_checksums" || fs::read_dir(self.data.join("pg_tblspc")).unwrap().next().is_none();
        (knows_tablespaces && (13..=16).contains(&of_tool) && (13..=16).contains(&self.postgres.major)).then_some(path)
    }

    /// Checks a directory that was restored and not started yet against its `backup_manifest`: by ourselves, and with
    /// `pg_verifybackup` where there is one that knows this version.
    pub(crate) fn assert_manifest(&self) {
        assert_manifest(&self.data, self.postgres.major);
        if let Some(pg_verifybackup) = self.tool("pg_verifybackup") {
            run(self.scratch.command(&pg_verifybackup).args(["--no-parse-wal", "--exit-on-error"]).arg(&self.data));
        }
    }
}

/// Every file of the manifest is there with its length and CRC, nothing else is, and the manifest's own checksum is
/// right.
pub(crate) fn assert_manifest(data: &Path, major: u32) {
    let text = fs::read_to_string(data.join("backup_manifest")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("backup_manifest: {e}"));
    let version = manifest["PostgreSQL-Backup-Manifest-Version"].as_u64();
    assert_eq!(version, Some(if major >= 17 { 2 } else { 1 }));
    assert_eq!(manifest["System-Identifier"].is_u64(), major >= 17);
    let (body, _) = text.rsplit_once("\"Manifest-Checksum\"").unwrap();
    assert_eq!(manifest["Manifest-Checksum"].as_str().unwrap(), hex::encode(Sha256::checksum(body.as_bytes())));
    let ranges = manifest["WAL-Ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), 1, "{ranges:?}");

    let mut expected = BTreeSet::new();
    for file in manifest["Files"].as_array().unwrap() {
        let path = match (file["Path"].as_str(), file["Encoded-Path"].as_str()) {
            (Some(path), None) => path.as_bytes().to_vec(),
            (None, Some(encoded)) => hex::decode(encoded).unwrap(),
            _ => panic!("{file}"),
        };
        let name = String::from_utf8_lossy(&path).into_owned();
        if !OWN.contains(&&*name) {
            let content = fs::read(data.join(OsStr::from_bytes(&path))).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(file["Size"].as_u64(), Some(content.len() as u64), "{name}");
            assert_eq!(file["Checksum-Algorithm"].as_str(), Some("CRC32C"));
            // PostgreSQL writes the bytes of the CRC as they lie in memory.
            let crc = hex::encode(crc32c::crc32c(&content).to_le_bytes());
            assert_eq!(file["Checksum"].as_str(), Some(&*crc), "{name}");
        }
        assert!(expected.insert(path), "{name} is there twice");
    }
    assert!(expected.contains(&b"global/pg_control"[..]) && expected.contains(&b"backup_label"[..]));
    for path in files_of(data) {
        let name = String::from_utf8_lossy(&path).into_owned();
        let known = name.starts_with("pg_wal/") || OWN.contains(&&*name) || expected.contains(&path);
        assert!(known, "{name} is not in the manifest");
    }
}

/// Files below a data directory, relative to it, also in tablespaces.
fn files_of(data: &Path) -> Vec<Vec<u8>> {
    let (mut found, mut open) = (Vec::new(), vec![data.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(data).unwrap().as_os_str().as_bytes().to_vec());
            }
        }
    }
    found.sort();
    found
}

/// Number of pages with a checksum, and those whose checksum is wrong.
pub(crate) fn wrong_pages(data: &Path) -> (usize, Vec<String>) {
    let (mut pages, mut wrong) = (0, Vec::new());
    for path in files_of(data) {
        let Some((segment, name)) = std::str::from_utf8(&path).ok().and_then(relation_file) else { continue };
        let mut file = fs::File::open(data.join(name)).unwrap();
        let mut page = vec![0; PAGE_BYTES];
        for block in 0.. {
            match file.read_exact(&mut page) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                result => result.unwrap(),
            }
            let is_new = page[14..16] == [0, 0];
            if !is_new {
                pages += 1;
                let stored = u16::from_le_bytes([page[8], page[9]]);
                if stored != page_checksum(&mut page, segment * 131_072 + block) {
                    wrong.push(format!("{name} block {block}"));
                }
            }
        }
    }
    (pages, wrong)
}

/// The number of the 1 GiB segment, if it is a file of a relation.
fn relation_file(path: &str) -> Option<(u32, &str)> {
    if !["base/", "global/", "pg_tblspc/"].iter().any(|top| path.starts_with(top)) {
        return None;
    }
    let name = path.rsplit('/').next()?;
    let (stem, segment) = name.split_once('.').map_or((name, 0), |(stem, number)| (stem, number.parse().unwrap_or(u32::MAX)));
    let relation = ["_fsm", "_vm", "_init"].iter().find_map(|fork| stem.strip_suffix(fork)).unwrap_or(stem);
    let is_relation = !relation.is_empty() && relation.bytes().all(|byte| byte.is_ascii_digit());
    (is_relation && segment != u32::MAX).then_some((segment, path))
}

/// `pg_checksum_page` of PostgreSQL's `storage/checksum_impl.h`.
fn page_checksum(page: &mut [u8], block: u32) -> u16 {
    const PRIME: u32 = 16_777_619;
    #[rustfmt::skip]
    const BASES: [u32; 32] = [
        0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
        0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
        0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
        0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
    ];
    let stored = [page[8], page[9]];
    page[8..10].fill(0);
    let mut sums = BASES;
    let mut mix = |lane: usize, value: u32| {
        let mixed = sums[lane] ^ value;
        sums[lane] = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    };
    for (i, word) in page.chunks_exact(4).enumerate() {
        mix(i % 32, u32::from_le_bytes(word.try_into().unwrap()));
    }
    for lane in (0..32).chain(0..32) {
        mix(lane, 0);
    }
    page[8..10].copy_from_slice(&stored);
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    u16::try_from(folded % 65_535 + 1).unwrap()
}
