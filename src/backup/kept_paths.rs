//! Which of the files that were copied belong to the backup: a tablespace that was made after it began is in the log
//! from its first byte, and replay fails if the backup has its link already.

use crate::backup::file_list;
use crate::backup::source::{Source, Stopped};
use crate::error::{Error, Kind};
use crate::format::manifest::Tablespace;
use crate::fsio::{self, file_error};
use crate::pg::TablespaceMap;
use crate::pg::data_directory::TABLESPACES;
use std::collections::HashSet;
use std::os::unix::ffi::OsStringExt;

/// Says of each path whether it belongs to the backup.
pub(crate) struct KeptPaths {
    map: TablespaceMap,
    known: HashSet<Vec<u8>>,
    links: HashSet<Vec<u8>>,
}

impl KeptPaths {
    /// Of a backup that ended on the server just now: which tablespaces are links has to be known of this moment.
    ///
    /// # Errors
    /// [`Kind::Server`] when the server's `tablespace_map` makes no sense; [`Kind::Config`] for local files.
    pub(crate) fn of(source: &Source<'_>, stopped: &Stopped) -> Result<Self, Error> {
        let map = TablespaceMap::parse(&stopped.map_file)
            .ok_or_else(|| Error::new(Kind::Server, "the server's tablespace_map makes no sense"))?;
        let known = map.entries.iter().map(|(oid, _)| oid.clone()).collect();
        Ok(Self { map, known, links: linked_tablespaces(source)? })
    }

    /// Whether this path belongs to the backup.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(TABLESPACES).and_then(|rest| rest.strip_prefix(b"/")) else { return true };
        let oid = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
        self.known.contains(oid) || !self.links.contains(oid)
    }

    /// The tablespaces of the backup.
    pub(crate) fn tablespaces(&self) -> Vec<Tablespace> {
        let entry = |(oid, path): &(Vec<u8>, Vec<u8>)| {
            Some(Tablespace { oid: std::str::from_utf8(oid).ok()?.parse().ok()?, path: path.clone().into() })
        };
        self.map.entries.iter().filter_map(entry).collect()
    }
}

/// Names of the links to tablespaces as they are now; what is no link is a tablespace in place.
fn linked_tablespaces(source: &Source<'_>) -> Result<HashSet<Vec<u8>>, Error> {
    let path = file_list::real(&source.data_directory, TABLESPACES);
    let config = |e| file_error(Kind::Config, e);
    let Some(found) = fsio::scan_live(&path).map_err(config)? else { return Ok(HashSet::new()) };
    Ok(found.links().map_err(config)?.into_iter().map(OsStringExt::into_vec).collect())
}
