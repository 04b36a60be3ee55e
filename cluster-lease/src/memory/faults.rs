//! What can go wrong between a member and the store, by chance or by script.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch as channel;

/// A time that is drawn anew for each use, from and to inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub to: Duration,
}

impl Span {
    /// Always the same time.
    #[must_use]
    pub fn exactly(time: Duration) -> Self {
        Self { from: time, to: time }
    }

    /// Anything up to this time.
    #[must_use]
    pub fn up_to(time: Duration) -> Self {
        Self { from: Duration::ZERO, to: time }
    }
}

/// The faults of one link. Chances are per request, in percent. The default is a link without faults.
///
/// Delays that differ from request to request reorder them. A request that is still under way when its
/// caller gives up is a zombie: it is applied all the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// From the caller to the store.
    pub request_delay: Span,
    /// From the store to the caller.
    pub answer_delay: Span,
    /// The request never arrives, and nobody answers.
    pub lose_request: u8,
    /// The request is applied, and nobody answers.
    pub lose_answer: u8,
    /// The caller is told at once that the request failed, though it is on its way.
    pub fail_early: u8,
    /// The request arrives a second time, after another delay of up to this time.
    pub duplicate: u8,
    /// See [`duplicate`](Self::duplicate).
    pub duplicate_delay: Span,
    /// How long a change takes to the watch. Changes stay in order.
    pub watch_delay: Span,
    /// In percent per change: the watch fails instead of delivering it.
    pub break_watch: u8,
    /// In percent per change: the watch ends in good order instead of delivering it.
    pub end_watch: u8,
}

/// How many requests went through a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Conditional writes.
    pub writes: u64,
    /// Lists of the group.
    pub lists: u64,
    /// Reads of one record.
    pub reads: u64,
    /// Watches that were opened.
    pub watches: u64,
    /// Writes that asked for a fresh connection.
    pub fresh_connections: u64,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.writes + self.lists + self.reads + self.watches
    }
}

/// The way between one member and the store, as a test controls it. Clones are the same link.
#[derive(Clone)]
pub struct Link {
    state: Arc<Mutex<LinkState>>,
    /// Changes whenever a watch has to look at the link again.
    changed: channel::Sender<u64>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

struct LinkState {
    random: fastrand::Rng,
    faults: Faults,
    cut: bool,
    watch_stalled: bool,
    /// Watches opened before this number of breaks are broken.
    breaks: u64,
    requests: Requests,
    /// Why nothing is sent, if the store is said to have asked for that.
    unsent: Option<String>,
}

/// What was drawn for one request.
pub(super) struct Fate {
    pub(super) request_delay: Duration,
    pub(super) answer_delay: Duration,
    pub(super) arrives: bool,
    pub(super) answered: bool,
    pub(super) fails_early: bool,
    pub(super) repeated_after: Option<Duration>,
}

/// What was drawn for one change on a watch.
pub(super) struct WatchFate {
    pub(super) delay: Duration,
    pub(super) breaks: bool,
    pub(super) ends: bool,
}

impl Link {
    pub(super) fn new(seed: u64) -> Self {
        let state = LinkState {
            random: fastrand::Rng::with_seed(seed),
            faults: Faults::default(),
            cut: false,
            watch_stalled: false,
            breaks: 0,
            requests: Requests::default(),
            unsent: None,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: channel::Sender::new(0) }
    }

    /// Sets the faults from now on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Cuts the link: what is sent from now on is lost without a word in both directions, also the
    /// answers to what was sent before, and the watch is silent. This is also what a server does that
    /// accepts connections and never answers.
    pub fn cut(&self) {
        self.change(|state| state.cut = true);
    }

    /// Mends the link. Watches deliver what they missed.
    pub fn mend(&self) {
        self.change(|state| state.cut = false);
    }

    /// Silences only the watch, or lets it go on.
    pub fn stall_watch(&self, stalled: bool) {
        self.change(|state| state.watch_stalled = stalled);
    }

    /// Makes the watches that are open fail.
    pub fn break_watch(&self) {
        self.change(|state| state.breaks += 1);
    }

    /// Says from now on that nothing is sent, and why; `None`: no longer.
    pub fn say_unsent(&self, why: Option<&str>) {
        self.state().unsent = why.map(str::to_owned);
    }

    pub(super) fn unsent(&self) -> Option<String> {
        self.state().unsent.clone()
    }

    /// What went through so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.state().requests
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut LinkState)) {
        change(&mut self.state());
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> channel::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Requests)) {
        count(&mut self.state().requests);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state().cut
    }

    pub(super) fn breaks(&self) -> u64 {
        self.state().breaks
    }

    pub(super) fn is_watch_silent(&self) -> bool {
        let state = self.state();
        state.cut || state.watch_stalled
    }

    pub(super) fn draw(&self) -> Fate {
        let state = &mut *self.state();
        let (random, faults) = (&mut state.random, state.faults);
        Fate {
            request_delay: draw(random, faults.request_delay),
            answer_delay: draw(random, faults.answer_delay),
            arrives: !state.cut && !chance(random, faults.lose_request),
            answered: !state.cut && !chance(random, faults.lose_answer),
            fails_early: chance(random, faults.fail_early),
            repeated_after: chance(random, faults.duplicate).then(|| draw(random, faults.duplicate_delay)),
        }
    }

    pub(super) fn draw_for_watch(&self) -> WatchFate {
        let state = &mut *self.state();
        let (random, faults) = (&mut state.random, state.faults);
        WatchFate {
            delay: draw(random, faults.watch_delay),
            breaks: chance(random, faults.break_watch),
            ends: chance(random, faults.end_watch),
        }
    }
}

fn chance(random: &mut fastrand::Rng, percent: u8) -> bool {
    percent > 0 && random.u8(0..100) < percent
}

fn draw(random: &mut fastrand::Rng, span: Span) -> Duration {
    if span.from >= span.to {
        return span.from;
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random.u64(micros(span.from)..=micros(span.to)))
}
