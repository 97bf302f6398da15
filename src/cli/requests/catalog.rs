//! From the arguments of `catalog` to a request.

use super::target::{invalid, shown_in, timeline, usage, zone};
use crate::cli::args::CatalogArgs;
use crate::config::Config;
use crate::error::Error;
use crate::ops::catalog::{Bound, CatalogRequest, List};
use crate::pg::Lsn;
use crate::pg::target::{TargetTimeline, now, parse_time};
use crate::repo::SystemId;

pub(in crate::cli) fn request(args: &CatalogArgs, config: &Config) -> Result<CatalogRequest, Error> {
    let zone = zone(&args.zone, config)?;
    let bound = |text: &String| match text.parse::<Lsn>() {
        Ok(lsn) => Ok(Bound::Lsn(lsn)),
        Err(_) => parse_time(text, zone.as_ref(), now()).map(Bound::Time).map_err(invalid),
    };
    let (from, to) = (args.from.as_ref().map(bound).transpose()?, args.to.as_ref().map(bound).transpose()?);
    let list = match (args.commits, args.restore_points) {
        (true, _) => Some(List::Commits),
        (_, true) => Some(List::RestorePoints),
        _ => None,
    };
    let timeline = timeline(args.timeline.as_deref())?;
    if list.is_none() && (from.is_some() || to.is_some() || args.timeline.is_some() || args.system_id.is_some()) {
        return Err(usage("--from, --to, --timeline and --system-id choose what is listed".to_owned())
            .hint("add --commits or --restore-points"));
    }
    if timeline == Some(TargetTimeline::Current) {
        return Err(usage("no recovery starts here, so no timeline is current".to_owned()).hint("write latest, or a number"));
    }
    let zone = shown_in(zone, args.from.as_deref().or(args.to.as_deref()));
    Ok(CatalogRequest { list, from, to, timeline, system_id: args.system_id.map(SystemId), zone })
}
