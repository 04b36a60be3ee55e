//! [`Footing`]: what a term stands on, and when it was last looked at.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::lock_file::{FileVersion, open, present};
use crate::lock_table::LockState;
use crate::record::LeaderRecord;
use crate::root::Place;
use crate::seat::Seat;
use crate::timing::Timing;
use crate::watch::Watch;

/// The files that a term rests on. The term itself looks at them when the last look is too old: a process that
/// was stopped, and whose file was deleted meanwhile, hears of it only some time after it goes on.
pub(crate) struct Footing {
    pub(crate) place: Arc<Place>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) state: Arc<LockState>,
    /// The file, as it was when the record of the term was last seen in it.
    file: Mutex<FileVersion>,
    /// What was written into it.
    record: LeaderRecord,
    pub(crate) timing: Timing,
    /// When a look began that found all in its place.
    looked: AtomicU64,
}

/// Why a term is protected no more.
#[derive(Debug)]
pub(crate) enum Loss {
    /// The file or the directory is another one: another member may lead.
    Gone(String),
    /// The file is there, and locked by this member, but no longer says that it leads in this term. Nothing that
    /// is done in the term counts: not what it stores, nor what others see of it.
    Overwritten(String),
}

impl Loss {
    pub(crate) fn why(self) -> String {
        let (Self::Gone(why) | Self::Overwritten(why)) = self;
        why
    }
}

impl Footing {
    /// What a term stands on that begins with `record` in `file`. It has to be looked at before it counts.
    pub(crate) fn new(
        seat: &Seat,
        state: &Arc<LockState>,
        file: FileVersion,
        record: LeaderRecord,
        timing: Timing,
    ) -> Self {
        let (place, watch) = (Arc::clone(seat.root.place()), Arc::clone(&seat.watch));
        let (state, file) = (Arc::clone(state), Mutex::new(file));
        Self { place, watch, state, file, record, timing, looked: AtomicU64::new(0) }
    }

    /// Looks why the term is protected no more, if so.
    pub(crate) fn lost(&self) -> Option<Loss> {
        let begun = now();
        self.watch.catch_up();
        let loss = self.file_lost();
        // The directory comes first, it explains more.
        let loss = self.place.lost().map(Loss::Gone).or(loss);
        if loss.is_none() {
            self.looked.store(begun, Ordering::Release);
        }
        loss
    }

    fn file_lost(&self) -> Option<Loss> {
        let path = self.state.path.display();
        let gone = || Some(Loss::Gone(format!("its file `{path}` was deleted, moved or replaced")));
        // While it was away another one may have been led, if this process slept.
        if self.state.is_gone() {
            return gone();
        }
        let present = match present(&self.state.path) {
            Ok(Some(present)) => present,
            Ok(None) => return gone(),
            Err(error) => return Some(Loss::Gone(format!("its file `{path}` is out of reach: {error}"))),
        };
        let mut known = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if present != *known {
            // Others may touch it, as `chown` does. Where there are events they tell that from moving it away and
            // back; elsewhere that does no harm between two looks: another member waits for longer than that.
            if present.identity != known.identity || (self.may_be_blind() && !self.is_fresh()) {
                return gone();
            }
            // Not to be able to read it, after a `chmod`, says nothing about what is in it.
            if self.is_overwritten().unwrap_or(false) {
                return Some(Loss::Overwritten(format!("its file `{path}` was overwritten")));
            }
            *known = present;
        }
        let (term, highest) = (self.record.term, self.state.highest_term());
        let later =
            || format!("term {term} is not the last one: term {highest} has stored states of its routes");
        (term < highest).then(|| Loss::Overwritten(later()))
    }

    fn may_be_blind(&self) -> bool {
        !self.watch.has_events() || self.state.is_blind()
    }

    fn is_overwritten(&self) -> io::Result<bool> {
        let record = LeaderRecord::read(&open(&self.state.path)?)?.record();
        Ok(record.as_ref() != Some(&self.record))
    }

    /// Whether the last look is not too old for new work.
    fn is_fresh(&self) -> bool {
        self.since_look() < self.timing.look_bound()
    }

    /// Whether new work may start: looks only if the last look is too old.
    pub(crate) fn holds(&self) -> bool {
        self.is_fresh() || self.lost().is_none()
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
