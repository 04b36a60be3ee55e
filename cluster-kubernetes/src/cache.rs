//! The Leases of the group as they were last seen.
//!
//! A write replaces the whole object, so it starts from the one that is there: what others have put on it
//! stays, and the uid goes along. The uid matters: a server may answer a replacement of an object that
//! was deleted by making it anew, and only the uid makes that a conflict.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cluster_lease::{Request, SessionId, StoreEntry, StoreError, StoreKey, StoreRecord, Version, Write};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::time::Instant;

use crate::codec::{Codec, Decoded, expected, version};

#[derive(Default)]
pub(crate) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    leases: HashMap<String, Seen>,
    /// The Leases of the sessions that are in them now.
    sessions: HashMap<SessionId, String>,
    /// The sessions that were in Leases when lists and the watch last told of them.
    told: HashMap<String, SessionId>,
}

struct Seen {
    version: Version,
    /// `None`: deleted at that version.
    lease: Option<Lease>,
    /// When this version was first seen.
    since: Instant,
}

impl Cache {
    /// What a Lease says. It is remembered.
    pub(crate) fn note(&self, codec: &Codec, lease: &Lease) -> Result<Option<Decoded>, StoreError> {
        let Some(decoded) = codec.record_of(lease)? else { return Ok(None) };
        let Some(name) = lease.metadata.name.clone() else { return Ok(None) };
        let mut inner = self.lock();
        if inner.put(name.clone(), decoded.version, Some(lease.clone()))
            && let StoreKey::Session(session) = decoded.key
            && inner.sessions.get(&session) != Some(&name)
        {
            inner.sessions.retain(|_, lease| *lease != name);
            inner.sessions.insert(session, name);
        }
        Ok(Some(decoded))
    }

    /// What the watch says of a Lease, and the session that was in it until now, if that is another.
    pub(crate) fn note_change(
        &self,
        codec: &Codec,
        lease: &Lease,
    ) -> Result<Option<(Decoded, Option<SessionId>)>, StoreError> {
        let Some(decoded) = self.note(codec, lease)? else { return Ok(None) };
        let StoreKey::Session(session) = decoded.key else { return Ok(Some((decoded, None))) };
        let name = lease.metadata.name.clone().unwrap_or_default();
        let former = self.lock().told.insert(name, session).filter(|former| *former != session);
        Ok(Some((decoded, former)))
    }

    /// A list is all there is, up to its version.
    pub(crate) fn note_list(
        &self,
        codec: &Codec,
        at: Version,
        leases: &[Lease],
    ) -> Result<Vec<StoreEntry>, StoreError> {
        let mut entries = Vec::with_capacity(leases.len());
        let (mut names, mut told) = (HashSet::with_capacity(leases.len()), HashMap::new());
        for lease in leases {
            names.extend(lease.metadata.name.clone());
            let Some(Decoded { version, key, record }) = self.note(codec, lease)? else { continue };
            if let (StoreKey::Session(session), Some(name)) = (&key, &lease.metadata.name) {
                told.insert(name.clone(), *session);
            }
            entries.extend(record.map(|record| StoreEntry { version, key, record }));
        }
        let mut inner = self.lock();
        inner.leases.retain(|name, seen| seen.version > at || names.contains(name));
        let Inner { leases, sessions, .. } = &mut *inner;
        sessions.retain(|_, name| leases.contains_key(name));
        inner.told = told;
        Ok(entries)
    }

    /// The Pod of the member of which something is asked, where it has a session: what is asked goes with it.
    pub(crate) fn owners(&self, codec: &Codec, request: &Request) -> Option<Vec<OwnerReference>> {
        let inner = self.lock();
        let session = match request {
            Request::HandOver { holder, .. } => inner.leases.get(inner.sessions.get(holder)?),
            Request::Drain { member, .. } => inner.leases.values().find(|seen| {
                let decoded = seen.lease.as_ref().and_then(|lease| codec.record_of(lease).ok()?);
                matches!(decoded.and_then(|decoded| decoded.record), Some(StoreRecord::Session { record, member: other })
                    if record.dead.is_none() && (other.id == *member || other.host.as_ref() == Some(member)))
            }),
        };
        session?.lease.as_ref()?.metadata.owner_references.clone()
    }

    /// What comes from now on is older than what was seen.
    pub(crate) fn forget(&self) {
        *self.lock() = Inner::default();
    }

    /// Says which session was in it, if that was one.
    pub(crate) fn note_deleted(&self, lease: &Lease) -> Option<SessionId> {
        let (name, version) = (lease.metadata.name.clone()?, version(&lease.metadata).ok()?);
        let mut inner = self.lock();
        let former = inner.told.remove(&name);
        inner.put(name, version, None);
        former
    }

    /// For how long a Lease has been seen as it is.
    pub(crate) fn unchanged_for(&self, name: &str) -> Duration {
        self.lock().leases.get(name).map_or(Duration::ZERO, |seen| seen.since.elapsed())
    }

    /// A Lease that does not exist, as the server says. The watch will tell when that began.
    pub(crate) fn note_absent(&self, name: &str) {
        let mut inner = self.lock();
        inner.leases.remove(name);
        inner.sessions.retain(|_, lease| lease != name);
    }

    /// The Lease that a session is in.
    pub(crate) fn session_lease(&self, session: SessionId) -> Option<String> {
        self.lock().sessions.get(&session).cloned()
    }

    /// The sessions that hold locks.
    pub(crate) fn holders(&self, codec: &Codec) -> BTreeSet<SessionId> {
        let inner = self.lock();
        let leases = inner.leases.values().filter_map(|seen| seen.lease.as_ref());
        let records = leases.filter_map(|lease| codec.record_of(lease).ok()??.record);
        let holder = |record| match record {
            StoreRecord::Lock { record, .. } => record.holder,
            _ => None,
        };
        records.filter_map(holder).collect()
    }

    /// How many sessions have ended and stay, because no pod owns them.
    pub(crate) fn left_over(&self, codec: &Codec) -> usize {
        let inner = self.lock();
        let leases = inner.leases.values().filter_map(|seen| seen.lease.as_ref());
        leases.filter(|lease| codec.is_left_over(lease)).count()
    }

    /// The Lease that a write starts from; `None`: it makes a new one.
    pub(crate) fn base(&self, name: &str, write: &Write) -> Result<Option<Lease>, StoreError> {
        let Some(expected) = expected(write) else { return Ok(None) };
        match self.lock().leases.get(name) {
            Some(Seen { version, lease: Some(lease), .. }) if *version == expected => Ok(Some(lease.clone())),
            // The server has said itself that this version is gone.
            Some(seen) if seen.version > expected => Err(StoreError::Conflict),
            // It was listed since, and was not there.
            None => Err(StoreError::Conflict),
            Some(_) => Err(StoreError::unknown(format!("version {expected} of {name} was never seen"))),
        }
    }

    /// The Lease as it was last seen, if that was at this version.
    pub(crate) fn lease(&self, name: &str, at: Option<Version>) -> Option<Lease> {
        let inner = self.lock();
        let seen = inner.leases.get(name).filter(|seen| at.is_none_or(|at| at == seen.version))?;
        seen.lease.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Lists, the watch and answers overtake one another. Says whether this is the newest.
    fn put(&mut self, name: String, version: Version, lease: Option<Lease>) -> bool {
        let before = self.leases.get(&name);
        let newest = before.is_none_or(|seen| seen.version <= version);
        if newest {
            let since = before.filter(|seen| seen.version == version).map(|seen| seen.since);
            let since = since.unwrap_or_else(Instant::now);
            self.leases.insert(name, Seen { version, lease, since });
        }
        newest
    }
}
