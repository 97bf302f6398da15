//! Versions of deleted objects: finding them, and removing them for good.
//!
//! A version is removed by its own id, so that an object which was created anew meanwhile stays. Marks go last, and
//! only where no version is left that they hide.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;

use super::bucket::{Bucket, OTHER_LISTING};
use super::delete::{Target, remove};
use super::errors::Failure;
use crate::limits::MAX_HIDDEN_VERSIONS;
use crate::store::{Deleted, ErrorKind, Hidden, Key};

/// What is known of the versions of an object.
#[derive(Default)]
struct Versions {
    versions: Vec<(String, u64)>,
    marks: Vec<String>,
    is_deleted: bool,
    is_cut: bool,
}

/// Visits deleted objects that have versions.
pub(super) fn hidden(
    bucket: &Bucket,
    prefix: &str,
    after: &str,
    visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let s = bucket.engine.settings();
    let full_prefix = s.full(prefix);
    let mut place = ((!after.is_empty()).then(|| s.full(after)), None);
    let mut objects: BTreeMap<String, Versions> = BTreeMap::new();
    loop {
        let page = page(bucket, &full_prefix, &place)?;
        add(&mut objects, &page)?;
        let is_last = page.is_truncated() != Some(true);
        // The next page may go on with the last object.
        let unfinished = if is_last { None } else { objects.pop_last() };
        for (name, versions) in std::mem::take(&mut objects) {
            if show(bucket, name, versions, visit).is_break() {
                return Ok(());
            }
        }
        if let Some((name, mut versions)) = unfinished {
            if versions.versions.len() + versions.marks.len() > MAX_HIDDEN_VERSIONS {
                versions.is_cut = true;
                let some = Versions { versions: std::mem::take(&mut versions.versions), ..versions };
                versions = Versions { is_deleted: some.is_deleted, is_cut: true, ..Versions::default() };
                if show(bucket, name.clone(), some, visit).is_break() {
                    return Ok(());
                }
            }
            objects.insert(name, versions);
        }
        let next = (page.next_key_marker, page.next_version_id_marker.filter(|id| !id.is_empty()));
        if is_last {
            return Ok(());
        }
        if next == place || next.0.is_none() {
            return Err(Failure::new(ErrorKind::BadAnswer, "the listing of versions goes on where it began")
                .hint(OTHER_LISTING)
                .permanently());
        }
        place = next;
    }
}

fn page(
    bucket: &Bucket,
    prefix: &str,
    (key, version): &(Option<String>, Option<String>),
) -> Result<ListObjectVersionsOutput, Failure> {
    let s = bucket.engine.settings();
    let page = bucket.engine.call(|client| {
        client
            .list_object_versions()
            .bucket(&s.bucket)
            .prefix(prefix)
            .set_key_marker(key.clone())
            .set_version_id_marker(version.clone())
            .send()
    })?;
    if page.name().is_none() || page.is_truncated().is_none() {
        return Err(Failure::new(ErrorKind::BadAnswer, "the answer is no listing of versions"));
    }
    Ok(page)
}

/// Adds what a page shows.
fn add(objects: &mut BTreeMap<String, Versions>, page: &ListObjectVersionsOutput) -> Result<(), Failure> {
    let nameless = || Failure::new(ErrorKind::BadAnswer, "the listing holds a version without a name");
    for version in page.versions() {
        let (name, id) = version.key().zip(version.version_id()).ok_or_else(nameless)?;
        let bytes = version.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        objects.entry(name.to_owned()).or_default().versions.push((id.to_owned(), bytes));
    }
    for mark in page.delete_markers() {
        let (name, id) = mark.key().zip(mark.version_id()).ok_or_else(nameless)?;
        let object = objects.entry(name.to_owned()).or_default();
        object.marks.push(id.to_owned());
        object.is_deleted |= mark.is_latest() == Some(true);
    }
    Ok(())
}

/// Shows an object if it is deleted.
fn show(bucket: &Bucket, name: String, versions: Versions, visit: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> ControlFlow<()> {
    let key = bucket.engine.settings().relative(&name).and_then(|key| Key::new(key).ok());
    match key {
        Some(key) if versions.is_deleted => {
            let Versions { versions, marks, is_cut, .. } = versions;
            visit(Hidden { key, versions, marks, is_whole: !is_cut })
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Removes versions, and then the marks of objects that have none left.
pub(super) fn purge(bucket: &Bucket, hidden: &[Hidden]) -> Result<Vec<Deleted>, Failure> {
    let s = bucket.engine.settings();
    let targets = |of: &Hidden, ids: &mut dyn Iterator<Item = &String>| {
        let name = s.full(of.key.as_str());
        ids.map(|id| Target { name: name.clone(), version: Some(id.clone()) }).collect::<Vec<_>>()
    };
    let versions: Vec<Vec<Target>> = hidden.iter().map(|of| targets(of, &mut of.versions.iter().map(|(id, _)| id))).collect();
    let mut outcomes = outcomes(bucket, &versions)?;
    let marks: Vec<Vec<Target>> = hidden
        .iter()
        .zip(&outcomes)
        .map(|(of, outcome)| match outcome {
            Deleted::Gone if of.is_whole => targets(of, &mut of.marks.iter()),
            _ => Vec::new(),
        })
        .collect();
    for (outcome, of_marks) in outcomes.iter_mut().zip(self::outcomes(bucket, &marks)?) {
        if *outcome == Deleted::Gone {
            *outcome = of_marks;
        }
    }
    Ok(outcomes)
}

/// Removes the versions of each object; the outcome of each is the worst of its versions'.
fn outcomes(bucket: &Bucket, objects: &[Vec<Target>]) -> Result<Vec<Deleted>, Failure> {
    let all: Vec<Target> = objects.iter().flatten().cloned().collect();
    let mut removed = remove(bucket, &all)?.into_iter();
    Ok(objects.iter().map(|targets| removed.by_ref().take(targets.len()).fold(Deleted::Gone, worse)).collect())
}

fn worse(a: Deleted, b: Deleted) -> Deleted {
    match (a, b) {
        (Deleted::Denied(why), _) | (_, Deleted::Denied(why)) => Deleted::Denied(why),
        (Deleted::Held { until_unix_s: a }, Deleted::Held { until_unix_s: b }) => {
            // Unknown is longer than anything that is known.
            Deleted::Held { until_unix_s: a.zip(b).map(|(a, b)| a.max(b)) }
        }
        (held @ Deleted::Held { .. }, Deleted::Gone) | (Deleted::Gone, held) => held,
    }
}
