//! Copying all files of a cluster: the list is dealt out to workers, and what they did becomes the manifest, in the
//! order of the list.
//!
//! At most [`COPY_JOBS_AHEAD`] results wait for an earlier one: a large piece does not let memory grow.

use crate::backup::copy_jobs::{BatchItem, CopyJob, LargeFile, ParentPiece};
use crate::backup::file_copier::{CopyContext, FileCopier};
use crate::backup::file_list::{FileList, Listed};
use crate::backup::manifest_builder::ManifestBuilder;
use crate::backup::parent::ParentFiles;
use crate::error::Error;
use crate::format::extent::tables_in;
use crate::limits::{COPY_BATCH_BYTES, COPY_BATCH_ITEMS, COPY_JOBS_AHEAD, COPY_LOOK_EVERY, FILE_PIECE_BYTES};
use crate::repo::backups::PackWriter;
use crate::threads::{Feed, Order, in_order};
use std::sync::Arc;

/// Copies everything on the list; one worker for each of `writers`. `go_on` is asked several times a second whether to
/// go on.
///
/// # Errors
/// The first of any worker, of `go_on`, or of `manifest`.
pub(crate) fn copy_files<'a>(
    context: &'a CopyContext<'a>,
    list: &FileList,
    parent: Option<ParentFiles>,
    writers: Vec<PackWriter<'a>>,
    manifest: &mut ManifestBuilder<'_>,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let workers = writers.into_iter().map(|packs| FileCopier::new(context, packs)).collect();
    let order = Order { window: COPY_JOBS_AHEAD, tick: COPY_LOOK_EVERY };
    in_order(workers, order, &context.stop, |jobs| deal_out(list, parent, jobs), |result| manifest.take(result), go_on)
}

/// Deals out the list.
fn deal_out(list: &FileList, mut parent: Option<ParentFiles>, jobs: &mut Feed<'_, CopyJob>) -> Result<(), Error> {
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    for listed in list.iter() {
        match listed {
            Listed::Directory(entry) => batch.push(BatchItem::Directory(entry)),
            Listed::File(path, size_bytes) => {
                let known = parent.as_mut().map_or(Ok(None), |parent| parent.find(&path))?;
                if size_bytes <= FILE_PIECE_BYTES {
                    batch.push(BatchItem::File(path, ParentPiece::of(known.as_ref(), 0)));
                    batch_bytes += size_bytes;
                } else {
                    if !batch.is_empty() {
                        jobs.send(CopyJob::Batch(std::mem::take(&mut batch)))?;
                    }
                    batch_bytes = 0;
                    let file = Arc::new(LargeFile::new(path, size_bytes));
                    for index in 0..tables_in(size_bytes) {
                        let known = ParentPiece::of(known.as_ref(), index as usize);
                        jobs.send(CopyJob::Piece(Arc::clone(&file), index, known))?;
                    }
                }
            }
        }
        if batch.len() >= COPY_BATCH_ITEMS || batch_bytes >= COPY_BATCH_BYTES {
            batch_bytes = 0;
            jobs.send(CopyJob::Batch(std::mem::take(&mut batch)))?;
        }
    }
    if !batch.is_empty() {
        jobs.send(CopyJob::Batch(batch))?;
    }
    Ok(())
}
