//! Damage: in packs and manifests, in what a restore finds in its way, and in the cluster that is backed up. Found,
//! named, and never started.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walvis::codec::preamble_bytes;
use walvis::format::envelope::HEADER_BYTES;

use crate::pitr::{Made, Site, exists, number, objects, promote, random};
use crate::support::command::Ran;
use crate::support::postgres::restored::assert_manifest;
use crate::support::postgres::{Cluster, Stop};

const MAJOR: u32 = 18;
const TARGET: [&str; 2] = ["--target", "immediate"];

/// A cluster with tables that compress and that do not, a backup of it, and what all its files are called.
fn backed_up() -> (Site, Made, Vec<String>) {
    let site = Site::new();
    let mut primary = site.primary(MAJOR);
    primary.sql("create table words as select i, repeat(md5(i::text), 8) as body from generate_series(1, 20000) i");
    primary
        .sql("create table noise as select i, gen_random_uuid() as a, gen_random_uuid() as b from generate_series(1, 30000) i");
    let made = site.backup(&primary, &[]);
    primary.stop(Stop::Fast);
    let whole = site.restore("whole", MAJOR, &TARGET);
    let manifest: Value = serde_json::from_slice(&fs::read(whole.data.join("backup_manifest")).unwrap()).unwrap();
    let files = manifest["Files"].as_array().unwrap().iter().map(|file| file["Path"].as_str().unwrap().to_owned()).collect();
    fs::remove_dir_all(&whole.data).unwrap();
    (site, made, files)
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

/// The exit code of who meets damage. A damaged key id cannot be told from that of a key which was not given: both are
/// said.
#[track_caller]
fn says_damaged(ran: &Ran) {
    let names_a_key = ran.stderr.contains("is sealed with data key") && ran.stderr.contains("the object is damaged");
    assert_eq!(ran.code(), if names_a_key { 12 } else { 14 }, "{ran:?}");
}

/// The restore that met damage: it stopped, said where, and left nothing that starts.
#[track_caller]
fn stopped(site: &Site, ran: Ran, words: &[&str]) {
    says_damaged(&ran);
    let ran = ran.tells_the_way_out();
    assert!(words.iter().any(|word| ran.stderr.contains(word)), "it does not say which file: {}", ran.stderr);
    site.assert_cannot_start("restored", MAJOR);
}

/// The same command on what the failed one left.
#[track_caller]
fn succeeds_now(site: &Site) {
    site.restore("restored", MAJOR, &TARGET);
    fs::remove_dir_all(site.place("restored")).unwrap();
}

#[test]
fn packs_with_flipped_bits() {
    let (site, _, files) = backed_up();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let packs = objects(&site, "/packs/");
    assert!(!packs.is_empty());
    let mut random = random();
    for i in 0..number("WALVIS_TEST_FLIPS", 12) {
        let pack = random.choice(&packs).unwrap();
        let (len, preamble) = (fs::metadata(pack).unwrap().len(), preamble_bytes(&fs::read(pack).unwrap()).unwrap());
        // Once each in the key id and in the pack's list of contents, which chance would hardly find.
        let at = match i {
            0 => 20,
            1 => HEADER_BYTES as u64 + 1,
            _ => random.u64(..len),
        };
        let bit = random.u8(..8);
        println!("bit {bit} of byte {at} of {}, {len} bytes", pack.display());
        flip(pack, at, bit);
        let ran = site.try_restore("restored", &TARGET);
        if (HEADER_BYTES as u64..preamble).contains(&at) {
            // A restore does without the list of contents, and without nothing else.
            assert_eq!(ran.code(), 0, "{ran:?}");
            assert_manifest(&site.place("restored"), MAJOR);
            fs::remove_dir_all(site.place("restored")).unwrap();
            flip(pack, at, bit);
        } else {
            assert_eq!(ran.code(), if (16..32).contains(&at) { 12 } else { 14 }, "{ran:?}");
            stopped(&site, ran, &files);
            flip(pack, at, bit);
            succeeds_now(&site);
        }
    }
}

#[test]
fn packs_that_are_cut_swapped_or_gone() {
    let (site, _, _) = backed_up();
    let packs = objects(&site, "/packs/");
    let [one, .., other] = &packs[..] else { panic!("there are only {packs:?}") };
    let content = [one, other].map(|path| fs::read(path).unwrap());
    let put_back = || {
        for (path, content) in [one, other].iter().zip(&content) {
            site.scratch.write(path, content);
        }
    };
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let (of_one, of_other) = (name(one), name(other));

    site.scratch.write(one, &content[0][..content[0].len() / 2]);
    stopped(&site, site.try_restore("restored", &TARGET), &[&of_one]);
    put_back();
    succeeds_now(&site);

    site.scratch.write(one, &content[1]);
    site.scratch.write(other, &content[0]);
    stopped(&site, site.try_restore("restored", &TARGET), &[&of_one, &of_other]);
    put_back();
    succeeds_now(&site);

    fs::remove_file(other).unwrap();
    stopped(&site, site.try_restore("restored", &TARGET), &[&of_other]);
    put_back();
    succeeds_now(&site);
}

#[test]
fn manifests_with_flipped_bits() {
    let (site, made, _) = backed_up();
    let manifests = objects(&site, "/backups/");
    let [manifest] = &manifests[..] else { panic!("{manifests:?}") };
    let whole = fs::read(manifest).unwrap();
    let mut random = random();
    let check = |how: String| {
        let ran = site.try_restore("restored", &TARGET);
        println!("{how}");
        stopped(&site, ran, &[made.id()]);
    };
    for _ in 0..number("WALVIS_TEST_FLIPS", 12) {
        let (at, bit) = (random.u64(..whole.len() as u64), random.u8(..8));
        flip(manifest, at, bit);
        check(format!("bit {bit} of byte {at} of {}", whole.len()));
        flip(manifest, at, bit);
    }
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        site.scratch.write(manifest, &whole[..length]);
        check(format!("cut to {length} bytes"));
    }
    site.scratch.write(manifest, &whole);
    succeeds_now(&site);
}

/// A manifest under another name, as somebody who can write to the store may try, is not that backup.
#[test]
fn a_manifest_under_another_name() {
    let (site, made, _) = backed_up();
    let manifest = objects(&site, "/backups/").pop().unwrap();
    let other = made.id().replacen("20", "21", 1);
    fs::rename(&manifest, manifest.with_file_name(&other)).unwrap();
    stopped(&site, site.try_restore("restored", &TARGET), &[&other]);
    fs::rename(manifest.with_file_name(&other), &manifest).unwrap();
    succeeds_now(&site);
}

/// The backup that a new one is compared with is a help: damaged, it costs space, never a backup.
#[test]
fn pg17_a_parent_that_is_damaged() {
    let site = Site::new();
    let primary = site.primary(17);
    primary.sql("create table words as select i, repeat(md5(i::text), 8) as body from generate_series(1, 20000) i");
    let first = site.backup(&primary, &[]);
    let manifest = objects(&site, "/backups/").pop().unwrap();
    let whole = fs::read(&manifest).unwrap();
    let mut random = random();
    for at in [10, whole.len() as u64 / 2, random.u64(..whole.len() as u64), whole.len() as u64 - 1] {
        flip(&manifest, at, random.u8(..8));
        let second = site.backup(&primary, &[]);
        assert!(second.number("new_bytes") * 10 > first.number("new_bytes") * 9, "{:#}", second.json);
        let mut restored =
            site.restore("restored", 17, &[&TARGET[..], &["--backup", second.id(), "--target-action", "promote"]].concat());
        promote(&mut restored);
        assert_eq!(restored.sql("select count(*) from words"), "20000");
        restored.stop(Stop::Fast);
        drop(restored);
        fs::remove_dir_all(site.place("restored")).unwrap();
        let of_second = objects(&site, "/backups/").into_iter().find(|path| path.ends_with(second.id())).unwrap();
        fs::remove_file(of_second).unwrap();
        site.scratch.write(&manifest, &whole);
    }
    // Where the tables and extents are that it would use again.
    let packs = objects(&site, &format!("/packs/{}", first.id()));
    let mut restored = 0;
    for _ in 0..number("WALVIS_TEST_FLIPS", 12) / 3 {
        let pack = random.choice(&packs).unwrap();
        let (at, bit) = (random.u64(..fs::metadata(pack).unwrap().len()), random.u8(..8));
        flip(pack, at, bit);
        let next = site.backup(&primary, &["--annotate", "parent=damaged"]);
        let ran = site.try_restore("restored", &[&TARGET[..], &["--backup", next.id()]].concat());
        if ran.code() == 0 {
            assert_manifest(&site.place("restored"), 17);
            restored += 1;
        } else {
            // It refers to what is damaged: that is said, and nothing starts.
            says_damaged(&ran);
            site.assert_cannot_start("restored", 17);
        }
        fs::remove_dir_all(site.place("restored")).unwrap();
        flip(pack, at, bit);
    }
    println!("{restored} restores did not need what was damaged");
}

/// What `--delta` keeps is what has the right content, whatever length and time say.
#[test]
fn a_data_directory_that_rots() {
    let (site, _, files) = backed_up();
    let cluster = site.restore("restored", MAJOR, &TARGET);
    let mut random = random();
    let large: Vec<&String> = files
        .iter()
        .filter(|path| fs::metadata(cluster.data.join(path)).unwrap().len() > 100_000 && path.starts_with("base/"))
        .collect();
    assert!(large.len() > 3, "{large:?}");
    let mut touched = Vec::new();
    for (n, path) in large.iter().enumerate() {
        let path = cluster.data.join(path);
        let (length, modified) = {
            let metadata = fs::metadata(&path).unwrap();
            (metadata.len(), metadata.modified().unwrap())
        };
        match n % 4 {
            0 => flip(&path, random.u64(..length), random.u8(..8)),
            1 => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 3).unwrap(),
            2 => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length + 70_000).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        if exists(&path) {
            fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        }
        touched.push(path);
    }
    site.scratch.write(&cluster.data.join("base/1/99999"), b"of nobody");
    site.scratch.make_dir("restored/base/77777");
    site.scratch.write(&cluster.data.join("base/77777/1"), b"of nobody");
    // Without --delta it is somebody's data directory.
    site.try_restore("restored", &TARGET).exits(16).tells_the_way_out();
    let again = site.restore("restored", MAJOR, &[&TARGET[..], &["--delta"]].concat());
    assert!(!again.data.join("base/77777").exists());
}

/// Damaged pages in the cluster: the backup is made, marked, and ends with 18; the pages are named.
#[test]
fn pg15_damaged_pages() {
    let mut site = Site::new();
    // It would read the table and write pages anew, the damaged ones from its memory.
    site.options = site.options.setting("autovacuum", "off");
    let mut primary = site.primary(15);
    primary.sql("create table sick as select i, repeat(md5(i::text), 8) as body from generate_series(1, 5000) i");
    primary.sql("create table well as select i, repeat(md5(i::text), 8) as body from generate_series(1, 5000) i");
    primary.sql("checkpoint");
    let path = primary.sql("select pg_relation_filepath('sick')");
    let file = primary.data.join(&path);
    flip(&file, 3 * 8192 + 5000, 3);
    // A position beyond the end of the log: replay would not repair this page either.
    let page = fs::OpenOptions::new().write(true).open(&file).unwrap();
    page.write_all_at(&[0x00, 0x10], 7 * 8192).unwrap();

    let ran = site.start_backup(&primary, &["--label", "sick"]).wait().exits(18);
    let ran = ran.tells_the_way_out().says(&[&path, "page 3", "page 7"]);
    let made = Made::of(&ran);
    let damaged = find_pages(&made.json);
    let mut blocks: Vec<u64> = damaged.iter().map(|page| page["block"].as_u64().unwrap()).collect();
    blocks.sort_unstable();
    assert_eq!(blocks, [3, 7], "{:#}", made.json);
    for page in damaged {
        assert_eq!(page["file"].as_str(), Some(&*path));
        assert!(page["relation"].as_str().unwrap().contains("sick"), "{page}");
    }
    let listed = &site.listed()[0];
    assert_eq!(listed["pages_damaged"].as_u64(), Some(2), "{listed:#}");
    assert!(listed["pages_verified"].as_u64().unwrap() > 500);

    // Stored as it is: what can be saved is saved.
    primary.stop(Stop::Immediate);
    let damaged = fs::read(&file).unwrap();
    primary.start();
    primary.switch_and_archive();
    let mut recovered = site.restore("restored", 15, &["--target", "latest"]);
    assert!(fs::read(recovered.data.join(&path)).unwrap() == damaged);
    promote(&mut recovered);
    assert!(recovered.client().query("select count(*) from sick").unwrap_err().contains("invalid page"));
    assert_eq!(recovered.sql("select count(*) from well"), "5000");
    recovered.stop(Stop::Fast);
    // Reading the others leaves marks in them; these are as they were.
    let after = fs::read(recovered.data.join(&path)).unwrap();
    for page in [3, 7].map(|block| block * 8192..(block + 1) * 8192) {
        assert!(after[page.clone()] == damaged[page.clone()], "{page:?}");
    }

    // Mended, the next one is without damage.
    primary.sql("truncate sick");
    primary.sql("checkpoint");
    site.backup(&primary, &[]);
    assert_eq!(site.listed()[1]["pages_damaged"].as_u64(), Some(0));
}

/// The first list of pages in the report.
fn find_pages(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) if values.iter().any(|value| value["block"].is_u64()) => values.iter().collect(),
        Value::Array(values) => values.iter().map(find_pages).find(|found| !found.is_empty()).unwrap_or_default(),
        Value::Object(fields) => fields.values().map(find_pages).find(|found| !found.is_empty()).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// A directory that is in use, or is not empty, or was never a data directory, is not touched.
#[test]
fn pg14_what_is_in_the_way() {
    let site = Site::new();
    let mut primary = site.primary(14);
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    let refused = |name: &str, arguments: &[&str]| {
        let ran = site.try_restore(name, &[&TARGET[..], arguments].concat()).exits(16).tells_the_way_out();
        assert!(ran.stderr.contains(site.place(name).to_str().unwrap()), "{}", ran.stderr);
    };
    let whole = |primary: &Cluster| assert_eq!(primary.sql("select sum(i) from t"), "1");
    refused("primary", &[]);
    refused("primary", &["--delta"]);
    whole(&primary);
    primary.stop(Stop::Fast);
    refused("primary", &[]);
    primary.start();
    whole(&primary);
    site.scratch.make_dir("other");
    let precious = site.place("other/precious");
    site.scratch.write(&precious, b"precious");
    refused("other", &[]);
    refused("other", &["--delta"]);
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    // Another cluster's data directory, even a stopped one, is not a start for this one's.
    let stranger = Cluster::init(&site.scratch, "stranger", 14, &site.options);
    refused("stranger", &["--delta"]);
    assert!(stranger.data.join("global/pg_control").exists());
    // An empty directory is as good as none; a plan writes nothing.
    site.scratch.make_dir("empty");
    site.try_restore("empty", &[&TARGET[..], &["--plan"]].concat()).exits(0);
    assert_eq!(fs::read_dir(site.place("empty")).unwrap().count(), 0);
    site.restore("empty", 14, &TARGET);
}
