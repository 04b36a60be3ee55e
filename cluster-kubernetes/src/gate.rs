//! When requests may be sent: at once while the API server responds, and with growing pauses while it does not.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_lease::Settings;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// The pause after the second failure in a row. The first costs none: it may have been the connection.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds of the longest pause, which is a third of the takeover wait.
const SHORTEST_LIMIT: Duration = Duration::from_secs(1);
const LONGEST_LIMIT: Duration = Duration::from_secs(30);
/// Upper bound for what `Retry-After` asks for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// An outage of this length is reported, and again each time that it has lasted three times as long.
const REPORTED_OUTAGE: Duration = Duration::from_secs(10);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);
/// A request that its caller drops sooner than this was not waited for.
const DROPPED_EARLY: Duration = Duration::from_millis(500);

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Heartbeats: while something may be held they wait for half an attempt at most.
    Heartbeat,
    /// The others of the election.
    Ordinary,
    /// What is done beside the election, whose outages are not reported.
    Beside,
}

/// The gate of one kind of requests of a member.
pub(crate) struct Gate {
    kind: Kind,
    /// While the last response is younger than this, this member may hold something.
    deadline: Duration,
    leads_on: (Duration, Duration),
    /// How long a heartbeat may wait then.
    patience: Duration,
    longest_pause: Duration,
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Default)]
struct State {
    /// Failures since the last response.
    failures: u32,
    last_failure: Option<Instant>,
    last_response: Option<Instant>,
    /// When the next request may be sent: one, to see how it ends.
    next: Option<Instant>,
    outage: Option<Outage>,
}

struct Outage {
    since: Instant,
    reported: bool,
    report_at: Instant,
}

impl Gate {
    pub(crate) fn new(kind: Kind, timing: &Settings) -> Self {
        Self {
            kind,
            deadline: timing.deadline(),
            leads_on: timing.leads_on(),
            patience: timing.attempt_timeout() / 2,
            longest_pause: (timing.takeover_wait() / 3).clamp(SHORTEST_LIMIT, LONGEST_LIMIT),
            state: Mutex::default(),
            opened: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may be sent.
    pub(crate) async fn turn(&self) -> Sent<'_> {
        let limit = self.limit();
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            opened.as_mut().enable();
            let Some(until) = self.wait_until(limit) else { break };
            tokio::select! {
                biased;
                () = opened => {}
                () = sleep_until(until) => {}
            }
        }
        Sent { gate: self, at: Instant::now(), answered: false }
    }

    /// Until when a request waits at most.
    fn limit(&self) -> Option<Instant> {
        let now = Instant::now();
        let may_hold = self.state().last_response.is_some_and(|at| now.duration_since(at) < self.deadline);
        (self.kind == Kind::Heartbeat && may_hold).then(|| now + self.patience)
    }

    /// `None`: it is its turn now. Those that follow wait for how it ends, or for another pause.
    fn wait_until(&self, limit: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        let next = state.next?;
        if limit.is_some_and(|limit| now >= limit) {
            return None;
        }
        if now >= next {
            state.next = Some(now + self.pause(state.failures));
            return None;
        }
        Some(limit.map_or(next, |limit| limit.min(next)))
    }

    /// Half of it is random, so that members that lost the server together do not return together.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(2).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(self.longest_pause);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    fn responded(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let outage = state.outage.take();
        *state = State { last_response: Some(now), ..State::default() };
        drop(state);
        self.opened.notify_waiters();
        if let Some(Outage { since, reported: true, .. }) = outage {
            info!("the API server responds again, after {:.0?}", now.duration_since(since));
        }
    }

    /// A request that was sent at this time failed. Those that were under way together count once.
    fn failed(&self, sent: Instant, retry_after: Option<Duration>, error: &dyn Display) {
        let now = Instant::now();
        let mut state = self.state();
        if state.last_failure.is_none_or(|last| sent >= last) {
            state.failures = state.failures.saturating_add(1);
            state.last_failure = Some(now);
        }
        let asked = retry_after.map(|time| now + time.min(LONGEST_RETRY_AFTER));
        let paused = (state.failures > 1).then(|| now + self.pause(state.failures));
        state.next = state.next.max(asked).max(paused);
        if self.kind == Kind::Ordinary {
            self.report(&mut state, now, error);
        }
    }

    fn report(&self, state: &mut State, now: Instant, error: &dyn Display) {
        let new = Outage { since: now, reported: false, report_at: now + REPORTED_OUTAGE };
        let outage = state.outage.get_or_insert(new);
        if now < outage.report_at {
            return;
        }
        let lasted = now.duration_since(outage.since);
        outage.reported = true;
        outage.report_at = now + (lasted * 2).min(LONGEST_SILENCE);
        let (least, most) = self.leads_on;
        warn!(
            "the API server has not responded for {lasted:.0?}: {error}; a leader stops {least:?} to {most:?} after \
             the last response, and requests are retried with pauses of up to {:?}",
            self.longest_pause
        );
    }
}

/// A request that was sent. Dropped without a word, it was not answered in time.
pub(crate) struct Sent<'a> {
    gate: &'a Gate,
    at: Instant,
    answered: bool,
}

impl Sent<'_> {
    /// The server, or what stands before it, responded: whatever it said, there is no reason to wait.
    pub(crate) fn responded(mut self) {
        self.answered = true;
        self.gate.responded();
    }

    pub(crate) fn failed(mut self, retry_after: Option<Duration>, error: &dyn Display) {
        self.answered = true;
        self.gate.failed(self.at, retry_after, error);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.answered && self.at.elapsed() >= DROPPED_EARLY {
            self.gate.failed(self.at, None, &"it did not respond in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(kind: Kind) -> Gate {
        Gate::new(kind, &Settings::default())
    }

    /// How many requests are sent in this time, if all fail.
    async fn tries(gate: &Gate, time: Duration) -> usize {
        let (until, mut tries) = (Instant::now() + time, 0);
        while let Ok(sent) = tokio::time::timeout_at(until, gate.turn()).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
            sent.failed(None, &"refused");
            tries += 1;
        }
        tries
    }

    #[test]
    fn the_guide_says_how_long_leaders_go_on() {
        let (least, most) = Settings::default().leads_on();
        let said =
            format!("{:.1} s to {:.1} s in the default profile", least.as_secs_f64(), most.as_secs_f64());
        assert!(include_str!("../../docs/src/promises.md").contains(&said), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_nothing_responds_and_end_with_the_first_response() {
        let gate = gate(Kind::Ordinary);
        let minute = tries(&gate, Duration::from_secs(60)).await;
        assert!((12..30).contains(&minute), "{minute} tries in a minute");
        gate.turn().await.responded();
        let began = Instant::now();
        gate.turn().await.failed(None, &"refused");
        gate.turn().await.responded();
        assert!(began.elapsed() < Duration::from_millis(10), "one failure costs no pause");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_go_on_as_soon_as_one_was_answered() {
        let gate = gate(Kind::Ordinary);
        tries(&gate, Duration::from_secs(60)).await;
        let probe = gate.turn().await;
        let waiting = async {
            let began = Instant::now();
            gate.turn().await.responded();
            began.elapsed()
        };
        let answer = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            probe.responded();
        };
        let (waited, ()) = tokio::join!(waiting, answer);
        assert_eq!(waited, Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_heeded_and_by_a_heartbeat_as_far_as_its_deadline_allows() {
        let asked = Some(Duration::from_secs(10));
        for (kind, holds, waits) in [
            (Kind::Ordinary, true, Duration::from_secs(10)),
            (Kind::Heartbeat, false, Duration::from_secs(10)),
            (Kind::Heartbeat, true, Duration::from_millis(1_500)),
        ] {
            let gate = gate(kind);
            if holds {
                gate.turn().await.responded();
            }
            gate.turn().await.failed(asked, &"429");
            let began = Instant::now();
            drop(gate.turn().await);
            assert_eq!(began.elapsed(), waits, "{kind:?}, holds: {holds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_paced_as_others_once_nothing_can_be_held() {
        let gate = gate(Kind::Heartbeat);
        gate.turn().await.responded();
        let held = tries(&gate, Duration::from_secs(12)).await;
        assert!(held >= 10, "{held} heartbeats while the deadline runs");
        tries(&gate, Duration::from_secs(60)).await;
        let later = tries(&gate, Duration::from_secs(60)).await;
        assert!(later < 30, "{later} heartbeats in a minute, though nothing is held");
    }
}
