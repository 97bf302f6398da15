//! What is stored after all other files: `pg_control`, what the server says when the backup ends, and the files outside
//! the data directory that its settings name.

use crate::backup::attachments::{self, Named};
use crate::backup::context::BackupContext;
use crate::backup::copy_jobs::PackBytes;
use crate::backup::file_copier::FileCopier;
use crate::backup::file_list;
use crate::backup::manifest_builder::ManifestBuilder;
use crate::backup::parent::ParentHead;
use crate::backup::source::{Source, Stopped};
use crate::error::{Error, Kind};
use crate::format::manifest::{Attachment, FileEntry};
use crate::fsio::{self, Attributes, file_error};
use crate::pg::data_directory::{BACKUP_LABEL, CONTROL, TABLESPACE_MAP};
use crate::raw_text::RawText;

/// `pg_control`, read until its checksum fits, after everything else: on a standby it says how far recovery has to
/// come.
///
/// # Errors
/// [`Kind::Config`] when it cannot be read; as the store's.
pub(crate) fn store_control_file(source: &Source<'_>, files: &mut FileCopier<'_, '_>) -> Result<(FileEntry, PackBytes), Error> {
    let found = source.control_bytes()?;
    let path = file_list::real(&source.data_directory, CONTROL);
    let attributes = fsio::attributes(&path).map_err(|e| file_error(Kind::Config, e))?;
    let (Some((_, bytes)), Some(attributes)) = (found, attributes) else {
        return Err(Error::new(Kind::Config, format!("{} is gone", path.display())));
    };
    files.content(CONTROL, &attributes, &bytes)
}

/// What the server says at the end, as the files that recovery wants.
///
/// # Errors
/// [`Kind::Config`] when the data directory cannot be looked at; as the store's.
pub(crate) fn store_label_files(
    source: &Source<'_>,
    files: &mut FileCopier<'_, '_>,
    stopped: &Stopped,
) -> Result<Vec<(FileEntry, PackBytes)>, Error> {
    let directory = fsio::attributes(&source.data_directory).map_err(|e| file_error(Kind::Config, e))?;
    let Some(directory) = directory else {
        return Err(Error::new(Kind::Config, format!("{} is gone", source.data_directory.display())));
    };
    // As the server would: its group may read if it may read the directory.
    let mode = if directory.mode & 0o040 == 0 { 0o600 } else { 0o640 };
    let modified_unix_us = jiff::Timestamp::now().as_microsecond();
    let attributes = Attributes { mode, modified_unix_us, ..directory };
    let mut stored = vec![files.content(BACKUP_LABEL, &attributes, &stopped.label_file)?];
    if !stopped.map_file.is_empty() {
        stored.push(files.content(TABLESPACE_MAP, &attributes, &stopped.map_file)?);
    }
    Ok(stored)
}

/// Stores the files outside the data directory that the server's settings name. One that cannot be read is a warning:
/// the cluster is whole without it.
///
/// # Errors
/// As the store's.
pub(crate) fn store_attachments(
    backup: &BackupContext<'_>,
    files: &mut FileCopier<'_, '_>,
    named: &Named,
    parent: Option<&ParentHead>,
    manifest: &mut ManifestBuilder<'_>,
) -> Result<Vec<Attachment>, Error> {
    let owner = attachments::owner_of(&backup.source.data_directory)?;
    let mut attached = Vec::new();
    for file in &named.outside {
        (backup.hooks.go_on)()?;
        match attachments::read(file, owner) {
            Ok(read) => {
                let path = RawText::from(file.path.as_path());
                let known = parent.and_then(|parent| parent.attachments.iter().find(|known| known.path == path));
                let known = known.map_or(&[][..], |known| &known.extents);
                let (attachment, uses) = files.attach(path, file.setting, &read.attributes, &read.content, known)?;
                manifest.count_attachment(&uses);
                attached.push(attachment);
            }
            Err(warning) => manifest.warn(warning),
        }
    }
    Ok(attached)
}
