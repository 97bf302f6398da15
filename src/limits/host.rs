//! Bounds of the machine that Walvis runs on: files, links, commands, the end of the process.

use std::time::Duration;

use super::units::{KIB, MIB};

/// How long a command of the operator's that was told to end has for tidying up before it is killed.
pub const COMMAND_GRACE: Duration = Duration::from_millis(300);
/// How long the kernel's keyring keeps a key that was derived from a passphrase.
pub const KEY_CACHE_TIME: Duration = Duration::from_secs(3600);
/// How often it is looked whether a command has ended. Its output ends with it as a rule, and that is seen at once.
pub const COMMAND_LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is read at once of the output of a command: it is wiped afterwards.
pub const COMMAND_READ_BYTES: usize = 4 * KIB;
/// How long after the deadline a call that hangs is given up. Whatever does not hang has failed by itself before.
pub const HANGING_CALL_GRACE: Duration = Duration::from_secs(2);
/// How long the watchdog tries to say why it ends the process.
pub const LAST_MESSAGE_TIME: Duration = Duration::from_millis(500);
/// Longest `/proc/self/status` that is read.
pub const MAX_PROC_STATUS_BYTES: usize = 64 * KIB;
/// Longest settings file.
pub const MAX_SETTINGS_FILE_BYTES: usize = MIB;

/// Most links on the way along a path: as many as Linux itself follows.
pub const MAX_PATH_LINKS: u32 = 40;
/// How deep directories are that are removed with what is in them. PostgreSQL's are four deep.
pub const MAX_REMOVED_DEPTH: usize = 200;
/// How often what follows a path begins anew when directories are moved or removed meanwhile. Each time needs another
/// process that does it in that instant, or one that lost the processor while it did.
pub const PATH_ATTEMPTS: u32 = 100;
/// How many of them follow each other without a pause.
pub const PATH_ATTEMPTS_AT_ONCE: u32 = 10;
/// Before each of the others: on a busy host a process waits for the processor for tenths of a second.
pub const PATH_PAUSE: Duration = Duration::from_millis(50);
/// How often a lock is tried: a process that only looks whether it is free holds it for a moment.
pub const LOCK_ATTEMPTS: u32 = 20;
/// Between two of these attempts.
pub const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// How often a thread tries to become again who it was: the kernel refuses only when it has no memory for a moment.
pub const IDENTITY_ATTEMPTS: u32 = 1000;
/// Between two of these attempts.
pub const IDENTITY_PAUSE: Duration = Duration::from_millis(2);
/// How often a random name of a temp file is tried: as a rule the first one is free.
pub const TEMP_NAME_ATTEMPTS: u32 = 100;
/// Longer than the steps in which the times of files advance: kernels count them in ticks of up to 10 ms.
pub const FILE_TIME_STEP: Duration = Duration::from_millis(50);
/// What goes to or comes from the disk at once, past the cache: less costs more requests, more only memory.
pub const DIRECT_BLOCK_BYTES: usize = MIB;
/// What addresses, offsets and lengths have to be multiples of there: no disk has larger logical blocks.
pub const DIRECT_ALIGNMENT: usize = 4 * KIB;
/// Shorter writes are left to the cache, which gathers them.
pub const MIN_DIRECT_BYTES: usize = 256 * KIB;
/// Longest file of `/proc` that is read: a list of the shared memory of all processes can be long.
pub const MAX_PROC_BYTES: usize = 16 * MIB;
/// What is written to find out whether the directory for temporary files takes any.
pub const SCRATCH_TRIED_BYTES: usize = 64 * KIB;
