//! Names: what locks and sessions are called, in the store, in the core, and by humans.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use router_core::cluster::{Leader, LockName, Member};
use smol_str::SmolStr;

use crate::clocks::Clocks;
use crate::event::Event;
use crate::record::{Death, Entry, Key, LockId, LockRecord, Record, SessionId, SessionRecord, Version};
use crate::request::Request;
use crate::store::{Change, Listing, StoreKey, StoreRecord};

/// What this process knows of the group, beside what its core does.
pub(crate) struct Directory {
    local: Member,
    ids: HashMap<LockName, LockId>,
    names: Vec<LockName>,
    sessions: BTreeMap<SessionId, Peer>,
    locks: HashMap<LockId, Known>,
    /// What operators ask, by name.
    requests: BTreeMap<SmolStr, (Version, Request)>,
    /// Why this member could claim what it has claimed: the claim, and what was known when it was sent. It
    /// came through only if that was still so.
    claims: HashMap<LockId, (u64, SmolStr)>,
    /// Why a lock has no record, until it is claimed.
    missing: HashMap<LockId, SmolStr>,
}

/// How much longer than a dead session a silent one is kept.
const SILENCE: u32 = 10;

struct Peer {
    member: Member,
    record: SessionRecord,
    version: Version,
    /// It ended long ago, and this process has asked for its removal.
    buried: bool,
    /// When it was last heard of, by the standby's clock.
    heard: Duration,
}

struct Known {
    record: LockRecord,
    /// The number of the term of its holder. After a list it may be that of a later write of the same
    /// term; nothing but messages depends on it.
    term: u64,
    /// Why its holder could claim it, where that was seen.
    why: SmolStr,
}

impl Known {
    fn is_same_claim(&self, record: &LockRecord) -> bool {
        (self.record.holder, self.record.claim) == (record.holder, record.claim)
    }
}

impl Directory {
    pub(crate) fn new(local: Member) -> Self {
        Self {
            local,
            ids: HashMap::new(),
            names: Vec::new(),
            sessions: BTreeMap::new(),
            locks: HashMap::new(),
            requests: BTreeMap::new(),
            claims: HashMap::new(),
            missing: HashMap::new(),
        }
    }

    /// The number of a lock within this process.
    pub(crate) fn id(&mut self, name: &LockName) -> LockId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        // Four billion names would not fit into memory.
        let id = LockId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.clone());
        self.ids.insert(name.clone(), id);
        id
    }

    pub(crate) fn known_id(&self, name: &LockName) -> Option<LockId> {
        self.ids.get(name).copied()
    }

    pub(crate) fn name(&self, id: LockId) -> Option<&LockName> {
        self.names.get(usize::try_from(id.0).unwrap_or(usize::MAX))
    }

    /// Takes a list into account and translates it for the core.
    pub(crate) fn listed(&mut self, listing: Listing, now: Clocks) -> Event {
        let former = std::mem::take(&mut self.sessions);
        let former_locks = std::mem::take(&mut self.locks);
        self.requests.clear();
        let mut entries = Vec::with_capacity(listing.entries.len());
        for entry in listing.entries {
            let noted = self.note(entry.version, entry.key, Some(entry.record), now);
            if let Some((key, Some(record))) = noted {
                entries.push(Entry { version: entry.version, key, record });
            }
        }
        // A list says what there is, not that it has just been heard of.
        for (session, peer) in &mut self.sessions {
            if let Some(former) = former.get(session).filter(|former| former.record == peer.record) {
                peer.heard = former.heard;
            }
        }
        // Nor does it say why: what came in between was missed.
        for (id, known) in &mut self.locks {
            match former_locks.get(id).filter(|former| former.is_same_claim(&known.record)) {
                Some(former) => (known.term, known.why) = (former.term, former.why.clone()),
                None => known.why = SmolStr::default(),
            }
        }
        Event::Snapshot { version: listing.version, entries }
    }

    /// Takes a change into account and translates it for the core.
    pub(crate) fn changed(&mut self, change: Change, now: Clocks) -> Event {
        match change {
            Change::Bookmark { version } => Event::Progress { version },
            Change::Record { version, key, record } => match self.note(version, key, record, now) {
                Some((key, record)) => Event::Changed { version, key, record },
                None => Event::Progress { version },
            },
            Change::Replaced { version, former, key, record } => {
                let former = self.note(version, former, None, now);
                match (former, self.note(version, key, record, now)) {
                    (Some((former, _)), Some((key, record))) => {
                        Event::Replaced { version, former, key, record }
                    }
                    (Some((key, record)), None) | (None, Some((key, record))) => {
                        Event::Changed { version, key, record }
                    }
                    (None, None) => Event::Progress { version },
                }
            }
        }
    }

    /// What is in it for the core; `None`: nothing.
    fn note(
        &mut self,
        version: Version,
        key: StoreKey,
        record: Option<StoreRecord>,
        now: Clocks,
    ) -> Option<(Key, Option<Record>)> {
        Some(match key {
            StoreKey::Request(name) => {
                match record {
                    Some(StoreRecord::Request(request)) => {
                        self.requests.insert(name, (version, request));
                    }
                    _ => {
                        self.requests.remove(&name);
                    }
                }
                return None;
            }
            StoreKey::Session(session) => {
                let record = match record {
                    Some(StoreRecord::Session { record, member }) => {
                        self.sessions.insert(
                            session,
                            Peer { member, record, version, buried: false, heard: now.standby },
                        );
                        Some(Record::Session(record))
                    }
                    _ => {
                        self.sessions.remove(&session);
                        None
                    }
                };
                (Key::Session(session), record)
            }
            StoreKey::Lock(name) => {
                let id = self.id(&name);
                let record = match record {
                    Some(StoreRecord::Lock { record, .. }) => {
                        self.note_lock(id, version, record);
                        Some(Record::Lock(record))
                    }
                    _ => {
                        self.locks.remove(&id);
                        None
                    }
                };
                (Key::Lock(id), record)
            }
        })
    }

    /// What operators ask, with the versions of the records.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &(Version, Request)> {
        self.requests.values()
    }

    fn note_lock(&mut self, id: LockId, version: Version, record: LockRecord) {
        let (term, why) = match self.locks.get(&id) {
            Some(known) if known.is_same_claim(&record) => (known.term, known.why.clone()),
            _ => (version.max(record.epoch), self.why_open(id).into()),
        };
        self.locks.insert(id, Known { record, term, why });
    }

    /// The lock is about to be claimed although it has no record.
    pub(crate) fn note_missing(&mut self, lock: LockId, why: &str) {
        self.missing.insert(lock, format!("the takeover wait is over that began because {why}").into());
    }

    fn note_claim(&mut self, lock: LockId, claim: u64) {
        if self.claims.get(&lock).is_some_and(|(known, _)| *known == claim) {
            return;
        }
        let why = self.missing.remove(&lock).unwrap_or_else(|| self.why_open(lock).into());
        self.claims.insert(lock, (claim, why));
    }

    /// The record in the form of the store, with the names that humans want.
    pub(crate) fn for_store(&mut self, key: Key, record: Record) -> Option<(StoreKey, StoreRecord)> {
        Some(match (key, record) {
            (Key::Session(session), Record::Session(record)) => {
                let member = self.sessions.get(&session).map_or(&self.local, |peer| &peer.member).clone();
                (StoreKey::Session(session), StoreRecord::Session { record, member })
            }
            (Key::Lock(id), Record::Lock(record)) => {
                if record.holder.is_some() {
                    self.note_claim(id, record.claim);
                }
                // The core writes no other holder than its own session.
                let holder = record.holder.map(|_| self.local.id.clone());
                (StoreKey::Lock(self.name(id)?.clone()), StoreRecord::Lock { record, holder })
            }
            _ => return None,
        })
    }

    /// Who leads a lock, as far as the view shows.
    pub(crate) fn leader(&self, lock: LockId) -> Option<Leader> {
        let known = self.locks.get(&lock)?;
        let peer = self.sessions.get(&known.record.holder?)?;
        Some(Leader { member: peer.member.clone(), term: known.term, why: known.why.clone() })
    }

    /// Why this member leads a lock, for the log.
    pub(crate) fn why(&self, lock: LockId) -> SmolStr {
        let known = self.locks.get(&lock);
        let why = known.map(|known| known.why.clone()).filter(|why| !why.is_empty());
        let claimed = || {
            let (claim, why) = self.claims.get(&lock)?;
            known.is_some_and(|known| known.record.claim == *claim).then(|| why.clone())
        };
        why.or_else(claimed).unwrap_or_else(|| "its claim came through".into())
    }

    /// Why a lock can be claimed as it is now.
    fn why_open(&self, lock: LockId) -> String {
        let Some(known) = self.locks.get(&lock) else {
            return "its record did not exist, and the takeover wait is over".into();
        };
        let Some(holder) = known.record.holder else {
            return if known.record.epoch == 0 { "the lock was free" } else { "it was released" }.into();
        };
        match self.sessions.get(&holder) {
            None => "the session of its holder is gone, and the takeover wait is over".into(),
            Some(Peer { member, record, .. }) => match record.dead {
                Some(Death::Expired) => format!("{member} was silent for the whole takeover wait"),
                Some(Death::Proof) => format!("{member} has ended"),
                Some(Death::Weak) => format!("{member} was reported gone, and the takeover wait is over"),
                None => format!("{member} was its holder"),
            },
        }
    }

    /// The members that hold or take something, this one, and those of the others that are none of these:
    /// one that stands by has no session, so only somebody else can know of it.
    pub(crate) fn members(&self, now: Clocks, within: Duration, others: &[Member]) -> Vec<Member> {
        let mut members = vec![self.local.clone()];
        for peer in self.sessions.values() {
            let live = peer.record.dead.is_none() && now.standby.saturating_sub(peer.heard) < within;
            if live && !members.contains(&peer.member) {
                members.push(peer.member.clone());
            }
        }
        for other in others {
            let is_known =
                |known: &Member| known.id == other.id || (other.host.is_some() && known.host == other.host);
            if !members.iter().any(is_known) {
                members.push(other.clone());
            }
        }
        members
    }

    /// A session that no lock names and that has been dead for at least this long, or silent for ten times
    /// as long, and its version: a member that crashed while it held nothing is never declared dead. Each is
    /// given once, until a list shows that it still exists. If a silent one is alive after all, it holds
    /// nothing, and goes on with another session.
    pub(crate) fn bury(&mut self, now: Clocks, rest: Duration) -> Option<(SessionId, Version)> {
        let locks = &self.locks;
        let (session, peer) = self.sessions.iter_mut().find(|(session, peer)| {
            let rest = if peer.record.dead.is_some() { rest } else { rest.saturating_mul(SILENCE) };
            let rested = now.standby.saturating_sub(peer.heard) >= rest;
            let is_named = || locks.values().any(|lock| lock.record.holder == Some(**session));
            rested && !peer.buried && !is_named()
        })?;
        peer.buried = true;
        Some((*session, peer.version))
    }

    /// A session that exists and is not dead.
    pub(crate) fn live(&self, session: SessionId) -> Option<(Version, SessionRecord)> {
        let peer = self.sessions.get(&session).filter(|peer| peer.record.dead.is_none())?;
        Some((peer.version, peer.record))
    }

    /// The sessions that exist and are not dead.
    pub(crate) fn sessions(&self) -> Vec<(SessionId, Member)> {
        let live = self.sessions.iter().filter(|(_, peer)| peer.record.dead.is_none());
        live.map(|(session, peer)| (*session, peer.member.clone())).collect()
    }
}
