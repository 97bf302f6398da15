//! From the arguments of `verify` to a request.

use super::target::period;
use crate::cli::args::VerifyArgs;
use crate::error::Error;
use crate::ops::verify::VerifyRequest;
use crate::verify::Look;

pub(in crate::cli) fn request(args: &VerifyArgs) -> Result<VerifyRequest, Error> {
    let look = match &args.rolling {
        Some(text) => Look::Rolling(period(text)?),
        None if args.quick => Look::Quick,
        None => Look::Full,
    };
    Ok(VerifyRequest { look, jobs: args.jobs.map(usize::from), max_rate_mib_per_s: args.max_rate.map(u64::from) })
}
