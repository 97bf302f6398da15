//! Arguments, exit codes, rendering of reports and errors.
//!
//! Lives here: everything between the process and `ops`. May not live here: what a command does. Raw arguments (`args`) become
//! requests here, and reports become text or JSON (`render`).

mod args;
mod exit;
mod logging;
mod render;
mod run;
mod shield;

pub use exit::exit_code;
pub use run::main;
