//! [`Clock`]: what time it is, and waiting.

#[cfg(feature = "tokio-cron-scheduler")]
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

/// A wall clock that can be waited on. Tests have one of their own.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now; it may jump.
    fn now(&self) -> SystemTime;

    /// Waits about that long. Whoever waits looks at [`now`](Self::now) afterwards, and waits again when
    /// it was too short.
    ///
    /// # Cancellation
    /// Must be safe.
    async fn sleep(&self, duration: Duration);

    /// How late a wait may end when all is well. A time that is noticed so late is not missed for that.
    fn lateness(&self) -> Duration {
        Duration::ZERO
    }
}

/// The clock of the system and the timer of the runtime.
#[derive(Debug)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "a schedule is about the wall clock; no authority rests on it")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        system_time()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The scheduler looks twice a second; twice that is enough to tell that it has lost a job.
#[cfg(feature = "tokio-cron-scheduler")]
const LATENESS: Duration = Duration::from_secs(1);

/// The clock of the system, with waits that are one-shot jobs of a `JobScheduler`.
#[cfg(feature = "tokio-cron-scheduler")]
pub struct SchedulerClock {
    scheduler: tokio_cron_scheduler::JobScheduler,
}

#[cfg(feature = "tokio-cron-scheduler")]
impl fmt::Debug for SchedulerClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerClock").finish_non_exhaustive()
    }
}

#[cfg(feature = "tokio-cron-scheduler")]
impl SchedulerClock {
    /// Lets `scheduler` wait. It must be started, and its program shuts it down.
    #[must_use]
    pub fn new(scheduler: tokio_cron_scheduler::JobScheduler) -> Self {
        Self { scheduler }
    }

    /// A job that completes the returned receiver after `duration`.
    async fn arm(
        &self,
        duration: Duration,
    ) -> Result<tokio::sync::oneshot::Receiver<()>, tokio_cron_scheduler::JobSchedulerError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let job = tokio_cron_scheduler::Job::new_one_shot(duration, move |_, _| {
            // Nobody waits any more when the route has stopped.
            let _ = sender.take().map(|sender| sender.send(()));
        })?;
        self.scheduler.add(job).await?;
        Ok(receiver)
    }
}

#[cfg(feature = "tokio-cron-scheduler")]
#[async_trait]
impl Clock for SchedulerClock {
    fn now(&self) -> SystemTime {
        system_time()
    }

    fn lateness(&self) -> Duration {
        LATENESS
    }

    async fn sleep(&self, duration: Duration) {
        // The scheduler may be shut down, or lose a job: a schedule must not end with it.
        let patience = duration + LATENESS;
        let scheduled = async {
            match self.arm(duration).await {
                Ok(fired) => drop(fired.await),
                Err(error) => tracing::warn!("a job of the scheduler could not be added: {error}"),
            }
        };
        let started = tokio::time::Instant::now();
        let in_time = tokio::time::timeout(patience, scheduled).await.is_ok();
        if in_time && started.elapsed() < duration {
            // The job was refused or dropped.
            tokio::time::sleep_until(started + duration).await;
        }
    }
}
