//! Bounds of what a PostgreSQL server is asked and waited for, and of the files that it writes for others.

use std::time::Duration;

use super::units::{KIB, MIB};

/// Longest wait for a connection, unless the connection string says otherwise.
pub const SERVER_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a caller that waits for a long statement is asked whether to go on.
pub const STATEMENT_LOOK_EVERY: Duration = Duration::from_millis(200);
/// A TCP connection that is silent for this long is probed: a host that is gone is noticed within two minutes, and no
/// router forgets the connection.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Between two probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Probes without an answer after which the connection is lost.
pub const KEEPALIVE_RETRIES: u32 = 5;
/// Longest file that a connection string leads to: services, passwords, certificates.
pub const MAX_CONNECTION_FILE_BYTES: usize = MIB;
/// How often a statement is sent over the idle session of a backup; an answer is the proof that it still is there.
pub const SESSION_PROBED_EVERY: Duration = Duration::from_secs(30);
/// How long the sizes of databases may take to find out, in seconds: they are only reported.
pub const SIZES_TIMEOUT_S: u32 = 60;
/// Databases that are connected to in order to find the names of damaged relations.
pub const MAX_NAMED_DATABASES: usize = 20;
/// How often the last checkpoint of a server is compared with that of its directory: another one may come in between.
pub const CHECKPOINT_ATTEMPTS: u32 = 10;
/// Between two of these comparisons.
pub const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);

/// After this time without any sign of the archiver its command is tried.
pub const ARCHIVER_SILENCE: Duration = Duration::from_secs(5);
/// How often an archive command is tried at most.
pub const TRIAL_EVERY: Duration = Duration::from_secs(30);
/// How long a trial may take.
pub const TRIAL_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether a trial has ended.
pub const TRIAL_LOOK_EVERY: Duration = Duration::from_millis(20);
/// Where nothing can be tried, this many failures in a row are no accident: the server itself gives up for a minute
/// then.
pub const ARCHIVER_FAILURES: u64 = 3;
/// What is read of the output of a trial.
pub const MAX_TRIAL_OUTPUT_BYTES: usize = 16 * KIB;
/// How long an archiver that failed last time is given to do better.
pub const ARCHIVER_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile whether it did.
pub const ARCHIVER_LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a look at the processes is tried again that the system refuses for the moment.
pub const PROCESS_ATTEMPTS: u32 = 20;
/// Between two of these attempts.
pub const PROCESS_PAUSE: Duration = Duration::from_millis(100);
/// By how many seconds a clock may be set and a server from before the boot still be told from a later one.
pub const CLOCK_SLACK_S: i64 = 60;
/// A server makes its shared memory after it has noted when it started, within this many seconds.
pub const SAME_MOMENT_S: i64 = 2;
/// How often a `pg_control` that seems damaged is read: the server rewrites it without a lock that others could take.
pub const CONTROL_FILE_ATTEMPTS: usize = 20;
/// Between two of these readings.
pub const CONTROL_FILE_PAUSE: Duration = Duration::from_millis(10);
/// Longest `postmaster.pid` that is read: the server writes eight lines.
pub const MAX_POSTMASTER_PID_BYTES: usize = 64 * KIB;

/// How often a server that was started is asked how far it is.
pub const SERVER_LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that says that it takes connections, and takes none of ours for this long, is not going to.
pub const STARTED_SERVER_PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer of a started server may take.
pub const SERVER_ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Most locks of a started server that are reported.
pub const MAX_LOCKS_REPORTED: usize = 100;
/// What is read of the end of a server's log.
pub const MAX_LOG_TAIL_BYTES: u64 = 64 * KIB as u64;
/// Longest `current_logfiles` that is read: the server writes three lines.
pub const MAX_LOGFILE_LIST_BYTES: usize = MIB;
