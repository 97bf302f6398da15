//! `walvis list`: what the repositories hold. Reads names, sizes and bindings; no content.

use serde::Serialize;

use super::repositories;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::format::descriptor::RepositoryCipher;
use crate::pg::{SegmentName, WalFileName, WalSegmentSize};
use crate::repo::{Binding, ClusterName, Repository, SystemId};

/// How many gaps are listed per timeline; all are counted.
const GAPS_LISTED: usize = 10;

/// One repository.
#[derive(Debug, Serialize)]
pub struct ListReport {
    /// URL.
    pub repository: String,
    /// Whether its objects are encrypted.
    pub encrypted: bool,
    /// By name.
    pub clusters: Vec<ClusterReport>,
}

/// One cluster.
#[derive(Debug, Serialize)]
pub struct ClusterReport {
    /// Its name.
    pub name: String,
    /// Its system identifiers, oldest first; the last is the current one.
    pub system_ids: Vec<SystemReport>,
}

/// What is stored of one system identifier.
#[derive(Debug, Serialize)]
pub struct SystemReport {
    /// Decimal text: it does not fit into the numbers of every JSON reader.
    pub system_id: String,
    /// PostgreSQL major version when the first file was pushed, where known.
    pub postgres_major: Option<u16>,
    /// Size of a segment.
    pub wal_segment_bytes: u64,
    /// By number.
    pub timelines: Vec<TimelineReport>,
    /// Stored timeline history files.
    pub histories: Vec<String>,
    /// Stored bytes of all these objects.
    pub stored_bytes: u64,
}

/// What is stored of one timeline.
#[derive(Debug, Serialize)]
pub struct TimelineReport {
    /// Its number.
    pub timeline: u32,
    /// Number of segments.
    pub segments: u64,
    /// The first.
    pub first: Option<String>,
    /// The last.
    pub last: Option<String>,
    /// Number of runs of missing segments between first and last.
    pub gaps: u64,
    /// The first of them: first and last missing segment.
    pub gap_list: Vec<(String, String)>,
    /// Number of `.partial` files.
    pub partials: u64,
    /// Number of backup history files.
    pub backup_histories: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
    #[serde(skip)]
    last_name: Option<SegmentName>,
}

/// One stored file, as it is seen.
pub struct StoredFile<'a> {
    /// URL.
    pub repository: &'a str,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// The file.
    pub file: WalFileName,
    /// Its stored size.
    pub stored_bytes: u64,
}

/// Is told of every stored file.
pub type OnFile<'a> = &'a mut dyn FnMut(&StoredFile<'_>);

/// Lists all repositories. With `on_file` each stored file is reported as it is seen.
///
/// # Errors
/// The first repository that cannot be listed.
pub fn run(config: &Config, deadline: Deadline, mut on_file: Option<OnFile<'_>>) -> Result<Vec<ListReport>, Error> {
    let mut reports = Vec::new();
    for repository in &config.repositories {
        let opened = repositories::open(repository, deadline)?;
        let mut clusters = Vec::new();
        for name in opened.clusters()? {
            let mut systems: Vec<SystemReport> = Vec::new();
            for binding in opened.bindings(&name)? {
                if systems.iter().all(|s| s.system_id != binding.facts.system_id.to_string()) {
                    systems.push(SystemReport::new(&binding));
                }
            }
            opened.visit_wal(&name, &mut |object, bytes| {
                if let Some(on_file) = &mut on_file {
                    on_file(&StoredFile {
                        repository: opened.location(),
                        cluster: &name,
                        file: object.file,
                        stored_bytes: bytes,
                    });
                }
                if let Some(system) = systems.iter_mut().find(|s| s.is(object.system_id)) {
                    system.add(&object.file, bytes);
                }
            })?;
            clusters.push(ClusterReport { name: name.to_string(), system_ids: systems });
        }
        reports.push(ListReport { repository: opened.location().to_owned(), encrypted: is_encrypted(&opened), clusters });
    }
    Ok(reports)
}

fn is_encrypted(repository: &Repository) -> bool {
    repository.descriptor().cipher != RepositoryCipher::None
}

impl SystemReport {
    fn new(binding: &Binding) -> Self {
        Self {
            system_id: binding.facts.system_id.to_string(),
            postgres_major: binding.facts.postgres_major,
            wal_segment_bytes: binding.facts.wal_segment_size.bytes(),
            timelines: Vec::new(),
            histories: Vec::new(),
            stored_bytes: 0,
        }
    }

    fn is(&self, system_id: SystemId) -> bool {
        self.system_id == system_id.to_string()
    }

    /// Adds a file; files come in the order of their names.
    fn add(&mut self, file: &WalFileName, bytes: u64) {
        self.stored_bytes += bytes;
        if let WalFileName::History(_) = file {
            self.histories.push(file.to_string());
            return;
        }
        let number = file.timeline().0;
        if self.timelines.last().is_none_or(|t| t.timeline != number) {
            self.timelines.push(TimelineReport {
                timeline: number,
                segments: 0,
                first: None,
                last: None,
                gaps: 0,
                gap_list: Vec::new(),
                partials: 0,
                backup_histories: 0,
                stored_bytes: 0,
                last_name: None,
            });
        }
        let size = WalSegmentSize::new(self.wal_segment_bytes);
        let Some(timeline) = self.timelines.last_mut() else { return };
        timeline.stored_bytes += bytes;
        match file {
            WalFileName::Segment(name) => timeline.add_segment(*name, size),
            WalFileName::Partial(_) => timeline.partials += 1,
            WalFileName::Backup(..) => timeline.backup_histories += 1,
            WalFileName::History(_) => {}
        }
    }
}

impl TimelineReport {
    fn add_segment(&mut self, name: SegmentName, size: Option<WalSegmentSize>) {
        let gap = size.and_then(|size| {
            let before = self.last_name?;
            let (missing_from, here) = (before.number(size)? + 1, name.number(size)?);
            let text = |number| SegmentName::from_number(name.timeline, number, size).map(|n| n.to_string());
            if missing_from < here { Some((text(missing_from)?, text(here - 1)?)) } else { None }
        });
        if let Some(gap) = gap {
            self.gaps += 1;
            if self.gap_list.len() < GAPS_LISTED {
                self.gap_list.push(gap);
            }
        }
        self.segments += 1;
        self.first.get_or_insert_with(|| name.to_string());
        self.last = Some(name.to_string());
        self.last_name = Some(name);
    }
}
