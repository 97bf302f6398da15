//! From the arguments of `resolve`, and from the target that other commands take too, to a request.

use crate::cli::args::{ResolveArgs, TargetArgs, TargetWord, ZoneArg};
use crate::config::{Config, parse_period};
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::pg::Lsn;
use crate::pg::scan::{RestorePointName, Xid};
use crate::pg::target::{InvalidTarget, Target, TargetTimeline, Zone, now, parse_time, stated_zone};
use crate::recovery::ResolveRequest;
use crate::repo::SystemId;
use std::time::Duration;

pub(in crate::cli) fn resolve(args: &ResolveArgs, config: &Config) -> Result<ResolveRequest, Error> {
    let from = args.from.as_deref().map(lsn).transpose()?;
    Ok(ResolveRequest { from, ..target(&args.target, config)? })
}

/// A target, and from which backup.
pub(in crate::cli) fn target(args: &TargetArgs, config: &Config) -> Result<ResolveRequest, Error> {
    let zone = zone(&args.zone, config)?;
    let target =
        if let Some(text) = &args.target_time {
            Target::Time(parse_time(text, zone.as_ref(), now()).map_err(invalid)?)
        } else if let Some(text) = &args.target_lsn {
            Target::Lsn(lsn(text)?)
        } else if let Some(text) = &args.target_xid {
            Target::Xid(Xid::parse(text).map_err(invalid)?)
        } else if let Some(text) = &args.target_name {
            // The server keeps one byte for the end.
            let name =
                RestorePointName::new(text.as_bytes()).filter(|_| text.len() < RestorePointName::MAX_BYTES && !text.is_empty());
            Target::Name(name.ok_or_else(|| {
                usage(format!("{text:?} is not the name of a restore point")).hint("such names have 1 to 63 bytes")
            })?)
        } else {
            match args.target {
                Some(TargetWord::Immediate) => Target::Immediate,
                Some(TargetWord::Latest) | None => Target::Latest,
            }
        };
    Ok(ResolveRequest {
        target,
        inclusive: !args.exclusive,
        timeline: timeline(args.target_timeline.as_deref())?,
        from: None,
        backup: args.backup.as_deref().map(backup).transpose()?,
        system_id: args.system_id.map(SystemId),
        zone: shown_in(zone, args.target_time.as_deref()),
    })
}

pub(super) fn backup(text: &str) -> Result<BackupId, Error> {
    BackupId::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is not the id of a backup")).hint("such ids look like 20261121T061500Z-1a2b3c4d"))
}

pub(super) fn timeline(text: Option<&str>) -> Result<Option<TargetTimeline>, Error> {
    text.map(|text| TargetTimeline::parse(text).map_err(invalid)).transpose()
}

/// The zone of times without one, if anything says which.
pub(super) fn zone(arg: &ZoneArg, config: &Config) -> Result<Option<Zone>, Error> {
    match &arg.zone {
        Some(text) => Zone::parse(text).map(Some).map_err(invalid),
        None => Ok(config.zone.clone()),
    }
}

/// The zone in which moments are shown: as for times without one, else that of the time which was given, so that it is
/// recognized.
pub(super) fn shown_in(zone: Option<Zone>, given: Option<&str>) -> Zone {
    zone.or_else(|| given.and_then(stated_zone)).unwrap_or_else(Zone::utc)
}

fn lsn(text: &str) -> Result<Lsn, Error> {
    text.parse().map_err(|e| usage(format!("{e}")).hint("two hexadecimal numbers with a slash between"))
}

/// A time span.
pub(super) fn period(text: &str) -> Result<Duration, Error> {
    parse_period(text).ok_or_else(|| usage(format!("{text:?} is no period")).hint("write a number and a unit: 7d, 24h, 4w"))
}

pub(super) fn usage(what: String) -> Error {
    Error::new(Kind::Usage, what)
}

pub(super) fn invalid(error: InvalidTarget) -> Error {
    usage(error.what).hint(error.hint)
}
