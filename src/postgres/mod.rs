//! A PostgreSQL server: the connection, its archiver, and which cluster a data directory is.
//!
//! May not live here: what its answers mean for a command (`ops`).

pub mod archiver;
mod connection;
pub mod control_file;

pub use connection::{Conninfo, Server, hex_of, of_hex, quoted};
