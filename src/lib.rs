//! Walvis ships PostgreSQL's write-ahead log to an object store or a directory, compressed and encrypted before it
//! leaves the host, and brings it back.
//!
//! # Example
//! From a position in the log to the file that holds it, and to the object that a repository keeps of this file:
//!
//! ```
//! use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
//! use walvis::repo::{ClusterName, ObjectName, SystemId};
//!
//! let lsn: Lsn = "16/B374D848".parse()?;
//! let size = WalSegmentSize::new(16 << 20).ok_or("PostgreSQL has no segments of this size")?;
//! let segment = SegmentName::holding(Timeline(1), lsn, size).ok_or("no segment holds this position")?;
//! let cluster = ClusterName::new("main")?;
//! let name = ObjectName::wal(&cluster, SystemId(7579128459364321234), WalFileName::Segment(segment));
//! assert_eq!(name.to_string(), "clusters/main/7579128459364321234/wal/00000001/00000016/0000000100000016000000B3");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layers
//! Arrows point downwards only: a module may use those below it, never those above, and hardly any
//! beside it. `tests/it/tidy.rs` checks it, and has the exceptions with their reasons.
//!
//! | layer | modules | what lives there |
//! |---|---|---|
//! | 9 | [`cli`] | arguments, exit codes, rendering of reports and errors |
//! | 8 | [`ops`] | one module per command: request in, report out |
//! | 7 | [`backup`], [`restore`], [`retention`], [`verify`] | taking a base backup; putting one in place and starting a server on it; what is kept and how the rest goes; whether it is all there and right |
//! | 6 | [`wal`], [`recovery`] | WAL files between a server and a repository; target, path, stop, choice of backup |
//! | 5 | [`repositories`] | the configured repositories: opening them, choosing among them |
//! | 4 | [`config`], [`postgres`], [`report`] | file < environment < flags → one validated value; a PostgreSQL server and its data directory; what commands answer |
//! | 3 | [`repo`] | what a repository is: object names, keys, bindings, WAL files, catalog, backups |
//! | 2 | [`store`], [`codec`] | where objects live; the one pipeline of compression, encryption and hashing |
//! | 1 | [`crypto`], [`mod@format`], [`pg`], [`fsio`], [`command`], [`throttle`] | pure parsers and ciphers; raw file-system calls; the operator's commands; how fast may be read |
//! | 0 | [`limits`], [`deadline`], [`error`], [`raw_text`], [`process`], [`threads`], [`varint`], [`waiting`], [`fifo_cache`] | bounds, time limits, the error type, names that are bytes, what processes inherit, several things at once, numbers of variable length, what is waited for, a bounded cache |

pub mod backup;
pub mod cli;
pub mod codec;
pub mod command;
pub mod config;
pub mod crypto;
pub mod deadline;
pub mod error;
pub mod fifo_cache;
pub mod format;
pub mod fsio;
pub mod limits;
pub mod ops;
pub mod pg;
pub mod postgres;
pub mod process;
pub mod raw_text;
pub mod recovery;
pub mod repo;
pub mod report;
pub mod repositories;
pub mod restore;
pub mod retention;
pub mod store;
pub mod threads;
pub mod throttle;
pub mod varint;
pub mod verify;
pub mod waiting;
pub mod wal;
