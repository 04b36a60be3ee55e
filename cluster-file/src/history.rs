//! [`History`]: what a candidate that got the lock on a file knows about what came before.
//!
//! A lock on a file protects from those who lock the same file. If somebody deletes or replaces the file
//! of a lock, its leader notices at the event, or at its next look a second later, and its work ends
//! within [`DRAIN`]. Until then the new file must lead nobody. So who gets the lock on a file that has no
//! history of its own has to be sure that no earlier file still has a leader:
//!
//! - The record in the file names this very file: somebody led it before and had to be sure. This is
//!   every fail-over. **No wait.**
//! - Nobody else lived when this member joined, and no deletion of the file was seen since: no earlier
//!   file can have a living leader. This is every first run. **No wait.**
//! - Otherwise the file may have been deleted before we watched, or was seen to be deleted.
//!   **Wait until [`SETTLE`] after the later of the two.** Meanwhile the lock is not held, so that a
//!   member that knows more leads at once.
//!
//! Of several members that start at once in an empty directory, one finds nobody there, and leads what
//! it wants at once; only a lock that it does not want waits, once in the life of its file.
//!
//! Members are known to live by their locks on the directory itself, not by their files, which whoever
//! deletes all files deletes too. Where there are no events, deletions are not seen: there a member
//! waits from when it first saw the file, unless no other member is listed.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::board::{Board, LockState};
use crate::lock_file::Held;
use crate::record::LeaderRecord;
use crate::watch::{RECHECK, Watch};

/// How long the work of a leader whose file is gone may go on.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// Longer than a leader needs to notice, a second, and to end, two.
pub(crate) const SETTLE: Duration = Duration::from_secs(5);
const _: () = assert!(SETTLE.as_millis() > RECHECK.as_millis() + DRAIN.as_millis());

/// What came before in the life of a lock.
#[derive(Debug)]
pub(crate) enum History {
    /// This file was led before, last as the record says.
    Led(LeaderRecord),
    /// No process that lives has ever led the lock.
    New,
    /// An earlier file may have been led, by somebody who has ended by now.
    Unknown,
    /// An earlier file may still have a leader, for this long.
    Unsettled(Duration),
}

/// What a member that joined at some time can know.
pub(crate) struct Witness<'a> {
    pub(crate) watch: &'a Watch,
    pub(crate) board: &'a Board,
    /// Nobody else lived when this member joined.
    pub(crate) joined_alone: bool,
    /// Whether no other member is listed now.
    pub(crate) alone: &'a dyn Fn() -> bool,
}

impl Witness<'_> {
    /// The history of the lock whose file `held` is. The lock on the file must be held: what happened
    /// before it was taken is then known or has to be waited for.
    pub(crate) fn history(&self, state: &LockState, held: &Held) -> io::Result<History> {
        if let Some(record) = held.record()? {
            return Ok(History::Led(record));
        }
        if !self.watch.has_events() {
            if (self.alone)() {
                return Ok(History::Unknown);
            }
            return Ok(settled_after(first_seen(state, held.inode())));
        }
        self.watch.catch_up();
        Ok(match self.board.deleted_at(&state.file_name) {
            None if self.joined_alone => History::New,
            deleted => settled_after(deleted.map_or(self.watch.started, |at| at.max(self.watch.started))),
        })
    }
}

fn settled_after(since: Instant) -> History {
    match SETTLE.saturating_sub(since.elapsed()) {
        Duration::ZERO => History::Unknown,
        rest => History::Unsettled(rest),
    }
}

fn first_seen(state: &LockState, inode: u64) -> Instant {
    let mut unsettled = state.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
    match *unsettled {
        Some((known, since)) if known == inode => since,
        _ => unsettled.insert((inode, Instant::now())).1,
    }
}
