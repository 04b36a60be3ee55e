//! Names: what locks and sessions are called, in the store, in the core, and by humans.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use router_core::cluster::backend::time_of_day;
use router_core::cluster::{Leader, LockName, Member};
use smol_str::SmolStr;
use tokio::time::Instant;
use tracing::warn;

use crate::clocks::Clocks;
use crate::event::Event;
use crate::record::{
    Death, Entry, Key, Limits, LockId, LockRecord, Record, SessionId, SessionRecord, Version,
};
use crate::request::Request;
use crate::settings::Settings;
use crate::store::{Change, Listing, StoreKey, StoreRecord};

/// What this process knows of the group, beside what its core does.
pub(crate) struct Directory {
    local: Member,
    timing: Settings,
    ids: HashMap<LockName, LockId>,
    names: Vec<LockName>,
    sessions: BTreeMap<SessionId, Peer>,
    locks: HashMap<LockId, Known>,
    /// What operators ask, by name.
    requests: BTreeMap<SmolStr, (Version, Request)>,
    /// Why this member could claim what it has claimed: the claim, and what was known when it was sent. It
    /// came through only if that was still so.
    claims: HashMap<LockId, (u64, SmolStr)>,
    /// Why a lock is led after a wait only, and whether it is claimed for that.
    waits: HashMap<LockId, (SmolStr, bool)>,
    /// Members with another timing, which were named in the log.
    different: HashSet<SmolStr>,
    /// The greatest terms that were told before the store's history went back.
    former_terms: HashMap<LockId, u64>,
    /// The formats of records that this program cannot read; they were named in the log.
    newer: HashMap<StoreKey, SmolStr>,
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
    /// It is of a history that went back, and was not heard of since: it says nothing about the present.
    former: bool,
}

impl Peer {
    fn silence(&self, now: Clocks) -> Duration {
        now.standby.saturating_sub(self.heard)
    }

    /// How long it is watched before it is declared dead.
    fn wait(&self, timing: &Settings) -> Duration {
        timing.wait_for(self.record.limits.map(|limits| limits.rest()).unwrap_or_default())
    }
}

fn shown(limits: Limits) -> String {
    let Limits { deadline, stop, rate_error_ppm } = limits;
    format!("deadline {deadline:?}, stop {stop:?}, clock error {} %", f64::from(rate_error_ppm) / 10_000.0)
}

struct Known {
    record: LockRecord,
    /// The name of its holder, as the record has it.
    holder: Option<SmolStr>,
    /// The number of the term of its holder. Until its leader has written it down, it is taken from the version of
    /// the claim, or after a list from that of a later write; nothing but messages depends on it.
    term: u64,
    /// Whether its leader has written it down.
    term_is_said: bool,
    /// Why its holder could claim it, where that was seen.
    why: SmolStr,
}

impl Known {
    fn is_same_claim(&self, record: &LockRecord) -> bool {
        (self.record.holder, self.record.claim) == (record.holder, record.claim)
    }
}

impl Directory {
    pub(crate) fn new(local: Member, timing: Settings) -> Self {
        Self {
            local,
            timing,
            ids: HashMap::new(),
            names: Vec::new(),
            sessions: BTreeMap::new(),
            locks: HashMap::new(),
            requests: BTreeMap::new(),
            claims: HashMap::new(),
            waits: HashMap::new(),
            different: HashSet::new(),
            former_terms: HashMap::new(),
            newer: HashMap::new(),
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
                (peer.heard, peer.former) = (former.heard, former.former);
            }
        }
        // Nor does it say why: what came in between was missed.
        for (id, known) in &mut self.locks {
            match former_locks.get(id).filter(|former| former.is_same_claim(&known.record)) {
                Some(former) => {
                    known.why = former.why.clone();
                    if !known.term_is_said {
                        known.term = former.term;
                    }
                }
                None => known.why = SmolStr::default(),
            }
        }
        Event::Snapshot { version: listing.version, entries }
    }

    /// Takes the first list of a new history into account: what it shows was written before that began.
    pub(crate) fn listed_anew(&mut self, listing: Listing, now: Clocks) -> Event {
        for (id, known) in self.locks.drain() {
            let greatest = self.former_terms.entry(id).or_default();
            *greatest = known.term.max(*greatest);
        }
        self.sessions.clear();
        let event = self.listed(listing, now);
        for peer in self.sessions.values_mut() {
            peer.former = true;
        }
        event
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
        if let Some(StoreRecord::Newer { format }) = record {
            return self.note_newer(key, format);
        }
        self.newer.remove(&key);
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
                        self.compare_timing(&member, record);
                        self.sessions.insert(
                            session,
                            Peer {
                                member,
                                record,
                                version,
                                buried: false,
                                heard: now.standby,
                                former: false,
                            },
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
                    Some(StoreRecord::Lock { record, holder, term }) => {
                        self.note_lock(id, version, record, holder, term);
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

    /// A record that this program cannot read. What is asked in such a one is left as it was.
    fn note_newer(&mut self, key: StoreKey, format: SmolStr) -> Option<(Key, Option<Record>)> {
        let known = self.newer.insert(key.clone(), format.clone());
        let what = match &key {
            StoreKey::Lock(name) => format!("the record of `{name}`"),
            StoreKey::Session(session) => format!("the session {session}"),
            StoreKey::Request(name) => format!("the request `{name}`"),
        };
        if known.as_ref() != Some(&format) {
            warn!(
                "{what} has the format {format}, which a newer version of this program writes and this one cannot \
                 read: its writer counts as alive, and this member stands by; update it"
            );
        }
        let key = match key {
            StoreKey::Lock(name) => {
                let id = self.id(&name);
                self.locks.remove(&id);
                Key::Lock(id)
            }
            StoreKey::Session(session) => {
                self.sessions.remove(&session);
                Key::Session(session)
            }
            StoreKey::Request(_) => return None,
        };
        Some((key, Some(Record::Newer)))
    }

    /// Members wait for each other as they must, but a takeover then takes as long as the slowest of them says.
    fn compare_timing(&mut self, member: &Member, record: SessionRecord) {
        let (Some(theirs), own) = (record.limits, self.timing.limits()) else { return };
        // Where a record says less, the store makes one time of all, and there is nothing to compare.
        let unknown = theirs.stop.is_zero();
        if theirs == own || unknown || record.dead.is_some() || !self.different.insert(member.id.clone()) {
            return;
        }
        let wait = self.timing.wait_for(theirs.rest());
        warn!(
            %member,
            "{member} has another timing than this member: {} there, {} here; this member waits {wait:.1?} before it \
             takes a lock from it; give all members of a group the same timing",
            shown(theirs), shown(own),
        );
    }

    /// What operators ask, with the versions of the records.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &(Version, Request)> {
        self.requests.values()
    }

    fn note_lock(
        &mut self,
        id: LockId,
        version: Version,
        record: LockRecord,
        holder: Option<SmolStr>,
        said: Option<u64>,
    ) {
        let (term, why) = match self.locks.get(&id) {
            Some(known) if known.is_same_claim(&record) => (known.term, known.why.clone()),
            _ => (version.max(record.term), self.why_open(id).into()),
        };
        let (term, term_is_said) = (said.unwrap_or(term), said.is_some());
        self.locks.insert(id, Known { record, holder, term, term_is_said, why });
    }

    /// The lock is about to be claimed, to be led after a wait.
    pub(crate) fn note_wait(&mut self, lock: LockId, why: &str) {
        self.waits.insert(lock, (why.into(), false));
    }

    fn note_claim(&mut self, lock: LockId, claim: u64) {
        if self.claims.get(&lock).is_some_and(|(known, _)| *known == claim) {
            return;
        }
        let why = match self.waits.get_mut(&lock) {
            Some((why, claimed @ false)) => {
                *claimed = true;
                format!("the takeover wait is over that began because {why}").into()
            }
            _ => {
                self.waits.remove(&lock);
                self.why_open(lock).into()
            }
        };
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
                // A record of another holder is written only with what it says of the term.
                let same = self.locks.get(&id).filter(|known| known.is_same_claim(&record));
                let holder = match same {
                    Some(known) => record.holder.and_then(|_| known.holder.clone()),
                    None => record.holder.map(|_| self.local.id.clone()),
                };
                // The leader knows its number; others write it down only where it has done so.
                let known = same.filter(|_| record.holder.is_some());
                let known =
                    known.filter(|known| known.term_is_said || known.holder == Some(self.local.id.clone()));
                let term = known.map(|known| known.term);
                if record.holder.is_some() && same.is_none() {
                    self.note_claim(id, record.claim);
                }
                (StoreKey::Lock(self.name(id)?.clone()), StoreRecord::Lock { record, holder, term })
            }
            _ => return None,
        })
    }

    /// Who leads a lock: who holds it, owes no wait, and was heard of within the time for which it is watched.
    pub(crate) fn leader(&self, lock: LockId, now: Clocks) -> Option<Leader> {
        let (known, peer) = self.holder(lock)?;
        let heard = peer.silence(now) < peer.wait(&self.timing);
        let alive = peer.record.dead.is_none() && heard && !peer.former;
        let leads = known.record.settled && alive && !self.is_below_former(lock, known.term);
        leads.then(|| Leader { member: peer.member.clone(), term: known.term, why: known.why.clone() })
    }

    fn is_below_former(&self, lock: LockId, term: u64) -> bool {
        self.former_terms.get(&lock).is_some_and(|former| term <= *former)
    }

    /// Why the record of a lock does not tell who leads it, where it is of a history that went back.
    pub(crate) fn why_former(&self, lock: LockId) -> Option<String> {
        let (known, peer) = self.holder(lock).filter(|(_, peer)| peer.record.dead.is_none())?;
        let Peer { member, former, .. } = peer;
        if *former {
            // Its number may be one that a member has raised since.
            return Some(format!(
                "the store was restored from a backup, so that {member} led it says nothing about now"
            ));
        }
        let greatest = self.former_terms.get(&lock).filter(|_| self.is_below_former(lock, known.term))?;
        Some(format!(
            "{member} has it in term {}, which is not above term {greatest} of before the store was restored from a \
             backup",
            known.term
        ))
    }

    fn holder(&self, lock: LockId) -> Option<(&Known, &Peer)> {
        let known = self.locks.get(&lock)?;
        Some((known, self.sessions.get(&known.record.holder?)?))
    }

    /// How long until the holder of a lock counts as silent, if nothing is heard of it and it is not silent yet.
    pub(crate) fn silent_in(&self, lock: LockId, now: Clocks) -> Option<Duration> {
        let (_, peer) = self.holder(lock).filter(|(_, peer)| peer.record.dead.is_none())?;
        peer.wait(&self.timing).checked_sub(peer.silence(now))
    }

    /// Why a lock that this member does not hold has no leader, by its records.
    pub(crate) fn why_vacant(&self, lock: LockId, now: Clocks) -> String {
        match self.holder(lock) {
            Some((known, peer @ Peer { member, record, .. })) if record.dead.is_none() => {
                let heard = peer.silence(now);
                if known.record.settled {
                    let since = time_of_day(Instant::now().checked_sub(heard).unwrap_or_else(Instant::now));
                    format!("{member} held it in term {} and is silent since {since}", known.term)
                } else {
                    format!(
                        "{member} has claimed it and waits before it leads, because an earlier leader may still work"
                    )
                }
            }
            Some((known, Peer { member, .. })) => {
                format!(
                    "{member} held it in term {} and has ended, and no member has taken it since",
                    known.term
                )
            }
            None => match self.locks.get(&lock).map(|known| known.record) {
                None => self.why_unreadable(self.name(lock).map(|name| StoreKey::Lock(name.clone()))),
                Some(LockRecord { holder: Some(holder), .. }) => {
                    self.why_unreadable(Some(StoreKey::Session(holder)))
                }
                Some(record) if record.is_unknown() => {
                    "its record was not written by a member, and no member has claimed it".into()
                }
                Some(_) => "it is free, and no member has taken it".into(),
            },
        }
    }

    /// Why nothing is known of a record.
    fn why_unreadable(&self, key: Option<StoreKey>) -> String {
        match key.as_ref().and_then(|key| self.newer.get(key)) {
            Some(format) => format!(
                "its record has the format {format}, which only a newer version of this program reads"
            ),
            None if matches!(key, Some(StoreKey::Session(_))) => {
                "the session of its holder is gone, and the takeover wait runs".into()
            }
            None => "it has no record, because no member has led it yet or its record was deleted".into(),
        }
    }

    /// Whose claim it was that an unsettled record is of, and why it owes a wait. `own`: the session of this member.
    pub(crate) fn why_unsettled(&self, lock: LockId, own: SessionId) -> String {
        let holder = self.locks.get(&lock).and_then(|known| known.record.holder);
        let Some(holder) = holder else {
            return "a claim on it was given up before its own wait was over".into();
        };
        let claimant = match self.sessions.get(&holder) {
            _ if holder.incarnation == own.incarnation => "this member, in an earlier session,".to_owned(),
            Some(peer) => peer.member.to_string(),
            None => "another member".into(),
        };
        format!("{claimant} claimed it earlier and did not serve its own wait")
    }

    /// Why this member owes a wait before it leads.
    pub(crate) fn why_wait(&self, lock: LockId) -> &str {
        self.waits.get(&lock).map_or("an earlier leader may still work until then", |(why, _)| why)
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
        if known.record.is_unknown() {
            return "its record was not written by a member, and the takeover wait is over".into();
        }
        let Some(holder) = known.record.holder else {
            return match known.record {
                LockRecord { settled: false, .. } => {
                    "a claim on it was given up before its wait was over, and the takeover wait is over"
                }
                LockRecord { term: 0, .. } => "the lock was free",
                _ => "it was released",
            }
            .into();
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
    pub(crate) fn members(&self, now: Clocks, others: &[Member]) -> Vec<Member> {
        let mut members = vec![self.local.clone()];
        for peer in self.sessions.values() {
            let live =
                peer.record.dead.is_none() && !peer.former && peer.silence(now) < peer.wait(&self.timing);
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

    /// A session that no lock names and that has been dead for at least this many takeover waits, or silent for
    /// ten times as long, and its version: a member that crashed while it held nothing is never declared dead.
    /// Each is given once, until a list shows that it still exists. If a silent one is alive after all, it holds
    /// nothing, and goes on with another session.
    pub(crate) fn remove_expired(&mut self, now: Clocks, waits: u32) -> Option<(SessionId, Version)> {
        let (locks, timing) = (&self.locks, &self.timing);
        let (session, peer) = self.sessions.iter_mut().find(|(session, peer)| {
            let rest = peer.wait(timing).saturating_mul(waits);
            let rest = if peer.record.dead.is_some() { rest } else { rest.saturating_mul(SILENCE) };
            let rested = peer.silence(now) >= rest;
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
