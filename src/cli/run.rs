//! From arguments to an exit code.
use super::args::{BackupArgs, CatalogArgs, CatalogCommand, Cli, Command, KeyCommand, ListArgs, OnError, definition};
use super::exit::{FETCH_FAILED, exit_code};
use super::flags::Global;
use super::lines::{Lines, plain_json};
use super::logging::LogFormat;
use super::progress::{self, ProgressLine};
use super::{exit_guard, failure, logging, recovery, render, render_backup, restore, secrets, targets};
use crate::config::definitions::{CLUSTER, SERVER};
use crate::config::{Config, HELPER_VARIABLE};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::AHEAD_TIME;
use crate::ops;
use crate::raw_text::plain;
use crate::repo::{ClusterName, SystemId};
use crate::report::list::StoredFile;
use crate::report::push::PushReport;
use crate::restore::recovery_settings;
use crate::restore::request::RestoreRequest;
use crate::wal::restore_call;
use clap::Parser;
use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// The flag of a helper.
const AHEAD: &str = "--ahead";

/// How failures of this run become exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// By the table.
    Ordinary,
    /// By the table, and never above 125 nor by a signal.
    Archiver,
    /// 1 for a proven absence, and where the server may go on without an answer; 200 for everything else.
    Restorer,
    /// 0, whatever happens: where the server is the first process of a container, it inherits helpers, and takes any
    /// exit code above 1 for the crash of one of its own.
    Helper,
    /// 1 for a proven absence and for whatever keeps it from being told; 200 for wrong usage and what is refused.
    PatientRestorer,
}

impl Role {
    fn code(self, kind: Kind) -> u8 {
        match (self, kind) {
            (Self::Helper, _) => 0,
            (Self::Ordinary | Self::Archiver, kind) => exit_code(kind),
            (Self::Restorer | Self::PatientRestorer, kind @ (Kind::Absent | Kind::Unavailable)) => exit_code(kind),
            (Self::PatientRestorer, kind) if !matches!(kind, Kind::Usage | Kind::Refused | Kind::Bug) => {
                exit_code(Kind::Unavailable)
            }
            (Self::Restorer | Self::PatientRestorer, _) => FETCH_FAILED,
        }
    }
}

/// Runs the command that the arguments name and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    exit_guard::against_dumps();
    failure::note_arguments(&arguments);
    // Before anything can go wrong, wrong arguments included: PostgreSQL reads the exit code of these two.
    let word = command_word(&arguments);
    let role = role_of(&arguments, word);
    match role {
        Role::Helper => {
            crate::fsio::detach();
            exit_guard::against_signals(role.code(Kind::Unreachable), role.code(Kind::Bug));
        }
        Role::Archiver => exit_guard::against_signals(role.code(Kind::Unreachable), role.code(Kind::Bug)),
        _ => exit_guard::against_file_size_signal(),
    }
    ExitCode::from(
        exit_guard::against_panics(role.code(Kind::Bug), || parse_and_run(&arguments, role, word.map(|(at, _)| at)))
            .unwrap_or(role.code(Kind::Bug)),
    )
}

/// The role that the command's name gives, as far as it can be told from arguments that may be wrong. Anybody who
/// writes `fetch_wal` or `wal-fetch` into `restore_command` means it: an exit code below 126 would end recovery.
fn role_of(arguments: &[OsString], word: Option<(usize, Role)>) -> Role {
    let Some((at, role)) = word else { return Role::Ordinary };
    // The variable, too: anybody who writes the flag into the server's settings must not be told that all is well.
    let is_helper = arguments.get(at + 1).is_some_and(|word| word == AHEAD) && std::env::var_os(HELPER_VARIABLE).is_some();
    if is_helper && role != Role::Ordinary { Role::Helper } else { role }
}

/// Makes of the arguments of a call, whose command stands at this place, those of its helper.
fn helper_arguments(arguments: &[OsString], command_at: Option<usize>) -> Option<Vec<OsString>> {
    let (before, after) = arguments.split_at_checked(command_at? + 1)?;
    Some(before.iter().skip(1).cloned().chain([AHEAD.into()]).chain(after.iter().cloned()).collect())
}

/// Where the command's name stands among the arguments, and the role that it gives.
fn command_word(arguments: &[OsString]) -> Option<(usize, Role)> {
    let takes_value: Vec<String> = definition()
        .get_arguments()
        .filter(|argument| argument.get_action().takes_values())
        .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
        .collect();
    let mut words = arguments.iter().enumerate().skip(1).map(|(at, word)| (at, word.to_string_lossy()));
    while let Some((at, word)) = words.next() {
        if takes_value.contains(&word.clone().into_owned()) {
            words.next();
        } else if !word.starts_with('-') {
            let role = match word.to_lowercase() {
                name if name.contains("fetch") => Role::Restorer,
                name if name.contains("push") => Role::Archiver,
                _ => Role::Ordinary,
            };
            return Some((at, role));
        }
    }
    None
}

fn parse_and_run(arguments: &[OsString], role: Role, command_at: Option<usize>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) if !e.use_stderr() => {
            // Help or version was asked for. A closed pipe is no reason to fail.
            let _ = e.print();
            return if role == Role::Restorer { FETCH_FAILED } else { 0 };
        }
        Err(e) => {
            // What it says has several lines, and the arguments in it are to begin none.
            let plain_arguments = arguments.iter().map(|argument| plain(&argument.to_string_lossy()).into_owned());
            let told = Cli::try_parse_from(plain_arguments).err().unwrap_or(e);
            let code = role.code(Kind::Usage);
            failure::say_usage(&told, code);
            return code;
        }
    };
    let log = LogFormat::of(cli.global.log());
    logging::start(log, cli.global.verbosity());
    let role = match &cli.command {
        _ if role == Role::Helper => role,
        Command::FetchWal(args) if args.on_error == OnError::Unavailable => Role::PatientRestorer,
        Command::FetchWal(_) => Role::Restorer,
        Command::PushWal(_) => Role::Archiver,
        _ => Role::Ordinary,
    };
    // PostgreSQL's log is no place for what a call waits for.
    if role == Role::Ordinary {
        progress::tell_waits();
    }
    let helper = || helper_arguments(arguments, command_at);
    match run(&cli, role, &helper) {
        Ok(()) => 0,
        Err(error) => {
            progress::erase();
            match log {
                LogFormat::Json if !failure::is_json() => {
                    let (hint, detail) = (error.hint.as_deref(), error.detail.as_deref());
                    tracing::error!(kind = ?error.kind, hint, detail, "{}", error.what);
                }
                LogFormat::Text | LogFormat::Json => failure::say(&error, role.code(error.kind)),
            }
            role.code(error.kind)
        }
    }
}

fn run(cli: &Cli, role: Role, helper: &dyn Fn() -> Option<Vec<OsString>>) -> Result<(), Error> {
    let json = cli.global.json();
    match &cli.command {
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut definition(), "walvis", &mut script);
            print(&script)
        }
        Command::Key(KeyCommand::Generate { path }) => {
            let report = ops::key_generate::run(path)?;
            print_report(json, &report, render::key)
        }
        Command::Init(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let request = ops::init::InitRequest {
                unencrypted: args.unencrypted,
                pgdata: args.pgdata.clone(),
                after_pg_upgrade: args.after_pg_upgrade,
                share_key: args.share_key,
            };
            let report = ops::init::run(&config, &request, deadline)?;
            print_report(json, &report, |report| render::init(report))
        }
        Command::PushWal(args) if args.ahead => {
            let (config, deadline) = prepare_helper(&cli.global, role)?;
            if args.missed {
                return ops::push_wal::run_missed_helper(&config, &args.paths, deadline);
            }
            ops::push_wal::run_ahead(&config, &args.paths, deadline)
        }
        Command::PushWal(args) if args.missed => {
            let (config, deadline) = prepare_long(&cli.global, None, role)?;
            if !args.paths.is_empty() {
                return Err(Error::new(Kind::Usage, "--missed goes without a file").hint("leave one of the two out"));
            }
            let report = ops::push_wal::run_missed(&config, deadline)?;
            print_report(json, &report, |report| render::missed(report))
        }
        Command::PushWal(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let request = ops::push_wal::PushRequest { paths: args.paths.clone(), helper: helper() };
            let report = ops::push_wal::run(&config, &request, deadline)?;
            // Quiet unless asked: the server logs what archive_command prints.
            if json { print_report(json, &report, |_| Lines::new()) } else { log_pushed(&report) }
        }
        Command::FetchWal(args) if args.ahead => {
            let (config, deadline) = prepare_helper(&cli.global, role)?;
            ops::fetch_wal::run_ahead(&config, &args.name, &args.destination, deadline)
        }
        Command::FetchWal(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let (name, destination) = (args.name.clone(), args.destination.clone());
            let on_error = match args.on_error {
                OnError::Auto => restore_call::OnError::Auto,
                OnError::Stop => restore_call::OnError::Stop,
                OnError::Unavailable => restore_call::OnError::Unavailable,
            };
            let request = ops::fetch_wal::FetchRequest { name, destination, on_error, helper: helper() };
            // Nobody asks again: it has its whole time.
            let report = ops::fetch_wal::run(&config, &request, deadline.patient())?;
            tracing::debug!("{} from {}", report.file, report.repository);
            if json { print_report(json, &report, |_| Lines::new()) } else { Ok(()) }
        }
        Command::Check(args) => {
            secrets::keep_off_the_command_line("--server", args.server.as_deref())?;
            let (config, deadline) = prepare(&cli.global, args.server.clone(), role)?;
            let report = ops::check::run(&config, &ops::check::CheckRequest { no_server: args.no_server }, deadline);
            print_report(json, &report, render::check)?;
            if report.has_problems() {
                return Err(
                    Error::new(Kind::Problems, "check found problems").hint("they are listed above, each with its remedy")
                );
            }
            Ok(())
        }
        Command::BaseBackup(args) => base_backup(&cli.global, args, role),
        Command::List(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            // The name that the settings give is this host's cluster; what is named on the command line is what is
            // asked about.
            let only = cli.global.0.has(&CLUSTER).then_some(&config.cluster);
            list(&config, only, deadline, args, json)
        }
        Command::PitrRestore(args) => {
            secrets::keep_off_the_command_line_of_a_standby(args.primary.as_deref())?;
            let (config, deadline) = prepare_long(&cli.global, None, role)?;
            let request = restore::request(args, &config)?;
            pitr_restore(&config, &request, deadline, json)
        }
        Command::EndRecovery(args) => {
            let report = recovery_settings::run(&args.pgdata)?;
            print_report(json, &report, restore::ended)
        }
        Command::Resolve(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let request = targets::resolve(args, &config)?;
            let report = ops::resolve::run(&config, &request, deadline)?;
            print_report(json, &report, |report| recovery::resolved(report, &request.zone))?;
            report.refusal().map_or(Ok(()), Err)
        }
        Command::Catalog(CatalogArgs { command: Some(CatalogCommand::Rebuild(args)), .. }) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let request = ops::catalog_rebuild::RebuildRequest { timeline: args.timeline, force: args.force };
            let report = ops::catalog_rebuild::run(&config, &request, deadline)?;
            print_report(json, &report, |report| render::rebuild(report))
        }
        Command::Catalog(args) => {
            let (config, deadline) = prepare(&cli.global, None, role)?;
            let request = targets::catalog(args, &config)?;
            catalog(&config, &request, deadline, json)
        }
    }
}

/// Takes a backup, with a progress line, and ends it in good order when a signal says so.
fn base_backup(global: &Global, args: &BackupArgs, role: Role) -> Result<(), Error> {
    secrets::keep_off_the_command_line("--server", args.server.as_deref())?;
    secrets::keep_off_the_command_line("--primary", args.primary.as_deref())?;
    let request = targets::base_backup(args)?;
    let (config, deadline) = prepare_long(global, args.server.clone(), role)?;
    let interrupted = exit_guard::interruption();
    let progress = ProgressLine::new();
    let hooks = ops::base_backup::Hooks { go_on: &|| interrupted.check(), progress: &|state| progress.show(state) };
    let result = ops::base_backup::run(&config, &request, deadline, &hooks);
    progress.clear();
    let report = match result {
        Ok(report) => report,
        Err(error) => return Err(interrupted.end_with(error)),
    };
    print_report(global.json(), &report, render_backup::report)?;
    if report.pages_damaged > 0 {
        return Err(Error::new(
            Kind::Problems,
            format!("{} damaged pages; backup {} is stored, with the damage in it", report.pages_damaged, report.backup_id),
        )
        .hint("the pages are listed above: look at the disk, and at older backups for undamaged copies"));
    }
    Ok(())
}

fn log_pushed(reports: &[PushReport]) -> Result<(), Error> {
    for report in reports {
        tracing::debug!("{} in {}: {}", report.file, report.repository, report.outcome);
    }
    Ok(())
}

fn list(config: &Config, only: Option<&ClusterName>, deadline: Deadline, args: &ListArgs, json: bool) -> Result<(), Error> {
    let files = args.files;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut failure = None;
    let mut on_file = |stored: &StoredFile| {
        let written = if json {
            let line = serde_json::to_string(stored).map_err(io::Error::from);
            line.and_then(|line| writeln!(out, "{}", plain_json(&line)))
        } else {
            writeln!(out, "{:>12}  {}  {}", stored.stored_bytes, plain(&stored.cluster), plain(&stored.file))
        };
        if let Err(e) = written {
            failure.get_or_insert(e);
        }
    };
    let request =
        ops::list::ListRequest { cluster: only, system_id: args.system_id.map(SystemId), database: args.database.as_deref() };
    let report = ops::list::run(config, &request, deadline, if files { Some(&mut on_file) } else { None })?;
    if let Err(e) = out.flush() {
        failure.get_or_insert(e);
    }
    drop(out);
    match failure {
        Some(e) => output_error(&e),
        None if files && json => Ok(()),
        None => print_report(json, &report, |report| render::list(report)),
    }
}

/// The overview, or a list that is printed as it is found.
fn catalog(config: &Config, request: &ops::catalog::CatalogRequest, deadline: Deadline, json: bool) -> Result<(), Error> {
    if request.list.is_none() {
        let report = ops::catalog::overview(config, deadline)?;
        return print_report(json, &report, |report| recovery::catalog(report, &request.zone));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut failure = None;
    ops::catalog::list(config, request, deadline, &mut |line| {
        let written = if json {
            let json = serde_json::to_string(line).map_err(io::Error::from);
            json.and_then(|json| writeln!(out, "{}", plain_json(&json)))
        } else {
            writeln!(out, "{}", plain(&recovery::line(line, &request.zone)))
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failure = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Err(e) = out.flush() {
        failure.get_or_insert(e);
    }
    drop(out);
    failure.map_or(Ok(()), |e| output_error(&e))
}

/// The plan is printed before anything is done; as JSON it is part of the one result.
fn pitr_restore(config: &Config, request: &RestoreRequest, deadline: Deadline, json: bool) -> Result<(), Error> {
    let mut out_of_reach = false;
    let result = ops::pitr_restore::run(config, request, deadline, &mut |plan| {
        out_of_reach = plan.restore.is_none();
        if !json {
            return print(restore::plan(plan, &request.target.zone).as_str().as_bytes());
        }
        if out_of_reach {
            return print_report(true, &serde_json::json!({"plan": plan, "restored": null, "server": null}), |_| Lines::new());
        }
        Ok(())
    });
    print_report(json, &result?, restore::restored)
}

/// As [`prepare`], for commands whose time depends on the size of a database: the limit is that of every single
/// request.
fn prepare_long(global: &Global, server: Option<String>, role: Role) -> Result<(Config, Deadline), Error> {
    let config = load(global, server)?;
    let deadline = Deadline::each(config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

/// Settings and the deadline, and the watchdog that enforces it.
fn prepare(global: &Global, server: Option<String>, role: Role) -> Result<(Config, Deadline), Error> {
    let config = load(global, server)?;
    let deadline = Deadline::after(config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

/// The same for a helper: what it begins at the end of its time may take as long as a call.
fn prepare_helper(global: &Global, role: Role) -> Result<(Config, Deadline), Error> {
    if role != Role::Helper {
        return Err(
            Error::new(Kind::Usage, format!("{AHEAD} is only for helpers that Walvis itself starts")).hint("leave it out")
        );
    }
    let config = load(global, None)?;
    let deadline = Deadline::after(AHEAD_TIME + config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

fn load(global: &Global, server: Option<String>) -> Result<Config, Error> {
    let flags = match server {
        Some(server) => global.0.clone().with(&SERVER, server.as_str()),
        None => global.0.clone(),
    };
    // A variable whose name is not UTF-8 cannot be one of ours.
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let is_ours = |name: &&String| name.starts_with("WALVIS_") && std::env::var_os(name).is_some_and(|v| v.to_str().is_none());
    if let Some(name) = names.iter().find(is_ours) {
        return Err(Error::new(Kind::Config, format!("{name} is not UTF-8 text")).hint("give it a value that is, or unset it"));
    }
    // An empty one counts as unset.
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = Config::load(&flags, &env, &names)?;
    secrets::warn_of_those_in_the_settings_file(&config);
    if config.repositories.len() > 1 {
        config.repositories.iter().for_each(|repository| repository.store.health().has_alternative());
    }
    Ok(config)
}

fn print_report<T: serde::Serialize>(json: bool, report: &T, text: impl FnOnce(&T) -> Lines) -> Result<(), Error> {
    if json {
        let json = serde_json::to_string_pretty(report).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
        print(format!("{}\n", plain_json(&json)).as_bytes())
    } else {
        print(text(report).as_str().as_bytes())
    }
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    progress::erase();
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).or_else(|e| output_error(&e))
}

/// A reader that has seen enough is no error.
fn output_error(error: &io::Error) -> Result<(), Error> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("cannot write to standard output: {error}")))
}
