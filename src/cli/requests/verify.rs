//! From the arguments of `verify` to a request.

use crate::cli::args::VerifyArgs;
use crate::ops::verify::VerifyRequest;
use crate::report::verify::VerificationKind;

pub(in crate::cli) fn request(args: &VerifyArgs) -> VerifyRequest {
    VerifyRequest {
        kind: if args.quick { VerificationKind::Quick } else { VerificationKind::Full },
        jobs: args.jobs.map(usize::from),
        max_rate_mib_per_s: args.max_rate.map(u64::from),
    }
}
