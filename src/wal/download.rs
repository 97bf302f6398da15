//! One WAL file from one repository to a file on this host.
//!
//! Lives here: which system identifier to take it from, and the download. May not live here: which repository is asked,
//! and what an answer means to the server ([`ask`](crate::wal::ask)).
//!
//! The file has its name only after all of it was authenticated and checked once more against its name and cluster.

use crate::error::{Error, Kind};
use crate::fsio::{AtomicFile, Durability, FsError};
use crate::pg::{SegmentHead, WalFileName};
use crate::repo::{ClusterName, Facts, Fetched, Repository, StoredName};
use crate::wal::destination::{begin, destination_error};
use std::io::{self, Write};
use std::path::Path;

/// Downloads a file. It is at its destination only if it was served, whole and authenticated.
///
/// # Errors
/// [`Kind::Config`]: the destination cannot be written; [`Kind::Damaged`]: the file is not what its name says; as the
/// store's.
pub fn download(
    opened: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    name: impl Into<StoredName>,
    destination: &Path,
) -> Result<Fetched, Error> {
    download_if(opened, cluster, facts, name, destination, || true)
}

/// As [`download`], but once the file is whole it gets its name only if it still may.
///
/// # Errors
/// As [`download`]; [`Kind::Config`] when it may not.
pub fn download_if(
    opened: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    name: impl Into<StoredName>,
    destination: &Path,
    may_publish: impl Fn() -> bool,
) -> Result<Fetched, Error> {
    let name = name.into();
    let mut output = Output { file: begin(destination)?, head: SegmentHead::default(), failure: None };
    let fetched = opened.get_stored(cluster, facts, name, &mut output);
    if let Some(error) = output.failure {
        return Err(destination_error(error));
    }
    let fetched = fetched?;
    if let Fetched::Served(metadata) = &fetched {
        check(&name.file, facts, &output.head, metadata.plaintext_bytes, opened)?;
        if !may_publish() {
            return Err(Error::new(Kind::Config, format!("{} is not wanted any more", destination.display())));
        }
        // It can be fetched again: whole or absent is enough, surviving a power failure is not needed.
        output.file.publish_over(Durability::Volatile).map_err(destination_error)?;
    }
    Ok(fetched)
}

/// The content is authentic; this catches a file that was stored wrongly by whatever means.
fn check(name: &WalFileName, facts: Facts, head: &SegmentHead, bytes: u64, opened: &Repository) -> Result<(), Error> {
    let WalFileName::Segment(segment) = name else { return Ok(()) };
    let wrong = |why: String| {
        Err(Error::new(Kind::Damaged, format!("{name} in {} is not what its name says: {why}", opened.location()))
            .hint("take this file from another repository or copy"))
    };
    match head.check(*segment, bytes) {
        Err(e) => wrong(e.to_string()),
        Ok(page) if page.system_id != facts.system_id.0 => wrong(format!("it is of system identifier {}", page.system_id)),
        Ok(page) if page.segment_size != facts.wal_segment_size => wrong(format!("it has {bytes} bytes")),
        Ok(_) => Ok(()),
    }
}

/// Writes the temp file, keeps the first bytes, and remembers a local failure apart from the store's.
struct Output {
    file: AtomicFile,
    head: SegmentHead,
    failure: Option<FsError>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.head.add(bytes);
        match self.file.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the destination cannot be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
