//! What a data directory holds: what belongs to a backup (`backup/basebackup.c`, in 13 and 14
//! `replication/basebackup.c`), and what the names of relation files say (`common/relpath.c`, `storage/file/reinit.c`).

/// Directories at the top whose content does not survive a restart or must not be copied; they themselves are needed.
const EMPTIED: [&[u8]; 8] = [
    b"pg_wal",
    b"pg_stat_tmp",
    // Slots of another server: they would hold back WAL for nobody.
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
];

/// Files that are of this server's run or of another backup, in whatever directory.
const LEFT_OUT: [&[u8]; 8] = [
    b"postmaster.pid",
    b"postmaster.opts",
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    // The backup's own come from pg_backup_stop.
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b".DS_Store",
];

/// Beginnings of the names of files that are left out in whatever directory: the cache of system relations with its
/// temporary files, which is rebuilt; temporary files of queries.
const LEFT_OUT_PREFIXES: [&[u8]; 2] = [b"pg_internal.init", b"pgsql_tmp"];

/// `pg_control`: copied by itself, after everything else.
pub const CONTROL: &[u8] = b"global/pg_control";
/// Where the links to tablespaces are.
pub const TABLESPACES: &[u8] = b"pg_tblspc";
/// What `pg_backup_stop` says, stored as files.
pub const BACKUP_LABEL: &[u8] = b"backup_label";
/// See [`BACKUP_LABEL`].
pub const TABLESPACE_MAP: &[u8] = b"tablespace_map";

/// What a server has at the top of its data directory and cannot do without, besides [`EMPTIED`]. Where it is a
/// symbolic link, the server follows it.
const SERVERS_OWN: [&[u8]; 15] = [
    b"PG_VERSION",
    b"base",
    b"global",
    b"pg_commit_ts",
    b"pg_hba.conf",
    b"pg_ident.conf",
    b"pg_logical",
    b"pg_multixact",
    b"pg_stat",
    b"pg_tblspc",
    b"pg_twophase",
    b"pg_xact",
    b"postgresql.auto.conf",
    b"postgresql.conf",
    b"standby.signal",
];

/// Whether something, by its path relative to the data directory, is the server's own: a cluster without it is not
/// whole.
pub fn is_servers_own(path: &[u8]) -> bool {
    SERVERS_OWN.contains(&path.split(|byte| *byte == b'/').next().unwrap_or_default())
}

/// Directories that the server wants in `pg_wal`, which a backup holds without content.
pub fn directories_in_wal(postgres_major: u32) -> &'static [&'static [u8]] {
    if postgres_major >= 17 { &[b"pg_wal/archive_status", b"pg_wal/summaries"] } else { &[b"pg_wal/archive_status"] }
}

/// Whether a directory belongs to a backup only as an empty one. `path` is relative to the data directory.
pub fn is_emptied(path: &[u8]) -> bool {
    EMPTIED.contains(&path)
}

/// Whether something does not belong to a backup because of its own name, wherever it is.
pub fn is_left_out(name: &[u8]) -> bool {
    LEFT_OUT.contains(&name) || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The directory of a tablespace that a server of this version uses: `PG_15_202209061`. Others in it belong to other
/// clusters, or to the one before `pg_upgrade`.
pub fn tablespace_version_directory(postgres_major: u32, catalog_version: u32) -> String {
    format!("PG_{postgres_major}_{catalog_version}")
}

/// Which part of a relation a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The rows.
    Main,
    /// `_fsm`: free space.
    FreeSpaceMap,
    /// `_vm`: visibility.
    VisibilityMap,
    /// `_init`: what an unlogged relation is reset to.
    Init,
}

/// What the name of a relation's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFileName {
    /// `relfilenode`.
    pub number: u32,
    /// Which part.
    pub fork: Fork,
    /// Which gigabyte of it.
    pub segment: u32,
}

impl RelationFileName {
    /// Reads `<number>[_<fork>][.<segment>]`; `None` if it is no such name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (rest, segment) = match name.iter().position(|byte| *byte == b'.') {
            // Without leading zeros: the server makes no others.
            Some(dot) => (name.get(..dot)?, decimal(name.get(dot + 1..)?).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (number, fork) = match rest.iter().position(|byte| *byte == b'_') {
            Some(at) => {
                let fork = match rest.get(at + 1..)? {
                    b"fsm" => Fork::FreeSpaceMap,
                    b"vm" => Fork::VisibilityMap,
                    b"init" => Fork::Init,
                    _ => return None,
                };
                (rest.get(..at)?, fork)
            }
            None => (rest, Fork::Main),
        };
        Some(Self { number: decimal(number).filter(|number| *number > 0)?, fork, segment })
    }
}

/// A number as the server writes it: no sign, no leading zero.
fn decimal(text: &[u8]) -> Option<u32> {
    let canonical = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first().is_some_and(|first| *first != b'0'));
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Whether it is the name of a temporary relation's file: `t<backend>_<number>[_<fork>][.<segment>]`.
pub fn is_temporary_relation(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"t") else { return false };
    let Some(at) = rest.iter().position(|byte| *byte == b'_') else { return false };
    let (Some(backend), Some(relation)) = (rest.get(..at), rest.get(at + 1..)) else { return false };
    !backend.is_empty() && backend.iter().all(u8::is_ascii_digit) && RelationFileName::parse(relation).is_some()
}

/// A directory that holds relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseDirectory {
    /// The tablespace's object id; `None` for `pg_default` and `pg_global`.
    pub tablespace: Option<u32>,
    /// The database's object id; `None` for `global`, whose relations belong to all.
    pub database: Option<u32>,
}

impl DatabaseDirectory {
    /// Reads `global`, `base/<database>` or `pg_tblspc/<tablespace>/PG_…/<database>`; `None` for any other directory.
    pub fn parse(path: &[u8]) -> Option<Self> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        match parts.as_slice() {
            [b"global"] => Some(Self { tablespace: None, database: None }),
            [b"base", database] => Some(Self { tablespace: None, database: Some(decimal(database)?) }),
            [b"pg_tblspc", tablespace, version, database] if version.starts_with(b"PG_") => {
                Some(Self { tablespace: Some(decimal(tablespace)?), database: Some(decimal(database)?) })
            }
            _ => None,
        }
    }

    /// Whether temporary and unlogged relations can be in it.
    pub fn is_of_a_database(&self) -> bool {
        self.database.is_some()
    }
}

/// The relation file that a path relative to the data directory names, with its directory: the files whose pages carry
/// checksums. `PG_VERSION`, `pg_filenode.map`, `pg_control` and everything else outside these directories has no pages.
pub fn relation_file(path: &[u8]) -> Option<(DatabaseDirectory, RelationFileName)> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((DatabaseDirectory::parse(path.get(..slash)?)?, RelationFileName::parse(path.get(slash + 1..)?)?))
}

/// Whether a file of a database's directory can be rebuilt from the init fork of its relation (`unlogged` says whether
/// it has one): the server does so after every crash or restore.
pub fn is_of_unlogged_relation(name: &RelationFileName, unlogged: impl Fn(u32) -> bool) -> bool {
    name.fork != Fork::Init && unlogged(name.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations_are_read() {
        for (name, number, fork, segment) in [
            ("1259", 1259, Fork::Main, 0),
            ("16384.1", 16384, Fork::Main, 1),
            ("16384_fsm", 16384, Fork::FreeSpaceMap, 0),
            ("16384_vm.12", 16384, Fork::VisibilityMap, 12),
            ("4294967295_init", u32::MAX, Fork::Init, 0),
        ] {
            assert_eq!(RelationFileName::parse(name.as_bytes()), Some(RelationFileName { number, fork, segment }), "{name}");
        }
        for name in [
            "",
            "PG_VERSION",
            "pg_filenode.map",
            "0",
            "01",
            "1.",
            "1.0",
            "1.01",
            "1_",
            "1_x",
            "1_fsm_vm",
            "1.1.1",
            "4294967296",
            "+1",
            "t3_1",
            "1 ",
        ] {
            assert_eq!(RelationFileName::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn temporary_relations_are_known() {
        for name in ["t3_16384", "t12_16384_fsm", "t0_1.1"] {
            assert!(is_temporary_relation(name.as_bytes()), "{name}");
        }
        for name in ["t_1", "t3_", "3_1", "t3", "tx_1", "t3_1_x", "", "t"] {
            assert!(!is_temporary_relation(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_relations_where_relations_live_have_pages() {
        let of = |tablespace, database| DatabaseDirectory { tablespace, database };
        for (path, expected) in [
            ("global/1262", Some(of(None, None))),
            ("base/5/1259_fsm", Some(of(None, Some(5)))),
            ("pg_tblspc/16399/PG_15_202209061/5/16401.1", Some(of(Some(16399), Some(5)))),
            ("global/pg_control", None),
            ("base/5/PG_VERSION", None),
            ("base/5/pg_filenode.map", None),
            ("base/5/x/1259", None),
            ("pg_xact/0000", None),
            ("1259", None),
            ("pg_tblspc/16399/other/5/16401", None),
        ] {
            assert_eq!(relation_file(path.as_bytes()).map(|(directory, _)| directory), expected, "{path}");
        }
        assert!(!of(None, None).is_of_a_database());
        assert!(of(None, Some(5)).is_of_a_database());
    }

    #[test]
    fn what_does_not_belong_is_left_out() {
        for name in ["postmaster.pid", "pg_internal.init", "pg_internal.init.4711", "pgsql_tmp", "pgsql_tmp123.4", "backup_label"]
        {
            assert!(is_left_out(name.as_bytes()), "{name}");
        }
        for name in ["PG_VERSION", "postmaster.pid2", "backup_label.old", "pg_internal", "postgresql.auto.conf"] {
            assert!(!is_left_out(name.as_bytes()), "{name}");
        }
        assert!(
            is_servers_own(b"base/5/1259")
                && is_servers_own(b"pg_xact")
                && !is_servers_own(b"log/x")
                && !is_servers_own(b"basement")
        );
        assert!(is_emptied(b"pg_replslot") && !is_emptied(b"pg_replslot/x") && !is_emptied(b"pg_xact"));
        let init = RelationFileName::parse(b"7_init").unwrap();
        let main = RelationFileName::parse(b"7.1").unwrap();
        assert!(is_of_unlogged_relation(&main, |number| number == 7));
        assert!(!is_of_unlogged_relation(&init, |_| true));
        assert_eq!(tablespace_version_directory(15, 202_209_061), "PG_15_202209061");
    }
}
