//! `walvis check --policies`: policies for the credentials that the repositories are used with, and for their buckets.
//! Nothing is asked of a store.

use crate::config::Config;
use crate::error::{Error, Kind};
use crate::report::policies::PoliciesReport;
use crate::store::policies::Policies;

/// Makes the policies of all configured repositories that can have any.
///
/// # Errors
/// [`Kind::Usage`] where none can.
pub fn run(config: &Config) -> Result<Vec<PoliciesReport>, Error> {
    let reports: Vec<PoliciesReport> = config
        .repositories
        .iter()
        .filter_map(|repository| {
            let Policies { writing_host, expiring_host, purging_host, bucket, notes } = repository.store.policies()?;
            let repository = repository.store.location();
            Some(PoliciesReport { repository, writing_host, expiring_host, purging_host, bucket, notes })
        })
        .collect();
    if reports.is_empty() {
        return Err(Error::new(Kind::Usage, "no repository is in S3, and a directory has no policies").hint(
            "who can delete in a directory is a matter of its owner and mode; for S3 say --repository s3://BUCKET/PREFIX",
        ));
    }
    Ok(reports)
}
