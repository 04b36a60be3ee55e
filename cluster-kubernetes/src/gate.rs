//! When requests may be sent: at once while the API server responds, and with growing pauses while it does not.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_lease::Settings;
use router_core::backoff;
use router_core::cluster::backend::time_of_day;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// The pause after the second failure in a row. The first costs none: it may have been the connection.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds of the longest pause, which is a third of the takeover wait for a member that held something when the server
/// went away, and the upper one for all others: a lock is led again soon, and the server is left in peace.
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
    /// Those that tell whether this member holds something.
    heartbeats: Option<Arc<Gate>>,
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Default)]
struct State {
    /// Failures since the last response.
    failures: u32,
    first_failure: Option<Instant>,
    last_failure: Option<Instant>,
    last_response: Option<Instant>,
    /// When the next request may be sent: one, to see how it ends.
    next: Option<Instant>,
    /// That is because the server has refused one and said for how long.
    asked_to_wait: bool,
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
            heartbeats: None,
            longest_pause: (timing.takeover_wait() / 3).clamp(SHORTEST_LIMIT, LONGEST_LIMIT),
            state: Mutex::default(),
            opened: Notify::new(),
        }
    }

    /// A gate of other requests than heartbeats, which have a gate of their own.
    pub(crate) fn beside(self, heartbeats: &Arc<Self>) -> Self {
        Self { heartbeats: Some(Arc::clone(heartbeats)), ..self }
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

    /// Why no request is sent now, where the server has asked for that.
    pub(crate) fn why_unsent(&self) -> Option<String> {
        let state = self.state();
        let next = state.next.filter(|next| state.asked_to_wait && Instant::now() < *next)?;
        Some(format!("no request is sent until {}, because the API server asks for that", time_of_day(next)))
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
            state.next = Some(now + self.pause(&state));
            return None;
        }
        Some(limit.map_or(next, |limit| limit.min(next)))
    }

    /// Half of it is random, so that members that lost the server together do not return together.
    fn pause(&self, state: &State) -> Duration {
        backoff::pause(FIRST_PAUSE, self.longest_pause(state), state.failures.saturating_sub(2))
    }

    fn longest_pause(&self, state: &State) -> Duration {
        let held = match (&self.heartbeats, self.kind) {
            (Some(gate), _) => gate.may_have_held(&gate.state(), state.first_failure),
            // A member that stands by sends heartbeats as soon as it wants to take a lock.
            (None, Kind::Heartbeat) => self.may_have_held(state, None),
            (None, _) => true,
        };
        if held { self.longest_pause } else { LONGEST_LIMIT }
    }

    /// Whether this member may have held something when the outage began, by its heartbeats; `other`: when the first
    /// of its other requests failed. A leader sends little else, so its heartbeats are the first to fail.
    fn may_have_held(&self, heartbeats: &State, other: Option<Instant>) -> bool {
        let began = [other, heartbeats.first_failure].into_iter().flatten().min();
        let heard = |began| heartbeats.last_response.is_some_and(|at| at + self.deadline >= began);
        began.is_none_or(heard)
    }

    /// A request of another kind was answered, so silence is no reason to wait any more.
    fn end_silence(&self) {
        let mut state = self.state();
        if state.asked_to_wait {
            return;
        }
        (state.failures, state.next) = (0, None);
        drop(state);
        self.opened.notify_waiters();
    }

    fn responded(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let outage = state.outage.take();
        let last = state.last_failure.unwrap_or(now);
        *state = State { last_response: Some(now), ..State::default() };
        drop(state);
        self.opened.notify_waiters();
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.end_silence();
        }
        if let Some(Outage { since, reported: true, .. }) = outage {
            info!(
                "the API server serves this member again: requests failed for {:.0?}, the last one {:.0?} ago",
                last.saturating_duration_since(since),
                now.duration_since(last)
            );
        }
    }

    /// A request that was sent at this time failed. Those that were under way together count once.
    fn failed(&self, sent: Instant, failure: Failure, error: &dyn Display) {
        let now = Instant::now();
        let mut state = self.state();
        if state.last_failure.is_none_or(|last| sent >= last) {
            state.failures = state.failures.saturating_add(1);
            state.first_failure.get_or_insert(now);
            state.last_failure = Some(now);
        }
        let asked = failure.retry_after().map(|time| now + time.min(LONGEST_RETRY_AFTER));
        state.asked_to_wait = asked.is_some();
        let paused = (state.failures > 1).then(|| now + self.pause(&state));
        state.next = state.next.max(asked).max(paused);
        if self.kind == Kind::Ordinary {
            self.report(&mut state, now, failure, error);
        }
    }

    fn report(&self, state: &mut State, now: Instant, failure: Failure, error: &dyn Display) {
        let longest = self.longest_pause(state);
        let new = Outage { since: now, reported: false, report_at: now + REPORTED_OUTAGE };
        let outage = state.outage.get_or_insert(new);
        if now < outage.report_at {
            return;
        }
        let lasted = now.duration_since(outage.since);
        outage.reported = true;
        outage.report_at = now + (lasted * 2).min(LONGEST_SILENCE);
        warn!("{}", self.outage(longest, lasted, failure, error));
    }

    fn outage(&self, longest: Duration, lasted: Duration, failure: Failure, error: &dyn Display) -> String {
        let (least, most) = self.leads_on;
        let what = match failure {
            Failure::Silent => "has not responded",
            Failure::Refused { .. } => "has refused the requests of this member",
        };
        let pauses = match failure.retry_after() {
            Some(asked) => format!("the next request waits {:?}, as it asks", asked.min(LONGEST_RETRY_AFTER)),
            None => format!("requests are retried with pauses of up to {longest:?}"),
        };
        format!(
            "the API server {what} for {lasted:.0?}: {error}; a leader stops {least:?} to {most:?} after the last \
             response, and {pauses}"
        )
    }
}

/// What became of a request that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// There was no response.
    Silent,
    /// The server, or what stands before it, does not serve it now, and may say for how long.
    Refused { retry_after: Option<Duration> },
}

impl Failure {
    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Silent => None,
            Self::Refused { retry_after } => retry_after,
        }
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

    pub(crate) fn failed(mut self, failure: Failure, error: &dyn Display) {
        self.answered = true;
        self.gate.failed(self.at, failure, error);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.answered && self.at.elapsed() >= DROPPED_EARLY {
            self.gate.failed(self.at, Failure::Silent, &"it did not respond in time");
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
            sent.failed(Failure::Silent, &"refused");
            tries += 1;
        }
        tries
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_nothing_responds_and_end_with_the_first_response() {
        let gate = gate(Kind::Ordinary);
        let minute = tries(&gate, Duration::from_secs(60)).await;
        assert!((12..30).contains(&minute), "{minute} tries in a minute");
        gate.turn().await.responded();
        let began = Instant::now();
        gate.turn().await.failed(Failure::Silent, &"refused");
        gate.turn().await.responded();
        assert!(began.elapsed() < Duration::from_millis(10), "one failure costs no pause");
    }

    #[tokio::test(start_paused = true)]
    async fn who_held_nothing_when_the_server_went_away_leaves_it_in_peace() {
        for (held, expected) in [(true, 12..30), (false, 2..6)] {
            let heartbeats = Arc::new(gate(Kind::Heartbeat));
            let gate = gate(Kind::Ordinary).beside(&heartbeats);
            gate.turn().await.responded();
            if held {
                heartbeats.turn().await.responded();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            tries(&gate, Duration::from_secs(60)).await;
            let minute = tries(&gate, Duration::from_secs(60)).await;
            assert!(expected.contains(&minute), "{minute} tries in a minute, held: {held}");
            gate.turn().await.responded();
            let began = Instant::now();
            gate.turn().await.failed(Failure::Silent, &"refused");
            drop(gate.turn().await);
            assert!(began.elapsed() < Duration::from_millis(10), "it begins anew");
        }
    }

    /// It stands by, and sends heartbeats because it wants to take a lock whose holder is silent.
    #[tokio::test(start_paused = true)]
    async fn who_held_nothing_leaves_the_server_in_peace_with_heartbeats_too() {
        let heartbeats = Arc::new(gate(Kind::Heartbeat));
        heartbeats.turn().await.responded();
        let others = gate(Kind::Ordinary).beside(&heartbeats);
        tokio::time::sleep(Duration::from_secs(20)).await;
        tries(&heartbeats, Duration::from_secs(60)).await;
        let minute = tries(&heartbeats, Duration::from_secs(60)).await;
        assert!((2..6).contains(&minute), "{minute} heartbeats in a minute");
        others.turn().await.responded();
        let began = Instant::now();
        drop(heartbeats.turn().await);
        assert!(began.elapsed() < Duration::from_millis(10), "the server is back");
    }

    #[test]
    fn a_refusal_is_no_silence_and_the_pause_is_the_one_that_is_kept() {
        let gate = gate(Kind::Ordinary);
        let told = |failure| gate.outage(LONGEST_LIMIT, Duration::from_secs(10), failure, &"429");
        let refused = |seconds| Failure::Refused { retry_after: Some(Duration::from_secs(seconds)) };
        for (text, parts) in [
            (told(Failure::Silent), ["has not responded for 10s: 429", "with pauses of up to 30s"]),
            (told(refused(42)), ["has refused the requests of this member for 10s", "waits 42s, as it asks"]),
            (
                told(refused(7_200)),
                ["has refused the requests of this member for 10s", "waits 60s, as it asks"],
            ),
        ] {
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
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
        let asked = Failure::Refused { retry_after: Some(Duration::from_secs(10)) };
        for (kind, holds, waits) in [
            (Kind::Ordinary, true, Duration::from_secs(10)),
            (Kind::Heartbeat, false, Duration::from_secs(10)),
            (Kind::Heartbeat, true, Duration::from_millis(1_500)),
        ] {
            let gate = gate(kind);
            if holds {
                gate.turn().await.responded();
            }
            assert_eq!(gate.why_unsent(), None);
            gate.turn().await.failed(asked, &"429");
            assert!(gate.why_unsent().unwrap().contains("asks for that"));
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
