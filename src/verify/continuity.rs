//! Whether each segment follows its neighbour: segments come in the order of their names, and of each what a scan of it
//! found.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::known::Known;
use super::lines::SegmentRun;
use super::quick::{segment, stopped};
use crate::pg::scan::{Break, Chain, End, Summary};
use crate::pg::{SegmentName, Timeline};

/// Follows the log of each timeline.
pub(super) struct Continuity {
    /// The segment before, if it is the last that came.
    last: Option<Last>,
    /// Of timelines, which segment of which other one is before their first.
    forks: BTreeMap<(Timeline, u64), (Timeline, u64)>,
    /// What was found in the segments that children follow.
    parents: BTreeMap<(Timeline, u64), Arc<Summary>>,
}

struct Last {
    timeline: Timeline,
    number: u64,
    chain: Chain,
    summary: Arc<Summary>,
}

impl Continuity {
    /// Of the timelines that are known.
    pub(super) fn of(known: &Known<'_>) -> Self {
        let bytes = known.facts.wal_segment_size.bytes();
        let mut forks = BTreeMap::new();
        for line in &known.lines {
            for (at, leg) in line.legs.iter().enumerate().skip(1) {
                let first = leg.begin.0 / bytes;
                let Some(before) = first.checked_sub(1) else { continue };
                let parent = line.legs.get(..at).and_then(|legs| legs.iter().rev().find(|leg| leg.begin.0 / bytes <= before));
                if let Some(parent) = parent {
                    forks.insert((leg.timeline, first), (parent.timeline, before));
                }
            }
        }
        Self { last: None, forks, parents: BTreeMap::new() }
    }

    /// Whether a segment is to be held against the one before it although that does not come: it was not read.
    pub(super) fn needs(&self, timeline: Timeline, number: u64) -> Option<(Timeline, u64)> {
        if self.last.as_ref().is_some_and(|last| last.timeline == timeline && last.number.checked_add(1) == Some(number)) {
            return None;
        }
        match self.forks.get(&(timeline, number)) {
            Some(parent) if self.parents.contains_key(parent) => None,
            Some(parent) => Some(*parent),
            None => number.checked_sub(1).map(|before| (timeline, before)),
        }
    }

    /// What is stored of a segment that was not read, for the one after it.
    pub(super) fn learn(&mut self, (timeline, number): (Timeline, u64), summary: Summary) {
        let summary = Arc::new(summary);
        if self.forks.values().any(|parent| *parent == (timeline, number)) {
            self.parents.insert((timeline, number), Arc::clone(&summary));
        }
        self.last = begin(&summary).map(|chain| Last { timeline, number, chain, summary });
    }

    /// Takes the next segment. `None` as its summary: it is damaged, and nothing is known of it.
    pub(super) fn take(&mut self, known: &Known<'_>, name: SegmentName, summary: Option<Arc<Summary>>) -> Option<Fault> {
        let number = name.number(known.facts.wal_segment_size)?;
        let Some(summary) = summary else {
            self.last = None;
            return None;
        };
        let timeline = name.timeline;
        let before = self.last.take().filter(|last| last.timeline == timeline && last.number.checked_add(1) == Some(number));
        let before = before.or_else(|| {
            let (timeline, number) = *self.forks.get(&(timeline, number))?;
            let summary = self.parents.get(&(timeline, number))?;
            Some(Last { timeline, number, chain: begin(summary)?, summary: Arc::clone(summary) })
        });
        let mut fault = None;
        let chain = match before {
            None => begin(&summary),
            Some(mut last) => match last.chain.push(&summary, &mut ()) {
                Ok(()) => Some(last.chain),
                Err(Break::Ended) => {
                    let name = SegmentName::from_number(last.timeline, last.number, known.facts.wal_segment_size);
                    fault = name.map(|name| stopped(known, name, last.summary.good_until(), &why(&last.summary)));
                    begin(&summary)
                }
                Err(broken) => {
                    fault = Some(does_not_follow(known, name, number, broken));
                    begin(&summary)
                }
            },
        };
        if self.forks.values().any(|parent| *parent == (timeline, number)) {
            self.parents.insert((timeline, number), Arc::clone(&summary));
        }
        self.last = chain.map(|chain| Last { timeline, number, chain, summary });
        fault
    }
}

fn begin(summary: &Summary) -> Option<Chain> {
    let mut chain = Chain::new();
    // The first of a chain is always accepted.
    chain.push(summary, &mut ()).is_ok().then_some(chain)
}

fn why(summary: &Summary) -> String {
    match &summary.end {
        End::Damaged(damage) => damage.to_string(),
        _ => "the log has an end there, and more is stored".to_owned(),
    }
}

/// A segment is whole, and does not follow the one before it.
fn does_not_follow(known: &Known<'_>, name: SegmentName, number: u64, broken: Break) -> Fault {
    let run = SegmentRun { timeline: name.timeline, first: number, last: number };
    let begin = run.positions(known.facts.wal_segment_size).0;
    let subject = Subject::Object(segment(known, name));
    let fault =
        Fault::new(subject, Problem::RecoveryStops, format!("it does not follow the segment before: {broken}"), known.wants(run));
    fault.harming(super::costs::Harm { holes: vec![(name.timeline, (begin, begin))], ..Default::default() })
}
