//! [`Footing`]: what a term stands on, and when it was last looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::lock_file::{FileVersion, present};
use crate::lock_table::LockState;
use crate::root::Place;
use crate::timing::Timing;
use crate::watch::Watch;

/// The files that a term rests on. The term itself looks at them when the last look is too old: a process that
/// was stopped, and whose file was deleted meanwhile, hears of it only some time after it goes on.
pub(crate) struct Footing {
    pub(crate) place: Arc<Place>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) state: Arc<LockState>,
    /// The file, as it was when the record of the term had been written.
    pub(crate) file: FileVersion,
    pub(crate) timing: Timing,
    /// When a look began that found all in its place.
    looked: AtomicU64,
}

impl Footing {
    /// What a term stands on that begins with `file`. It has to be looked at before it counts.
    pub(crate) fn new(
        place: &Arc<Place>,
        watch: &Arc<Watch>,
        state: &Arc<LockState>,
        file: FileVersion,
        timing: Timing,
    ) -> Self {
        let (place, watch, state) = (Arc::clone(place), Arc::clone(watch), Arc::clone(state));
        Self { place, watch, state, file, timing, looked: AtomicU64::new(0) }
    }

    /// Looks why the term is protected no more, if so.
    pub(crate) fn lost(&self) -> Option<String> {
        let begun = now();
        self.watch.catch_up();
        let why = self.file_lost();
        // The directory comes first, it explains more.
        let why = why.map(|why| self.place.lost().unwrap_or(why)).or_else(|| self.place.lost());
        if why.is_none() {
            self.looked.store(begun, Ordering::Release);
        }
        why
    }

    fn file_lost(&self) -> Option<String> {
        let path = self.state.path.display();
        let lost = || Some(format!("its file `{path}` was deleted, moved or replaced"));
        // While it was away another one may have been led, if this process slept.
        if self.state.is_gone() {
            return lost();
        }
        match present(&self.state.path) {
            Ok(Some(file)) if file == self.file => None,
            // Others may touch it, as `chown` does; where there are events they tell that from moving it.
            Ok(Some(file)) if file.identity == self.file.identity && !self.may_be_blind() => None,
            Ok(_) => lost(),
            Err(error) => Some(format!("its file `{path}` is out of reach: {error}")),
        }
    }

    fn may_be_blind(&self) -> bool {
        !self.watch.has_events() || self.state.is_blind()
    }

    /// Whether new work may start: looks only if the last look is too old.
    pub(crate) fn holds(&self) -> bool {
        self.since_look() < self.timing.look_bound() || self.lost().is_none()
    }

    /// How long running work may go on after a loss: no longer than other members wait for it, also if this
    /// process slept through a part of that.
    pub(crate) fn drain(&self) -> Duration {
        self.timing.ends_within().saturating_sub(self.since_look()).min(self.timing.drain)
    }

    fn since_look(&self) -> Duration {
        Duration::from_nanos(now().saturating_sub(self.looked.load(Ordering::Acquire)))
    }
}

/// Nanoseconds on a clock that goes on while the host is suspended, where there is one.
fn now() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
