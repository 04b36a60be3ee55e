//! [`Shared`]: what the store, its watches and what closes it share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster_lease::{SessionId, StoreError, StoreKey, StoreRecord, Version, Write};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use router_core::cluster::LockName;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::cache::Cache;
use crate::clients::Clients;
use crate::codec::{Codec, expected, version};
use crate::errors::{self, RequestContext, Who};
use crate::names::GROUP_LABEL;
use crate::rules::{DELETE_LEASES, LEASES};
use crate::unlisted::{ForeignLeases, Unlisted};

/// How often another slot is tried for a session at once.
const SLOT_TRIES: usize = 4;

/// How many requests may be under way at once, without heartbeats. Each needs a connection, and a member
/// that takes a thousand locks must not open a thousand.
const PARALLEL_REQUESTS: usize = 4;

/// What the store, its watches and what closes it share.
pub(crate) struct Shared {
    pub(crate) clients: Clients,
    pub(crate) namespace: String,
    pub(crate) codec: Codec,
    pub(crate) cache: Cache,
    /// The own sessions that may have been made, and their slots.
    pub(crate) own: Mutex<BTreeMap<SessionId, SessionId>>,
    /// Whether Leases may be deleted.
    pub(crate) may_delete: AtomicBool,
    foreign: ForeignLeases,
    pub(crate) reported_left_over: AtomicUsize,
    pub(crate) requests: Semaphore,
}

impl Shared {
    pub(crate) fn new(clients: Clients, namespace: String, codec: Codec) -> Self {
        let requests = Semaphore::new(PARALLEL_REQUESTS);
        Self {
            clients,
            namespace,
            codec,
            cache: Cache::default(),
            own: Mutex::default(),
            may_delete: AtomicBool::new(false),
            foreign: ForeignLeases::default(),
            reported_left_over: AtomicUsize::new(0),
            requests,
        }
    }

    pub(crate) fn asked(&self, verb: &'static str) -> RequestContext<'_> {
        RequestContext { verb, rule: &LEASES, namespace: &self.namespace, object: None, by: Who::Member }
    }

    pub(crate) fn client(&self, client: Result<Client, kube::Error>) -> Result<Client, StoreError> {
        client.map_err(|error| {
            StoreError::Unknown(
                "the connection to the API server cannot be set up".into(),
                Some(error.into()),
            )
        })
    }

    pub(crate) fn api(&self, client: Result<Client, kube::Error>) -> Result<Api<Lease>, StoreError> {
        Ok(Api::namespaced(self.client(client)?, &self.namespace))
    }

    /// The Lease of a lock, for those who tell of it.
    pub(crate) fn reference(&self, lock: &LockName) -> ObjectReference {
        let name = self.codec.group.lock_lease(lock);
        ObjectReference {
            api_version: Some("coordination.k8s.io/v1".into()),
            kind: Some("Lease".into()),
            uid: self.cache.lease(&name, None).and_then(|lease| lease.metadata.uid),
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            ..ObjectReference::default()
        }
    }

    /// Deletes a Lease that is not needed any more, if it is still the one that was seen.
    pub(crate) async fn delete(&self, name: &str, seen: Option<Lease>) -> Result<(), StoreError> {
        let api = self.api(self.clients.ordinary())?;
        let preconditions = seen.map(|lease| Preconditions {
            uid: lease.metadata.uid,
            resource_version: lease.metadata.resource_version,
        });
        match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(errors::error(self.asked("delete"), error)),
        }
    }

    pub(crate) async fn send(&self, write: &Write, api: &Api<Lease>) -> Result<Version, StoreError> {
        let written = match (&write.key, expected(write)) {
            (StoreKey::Session(session), None) => self.create_session(write, *session, api).await?,
            (_, None) => self.create(write, api).await?,
            (_, Some(_)) => {
                let name = self.name(&write.key);
                let before = self.cache.base(&name, write)?;
                self.replace(write, before.as_ref(), api).await?
            }
        };
        self.cache.note(&self.codec, &written)?;
        version(&written.metadata)
    }

    /// Says how many sessions are left behind, where this member may not delete them.
    pub(crate) fn report_left_over(&self) {
        if let Some(left) = self.news_of_left_over() {
            warn!(
                left,
                "Leases of sessions that have ended are left in the namespace {}, {left} by now, because no pod owns \
                 them and this member may not delete them: they do no harm but slow lists down; add the rule {} to its \
                 Role",
                self.namespace,
                DELETE_LEASES.yaml(DELETE_LEASES.verbs)
            );
        }
    }

    /// How many there are, once at the start and each time that they have doubled.
    pub(crate) fn news_of_left_over(&self) -> Option<usize> {
        let left = self.cache.left_over(&self.codec);
        let reported = self.reported_left_over.load(Ordering::Relaxed);
        let is_news = left >= (2 * reported).max(1) && !self.may_delete.load(Ordering::Relaxed);
        is_news.then(|| {
            self.reported_left_over.store(left, Ordering::Relaxed);
            left
        })
    }

    /// The name of the Lease of a record.
    pub(crate) fn name(&self, key: &StoreKey) -> String {
        match key {
            StoreKey::Session(session) => self.codec.group.session_lease(self.slot(*session)),
            key => self.codec.group.lease(key),
        }
    }

    /// The slot that a session has; one without any is its own.
    fn slot(&self, session: SessionId) -> SessionId {
        let own = self.own().get(&session).copied();
        let seen = || self.codec.group.session_of(&self.cache.session_lease(session)?);
        own.or_else(seen).unwrap_or(session)
    }

    pub(crate) fn own(&self) -> MutexGuard<'_, BTreeMap<SessionId, SessionId>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, write: &Write, before: Option<&Lease>) -> Lease {
        let session = match (&write.key, &write.record) {
            (StoreKey::Session(session), _) => Some(*session),
            (_, StoreRecord::Lock { record, .. }) => record.holder,
            _ => None,
        };
        // Where no session is concerned, its slot is of no concern.
        let slot = session.map_or(SessionId { incarnation: 0, generation: 0 }, |session| self.slot(session));
        self.codec.lease_of(write, slot, before, Timestamp::now())
    }

    async fn replace(
        &self,
        write: &Write,
        before: Option<&Lease>,
        api: &Api<Lease>,
    ) -> Result<Lease, StoreError> {
        let lease = self.lease(write, before);
        let name = lease.metadata.name.clone().unwrap_or_default();
        let written = api.replace(&name, &PostParams::default(), &lease).await;
        written.map_err(|error| errors::error(self.asked("update"), error))
    }

    async fn create(&self, write: &Write, api: &Api<Lease>) -> Result<Lease, StoreError> {
        let name = self.name(&write.key);
        if let Some(text) = self.foreign.met(&name) {
            return Err(StoreError::unknown(text));
        }
        let mut lease = self.lease(write, None);
        if let StoreRecord::Request(request) = &write.record {
            lease.metadata.owner_references = self.cache.owners(&self.codec, request);
        }
        let created = api.create(&PostParams::default(), &lease).await;
        match created.map_err(|error| errors::error(self.asked("create"), error)) {
            Err(StoreError::Conflict) if matches!(write.key, StoreKey::Lock(_)) => {
                self.adopt(write, &name, api).await
            }
            created => created,
        }
    }

    /// Makes a session, in a slot of the pod where it has one. A try whose response was lost may still be applied,
    /// so the next one is the same request, until something else is in the slot.
    async fn create_session(
        &self,
        write: &Write,
        session: SessionId,
        api: &Api<Lease>,
    ) -> Result<Lease, StoreError> {
        for _ in 0..SLOT_TRIES {
            let (slot, before) = self.choose_slot(session)?;
            self.own().insert(session, slot);
            let written = match &before {
                Some(before) => self.replace(write, Some(before), api).await,
                None => self.create(write, api).await,
            };
            if !matches!(written, Err(StoreError::Conflict)) || slot == session {
                return written;
            }
            // Another container of the pod was faster, or the view is behind.
            let name = self.codec.group.session_lease(slot);
            match api.get_opt(&name).await.map_err(|error| errors::error(self.asked("get"), error))? {
                Some(lease) => drop(self.cache.note(&self.codec, &lease)?),
                None => self.cache.note_absent(&name),
            }
        }
        Err(StoreError::Conflict)
    }

    /// The slot for a session, and what is to be written over there.
    fn choose_slot(&self, session: SessionId) -> Result<(SessionId, Option<Lease>), StoreError> {
        let chosen = self.own().get(&session).copied();
        if self.cache.session_lease(session).is_some() {
            // An earlier try came through.
            return Err(StoreError::Conflict);
        }
        let again = chosen.and_then(|slot| self.codec.take_slot(&self.cache, slot));
        Ok(again.or_else(|| self.codec.free_slot(&self.cache)).unwrap_or((session, None)))
    }

    /// The Lease of a lock exists although no list shows it: a claim takes it into the group, where it is no
    /// other program's. It is written as of the very version that was judged, like any other claim.
    async fn adopt(&self, write: &Write, name: &str, api: &Api<Lease>) -> Result<Lease, StoreError> {
        let found = api.get_opt(name).await.map_err(|error| errors::error(self.asked("get"), error))?;
        let Some(found) = found else { return Err(StoreError::Conflict) };
        match Unlisted::of(&self.codec, &found, &self.namespace) {
            Unlisted::Listed => {
                self.foreign.forget(name);
                return Err(StoreError::Conflict);
            }
            Unlisted::Foreign(text) => {
                self.foreign.note(name, &text);
                return Err(StoreError::unknown(text));
            }
            Unlisted::Adopt => self.foreign.forget(name),
        }
        let mut write = write.clone();
        let before = self.codec.record_of(&found)?.and_then(|decoded| decoded.record);
        if let (StoreRecord::Lock { record, .. }, Some(StoreRecord::Lock { record: before, .. })) =
            (&mut write.record, before)
        {
            // Terms rise above all that the Lease remembers, too.
            record.term = record.term.max(before.term.saturating_add(1));
        }
        let written = self.replace(&write, Some(&found), api).await?;
        let group = &self.codec.group;
        warn!(
            "the Lease {name} had lost the label {GROUP_LABEL}={group}, by which members find it, or the name of its \
             lock: it has them again"
        );
        Ok(written)
    }
}
