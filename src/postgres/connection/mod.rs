//! The PostgreSQL connection.
//!
//! Lives here: connecting, in TLS where `sslmode` says so, and asking for values as text. May not live here: what the
//! values mean for a command (`ops`). Connection strings and everything that completes them mean what they mean to
//! libpq.

#[cfg(feature = "tls")]
mod certificate;
mod connect;
mod conninfo;
mod errors;
mod mode;
mod passfile;
mod server;
mod sql_text;
#[cfg(feature = "tls")]
mod tls;

pub use conninfo::Conninfo;
pub use server::{Row, Server};
pub use sql_text::{hex_of, of_hex, quoted};
