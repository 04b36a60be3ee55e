//! The watch over the Leases of a group.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::{Change, LeaseWatch, SessionId, StoreError, StoreKey, StoreRecord, Version};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::WatchEvent;
use tokio::time::timeout;

use crate::codec::{Decoded, parse_version, version};
use crate::errors;
use crate::shared::Shared;

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<Lease>, kube::Error>> + Send>>;

/// The server is asked to end each watch after this time, and one that does not is dead: a connection may
/// die without a word, and then nothing would ever come.
pub(crate) const LONGEST_WATCH: Duration = Duration::from_secs(280);
/// How much later the end may arrive.
pub(crate) const LATE: Duration = Duration::from_secs(10);

/// An open watch.
pub(crate) struct GroupWatch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Events,
}

#[async_trait]
impl LeaseWatch for GroupWatch {
    async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        loop {
            let Ok(event) = timeout(LONGEST_WATCH + LATE, self.events.next()).await else {
                return Err(StoreError::unknown("nothing came for too long, not even the end of the watch"));
            };
            let Some(event) = event else { return Ok(None) };
            let event = event.map_err(|error| errors::error(self.shared.asked("watch"), error))?;
            if let Some(change) = self.change(event)? {
                return Ok(Some(change));
            }
        }
    }
}

impl GroupWatch {
    /// `None`: the event is of an object with our labels that is neither lock nor session. It must not
    /// be lost, or a deadline could rest on a version that is never seen, but there is nothing to say.
    fn change(&self, event: WatchEvent<Lease>) -> Result<Option<Change>, StoreError> {
        let Shared { codec, cache, .. } = &*self.shared;
        Ok(match event {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                match cache.note_change(codec, &lease)? {
                    Some((Decoded { version, key, record, .. }, former)) => {
                        Some(change(version, former, key, record))
                    }
                    None => Some(Change::Bookmark { version: version(&lease.metadata)? }),
                }
            }
            // Of an object that went, or that lost its labels. Its version is that of the change.
            WatchEvent::Deleted(lease) => {
                let former = cache.note_deleted(&lease);
                let version = version(&lease.metadata)?;
                match self.key(&lease) {
                    Some(key) => Some(change(version, former, key, None)),
                    None => Some(Change::Bookmark { version }),
                }
            }
            WatchEvent::Bookmark(bookmark) => {
                Some(Change::Bookmark { version: parse_version(&bookmark.metadata.resource_version)? })
            }
            // 410 Gone among them: the changes since our version are no longer kept, so list again.
            WatchEvent::Error(status) => return Err(errors::refusal(self.shared.asked("watch"), &status)),
        })
    }

    fn key(&self, lease: &Lease) -> Option<StoreKey> {
        self.shared.codec.record_of(lease).ok()?.map(|decoded| decoded.key)
    }
}

/// The change of a record, where another one may have been in the object until now.
fn change(version: Version, former: Option<SessionId>, key: StoreKey, record: Option<StoreRecord>) -> Change {
    match former.map(StoreKey::Session).filter(|former| *former != key) {
        Some(former) => Change::Replaced { version, former, key, record },
        None => Change::Record { version, key, record },
    }
}
