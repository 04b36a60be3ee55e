//! [`Clock`]: where the election gets its time from. See [`Clocks`] for what the two readings must be.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::clocks::Clocks;

/// A source of time for the election.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks now. The leader's may err by a fraction of a millisecond, because the same reading
    /// stamps what is sent, where late is wrong, and checks deadlines, where early is wrong.
    fn now(&self) -> Clocks;

    /// The leader's clock now, for a check right before a side effect: never early.
    fn leader(&self) -> Duration {
        self.now().leader
    }

    /// Whether time here is that of the tokio runtime, which a test may pause. A thread cannot wait for
    /// such a time, so deadlines are then enforced by a task.
    fn follows_tokio(&self) -> bool {
        false
    }
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Two readings that are this close belong together.
const SAME_READING_WINDOW: Duration = Duration::from_micros(100);

impl Clock for SystemClock {
    /// Reads again when the thread was interrupted between the readings, which then would not belong
    /// together.
    fn now(&self) -> Clocks {
        loop {
            let before = read(ClockId::Monotonic);
            let boot = read(ClockId::Boottime);
            let raw = read(ClockId::MonotonicRaw);
            let after = read(ClockId::Monotonic);
            if after.saturating_sub(before) < SAME_READING_WINDOW {
                // With the later of the two, the sum is early by at most that little: what is sent is
                // stamped before it is sent.
                return Clocks { leader: raw + boot.saturating_sub(after), standby: raw };
            }
        }
    }

    /// Three readings in this order: an interruption between them only makes the sum too large. Time
    /// suspended is what BOOTTIME has counted and MONOTONIC has not.
    fn leader(&self) -> Duration {
        let monotonic = read(ClockId::Monotonic);
        let boot = read(ClockId::Boottime);
        read(ClockId::MonotonicRaw) + boot.saturating_sub(monotonic)
    }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // These clocks start at zero and never go back.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Clocks for tests: they follow tokio's time, paused or not, until a test makes them err.
#[derive(Debug)]
pub struct TokioClock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the rate last changed, and what the clocks read then.
    since: Instant,
    base: Clocks,
    rate_error_ppm: i32,
}

impl TokioClock {
    /// Clocks that start at `offset`. Offsets must not matter, so tests give each member another.
    #[must_use]
    pub fn starting_at(offset: Duration) -> Self {
        let state = State { since: Instant::now(), base: Clocks::both(offset), rate_error_ppm: 0 };
        Self { state: Mutex::new(state) }
    }

    /// From now on both clocks are too fast by this much, or too slow where it is negative.
    pub fn skew(&self, rate_error_ppm: i32) {
        let mut state = self.state();
        state.rebase();
        state.rate_error_ppm = rate_error_ppm;
    }

    /// The leader's clock jumps forward: the host was suspended, and nothing ran meanwhile.
    pub fn jump(&self, time: Duration) {
        let mut state = self.state();
        state.rebase();
        state.base.leader += time;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> Clocks {
        let elapsed = self.since.elapsed();
        let error = elapsed.mul_f64(f64::from(self.rate_error_ppm.unsigned_abs()) / 1e6);
        let elapsed = if self.rate_error_ppm < 0 { elapsed - error } else { elapsed + error };
        Clocks { leader: self.base.leader + elapsed, standby: self.base.standby + elapsed }
    }

    fn rebase(&mut self) {
        self.base = self.now();
        self.since = Instant::now();
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::starting_at(Duration::ZERO)
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Clocks {
        self.state().now()
    }

    fn follows_tokio(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readings_of_this_machine_agree_and_advance() {
        let clock = SystemClock;
        let mut former = clock.now();
        for _ in 0..10_000 {
            let started = std::time::Instant::now();
            let check = clock.leader();
            // An interruption between its readings makes a check too late, which is its safe side.
            let undisturbed = started.elapsed() < SAME_READING_WINDOW;
            let now = clock.now();
            // The sums of a check and of a stamp may each err by a little, in opposite directions.
            assert!(check + SAME_READING_WINDOW >= former.leader);
            assert!(!undisturbed || now.leader + SAME_READING_WINDOW >= check);
            assert!(now.standby >= former.standby);
            former = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_for_tests_can_be_wrong() {
        let clock = TokioClock::starting_at(Duration::from_secs(100));
        clock.skew(100_000);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(clock.now(), Clocks::both(Duration::from_secs(111)));
        clock.skew(-100_000);
        clock.jump(Duration::from_secs(1000));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(clock.now().leader, Duration::from_secs(1120));
        assert_eq!(clock.now().standby, Duration::from_secs(120));
    }
}
