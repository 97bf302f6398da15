//! Settings that another user can change: root does not follow them.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::command::{Site, is_root, names_in, run};

/// `nobody`, who prepares something.
const OTHER: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs a shell command as the other user.
#[track_caller]
fn other(command: &str) {
    run(Command::new("/bin/sh").args(["-c", command]).uid(OTHER).gid(OTHER)).exits(0);
}

/// A host whose settings name a command that says who ran it.
struct Host {
    site: Site,
    proof: PathBuf,
}

impl Host {
    fn new() -> Self {
        let mut site = Site::new();
        let proof = site.path("proof");
        mode(site.dir(), 0o755);
        let repository = site.repository().display().to_string();
        let command = format!("echo ran >> '{}'; cat '{}'", proof.display(), site.path("key").display());
        site.configure(&format!("[[repository]]\nurl = \"file://{repository}\"\nkey_command = \"{command}\"\n"));
        fs::create_dir(site.path("etc")).unwrap();
        fs::rename(site.path("walvis.toml"), site.path("etc/walvis.toml")).unwrap();
        site.set("WALVIS_CONFIG", site.path("etc/walvis.toml"));
        Self { site, proof }
    }

    fn etc(&self) -> PathBuf {
        self.site.path("etc")
    }

    fn file(&self) -> PathBuf {
        self.site.path("etc/walvis.toml")
    }

    #[track_caller]
    fn follows(&self) {
        self.site.run(["list"]).exits(0);
        assert_eq!(fs::read_to_string(&self.proof).unwrap(), "ran\n");
        fs::remove_file(&self.proof).unwrap();
    }

    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        let ran = self.site.run(["list"]).exits(10).tells_the_way_out().says(words);
        assert!(!self.proof.exists(), "the command ran: {ran:?}");
    }
}

#[test]
fn settings_that_another_user_can_change_are_refused() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (etc, file) = (host.etc(), host.file());
    let shown = |path: &Path| path.display().to_string();
    host.follows();

    chown(&file, Some(OTHER), None).unwrap();
    host.refuses(&[&shown(&file), "belongs to nobody", &format!("chown root {}", shown(&file)), "run this as nobody"]);
    chown(&file, Some(0), Some(OTHER)).unwrap();
    mode(&file, 0o660);
    host.refuses(&["group nogroup can write", &format!("chmod g-w {}", shown(&file))]);
    mode(&file, 0o646);
    host.refuses(&["every user can write", &format!("chmod go-w {}", shown(&file))]);
    // The layout of the documents: readable for the server's group, root's otherwise.
    mode(&file, 0o640);
    host.follows();

    // Whoever has the directory has the file, whosever it is.
    chown(&etc, Some(OTHER), None).unwrap();
    other(&format!("cd '{0}' && cp walvis.toml mine && mv -f mine walvis.toml", shown(&etc)));
    chown(&file, Some(0), None).unwrap();
    host.refuses(&[&shown(&etc), "belongs to nobody"]);
    chown(&etc, Some(0), None).unwrap();
    mode(&etc, 0o777);
    host.refuses(&[&shown(&etc), "every user can write"]);
    mode(&etc, 0o1777);
    host.follows();

    // A link in a place for everybody.
    let mut host = host;
    let link = etc.join("link");
    symlink("walvis.toml", &link).unwrap();
    host.site.set("WALVIS_CONFIG", link.clone());
    host.follows();
    lchown(&link, Some(OTHER), None).unwrap();
    host.refuses(&[&shown(&link), "belongs to nobody"]);
    // However it is named.
    host.site.set("WALVIS_CONFIG", file);
    let ran = host.site.run([OsStr::new("--config"), link.as_os_str(), OsStr::new("list")]);
    ran.exits(10).says(&["belongs to nobody", "--config"]);
    host.follows();
}

/// As the owner of the settings everything goes on as it did.
#[test]
fn another_user_follows_what_he_is_told() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let proof = host.site.path("etc/proof");
    mode(&host.site.path("key"), 0o644);
    chown(host.file(), Some(OTHER), None).unwrap();
    chown(host.etc(), Some(OTHER), None).unwrap();
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(host.site.repository())).exits(0);
    let text = fs::read_to_string(host.file()).unwrap().replace(&host.proof.display().to_string(), &proof.display().to_string());
    fs::write(host.file(), text).unwrap();
    run(host.site.command(["list"]).uid(OTHER).gid(OTHER)).exits(0);
    assert_eq!(fs::read_to_string(proof).unwrap(), "ran\n");
}

/// AWS's profiles name programs and files, too.
#[test]
fn profiles_of_another_user_s_home_run_nothing_as_root() {
    if !is_root() {
        return;
    }
    let mut site = Site::bare();
    mode(site.dir(), 0o755);
    let (home, proof) = (site.path("home"), site.path("proof"));
    fs::create_dir(&home).unwrap();
    chown(&home, Some(OTHER), Some(OTHER)).unwrap();
    let program = home.join("program");
    other(&format!(
        "cd '{}' && mkdir .aws && printf '[default]\\ncredential_process = %s/program\\n' \"$PWD\" > .aws/config && \
         printf '#!/bin/sh\\necho ran > {}\\nexit 1\\n' > program && chmod 755 program",
        home.display(),
        proof.display()
    ));
    assert!(program.exists());
    site.set("HOME", home.clone());
    site.set("WALVIS_REPOSITORY", "s3://bucket/pg");
    site.set("WALVIS_S3_ENDPOINT", "http://127.0.0.1:9");
    let ran = site.run(["--timeout", "5", "list"]);
    assert!(!proof.exists(), "the other user's program ran as root: {ran:?}");
    ran.exits(10).tells_the_way_out().says(&["home", "belongs to nobody", "HOME"]);
    // By whatever name.
    site.set("HOME", site.path("none"));
    for (name, value) in [("AWS_CONFIG_FILE", home.join(".aws/config")), ("AWS_SHARED_CREDENTIALS_FILE", home.join("absent"))] {
        site.set(name, value);
        site.run(["--timeout", "5", "list"]).exits(10).says(&["belongs to nobody", name]);
        site.unset(name);
    }
    site.set("HOME", home);
    site.set("AWS_CONFIG_FILE", "~/.aws/config");
    site.set("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    site.run(["--timeout", "5", "list"]).exits(10).says(&["belongs to nobody", "AWS_CONFIG_FILE"]);
    assert!(!proof.exists());
    // Root's own are followed.
    run(Command::new("chown").args(["-R", "0:0"]).arg(site.path("home"))).exits(0);
    site.unset("AWS_SHARED_CREDENTIALS_FILE");
    site.run(["--timeout", "5", "list"]);
    assert!(proof.exists());
}

/// A key command that leaves a child behind works; one that hangs ends with all that it started.
#[test]
fn a_key_command_ends_with_all_that_it_started() {
    let mut site = Site::new();
    let (key, pids) = (site.path("key"), site.path("pids"));
    site.unset("WALVIS_KEY_FILE");
    let note = format!("echo $! >> '{}'", pids.display());
    site.set("WALVIS_KEY_COMMAND", format!("cat '{}'; sleep 600 & {note}", key.display()));
    site.run(["list"]).exits(0).within(Duration::from_secs(60));
    site.set("WALVIS_KEY_COMMAND", format!("sleep 600 & {note}; sh -c 'sleep 600 & {note}'; sleep 600"));
    site.run(["--timeout", "1", "list"]).exits(10).tells_the_way_out().says(&["did not finish within"]);
    let is_asleep = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"));
    let text = fs::read_to_string(&pids).unwrap();
    let all: Vec<&str> = text.lines().collect();
    assert_eq!((all.len(), is_asleep(all[0])), (3, true), "{all:?}");
    crate::support::command::eventually("they live on", || !all[1..].iter().any(|pid| is_asleep(pid)));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(all[0].parse().unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
    site.set("WALVIS_KEY_COMMAND", "cat /dev/zero");
    site.run(["list"]).exits(10).tells_the_way_out().says(&["printed more than 65536 bytes"]);
    assert!(names_in(&site.repository()).contains(&"walvis.json".to_owned()));
}
