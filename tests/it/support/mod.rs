//! The harness: real servers, real protocols, the real program.

pub mod ahead;
pub mod backup;
pub mod canary;
pub mod changed_log;
pub mod command;
pub mod forward;
pub mod postgres;
pub mod s3;
pub mod schema;
pub mod segment;
pub mod sources;
pub mod stored;
pub mod wal;
