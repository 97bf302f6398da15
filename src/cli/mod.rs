//! Arguments, exit codes, rendering of reports and errors.
//!
//! Lives here: everything between the process and `ops`. May not live here: what a command does. Raw arguments (`args`)
//! become requests here (`targets`), and reports become text or JSON (`render`, `recovery`).

mod args;
mod exit;
mod exit_guard;
mod failure;
mod flags;
mod lines;
mod logging;
mod progress;
mod recovery;
mod render;
mod render_backup;
mod restore;
mod run;
#[cfg(test)]
mod schemas;
mod secrets;
mod stderr;
mod targets;

pub use args::definition;
pub use exit::{exit_code, kind_word};
pub use run::main;
