//! Raw arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::flags::Global;
use crate::config::definitions::{SERVER, ZONE};

const AFTER_HELP: &str = concat!(
    "Settings: file < environment < flags. WALVIS_REPOSITORY and WALVIS_KEY_FILE are enough for one repository.\n\n",
    super::exit::exit_codes!()
);

/// PostgreSQL WAL shipper and backup tool: compressed, encrypted, stored once, restored to an exact commit.
#[derive(Debug, Parser)]
#[command(name = "walvis", version, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
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
    /// Back up a running primary or standby into the repository
    BaseBackup(BackupArgs),
    /// Try the whole way from the server to the repositories and back, and say what is wrong
    Check(CheckArgs),
    /// Show what the repositories hold
    List(ListArgs),
    /// Find out whether what is stored is all there and right, and what damage costs
    Verify(VerifyArgs),
    /// Show what the rules of retention keep, and what may go; with --confirm, let it go, in two phases
    Expire(ExpireArgs),
    /// Say exactly where a recovery to a target stops, and whether all it needs is there; touches nothing
    Resolve(ResolveArgs),
    /// Show every moment that the stored WAL can be recovered to: windows, gaps, timelines, restore points, commits
    Catalog(CatalogArgs),
    /// Keep a base backup, whatever the rules of retention say
    Pin(PinArgs),
    /// Let the rules of retention decide about a base backup again
    Unpin(UnpinArgs),
    /// Restore a base backup and have PostgreSQL recover it to a target; proves first that the target is reached
    PitrRestore(RestoreArgs),
    /// Take the settings of a recovery that is over out of a data directory; the server itself calls it when recovery
    /// ends
    #[command(hide = true)]
    EndRecovery(EndRecoveryArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExpireArgs {
    /// Name what may go, and delete what was named a grace period ago; without it nothing is changed
    #[arg(long)]
    pub(super) confirm: bool,
    /// Remove the versions, too, that the store keeps of what is deleted
    #[arg(long, requires = "confirm")]
    pub(super) purge_versions: bool,
    /// Let a backup go whose manifest cannot be read, or that has begun and will not end (several times)
    #[arg(long, value_name = "ID")]
    pub(super) give_up: Vec<String>,
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
    /// Let a key that belongs to a repository of other settings belong to these too
    #[arg(long)]
    pub(super) share_key: bool,
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
    #[arg(required_unless_present = "missed", value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Send to optional repositories what the others have and they missed; in the data directory
    #[arg(long)]
    pub(super) missed: bool,
    /// Push what waits after this file; only for the helper that a call starts
    #[arg(long, hide = true)]
    pub(super) ahead: bool,
}

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// Name of the file, PostgreSQL's %f
    pub(super) name: String,
    /// Where to put it, PostgreSQL's %p
    pub(super) destination: PathBuf,
    /// What to answer when it is not known whether the file exists
    #[arg(long, value_name = "ANSWER", default_value = "auto")]
    pub(super) on_error: OnError,
    /// Fetch what follows this file; only for the helper that a call starts
    #[arg(long, hide = true)]
    pub(super) ahead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnError {
    /// A standby (standby.signal) gets 1 within seconds, and streams it or asks again; every other recovery is stopped
    /// with 200
    Auto,
    /// Exit 200: PostgreSQL stops rather than end recovery too early
    Stop,
    /// Exit 1, as if the file did not exist, whatever keeps it from being told: only for standbys, which try again or
    /// stream it
    Unavailable,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[arg(long = SERVER.long(), value_name = SERVER.value_name(), help = SERVER.flag_help())]
    pub(super) server: Option<String>,
    /// Look at the repositories only
    #[arg(long, conflicts_with = "server")]
    pub(super) no_server: bool,
    /// Only print policies for the credentials of hosts and for buckets; nothing is asked of a store or server
    #[arg(long, conflicts_with_all = ["server", "no_server"])]
    pub(super) policies: bool,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The data directory [default: where the server says it is]
    #[arg(long, value_name = "DIR")]
    pub(super) pgdata: Option<PathBuf>,
    #[arg(long = SERVER.long(), value_name = SERVER.value_name(), help = SERVER.flag_help())]
    pub(super) server: Option<String>,
    /// What to call the backup
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
    /// Let the server make its checkpoint at once rather than spread over time
    #[arg(long)]
    pub(super) fast: bool,
    /// How many files to read at once, up to 16 [default: number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(super) jobs: Option<u16>,
    /// Read at most this many MiB per second
    #[arg(long, value_name = "MIB_PER_S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_rate: Option<u32>,
    /// Read all files, and not only what the log says that changed since the backup before
    #[arg(long)]
    pub(super) read_all: bool,
    /// Also read a share of what did not change, so that every page is verified once in this time: 7d, 24h, 4w
    #[arg(long, value_name = "PERIOD")]
    pub(super) verify_pages: Option<String>,
    /// Note something with the backup; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) annotate: Vec<String>,
    /// The primary of the standby that is backed up: ends its current WAL segment, so that the backup need not wait for
    /// that
    #[arg(long, value_name = "CONNINFO")]
    pub(super) primary: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Also list every stored file (with --json: one JSON object per line, and no summary)
    #[arg(long)]
    pub(super) files: bool,
    /// Only the base backups that hold a database of this name
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub(super) database: Option<String>,
    /// Only what is stored of this system identifier
    #[arg(long, value_name = "ID")]
    pub(super) system_id: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The backup, as 'walvis list' names it
    #[arg(value_name = "ID")]
    pub(super) backup: String,
    /// Why it is kept; 'walvis list' shows it
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// Until when: '2027-11-21 00:00:00+01:00'; without an offset, in --zone [default: until 'walvis unpin']
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    #[command(flatten)]
    pub(super) zone: ZoneArg,
}

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The backup
    #[arg(value_name = "ID")]
    pub(super) backup: String,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Look at listings, heads of manifests and the catalog only
    #[arg(long, conflicts_with_all = ["full", "rolling"])]
    pub(super) quick: bool,
    /// Read every byte [the default]
    #[arg(long, conflicts_with = "rolling")]
    pub(super) full: bool,
    /// Read a share, what was read longest ago first, so that every byte is read once in this time: 7d, 24h, 4w
    #[arg(long, value_name = "PERIOD")]
    pub(super) rolling: Option<String>,
    /// How many threads read, up to 64 [default: two per core, since each waits for the repository too]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) jobs: Option<u16>,
    /// Read at most this many MiB per second
    #[arg(long, value_name = "MIB_PER_S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_rate: Option<u32>,
    /// Bring back what is damaged or missing from this repository: a copy of the one that is verified, or another one
    /// (WAL only)
    #[arg(long, value_name = "URL")]
    pub(super) repair_from: Option<String>,
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
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(super) struct TargetArgs {
    /// To the last transaction that ended at this time: '2026-11-21 03:36:21.123456+01:00', or '10 minutes ago';
    /// without an offset, in --zone
    #[arg(long, value_name = "TIME", group = "what", allow_hyphen_values = true)]
    pub(super) target_time: Option<String>,
    /// To the first record that begins at this position or later: 16/B374D848
    #[arg(long, value_name = "LSN", group = "what")]
    pub(super) target_lsn: Option<String>,
    /// To the end of this transaction
    #[arg(long, value_name = "XID", group = "what")]
    pub(super) target_xid: Option<String>,
    /// To the restore point that pg_create_restore_point() made under this name
    #[arg(long, value_name = "NAME", group = "what")]
    pub(super) target_name: Option<String>,
    /// To the end of what is archived, or only as far as makes a backup consistent
    #[arg(long, value_name = "WHAT", group = "what")]
    pub(super) target: Option<TargetWord>,
    /// Stop before the target rather than after it: before the first transaction at that time, that record, that
    /// transaction
    #[arg(long, conflicts_with_all = ["target", "target_name"])]
    pub(super) exclusive: bool,
    /// Stop after the target [the default]
    #[arg(long, conflicts_with = "exclusive")]
    pub(super) inclusive: bool,
    /// latest, current (the one that recovery starts on), a number such as 12, or 0xC
    /// [default: the one that the target is on]
    #[arg(long, value_name = "TIMELINE")]
    pub(super) target_timeline: Option<String>,
    /// From this base backup [default: the newest from which the target is reached]
    #[arg(long, value_name = "ID")]
    pub(super) backup: Option<String>,
    /// Of this system identifier, where the cluster had several
    /// [default: the current one, or the one that has the backup or the moment]
    #[arg(long, value_name = "ID")]
    pub(super) system_id: Option<u64>,
    #[command(flatten)]
    pub(super) zone: ZoneArg,
}

#[derive(Debug, Args)]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Where recovery begins: the start LSN of a base backup, as in its backup_label
    /// [default: where the archive begins]
    #[arg(long, value_name = "LSN", conflicts_with = "backup")]
    pub(super) from: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ZoneArg {
    #[arg(long = ZONE.long(), value_name = ZONE.value_name(), help = ZONE.flag_help(), allow_hyphen_values = true)]
    pub(super) zone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TargetWord {
    Latest,
    Immediate,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CatalogArgs {
    #[command(subcommand)]
    pub(super) command: Option<CatalogCommand>,
    /// List restore points instead
    #[arg(long, conflicts_with = "commits")]
    pub(super) restore_points: bool,
    /// List commits and rollbacks instead (with --json: one object per line)
    #[arg(long)]
    pub(super) commits: bool,
    /// List from this time or LSN on; a time with its offset, or in --zone
    #[arg(long, value_name = "TIME|LSN", allow_hyphen_values = true)]
    pub(super) from: Option<String>,
    /// List up to this time or before this LSN
    #[arg(long, value_name = "TIME|LSN", allow_hyphen_values = true)]
    pub(super) to: Option<String>,
    /// Which timeline to list, with its ancestors: latest, or a number
    /// [default: the one whose last transaction is newest]
    #[arg(long, value_name = "TIMELINE")]
    pub(super) timeline: Option<String>,
    /// List of this system identifier, where the cluster had several [default: the current one]
    #[arg(long, value_name = "ID")]
    pub(super) system_id: Option<u64>,
    #[command(flatten)]
    pub(super) zone: ZoneArg,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The data directory to make: absent or empty, unless --delta
    #[arg(long, value_name = "DIR")]
    pub(super) pgdata: PathBuf,
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// What the server does when it has reached the target
    #[arg(long, value_name = "ACTION", default_value = "pause")]
    pub(super) target_action: ActionArg,
    /// Make a standby: it follows the newest timeline, archives as the original does, and ends recovery only when it is
    /// promoted
    #[arg(long, group = "what", conflicts_with_all = ["exclusive", "inclusive", "target_timeline", "target_action"])]
    pub(super) standby: bool,
    /// With --standby: how it connects to its primary, as for psql [default: it lives on the archive alone]
    #[arg(long, value_name = "CONNINFO", requires = "standby")]
    pub(super) primary: Option<String>,
    /// Put a tablespace elsewhere: OID=/new/path or /old/path=/new/path; once for each
    #[arg(long, value_name = "FROM=TO")]
    pub(super) tablespace_map: Vec<OsString>,
    /// Put tablespaces that are not mapped where they were, and make there what replay needs: the backup and the log
    /// say where
    #[arg(long)]
    pub(super) tablespaces_at_original_places: bool,
    /// Take over the data directory of a stopped server: keep what is the same, replace what differs, REMOVE the rest
    #[arg(long)]
    pub(super) delta: bool,
    /// With --delta: WAL in that directory that was never archived may be lost
    #[arg(long)]
    pub(super) discard_unarchived_wal: bool,
    /// Replay may remove what is in the directories of tablespaces that were made after the backup: no server uses them
    #[arg(long)]
    pub(super) tablespaces_of_the_log_may_be_overwritten: bool,
    /// Put pg_wal there, behind a link: an absent or empty directory, or with --delta the one that pg_wal is a link to
    #[arg(long, value_name = "DIR")]
    pub(super) waldir: Option<PathBuf>,
    /// Put the files from outside the data directory that the backup has there, such as Debian's
    /// /etc/postgresql/15/main
    #[arg(long, value_name = "DIR")]
    pub(super) config_to: Option<PathBuf>,
    /// The server whose postmaster.pid is there does not run, on any host or in any container: you have made sure
    #[arg(long)]
    pub(super) server_is_stopped: bool,
    /// Only print what would be done
    #[arg(long, conflicts_with = "start")]
    pub(super) plan: bool,
    /// Start the server, wait until it has reached the target, and say so
    #[arg(long)]
    pub(super) start: bool,
    /// Whether the restored server archives: into the original's repository, unless you change its settings
    /// [default: off; of a standby: keep]
    #[arg(long, value_name = "WHAT")]
    pub(super) archiving: Option<Archiving>,
    /// How many threads restore, up to 64 [default: four per core, since each waits for repository and disk too]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) jobs: Option<u16>,
    /// Where the server's programs are [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub(super) bin_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ActionArg {
    Pause,
    Promote,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Archiving {
    Off,
    Keep,
}

#[derive(Debug, Args)]
pub(super) struct EndRecoveryArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub(super) pgdata: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

/// The definition of all commands and flags, for completions and for the test that holds `docs/COMMANDS.md` against it.
pub fn definition() -> clap::Command {
    Cli::command()
}
