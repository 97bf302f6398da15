//! From the arguments of `expire` to options.

use super::target::backup;
use crate::cli::args::ExpireArgs;
use crate::error::Error;
use crate::ops::expire::ExpireOptions;

pub(in crate::cli) fn options(args: &ExpireArgs) -> Result<ExpireOptions, Error> {
    let give_up = args.give_up.iter().map(|id| backup(id)).collect::<Result<_, _>>()?;
    Ok(ExpireOptions { confirm: args.confirm, purge_versions: args.purge_versions, give_up })
}
