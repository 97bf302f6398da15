//! Exit codes under every kind of mistreatment: `push-wal` never above 125 nor dead by a signal, `fetch-wal` never "not
//! there".

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use walvis::limits::MIB;

use crate::support::command::{DESTINATION, Ran, Site, WALVIS, eventually, is_root, run, start};
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::Segment;

/// Runs the program under a shell that does something to it first.
fn under(site: &Site, shell: &str, arguments: &[&str]) -> Ran {
    run(&mut site.wrapped(["/bin/sh", "-c", &format!("{shell}\nexec \"$@\""), "sh", WALVIS], arguments))
}

#[test]
fn wrong_usage_and_settings() {
    let mut site = Site::new();
    let name = site.make(&Segment::new(1));
    let path = format!("pg_wal/{name}");
    site.run(["push-wal"]).exits(2).says(&["Usage"]);
    site.run(["push-wal", "--nonsense", &path]).exits(2);
    site.run(["push-wal", "--timeout", "x", &path]).exits(2);
    site.run(["push_wal", &path]).exits(2).says(&["push-wal"]);
    site.run(["push-wal", "--help"]).exits(0);
    site.run(["push-wal", "--timeout", "0", &path]).exits(10).tells_the_way_out();
    site.run(["push-wal", &format!("pg_wal/{}", Segment::new(2).name())]).exits(10).says(&["No such file"]);
    let directory = Segment::new(3).name();
    fs::create_dir(site.wal(&directory)).unwrap();
    site.push(&directory).exits(10).says(&[&directory, "not a regular file"]);
    let pipe = Segment::new(4).name();
    nix::unistd::mkfifo(&site.wal(&pipe), nix::sys::stat::Mode::S_IRWXU).unwrap();
    site.push(&pipe).exits(10).says(&[&pipe, "not a regular file"]);
    if !is_root() {
        fs::set_permissions(site.wal(&name), fs::Permissions::from_mode(0o000)).unwrap();
        site.push(&name).exits(10).says(&[&name, "Permission denied"]);
        fs::set_permissions(site.wal(&name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    // Of several, the first wrong one stops before anything is stored.
    site.run(["push-wal", &path, &format!("pg_wal/{directory}")]).exits(10);
    assert!(site.stored().is_empty());
    site.run(["push-wal", "--key-file", "/nonexistent", &path]).exits(10).tells_the_way_out();
    site.run(["push-wal", "--repository", "http://x", &path]).exits(10).tells_the_way_out();
    site.run(["push-wal", "--repository", "file://relative", &path]).exits(10).tells_the_way_out();
    site.run(["push-wal", "--cluster", "..", &path]).exits(10).tells_the_way_out();
    site.run(["push-wal", "--config", "/nonexistent", &path]).exits(10).tells_the_way_out();
    fs::write(site.path("walvis.toml"), "timeout_s = \"long\"").unwrap();
    site.push(&name).exits(10).tells_the_way_out().says(&["walvis.toml", "timeout_s"]);
    fs::write(site.path("walvis.toml"), b"\xff").unwrap();
    site.push(&name).exits(10).says(&["walvis.toml"]);
    fs::write(site.path("walvis.toml"), "").unwrap();
    site.unset("WALVIS_REPOSITORY");
    site.push(&name).exits(10).tells_the_way_out().says(&["WALVIS_REPOSITORY"]);
    run(site.command(["push-wal", &path]).env_clear()).exits(10);
    run(site.command::<&str>([]).env_clear()).exits(2);
}

#[test]
fn closed_and_full_outputs() {
    let site = Site::new();
    let name = site.make(&Segment::new(1));
    let missing = Segment::new(9).name();
    for closing in ["exec >&-", "exec 2>&-", "exec <&- >&- 2>&-", "exec > /dev/full 2> /dev/full"] {
        under(&site, closing, &["push-wal", &format!("pg_wal/{name}")]).exits(0);
        under(&site, closing, &["push-wal", &format!("pg_wal/{missing}")]).exits(10);
        under(&site, closing, &["push-wal"]).exits(2);
        under(&site, closing, &["push-wal", "--help"]).exits(0);
        under(&site, closing, &["fetch-wal", &name, DESTINATION]).exits(0);
        fs::remove_file(site.destination()).unwrap();
        under(&site, closing, &["fetch-wal", &missing, DESTINATION]).exits(1);
        under(&site, closing, &["fetch-wal", &missing, DESTINATION, "--cluster", "x"]).exits(200);
    }
    // A reader that went away.
    let command = format!("\"{WALVIS}\" push-wal -vv pg_wal/{name} 2>&1 >/dev/null | true; \"{WALVIS}\" list | true");
    run(&mut site.wrapped(["/bin/sh", "-c"], [command])).exits(0);
    site.fetches(&name);
}

/// Somebody stopped reading what we write, and the pipe is full: the message must not keep the process from ending.
#[test]
fn a_full_pipe_for_standard_error_does_not_hang_it() {
    let site = Site::new();
    let missing = Segment::new(9).name();
    for (arguments, code) in
        [(["push-wal", &format!("pg_wal/{missing}"), "--timeout=1"], 11), (["fetch-wal", &missing, "--timeout=1"], 200)]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        while (&writer).write(&[b'x'; 4096]).is_ok() {}
        nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        let mut command = site.command(arguments);
        if code == 200 {
            command.arg("nowhere/x");
        }
        let mut child = command.stderr(Stdio::from(writer)).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut status = None;
        eventually("it ended", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
        drop(reader);
    }
}

#[test]
fn limits_on_files() {
    let site = Site::new();
    let name = site.make(&Segment::new(1));
    let path = format!("pg_wal/{name}");
    // 512-byte blocks: the object does not fit.
    under(&site, "ulimit -f 20", &["push-wal", &path]).exits(10).tells_the_way_out().says(&["File too large", "ulimit -f"]);
    assert!(site.stored().is_empty());
    under(&site, "ulimit -n 4", &["push-wal", &path]).exits(10).tells_the_way_out();
    site.push(&name).exits(0);
    under(&site, "ulimit -f 20", &["fetch-wal", &name, DESTINATION]).exits(200).says(&["File too large", "ulimit -f"]);
    site.left_nothing();
    site.fetches(&name);
}

#[test]
fn hardly_any_memory() {
    let server = S3Server::start();
    for (site, is_s3) in [(Site::new(), false), (Site::on_s3(&server), true)] {
        let name = site.make(&Segment::new(1));
        let path = format!("pg_wal/{name}");
        let limited = |kib: u64, arguments: &[&str]| under(&site, &format!("ulimit -v {kib}"), arguments);
        let push = ["push-wal", &path, "--timeout=3"];
        let fetch = ["fetch-wal", &name, DESTINATION, "--timeout=3"];
        let enough = (1..).map(|n| n * 8 * 1024).find(|kib| limited(*kib, &push).status.success()).unwrap();
        // Down to where the loader or the runtime gives up before the program begins.
        let (mut failed, mut kib) = (0, enough);
        loop {
            kib -= if is_s3 { 2048 } else { 512 };
            let ran = limited(kib, &push);
            if ["while loading shared libraries", "initialization or cleanup bug"].iter().any(|words| ran.stderr.contains(words))
            {
                break;
            }
            // Rust and zstd answer to an allocation that fails. But a stack that may not grow is a SIGSEGV, and so may
            // be what the C code below TLS makes of it: no program can catch these. PostgreSQL's archiver goes down
            // with it, is started again, and the segment is still to be archived: what is not stored was not called
            // stored.
            let code = ran.status.code().unwrap_or(70);
            assert!((0..=125).contains(&code), "{kib} KiB: {ran:?}");
            failed += usize::from(code != 0);
            let ran = limited(kib, &fetch);
            // Death by a signal stops recovery too.
            assert!(matches!(ran.status.code(), Some(0 | 200) | None), "{kib} KiB: {ran:?}");
        }
        assert!(failed > 0, "memory was never short above {kib} KiB");
        let _ = fs::remove_file(site.destination());
        site.push(&name).exits(0);
        site.fetches(&name);
    }
}

#[test]
fn signals_while_a_request_hangs() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let name = site.make(&Segment::new(1));
    server.hook(|seen| if seen.op == Op::Put { Action::Hang } else { Action::Pass });
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGALRM, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        server.clear_log();
        let running = start(&mut site.command(["push-wal", &format!("pg_wal/{name}")]));
        eventually("a request hangs", || !server.seen(Op::Put).is_empty());
        running.signal(signal);
        running.wait().exits(11).within(Duration::from_secs(20));
    }
    server.unhook();
    site.push(&name).exits(0);
    // fetch-wal dies of them, which the server takes for a shutdown and not for an absence.
    server.hook(|seen| if seen.op == Op::Get { Action::Hang } else { Action::Pass });
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        use std::os::unix::process::ExitStatusExt;
        server.clear_log();
        let running = start(&mut site.command(["fetch-wal", &name, DESTINATION]));
        eventually("a request hangs", || !server.seen(Op::Get).is_empty());
        running.signal(signal);
        assert_eq!(running.wait().status.signal(), Some(signal as i32));
        site.left_nothing();
    }
}

#[test]
fn signals_at_any_moment() {
    let site = Site::new();
    let name = site.make(&Segment::new(1));
    for _ in 0..40 {
        let running = start(&mut site.command(["push-wal", &format!("pg_wal/{name}")]));
        let delay = Duration::from_micros(fastrand::u64(2_000..40_000));
        std::thread::sleep(delay); // Not to wait for something: to hit another moment each time.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(running.id()).unwrap()), Signal::SIGTERM);
        let ran = running.wait();
        // Before main began nothing is caught; that is the loader's time.
        assert!(matches!(ran.status.code(), Some(0 | 11) | None), "{ran:?}");
    }
    site.push(&name).exits(0);
    site.fetches(&name);
    assert_eq!(site.stored().len(), 1);
}

#[test]
fn an_environment_with_nothing_in_it() {
    let site = Site::new();
    let name = site.make(&Segment::new(1));
    let url = format!("file://{}", site.repository().display());
    let key = site.path("key");
    for directory in [site.data(), site.data().join("pg_wal")] {
        let path = site.wal(&name);
        let global = ["--repository", &url, "--key-file", key.to_str().unwrap()];
        run(site.command([&["push-wal", path.to_str().unwrap()], &global[..]].concat()).env_clear().current_dir(&directory))
            .exits(0);
        let destination = site.destination();
        let fetch = ["fetch-wal", &name, destination.to_str().unwrap()];
        run(site.command([&fetch, &global[..]].concat()).env_clear().current_dir(&directory)).exits(0);
        assert_eq!(fs::metadata(&destination).unwrap().len(), MIB as u64);
    }
}
