//! [`ConfigMapStore`]: the compatibility mode as the election's store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::{
    Attempt, Death, LeaseStore, LeaseWatch, Limits, Listing, LockEntry, LockRecord, Precondition, SessionId,
    SessionRecord, StoreEntry, StoreError, StoreKey, StoreRecord, Version, Write,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use router_core::cluster::{LockName, Member};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::judge::{Judge, Judgement, is_of_a_pod, session_of};
use super::layout::{Claim, LeaderState, Words, check_room, encode, locks, put_question, question, states};
use super::rivals::{Question, Rivals, Sign};
use crate::clients::Clients;
use crate::codec::version;
use crate::errors::{self, RequestContext, Who};
use crate::pods::Pods;
use crate::rules::CONFIG_MAPS;

/// How often a write is tried again because another lock's entry was changed in between.
const TRIES: usize = 5;
/// Looks are counted from here, above all resourceVersions: a list is as new as its look.
const FIRST_LOOK: Version = 1 << 62;

/// One ConfigMap with the entries of all locks.
///
/// The election needs sessions, locks, and an ordered view of both. Here:
///
/// - *A heartbeat is a look*: one GET without a resourceVersion, which the server answers from a quorum. A look
///   that shows an own claim proves that the claim stood after the look, and so after the heartbeat, was
///   sent. That is the echo from which deadlines count, as in [`list`](LeaseStore::list), which shows what the
///   look has seen. Own sessions are numbers in this process and cannot be lost.
/// - *Lists are ordered by when their looks were sent.* The ConfigMap in a list is the newest that was ever
///   seen. It may be newer than the answer to that very look, never older, so the echo holds.
/// - *A lock without a clean end has no record*, and the election leads such a lock only when the takeover
///   wait is over that begins after its own claim was seen. So no evidence about a pod needs to be true. No
///   look of the former leader that was sent after the claim shows it as the leader.
/// - *Every write* is a PUT with the resourceVersion and uid of the ConfigMap that was judged, or a POST.
///   When another lock's entry has changed meanwhile, the new ConfigMap is judged again.
/// - *The version of a record* is the resourceVersion of the ConfigMap in which its entries were first seen as
///   they are. The next claim of the lock makes a greater one, also after a deletion.
pub(crate) struct ConfigMapStore {
    clients: Clients,
    namespace: String,
    name: String,
    pod: String,
    period: Duration,
    pods: watch::Receiver<Pods>,
    state: Mutex<State>,
    /// All locks are in one object: own writes must not be in each other's way.
    writing: tokio::sync::Mutex<()>,
}

struct State {
    /// The newest look.
    look: Version,
    /// The own sessions, and the look that carried their last heartbeat.
    sessions: BTreeMap<SessionId, (SessionRecord, Member, Version)>,
    /// The newest ConfigMap, or that there is none; and the newest look when it was accepted.
    seen: Option<(Option<ConfigMap>, Version)>,
    /// What each lock's entries are.
    entries: HashMap<LockName, Entry>,
    /// The incarnations that this process has had.
    incarnations: BTreeSet<u128>,
    /// Other processes with the name of this pod.
    rivals: Rivals,
    /// What the last heartbeat has seen, until it is listed.
    fresh: Option<Listing>,
}

/// What the entries of a lock are.
#[derive(Clone, Default)]
struct Entry {
    words: Words,
    /// The version of the ConfigMap in which they were first seen as they are.
    since: Version,
    /// Whether they were otherwise when this process looked before.
    appeared: bool,
}

/// A look that was sent, and what it may be the echo of.
struct Look {
    number: Version,
    sessions: BTreeMap<SessionId, (SessionRecord, Member, Version)>,
}

impl ConfigMapStore {
    pub(crate) fn new(
        clients: Clients,
        (namespace, name, pod): (String, String, String),
        heartbeat: Duration,
        pods: watch::Receiver<Pods>,
    ) -> Self {
        // Camel looks about as often.
        let period = heartbeat.min(Duration::from_secs(2));
        let state = State {
            look: FIRST_LOOK,
            sessions: BTreeMap::new(),
            seen: None,
            entries: HashMap::new(),
            incarnations: BTreeSet::new(),
            rivals: Rivals::new(period),
            fresh: None,
        };
        Self {
            clients,
            namespace,
            name,
            pod,
            period,
            pods,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, verb: &'static str) -> RequestContext<'_> {
        RequestContext {
            verb,
            rule: &CONFIG_MAPS,
            namespace: &self.namespace,
            object: Some(&self.name),
            by: Who::Member,
        }
    }

    fn api(&self, client: Result<Client, kube::Error>) -> Result<Api<ConfigMap>, StoreError> {
        Ok(Api::namespaced(client.map_err(|error| errors::error(self.asked("get"), error))?, &self.namespace))
    }

    /// Looks at the ConfigMap, and lists what there is. A heartbeat comes with its session.
    async fn look(
        &self,
        heartbeat: Option<(SessionId, SessionRecord, Member)>,
        client: Result<Client, kube::Error>,
    ) -> Result<Listing, StoreError> {
        let look = self.state().begin(heartbeat);
        let api = self.api(client)?;
        let answer =
            api.get_opt(&self.name).await.map_err(|error| errors::error(self.asked("get"), error))?;
        let mut state = self.state();
        state.accept(&look, answer)?;
        Ok(self.listing(&state, look))
    }

    fn listing(&self, state: &State, look: Look) -> Listing {
        let mut entries = Vec::new();
        let mut members = BTreeMap::<String, (String, bool, Option<Limits>)>::new();
        for (lock, entry) in &state.entries {
            let said = entry.words.said(lock);
            if let LeaderState::Newer(format) = said {
                let (key, record) = (StoreKey::Lock(lock.clone()), StoreRecord::Newer { format });
                entries.push(StoreEntry { version: entry.since, key, record });
                continue;
            }
            let Judgement { record, term, other, .. } = self.judge(state, lock, entry);
            if let (LeaderState::Pod(pod, claim), true) = (said, other.is_some() || record.is_none()) {
                // Several locks may be led by one member. One that is gone may work on for as long as it said.
                let member = other.clone().unwrap_or_else(|| pod.to_owned());
                let (_, alive, limits) = members.entry(member).or_insert((pod.to_owned(), false, None));
                *alive |= other.is_some();
                *limits = longest(*limits, claim.map(|claim| claim.record));
            }
            let Some(record) = record else { continue };
            let own = record.holder.and_then(|holder| look.sessions.get(&holder));
            let holder = other.map(Into::into).or_else(|| own.map(|(_, member, _)| member.id.clone()));
            let record = StoreRecord::Lock { record, holder, term };
            entries.push(StoreEntry { version: entry.since, key: StoreKey::Lock(lock.clone()), record });
        }
        let told = members.into_iter().filter(|(_, (_, alive, limits))| *alive || limits.is_some());
        for (name, (pod, alive, limits)) in told {
            let dead = (!alive).then_some(Death::Weak);
            let record = SessionRecord { seq: look.number - FIRST_LOOK, dead, limits };
            let member = Member { host: Some(pod.into()), ..Member::new(&name) };
            let key = StoreKey::Session(session_of(&name));
            let record = StoreRecord::Session { record, member };
            entries.push(StoreEntry { version: look.number, key, record });
        }
        for (session, (record, member, version)) in look.sessions {
            let record = StoreRecord::Session { record, member };
            entries.push(StoreEntry { version, key: StoreKey::Session(session), record });
        }
        Listing { version: look.number, entries }
    }

    fn judge(&self, state: &State, lock: &LockName, entry: &Entry) -> Judgement {
        let sessions = state.sessions.keys().copied().collect::<BTreeSet<_>>();
        let (pods, incarnations) = (&self.pods.borrow(), &state.incarnations);
        let rivals = &state.rivals;
        let judge = Judge { pod: &self.pod, pods, sessions: &sessions, incarnations, rivals };
        judge.judge(lock, &entry.words, entry.appeared)
    }

    /// Asks other processes with the name of this pod whether they are alive, and answers them.
    async fn ask_and_answer(&self) {
        // Some other write may be on its way. The next look comes soon.
        let Ok(_turn) = self.writing.try_lock() else { return };
        let Some(config_map) = self.with_questions() else { return };
        match timeout(self.period, self.send(true, &config_map)).await {
            Ok(Ok(written)) => {
                let _ = self.state().written(written);
            }
            // Another member has changed it meanwhile, or there is no response: at the next look.
            Ok(Err(error)) => debug!("nothing was asked or answered in the ConfigMap: {error}"),
            Err(_) => debug!("nothing was asked or answered in the ConfigMap in time"),
        }
    }

    /// The ConfigMap with what is to be asked or answered, if there is anything.
    fn with_questions(&self) -> Option<ConfigMap> {
        let mut state = self.state();
        let mut config_map = state.seen.as_ref()?.0.clone()?;
        let (mut questions, mut rivals) = (Vec::new(), BTreeSet::new());
        for (lock, entry) in &state.entries {
            let judgement = self.judge(&state, lock, entry);
            if let Some(rival) = judgement.rival {
                rivals.insert((lock.clone(), rival));
            } else if let Some(holder) = judgement.record.and_then(|record| record.holder)
                && judgement.other.is_none()
            {
                let said = question(&config_map, lock, holder);
                questions.extend(
                    said.is_open().then(|| (lock.clone(), Question { answered: said.number, ..said })),
                );
            }
        }
        for (lock, rival) in &rivals {
            let (sign, asked) = state.rivals.look(lock, question(&config_map, lock, *rival));
            if let Some(sign) = sign {
                self.tell_of_rival(lock, *rival, sign);
            }
            questions.extend(asked.map(|question| (lock.clone(), question)));
        }
        let entries = state.entries.clone();
        let of_entry = |lock: &LockName| match entries.get(lock)?.words.said(lock) {
            LeaderState::Pod(pod, Some(Claim { record, .. })) if pod == self.pod => record.holder,
            _ => None,
        };
        state.rivals.retain(|lock, rival| of_entry(lock) == Some(rival));
        for (lock, question) in &questions {
            put_question(&mut config_map, lock, *question);
        }
        (!questions.is_empty()).then_some(config_map)
    }

    fn tell_of_rival(&self, lock: &LockName, rival: SessionId, sign: Sign) {
        let pod = &self.pod;
        let text = format!(
            "another process, {:08x}, has claimed `{lock}` under the name of this pod, {pod}: {sign}",
            rival.incarnation >> 96
        );
        match sign {
            Sign::Alive => warn!(
                %lock,
                "{text}; Camel's ConfigMap knows members by their pods alone: run one member in each pod, and give each \
                 its own POD_NAME"
            ),
            Sign::Unknown | Sign::Silent => info!(%lock, "{text}"),
        }
    }

    /// As in Camel, who is no member claims nothing: the others would not count it as a leader.
    fn check_membership(&self) -> Result<(), StoreError> {
        if self.pods.borrow().is_ready(&self.pod) {
            return Ok(());
        }
        let pod = &self.pod;
        Err(StoreError::unknown(format!(
            "this member takes no locks for now: {pod} is not among the ready pods with the labels of the members"
        )))
    }

    /// Writes the entries of a lock. Returns the look that will show them.
    async fn put(
        &self,
        lock: &LockName,
        expect: Precondition,
        (record, term, states): (LockRecord, Option<u64>, Option<&str>),
    ) -> Result<Version, StoreError> {
        let _turn = self.writing.lock().await;
        for _ in 0..TRIES {
            let Some(before) = self.judged(lock, expect)? else {
                self.look(None, self.clients.ordinary()).await?;
                continue;
            };
            let after = encode(
                before.as_ref(),
                (&self.name, &self.pod),
                lock,
                (record, term, states),
                Timestamp::now(),
            );
            if states.is_some() {
                check_room(before.as_ref(), &after).map_err(StoreError::unknown)?;
            }
            match self.send(before.is_some(), &after).await {
                Ok(written) => {
                    let mut state = self.state();
                    state.written(written)?;
                    state.fresh = None;
                    return Ok(state.look + 1);
                }
                // Another entry may have changed, or this one.
                Err(StoreError::Conflict) => {
                    self.look(None, self.clients.ordinary()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// The newest ConfigMap, if the lock in it is as expected; `None`: none was seen yet.
    fn judged(&self, lock: &LockName, expect: Precondition) -> Result<Option<Option<ConfigMap>>, StoreError> {
        let state = self.state();
        let Some((config_map, _)) = &state.seen else { return Ok(None) };
        let entry = state.entries.get(lock).cloned().unwrap_or_default();
        let record = self.judge(&state, lock, &entry).record;
        let holds = match expect {
            Precondition::Version(expected) => record.is_some() && entry.since == expected,
            _ => record.is_none(),
        };
        if holds { Ok(Some(config_map.clone())) } else { Err(StoreError::Conflict) }
    }

    async fn send(&self, exists: bool, config_map: &ConfigMap) -> Result<ConfigMap, StoreError> {
        let api = self.api(self.clients.ordinary())?;
        let params = PostParams::default();
        let (verb, answer) = if exists {
            ("update", api.replace(&self.name, &params, config_map).await)
        } else {
            ("create", api.create(&params, config_map).await)
        };
        answer.map_err(|error| errors::error(self.asked(verb), error))
    }
}

/// What takes longest of what is known of a pod and what a claim says: that its holder lives by, or that it owes.
fn longest(known: Option<Limits>, claim: Option<LockRecord>) -> Option<Limits> {
    let owed = claim.and_then(|claim| claim.owed);
    let owed = owed.map(|deadline| Limits { deadline, stop: Duration::ZERO, rate_error_ppm: 0 });
    let said = claim.and_then(|claim| claim.limits);
    [known, said, owed].into_iter().flatten().max_by_key(Limits::rest)
}

impl State {
    fn begin(&mut self, heartbeat: Option<(SessionId, SessionRecord, Member)>) -> Look {
        self.look += 1;
        if let Some((session, record, member)) = heartbeat {
            self.incarnations.insert(session.incarnation);
            self.sessions.insert(session, (record, member, self.look));
        }
        Look { number: self.look, sessions: self.sessions.clone() }
    }

    /// Takes the answer to a look. Looks overtake one another.
    fn accept(&mut self, look: &Look, answer: Option<ConfigMap>) -> Result<(), StoreError> {
        let newest = answer.as_ref().map(|config_map| version(&config_map.metadata)).transpose()?;
        let Some((before, accepted)) = &self.seen else { return self.keep(answer) };
        if look.number > *accepted {
            // Sent after everything that is known, so it is the newest, whatever its version.
            return self.keep(answer);
        }
        let known = before.as_ref().map(|config_map| version(&config_map.metadata)).transpose()?;
        match (newest, known) {
            (Some(newest), Some(known)) if newest <= known => Ok(()),
            (Some(_), _) => self.keep(answer),
            (None, None) => Ok(()),
            // It was there before this look, or it came after: the next look will tell.
            (None, Some(_)) => Err(StoreError::unknown("another answer about the ConfigMap came first")),
        }
    }

    /// Takes the answer to a write, which a look may have overtaken.
    fn written(&mut self, config_map: ConfigMap) -> Result<(), StoreError> {
        let known = self.seen.as_ref().and_then(|(before, _)| before.as_ref());
        let known = known.map(|config_map| version(&config_map.metadata)).transpose()?;
        if known.is_some_and(|known| known > version(&config_map.metadata).unwrap_or_default()) {
            return Ok(());
        }
        self.keep(Some(config_map))
    }

    /// Keeps the newest ConfigMap.
    fn keep(&mut self, config_map: Option<ConfigMap>) -> Result<(), StoreError> {
        let mut entries = HashMap::new();
        if let Some(config_map) = &config_map {
            let version = version(&config_map.metadata)?;
            for lock in locks(config_map) {
                let words = Words::of(Some(config_map), &lock);
                let entry = match self.entries.remove(&lock) {
                    Some(before) if before.words == words => before,
                    _ => Entry { words, since: version, appeared: self.seen.is_some() },
                };
                entries.insert(lock, entry);
            }
        }
        self.entries = entries;
        self.seen = Some((config_map, self.look));
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for ConfigMapStore {
    fn why_unsent(&self) -> Option<String> {
        self.clients.why_unsent()
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        let fresh = self.state().fresh.take();
        let listing = match fresh {
            Some(fresh) => fresh,
            None => self.look(None, self.clients.ordinary()).await?,
        };
        self.ask_and_answer().await;
        Ok(listing)
    }

    async fn read(&self, lock: &LockName) -> Result<Option<LockEntry>, StoreError> {
        self.look(None, self.clients.ordinary()).await?;
        let state = self.state();
        let Some(entry) = state.entries.get(lock) else { return Ok(None) };
        let Some(record) = self.judge(&state, lock, entry).record else { return Ok(None) };
        let config_map = state.seen.as_ref().and_then(|(config_map, _)| config_map.as_ref());
        let states = states(config_map, lock).map(str::to_owned);
        Ok(Some(LockEntry { version: entry.since, record, states }))
    }

    async fn write(&self, write: Write, attempt: Attempt) -> Result<Version, StoreError> {
        match (write.key, write.record) {
            // A pod's session is as new as the look that shows it. It ends with the pod, not by a word of ours.
            (StoreKey::Session(session), _) if is_of_a_pod(session) => Err(StoreError::Conflict),
            (StoreKey::Session(session), StoreRecord::Session { record, member }) if attempt.heartbeat => {
                let client = self.clients.heartbeat(attempt.fresh_connection);
                let listing = self.look(Some((session, record, member)), client).await?;
                let number = listing.version;
                self.state().fresh = Some(listing);
                Ok(number)
            }
            // An own session ends. Nobody else reads it, but after a panic of the election the next session of
            // this process does, and must find the claims of this one as those of a stranger.
            (StoreKey::Session(session), _) => {
                let mut state = self.state();
                state.sessions.remove(&session);
                state.fresh = None;
                Ok(state.look + 1)
            }
            (StoreKey::Lock(lock), StoreRecord::Lock { record, term, .. }) => {
                if write.expect == Precondition::Absent || self.is_free(&lock) {
                    self.check_membership()?;
                }
                let shown = self.put(&lock, write.expect, (record, term, write.states.as_deref())).await?;
                match (write.states, write.expect) {
                    // States are no part of a claim, so its record is of the version that it was of.
                    (Some(_), Precondition::Version(version)) => Ok(version),
                    _ => Ok(shown),
                }
            }
            // Nobody can be asked for anything, and the variants of keys and records go together.
            _ => Err(StoreError::Conflict),
        }
    }

    fn versions_are_shared(&self) -> bool {
        true
    }

    fn poll_period(&self) -> Option<Duration> {
        Some(self.period)
    }

    fn remark(&self, lock: &LockName) -> Option<String> {
        let state = self.state();
        let rival = self.judge(&state, lock, state.entries.get(lock)?).rival?;
        let pod = &self.pod;
        Some(format!(
            "another process has claimed it under the name of this pod, {pod}: {}",
            state.rivals.sign(lock, rival)
        ))
    }

    fn why_missing(&self, lock: &LockName) -> String {
        let state = self.state();
        let entry = state.entries.get(lock).cloned().unwrap_or_default();
        self.judge(&state, lock, &entry).why
    }

    async fn watch(&self, _version: Version) -> Result<Box<dyn LeaseWatch>, StoreError> {
        Err(StoreError::unknown("a ConfigMap of Camel is looked at and not watched"))
    }
}

impl ConfigMapStore {
    fn is_free(&self, lock: &LockName) -> bool {
        let state = self.state();
        let Some(entry) = state.entries.get(lock) else { return true };
        self.judge(&state, lock, entry).record.is_none_or(|record| record.holder.is_none())
    }
}
