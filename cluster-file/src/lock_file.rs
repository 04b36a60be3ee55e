//! [`Held`]: the lock of the kernel on the file of one lock.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::record::LeaderRecord;

/// A lock on the file that is at its path now, or was when we looked.
///
/// The lock belongs to a handle that cannot write. So standbys can try, and close their handles, without
/// causing the event "closed after writing", which is what they sleep on. See [`Held::signal`].
pub(crate) struct Held {
    /// First in the struct, so that it is closed first: whoever is woken by `signal` finds the lock free.
    lock: File,
    /// Open for writing from when we lead until we end, however we end: the kernel itself closes it
    /// after `kill -9`, and so wakes the standbys.
    signal: Option<File>,
    identity: (u64, u64),
    /// How long the file is; nobody else writes to it.
    length: u64,
}

/// What a file is, whatever it is called: device and inode.
pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Held {
    /// Tries to lock the file at `path`, which is made when it is missing; `None`: somebody has it.
    pub(crate) fn try_new(path: &Path) -> io::Result<Option<Self>> {
        // Each round is lost only to somebody who deletes or replaces the file in just this moment.
        for _ in 0..8 {
            let lock = match File::open(path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create(path)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let metadata = lock.metadata()?;
            let held = Self { lock, signal: None, identity: identity(&metadata), length: metadata.len() };
            if held.is_current(path)? {
                return Ok(Some(held));
            }
        }
        Err(io::Error::other("the file is replaced again and again"))
    }

    /// Whether the file at `path` is still the one we hold. A lock on a file that was replaced or deleted
    /// protects from nobody.
    pub(crate) fn is_current(&self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(present) => Ok(identity(&present) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the handle whose end wakes the standbys.
    pub(crate) fn signal(&mut self, path: &Path) -> io::Result<()> {
        let signal = OpenOptions::new().write(true).open(path)?;
        if identity(&signal.metadata()?) != self.identity {
            return Err(io::Error::other("the file was replaced"));
        }
        self.signal = Some(signal);
        Ok(())
    }

    /// The inode of the file.
    pub(crate) fn inode(&self) -> u64 {
        self.identity.1
    }

    /// What the last leader left in the file.
    pub(crate) fn record(&self) -> io::Result<Option<LeaderRecord>> {
        LeaderRecord::read(&self.lock, self.inode())
    }

    /// Writes the record in place. It is not synced: after a loss of power nobody leads, and the numbers
    /// of terms do not depend on it.
    pub(crate) fn write(&mut self, record: &LeaderRecord) -> io::Result<()> {
        let Some(signal) = &self.signal else { return Err(io::Error::other("not open for writing")) };
        let line = record.to_line()?;
        signal.write_all_at(&line, 0)?;
        let before = std::mem::replace(&mut self.length, line.len() as u64);
        if before > self.length { signal.set_len(self.length) } else { Ok(()) }
    }
}

/// Makes the file at `path`, unless somebody else was faster.
fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
