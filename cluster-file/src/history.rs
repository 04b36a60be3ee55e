//! [`History`]: what a candidate that got the lock on a file knows about what came before.
//!
//! A lock on a file protects from those who lock the same file. If somebody deletes or replaces the file
//! of a lock, its leader notices at the event, or at its next look a second later, and its work ends
//! within two more. Until then another file must lead no member. So a candidate that gets the lock on a file
//! has to be sure that no other file has a leader:
//!
//! - The file was seen to go, or to be replaced, also by one that comes back: an earlier leader may be alive.
//!   **Wait until [`Timing::settle`] after that**, whatever the file says.
//! - The record in the file says that it was written to this very file (its inode, and when it was made), for
//!   this very lock, and the file was not touched since (see [`LeaderRecord::is_untouched`]): a member led it before
//!   and had to be sure. This is every fail-over. **No wait.**
//! - No other member lived when this member joined, and no deletion of the file was seen since: no earlier
//!   file can have a living leader. This is every first run. **No wait.**
//! - Otherwise the file may have been deleted before we watched. **Wait until `settle` after we began to.**
//!
//! While a candidate waits it does not hold the lock, so that a member that knows more leads at once.
//!
//! Of several members that start at once in an empty directory, one finds no other there, and leads what
//! it wants at once; only a lock that it does not want waits, once in the life of its file.
//!
//! Members are known to live by their locks on the directory itself, not by their files, which are deleted
//! with all others.
//!
//! Where there are no events, deletions are not seen. There a member that was alone knows this for as long as
//! members that came later have to wait, and of locks that had no file when it came and no term since; all others
//! wait from when they first saw the file as it is.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock_file::{FileVersion, Held};
use crate::lock_table::{LockState, LockTable};
use crate::record::{Found, LOCK_SUFFIX, LeaderRecord, Refusal};
#[cfg(doc)]
use crate::timing::Timing;
use crate::watch::Watch;

/// What came before in the life of a lock.
#[derive(Debug)]
pub(crate) enum History {
    /// This file was led before, last as the record says.
    Led(Box<LeaderRecord>),
    /// No member of this directory that lives has ever led the lock.
    New,
    /// An earlier file may have been led, by a leader that has ended by now.
    Unknown,
    /// An earlier file may still have a leader, for this long.
    Unsettled(Duration),
    /// What the file says cannot be gone by.
    Refused(Refusal),
}

/// What a member found when it joined.
pub(crate) struct Joined {
    at: Instant,
    /// No other member lived.
    pub(crate) alone: bool,
    /// The lock files that were there.
    files: HashSet<String>,
}

impl Joined {
    /// Joined just now.
    pub(crate) fn now(root: &Path, alone: bool) -> io::Result<Self> {
        let names =
            std::fs::read_dir(root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let files =
            names.filter(|name| name.as_ref().map_or(true, |name: &String| name.ends_with(LOCK_SUFFIX)));
        Ok(Self { at: Instant::now(), alone, files: files.collect::<io::Result<_>>()? })
    }
}

/// What a member that joined at some time can know.
pub(crate) struct Witness<'a> {
    pub(crate) watch: &'a Watch,
    pub(crate) table: &'a LockTable,
    pub(crate) joined: &'a Joined,
    /// How long to wait for a leader that may be alive.
    pub(crate) settle: Duration,
    /// How far the time of a file may be from the one that its record names.
    pub(crate) write_bound: Duration,
}

impl Witness<'_> {
    /// The history of the lock whose file `held` is. The lock on the file must be held: what happened
    /// before it was taken is then known or has to be waited for.
    pub(crate) fn history(&self, state: &LockState, held: &Held) -> io::Result<History> {
        let metadata = held.metadata()?;
        let record = match held.record()? {
            Found::Refused(refusal) => return Ok(History::Refused(refusal)),
            found => found.record(),
        };
        if let Some(record) = &record {
            state.remember(record);
        }
        let vouches = |record: &LeaderRecord| {
            record.is_of(&state.lock, &metadata) && record.is_untouched(&metadata, self.write_bound)
        };
        let record = record.filter(vouches);
        self.watch.catch_up();
        let seen = self.table.deleted_at(&state.file_name);
        if let Some(History::Unsettled(rest)) = seen.map(|at| self.settled_after(at)) {
            return Ok(History::Unsettled(rest));
        }
        if let Some(record) = record {
            return Ok(History::Led(Box::new(record)));
        }
        if !self.watch.has_events() {
            let young =
                self.joined.at.elapsed() < self.settle && !self.joined.files.contains(&state.file_name);
            // A term that is known was led on an earlier file, which is gone.
            let new = self.joined.alone && young && state.highest_term() == 0;
            let since = first_seen(state, FileVersion::of(&metadata));
            return Ok(if new { History::New } else { self.settled_after(since) });
        }
        Ok(match seen.max(self.table.blind_at()) {
            None if self.joined.alone => History::New,
            deleted => {
                self.settled_after(deleted.map_or(self.watch.started, |at| at.max(self.watch.started)))
            }
        })
    }

    fn settled_after(&self, since: Instant) -> History {
        match self.settle.saturating_sub(since.elapsed()) {
            Duration::ZERO => History::Unknown,
            rest => History::Unsettled(rest),
        }
    }
}

fn first_seen(state: &LockState, version: FileVersion) -> Instant {
    let mut unsettled = state.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
    match *unsettled {
        Some((known, since)) if known == version => since,
        _ => unsettled.insert((version, Instant::now())).1,
    }
}
