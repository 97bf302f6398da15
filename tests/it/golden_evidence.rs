//! Golden vectors of evidence and repairs: what version 1 wrote must be readable for ever, and what is damaged must be
//! refused by the layer that is named. The objects belong into the repository `tests/golden/repository/by-key-file`;
//! their content is written here as docs/FORMAT.md has it. `WALVIS_TEST_BLESS=1` writes them anew, for a new version of
//! the format only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use walvis::deadline::Deadline;
use walvis::error::Error;
use walvis::format::extent::{BackupId, PackId};
use walvis::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::{
    ClusterName, Content, EvidenceProblem, KeySource, ObjectName, Remembered, Repository, StoreSettings, StoreUrl, StoredName,
    SystemId, VerificationMode,
};

use crate::support::command::files_below;

const SYSTEM: SystemId = SystemId(7_123_456_789_012_345_678);
const BACKUP: &str = "20261121T061500Z-1a2b3c4d";
/// A full verification; a rolling one that was interrupted, and knows it; one of another kind, of a later version.
const FULL: &str = "20261125T061500Z-5e6f7081";
const ROLLING: &str = "20261126T061500Z-6f708192";
const OTHER: &str = "20261127T061500Z-708192a3";
const HISTORY: &[u8] = b"1\t0/5000000\tno recovery target specified\n";

/// One that must be refused.
#[derive(Debug, Serialize, Deserialize)]
struct Damage {
    what: String,
    /// The object.
    file: String,
    /// The byte whose fifth bit is flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flip: Option<usize>,
    /// So many of its bytes are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    /// Another object's bytes are in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instead: Option<String>,
    /// This is sealed in its place, as whoever has the key can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The layer that must refuse it: `codec` (it does not authenticate), `content` (it says what makes no sense) or
    /// `chain` (later evidence says that it was another one).
    rejected_by: String,
    says: String,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn id(text: &str) -> BackupId {
    BackupId::parse(text).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("main").unwrap()
}

fn evidence(of: &str) -> ObjectName {
    ObjectName::Evidence { cluster: cluster(), system_id: SYSTEM, id: id(of) }
}

fn history() -> ObjectName {
    ObjectName::wal(&cluster(), SYSTEM, WalFileName::History(Timeline(2)))
}

fn repair() -> ObjectName {
    ObjectName::Repair { number: 1, of: Box::new(history()) }
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

/// The golden repository, with or without these objects.
fn repository(with: bool) -> (TempDir, Repository) {
    let dir = TempDir::new().unwrap();
    copy(&golden("repository/by-key-file"), dir.path());
    for part in ["clusters", "repairs"].into_iter().filter(|_| with) {
        copy(&golden("evidence").join(part), &dir.path().join(part));
        // The time of the store counts where it is the earlier one.
        for file in files_below(&dir.path().join(part)) {
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(2_000_000_000)).unwrap();
        }
    }
    let deadline = Deadline::after(Duration::from_secs(60));
    let settings = StoreSettings { url: StoreUrl::File(dir.path().to_owned()), create_if_absent: None, known: None };
    let key = KeySource::File(golden("repository/key")).read(&deadline).unwrap();
    let repository = Repository::open(&settings, &key, 1, deadline).unwrap();
    (dir, repository)
}

fn remembered(repository: &Repository) -> Remembered {
    repository.remembered(&cluster(), SYSTEM).unwrap()
}

fn read_history(repository: &Repository) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    repository.opener().get(&history(), &mut bytes)?;
    Ok(bytes)
}

#[test]
fn evidence_and_repairs_of_version_1_are_read_and_damaged_ones_are_not() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let (_dir, good) = repository(true);
    let all = remembered(&good);
    assert_eq!(all.problems, []);
    assert_eq!(all.newest.iter().map(|link| link.id).collect::<Vec<_>>(), [id(OTHER)]);
    let (full, rolling) = (&all.last[&VerificationMode::Full], &all.last[&VerificationMode::Rolling]);
    assert_eq!((full.id, rolling.id, all.last.len()), (id(FULL), id(ROLLING), 2));
    // 06:15 UTC, less the duration.
    assert_eq!((full.after_unix_s, rolling.after_unix_s), (1_795_587_300 - 90, 1_795_673_700 - 3));
    let said = &rolling.verification;
    assert_eq!((said.period_s, said.host.as_str(), said.interrupted, said.piece), (Some(604_800), "db1", true, 1));
    assert_eq!((said.read_bytes, said.owed_bytes), (1_000, 2_000));
    assert_eq!((said.findings_total, said.findings_that_matter, said.findings.len()), (2, 1, 1));
    assert_eq!((said.findings[0].what.as_str(), said.findings[0].matters), ("a frame does not authenticate", true));
    let backup = all.backup(id(BACKUP)).unwrap();
    assert_eq!((backup.after_unix_s, backup.damaged), (1_795_587_210, 1));
    let size = WalSegmentSize::new(16 << 20).unwrap();
    let look = all.checked.segment(Timeline(1), 300).unwrap();
    assert_eq!((look.after_unix_s, look.is_damaged), (full.after_unix_s, false));
    assert!(all.checked.segment(Timeline(1), 301).is_none());
    let partial = SegmentName::from_number(Timeline(1), 301, size).unwrap();
    assert!(all.checked.wal(&StoredName { file: WalFileName::Partial(partial), copy: 2 }, size).is_some());
    let pack = |number| all.checked.pack(PackId { backup: id(BACKUP), number }).map(|look| look.is_damaged);
    assert_eq!([pack(0), pack(1), pack(2), pack(3)], [Some(false), Some(true), Some(false), None]);
    assert!(all.checked.manifest(id(BACKUP)).is_some());
    // The object itself is damaged, and the copy beside it is not.
    assert_eq!(read_history(&good).unwrap(), HISTORY);

    let damages: Vec<Damage> = serde_json::from_str(&fs::read_to_string(golden("evidence/damaged.json")).unwrap()).unwrap();
    assert!(damages.len() >= 16);
    for damage in damages {
        let (dir, repository) = repository(true);
        let path = dir.path().join(&damage.file);
        let mut bytes = fs::read(dir.path().join(damage.instead.as_ref().unwrap_or(&damage.file))).unwrap();
        if let Some(at) = damage.flip {
            bytes[at] ^= 0x10;
        }
        bytes.truncate(damage.keep.unwrap_or(usize::MAX));
        fs::remove_file(&path).unwrap();
        let name = ObjectName::parse(&damage.file).unwrap();
        match &damage.content {
            Some(content) => {
                repository.put(&name, &Content::of_bytes(content.as_bytes())).unwrap();
            }
            None => fs::write(&path, bytes).unwrap(),
        }
        let (layer, says) = match name {
            ObjectName::Evidence { id, .. } => {
                let problems = remembered(&repository).problems;
                let problem = problems.iter().find(|problem| problem.id() == id);
                match problem.unwrap_or_else(|| panic!("{}: it was taken: {problems:?}", damage.what)) {
                    EvidenceProblem::Unreadable { why, .. } if why.contains("is no evidence") => ("content", why.clone()),
                    EvidenceProblem::Unreadable { why, .. } => ("codec", why.clone()),
                    problem => ("chain", problem.to_string()),
                }
            }
            _ => {
                let error = read_history(&repository).expect_err(&damage.what);
                ("codec", error.what)
            }
        };
        assert_eq!(layer, damage.rejected_by, "{}: {says}", damage.what);
        assert!(says.contains(&damage.says), "{}: {says}", damage.what);
    }

    // A copy that is damaged itself does not hide an older one.
    let (dir, repository) = repository(true);
    let mut second = fs::read(dir.path().join(repair().to_string())).unwrap();
    second[100] ^= 0x10;
    let path = dir.path().join(ObjectName::Repair { number: 2, of: Box::new(history()) }.to_string());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, second).unwrap();
    assert_eq!(read_history(&repository).unwrap(), HISTORY);
}

/// Writes all of them.
fn bless() {
    let (dir, repository) = repository(false);
    let put = |of: &str, json: &str| repository.put(&evidence(of), &Content::of_bytes(json.as_bytes())).unwrap();
    let set = |segments: &str, wal_files: &str, packs: &str, manifests: &str| {
        format!(
            r#"{{"wal_segment_bytes":16777216,"segments":[{segments}],"wal_files":[{wal_files}],"packs":[{packs}],"manifests":[{manifests}]}}"#
        )
    };
    let segments = r#"{"first_segment":"000000010000000000000001","last_segment":"00000001000000010000002C"}"#;
    let pack = |first: u32, last: u32| format!(r#"{{"backup_id":"{BACKUP}","first":{first},"last":{last}}}"#);
    let nothing = set("", "", "", "");
    let whole = set(segments, r#""00000001000000010000002D.partial.2""#, &pack(0, 2), &format!(r#""{BACKUP}""#));
    let damaged = set("", "", &pack(1, 1), "");
    let full = format!(
        r#"{{"newest":[],"verification":{{"mode":"full","period_s":null,"host":"db1","began_unix_us":1795587210000000,"duration_us":89500000,"interrupted":false,"piece":1,"read_bytes":3000,"owed_bytes":0,"whole":{whole},"damaged":{nothing},"backups":[{{"backup_id":"{BACKUP}","after_unix_s":1795587210,"damaged":0}}],"findings":[],"findings_total":0,"findings_that_matter":0}}}}"#
    );
    let object = format!("clusters/main/{SYSTEM}/packs/{BACKUP}/00000001");
    let link = |of: &str, json: &str| format!(r#"{{"id":"{of}","blake3":"{}"}}"#, blake3::hash(json.as_bytes()).to_hex());
    let rolling = format!(
        r#"{{"newest":[{}],"verification":{{"mode":"rolling","period_s":604800,"host":"db1","began_unix_us":1795673697000000,"duration_us":3000000,"interrupted":true,"piece":1,"read_bytes":1000,"owed_bytes":2000,"whole":{nothing},"damaged":{damaged},"backups":[{{"backup_id":"{BACKUP}","after_unix_s":1795587210,"damaged":1}}],"findings":[{{"object":"{object}","what":"a frame does not authenticate","matters":true}}],"findings_total":2,"findings_that_matter":1}}}}"#,
        link(FULL, &full)
    );
    put(FULL, &full);
    put(ROLLING, &rolling);
    put(OTHER, &format!(r#"{{"newest":[{}],"drill":{{"passed":true}}}}"#, link(ROLLING, &rolling)));
    repository.put(&history(), &Content::of_bytes(HISTORY)).unwrap();
    let (own, beside) = (dir.path().join(history().to_string()), dir.path().join(repair().to_string()));
    fs::create_dir_all(beside.parent().unwrap()).unwrap();
    fs::copy(&own, &beside).unwrap();
    let mut bytes = fs::read(&own).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    fs::remove_file(&own).unwrap();
    fs::write(&own, bytes).unwrap();

    let of = |what: &str, name: &ObjectName, rejected_by: &str, says: &str| Damage {
        what: what.to_owned(),
        file: name.to_string(),
        flip: None,
        keep: None,
        instead: None,
        content: None,
        rejected_by: rejected_by.to_owned(),
        says: says.to_owned(),
    };
    let mut damages = Vec::new();
    for (kind, name) in [("evidence", evidence(FULL)), ("the repair", repair())] {
        let length = fs::metadata(dir.path().join(name.to_string())).unwrap().len() as usize;
        let flips = [
            ("the magic", 0, ""),
            ("the version", 8, ""),
            ("the header", 20, ""),
            ("the first frame", 100, ""),
            ("the end", length - 1, ""),
        ];
        for (part, at, says) in flips {
            damages.push(Damage { flip: Some(at), ..of(&format!("a bit in {part} of {kind}"), &name, "codec", says) });
        }
        for (part, keep) in [("nothing", 0), ("half", length / 2), ("all but the last byte", length - 1)] {
            damages.push(Damage { keep: Some(keep), ..of(&format!("{part} is left of {kind}"), &name, "codec", "") });
        }
        let instead = Some(evidence(ROLLING).to_string());
        damages.push(Damage { instead, ..of(&format!("other evidence in the place of {kind}"), &name, "codec", "") });
    }
    let content = |what: &str, json: &str, layer: &str, says: &str| Damage {
        content: Some(json.to_owned()),
        ..of(what, &evidence(FULL), layer, says)
    };
    damages.push(content("no JSON", "whatever", "content", "expected value"));
    damages.push(content("no list of the newest", "{}", "content", "missing field `newest`"));
    damages.push(content("an id that is none", &full.replace(BACKUP, "20261131T061500Z-1a2b3c4d"), "content", ""));
    damages.push(content("a mode that is none", &full.replace("\"full\"", "\"fully\""), "content", "unknown variant"));
    damages.push(content(
        "a run that ends before it begins",
        &full.replace(r#""first":0,"last":2"#, r#""first":2,"last":0"#),
        "content",
        "",
    ));
    damages.push(content(
        "segments of two timelines in a run",
        &full.replace("00000001000000010000002C", "00000002000000010000002C"),
        "content",
        "",
    ));
    damages.push(content(
        "a hash that is none",
        &full.replace(r#""newest":[]"#, &format!(r#""newest":[{{"id":"{FULL}","blake3":"00"}}]"#)),
        "content",
        "is no hash",
    ));
    damages.push(content("another host", &full.replace("db1", "db2"), "chain", "was changed after evidence"));
    let target = golden("evidence");
    let _ = fs::remove_dir_all(&target);
    for part in ["clusters", "repairs"] {
        copy(&dir.path().join(part), &target.join(part));
    }
    fs::write(target.join("damaged.json"), serde_json::to_string_pretty(&damages).unwrap() + "\n").unwrap();
}
