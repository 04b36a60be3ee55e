//! The sentinel's alarm clock, which also rings when the host was suspended meanwhile.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::Notify;

use super::clock::Clock;

/// Rings at the time that was asked for, or before.
pub(crate) struct Alarm {
    bell: Bell,
    /// The reading of the leader's clock by which it will ring.
    due: Mutex<Option<Duration>>,
}

enum Bell {
    /// A timer of the kernel on CLOCK_BOOTTIME, for a thread.
    Timer(OwnedFd),
    /// For a task, under tokio's time.
    Notify(Notify),
}

impl Alarm {
    pub(crate) fn new(follows_tokio: bool) -> std::io::Result<Self> {
        let bell = if follows_tokio {
            Bell::Notify(Notify::new())
        } else {
            Bell::Timer(timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?)
        };
        Ok(Self { bell, due: Mutex::new(None) })
    }

    /// Makes it ring by this reading of the leader's clock, unless it rings earlier anyway.
    pub(crate) fn ring_by(&self, at: Duration, clock: &dyn Clock) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if due.is_none_or(|due| at < due) {
            *due = Some(at);
            self.set(approach(at.saturating_sub(clock.leader())));
        }
    }

    /// Makes it ring now.
    pub(crate) fn ring(&self) {
        self.set(Duration::ZERO);
    }

    /// Forgets what was asked for, before the sentinel looks anew: what is asked for from now on counts.
    pub(crate) fn forget(&self) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set(&self, time: Duration) {
        match &self.bell {
            Bell::Notify(notify) => notify.notify_one(),
            Bell::Timer(timer) => {
                // Zero would switch the timer off.
                let time = time.max(Duration::from_nanos(1));
                let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
                let it_value = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                // Fails only for arguments that are invalid, which these are not.
                let _ =
                    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value });
            }
        }
    }

    /// Blocks the thread until it rings.
    pub(crate) fn wait(&self) {
        if let Bell::Timer(timer) = &self.bell {
            // An interruption is one more look around, which costs nothing.
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
    }

    /// Completes when something was asked for.
    pub(crate) async fn rung(&self) {
        match &self.bell {
            Bell::Notify(notify) => notify.notified().await,
            Bell::Timer(_) => std::future::pending().await,
        }
    }
}

/// How long to sleep when this much is left. Timers run on clocks that a time daemon may slow down by
/// some percent, so the end is approached in steps, each with a new look at the hardware's clock.
pub(crate) fn approach(left: Duration) -> Duration {
    if left > Duration::from_millis(1) { left - left / 8 } else { left }
}
