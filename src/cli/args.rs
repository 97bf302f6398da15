//! Raw arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// PostgreSQL WAL shipper and backup tool: compressed, encrypted, stored once, restored to an exact commit.
#[derive(Debug, Parser)]
#[command(name = "walvis", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "Settings: file < environment < flags. WALVIS_REPOSITORY and WALVIS_KEY_FILE are enough for one repository."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Settings file [default: /etc/walvis/walvis.toml; environment: WALVIS_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Use this repository only: file:///path or s3://bucket/prefix [environment: WALVIS_REPOSITORY]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) repository: Option<String>,
    /// Name of the cluster [default: main; environment: WALVIS_CLUSTER]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// Key file made by 'walvis key generate' [environment: WALVIS_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Time limit of the whole command [default: 300; environment: WALVIS_TIMEOUT_S]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How to log to standard error [default: text; environment: WALVIS_LOG]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(super) log: Option<LogFormat>,
    /// Log more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a repository; a second time it finds that it is there
    Init(InitArgs),
    /// Make and look after keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Store files that PostgreSQL archives: archive_command = 'walvis push-wal %p'
    PushWal(PushArgs),
    /// Fetch a file for recovery: restore_command = 'walvis fetch-wal %f %p'
    FetchWal(FetchArgs),
    /// Try the whole way from the server to the repositories and back, and say what is wrong
    Check(CheckArgs),
    /// Show what the repositories hold
    List(ListArgs),
    /// Look after the catalog, by which a moment of the past is found
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Make a repository that everybody with access to the store can read
    #[arg(long)]
    pub(super) unencrypted: bool,
    /// Bind the cluster's name to the system identifier of this data directory (else the first push does)
    #[arg(long, value_name = "DIR")]
    pub(super) pgdata: Option<PathBuf>,
    /// Bind the cluster's name to the new system identifier that pg_upgrade gave it; what is stored stays
    #[arg(long, requires = "pgdata")]
    pub(super) after_pg_upgrade: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Write a new key to a new file that only its owner can read
    Generate {
        /// The file; it must not exist
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The files, as PostgreSQL's %p names them
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// Name of the file, PostgreSQL's %f
    pub(super) name: String,
    /// Where to put it, PostgreSQL's %p
    pub(super) destination: PathBuf,
    /// What to answer when it cannot be told whether the file exists
    #[arg(long, value_name = "ANSWER", default_value = "stop")]
    pub(super) on_error: OnError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnError {
    /// Exit 200: PostgreSQL stops rather than end recovery too early
    Stop,
    /// Exit 1, as if the file did not exist: only for standbys, which try again or stream it
    Unavailable,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// How to connect to the server, as for psql: 'host=/var/run/postgresql user=postgres' [environment: WALVIS_SERVER, PGHOST, …]
    #[arg(long, value_name = "CONNINFO")]
    pub(super) server: Option<String>,
    /// Look at the repositories only
    #[arg(long, conflicts_with = "server")]
    pub(super) no_server: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Also list every stored file (with --json: one JSON object per line, and no summary)
    #[arg(long)]
    pub(super) files: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// Write the missing nodes of the catalog; what is stored of the log is not touched
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    /// Only this timeline, as a decimal number
    #[arg(long, value_name = "N")]
    pub(super) timeline: Option<u32>,
    /// Delete the nodes that are there first (derived data only); the credentials must be allowed to delete
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}
