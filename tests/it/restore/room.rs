//! Zeros need no room: a restore leaves them out.

use super::*;

/// Mounted on the restore's directory, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where mounting is not permitted.
    fn on(scratch: &Scratch, directory: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let size = format!("mode=700,size={mib}m");
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory).output();
        let mounted = mount.is_ok_and(|mount| mount.status.success()).then(|| Self(directory.to_owned()));
        scratch.give_all(directory);
        mounted
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking(), "cannot unmount");
    }
}

fn zero_file(path: &Path, mib: u64) {
    fs::File::create(path).unwrap().set_len(mib << 20).unwrap();
}

#[test]
fn zeros_need_no_room() {
    let site = Site::new(15);
    let backup = site.primary.backup_to("base");
    // One of which only a table says it, and many of which the manifest does.
    zero_file(&backup.dir.join("base/1/900001"), 300);
    (0..1600).for_each(|number| {
        let path = backup.dir.join(format!("base/1/{}", 910_000 + number));
        fs::File::create(path).unwrap().set_len(256 << 10).unwrap();
    });
    let (repository, key) = (site.repository(), site.scratch.path().join("walvis.key"));
    Copied::new(&repository, &key, &backup.dir, backup.stop_lsn, backup.major).store();
    site.give_repository();
    let mut site = site;
    site.primary.switch_and_archive();
    let Some(mount) = Small::on(&site.scratch, &site.data(), 120) else { return };
    let report = site.restores("--target latest");
    assert!(report["restored"]["zero_bytes"].as_u64().unwrap() >= 700 << 20, "{report:#}");
    let zeros = site.data().join("base/1/900001");
    let meta = fs::metadata(&zeros).unwrap();
    assert!(meta.len() == 300 << 20 && meta.blocks() == 0, "{meta:?}");
    // The same once more, into what is there; and where there is a need of room indeed.
    site.restores("--target latest --delta");
    drop(mount);
    let Some(_mount) = Small::on(&site.scratch, &site.data(), 20) else { return };
    site.fails("--target latest", 10, &["has room for", "MiB are missing"]);
}
