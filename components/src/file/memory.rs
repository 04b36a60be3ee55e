//! [`Memory`]: what a consumer remembers of files: those that stay and were read, and those with which
//! something is wrong.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::settle::Identity;

/// The longest time for which a file waits, unless polls are further apart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Kept by the route, so that a consumer that is made anew knows it, also that of another version of the route.
#[derive(Default)]
pub(super) struct Memory {
    /// The files that `noop` has read.
    read: HashSet<PathBuf>,
    waiting: HashMap<PathBuf, Trouble>,
}

/// Why a file waits.
struct Trouble {
    /// The file that has it; another one under its name does not wait. `None`: any.
    identity: Option<Identity>,
    /// How often it came, one after the other.
    count: u32,
    /// `None`: for as long as it is this file.
    until: Option<Instant>,
    /// It was worked on, with this result, and could not be moved or deleted.
    unsettled: Option<bool>,
}

impl Memory {
    /// Notes that a file is done with, though it stays.
    pub(super) fn mark_read(&mut self, path: &Path) {
        self.read.insert(path.to_owned());
    }

    /// Forgets what is not there any more.
    pub(super) fn retain(&mut self, present: &[PathBuf]) {
        if self.read.is_empty() && self.waiting.is_empty() {
            return;
        }
        let present = present.iter().collect::<HashSet<_>>();
        self.read.retain(|path| present.contains(path));
        self.waiting.retain(|path, _| present.contains(path));
    }

    /// Whether a file is not to be read now. `identity` is asked only where it matters.
    pub(super) fn excludes(&self, path: &Path, identity: impl FnOnce() -> Option<Identity>) -> bool {
        if self.read.contains(path) {
            return true;
        }
        let Some(trouble) = self.waiting.get(path) else { return false };
        let waits = trouble.until.is_none_or(|until| Instant::now() < until);
        waits && (trouble.identity.is_none() || trouble.identity == identity())
    }

    /// Whether a file with this name has made trouble before.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.waiting.contains_key(path)
    }

    /// How a file was worked on that only has to be moved or deleted.
    pub(super) fn unsettled(&self, path: &Path, identity: &Identity) -> Option<bool> {
        let trouble = self.waiting.get(path).filter(|trouble| trouble.identity.as_ref() == Some(identity));
        trouble.and_then(|trouble| trouble.unsettled)
    }

    /// Has a file wait: twice the delay of polls, and twice as long each time.
    pub(super) fn postpone(
        &mut self,
        path: &Path,
        identity: Option<Identity>,
        unsettled: Option<bool>,
        delay: Duration,
    ) {
        let before =
            self.waiting.get(path).filter(|before| identity.is_none() || before.identity == identity);
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let pause = delay.saturating_mul(2_u32.saturating_pow(count)).min(delay.max(LONGEST_PAUSE));
        let until = Some(Instant::now() + pause);
        self.waiting.insert(path.to_owned(), Trouble { identity, count, until, unsettled });
    }

    /// Has a file wait until it is gone.
    pub(super) fn refuse(&mut self, path: &Path) {
        let trouble = Trouble { identity: None, count: 1, until: None, unsettled: None };
        self.waiting.insert(path.to_owned(), trouble);
    }

    /// All is well with a file.
    pub(super) fn forgive(&mut self, path: &Path) {
        self.waiting.remove(path);
    }
}
