//! The table of settings: every one there is, once.
//!
//! Lives here: one row per setting. The reading of the settings file and of the environment, the global flags and their
//! help, what the `restore_command` of a restored server carries, the warning about unknown variables and
//! `docs/SETTINGS.md` all follow from it. May not live here: what a setting means to the program ([`load`](super::load)
//! and [`repository`](super::repository)). Depends on `setting` and on bounds of the layers below.
//!
//! To add a setting: a row, its name in [`ALL`], and the place that reads it; then render `docs/SETTINGS.md` anew.

use super::setting::{Child, Fallback, Flag, Kind, Reach, Setting, Table};
use crate::limits::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_TIMEOUT, MAX_KEPT, MAX_RETAIN_DAYS, MAX_TIMEOUT};
use crate::process::PASSPHRASE_VARIABLE;

/// Where the settings file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/walvis/walvis.toml";
/// The cluster name when none is given.
pub const DEFAULT_CLUSTER: &str = "main";
/// zstd level when none is given: the fastest of the standard ones; WAL is written faster than it is read.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 1;
/// zstd level of base backups when none is given: they are kept longer than WAL and nobody waits for them.
pub const DEFAULT_BACKUP_COMPRESSION_LEVEL: i32 = 3;

/// Set for the helpers that a call leaves behind, and for them only. It is no setting: nobody but Walvis sets it.
pub const HELPER_VARIABLE: &str = "WALVIS_HELPER";
/// Variables that begin like ours and that something else reads: what tests and scripts call the program with.
pub const FOREIGN_PREFIXES: [&str; 2] = ["WALVIS_TEST_", "WALVIS_BIN"];
/// The value of [`SPOOL`] that turns it off.
pub const SPOOL_OFF: &str = "off";

/// What most settings have in common.
const SETTING: Setting = Setting {
    name: "",
    table: Table::Top,
    variable: None,
    flag: None,
    kind: Kind::Text,
    fallback: Fallback::None,
    help: "",
    more: "",
    reach: Reach::Process,
    child: Child::DoesWithout,
};
/// What the settings of a repository have in common. A child finds them in the settings file.
const OF_REPOSITORY: Setting = Setting { table: Table::Repository, reach: Reach::OneRepository, child: Child::Gets, ..SETTING };
const OF_S3: Setting = Setting { table: Table::S3, ..OF_REPOSITORY };
/// A restored server deletes nothing.
const OF_RETENTION: Setting = Setting { table: Table::Retention, child: Child::DoesWithout, ..OF_REPOSITORY };

const fn flag(long: &'static str, value_name: &'static str) -> Option<Flag> {
    Some(Flag { long, short: None, value_name, commands: &[] })
}

/// Every setting, in the order of the help and of the reference.
pub static ALL: [&Setting; 41] = [
    &CONFIG,
    &URL,
    &CLUSTER,
    &ID,
    &KEY_FILE,
    &KEY_COMMAND,
    &PASSPHRASE_FILE,
    &PASSPHRASE,
    &TIMEOUT,
    &SERVER,
    &SPOOL,
    &ZONE,
    &OPTIONAL,
    &COMPRESSION_LEVEL,
    &REQUEST_TIMEOUT,
    &CREATE_IF_ABSENT,
    &S3_ENDPOINT,
    &S3_REGION,
    &S3_PROFILE,
    &S3_CREDENTIALS_FILE,
    &S3_PATH_STYLE,
    &S3_CA_FILE,
    &S3_CHECKSUMS,
    &S3_SSE,
    &S3_SSE_KMS_KEY_ID,
    &S3_STORAGE_CLASS,
    &S3_OBJECT_LOCK_MODE,
    &S3_OBJECT_LOCK_DAYS,
    &RETENTION_WINDOW,
    &RETENTION_LAST,
    &RETENTION_WITHIN,
    &RETENTION_DAILY,
    &RETENTION_WEEKLY,
    &RETENTION_MONTHLY,
    &RETENTION_YEARLY,
    &RETENTION_ZONE,
    &RETENTION_GRACE,
    &EVIDENCE_WITHIN,
    &JSON,
    &LOG,
    &VERBOSE,
];

/// The settings that say where a key comes from. A repository has at most one of them.
pub static KEY_SOURCES: [&Setting; 4] = [&KEY_FILE, &KEY_COMMAND, &PASSPHRASE_FILE, &PASSPHRASE];

/// The settings file.
pub static CONFIG: Setting = Setting {
    name: "config",
    table: Table::NotInFile,
    variable: Some("WALVIS_CONFIG"),
    flag: flag("config", "FILE"),
    kind: Kind::Path,
    fallback: Fallback::Value(DEFAULT_FILE),
    help: "Settings file",
    more: "A file that is named has to be there. As root a file that another user can change is refused.",
    child: Child::Gets,
    ..SETTING
};
/// Where a repository is.
pub static URL: Setting = Setting {
    name: "url",
    variable: Some("WALVIS_REPOSITORY"),
    flag: flag("repository", "URL"),
    help: "Use this repository only: file:///path or s3://bucket/prefix",
    more: "In the file: where the repository is. The flag and the variable choose the repository of that URL in the file, with its \
           settings there, or one that is not in the file. Credentials do not belong into a URL, and are refused.",
    reach: Reach::ChoosesRepository,
    ..OF_REPOSITORY
};
/// The cluster's name.
pub static CLUSTER: Setting = Setting {
    name: "cluster",
    variable: Some("WALVIS_CLUSTER"),
    flag: flag("cluster", "NAME"),
    fallback: Fallback::Value(DEFAULT_CLUSTER),
    help: "Name of the cluster",
    more: "Its WAL and backups stand under this name in the repositories.",
    child: Child::AlwaysGets,
    ..SETTING
};
/// Which repository has to be there.
pub static ID: Setting = Setting {
    name: "id",
    variable: Some("WALVIS_REPOSITORY_ID"),
    help: "Which repository has to be there, as 'walvis init' prints it",
    more: "A key file that belongs to a repository says the same. With a passphrase, this setting is what detects another repository in \
           this one's place.",
    ..OF_REPOSITORY
};
/// The key, in a file.
pub static KEY_FILE: Setting = Setting {
    name: "key_file",
    variable: Some("WALVIS_KEY_FILE"),
    flag: flag("key-file", "FILE"),
    kind: Kind::Path,
    help: "Key file made by 'walvis key generate'",
    reach: Reach::RepositoriesWithoutKey,
    ..OF_REPOSITORY
};
/// The key, from a command.
pub static KEY_COMMAND: Setting = Setting {
    name: "key_command",
    variable: Some("WALVIS_KEY_COMMAND"),
    kind: Kind::ShellCommand,
    help: "Command that prints the text of a key file",
    more: "Everybody who may read the settings, or the restore_command of a restored server, sees the command: it must not hold the key \
           itself.",
    reach: Reach::RepositoriesWithoutKey,
    ..OF_REPOSITORY
};
/// A passphrase, in a file.
pub static PASSPHRASE_FILE: Setting = Setting {
    name: "passphrase_file",
    variable: Some("WALVIS_PASSPHRASE_FILE"),
    kind: Kind::Path,
    help: "File whose first line is a passphrase",
    reach: Reach::RepositoriesWithoutKey,
    ..OF_REPOSITORY
};
/// A passphrase, in the environment.
pub static PASSPHRASE: Setting = Setting {
    name: "passphrase",
    table: Table::NotInFile,
    variable: Some(PASSPHRASE_VARIABLE),
    kind: Kind::Secret,
    help: "A passphrase",
    reach: Reach::RepositoriesWithoutKey,
    child: Child::NeedsInItsEnvironment,
    ..OF_REPOSITORY
};
/// The time limit of a command.
pub static TIMEOUT: Setting = Setting {
    name: "timeout_s",
    variable: Some("WALVIS_TIMEOUT_S"),
    flag: flag("timeout", "SECONDS"),
    kind: Kind::Seconds(MAX_TIMEOUT.as_secs()),
    fallback: Fallback::Time(DEFAULT_TIMEOUT),
    help: "Time limit of the whole command",
    more: "Of base-backup, pitr-restore and push-wal --missed, which take as long as there is data: how long they may make no progress.",
    child: Child::Gets,
    ..SETTING
};
/// How to connect to the server.
pub static SERVER: Setting = Setting {
    name: "server",
    variable: Some("WALVIS_SERVER"),
    flag: Some(Flag { long: "server", short: None, value_name: "CONNINFO", commands: &["check", "base-backup"] }),
    kind: Kind::Conninfo,
    fallback: Fallback::Words("as PGHOST, PGPORT and so on say"),
    help: "How to connect to the server, as for psql: 'host=/var/run/postgresql user=postgres'",
    more: "A password does not belong into it: the flag refuses one, and where other users can read the settings file there is a warning. \
           ~/.pgpass, PGPASSFILE, a service file and PGPASSWORD are read.",
    ..SETTING
};
/// Where the spool is.
pub static SPOOL: Setting = Setting {
    name: "spool",
    variable: Some("WALVIS_SPOOL"),
    fallback: Fallback::Words("walvis beside the WAL files"),
    help: "Where calls leave what was done ahead: the absolute path of a directory, or off",
    more: "docs/SPOOL.md says what is in it.",
    child: Child::Gets,
    ..SETTING
};
/// The zone of times without one.
pub static ZONE: Setting = Setting {
    name: "zone",
    variable: Some("WALVIS_ZONE"),
    flag: Some(Flag { long: "zone", short: None, value_name: "ZONE", commands: &["resolve", "catalog", "pitr-restore"] }),
    fallback: Fallback::Words("none, and a time without a zone is refused"),
    help: "Time zone of times that are given without one, and in which times are shown beside UTC: UTC, +01:00, Europe/Amsterdam",
    ..SETTING
};
/// Whether a push may succeed without a repository.
pub static OPTIONAL: Setting = Setting {
    name: "optional",
    kind: Kind::Truth,
    fallback: Fallback::Value("false"),
    help: "Whether a push succeeds without this repository",
    more: "Its failures are loud, and what it misses is sent to it later.",
    ..OF_REPOSITORY
};
/// How well it compresses.
pub static COMPRESSION_LEVEL: Setting = Setting {
    name: "compression_level",
    kind: Kind::Whole(1, 19),
    fallback: Fallback::Words("1 for WAL, 3 for base backups"),
    help: "Level of zstd",
    ..OF_REPOSITORY
};
/// The time limit of a request.
pub static REQUEST_TIMEOUT: Setting = Setting {
    name: "request_timeout_s",
    variable: Some("WALVIS_REQUEST_TIMEOUT_S"),
    kind: Kind::Seconds(MAX_TIMEOUT.as_secs()),
    fallback: Fallback::Time(DEFAULT_REQUEST_TIMEOUT),
    help: "Time limit of one request to the store",
    more: "It is at most the time limit of the whole command.",
    reach: Reach::EveryRepository,
    ..OF_REPOSITORY
};
/// How the store refuses to overwrite.
pub static CREATE_IF_ABSENT: Setting = Setting {
    name: "create_if_absent",
    kind: Kind::Choice(&["auto", "store", "claims"]),
    fallback: Fallback::Value("auto"),
    help: "How to make sure that nothing is overwritten: by the store, or by claims where it cannot",
    more: "auto is what 'walvis init' found out about the store.",
    ..OF_REPOSITORY
};
/// Where an S3 store is.
pub static S3_ENDPOINT: Setting = Setting {
    name: "endpoint",
    variable: Some("WALVIS_S3_ENDPOINT"),
    fallback: Fallback::Words("what the AWS environment says, else AWS itself"),
    help: "Address of an S3 store other than AWS: https://host[:port]",
    ..OF_S3
};
/// The region.
pub static S3_REGION: Setting = Setting {
    name: "region",
    variable: Some("WALVIS_S3_REGION"),
    fallback: Fallback::Words("what the AWS environment says; with an endpoint us-east-1"),
    help: "Region",
    ..OF_S3
};
/// The profile.
pub static S3_PROFILE: Setting = Setting {
    name: "profile",
    fallback: Fallback::Words("what AWS_PROFILE says, else default"),
    help: "Profile in the AWS shared files",
    ..OF_S3
};
/// The credentials.
pub static S3_CREDENTIALS_FILE: Setting = Setting {
    name: "credentials_file",
    kind: Kind::Path,
    fallback: Fallback::Words("the standard chain of AWS"),
    help: "An AWS shared credentials file to use in place of the whole standard chain",
    ..OF_S3
};
/// Where the bucket's name stands.
pub static S3_PATH_STYLE: Setting = Setting {
    name: "path_style",
    variable: Some("WALVIS_S3_PATH_STYLE"),
    kind: Kind::Truth,
    fallback: Fallback::Value("false"),
    help: "Whether requests go to endpoint/bucket/key instead of bucket.endpoint/key",
    ..OF_S3
};
/// Whom to trust.
pub static S3_CA_FILE: Setting = Setting {
    name: "ca_file",
    variable: Some("WALVIS_S3_CA_FILE"),
    kind: Kind::Path,
    fallback: Fallback::Words("what AWS_CA_BUNDLE names"),
    help: "PEM file with certificates that are trusted in addition to the system's",
    ..OF_S3
};
/// Whether uploads carry a checksum.
pub static S3_CHECKSUMS: Setting = Setting {
    name: "checksums",
    kind: Kind::Choice(&["when-supported", "when-required"]),
    fallback: Fallback::Value("when-supported"),
    help: "When uploads carry S3's own checksum: when-required for stores that refuse the header",
    ..OF_S3
};
/// Encryption by the store.
pub static S3_SSE: Setting = Setting {
    name: "sse",
    kind: Kind::Choice(&["AES256", "aws:kms"]),
    help: "Encryption by the store, on top of Walvis's own",
    ..OF_S3
};
/// And its key.
pub static S3_SSE_KMS_KEY_ID: Setting = Setting {
    name: "sse_kms_key_id",
    fallback: Fallback::Words("the account's default key"),
    help: "Id, ARN or alias of the key that aws:kms uses",
    ..OF_S3
};
/// The storage class.
pub static S3_STORAGE_CLASS: Setting = Setting {
    name: "storage_class",
    fallback: Fallback::Words("the bucket's"),
    help: "Storage class of new objects, for example STANDARD_IA",
    ..OF_S3
};
/// Who may lift an object lock.
pub static S3_OBJECT_LOCK_MODE: Setting = Setting {
    name: "object_lock_mode",
    kind: Kind::Choice(&["governance", "compliance"]),
    help: "How new objects are locked; it goes with object_lock_days",
    more: "The bucket must have been made with object lock.",
    ..OF_S3
};
/// And how long it lasts.
pub static S3_OBJECT_LOCK_DAYS: Setting = Setting {
    name: "object_lock_days",
    kind: Kind::Whole(1, MAX_RETAIN_DAYS as i64),
    help: "How many days new objects are locked, from their upload on",
    ..OF_S3
};
/// The window.
pub static RETENTION_WINDOW: Setting = Setting {
    name: "recovery_window",
    kind: Kind::Period,
    fallback: Fallback::Words("none: what leads to the present is kept"),
    help: "How far back every moment stays reachable",
    more: "For it the newest good backup is kept from which the first moment of the window can be reached, and all WAL from the start of \
           that backup on, along every timeline that was alive in the window.",
    ..OF_RETENTION
};
/// The newest backups.
pub static RETENTION_LAST: Setting = Setting {
    name: "keep_last",
    kind: Kind::Whole(1, MAX_KEPT),
    help: "How many of the newest good backups are kept, whatever their age",
    ..OF_RETENTION
};
/// Young backups.
pub static RETENTION_WITHIN: Setting = Setting {
    name: "keep_within",
    kind: Kind::Period,
    help: "How long every backup is kept after it began",
    more: "Also one that cannot be restored, because something of it is missing.",
    ..OF_RETENTION
};
/// One a day.
pub static RETENTION_DAILY: Setting = Setting {
    name: "keep_daily",
    kind: Kind::Whole(1, MAX_KEPT),
    help: "Of how many days that have a good backup, the last ones, the newest is kept",
    ..OF_RETENTION
};
/// One a week.
pub static RETENTION_WEEKLY: Setting = Setting {
    name: "keep_weekly",
    kind: Kind::Whole(1, MAX_KEPT),
    help: "The same of weeks, which begin on Monday",
    ..OF_RETENTION
};
/// One a month.
pub static RETENTION_MONTHLY: Setting = Setting {
    name: "keep_monthly",
    kind: Kind::Whole(1, MAX_KEPT),
    help: "The same of months",
    more: "A month without a backup takes no place.",
    ..OF_RETENTION
};
/// One a year.
pub static RETENTION_YEARLY: Setting = Setting {
    name: "keep_yearly",
    kind: Kind::Whole(1, MAX_KEPT),
    help: "The same of years",
    more: "A year without a backup takes no place.",
    ..OF_RETENTION
};
/// Where days begin.
pub static RETENTION_ZONE: Setting = Setting {
    name: "zone",
    fallback: Fallback::Value("UTC"),
    help: "Time zone in which days, weeks, months and years begin: UTC, +01:00, Europe/Amsterdam",
    ..OF_RETENTION
};
/// Between the two phases.
pub static RETENTION_GRACE: Setting = Setting {
    name: "grace",
    kind: Kind::Period,
    fallback: Fallback::Words("24h"),
    help: "How long what may go is only named before it is deleted; longer than any backup may take",
    more: "A backup that is still being taken when it is over may be given up, and then fails. Nothing else depends on it.",
    ..OF_RETENTION
};
/// How long evidence is kept.
pub static EVIDENCE_WITHIN: Setting = Setting {
    name: "keep_within",
    table: Table::Evidence,
    kind: Kind::Period,
    fallback: Fallback::Words("for good"),
    help: "How long evidence of verifications is kept, unless it is the newest of what is stored",
    more: "Not shorter than the period of 'verify --rolling', which refuses it otherwise: what is forgotten is read again.",
    ..OF_RETENTION
};
/// Results as JSON.
pub static JSON: Setting = Setting {
    name: "json",
    table: Table::NotInFile,
    flag: flag("json", ""),
    kind: Kind::Switch,
    help: "Print results as JSON",
    ..SETTING
};
/// The form of the log.
pub static LOG: Setting = Setting {
    name: "log",
    table: Table::NotInFile,
    variable: Some("WALVIS_LOG"),
    flag: flag("log", "FORMAT"),
    kind: Kind::Choice(&["text", "json"]),
    fallback: Fallback::Value("text"),
    help: "How to log to standard error",
    ..SETTING
};
/// How much is logged.
pub static VERBOSE: Setting = Setting {
    name: "verbose",
    table: Table::NotInFile,
    flag: Some(Flag { long: "verbose", short: Some('v'), value_name: "", commands: &[] }),
    kind: Kind::Count,
    help: "Log more; twice for even more",
    ..SETTING
};

/// The setting of a key of the settings file.
pub fn of_key(table: Table, key: &str) -> Option<&'static Setting> {
    ALL.into_iter().find(|setting| setting.is_in_file() && setting.table == table && setting.name == key)
}

/// Every environment variable that is read.
pub fn variables() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().filter_map(|setting| setting.variable)
}

/// Every key of the settings file, those of tables included.
pub fn keys() -> Vec<&'static str> {
    let tables = [Table::Repository, Table::S3, Table::Retention, Table::Evidence].into_iter().filter_map(Table::key);
    ALL.into_iter().filter(|setting| setting.is_in_file()).map(|setting| setting.name).chain(tables).collect()
}
