//! What `pitr-restore` answers: the plan, what was restored, and the server that was started.

use crate::raw_text::RawText;
use crate::report::resolve::ResolveReport;
use crate::report::setting::Setting;
use crate::report::time::Time;
use serde::Serialize;
use std::fmt;

/// What will be done, and what came of the target.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlanReport {
    /// Where recovery stops, and from which backup.
    pub resolve: ResolveReport,
    /// The rest; null where the target is not reached.
    pub restore: Option<RestorePlan>,
}

/// What `pitr-restore` answers.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestoreReport {
    /// The plan.
    pub plan: PlanReport,
    /// The files; null if only the plan was asked for.
    pub restored: Option<Restored>,
    /// The server, if it was started.
    pub server: Option<StartedServer>,
}

/// What will be done.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestorePlan {
    /// The data directory.
    pub data_directory: RawText,
    /// What is there now.
    pub directory_state: DirectoryState,
    /// PostgreSQL's major version.
    pub postgres_major: u32,
    /// Files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// Bytes that are free there, for an ordinary user.
    pub available_bytes: u64,
    /// Tablespaces, and where they go.
    pub tablespaces: Vec<TablespacePlan>,
    /// Where `pg_wal` will be, if it is not in the data directory.
    pub wal_directory: Option<RawText>,
    /// Files of the backup from outside the data directory.
    pub attachments: Vec<AttachmentPlan>,
    /// WAL that is nowhere else, and will be gone.
    pub unarchived_wal: Vec<UnarchivedFile>,
    /// The user that files will belong to.
    pub owner: Option<String>,
    /// Settings that are added for the recovery. When it is over they are taken out again, but for those of a standby.
    pub settings: Vec<Setting>,
    /// Settings that are added and stay.
    pub lasting_settings: Vec<Setting>,
    /// Whether the restored server is a standby.
    pub standby: bool,
    /// Whether the restored server archives as the original does.
    pub archiving: bool,
    /// Threads.
    pub jobs: usize,
    /// The programs that start the server, if they do.
    pub bin_directory: Option<RawText>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// Where a tablespace goes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TablespacePlan {
    /// Object id.
    pub oid: u32,
    /// Where it was.
    pub from_path: RawText,
    /// Where it will be.
    pub to_path: RawText,
    /// Length of its files.
    pub bytes: u64,
}

/// A file of the backup from outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AttachmentPlan {
    /// Where it was.
    pub from_path: RawText,
    /// The setting that led to it.
    pub setting: String,
    /// Where it will be; null without `--config-to`.
    pub to_path: Option<RawText>,
    /// Its length.
    pub bytes: u64,
    /// Whether something else lies there, which is renamed.
    pub replaces: bool,
}

/// A file of `pg_wal` whose content the repository does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnarchivedFile {
    /// Its name.
    pub file: String,
    /// Whether the server meant to archive it (`.ready`); otherwise it is one that was still written to, or archiving
    /// was off.
    pub waits: bool,
    /// Commits in it that the repository does not have; null when that is not known.
    pub commits: Option<u64>,
    /// When the last of them was made.
    pub last_commit_at: Option<Time>,
}

impl UnarchivedFile {
    /// For people.
    pub fn describe(&self) -> String {
        let mut out = self.file.clone();
        match (self.commits, self.waits) {
            (Some(0), true) => out.push_str(" (waits to be archived)"),
            (Some(0) | None, _) => {}
            (Some(1), _) => out.push_str(" (1 commit)"),
            (Some(n), _) => out.push_str(&format!(" ({n} commits)")),
        }
        out
    }
}

/// What was restored.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// Of that, what was there already with the right content.
    pub kept_bytes: u64,
    /// Of that, zeros.
    pub zero_bytes: u64,
    /// Read from packs, as it is stored there.
    pub read_bytes: u64,
    /// Number of requests that took.
    pub requests: u64,
    /// What lay in the directory and did not belong to the backup.
    pub removed_items: u64,
    /// How long it took, in seconds.
    pub duration_s: f64,
}

/// A relation on which queries wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Locked {
    /// Name of the database.
    pub database: String,
    /// Schema and name, or the OID where the name is not known.
    pub relation: String,
}

/// A restored server that was started.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartedServer {
    /// What it does now.
    pub state: ServerState,
    /// Up to where it has replayed, where that is known.
    pub lsn: Option<String>,
    /// The timeline that it writes now.
    pub timeline: Option<u32>,
    /// From its start until it had reached the target, in seconds.
    pub duration_s: f64,
    /// Id of its process, if it runs.
    pub pid: Option<u32>,
    /// Of a paused one, what queries wait for: locks of transactions that are not included.
    pub locked: Vec<Locked>,
    /// Where its first messages are.
    pub log_path: RawText,
    /// The variables of this process's environment that may hold a secret and that it has, because `restore_command`
    /// needs them.
    pub environment_variables: Vec<String>,
}

/// What lies where the data directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum DirectoryState {
    /// Nothing: it will be made.
    Absent,
    /// An empty directory.
    Empty,
    /// A restore that was interrupted.
    Unfinished,
    /// The data directory of a server that does not run.
    Cluster,
}

/// What a restored server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ServerState {
    /// It has reached the target, and recovery is paused there.
    Paused,
    /// Recovery is over: it takes writes.
    Promoted,
    /// It reached the target and ended.
    ShutDown,
    /// It is consistent and follows as a standby.
    Standby,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::ShutDown => "shut down",
            Self::Standby => "standby",
        })
    }
}
