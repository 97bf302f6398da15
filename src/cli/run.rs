//! What each command does between its arguments and its answer: settings and request, the command itself, its report.
//!
//! May not live here: how arguments become requests (`requests`), where settings come from (`prepare`), the text of
//! reports (`render`), and exit codes (`start`).

use super::args::{
    BackupArgs, CatalogArgs, CatalogCommand, Cli, Command, ExpireArgs, KeyCommand, ListArgs, OnError, VerifyArgs, definition,
};
use super::flags::Global;
use super::lines::Lines;
use super::progress::ProgressLine;
use super::role::Role;
use super::{exit_guard, prepare, print, render, requests, secrets};
use crate::config::Config;
use crate::config::definitions::CLUSTER;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::ops;
use crate::pg::target::Zone;
use crate::repo::{ClusterName, SystemId};
use crate::report::list::StoredFile;
use crate::report::push::PushReport;
use crate::restore::recovery_settings;
use crate::restore::request::RestoreRequest;
use crate::retention::execute::Watch;
use crate::retention::plan::Hooks;
use crate::wal::restore_call;
use std::ffi::OsString;

/// Does what a command line says, and prints the answer.
///
/// # Errors
/// What the command failed with.
pub(super) fn run(cli: &Cli, role: Role, helper: &dyn Fn() -> Option<Vec<OsString>>) -> Result<(), Error> {
    let json = cli.global.json();
    match &cli.command {
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut definition(), "walvis", &mut script);
            print::bytes(&script)
        }
        Command::Key(KeyCommand::Generate { path }) => {
            let report = ops::key_generate::run(path)?;
            print::report(json, &report, render::key::text)
        }
        Command::Init(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let request = ops::init::InitRequest {
                unencrypted: args.unencrypted,
                pgdata: args.pgdata.clone(),
                after_pg_upgrade: args.after_pg_upgrade,
                share_key: args.share_key,
            };
            let report = ops::init::run(&config, &request, deadline)?;
            print::report(json, &report, |report| render::init::text(report))
        }
        Command::PushWal(args) if args.ahead => {
            let (config, deadline) = prepare::helper(&cli.global, role)?;
            if args.missed {
                return ops::push_wal::run_missed_helper(&config, &args.paths, deadline);
            }
            ops::push_wal::run_ahead(&config, &args.paths, deadline)
        }
        Command::PushWal(args) if args.missed => {
            let (config, deadline) = prepare::long(&cli.global, None, role)?;
            if !args.paths.is_empty() {
                return Err(Error::new(Kind::Usage, "--missed goes without a file").hint("leave one of the two out"));
            }
            let report = ops::push_wal::run_missed(&config, deadline)?;
            print::report(json, &report, |report| render::push::missed(report))
        }
        Command::PushWal(args) => {
            let (config, deadline) = prepare::unwatched_call(&cli.global)?;
            // Whoever reads what is said may hang, too.
            let says_nothing = !json && cli.global.verbosity() == 0;
            let report = match says_nothing.then(|| ops::push_wal::on_record(&config, &args.paths)).flatten() {
                Some(report) => report,
                None => {
                    prepare::watch(deadline, role);
                    let request = ops::push_wal::PushRequest { paths: args.paths.clone(), helper: helper() };
                    ops::push_wal::run(&config, &request, deadline)?
                }
            };
            // Quiet unless asked: the server logs what archive_command prints.
            if json { print::report(json, &report, |_| Lines::new()) } else { log_pushed(&report) }
        }
        Command::FetchWal(args) if args.ahead => {
            let (config, deadline) = prepare::helper(&cli.global, role)?;
            ops::fetch_wal::run_ahead(&config, &args.name, &args.destination, deadline)
        }
        Command::FetchWal(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
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
            if json { print::report(json, &report, |_| Lines::new()) } else { Ok(()) }
        }
        Command::Check(args) if args.policies => {
            let (config, _) = prepare::call(&cli.global, None, role)?;
            print::report(json, &ops::check_policies::run(&config)?, |reports| render::policies::text(reports))
        }
        Command::Check(args) => {
            secrets::keep_off_the_command_line("--server", args.server.as_deref())?;
            let (config, deadline) = prepare::call(&cli.global, args.server.clone(), role)?;
            let report = ops::check::run(&config, &ops::check::CheckRequest { no_server: args.no_server }, deadline);
            print::report(json, &report, render::check::text)?;
            if report.has_problems() {
                return Err(
                    Error::new(Kind::Problems, "check found problems").hint("they are listed above, each with its remedy")
                );
            }
            Ok(())
        }
        Command::BaseBackup(args) => base_backup(&cli.global, args, role),
        Command::List(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            // The name that the settings give is this host's cluster; what is named on the command line is what is
            // asked about.
            let only = cli.global.0.has(&CLUSTER).then_some(&config.cluster);
            list(&config, only, deadline, args, json)
        }
        Command::Pin(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let report = ops::pin::run(&config, &requests::pin::request(args, &config)?, deadline)?;
            print::report(json, &report, |report| render::pin::pinned(report))
        }
        Command::Unpin(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let report = ops::unpin::run(&config, requests::pin::unpinned(args)?, deadline)?;
            print::report(json, &report, |report| render::pin::unpinned(report))
        }
        Command::Verify(args) => verify(&cli.global, args, role),
        Command::Expire(args) => expire(&cli.global, args, role),
        Command::PitrRestore(args) => {
            secrets::keep_off_the_command_line_of_a_standby(args.primary.as_deref())?;
            let (config, deadline) = prepare::long(&cli.global, None, role)?;
            let request = requests::restore::request(args, &config)?;
            pitr_restore(&config, &request, deadline, json)
        }
        Command::EndRecovery(args) => {
            let report = recovery_settings::run(&args.pgdata)?;
            print::report(json, &report, render::end_recovery::text)
        }
        Command::Resolve(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let request = requests::target::resolve(args, &config)?;
            let report = ops::resolve::run(&config, &request, deadline)?;
            print::report(json, &report, |report| render::resolve::text(report, &request.zone))?;
            report.refusal().map_or(Ok(()), Err)
        }
        Command::Catalog(CatalogArgs { command: Some(CatalogCommand::Rebuild(args)), .. }) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let request = ops::catalog_rebuild::RebuildRequest { timeline: args.timeline, force: args.force };
            let report = ops::catalog_rebuild::run(&config, &request, deadline)?;
            print::report(json, &report, |report| render::catalog_rebuild::text(report))
        }
        Command::Catalog(args) => {
            let (config, deadline) = prepare::call(&cli.global, None, role)?;
            let request = requests::catalog::request(args, &config)?;
            catalog(&config, &request, deadline, json)
        }
    }
}

/// Takes a backup, with a progress line, and ends it in good order when a signal says so.
fn base_backup(global: &Global, args: &BackupArgs, role: Role) -> Result<(), Error> {
    secrets::keep_off_the_command_line("--server", args.server.as_deref())?;
    secrets::keep_off_the_command_line("--primary", args.primary.as_deref())?;
    let request = requests::base_backup::request(args)?;
    let (config, deadline) = prepare::long(global, args.server.clone(), role)?;
    let interrupted = exit_guard::interruption();
    let progress = ProgressLine::new();
    let hooks = ops::base_backup::Hooks { go_on: &|| interrupted.check(), progress: &|state| progress.show(state) };
    let result = ops::base_backup::run(&config, &request, deadline, &hooks);
    progress.clear();
    let report = match result {
        Ok(report) => report,
        Err(error) => return Err(interrupted.end_with(error)),
    };
    print::report(global.json(), &report, render::backup::text)?;
    if report.pages_damaged > 0 {
        return Err(Error::new(
            Kind::Problems,
            format!("{} damaged pages; backup {} is stored, with the damage in it", report.pages_damaged, report.backup_id),
        )
        .hint("the pages are listed above: look at the disk, and at older backups for undamaged copies"));
    }
    Ok(())
}

/// Verifies, with a progress line, and repairs if that is asked. Interrupted, it leaves the rest as it is.
fn verify(global: &Global, args: &VerifyArgs, role: Role) -> Result<(), Error> {
    let request = requests::verify::request(args)?;
    let (config, deadline) = prepare::long(global, None, role)?;
    let interrupted = exit_guard::interruption();
    let progress = ProgressLine::new();
    let go_on = || {
        let hint = "what was read is remembered: with --rolling the next run goes on where this one ended";
        interrupted.check().map_err(|error| error.hint(hint))
    };
    let hooks = crate::verify::Hooks { go_on: &go_on, progress: &|state| progress.show_verified(state) };
    let source = match &args.repair_from {
        Some(url) => prepare::other_repository(global, url)?,
        None => None,
    };
    let result = ops::verify::run(&config, &request, source.as_ref(), deadline, &hooks);
    progress.clear();
    let answer = result.map_err(|error| interrupted.end_with(error))?;
    if !answer.reports.is_empty() || answer.ended_by.is_none() {
        print::report(global.json(), &answer.reports, |reports| render::verify::text(reports))?;
    }
    match answer.ended_by {
        Some(error) => Err(interrupted.end_with(error)),
        None => ops::verify::problems(&answer.reports).map_or(Ok(()), Err),
    }
}

/// Plans, or deletes, with a progress line, and ends when a signal says so.
fn expire(global: &Global, args: &ExpireArgs, role: Role) -> Result<(), Error> {
    let options = requests::expire::options(args)?;
    let (config, deadline) = prepare::long(global, None, role)?;
    let interrupted = exit_guard::interruption();
    let progress = ProgressLine::new();
    let hooks = Hooks { go_on: &|| interrupted.check(), looked_at: &|objects| progress.show_objects(objects) };
    let watch = Watch { go_on: hooks.go_on, deleted: &|objects| progress.show_deleted(objects) };
    let result = ops::expire::run(&config, &options, deadline, hooks, watch);
    progress.clear();
    let zone = config.zone.clone().unwrap_or_else(Zone::utc);
    let answer = result.map_err(|error| interrupted.end_with(error))?;
    print::report(global.json(), &answer.reports, |reports| render::expire::text(reports, &zone))?;
    answer.denied.map_or(Ok(()), Err)
}

fn log_pushed(reports: &[PushReport]) -> Result<(), Error> {
    for report in reports {
        tracing::debug!("{} in {}: {}", report.file, report.repository, report.outcome);
    }
    Ok(())
}

fn list(config: &Config, only: Option<&ClusterName>, deadline: Deadline, args: &ListArgs, json: bool) -> Result<(), Error> {
    let mut files = args.files.then(|| print::List::begin(json));
    let request =
        ops::list::ListRequest { cluster: only, system_id: args.system_id.map(SystemId), database: args.database.as_deref() };
    let mut on_file = |stored: &StoredFile| {
        if let Some(files) = &mut files {
            // The report needs the rest of them all the same.
            let _ = files.line(stored, render::list::file);
        }
    };
    let report = ops::list::run(config, &request, deadline, if args.files { Some(&mut on_file) } else { None })?;
    if let Some(files) = files
        && (!files.finish()? || json)
    {
        return Ok(());
    }
    print::report(json, &report, |report| render::list::text(report))
}

/// The overview, or a list that is printed as it is found.
fn catalog(config: &Config, request: &ops::catalog::CatalogRequest, deadline: Deadline, json: bool) -> Result<(), Error> {
    if request.list.is_none() {
        let report = ops::catalog::overview(config, deadline)?;
        return print::report(json, &report, |report| render::catalog::text(report, &request.zone));
    }
    let mut lines = print::List::begin(json);
    ops::catalog::list(config, request, deadline, &mut |line| {
        lines.line(line, |line| render::catalog::line(line, &request.zone))
    })?;
    lines.finish().map(drop)
}

/// The plan is printed before anything is done; as JSON it is part of the one result.
fn pitr_restore(config: &Config, request: &RestoreRequest, deadline: Deadline, json: bool) -> Result<(), Error> {
    let mut out_of_reach = false;
    let result = ops::pitr_restore::run(config, request, deadline, &mut |plan| {
        out_of_reach = plan.restore.is_none();
        if !json {
            return print::bytes(render::restore::plan(plan, &request.target.zone).as_str().as_bytes());
        }
        if out_of_reach {
            return print::report(true, &serde_json::json!({"plan": plan, "restored": null, "server": null}), |_| Lines::new());
        }
        Ok(())
    });
    print::report(json, &result?, render::restore::restored)
}
