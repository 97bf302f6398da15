//! Writing packs: workers fill them, other threads seal and store them meanwhile.
//!
//! Memory: a pack that is being filled, or waits for a storing thread, per worker, and one per storing thread.
//! [`PackTarget::for_jobs`] chooses sizes so that all of them stay within [`PACKS_MEMORY_BYTES`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::codec::SpareBuffers;
use crate::codec::pack::{PackBuilder, PackedRecords, RecordKind};
use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId, RecordLocation};
use crate::limits::{MAX_PACK_BYTES, MIN_PACK_BYTES, PACKS_MEMORY_BYTES};
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::object_name::ObjectName;
use crate::repo::raw_objects::store_error;
use crate::repo::repository::Repository;
use crate::store::Created;
use crate::threads::{Jobs, Stop, Worker, with_workers};

/// Where the packs of one backup go, and how large they get.
pub struct PackTarget<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// Its system identifier.
    pub system_id: SystemId,
    /// The backup that they belong to.
    pub backup: BackupId,
    /// zstd level.
    pub level: i32,
    /// Threads that store.
    pub uploaders: usize,
    /// Bytes with which a pack is full.
    pub pack_bytes: usize,
}

impl<'a> PackTarget<'a> {
    /// The target of a backup with this many workers.
    pub fn for_jobs(
        repository: &'a Repository,
        cluster: &'a ClusterName,
        system_id: SystemId,
        backup: BackupId,
        level: i32,
        jobs: usize,
    ) -> Self {
        let uploaders = jobs.clamp(1, 4);
        let pack_bytes = (PACKS_MEMORY_BYTES / (jobs.max(1) + uploaders + 1)).clamp(MIN_PACK_BYTES, MAX_PACK_BYTES);
        Self { repository, cluster, system_id, backup, level, uploaders, pack_bytes }
    }
}

/// What was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Of every pack, the bytes of its records.
    pub packs: HashMap<PackId, u64>,
    /// Bytes of all objects.
    pub stored_bytes: u64,
}

/// What writers and storing threads share.
struct Shared<'a> {
    target: &'a PackTarget<'a>,
    next: AtomicU32,
    stop: Stop,
    packs: Mutex<HashMap<PackId, u64>>,
    stored_bytes: AtomicU64,
}

/// A full pack.
type Filled = (PackId, PackedRecords);

/// Makes the writers of one backup.
pub struct Writers<'a> {
    shared: &'a Shared<'a>,
    full: &'a Jobs<'a, Filled>,
    spare: SpareBuffers,
}

impl<'a> Writers<'a> {
    /// A writer for one worker.
    ///
    /// # Errors
    /// When zstd does not know the level.
    pub fn writer(&self) -> Result<PackWriter<'a>, Error> {
        let target = self.shared.target;
        let builder = PackBuilder::new(target.level, target.pack_bytes, self.spare.clone())
            .map_err(|e| Error::new(Kind::Config, format!("compression level {}: {e}", target.level)))?;
        Ok(PackWriter { shared: self.shared, full: self.full, builder, pack: None })
    }
}

/// Runs `work`, which gets writers and hands them to its workers; packs are stored meanwhile. When it returns `Ok`, and
/// this does, every record that was appended and finished is stored durably.
///
/// # Errors
/// What kept a pack from being stored, or what `work` failed with.
pub fn with_packs<R>(target: &PackTarget<'_>, work: impl FnOnce(&Writers<'_>) -> Result<R, Error>) -> Result<(R, Packed), Error> {
    let shared = Shared {
        target,
        next: AtomicU32::new(0),
        stop: Stop::default(),
        packs: Mutex::default(),
        stored_bytes: AtomicU64::new(0),
    };
    let uploaders = (0..target.uploaders.max(1)).map(|_| Uploader(&shared)).collect();
    let spare = SpareBuffers::keeping((PACKS_MEMORY_BYTES / target.pack_bytes.max(1)).max(1));
    // Nothing waits in the queue: a writer that hands over a pack waits until a thread takes it.
    let result = with_workers(uploaders, 0, &shared.stop, |full| work(&Writers { shared: &shared, full, spare }))?;
    let packs = shared.packs.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((result, Packed { packs, stored_bytes: shared.stored_bytes.into_inner() }))
}

/// A thread that seals and stores packs.
struct Uploader<'a>(&'a Shared<'a>);

impl Worker for Uploader<'_> {
    type Job = Filled;
    type Output = ();

    fn run(&mut self, (pack, records): Filled) -> Result<(), Error> {
        self.0.store(pack, records)
    }
}

impl Shared<'_> {
    fn store(&self, pack: PackId, records: PackedRecords) -> Result<(), Error> {
        let target = self.target;
        let repository = target.repository;
        let name = ObjectName::Pack { cluster: target.cluster.clone(), system_id: target.system_id, pack };
        let body_bytes = records.body_bytes() as u64;
        let (object, content) = repository.sealer().seal_pack(&name, records)?;
        match repository.objects().create(&name, object.clone(), &content)? {
            Created::New => {}
            Created::Exists => {
                // Ours, if the answer to an earlier attempt was lost.
                let stored = repository.objects().read_existing(&name)?;
                if stored.size_bytes != object.len() as u64 || !reads_as(stored.body, &object)? {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!("{name} in {} holds other content: refused, nothing was changed", repository.location()),
                    )
                    .hint("two backups have the same id, which chance does not do: is the clock or the random source stuck?"));
                }
                repository.objects().make_durable(&name)?;
            }
        }
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).insert(pack, body_bytes);
        self.stored_bytes.fetch_add(object.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn reads_as(mut body: impl std::io::Read, expected: &[u8]) -> Result<bool, Error> {
    let mut buffer = vec![0; 128 * 1024];
    let mut rest = expected;
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(rest.is_empty()),
            Ok(n) => match (rest.split_at_checked(n), buffer.get(..n)) {
                (Some((front, after)), Some(read)) if front == read => rest = after,
                _ => return Ok(false),
            },
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(store_error(e)),
        }
    }
}

/// Fills packs for one worker. Only after [`finish`](Self::finish) is all that was appended on its way to the store.
pub struct PackWriter<'a> {
    shared: &'a Shared<'a>,
    full: &'a Jobs<'a, Filled>,
    builder: PackBuilder,
    /// The pack that is being filled.
    pack: Option<PackId>,
}

impl PackWriter<'_> {
    /// Compresses an extent or table and adds it. Says where it will be.
    ///
    /// # Errors
    /// When a pack could not be stored meanwhile, by this worker or another one.
    pub fn append(&mut self, kind: RecordKind, plaintext: &[u8]) -> Result<RecordLocation, Error> {
        if self.builder.is_full() {
            self.hand_over()?;
        }
        let pack = match self.pack {
            Some(pack) => pack,
            None => {
                let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
                *self.pack.insert(PackId { backup: self.shared.target.backup, number })
            }
        };
        let record = self.builder.append(kind, plaintext).map_err(|e| Error::new(Kind::Bug, format!("fill pack {pack}: {e}")))?;
        Ok(RecordLocation { pack, offset: record.offset, sealed_bytes: record.sealed_bytes })
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        let stopped = || Error::new(Kind::Unreachable, "a pack could not be stored");
        match self.pack.take() {
            Some(pack) => self.full.send((pack, self.builder.take())).map_err(|_| stopped()),
            None => Ok(()),
        }
    }

    /// Hands over the last pack.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn finish(mut self) -> Result<(), Error> {
        self.hand_over()
    }
}
