//! Walvis ships PostgreSQL's write-ahead log to an object store or a directory, compressed and encrypted before it leaves the
//! host, and brings it back.
//!
//! # Layers
//! Arrows point downwards only: a module may use those below it, never those above or beside it. `tests/it/tidy.rs` checks it.
//!
//! | layer | modules | what lives there |
//! |---|---|---|
//! | 6 | [`cli`] | arguments, exit codes, rendering of reports and errors |
//! | 5 | [`ops`] | one module per command: request in, report out |
//! | 4 | [`config`], [`server`] | file < environment < flags → one validated value; the PostgreSQL connection |
//! | 3 | [`repo`] | what a repository is: object names, keys, registration, WAL files |
//! | 2 | [`store`], [`codec`] | where objects live; the one pipeline of compression, encryption and hashing |
//! | 1 | [`crypto`], [`mod@format`], [`pg`], [`fsio`], [`command`] | pure parsers and ciphers; raw file-system calls; the operator's commands |
//! | 0 | [`limits`], [`deadline`], [`error`], [`raw_text`], [`process`], [`waiting`] | bounds, time limits, the error type, names that are bytes, what processes inherit, what is waited for |

pub mod cli;
pub mod codec;
pub mod command;
pub mod config;
pub mod crypto;
pub mod deadline;
pub mod error;
pub mod format;
pub mod fsio;
pub mod limits;
pub mod ops;
pub mod pg;
pub mod process;
pub mod raw_text;
pub mod repo;
pub mod server;
pub mod store;
pub mod waiting;
