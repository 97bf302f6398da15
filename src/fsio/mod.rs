//! The file system, raw: the only module that opens, writes, renames or removes files.
//!
//! Lives here: directory handles ([`Dir`]), reading a tree that others write to ([`scan_live`]), the rights that root
//! works with ([`Identity`], [`Rooted`]), the durable publish of one file ([`AtomicFile`]), a tree of published files
//! ([`Tree`]), and the few helpers that the rest needs ([`read_bounded`], [`open_regular`], [`create_secret`], …).
//! `clippy.toml` bans the calls of `std::fs` everywhere else, so that no caller can forget an fsync. May not live here:
//! what the bytes mean, retries, store errors. Depends on `limits`, `error`, `process` and `raw_text`.
//!
//! Every error names the path, what was being done, what the system said, and where possible what the operator can do.

#![allow(clippy::disallowed_methods)] // The one place where they are allowed.

mod append;
mod at_hand;
mod atomic_file;
mod attempts;
mod below;
mod boot;
mod detach;
mod dir;
mod direct;
mod error;
mod free_space;
mod host;
mod identity;
mod kernel;
mod links;
mod live;
mod locks;
mod make_dirs;
mod named;
mod names;
mod passing_reader;
mod private_dir;
mod read;
mod restore_tree;
mod rooted;
mod scratch;
mod stat;
mod temp;
mod tree;
mod trust;
mod users;
mod watch;
mod way;

pub use append::append_line;
pub use at_hand::is_at_hand;
pub use atomic_file::{AtomicFile, Durability, Published, create_secret};
pub use below::unfinished_name;
pub use boot::Boot;
pub use detach::detach;
pub use dir::{Dir, Item, list_dir};
pub use direct::{DirectBuffer, DirectReader, DirectWriter, read_past_cache};
pub use error::{FsError, Problem};
pub use free_space::available_bytes;
pub use host::host_name;
pub use identity::{Entered, Identity, Owner};
pub use kernel::{
    Process, SharedMemory, Worker, booted_unix_s, may_write, process, sees_every_process, shared_memory, workers_in,
};
pub use links::link_target;
pub use live::{
    Attributes, LiveDir, LiveKind, OwnerNames, attributes, open_live, present_size, read_full_at, real_path, scan_live,
};
pub use locks::{Lock, is_locked, lock};
pub use make_dirs::{make_dirs, make_dirs_for};
pub use named::{as_owner_of, as_owner_of_all, directory_of, file_error, local_error};
pub use names::{remove_file, rename_over};
pub use passing_reader::PassingReader;
pub use private_dir::{make_own_dir, private_dir, write_volatile};
pub use read::{open_regular, read_bounded, reader, reader_from};
pub use restore_tree::{RestoreTree, zero_range};
pub use rooted::{Found, Missing, Rooted};
pub use scratch::{scratch, try_scratch};
pub use stat::{ItemKind, Stat, exists, is_settled, owner, stat, stat_no_follow, stat_open};
pub use temp::{AbandonedFile, TEMP_PREFIX, TempFiles, sweep};
pub use tree::{Removed, TEMP_DIR, Tree};
pub use trust::{ChangeableBy, Exposure, changeable_by_others, everybody_can_write, others_can_read, others_can_write};
pub use users::{own_user, user_and_home, user_name};
pub use watch::{Became, Change, Changes, Names, Watch};
