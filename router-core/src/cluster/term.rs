//! [`Term`]: leadership as a value that says itself whether it still holds.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use smol_str::SmolStr;

use super::backend::Participation;
use super::{LeadershipLost, LockName, Member};
use crate::state::{NoStates, StateKeeper};

/// One member's leadership of one lock, from when it was granted until it ended.
///
/// Cheap to clone: exchanges carry it. Having a `Term` says nothing; ask [`is_valid`](Self::is_valid)
/// or [`check`](Self::check) before each side effect.
#[derive(Clone)]
pub struct Term {
    state: Arc<TermState>,
}

struct TermState {
    lock: LockName,
    number: u64,
    holder: Member,
    /// One of `LEADING`, `RELEASED` and `OVER`, in this order and never back. Read before every side
    /// effect, hence an atomic beside the token, whose own check takes a mutex.
    phase: AtomicU8,
    /// Cancelled when `phase` is no longer `LEADING`, for those who wait.
    lost: CancellationToken,
    /// Why it was granted, in the words of the log.
    why: OnceLock<SmolStr>,
    /// How it ended: what was first.
    ended: OnceLock<TermEnd>,
    /// Until when work may run on after a loss, set by [`TermControl::lose`], which can follow a release.
    abort_at: watch::Sender<Option<Instant>>,
    /// The authority itself, for backends whose authority expires.
    authority: Option<Arc<dyn Authority>>,
    /// Looks whether the authority still stands, for backends whose authority can be taken away while this
    /// process sleeps.
    look: OnceLock<Arc<Look>>,
    /// Where states are kept for this term, for backends that have a place for them.
    states: OnceLock<Arc<dyn StateKeeper>>,
    scopes: Mutex<Scopes>,
    /// Notified when the last scope is dropped after the end of the term.
    joined: Notify,
}

/// Says whether the authority of a term still stands, as far as can be told at once: see
/// [`TermControl::look_with`].
pub type Look = dyn Fn() -> bool + Send + Sync;

/// Who works under a term. Behind a mutex, not atomics: entering must not slip in between the end of
/// the term and the look whether everybody has left.
#[derive(Default)]
struct Scopes {
    closed: bool,
    count: usize,
}

/// New work may start.
const LEADING: u8 = 0;
/// The term is being given up: running work may go on, new work may not start.
const RELEASED: u8 = 1;
/// The term was lost, or given up and all its work has ended.
const OVER: u8 = 2;

/// How a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TermEnd {
    /// Its member gave it up.
    Released,
    /// It was taken away.
    Lost,
    /// Its deadline passed.
    Expired,
}

impl TermEnd {
    /// The name of this end in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Expired => "expired",
        }
    }
}

/// Authority that runs out, on a clock that also counts suspension. For backends with leases. Its end
/// may move into the future at any time, never back.
#[async_trait]
pub trait Authority: Send + Sync {
    /// The time until no new side effect may start; zero when that is now or has passed. Asked before
    /// every side effect, so it must be cheap, and it must read a clock: a remembered time is stale
    /// after a suspension.
    fn until_fence(&self) -> Duration;

    /// The time until running work must have ended; zero when that is now or has passed.
    fn until_abort(&self) -> Duration;

    /// Asks the backend, now, whether the authority still stands. `false` also when it does not answer.
    async fn confirm(&self) -> bool;
}

impl Term {
    /// The lock.
    #[must_use]
    pub fn lock(&self) -> &LockName {
        &self.state.lock
    }

    /// The fencing token: strictly increasing per lock, over all members, restarts and deletions. A
    /// sink that refuses smaller numbers is safe whatever happens to clocks and processes.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// The member that leads, or led.
    #[must_use]
    pub fn holder(&self) -> &Member {
        &self.state.holder
    }

    /// Why this member leads, in the words of the log; empty before it was told.
    #[must_use]
    pub fn why(&self) -> &str {
        self.state.why.get().map_or("", SmolStr::as_str)
    }

    pub(super) fn set_why(&self, why: &str) {
        let _ = self.state.why.set(why.into());
    }

    /// How the term ended; `None` while it is not over. A term whose deadline has passed is no longer valid,
    /// also before somebody has noticed and this says so.
    #[must_use]
    pub fn ended(&self) -> Option<TermEnd> {
        self.state.ended.get().copied()
    }

    /// Whether a side effect may start now. While a term is given up, which it is only after its running
    /// work has ended, this stays true for that work.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.is_at_most(RELEASED)
    }

    /// Whether new work may start now: [`is_valid`](Self::is_valid), and the term is not being given up.
    #[must_use]
    pub fn admits_work(&self) -> bool {
        self.is_at_most(LEADING)
    }

    fn is_at_most(&self, phase: u8) -> bool {
        self.state.phase.load(Ordering::Acquire) <= phase
            && self.valid_for() != Some(Duration::ZERO)
            && self.state.look.get().is_none_or(|look| look())
    }

    /// [`is_valid`](Self::is_valid) for use with `?`.
    ///
    /// # Errors
    /// When the term is no longer valid.
    pub fn check(&self) -> Result<(), LeadershipLost> {
        if self.is_valid() { Ok(()) } else { Err(self.leadership_lost()) }
    }

    /// [`admits_work`](Self::admits_work) for use with `?`.
    ///
    /// # Errors
    /// When no new work may start under the term.
    pub fn admit(&self) -> Result<(), LeadershipLost> {
        if self.admits_work() { Ok(()) } else { Err(self.leadership_lost()) }
    }

    /// As [`check`](Self::check), and the backend is asked as well. For a step that is worth a request:
    /// it notices a loss even when this machine's clocks stood still meanwhile, as they do while a
    /// virtual machine is paused. Backends whose arbiter holds the term without an expiry have nothing
    /// to ask.
    ///
    /// # Errors
    /// When the term is no longer valid, or the backend did not say in time that it is.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn confirm(&self) -> Result<(), LeadershipLost> {
        self.check()?;
        match &self.state.authority {
            Some(authority) if !authority.confirm().await => Err(self.leadership_lost()),
            // The answer may have taken longer than the authority lasted.
            _ => self.check(),
        }
    }

    pub(crate) fn leadership_lost(&self) -> LeadershipLost {
        LeadershipLost { lock: self.state.lock.clone(), term: self.state.number }
    }

    /// How long the term stays valid if it is not renewed; `None` when the backend's arbiter holds it
    /// without an expiry.
    #[must_use]
    pub fn valid_for(&self) -> Option<Duration> {
        self.state.authority.as_ref().map(|authority| authority.until_fence())
    }

    /// Where the states of the routes that run under this term are kept. It serves until the lock is given
    /// away: after the end of a term, the exchange in hand may still be noted as done.
    #[must_use]
    pub fn states(&self) -> Arc<dyn StateKeeper> {
        self.state.states.get().map_or_else(|| Arc::new(NoStates) as _, Arc::clone)
    }

    /// Completes when the term is released, lost, or past its deadline on the local clock, whichever
    /// is first, even if every request to the backend hangs. No new work may start from then on.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn lost(&self) {
        let Some(authority) = &self.state.authority else { return self.state.lost.cancelled().await };
        loop {
            let remaining = authority.until_fence();
            if remaining.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = self.state.lost.cancelled() => return,
                () = sleep(remaining) => {}
            }
        }
    }

    /// Completes when running work must have ended, because the next leader may start. Work that is
    /// still there then has to be dropped. Never completes for a term that is only released: the lock
    /// is kept until all work has ended by itself.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn expired(&self) {
        self.lost().await;
        tokio::select! {
            biased;
            () = self.aborted_by_loss() => {}
            () = self.aborted_by_deadline() => {}
        }
    }

    async fn aborted_by_loss(&self) {
        let mut abort_at = self.state.abort_at.subscribe();
        // The sender lives in this very state: the wait cannot fail.
        let at = abort_at.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        match at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    async fn aborted_by_deadline(&self) {
        let Some(authority) = &self.state.authority else { return std::future::pending().await };
        loop {
            let remaining = authority.until_abort();
            if remaining.is_zero() {
                return;
            }
            sleep(remaining).await;
        }
    }

    /// Counts new work under this term, until the returned value is dropped. The lock is not given away
    /// freely while there is work.
    ///
    /// # Errors
    /// When no new work may start.
    pub fn enter(&self) -> Result<Work, LeadershipLost> {
        self.count(|scopes| !scopes.closed && self.admits_work())
    }

    /// Counts a part of running work that can outlive the future that started it, like a blocking call:
    /// hold this in the call.
    ///
    /// # Errors
    /// When no side effect may start.
    pub fn hold(&self) -> Result<Work, LeadershipLost> {
        // When nobody is left under an ended term, the next leader may be there already.
        self.count(|scopes| (!scopes.closed || scopes.count > 0) && self.is_valid())
    }

    fn count(&self, may_enter: impl FnOnce(&Scopes) -> bool) -> Result<Work, LeadershipLost> {
        let mut scopes = self.state.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if !may_enter(&scopes) {
            return Err(self.leadership_lost());
        }
        scopes.count += 1;
        Ok(Work { term: self.clone() })
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Term({} {})", self.state.lock, self.state.number)
    }
}

/// Something that works under a term. The lock is not given to anybody else while there is one, as long
/// as the backend has a say: drop it when the work has ended, not before.
#[must_use = "work that is not held is not counted"]
#[derive(Debug)]
pub struct Work {
    term: Term,
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut scopes = self.term.state.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.count -= 1;
        if scopes.closed && scopes.count == 0 {
            self.term.state.joined.notify_one();
        }
    }
}

/// [`Work`] of a user who leads: it also keeps this member in the election, if all views are dropped
/// meanwhile.
pub struct LeaderScope {
    work: Work,
    _participation: Arc<dyn Participation>,
}

impl fmt::Debug for LeaderScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderScope").finish_non_exhaustive()
    }
}

impl LeaderScope {
    pub(super) fn new(term: &Term, participation: &Arc<dyn Participation>) -> Option<Self> {
        Some(Self { work: term.enter().ok()?, _participation: Arc::clone(participation) })
    }

    /// The term under which the work runs.
    #[must_use]
    pub fn term(&self) -> &Term {
        &self.work.term
    }
}

/// The backend's side of a [`Term`].
#[derive(Debug)]
pub struct TermControl {
    term: Term,
}

impl TermControl {
    /// Starts a term. `number` must be greater than every earlier one of the lock.
    #[must_use]
    pub fn new(lock: LockName, number: u64, holder: Member, authority: Option<Arc<dyn Authority>>) -> Self {
        let state = TermState {
            lock,
            number,
            holder,
            phase: AtomicU8::new(LEADING),
            lost: CancellationToken::new(),
            why: OnceLock::new(),
            ended: OnceLock::new(),
            abort_at: watch::Sender::new(None),
            authority,
            look: OnceLock::new(),
            states: OnceLock::new(),
            scopes: Mutex::default(),
            joined: Notify::new(),
        };
        Self { term: Term { state: Arc::new(state) } }
    }

    /// The term.
    #[must_use]
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Says how to look whether the authority still stands; the first call counts. It is asked before new work
    /// and before every side effect, so it must be cheap: it reads a clock, and looks at what the authority
    /// rests on only when it has not done so for longer than another member needs to take over.
    pub fn look_with(&self, look: Arc<Look>) {
        let _ = self.term.state.look.set(look);
    }

    /// Says where states are kept for this term; the first call counts. Without one, routes that need a
    /// state fail and say so.
    pub fn keep_states_in(&self, keeper: Arc<dyn StateKeeper>) {
        let _ = self.term.state.states.set(keeper);
    }

    /// Ends the term because this member gives it up: no new work starts, running work ends in its own
    /// time, and the lock is kept until [`joined`](Self::joined).
    pub fn release(&self) {
        self.end(RELEASED, TermEnd::Released);
    }

    /// Ends the term because it was taken away: no new work starts, and running work is dropped after
    /// `drain` at the latest.
    pub fn lose(&self, drain: Duration) {
        self.cut_off(drain, TermEnd::Lost);
    }

    /// As [`lose`](Self::lose), because the deadline has passed.
    pub fn expire(&self, drain: Duration) {
        self.cut_off(drain, TermEnd::Expired);
    }

    fn cut_off(&self, drain: Duration, how: TermEnd) {
        let at = Instant::now() + drain;
        // A second loss cannot prolong the first one.
        self.term.state.abort_at.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(at);
            first
        });
        self.end(OVER, how);
    }

    fn end(&self, phase: u8, how: TermEnd) {
        // What was first counts: a term that is lost while it is given up was given up.
        let _ = self.term.state.ended.set(how);
        self.term.state.phase.fetch_max(phase, Ordering::AcqRel);
        self.term.state.lost.cancel();
    }

    /// Whether work is left under the term.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.term.state.scopes.lock().unwrap_or_else(PoisonError::into_inner).count > 0
    }

    /// Completes when no work is left under the ended term. Not even a side effect of something that
    /// kept the term beyond its scope can start after that.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn joined(&self) {
        let idle = {
            let mut scopes = self.term.state.scopes.lock().unwrap_or_else(PoisonError::into_inner);
            scopes.closed = true;
            scopes.count == 0
        };
        if !idle {
            self.term.state.joined.notified().await;
            // The permit is kept for the next caller: joined stays joined.
            self.term.state.joined.notify_one();
        }
        self.end(OVER, TermEnd::Released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> TermControl {
        TermControl::new("lock1".parse().unwrap(), 1, Member::new("a"), None)
    }

    #[tokio::test]
    async fn nobody_enters_a_term_that_has_ended() {
        let control = control();
        let work = control.term().enter().unwrap();
        control.release();
        assert!(control.term().enter().is_err());
        let part = control.term().hold().unwrap();
        assert_eq!(control.term().admit().unwrap_err().term, 1);
        assert!(control.term().is_valid(), "running work may go on");
        drop(work);
        assert!(control.has_work());
        drop(part);
        control.joined().await;
        control.joined().await;
        assert!(control.term().hold().is_err());
        assert_eq!(control.term().check().unwrap_err().term, 1);
    }

    #[tokio::test]
    async fn a_term_whose_look_fails_admits_nothing() {
        let control = control();
        let sound = Arc::new(std::sync::atomic::AtomicBool::new(true));
        control.look_with(Arc::new({
            let sound = Arc::clone(&sound);
            move || sound.load(Ordering::Relaxed)
        }));
        let work = control.term().enter().unwrap();
        control.term().check().unwrap();
        sound.store(false, Ordering::Relaxed);
        assert!(control.term().enter().is_err());
        assert!(control.term().hold().is_err());
        assert!(control.term().check().is_err());
        drop(work);
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_term_expires_only_if_it_is_lost_later() {
        let control = control();
        control.release();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, control.term().expired()).await.is_err());
        control.lose(Duration::from_secs(2));
        control.lose(hour);
        let start = Instant::now();
        control.term().expired().await;
        assert_eq!(start.elapsed(), Duration::from_secs(2), "a second loss does not prolong the first");
    }
}
