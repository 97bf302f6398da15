//! A PostgreSQL server: the connection, its process, its archiver, and what its data directory says.
//!
//! Lives here: what holds for any server, whatever it is asked or started for. May not live here: what its answers mean
//! for a command (`ops`), and anything of a repository, a backup or a restore. Depends on file system, PostgreSQL's
//! formats and processes.

pub mod archiver;
pub mod archiving_settings;
mod connection;
pub mod control_file;
pub mod postmaster_pid;
pub mod programs;
pub mod running;
pub mod server_process;

pub use connection::{Conninfo, Row, Server, hex_of, of_hex, quoted};
