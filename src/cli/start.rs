//! From the arguments of the process to its exit code: parse, run, say what failed.

use super::args::{Cli, Command, OnError};
use super::exit::FETCH_FAILED;
use super::logging::LogFormat;
use super::role::{Role, command_word, helper_arguments, role_of};
use super::run::run;
use super::{calls, exit_guard, failure, logging, progress};
use crate::error::Kind;
use crate::raw_text::plain;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

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

fn parse_and_run(arguments: &[OsString], role: Role, command_at: Option<usize>) -> u8 {
    let cli = match calls::read(arguments).map_or_else(|| Cli::try_parse_from(arguments), Ok) {
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
