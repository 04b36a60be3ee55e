//! [`Vacancy`]: a lock of which no leader is known: for how long, and why. The metric
//! `bactrian_lock_without_leader_seconds`, the line of `/readyz?verbose` and the warnings in the log all say what
//! is in it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Leadership, LockName};

/// The time for which a member knows of no leader. Clones are the same vacancy.
#[derive(Clone)]
pub struct Vacancy {
    since: Instant,
    /// Replaced by the backend whenever it knows better, which is no change of leadership.
    why: Arc<Mutex<SmolStr>>,
}

impl Vacancy {
    pub(super) fn new(why: &str) -> Self {
        Self { since: Instant::now(), why: Arc::new(Mutex::new(why.into())) }
    }

    /// For how long this member has known of no leader.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.since.elapsed()
    }

    /// Why there is none, as far as the backend knows now.
    #[must_use]
    pub fn why(&self) -> SmolStr {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn explain(&self, why: &str) {
        let mut present = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if *present != why {
            *present = why.into();
        }
    }
}

/// `no leader is known for 25s: WHY`.
impl fmt::Display for Vacancy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = Duration::from_secs(self.lasts().as_secs());
        write!(formatter, "no leader is known for {}: {}", humantime::format_duration(lasts), self.why())
    }
}

impl fmt::Debug for Vacancy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Vacancy({self})")
    }
}

/// The longest pause between two warnings about the same vacancy.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Warns of each vacancy of `lock` that lasts longer than `patience`, and then whenever it has lasted twice as long,
/// at least once in [`LONGEST_PAUSE`]. Ends with the publisher.
pub(super) async fn warn_of(lock: LockName, mut leadership: watch::Receiver<Leadership>, patience: Duration) {
    // The present state is news to this task.
    leadership.mark_changed();
    while leadership.changed().await.is_ok() {
        let Leadership::Vacant(vacancy) = leadership.borrow_and_update().clone() else { continue };
        let (mut at, mut pause) = (vacancy.since + patience, patience);
        loop {
            tokio::select! {
                biased;
                ended = vacancy_ended(&mut leadership) => {
                    if ended.is_err() {
                        return;
                    }
                    break;
                }
                () = sleep_until(at) => {}
            }
            let (seconds, why) = (vacancy.lasts().as_secs(), vacancy.why());
            warn!(%lock, seconds, %why, "`{lock}`: {vacancy}");
            (at, pause) = (Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE));
        }
    }
}

/// Leaves the news of the end to the caller.
async fn vacancy_ended(leadership: &mut watch::Receiver<Leadership>) -> Result<(), watch::error::RecvError> {
    leadership.changed().await?;
    leadership.mark_changed();
    Ok(())
}

/// A time of day that is further away says no more.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The wall clock's time after a wait, as [`time_of_day`]. A wait of more than a year counts as one.
#[must_use]
pub fn time_of_day_after(wait: Duration) -> String {
    time_of_day(Instant::now() + wait.min(FAR_AWAY))
}

/// The wall clock's time of a moment, for people: `2026-11-29T14:03:12Z`.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a time for people to read; no authority rests on it")]
pub fn time_of_day(moment: Instant) -> String {
    let now = (Instant::now(), SystemTime::now());
    let time = match moment.checked_duration_since(now.0) {
        Some(ahead) => now.1 + ahead,
        None => now.1 - now.0.duration_since(moment),
    };
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::DefaultGuard;

    use super::*;
    use crate::cluster::backend::LeadershipPublisher;
    use crate::cluster::{Leader, Member};

    /// The warnings of this thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn start() -> (Self, DefaultGuard) {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::WARN)
                .with_ansi(false)
                .with_writer(move || writer.clone());
            (log, tracing::subscriber::set_default(subscriber.finish()))
        }

        fn take(&self) -> Vec<String> {
            let text = std::mem::take(&mut *self.0.lock().unwrap());
            let lines = String::from_utf8(text).unwrap();
            let message = |line: &str| line[line.find('`').unwrap()..line.find(" lock=").unwrap()].to_owned();
            lines.lines().map(message).collect()
        }
    }

    fn publisher() -> LeadershipPublisher {
        LeadershipPublisher::new("lock1".parse().unwrap()).0
    }

    async fn seconds(count: u64) {
        tokio::time::sleep(Duration::from_secs(count)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_after_the_wait_and_then_more_and_more_rarely_with_the_present_reason() {
        let (log, _guard) = Log::start();
        let publisher = publisher();
        seconds(14).await;
        assert_eq!(log.take(), [""; 0]);
        publisher.explain("the store is out of reach");
        seconds(2).await;
        assert_eq!(log.take(), ["`lock1`: no leader is known for 15s: the store is out of reach"]);
        publisher.explain("the record has no label");
        seconds(60).await;
        let said = |after: &str| format!("`lock1`: no leader is known for {after}: the record has no label");
        assert_eq!(log.take(), ["30s", "1m"].map(said));
        seconds(3_600).await;
        assert_eq!(log.take().len(), 3 + 5, "after 2, 4, 8 and 16 minutes, and then every ten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_is_led_is_silent_and_each_vacancy_counts_anew() {
        let (log, _guard) = Log::start();
        let publisher = publisher();
        let leader = Leader { member: Member::new("b"), term: 7, why: "".into() };
        seconds(14).await;
        publisher.follow(Some(leader), "");
        publisher.explain("it is led");
        seconds(3_600).await;
        publisher.follow(None, "b has ended");
        seconds(14).await;
        assert_eq!(log.take(), [""; 0]);
        seconds(2).await;
        assert_eq!(log.take(), ["`lock1`: no leader is known for 15s: b has ended"]);
        drop(publisher);
        seconds(3_600).await;
        assert_eq!(log.take(), [""; 0], "the lock is no longer wanted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_has_a_time_of_day_before_and_after_now() {
        let now = Instant::now();
        let times = [now - Duration::from_secs(3600), now + Duration::from_secs(3600)].map(time_of_day);
        let [past, future] = times.map(|time| humantime::parse_rfc3339(&time).unwrap());
        let apart = future.duration_since(past).unwrap();
        assert!(apart.abs_diff(Duration::from_secs(7200)) <= Duration::from_secs(1), "{apart:?}");
    }
}
