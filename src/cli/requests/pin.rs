//! From the arguments of `pin` and `unpin` to requests.

use super::target::{backup, invalid, usage, zone};
use crate::cli::args::{PinArgs, UnpinArgs};
use crate::config::Config;
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::ops::pin::PinRequest;
use crate::pg::target::{now, parse_time};

pub(in crate::cli) fn request(args: &PinArgs, config: &Config) -> Result<PinRequest, Error> {
    let zone = zone(&args.zone, config)?;
    let until = args.until.as_deref().map(|text| parse_time(text, zone.as_ref(), now()).map_err(invalid)).transpose()?;
    let until_unix_s = match until.map(|until| until.unix_us()) {
        None => None,
        Some(Some(unix_us)) => Some(unix_us.div_euclid(1_000_000)),
        Some(None) => {
            return Err(usage("the time of --until is too far away".to_owned()).hint("without --until the pin has no end"));
        }
    };
    Ok(PinRequest { backup: backup(&args.backup)?, reason: args.reason.clone(), until_unix_s })
}

pub(in crate::cli) fn unpinned(args: &UnpinArgs) -> Result<BackupId, Error> {
    backup(&args.backup)
}
