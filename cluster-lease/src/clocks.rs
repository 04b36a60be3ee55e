//! Time as the election sees it: two readings of one machine, never the wall clock.

use std::time::Duration;

/// One reading of the two election clocks, each counted from an arbitrary but fixed start.
///
/// The core has no clock of its own: the driver reads these and passes them to every step. Offsets
/// between members do not matter, and neither does the wall clock. What matters is the rate: over any
/// real interval `d` the leader's clock must advance by at least `(1 - rho) d`, suspension of the host
/// included, and the standby's clock by at most `(1 + rho) d`.
///
/// On Linux the readings are:
///
/// - `leader = CLOCK_MONOTONIC_RAW + (CLOCK_BOOTTIME - CLOCK_MONOTONIC)`: hardware time awake plus time
///   suspended. The difference in brackets is exactly the suspended time, because both of its clocks are
///   slewed alike.
/// - `standby = CLOCK_MONOTONIC_RAW`: hardware time awake, so a suspended standby only waits longer.
///
/// The larger of two running *totals* is not a substitute for `leader`: after one suspension BOOTTIME
/// stays ahead of RAW for ever, the maximum is then always BOOTTIME, and a time daemon that slews it by
/// some percent slows the deadline down with it.
///
/// The readings of one value are taken one after the other, and the process can be descheduled between
/// them. The driver reads MONOTONIC before and after, and reads again when the two are more than a
/// fraction of a millisecond apart, because the same value stamps sends (must not be late) and checks
/// deadlines (must not be early).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clocks {
    /// The clock of everything that must end in time: deadlines, send times, aborts.
    pub leader: Duration,
    /// The clock of everything that must be waited for: takeover, inherited waits.
    pub standby: Duration,
}

impl Clocks {
    /// Both clocks at the same reading, for tests and for machines that never suspend.
    pub fn both(elapsed: Duration) -> Self {
        Self { leader: elapsed, standby: elapsed }
    }

    /// Time since `earlier` for a leader: never less than what truly passed, up to the rate error.
    pub fn leader_since(self, earlier: Self) -> Duration {
        self.leader.saturating_sub(earlier.leader)
    }

    /// Time since `earlier` for a standby: never more than what truly passed, up to the rate error.
    pub fn standby_since(self, earlier: Self) -> Duration {
        self.standby.saturating_sub(earlier.standby)
    }

    /// This reading, or the former one where it is ahead. A clock that steps back is a broken clock;
    /// holding still is the only answer that lets no deadline move.
    pub(crate) fn not_before(self, former: Self) -> Self {
        Self { leader: self.leader.max(former.leader), standby: self.standby.max(former.standby) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_holds_still() {
        let former = Clocks::both(Duration::from_secs(9));
        let stepped = Clocks { leader: Duration::from_secs(3), standby: Duration::from_secs(10) };
        let now = stepped.not_before(former);
        assert_eq!(now.leader, Duration::from_secs(9));
        assert_eq!(now.standby, Duration::from_secs(10));
    }
}
