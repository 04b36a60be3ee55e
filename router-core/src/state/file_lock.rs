//! [`FileLock`]: the lock of the kernel on a file, for as long as it is wanted and no longer.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;

/// An exclusive lock (`flock`) on a file, which is given back when this is dropped.
///
/// A file that is only closed may stay locked for some milliseconds: a process that any thread starts just then has a
/// copy of each handle until it runs its own program, and the lock lives as long as one copy is open. To unlock one
/// of them unlocks the file (`flock(2)`).
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks `file`, and does not wait; `None`: another handle has it locked.
    ///
    /// # Errors
    /// When the file cannot be locked, for example on a file system without locks.
    pub fn try_new(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // If this fails, closing the file still gives the lock back.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_back_is_free_though_a_copy_of_the_handle_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let lock = FileLock::try_new(open()).unwrap().unwrap();
        let _copy_of_a_child = lock.try_clone().unwrap();
        assert!(FileLock::try_new(open()).unwrap().is_none());
        drop(lock);
        assert!(FileLock::try_new(open()).unwrap().is_some());
    }
}
