//! [`Roster`]: the live members of the cluster, as this process last saw them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use router_core::cluster::Member;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::members;
use crate::reminder::Reminder;
use crate::root::MEMBERS;

pub(crate) struct Roster {
    folder: PathBuf,
    pub(crate) members: watch::Sender<Vec<Member>>,
    /// Notified when a member may have come or gone.
    pub(crate) suspected: Notify,
    /// When to say again that the members cannot be listed. Held while they are listed.
    unlisted: Mutex<Reminder>,
}

impl Roster {
    /// The members of the directory `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            folder: root.join(MEMBERS),
            members: watch::Sender::default(),
            suspected: Notify::new(),
            unlisted: Mutex::new(unlisted()),
        }
    }

    /// Lists the members, and tells those who wait for a change.
    pub(crate) fn look(&self) {
        let mut reminder = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        let members =
            members::list(&self.folder).inspect(|_| *reminder = unlisted()).unwrap_or_else(|error| {
                if reminder.is_due() {
                    warn!("cannot list the members in `{}`: {error}", self.folder.display());
                }
                Vec::new()
            });
        self.members.send_if_modified(|present| {
            let news = *present != members;
            *present = members;
            news
        });
    }

    /// The same, if someone waits for a change.
    pub(crate) fn look_if_watched(&self) {
        if self.members.receiver_count() > 0 {
            self.look();
        }
    }
}

/// Views are told who the members are whenever they ask.
fn unlisted() -> Reminder {
    Reminder::new(Duration::from_secs(10))
}
