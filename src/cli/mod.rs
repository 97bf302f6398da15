//! Arguments, exit codes, rendering of reports and errors.
//!
//! Lives here: everything between the process and `ops`. May not live here: what a command does. The way of a call:
//! `start` (parse, exit code) → `run` (one place for each command) → `requests` (raw arguments become requests) and
//! `prepare` (settings, deadline) → `ops` → `render` (reports become text) → `print` (standard output).

mod args;
mod calls;
mod exit;
mod exit_guard;
mod failure;
mod flags;
mod lines;
mod logging;
mod prepare;
mod print;
mod progress;
mod render;
mod requests;
mod role;
mod run;
#[cfg(test)]
mod schemas;
mod secrets;
mod start;
mod stderr;

pub use args::definition;
pub use exit::{exit_code, kind_word};
pub use start::main;
