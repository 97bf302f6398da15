//! From the arguments of `base-backup` to a request.

use super::target::{period, usage};
use crate::cli::args::BackupArgs;
use crate::error::Error;
use crate::ops::base_backup::BackupRequest;
use std::collections::BTreeMap;

pub(in crate::cli) fn request(args: &BackupArgs) -> Result<BackupRequest, Error> {
    let mut annotations = BTreeMap::new();
    for text in &args.annotate {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(usage(format!("{text:?} is no annotation")).hint("write --annotate key=value"));
        };
        if annotations.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("annotation {key} is given twice")).hint("give each key one value"));
        }
    }
    Ok(BackupRequest {
        pgdata: args.pgdata.clone(),
        label: args.label.clone(),
        fast: args.fast,
        jobs: args.jobs.map(usize::from),
        max_rate_mib_per_s: args.max_rate.map(u64::from),
        read_all: args.read_all,
        verify_pages: args.verify_pages.as_deref().map(period).transpose()?,
        annotations,
        primary: args.primary.clone(),
    })
}
