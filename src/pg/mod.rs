//! PostgreSQL's own formats: LSN, timeline, WAL file names, page headers, history files, `pg_control`, data pages, what
//! a data directory holds, `backup_label` and `backup_manifest`.
//!
//! Lives here: pure parsers, bytes or text in, values or errors out. May not live here: I/O of any kind. Depends on
//! `limits` and `raw_text` only. Everything here reads foreign bytes: it checks lengths before it slices and never
//! panics.

mod backup_label;
mod backup_manifest;
pub mod changes;
mod control;
pub mod data_directory;
mod history;
mod lsn;
mod names;
mod page;
pub mod page_checksum;
pub mod scan;
pub mod settings;
mod tablespace_map;
pub mod target;

pub use backup_label::{BackupLabel, BackupLabelError};
pub use backup_manifest::{BackupManifest, WalRange};
pub use control::{ClusterState, ControlFile, ControlFileError, PG_CONTROL_BYTES};
pub use history::{BackupHistory, HistoryEntry, HistoryError, TimelineHistory};
pub use lsn::{InvalidLsn, Lsn, Timeline, WalSegmentSize};
pub use names::{SegmentName, WalFileName};
pub use page::{FirstPage, PageError, SegmentHead, major_of_magic};
pub use tablespace_map::TablespaceMap;
