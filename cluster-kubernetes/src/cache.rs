//! The Leases of the group as they were last seen.
//!
//! A write replaces the whole object, so it starts from the one that is there: what others have put on it
//! stays, and the uid goes along. The uid matters: a server may answer a replacement of an object that
//! was deleted by making it anew, and only the uid makes that a conflict.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use cluster_lease::{Request, StoreEntry, StoreError, StoreRecord, Version, Write};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::codec::{Codec, Decoded, expected, version};

#[derive(Default)]
pub(crate) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    leases: HashMap<String, Seen>,
}

struct Seen {
    version: Version,
    /// `None`: deleted at that version.
    lease: Option<Lease>,
}

impl Cache {
    /// What a Lease says. It is remembered.
    pub(crate) fn note(&self, codec: &Codec, lease: &Lease) -> Result<Option<Decoded>, StoreError> {
        let Some(decoded) = codec.decode(lease)? else { return Ok(None) };
        let Some(name) = lease.metadata.name.clone() else { return Ok(None) };
        self.lock().put(name, decoded.version, Some(lease.clone()));
        Ok(Some(decoded))
    }

    /// A list is all there is, up to its version.
    pub(crate) fn note_list(
        &self,
        codec: &Codec,
        at: Version,
        leases: &[Lease],
    ) -> Result<Vec<StoreEntry>, StoreError> {
        let mut entries = Vec::with_capacity(leases.len());
        let mut names = HashSet::with_capacity(leases.len());
        for lease in leases {
            names.extend(lease.metadata.name.clone());
            if let Some(Decoded { version, key, record: Some(record) }) = self.note(codec, lease)? {
                entries.push(StoreEntry { version, key, record });
            }
        }
        self.lock().leases.retain(|name, seen| seen.version > at || names.contains(name));
        Ok(entries)
    }

    /// The Pod of the member of which something is asked, where it has a session: what is asked goes with it.
    pub(crate) fn owners(&self, codec: &Codec, request: &Request) -> Option<Vec<OwnerReference>> {
        let inner = self.lock();
        let session = match request {
            Request::HandOver { holder, .. } => inner.leases.get(&codec.group.session_lease(*holder)),
            Request::Drain { member, .. } => inner.leases.values().find(|seen| {
                let decoded = seen.lease.as_ref().and_then(|lease| codec.decode(lease).ok()?);
                matches!(decoded.and_then(|decoded| decoded.record), Some(StoreRecord::Session { record, member: other })
                    if record.dead.is_none() && (other.id == *member || other.host.as_ref() == Some(member)))
            }),
        };
        session?.lease.as_ref()?.metadata.owner_references.clone()
    }

    /// What comes from now on is older than what was seen.
    pub(crate) fn forget(&self) {
        self.lock().leases.clear();
    }

    pub(crate) fn note_deleted(&self, lease: &Lease) {
        if let (Some(name), Ok(version)) = (lease.metadata.name.clone(), version(&lease.metadata)) {
            self.lock().put(name, version, None);
        }
    }

    /// The Lease that a write starts from; `None`: it makes a new one.
    pub(crate) fn base(&self, name: &str, write: &Write) -> Result<Option<Lease>, StoreError> {
        let Some(expected) = expected(write) else { return Ok(None) };
        match self.lock().leases.get(name) {
            Some(Seen { version, lease: Some(lease) }) if *version == expected => Ok(Some(lease.clone())),
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
    /// Lists, the watch and answers overtake one another.
    fn put(&mut self, name: String, version: Version, lease: Option<Lease>) {
        if self.leases.get(&name).is_none_or(|seen| seen.version <= version) {
            self.leases.insert(name, Seen { version, lease });
        }
    }
}
