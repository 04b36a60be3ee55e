//! The ordered watch of a [`MemoryStore`](super::MemoryStore).

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep_until};

use super::faults::{Link, WatchFate};
use super::{Hub, Logged};
use crate::record::Version;
use crate::store::{Change, LeaseWatch, StoreError};

pub(super) struct MemoryWatch {
    hub: Arc<Hub>,
    link: Link,
    /// Everything up to here has been delivered.
    delivered: Version,
    /// Not before this time, so that a change with a short delay does not overtake one with a long delay.
    not_before: Instant,
    /// What was drawn for the next change. Kept, so that a dropped `next` changes nothing.
    fate: Option<(Version, WatchFate)>,
    breaks: u64,
    restored: u64,
    versions: channel::Receiver<Version>,
    link_changes: channel::Receiver<u64>,
}

impl MemoryWatch {
    pub(super) fn new(hub: Arc<Hub>, link: Link, version: Version) -> Self {
        let restored = hub.state().restored;
        Self {
            versions: hub.version.subscribe(),
            link_changes: link.changes(),
            delivered: version,
            not_before: Instant::now(),
            fate: None,
            breaks: link.breaks(),
            restored,
            hub,
            link,
        }
    }

    fn upcoming(&self) -> Result<Option<Logged>, StoreError> {
        let state = self.hub.state();
        if self.restored != state.restored || self.delivered > state.version {
            return Err(StoreError::unknown("the store has another history"));
        }
        if self.delivered < state.compacted {
            return Err(StoreError::unknown("the changes since then are no longer kept"));
        }
        let next = state.log.partition_point(|logged| logged.version <= self.delivered);
        Ok(state.log.get(next).cloned())
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.link_changes.changed() => {}
            _ = self.versions.changed(), if until.is_none() => {}
            () = timer => {}
        }
    }
}

#[async_trait]
impl LeaseWatch for MemoryWatch {
    async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        loop {
            self.versions.mark_unchanged();
            self.link_changes.mark_unchanged();
            if self.link.is_watch_silent() {
                self.link_changes.changed().await.map_err(|_| StoreError::unknown("the store is gone"))?;
                continue;
            }
            if self.link.breaks() != self.breaks {
                return Err(StoreError::unknown("the watch broke"));
            }
            let Some(logged) = self.upcoming()? else {
                self.wait(None).await;
                continue;
            };
            let (_, fate) = match self.fate.take() {
                Some(fate) if fate.0 == logged.version => self.fate.insert(fate),
                _ => self.fate.insert((logged.version, self.link.draw_for_watch())),
            };
            if fate.breaks {
                return Err(StoreError::unknown("the watch broke"));
            }
            if fate.ends {
                return Ok(None);
            }
            let due = self.not_before.max(logged.at + fate.delay);
            if due > Instant::now() {
                self.wait(Some(due)).await;
                continue;
            }
            self.not_before = due;
            self.delivered = logged.version;
            let version = logged.version;
            return Ok(Some(match logged.change {
                Some((key, record)) => Change::Record { version, key, record },
                None => Change::Bookmark { version },
            }));
        }
    }
}
