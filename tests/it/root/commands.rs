//! Archiving, fetching, `init`, `key generate` and repositories in directories: root does what it does in another
//! user's directory as that user, and nothing that was planted there leads it elsewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::canary::Canary;
use crate::support::command::{DESTINATION, Site, files_below, is_root, names_in, run};
use crate::support::segment::Segment;

/// `nobody`, whose the data directory is, or who plants something.
const OTHER: u32 = 65_534;

fn give(path: &Path, to: u32) {
    run(Command::new("chown").args(["-R", "-h", &format!("{to}:{to}")]).arg(path)).exits(0);
}

/// A link that belongs to the other user, in the place of whatever has its name.
fn plant(target: &Path, at: &Path) {
    if at.is_dir() && !at.is_symlink() {
        fs::rename(at, at.with_extension("was")).unwrap();
    } else {
        let _ = fs::remove_file(at);
    }
    symlink(target, at).unwrap();
    std::os::unix::fs::lchown(at, Some(OTHER), Some(OTHER)).unwrap();
}

#[track_caller]
fn all_belong_to(user: u32, below: &Path) {
    for path in files_below(below).into_iter().chain([below.to_owned()]) {
        assert_eq!(path.symlink_metadata().unwrap().uid(), user, "{}", path.display());
    }
}

/// A host on which root archives for a data directory of the other user's; and beside it what is root's alone.
struct Host {
    site: Site,
    roots: PathBuf,
    canary: Canary,
}

impl Host {
    /// `None` where the test is not root.
    fn new() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let site = Site::new();
        fs::set_permissions(site.dir(), Permissions::from_mode(0o755)).unwrap();
        let roots = site.path("roots");
        fs::create_dir_all(roots.join("below")).unwrap();
        // What would be archived if it were taken for the server's.
        fs::write(roots.join(Segment::new(9).name()), Segment::new(9).bytes()).unwrap();
        fs::write(roots.join("secret"), "root's").unwrap();
        for (path, mode) in [(Segment::new(9).name().as_str(), 0o600), ("secret", 0o600), ("below", 0o755), (".", 0o755)] {
            fs::set_permissions(roots.join(path), Permissions::from_mode(mode)).unwrap();
        }
        give(&site.data(), OTHER);
        let canary = Canary::of(&roots);
        Some(Self { site, roots, canary })
    }

    /// Makes a segment as the server does, and pushes it as root.
    #[track_caller]
    fn archive(&self, number: u64) -> String {
        let name = self.site.make(&Segment::new(number));
        chown(self.site.wal(&name), Some(OTHER), Some(OTHER)).unwrap();
        self.site.push(&name).exits(0);
        name
    }

    fn stored(&self) -> usize {
        self.site.stored().iter().filter(|name| name.len() == 24).count()
    }
}

#[test]
fn push_wal_as_root_sends_nothing_that_the_owner_of_the_files_could_not_read() {
    let Some(host) = Host::new() else { return };
    let (site, name) = (&host.site, Segment::new(9).name());
    host.archive(1);
    // A link in the place of a segment, a second name of a file of root's (as where the system lets everybody make
    // one), and a link in the place of the directory.
    plant(&host.roots.join(&name), &site.wal(&name));
    site.push(&name).exits(10).tells_the_way_out().says(&[&name, "give user nobody access"]);
    fs::remove_file(site.wal(&name)).unwrap();
    fs::hard_link(host.roots.join(&name), site.wal(&name)).unwrap();
    site.push(&name).exits(10).says(&[&name]);
    fs::remove_file(site.wal(&name)).unwrap();
    let canary = Canary::of(&host.roots);
    plant(&host.roots, &site.data().join("pg_wal"));
    site.push(&name).exits(16).tells_the_way_out().says(&["pg_wal", "belongs to user root", "nobody"]);
    canary.is_unchanged("pushes");
    assert_eq!(host.stored(), 1);
}

#[test]
fn fetch_wal_as_root_writes_nowhere_but_for_the_owner_of_the_directory() {
    let Some(host) = Host::new() else { return };
    let site = &host.site;
    let name = host.archive(1);
    site.fetch(&name).exits(0);
    let fetched = site.destination().symlink_metadata().unwrap();
    assert_eq!((fetched.uid(), fetched.gid(), fetched.mode() & 0o777), (OTHER, OTHER, 0o600));
    // Over what is there, and not through a link of that name.
    site.fetch(&name).exits(0);
    plant(&host.roots.join("secret"), &site.destination());
    site.fetch(&name).exits(200).says(&["not a regular file"]);
    plant(&host.roots, &site.data().join("pg_wal"));
    site.fetch(&name).exits(200).tells_the_way_out().says(&["pg_wal", "belongs to user root"]);
    plant(&host.roots, &site.data().join("way"));
    site.run(["fetch-wal", &name, "way/below/x"]).exits(200).says(&["belongs to user root"]);
    host.canary.is_unchanged("fetches");
    // Where the way is root's own, root writes as ever, also to where everybody may.
    site.run(["fetch-wal", &name, host.roots.join("x").to_str().unwrap()]).exits(0);
    assert_eq!(host.roots.join("x").metadata().unwrap().uid(), 0);
    let open = site.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    site.run(["fetch-wal", &name, open.join("x").to_str().unwrap()]).exits(0);
    assert_eq!(open.join("x").metadata().unwrap().uid(), 0);
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    site.run(["fetch-wal", &name, open.join("y").to_str().unwrap()]).exits(200).says(&["open", "every user"]);
}

#[test]
fn a_repository_of_another_user_is_worked_in_as_that_user() {
    let Some(host) = Host::new() else { return };
    let (site, repository) = (&host.site, host.site.repository());
    give(&repository, OTHER);
    host.archive(1);
    all_belong_to(OTHER, &repository);
    site.run(["list"]).exits(0);
    // Links that lead into what is root's, at every name where something is made, or everything is removed from.
    let clusters = repository.join("clusters");
    let name = site.make(&Segment::new(2));
    give(&site.wal(&name), OTHER);
    for (at, target) in [(clusters.clone(), host.roots.clone()), (clusters.join("main"), host.roots.join("below"))] {
        let was = at.with_extension("was");
        plant(&target, &at);
        let ran = site.push(&name);
        assert_ne!(ran.code(), 0, "{ran:?}");
        site.run(["check", "--no-server"]);
        host.canary.is_unchanged("a push into a link");
        fs::remove_file(&at).unwrap();
        fs::rename(was, &at).unwrap();
    }
    plant(&host.roots, &repository.join(".walvis-tmp"));
    site.push(&name).exits(0);
    host.canary.is_unchanged("a push past a link");
    assert_eq!(host.stored(), 2);
}

#[test]
fn in_a_repository_of_its_own_root_keeps_out_of_what_others_can_change() {
    let Some(host) = Host::new() else { return };
    let (site, clusters) = (&host.site, host.site.repository().join("clusters"));
    host.archive(1);
    let (name, data) = (site.make(&Segment::new(2)), site.data());
    give(&data, OTHER);
    chown(clusters.join("main"), Some(OTHER), Some(OTHER)).unwrap();
    plant(&host.roots, &clusters.join("main/wal"));
    site.push(&name).exits(12).tells_the_way_out().says(&["clusters/main", "belongs to nobody", "chown"]);
    host.canary.is_unchanged("a push");
}

#[test]
fn init_and_key_generate_as_root_make_nothing_behind_a_link() {
    let Some(host) = Host::new() else { return };
    let (site, home) = (&host.site, host.site.path("home"));
    fs::create_dir(&home).unwrap();
    give(&home, OTHER);
    plant(&host.roots, &home.join("link"));
    plant(&host.roots.join("new"), &home.join("name"));
    let at = |path: &str| home.join(path).to_str().unwrap().to_owned();
    for place in ["link/repository", "link", "name"] {
        let ran = site.run(["--repository", &format!("file://{}", at(place)), "init", "--share-key"]);
        assert_ne!(ran.code(), 0, "{place}: {ran:?}");
        host.canary.is_unchanged(place);
    }
    site.run(["key", "generate", &at("link/key")]).exits(16).tells_the_way_out().says(&["link", "belongs to user root"]);
    site.run(["key", "generate", &at("name")]).exits(16).says(&["name", "not touched"]);
    host.canary.is_unchanged("key generate");
    // In that user's own directories all is made, and is that user's.
    let out = site.run(["key", "generate", &at("key")]).exits(0).stdout;
    assert!(!out.contains("Only root"), "{out}");
    site.run(["--repository", &format!("file://{}", at("repository")), "init", "--share-key"]).exits(0);
    all_belong_to(OTHER, &home.join("repository"));
    assert_eq!(home.join("key").metadata().unwrap().uid(), OTHER);
}

/// What root does by hand leaves nothing in a spool that another user can change, and reads nothing there.
#[test]
fn root_has_no_spool_where_others_can_change_it() {
    let Some(mut host) = Host::new() else { return };
    let spool = host.site.path("spool");
    fs::create_dir(&spool).unwrap();
    give(&spool, OTHER);
    let url = format!("file://{}", host.site.repository().display());
    let key = host.site.path("key").display().to_string();
    // One that fails, which is remembered where there is a spool.
    let optional = "[[repository]]\nurl = \"file:///nonexistent/walvis\"\noptional = true\n";
    let text = |spool: &str| format!("spool = \"{spool}\"\n[[repository]]\nurl = \"{url}\"\nkey_file = \"{key}\"\n{optional}");
    host.site.configure(&text(spool.to_str().unwrap()));
    give(&host.site.data(), 0);
    let site = &host.site;
    let name = site.make(&Segment::new(1));
    site.push(&name).exits(0).says(&["there is no spool"]);
    assert!(names_in(&spool).is_empty());
    plant(&host.roots, &spool.join("way"));
    host.site.configure(&text(spool.join("way/spool").to_str().unwrap()));
    host.site.push(&name).exits(0).says(&["there is no spool"]);
    host.canary.is_unchanged("a push");
    // Beside the server's WAL, too.
    host.site.configure(&text(spool.to_str().unwrap()).lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    give(&host.site.data(), OTHER);
    host.site.push(&name).exits(0).says(&["there is no spool"]);
    assert!(!host.site.data().join("pg_wal/walvis").exists());
    // Root's own is used.
    give(&host.site.data(), 0);
    host.site.push(&name).exits(0).says(&["it will be sent later"]);
    // The server's, in which it would look: a missed file of root's.
    assert!(names_in(&host.site.data().join("pg_wal/walvis")).contains(&"missed".to_owned()));
    let destination = host.site.data().join(DESTINATION);
    assert!(!destination.exists());
}
