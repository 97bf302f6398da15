//! PostgreSQL's own formats: LSN, timeline, WAL file names, page headers, history files, `pg_control`.
//!
//! Lives here: pure parsers, bytes or text in, values or errors out. May not live here: I/O of any kind. Depends on `limits` only.
//! Everything here reads foreign bytes: it checks lengths before it slices and never panics.

mod control;
mod history;
mod lsn;
mod names;
mod page;
pub mod settings;
pub mod scan;
pub mod target;

pub use control::{ControlFile, ControlFileError, PG_CONTROL_BYTES};
pub use history::{BackupHistory, HistoryEntry, HistoryError, TimelineHistory};
pub use lsn::{InvalidLsn, Lsn, Timeline, WalSegmentSize};
pub use names::{SegmentName, WalFileName};
pub use page::{FirstPage, PageError, SegmentCheck, major_of_magic};
