//! One schedule, drawn from a seed: who takes part, how their clocks run, what goes wrong and when.

use cluster_lease::{LockRecord, Mutant, Settings};
use fastrand::Rng;

use crate::clock::{Stretch, Time};
use crate::judge::ProcessId;

/// One second of true time.
pub const SECOND: Time = 1_000_000_000;
/// One millisecond of true time.
pub const MILLISECOND: Time = 1_000_000;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// A rule of the core.
    Rule(Mutant),
    /// The deadline is 14 s with a takeover wait of 15 s and a stop time of 2 s.
    DeadlineTooLong,
    /// Clocks err by 25 % under settings for 10 %.
    RateBeyondBound,
    /// Clocks err by 10 % under settings for 1 %.
    SettingsForBetterClocks,
    /// The leader's clock is the larger of two running totals instead of the sum of intervals.
    ClockTotals,
    /// A claim leaves out the states that are kept with the lock.
    ClaimWithoutStates,
    /// A state is stored without naming the version that was seen.
    StoreWithoutVersion,
    /// A state is stored with whatever record is there.
    StoreWithoutTenure,
}

impl Breakage {
    /// Everything that can be broken.
    pub fn all() -> Vec<Self> {
        let rules = Mutant::ALL.iter().map(|mutant| Self::Rule(*mutant));
        let others = [
            Self::DeadlineTooLong,
            Self::RateBeyondBound,
            Self::SettingsForBetterClocks,
            Self::ClockTotals,
            Self::ClaimWithoutStates,
            Self::StoreWithoutVersion,
            Self::StoreWithoutTenure,
        ];
        rules.chain(others).collect()
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Rule(mutant) => mutant.name().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Messages between the member and the store are lost: requests, answers, watch, in that order.
    Cut(bool, bool, bool),
    /// The process does not run, but its clocks count.
    Pause,
    /// The host is suspended: the hardware clock does not count.
    Suspend,
    /// The process ends at once and a new one starts under the same name when the fault is over.
    Crash,
    /// The process is asked to stop, drains, and a new one starts when the fault is over.
    Terminate,
    /// The member gives up a lock and stays out while the fault lasts.
    Resign(u32),
    /// The member no longer wants a lock while the fault lasts.
    Unview(u32),
    /// A lock's record is deleted.
    DeleteLock(u32),
    /// A lock's record is deleted and made anew by a writer that is not a member, as by a manifest.
    RemakeLock(u32),
    /// A lock's record is written again, when the fault is over, as it was when it began, by a writer that is not a
    /// member: as by a backup of the object. Not in a schedule in which the store is set back.
    SetBackLock(u32),
    /// The record of the member's present session is deleted.
    DeleteSession,
    /// Somebody says that the member is gone, which may be wrong.
    WeakEvidence,
    /// The store is set back, when the fault is over, to what it was when it began. Once in a schedule at most.
    Restore,
    /// The member's watch breaks, with a gap that only a list can fill.
    WatchGap,
    /// Two strokes against the order of changes: the watch breaks with a gap while the member's session
    /// is deleted.
    GapAndDeleteSession,
}

/// One thing that goes wrong with one member for a while.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// For how long.
    pub lasts: Time,
    /// To whom.
    pub member: usize,
    /// What.
    pub kind: FaultKind,
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The usual longest delay.
    pub delay: Time,
    /// How often a message takes much longer.
    pub slow: f64,
    /// How long such a message takes at most.
    pub slow_delay: Time,
    /// How often a message is lost.
    pub loss: f64,
    /// How often a request arrives twice.
    pub duplicate: f64,
    /// How often a broken watch resumes with a list instead of from where it was.
    pub gap: f64,
}

/// One schedule.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it came from.
    pub seed: u64,
    /// How many members take part.
    pub members: usize,
    /// How many locks they compete for.
    pub locks: u32,
    /// The timings of the members. Where there are several, members differ, and a process that restarts has
    /// another one than the process before it: a rolling update.
    pub timings: Vec<Settings>,
    /// The worst error of the clocks that this schedule contains.
    pub rate_error: f64,
    /// What is broken on purpose.
    pub breakage: Option<Breakage>,
    /// The lock records that exist from the start.
    pub prepared: Option<LockRecord>,
    /// Whether the session of a process that restarts takes the object of the one before.
    pub reuse: bool,
    /// Offset and stretches of each member's clocks, suspensions not yet included.
    pub clocks: Vec<(u64, Vec<Stretch>)>,
    /// How messages travel.
    pub network: Network,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// When everything that is wrong ends.
    pub heal: Time,
    /// How many happenings are too many: a member that begins one with each that it has seen never ends.
    pub most_happenings: u64,
}

impl Plan {
    /// Draws the schedule of a seed.
    pub fn new(seed: u64, breakage: Option<Breakage>) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x6c65_6173_6521);
        let (timings, rate_error) = timings(&mut rng, breakage);
        let longest = timings.iter().map(Settings::takeover_wait).max().unwrap_or_default();
        let scale = longest.as_secs_f64() / 15.0;
        let scaled = |seconds: f64| (seconds * scale * SECOND as f64) as Time;
        let members = rng.usize(2..=4);
        let locks = rng.u32(1..=2);
        let heal = scaled(110.0);
        let slewed = breakage == Some(Breakage::ClockTotals) || rng.u8(..4) == 0;
        let clocks = (0..members).map(|_| clock(&mut rng, heal, rate_error, slewed)).collect();
        let rough = rng.u8(..3);
        let network = Network {
            delay: MILLISECOND * rng.u64(2..60),
            slow: [0.0, 0.02, 0.15][usize::from(rough)],
            slow_delay: scaled(rng.f64() * 25.0),
            loss: [0.0, 0.01, 0.1][usize::from(rough)],
            duplicate: [0.0, 0.05, 0.1][usize::from(rough)],
            gap: rng.f64(),
        };
        let count = rng.usize(1..14);
        let mut faults: Vec<_> = (0..count).map(|_| fault(&mut rng, members, locks, heal, scale)).collect();
        // Not in the last part: whoever remembers takes two waits to go on.
        if rng.u8(..12) == 0 {
            let at = rng.u64(..heal / 3);
            let lasts = rng.u64(..heal / 4);
            faults.push(Fault { at, lasts, member: 0, kind: FaultKind::Restore });
        }
        faults.sort_by_key(|fault| fault.at);
        let prepared = match rng.u8(..4) {
            0 => None,
            1 => Some(LockRecord::UNKNOWN),
            _ => Some(LockRecord::RELEASED),
        };
        let reuse = rng.u8(..4) == 0;
        if rng.u8(..4) == 0 && faults.iter().all(|fault| fault.kind != FaultKind::Restore) {
            let at = rng.u64(..heal * 3 / 4);
            let lasts = rng.u64(..heal / 4);
            faults.push(Fault { at, lasts, member: 0, kind: FaultKind::SetBackLock(rng.u32(..locks)) });
            faults.sort_by_key(|fault| fault.at);
        }
        Self {
            seed,
            members,
            locks,
            timings,
            rate_error,
            breakage,
            most_happenings: 1_000_000,
            prepared,
            reuse,
            clocks,
            network,
            faults,
            heal,
        }
    }

    /// The timing of a process.
    pub fn timing(&self, process: ProcessId) -> Settings {
        self.timings[(process.member + process.number as usize) % self.timings.len()]
    }

    /// How long the schedule runs: after everything is well again, the time in which somebody must lead.
    pub fn end(&self) -> Time {
        let wait = self.timings.iter().map(Settings::takeover_wait).max().unwrap_or_default();
        let worst = self.timings.iter().map(Settings::rate_error_ppm).max().unwrap_or_default();
        // What one member owes is passed on in true time, and waited for by the clock of another.
        let mixed = if self.timings.len() > 1 { 1.0 + f64::from(worst) / 1e6 } else { 1.0 };
        // One wait until it is certain that the store was set back, and one in the new history.
        let restored = self.faults.iter().any(|fault| fault.kind == FaultKind::Restore);
        let waits = if restored { 2.2 } else { 1.0 };
        let wait = waits * wait.as_nanos() as f64 * mixed / (1.0 - self.rate_error);
        self.heal + wait as Time + self.slack()
    }

    /// Three round trips, the turns of the candidates, one heartbeat period and one attempt timeout: what
    /// may pass besides the takeover wait before somebody leads.
    pub fn slack(&self) -> Time {
        let attempt = self.timings.iter().map(|timing| timing.attempt_timeout() + timing.heartbeat()).max();
        let attempt = attempt.unwrap_or_default().as_nanos() as Time;
        6 * self.network.delay + 4 * 50 * MILLISECOND + attempt + SECOND / 2
    }
}

fn timings(rng: &mut Rng, breakage: Option<Breakage>) -> (Vec<Settings>, f64) {
    let default = Settings::default();
    let one_of_its_own = matches!(
        breakage,
        Some(Breakage::DeadlineTooLong | Breakage::RateBeyondBound | Breakage::SettingsForBetterClocks)
    );
    if !one_of_its_own && rng.u8(..4) == 0 {
        let mixed = match rng.u8(..4) {
            0 => [Settings::fast(), default],
            1 => [Settings::fast(), Settings::relaxed()],
            2 => [default, Settings::relaxed()],
            _ => [default, Settings::slewed_clock()],
        };
        return (mixed.to_vec(), 0.01);
    }
    let (timing, rate_error) = timing(rng, breakage);
    (vec![timing], rate_error)
}

fn timing(rng: &mut Rng, breakage: Option<Breakage>) -> (Settings, f64) {
    let seconds = std::time::Duration::from_secs_f64;
    let default = Settings::default();
    match breakage {
        Some(Breakage::DeadlineTooLong) => {
            let heartbeat = default.heartbeat();
            let settings = Settings::unchecked(
                default.takeover_wait(),
                seconds(14.0),
                default.stop(),
                heartbeat,
                10_000,
            );
            (settings, 0.01)
        }
        Some(Breakage::RateBeyondBound) => (Settings::slewed_clock(), 0.25),
        Some(Breakage::SettingsForBetterClocks) => (default, 0.1),
        _ => match rng.u8(..10) {
            0 | 1 => (Settings::fast(), 0.01),
            2 => (Settings::relaxed(), 0.01),
            3 => (Settings::slewed_clock(), 0.1),
            _ => (default, 0.01),
        },
    }
}

/// Half of the members run at one of the two extremes, because that is where safety is tight.
fn clock(rng: &mut Rng, heal: Time, error: f64, slewed: bool) -> (u64, Vec<Stretch>) {
    // Just inside of the bound, because the readings are rounded to nanoseconds.
    let error = error - 1e-8;
    let changes = rng.usize(1..5);
    let mut starts: Vec<Time> = (1..changes).map(|_| rng.u64(1..heal)).collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let steady = rng.u8(..4);
    let offset = rng.u64(..1 << 44);
    let stretches = starts.into_iter().map(|from| {
        let rate = match steady {
            0 => 1.0 - error,
            1 => 1.0 + error,
            _ => 1.0 + error * (rng.f64() * 2.0 - 1.0),
        };
        let slew = if slewed { 1.0 + 0.08 * (rng.f64() * 2.0 - 1.0) } else { 1.0 };
        Stretch { from, rate, slew, suspended: false }
    });
    (offset, stretches.collect())
}

fn fault(rng: &mut Rng, members: usize, locks: u32, heal: Time, scale: f64) -> Fault {
    let lock = rng.u32(..locks);
    let longest = 40.0 * scale * SECOND as f64;
    let kind = match rng.u8(..25) {
        0..=4 => match rng.u8(..6) {
            0 => FaultKind::Cut(true, false, false),
            1 => FaultKind::Cut(false, true, false),
            2 => FaultKind::Cut(false, false, true),
            3 => FaultKind::Cut(true, true, false),
            _ => FaultKind::Cut(true, true, true),
        },
        5..=7 => FaultKind::Pause,
        8 => FaultKind::Suspend,
        9..=11 => FaultKind::Crash,
        12 => FaultKind::Terminate,
        13 => FaultKind::Resign(lock),
        14 => FaultKind::Unview(lock),
        15 | 16 => FaultKind::DeleteLock(lock),
        17..=19 => FaultKind::DeleteSession,
        20 | 21 => FaultKind::WeakEvidence,
        22 => FaultKind::WatchGap,
        23 => FaultKind::RemakeLock(lock),
        _ => FaultKind::GapAndDeleteSession,
    };
    let at = rng.u64(..heal * 9 / 10);
    // Short ones matter as much as long ones: the interesting ends are around y, y + stop and x.
    let lasts = (longest * rng.f64() * if rng.bool() { 1.0 } else { 0.5 }) as Time;
    Fault { at, lasts: lasts.min(heal - at), member: rng.usize(..members), kind }
}
