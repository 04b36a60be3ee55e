//! The election's loop: owns the core, feeds it, and carries out what it answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use router_core::cluster::{LockName, Member};
use router_core::error::Chain;
use tokio::sync::{Notify, mpsc};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error};

use super::command::Command;
use super::deadline::SessionDeadline;
use super::desired::{DesiredState, Participation};
use super::directory::Directory;
use super::holds::{Hold, Holds};
use super::operators::Answering;
use super::requests::Fate;
use super::transition::Observer;
use super::warn_limiter::WarnLimiter;
use super::watcher::{Seen, Watcher};
use crate::action::{RequestId, Target};
use crate::core::{Core, Identity};
use crate::event::{Event, Outcome};
use crate::record::{Death, Key, LockId, Precondition, Record, SessionId, SessionRecord, Version};
use crate::rendezvous::name_hash;
use crate::settings::Settings;
use crate::store::{Attempt, LeaseStore, StoreKey, Write};

/// What the loop shares with the rest of the process.
pub(crate) struct Environment {
    pub(crate) local: Member,
    pub(crate) timing: Settings,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) members: tokio::sync::watch::Sender<Vec<Member>>,
    pub(crate) sessions: tokio::sync::watch::Sender<Vec<(SessionId, Member)>>,
    /// Whether this member takes no locks.
    pub(crate) drained: tokio::sync::watch::Sender<bool>,
    pub(crate) observer: Option<Arc<Observer>>,
    pub(crate) warnings: Arc<WarnLimiter>,
}

/// For how many takeover waits the record of an ended session is kept.
const EXPIRED_SESSION_WAITS: u32 = 10;

/// How many changes of the watch may wait for the loop before the watch itself waits.
const WATCH_BUFFER: usize = 1024;

/// One run of the election, from a fresh incarnation until it is closed or panics.
pub(crate) struct Election<'a> {
    pub(super) around: &'a Environment,
    pub(super) desired: &'a mut DesiredState,
    pub(super) core: Core,
    pub(super) directory: Directory,
    /// Locks that the core was told to want.
    pub(super) wanted: HashMap<LockId, LockName>,
    /// Why the terms that are being given up are.
    pub(super) farewell: &'static str,
    pub(super) deadline: SessionDeadline,
    pub(super) tasks: JoinSet<Done>,
    watcher: Option<task::Id>,
    /// The heartbeat that was not answered yet, or not at all: the next one takes a fresh connection.
    pub(super) unanswered: Option<RequestId>,
    /// A list that the core asked for is under way.
    pub(super) listing: bool,
    /// Another process has drawn the same incarnation.
    pub(super) shared: bool,
    /// The newest version that this process has written.
    pub(super) written: Version,
    /// The newest version that the watch has delivered.
    delivered: Version,
    /// The newest version that the core knows, for those who ask for lists.
    pub(super) known: Arc<AtomicU64>,
    /// A version that the watch should have delivered, and until when it is given time.
    pub(super) owed: Option<(Version, Instant)>,
    pub(super) distrusted: Arc<Notify>,
    pub(super) answering: Answering,
    /// When to look how all locks stand, for people.
    pub(super) look_at: Option<Instant>,
}

/// Why the loop has ended in good order.
pub(crate) enum End {
    /// The cluster is closed.
    Closed,
    /// The incarnation is not this process's alone.
    Shared,
}

/// A task of the loop has ended.
pub(crate) enum Done {
    Request(RequestId, Fate),
    Joined(LockName, u64),
    Watcher,
    Buried,
    /// An operator was told that this member is drained, or that failed.
    Answered,
}

impl<'a> Election<'a> {
    pub(crate) fn new(around: &'a Environment, desired: &'a mut DesiredState, identity: Identity) -> Self {
        Self {
            core: Core::new(identity, around.timing, around.holds.clock.now())
                .with_shared_versions(around.store.versions_are_shared()),
            directory: Directory::new(around.local.clone(), around.timing),
            wanted: HashMap::new(),
            farewell: "this member leaves",
            deadline: SessionDeadline::new(),
            tasks: JoinSet::new(),
            watcher: None,
            unanswered: None,
            listing: false,
            shared: false,
            written: 0,
            delivered: 0,
            known: Arc::default(),
            owed: None,
            distrusted: Arc::default(),
            answering: Answering::default(),
            look_at: None,
            around,
            desired,
        }
    }

    /// Runs until the cluster is closed and nothing is held.
    pub(crate) async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Command>) -> End {
        let (sender, mut watch) = mpsc::channel(WATCH_BUFFER);
        let watcher = Watcher {
            store: Arc::clone(&self.around.store),
            warnings: Arc::clone(&self.around.warnings),
            seen: sender,
            distrusted: Arc::clone(&self.distrusted),
            known: Arc::clone(&self.known),
            patience: self.around.timing.attempt_timeout(),
            pause: self.around.timing.retry_pause(),
        };
        let watcher = self.tasks.spawn(async move {
            watcher.run().await;
            Done::Watcher
        });
        self.watcher = Some(watcher.id());
        self.begin();
        while !self.is_done() {
            if self.shared {
                return End::Shared;
            }
            let wakeup = self.wakeup();
            let timer = async {
                match wakeup {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(input) = inbox.recv() => self.on_command(input),
                Some(seen) = watch.recv() => self.on_watch(seen),
                Some(done) = self.tasks.join_next() => self.done(done),
                () = timer => self.tick(),
            }
            self.heed_requests();
            self.look_if_due();
        }
        self.end_session().await;
        End::Closed
    }

    /// Nothing is held any more, nor will be: the record of the session says so, and need not be watched
    /// by anybody. If this does not come through, the session is as one that has crashed.
    async fn end_session(&mut self) {
        let session = self.core.session();
        let Some((version, record)) = self.directory.live(session).filter(|_| !self.is_forsaken()) else {
            return;
        };
        let ended = Record::Session(SessionRecord { dead: Some(Death::Proof), ..record });
        let Some((key, record)) = self.directory.for_store(Key::Session(session), ended) else { return };
        let write = Write::new(key, Precondition::Version(version), record);
        let request = self.around.store.write(write, Attempt::default());
        match timeout(self.around.timing.attempt_timeout(), request).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!("the end of the session could not be written: {}", Chain(&error)),
            Err(_) => debug!("the end of the session could not be written in time"),
        }
    }

    /// What the process wanted before this run.
    fn begin(&mut self) {
        if self.desired.is_draining() {
            self.step(Event::Drain);
        }
        self.step(Event::Candidates(self.desired.candidates.clone()));
        for hold in self.around.holds.all() {
            self.await_work(hold);
        }
        for lock in self.desired.participations.keys().cloned().collect::<Vec<_>>() {
            self.want(&lock);
        }
    }

    /// Stands for election, unless work of an earlier term is still running.
    fn want(&mut self, lock: &LockName) {
        let id = self.directory.id(lock);
        let foreign = self.around.holds.has(lock) && self.core.guard(id).is_none();
        if !foreign && self.desired.participations.contains_key(lock) {
            self.wanted.insert(id, lock.clone());
            self.step(Event::View { lock: id, name: name_hash(lock.as_str()) });
            self.publish_holder(id);
        }
    }

    fn on_command(&mut self, input: Command) {
        self.look_soon();
        match input {
            Command::View { lock, generation, publisher } => {
                // The end of an earlier participation may be reported later than this beginning. Its term
                // ends as if it had been told in order, because nobody can lead on behalf of it any more.
                let earlier = self.desired.participations.get(&lock).map(|earlier| earlier.generation);
                if let Some(earlier) = earlier.filter(|earlier| *earlier != generation) {
                    self.unwant(&lock, earlier);
                }
                self.desired.participations.insert(lock.clone(), Participation { generation, publisher });
                self.want(&lock);
            }
            Command::Unview { lock, generation } => self.unwant(&lock, generation),
            Command::Resign { lock, stay_out } => self.resign(&lock, stay_out),
            Command::Drain { done } => {
                self.farewell = "this member is drained";
                self.desired.waiting.push(done);
                self.desired.draining = true;
                self.drain();
            }
            Command::Undrain => {
                if !self.desired.closing {
                    self.desired.draining = false;
                    self.desired.waiting.clear();
                    self.undrain();
                }
            }
            Command::Close { done } => {
                self.farewell = "this member leaves";
                self.desired.closing = true;
                self.desired.waiting.extend(done);
                self.drain();
            }
            Command::Candidates(candidates) => {
                self.desired.candidates.clone_from(&candidates);
                self.step(Event::Candidates(candidates));
            }
            Command::Others(others) => {
                self.desired.others = others;
                self.publish_members();
            }
            Command::Evidence { session, death } => self.step(Event::Evidence { session, death }),
            Command::Confirm { lock, term, record, reply } => {
                let record = record.map(Record::Lock);
                let stands = self.directory.known_id(&lock).is_some_and(|id| {
                    let same = self.core.guard(id).is_some_and(|guard| guard.term == term);
                    same && self.core.confirms(id, record.as_ref())
                });
                // Whoever asked may have given up.
                let _ = reply.send(stands);
            }
            // Whoever asked may have given up.
            Command::Ping { reply } => drop(reply.send(())),
            Command::Lapsed { lock, term } => self.lapsed(&lock, term),
        }
    }

    fn unwant(&mut self, lock: &LockName, generation: u64) {
        let present = self.desired.participations.get(lock).map(|participation| participation.generation);
        if present != Some(generation) {
            return;
        }
        let id = self.directory.id(lock);
        if self.wanted.remove(&id).is_some() {
            self.step(Event::Unview { lock: id });
        }
        self.desired.participations.remove(lock);
    }

    fn resign(&mut self, lock: &LockName, stay_out: Duration) {
        self.resign_because("this member resigned", lock, stay_out);
    }

    pub(super) fn resign_because(&mut self, why: &'static str, lock: &LockName, stay_out: Duration) {
        let id = self.directory.id(lock);
        let farewell = std::mem::replace(&mut self.farewell, why);
        // The core takes no time at all for no resignation at all.
        let stay_out = stay_out.max(Duration::from_millis(1));
        self.step(Event::Resign { lock: id, stay_out });
        self.farewell = farewell;
    }

    pub(super) fn drain(&mut self) {
        self.around.drained.send_replace(true);
        self.desired.patience = self.around.holds.clock.leader() + self.around.timing.deadline();
        self.step(Event::Drain);
    }

    /// Unless somebody else still wants it drained.
    pub(super) fn undrain(&mut self) {
        if !self.desired.is_draining() {
            self.around.drained.send_replace(false);
            self.step(Event::Undrain);
        }
    }

    /// The sentinel was first to notice a deadline. Normally the core sees it too, now. When a heartbeat
    /// has moved the deadline in the very same moment it does not, and then the lock is given up in good
    /// order, because the term has ended for whoever works under it.
    fn lapsed(&mut self, lock: &LockName, term: u64) {
        self.tick();
        let Some(id) = self.directory.known_id(lock) else { return };
        if self.core.guard(id).is_some_and(|guard| guard.term == term && !guard.fenced) {
            self.resign(lock, Duration::ZERO);
        }
    }

    fn on_watch(&mut self, seen: Seen) {
        self.look_soon();
        let now = self.around.holds.clock.now();
        match seen {
            Seen::Lost => {
                self.owed = None;
                self.step(Event::WatchLost);
            }
            Seen::Open => self.step(Event::WatchRestored),
            Seen::Listed(listing, asked) => {
                let version = listing.version;
                self.delivered = version;
                let event = if self.core.begins_new_history(version) {
                    self.directory.listed_anew(listing, now)
                } else if self.core.takes(version, asked, true) {
                    self.directory.listed(listing, now)
                } else {
                    Event::OldList { version, asked }
                };
                self.step(event);
            }
            Seen::Changed(change) => {
                let version = change.version();
                self.delivered = self.delivered.max(version);
                self.owed = self.owed.filter(|(owed, _)| *owed > self.delivered);
                if version > self.core.view_version() && !self.core.doubts() {
                    let event = self.directory.changed(change, now);
                    self.step(event);
                }
            }
        }
        self.publish_members();
    }

    fn done(&mut self, done: Result<Done, task::JoinError>) {
        self.look_soon();
        match done {
            Ok(Done::Request(request, fate)) => self.answered(request, fate),
            Ok(Done::Joined(lock, term)) => {
                self.around.holds.end(&lock, term);
                let id = self.directory.id(&lock);
                self.step(Event::Joined { lock: id, term });
                if !self.wanted.contains_key(&id) {
                    self.want(&lock);
                }
            }
            // The one runs for as long as we listen, and we do; what the other did, the watch tells.
            Ok(Done::Watcher | Done::Buried) => {}
            Ok(Done::Answered) => self.on_operator_request(),
            // Everything rests on the watch: begin anew.
            Err(error) if error.is_panic() && Some(error.id()) == self.watcher => {
                std::panic::resume_unwind(error.into_panic())
            }
            // To the core this is a request that nobody answered.
            Err(error) => {
                self.listing = false;
                error!("a request of the election panicked: {error}");
            }
        }
    }

    fn answered(&mut self, request: RequestId, fate: Fate) {
        self.listing &= request.target != Target::List;
        if matches!(fate, Fate::Known(Outcome::Written { .. } | Outcome::Conflict)) {
            self.unanswered = self.unanswered.filter(|unanswered| *unanswered != request);
        }
        match fate {
            Fate::Silence => {}
            Fate::Known(outcome) => {
                if let Outcome::Written { version } = outcome {
                    self.written = self.written.max(version);
                }
                self.step(Event::Answer { request, outcome });
            }
            Fate::Listed(listing, asked) => {
                let newest = listing.entries.iter().map(|entry| entry.version).max().unwrap_or_default();
                if newest > self.delivered && self.owed.is_none() {
                    self.owed = Some((newest, Instant::now() + self.around.timing.attempt_timeout()));
                }
                let now = self.around.holds.clock.now();
                let event = if self.core.takes(listing.version, asked, false) {
                    self.directory.listed(listing, now)
                } else {
                    // The watch was faster, and the core has what it asked for. Or the history has gone back: then
                    // the list with which a new watch begins will tell.
                    Event::OldList { version: listing.version, asked }
                };
                self.step(event);
                self.publish_members();
            }
        }
    }

    fn tick(&mut self) {
        if self.owed.is_some_and(|(_, until)| Instant::now() >= until) {
            self.owed = None;
            self.distrusted.notify_one();
        }
        self.step(Event::Tick);
        self.remove_expired();
    }

    /// When to tick, in tokio's time.
    fn wakeup(&self) -> Option<Instant> {
        let now = self.around.holds.clock.now();
        let forsaken = self.forsaken_at();
        let at = self.core.next_wakeup().into_iter().chain(forsaken).min();
        // What is further away than any clock goes never comes: somebody may stay out for ever.
        let core = at.and_then(|at| Instant::now().checked_add(at.saturating_sub(now.leader)));
        let owed = self.owed.map(|(_, until)| until);
        core.into_iter().chain(owed).chain(self.answering.again_at()).chain(self.look_at).min()
    }

    /// Tells those who wait when nothing is held, nor on its way to be. Says whether to end.
    fn is_done(&mut self) -> bool {
        if self.desired.waiting.is_empty() && !self.desired.closing {
            return false;
        }
        let settled = self.core.view_version() >= self.written && self.core.is_idle();
        // Whatever is on its way to a lock must have ended too: a claim could still come through.
        let quiet = settled && self.around.holds.is_empty() && self.tasks.len() <= 1;
        if !quiet && !self.is_forsaken() {
            return false;
        }
        self.tell_unreleased();
        for waiting in self.desired.waiting.drain(..) {
            let _ = waiting.send(());
        }
        self.desired.closing
    }

    /// When there is no more to wait for although the store does not answer: no work runs here, none will,
    /// and the deadline has passed, so that the locks pass to others by expiry. Sooner there is no reason
    /// to give up, even for a session that was never heard of: a claim may still come through.
    fn forsaken_at(&self) -> Option<Duration> {
        let waits = self.desired.closing || !self.desired.waiting.is_empty();
        (waits && self.around.holds.is_empty()).then(|| self.desired.patience.max(self.deadline.get()))
    }

    fn is_forsaken(&self) -> bool {
        self.forsaken_at().is_some_and(|at| self.around.holds.clock.leader() >= at)
    }

    /// Removes the record of a session that ended long ago. Those who lead do it, one at a time, because
    /// a standby sends nothing. R7 takes care of whoever would still be named by a lock: that a record is
    /// missing is never a reason to lead at once.
    fn remove_expired(&mut self) {
        if self.around.holds.is_empty() {
            return;
        }
        let now = self.around.holds.clock.now();
        let Some((session, version)) = self.directory.remove_expired(now, EXPIRED_SESSION_WAITS) else {
            return;
        };
        let (store, patience) = (Arc::clone(&self.around.store), self.around.timing.attempt_timeout());
        self.tasks.spawn(async move {
            let removed = timeout(patience, store.delete(StoreKey::Session(session), version)).await;
            if let Ok(Err(error)) = removed {
                debug!(%session, "a session is not removed: {}", Chain(&error));
            }
            Done::Buried
        });
    }

    /// Waits for the work of a term that has ended, beside the loop.
    pub(super) fn await_work(&mut self, hold: Arc<Hold>) {
        self.tasks.spawn(async move {
            hold.control.joined().await;
            Done::Joined(hold.lock.clone(), hold.term)
        });
    }

    fn publish_members(&self) {
        let now = self.around.holds.clock.now();
        let members = self.directory.members(now, &self.desired.others);
        self.around.members.send_if_modified(|present| {
            let changed = *present != members;
            if changed {
                *present = members;
            }
            changed
        });
        let sessions = self.directory.sessions();
        self.around.sessions.send_if_modified(|present| {
            let changed = *present != sessions;
            if changed {
                *present = sessions;
            }
            changed
        });
    }
}
