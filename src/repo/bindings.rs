//! Bindings: which system identifier a cluster's name stands for.
//!
//! The binding is a chain of immutable objects, `bindings/00000001`, `00000002`, …; the highest counts. The first push
//! (or `init --pgdata`) creates number 1 with create-if-absent, so of two racing clusters one wins and the other is
//! refused. After `pg_upgrade`, which gives a new system identifier, `init --pgdata --after-pg-upgrade` adds the next
//! number.

use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::cluster::{Binding, ClusterName, Facts, SystemId};
use super::content::{Content, Stored};
use super::early_bindings::generations;
use super::object_name::ObjectName;
use super::repository::Repository;
use crate::error::{Error, Kind};
use crate::limits::MAX_BINDINGS;
use crate::pg::WalSegmentSize;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingJson {
    system_id: String,
    wal_segment_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    postgres_major: Option<u16>,
    generation: u32,
    bound_unix_s: i64,
}

/// What to do about a binding that cannot be read.
const HINT: &str = "restore this object from a copy of the repository, or use another repository; if nobody ran 'init --after-pg-upgrade', \
                    somebody else added it: remove it";

/// Numbers of bindings that cannot be read, and why not.
type Unreadable = Vec<(u32, Error)>;

impl Repository {
    /// All bindings of a cluster, oldest first. Empty when the cluster is not known.
    ///
    /// # Errors
    /// Unreachable, denied, damaged.
    pub fn bindings(&self, cluster: &ClusterName) -> Result<Vec<Binding>, Error> {
        match self.genuine_bindings(cluster)? {
            (bindings, None) => Ok(bindings),
            (_, Some(error)) => Err(error),
        }
    }

    /// The newest binding to this system identifier. A caller that knows which one it must be needs no other: what
    /// somebody added after it, or damaged, is no reason to stop. Without such a binding it is.
    ///
    /// # Errors
    /// As [`bindings`](Self::bindings).
    pub fn binding_to(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Option<Binding>, Error> {
        let (bindings, failure) = self.genuine_bindings(cluster)?;
        let found = bindings.into_iter().rfind(|binding| binding.facts.system_id == system_id);
        match (found, failure) {
            (None, Some(error)) => Err(error),
            (found, failure) => {
                if let Some(error) = failure {
                    tracing::error!("{error}; the binding to system identifier {system_id} is genuine, and is used");
                }
                Ok(found)
            }
        }
    }

    /// The bindings up to the first that cannot be read, and why it cannot.
    fn genuine_bindings(&self, cluster: &ClusterName) -> Result<(Vec<Binding>, Option<Error>), Error> {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|early| early.cluster == *cluster);
        let (generations, objects) = match early {
            Some(early) => (early.generations, early.objects),
            None => (generations(self.objects(), cluster)?, Vec::new()),
        };
        self.read_bindings(cluster, &generations, objects)
    }

    /// The bindings of these numbers, from the bytes of their objects where those are known: up to the first that
    /// cannot be read.
    pub(super) fn read_bindings(
        &self,
        cluster: &ClusterName,
        generations: &[u32],
        objects: Vec<Vec<u8>>,
    ) -> Result<(Vec<Binding>, Option<Error>), Error> {
        let damaged =
            |what: String| Error::new(Kind::Damaged, format!("cluster {cluster} in {}: {what}", self.location())).hint(HINT);
        let mut found = Vec::new();
        let mut objects = objects.into_iter();
        for (expected, generation) in (1..).zip(generations) {
            // They are created in order, each only after the one before: a hole means that something was deleted, or
            // forged.
            if expected != *generation {
                return Ok((found, Some(damaged(format!("binding {expected} is missing, {generation} exists")))));
            }
            if found.len() >= MAX_BINDINGS {
                return Ok((found, Some(damaged(format!("it has more than {MAX_BINDINGS} bindings")))));
            }
            match self.read_binding(cluster, *generation, objects.next()) {
                Ok(binding) => found.push(binding),
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => return Ok((found, Some(error))),
                Err(error) => return Err(error),
            }
        }
        Ok((found, None))
    }

    /// Reads a binding, from the bytes of its object where those are known.
    fn read_binding(&self, cluster: &ClusterName, generation: u32, object: Option<Vec<u8>>) -> Result<Binding, Error> {
        let name = ObjectName::Binding { cluster: cluster.clone(), generation };
        let damaged = |detail: String| Error::new(Kind::Damaged, format!("{name} in {}: {detail}", self.location())).hint(HINT);
        let bytes = match object {
            Some(object) => Some(self.opener().open_small(&name, &object)?),
            None => self.opener().read_small(&name)?,
        };
        let bytes = bytes.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let json: BindingJson = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let facts = (|| {
            Some(Facts {
                system_id: SystemId(json.system_id.parse().ok()?),
                wal_segment_size: WalSegmentSize::new(json.wal_segment_bytes)?,
                postgres_major: json.postgres_major,
            })
        })();
        match facts {
            Some(facts) if json.generation == generation => Ok(Binding { generation, facts, bound_unix_s: json.bound_unix_s }),
            _ => Err(damaged("its content makes no sense".to_owned())),
        }
    }

    /// All bindings that can be read, oldest first, and why the others cannot, by their numbers: for those who look for
    /// damage.
    ///
    /// # Errors
    /// As the store's.
    pub fn bindings_despite_damage(&self, cluster: &ClusterName) -> Result<(Vec<Binding>, Unreadable), Error> {
        let (mut found, mut wrong) = (Vec::new(), Vec::new());
        let numbers = generations(self.objects(), cluster)?;
        for expected in 1..=numbers.last().copied().unwrap_or(0).min(u32::try_from(MAX_BINDINGS).unwrap_or(u32::MAX)) {
            match self.read_binding(cluster, expected, None) {
                Ok(binding) => found.push(binding),
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => wrong.push((expected, error)),
                Err(error) => return Err(error),
            }
        }
        Ok((found, wrong))
    }

    /// Makes sure that the cluster is bound to this system identifier, binding it if it is new. What it found it
    /// remembers: a repository that is opened for many files asks once. Should the name be bound anew meanwhile
    /// (`pg_upgrade`), what the old cluster still stores goes where it belongs, below its own system identifier.
    ///
    /// # Errors
    /// [`Kind::Refused`] when it is bound to another one, with the way out.
    pub fn bind(&self, cluster: &ClusterName, facts: Facts) -> Result<Binding, Error> {
        let known = self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, binding)) = known.filter(|(name, binding)| {
            name == cluster
                && (binding.facts.system_id, binding.facts.wal_segment_size) == (facts.system_id, facts.wal_segment_size)
        }) {
            return Ok(binding);
        }
        let binding = match self.genuine_bindings(cluster)? {
            (mut known, None) => match known.pop() {
                Some(binding) => self.expect(cluster, binding, facts)?,
                None => {
                    let binding = self.create_binding(cluster, 1, facts)?;
                    self.expect(cluster, binding, facts)?
                }
            },
            // A later one would only say that the name was bound anew, and what this cluster stores goes where it
            // belongs all the same.
            (known, Some(error)) => match known.into_iter().rfind(|binding| binding.facts.system_id == facts.system_id) {
                Some(binding) => {
                    tracing::error!("{error}; the binding to system identifier {} is genuine, and is used", facts.system_id);
                    self.expect(cluster, binding, facts)?
                }
                None => return Err(error),
            },
        };
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = Some((cluster.clone(), binding));
        Ok(binding)
    }

    /// Binds the cluster to a new system identifier, after `pg_upgrade` or `initdb` in its place. What is stored stays.
    ///
    /// # Errors
    /// As the store's.
    pub fn rebind(&self, cluster: &ClusterName, facts: Facts) -> Result<Binding, Error> {
        match self.bindings(cluster)?.pop() {
            Some(binding) if binding.facts.system_id == facts.system_id => self.expect(cluster, binding, facts),
            last => {
                let binding = self.create_binding(cluster, last.map_or(1, |b| b.generation + 1), facts)?;
                self.expect(cluster, binding, facts)
            }
        }
    }

    /// Creates a binding; if another process was first, answers that one's.
    fn create_binding(&self, cluster: &ClusterName, generation: u32, facts: Facts) -> Result<Binding, Error> {
        let bound_unix_s = jiff::Timestamp::now().as_second();
        let json = BindingJson {
            system_id: facts.system_id.to_string(),
            wal_segment_bytes: facts.wal_segment_size.bytes(),
            postgres_major: facts.postgres_major,
            generation,
            bound_unix_s,
        };
        let text = serde_json::to_vec(&json).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
        let name = ObjectName::Binding { cluster: cluster.clone(), generation };
        // Not the moment: a writer after a killed process must not wait for it.
        let identity = format!("{} {} {generation}", facts.system_id, facts.wal_segment_size.bytes());
        match self.put(&name, &Content::of_bytes(&text).identified_by(identity.as_bytes())) {
            Ok(Stored::New | Stored::Same) => Ok(Binding { generation, facts, bound_unix_s }),
            Err(e) if e.kind == Kind::Conflict => self.read_binding(cluster, generation, None),
            Err(e) => Err(e),
        }
    }

    fn expect(&self, cluster: &ClusterName, binding: Binding, facts: Facts) -> Result<Binding, Error> {
        let bound = binding.facts;
        if bound.system_id != facts.system_id {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "cluster name {cluster} in {} belongs to system identifier {}, this is {}: refused, nothing was stored",
                    self.location(),
                    bound.system_id,
                    facts.system_id
                ),
            )
            .hint(format!(
                "another cluster needs a name of its own (--cluster, WALVIS_CLUSTER); if this one replaced it by pg_upgrade, run \
                 'walvis --cluster {cluster} init --pgdata DIR --after-pg-upgrade' once: what is stored stays"
            )));
        }
        if bound.wal_segment_size != facts.wal_segment_size {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "cluster {cluster} has WAL segments of {} bytes, this file is of a cluster with {}: refused",
                    bound.wal_segment_size.bytes(),
                    facts.wal_segment_size.bytes()
                ),
            )
            .hint("the segment size of a cluster changes only with pg_resetwal; archive it under a new cluster name"));
        }
        Ok(binding)
    }
}
