//! The `walvis` program: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    walvis::cli::main(std::env::args_os().collect())
}
