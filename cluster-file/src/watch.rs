//! [`Watch`]: keeps the [`LockTable`] up to date.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::warn;

use crate::inotify::{Change, Inotify};
use crate::lock_table::{LockState, LockTable};

/// How often they look where there are no events.
const POLL: Duration = Duration::from_millis(100);

/// How long news about other leaders may wait. They are for humans; when many locks change hands at once,
/// reading them would keep candidates waiting.
const NEWS: Duration = Duration::from_millis(20);

/// Tells the table what happens in the root directory.
pub(crate) struct Watch {
    /// `None`: there are no events, everybody polls.
    inotify: Option<Inotify>,
    table: Arc<LockTable>,
    /// How often to look anyway.
    recheck: Duration,
    /// Nothing that happened after this was missed, if there are events.
    pub(crate) started: Instant,
}

impl Watch {
    /// Starts to watch `root`; with `without_events` as where there is no inotify.
    pub(crate) fn start(root: &Path, table: Arc<LockTable>, recheck: Duration, without_events: bool) -> Self {
        let started =
            if without_events { Err(io::ErrorKind::Unsupported.into()) } else { Inotify::start(root) };
        let inotify = match started {
            Ok(inotify) => Some(inotify),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            Err(error) => {
                warn!(
                    "no inotify for `{}`, polling every {POLL:?} instead, and a candidate for a new lock file waits \
                     (is `fs.inotify.max_user_instances` reached?): {error}",
                    root.display()
                );
                None
            }
        };
        Self { inotify, table, recheck, started: Instant::now() }
    }

    pub(crate) fn has_events(&self) -> bool {
        self.inotify.is_some()
    }

    /// How long to wait for an event before looking anyway.
    pub(crate) fn recheck(&self) -> Duration {
        if self.has_events() { self.recheck } else { POLL.min(self.recheck) }
    }

    /// Keeps the table up to date; never returns.
    pub(crate) async fn run(&self) {
        let mut doubts = interval(self.recheck);
        doubts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let news = sleep(Duration::ZERO);
        tokio::pin!(news);
        let (mut written, mut members) = (Vec::new(), false);
        loop {
            tokio::select! {
                biased;
                () = self.changes(|change| written.extend(self.table.note(change))) => {
                    if news.is_elapsed() {
                        news.as_mut().reset(Instant::now() + NEWS);
                    }
                }
                () = self.table.roster.suspected.notified() => {
                    members = true;
                    if news.is_elapsed() {
                        news.as_mut().reset(Instant::now() + NEWS);
                    }
                }
                () = &mut news, if members || !written.is_empty() => {
                    written.drain(..).for_each(|state: Arc<LockState>| state.look(None));
                    if std::mem::take(&mut members) {
                        self.table.roster.look_if_watched();
                    }
                }
                _ = doubts.tick() => {
                    if !self.has_events() {
                        self.table.note(Change::Anything);
                    }
                    self.table.resolve_doubts();
                    self.table.roster.look_if_watched();
                }
            }
        }
    }

    async fn changes(&self, note: impl FnMut(Change<'_>)) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        if let Err(error) = inotify.changes(note).await {
            // Everybody looks each second anyway; the pause keeps a lasting error from filling the log.
            warn!("cannot read inotify events: {error}");
            tokio::time::sleep(self.recheck).await;
        }
    }

    /// Makes sure that the table knows of everything that happened up to now.
    pub(crate) fn catch_up(&self) {
        let Some(inotify) = &self.inotify else { return };
        let mut written = Vec::new();
        if let Err(error) = inotify.drain(|change| written.extend(self.table.note(change))) {
            warn!("cannot read inotify events: {error}");
            self.table.note(Change::Anything);
        }
        for state in written {
            state.look(None);
        }
    }
}
