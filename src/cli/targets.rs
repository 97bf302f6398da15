//! From the arguments of `resolve`, `catalog` and `base-backup` to requests.
use super::args::{BackupArgs, CatalogArgs, ResolveArgs, TargetArgs, TargetWord, ZoneArg};
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::ops::base_backup::BackupRequest;
use crate::ops::catalog::{Bound, CatalogRequest, List};
use crate::pg::Lsn;
use crate::pg::scan::{RestorePointName, Xid};
use crate::pg::target::{InvalidTarget, Target, TargetTimeline, Zone, now, parse_time, stated_zone};
use crate::recovery::ResolveRequest;
use crate::repo::SystemId;
use std::collections::BTreeMap;

pub(super) fn resolve(args: &ResolveArgs, config: &Config) -> Result<ResolveRequest, Error> {
    let from = args.from.as_deref().map(lsn).transpose()?;
    Ok(ResolveRequest { from, ..target(&args.target, config)? })
}

/// A target, and from which backup.
pub(super) fn target(args: &TargetArgs, config: &Config) -> Result<ResolveRequest, Error> {
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

fn backup(text: &str) -> Result<BackupId, Error> {
    BackupId::parse(text)
        .ok_or_else(|| usage(format!("{text:?} is not the id of a backup")).hint("such ids look like 20261121T061500Z-1a2b3c4d"))
}

pub(super) fn catalog(args: &CatalogArgs, config: &Config) -> Result<CatalogRequest, Error> {
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

pub(super) fn base_backup(args: &BackupArgs) -> Result<BackupRequest, Error> {
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
        annotations,
        primary: args.primary.clone(),
    })
}

fn timeline(text: Option<&str>) -> Result<Option<TargetTimeline>, Error> {
    text.map(|text| TargetTimeline::parse(text).map_err(invalid)).transpose()
}

/// The zone of times without one, if anything says which.
fn zone(arg: &ZoneArg, config: &Config) -> Result<Option<Zone>, Error> {
    match &arg.zone {
        Some(text) => Zone::parse(text).map(Some).map_err(invalid),
        None => Ok(config.zone.clone()),
    }
}

/// The zone in which moments are shown: as for times without one, else that of the time which was given, so that it is
/// recognized.
fn shown_in(zone: Option<Zone>, given: Option<&str>) -> Zone {
    zone.or_else(|| given.and_then(stated_zone)).unwrap_or_else(Zone::utc)
}

fn lsn(text: &str) -> Result<Lsn, Error> {
    text.parse().map_err(|e| usage(format!("{e}")).hint("two hexadecimal numbers with a slash between"))
}

fn usage(what: String) -> Error {
    Error::new(Kind::Usage, what)
}

fn invalid(error: InvalidTarget) -> Error {
    usage(error.what).hint(error.hint)
}
