//! [`LeaseOperator`]: asks members for something, and watches what becomes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{
    ClusterError, Handover, LockName, Member, Operator, OperatorError, select_member,
};
use router_core::error::Chain;
use smol_str::SmolStr;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use crate::record::{LockRecord, Precondition, SessionId, Version};
use crate::request::{Request, is_called};
use crate::settings::Settings;
use crate::store::{
    Attempt, Change, LeaseStore, LeaseWatch, Listing, StoreError, StoreKey, StoreRecord, Write,
};

/// An [`Operator`] over a [`LeaseStore`]: it writes a [`Request`] beside the records of the election, follows
/// the same watch as the members, and removes the request in the end. It writes nothing else.
pub struct LeaseOperator {
    store: Arc<dyn LeaseStore>,
    /// How long one request to the store may take.
    patience: Duration,
    pause: Duration,
}

impl fmt::Debug for LeaseOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseOperator").finish_non_exhaustive()
    }
}

/// The group as it is seen.
#[derive(Default)]
struct Picture {
    version: Version,
    /// The sessions that are not known to be dead.
    sessions: BTreeMap<SessionId, Member>,
    locks: BTreeMap<LockName, Lock>,
    requests: BTreeMap<SmolStr, (Version, Request)>,
}

#[derive(Clone)]
struct Lock {
    version: Version,
    record: LockRecord,
    holder: Option<SmolStr>,
    /// The number of the term, as its leader has written it down.
    term: Option<u64>,
}

impl Lock {
    /// The number of the term.
    fn term(&self) -> u64 {
        self.term.unwrap_or(self.version.max(self.record.term))
    }
}

impl Picture {
    fn of(listing: Listing) -> Self {
        let mut picture = Self { version: listing.version, ..Self::default() };
        for entry in listing.entries {
            picture.put(entry.version, entry.key, Some(entry.record));
        }
        picture
    }

    fn apply(&mut self, change: Change) {
        self.version = change.version();
        match change {
            Change::Bookmark { .. } => {}
            Change::Record { version, key, record } => self.put(version, key, record),
            Change::Replaced { version, former, key, record } => {
                self.put(version, former, None);
                self.put(version, key, record);
            }
        }
    }

    fn put(&mut self, version: Version, key: StoreKey, record: Option<StoreRecord>) {
        match (key, record) {
            (StoreKey::Session(session), Some(StoreRecord::Session { record, member }))
                if record.dead.is_none() =>
            {
                self.sessions.insert(session, member);
            }
            (StoreKey::Session(session), _) => {
                self.sessions.remove(&session);
            }
            (StoreKey::Lock(name), Some(StoreRecord::Lock { record, holder, term })) => {
                self.locks.insert(name, Lock { version, record, holder, term });
            }
            (StoreKey::Lock(name), _) => {
                self.locks.remove(&name);
            }
            (StoreKey::Request(name), Some(StoreRecord::Request(request))) => {
                self.requests.insert(name, (version, request));
            }
            (StoreKey::Request(name), _) => {
                self.requests.remove(&name);
            }
        }
    }

    fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        for member in self.sessions.values() {
            if !members.contains(member) {
                members.push(member.clone());
            }
        }
        members
    }

    /// The members that are asked to be drained, each with its requests: one may go by several names.
    fn drained(&self) -> Vec<(SmolStr, Vec<(Version, Request)>)> {
        let mut drained = BTreeMap::<SmolStr, Vec<_>>::new();
        for (version, request) in self.requests.values() {
            if let Request::Drain { member, done_by } = request {
                let name = done_by.as_ref().unwrap_or(member).clone();
                drained.entry(name).or_default().push((*version, request.clone()));
            }
        }
        drained.into_iter().collect()
    }
}

impl LeaseOperator {
    /// An operator of the group whose records are in `store`.
    #[must_use]
    pub fn new(store: impl LeaseStore, timing: &Settings) -> Self {
        Self { store: Arc::new(store), patience: timing.attempt_timeout(), pause: timing.retry_pause() }
    }

    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.patience, request)
            .await
            .unwrap_or_else(|_| Err(StoreError::unknown("the store did not answer in time")))
    }

    async fn look(&self) -> Result<Picture, OperatorError> {
        self.in_time(self.store.list()).await.map(Picture::of).map_err(unreachable)
    }

    async fn watch_from(&self, picture: &Picture) -> Result<Box<dyn LeaseWatch>, OperatorError> {
        self.in_time(self.store.watch(picture.version)).await.map_err(unreachable)
    }

    /// Makes a request, in the place of one that was forgotten there.
    async fn ask(&self, picture: &Picture, request: &Request) -> Result<Version, OperatorError> {
        let key = StoreKey::Request(request.name());
        if let Some((version, _)) = picture.requests.get(&request.name()) {
            self.in_time(self.store.delete(key.clone(), *version)).await.map_err(unreachable)?;
        }
        let write = Write::new(key, Precondition::Absent, StoreRecord::Request(request.clone()));
        match self.in_time(self.store.write(write, Attempt::default())).await {
            Ok(version) => Ok(version),
            Err(StoreError::Conflict) => {
                let text = "somebody else has asked for the same at the same time; try again";
                Err(OperatorError::NotAsked(text.into()))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Follows the group until `done` says what it was waited for.
    async fn follow<T>(
        &self,
        mut picture: Picture,
        watch: Box<dyn LeaseWatch>,
        mut done: impl FnMut(&Picture) -> Option<T>,
    ) -> T {
        let mut open = Some(watch);
        loop {
            match self.watch(&mut picture, open.take(), &mut done).await {
                Ok(found) => return found,
                Err(error) => debug!("the watch of an operator failed: {}", Chain(&error)),
            }
            sleep(self.pause).await;
            if let Ok(listing) = self.in_time(self.store.list()).await {
                picture = Picture::of(listing);
            }
        }
    }

    async fn watch<T>(
        &self,
        picture: &mut Picture,
        mut open: Option<Box<dyn LeaseWatch>>,
        done: &mut impl FnMut(&Picture) -> Option<T>,
    ) -> Result<T, StoreError> {
        loop {
            if let Some(found) = done(picture) {
                return Ok(found);
            }
            let mut watch = match open.take() {
                Some(watch) => watch,
                None => self.in_time(self.store.watch(picture.version)).await?,
            };
            while let Some(change) = watch.next().await? {
                picture.apply(change);
                if let Some(found) = done(picture) {
                    return Ok(found);
                }
            }
            // It ended in good order, and goes on from there.
            sleep(self.pause).await;
        }
    }

    async fn forget(&self, request: &Request, version: Version) -> Result<(), OperatorError> {
        match self.in_time(self.store.delete(StoreKey::Request(request.name()), version)).await {
            // Somebody else has removed it.
            Ok(()) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(unreachable(error)),
        }
    }
}

/// What an operator sees of a lock that changes hands.
struct Progress {
    from: SmolStr,
    before: Lock,
    /// When the former leader released it, and its last term.
    released: Option<(Instant, u64)>,
}

impl Progress {
    fn look(&mut self, lock: &LockName, picture: &Picture) -> Option<Result<Handover, String>> {
        let Some(now) = picture.locks.get(lock) else {
            return Some(Err(format!("the record of `{lock}` was deleted meanwhile")));
        };
        if (now.record.holder, now.record.claim) == (self.before.record.holder, self.before.record.claim) {
            self.before.record.settled = now.record.settled;
            return None;
        }
        let Some(to) = &now.holder else {
            // A release writes down the term that it ends.
            self.released.get_or_insert((Instant::now(), now.record.term));
            return None;
        };
        // A release that was not seen is known by the session: a lock is taken from a dead one alone.
        let is_alive = self.before.record.holder.is_some_and(|holder| picture.sessions.contains_key(&holder));
        let unseen = is_alive.then(|| (Instant::now(), self.before.term()));
        let released = self.released.or(unseen);
        let from_term = released.map_or(self.before.term(), |(_, term)| term);
        let (from, to_term) = (self.from.clone(), now.term());
        if *to == from {
            let text = format!(
                "nobody else took `{lock}` over: {from} released it after term {from_term} and leads again, term {to_term}"
            );
            return Some(Err(text));
        }
        let after = released.map(|(at, _)| at.elapsed());
        Some(Ok(Handover { from, from_term, to: to.clone(), to_term, after }))
    }

    fn how_far(&self, lock: &LockName, patience: Duration) -> String {
        let from = &self.from;
        match self.released {
            Some((_, term)) => {
                format!("{from} released `{lock}` after term {term}, and nobody took it within {patience:?}")
            }
            None if !self.before.record.settled => format!(
                "{from} has claimed `{lock}` and has not led it within {patience:?}: it waits, because an earlier leader \
                 may still work; it is no longer asked"
            ),
            None => format!(
                "{from} has not released `{lock}` within {patience:?}: if it hears us, work under the lock is still \
                 running, and the lock changes hands when that has ended"
            ),
        }
    }
}

#[async_trait]
impl Operator for LeaseOperator {
    async fn hand_over(&self, lock: &LockName, patience: Duration) -> Result<Handover, OperatorError> {
        let picture = self.look().await?;
        let Some(before) = picture.locks.get(lock).cloned() else {
            let there = picture.locks.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() { "none" } else { &there };
            let text = format!("there is no lock `{lock}`; there are: {there}");
            return Err(OperatorError::NotAsked(text));
        };
        let (Some(holder), Some(from)) = (before.record.holder, before.holder.clone()) else {
            return Err(OperatorError::NotAsked(format!("nobody leads `{lock}`")));
        };
        if !picture.sessions.contains_key(&holder) {
            let text =
                format!("{from}, the holder of `{lock}`, has ended; another member takes it by itself");
            return Err(OperatorError::NotAsked(text));
        }
        let request = Request::HandOver { lock: lock.clone(), holder, claim: before.record.claim };
        // What happens at once is seen when it happens.
        let watch = self.watch_from(&picture).await?;
        let version = self.ask(&picture, &request).await?;
        let mut progress = Progress { from, before, released: None };
        let outcome =
            timeout(patience, self.follow(picture, watch, |picture| progress.look(lock, picture))).await;
        let forgotten = self.forget(&request, version).await;
        match outcome {
            Ok(Ok(handover)) => forgotten.map(|()| handover),
            Ok(Err(text)) => Err(OperatorError::NotDone(text)),
            Err(_) => Err(OperatorError::NotDone(progress.how_far(lock, patience))),
        }
    }

    async fn drain(&self, member: Option<&str>, patience: Duration) -> Result<SmolStr, OperatorError> {
        let picture = self.look().await?;
        let members = picture.members();
        let known = "members that hold or have held something";
        let name: SmolStr = match member {
            // A member that never held anything is in no record, so it may be any name.
            Some(name) => name.into(),
            None => {
                select_member(None, &members, |member| member.id.to_string(), is_called, known)?.id.clone()
            }
        };
        let request = Request::Drain { member: name.clone(), done_by: None };
        let watch = self.watch_from(&picture).await?;
        let asked = match picture.requests.get(&request.name()) {
            Some((version, _)) => *version,
            None => self.ask(&picture, &request).await?,
        };
        let done = |picture: &Picture| match picture.requests.get(&request.name()) {
            Some((_, Request::Drain { done_by, .. })) => done_by.clone().map(Ok),
            // Not seen yet, or gone again.
            _ if picture.version < asked => None,
            _ => Some(Err(OperatorError::NotDone(format!("somebody has let {name} go on meanwhile")))),
        };
        match timeout_at(Instant::now() + patience, self.follow(picture, watch, done)).await {
            Ok(outcome) => outcome,
            Err(_) if members.iter().any(|member| is_called(member, &name)) => {
                Err(OperatorError::NotDone(format!(
                    "{name} has not given up everything within {patience:?}: work under its locks may still be \
                     running; it stays asked until `drain --undo`"
                )))
            }
            Err(_) => {
                let _ = self.forget(&request, asked).await;
                let there = members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>().join(", ");
                Err(OperatorError::NotDone(format!(
                    "no member called {name} has answered within {patience:?}, and it is no longer asked; {known}: {there}"
                )))
            }
        }
    }

    async fn undrain(&self, member: Option<&str>) -> Result<SmolStr, OperatorError> {
        type Drained = (SmolStr, Vec<(Version, Request)>);
        let drained = self.look().await?.drained();
        let is_called = |(id, requests): &Drained, name: &str| {
            let mut names = requests.iter().map(|(_, request)| request);
            id == name
                || names.any(|request| matches!(request, Request::Drain { member, .. } if member == name))
        };
        let shown = |(id, _): &Drained| id.to_string();
        let (id, requests) = select_member(member, &drained, shown, is_called, "drained are")?;
        for (version, request) in requests {
            self.forget(request, *version).await?;
        }
        Ok(id.clone())
    }
}

fn unreachable(error: StoreError) -> OperatorError {
    let text = "the records of the election could not be read or written".to_owned();
    ClusterError::Unusable(text, Some(error.into())).into()
}
