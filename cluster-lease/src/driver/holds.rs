//! The holds of this process: what guarded work asks, and what ends it in time.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::backend::{Authority, TermControl};
use router_core::cluster::{LockName, Member};
use router_core::error::Chain;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use super::alarm::Alarm;
use super::clock::Clock;
use super::command::Command;
use super::deadline::{HoldDeadline, SessionDeadline};
use super::states::{Place, TermStates};
use crate::settings::Settings;
use crate::store::LeaseStore;
use crate::tenure::Tenure;

/// One term of one lock, from when it was granted until its work has ended.
pub(crate) struct Hold {
    pub(crate) lock: LockName,
    pub(crate) term: u64,
    pub(crate) control: TermControl,
    authority: Arc<LeaseAuthority>,
    /// Whether the sentinel has ended it.
    lapsed: AtomicBool,
    overdue: AtomicBool,
}

/// All holds of this process. The election's loop adds and removes them; the sentinel ends them in time
/// even if that loop stands still.
pub(crate) struct Holds {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) alarm: Alarm,
    store: Arc<dyn LeaseStore>,
    inbox: mpsc::UnboundedSender<Command>,
    timing: Settings,
    strict: bool,
    live: Mutex<HashMap<LockName, Arc<Hold>>>,
}

impl Holds {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        store: Arc<dyn LeaseStore>,
        inbox: mpsc::UnboundedSender<Command>,
        timing: Settings,
        strict: bool,
    ) -> std::io::Result<Self> {
        let alarm = Alarm::new(clock.follows_tokio())?;
        Ok(Self { clock, alarm, store, inbox, timing, strict, live: Mutex::default() })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<LockName, Arc<Hold>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a term.
    pub(crate) fn begin(
        &self,
        lock: &LockName,
        term: u64,
        holder: Member,
        session: &SessionDeadline,
        tenure: Tenure,
    ) -> Arc<Hold> {
        let authority = Arc::new(LeaseAuthority {
            lock: lock.clone(),
            term,
            deadline: HoldDeadline::new(session.clone()),
            clock: Arc::clone(&self.clock),
            stop: self.timing.stop(),
            store: Arc::clone(&self.store),
            inbox: self.inbox.clone(),
            patience: self.timing.attempt_timeout(),
        });
        let shared = Arc::clone(&authority) as Arc<dyn Authority>;
        let control = TermControl::new(lock.clone(), term, holder.clone(), Some(Arc::clone(&shared)));
        control.keep_states_in(Arc::new(TermStates::new(
            Place { lock: lock.clone(), term, holder: holder.id, tenure, store: Arc::clone(&self.store) },
            shared,
            &self.timing,
        )));
        let hold = Arc::new(Hold {
            lock: lock.clone(),
            term,
            control,
            authority,
            lapsed: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
        });
        self.live().insert(lock.clone(), Arc::clone(&hold));
        self.alarm.ring_by(hold.authority.deadline.get(), &*self.clock);
        hold
    }

    pub(crate) fn get(&self, lock: &LockName, term: u64) -> Option<Arc<Hold>> {
        self.live().get(lock).filter(|hold| hold.term == term).cloned()
    }

    pub(crate) fn has(&self, lock: &LockName) -> bool {
        self.live().contains_key(lock)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hold>> {
        self.live().values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    /// The work of a term has ended.
    pub(crate) fn end(&self, lock: &LockName, term: u64) {
        let mut live = self.live();
        if live.get(lock).is_some_and(|hold| hold.term == term) {
            live.remove(lock);
        }
    }

    /// Leadership is over, and guarded work must have ended at `abort_at`.
    pub(crate) fn fence(&self, hold: &Hold, abort_at: Duration) {
        let expired = hold.authority.until_fence().is_zero();
        hold.authority.deadline.freeze(abort_at.saturating_sub(self.timing.stop()));
        let drain = hold.authority.until_abort();
        if expired { hold.control.expire(drain) } else { hold.control.lose(drain) }
    }

    /// Everything is over, now: nobody is there to renew it. Work has the usual time to end.
    pub(crate) fn fence_all(&self) {
        let abort_at = self.clock.now().leader + self.timing.stop();
        for hold in self.all() {
            // Never later than the deadline that others count on.
            let known = hold.authority.deadline.get() + self.timing.stop();
            self.fence(&hold, abort_at.min(known));
        }
    }

    /// What the sentinel does: ends the terms whose deadline has passed, and reports work that outlives
    /// its time, or ends the process. Returns the time until it has to look again.
    pub(crate) fn inspect(&self) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for hold in self.all() {
            let now = self.clock.leader();
            let deadline = hold.authority.deadline.get();
            let abort_at = deadline + self.timing.stop();
            let lapses = now >= deadline && !hold.lapsed.swap(true, Ordering::AcqRel);
            if lapses {
                hold.control.expire(hold.authority.until_abort());
                // The loop may be gone, and then nobody needs to know.
                let _ = self.inbox.send(Command::Lapsed { lock: hold.lock.clone(), term: hold.term });
            }
            let due = if now < deadline { deadline } else { abort_at };
            match due.checked_sub(now).filter(|left| !left.is_zero()) {
                Some(left) => next = Some(next.map_or(left, |other| other.min(left))),
                // Who comes to see the deadline only now did not run in between.
                None => self.overdue(&hold, lapses),
            }
        }
        next
    }

    fn overdue(&self, hold: &Hold, suspended: bool) {
        if !hold.control.has_work() || hold.overdue.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut patience = self.timing.slack().min(LAST_WORDS);
        // A task that follows tokio's time may keep the work from ending.
        if suspended && self.strict && !self.clock.follows_tokio() {
            // The work has heard only now that its time is over, and says what it was.
            patience /= 2;
            self.wait(patience, || !hold.control.has_work());
        }
        let said = report(overrun(hold, suspended, self.strict), hold, self.strict);
        if self.strict {
            // Whether it could be said or not: this process has no time left.
            self.wait(patience, || said.try_recv() != Err(TryRecvError::Empty));
            std::process::abort();
        }
    }

    /// Waits right before the end of the process until something is `done`, but no longer than `patience` by the
    /// leader's clock, which is the one that others wait by.
    fn wait(&self, patience: Duration, done: impl Fn() -> bool) {
        let began = self.clock.leader();
        while !done() && self.clock.leader().saturating_sub(began) < patience {
            #[expect(
                clippy::disallowed_methods,
                reason = "the sentinel's, right before the end of the process"
            )]
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether nothing may outlive its term, whatever that costs.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether the sentinel has nothing left to watch over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.all().iter().all(|hold| hold.overdue.load(Ordering::Acquire) || !hold.control.has_work())
    }
}

/// How long the end of the process waits for the words that explain it.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// What is to be said of work under a term that is over.
fn overrun(hold: &Hold, suspended: bool, aborting: bool) -> String {
    let Hold { lock, term, .. } = hold;
    let next = if aborting { "this process ends now" } else { "another member may work now" };
    if suspended {
        format!(
            "this process did not run from before the end of term {term} of `{lock}` until after the time in which its \
             work has to end, as when it is suspended; work under `{lock}` may not be finished: {next}"
        )
    } else {
        format!("work under `{lock}`, term {term}, outlives its leadership: {next}")
    }
}

/// Reports work that outlives its term, on a thread of its own: the log and the standard error may block
/// for as long as they like, or fail, and neither may keep the sentinel from its work. The receiver hears
/// when it is said, or that it cannot be.
fn report(text: String, hold: &Hold, aborting: bool) -> Receiver<()> {
    let (lock, term) = (hold.lock.clone(), hold.term);
    let (said, heard) = sync_channel(1);
    let speaker = thread::Builder::new().name("lease-report".into());
    // Without a thread, nothing is said.
    let _ = speaker.spawn(move || {
        error!(%lock, term, "{text}");
        if aborting && !tracing::dispatcher::has_been_set() {
            // There is no log. A standard error that is closed is no reason to panic.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        let _ = said.send(());
    });
    heard
}

/// The authority of one hold.
struct LeaseAuthority {
    lock: LockName,
    term: u64,
    deadline: HoldDeadline,
    clock: Arc<dyn Clock>,
    stop: Duration,
    store: Arc<dyn LeaseStore>,
    inbox: mpsc::UnboundedSender<Command>,
    /// How long `confirm` waits for the store.
    patience: Duration,
}

#[async_trait]
impl Authority for LeaseAuthority {
    fn until_fence(&self) -> Duration {
        self.deadline.get().saturating_sub(self.clock.leader())
    }

    /// A part of the time to stop is kept back: futures are dropped by timers of tokio, which are slewed
    /// with CLOCK_MONOTONIC and wake up late, and at the very end of the time the process is aborted.
    fn until_abort(&self) -> Duration {
        let usable = self.stop - self.stop / 8;
        (self.deadline.get() + usable).saturating_sub(self.clock.leader())
    }

    async fn confirm(&self) -> bool {
        tokio::time::timeout(self.patience, self.ask()).await.unwrap_or(false)
    }
}

impl LeaseAuthority {
    async fn ask(&self) -> bool {
        let record = match self.store.read(&self.lock).await {
            Ok(entry) => entry.map(|entry| entry.record),
            Err(error) => {
                debug!(lock = %self.lock, "`{}` could not be confirmed: {}", self.lock, Chain(&error));
                return false;
            }
        };
        let (reply, answer) = oneshot::channel();
        let question = Command::Confirm { lock: self.lock.clone(), term: self.term, record, reply };
        self.inbox.send(question).is_ok() && answer.await.unwrap_or(false)
    }
}
