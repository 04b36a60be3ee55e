//! [`Region`]: the content of a file, which is not read before it is needed.

use std::any::Any;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::{Errno, pread};

/// The content of a file, by an open descriptor: it can be read after the file was moved or deleted, as often as wanted.
/// Clones share it.
///
/// Every read compares the file with what it was in the beginning. A file that was written to since then is an error of
/// the kind [`InvalidData`](ErrorKind::InvalidData), and never other or less data.
#[derive(Clone)]
pub struct Region(Arc<Inner>);

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").finish_non_exhaustive()
    }
}

struct Inner {
    file: File,
    length: u64,
    memory_limit: u64,
    /// What is given back when a file is not needed any more that was made for this body alone.
    held: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    /// Held to read while the file is compared, and to write while its owner moves it, which changes a time of it.
    state: RwLock<State>,
}

/// What shows that a file was written to. Its device and inode are those of the descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    length: u64,
    modified: (i64, i64),
    /// `None`: others may move the file, which changes this time as well.
    changed: Option<(i64, i64)>,
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: Some((metadata.ctime(), metadata.ctime_nsec())),
        }
    }

    /// Whether a file that was so has the same content now.
    fn is_still(&self, now: &Self) -> bool {
        Self { changed: now.changed, ..*self } == *now
            && (self.changed.is_none() || self.changed == now.changed)
    }
}

impl Region {
    /// How much is read into memory at most where nothing is said, when a step needs all of a body.
    pub const DEFAULT_MEMORY_LIMIT: u64 = 64 << 20;

    /// The whole content of a file, as it is now. Where there is a [`Spool`](crate::spool::Spool), its `region` knows the
    /// limit for the memory.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(file: File) -> io::Result<Self> {
        Self::with_limit(file, Self::DEFAULT_MEMORY_LIMIT)
    }

    pub(crate) fn with_limit(file: File, memory_limit: u64) -> io::Result<Self> {
        Self::new(file, memory_limit, None)
    }

    /// The content of a file that was made for this body, with what is given back when it is needed no more.
    pub(crate) fn owned(file: File, memory_limit: u64, held: Arc<dyn Any + Send + Sync>) -> io::Result<Self> {
        Self::new(file, memory_limit, Some(held))
    }

    fn new(file: File, memory_limit: u64, held: Option<Arc<dyn Any + Send + Sync>>) -> io::Result<Self> {
        let state = State::of(&file.metadata()?);
        let (length, state, held) = (state.length, RwLock::new(state), Mutex::new(held));
        Ok(Self(Arc::new(Inner { file, length, memory_limit, held, state })))
    }

    /// What is given back when the file is needed no more.
    pub(crate) fn held(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bytes are read into memory at most, when a step needs all of it.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.0.memory_limit
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// Reads at most `most` bytes from `offset` on; none only at the end. This blocks.
    ///
    /// # Errors
    /// When it cannot be read, or was changed.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.0.length.saturating_sub(offset)).unwrap_or(most).min(most);
        let mut chunk = Vec::with_capacity(left);
        let read = self.fill(&mut chunk, offset, left);
        // A file that was cut off has changed, which says more than that its end came early.
        self.check()?;
        read.map(|()| chunk.into())
    }

    /// Reads `count` bytes, without writing zeros in their place before.
    fn fill(&self, chunk: &mut Vec<u8>, offset: u64, count: usize) -> io::Result<()> {
        while chunk.len() < count {
            let place = offset + chunk.len() as u64;
            match pread(&self.0.file, spare_capacity(chunk), place) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The capacity may be more than was asked for.
        chunk.truncate(count);
        Ok(())
    }

    /// All of it. This blocks.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when it is larger than [`memory_limit`](Self::memory_limit).
    pub fn read_all(&self) -> io::Result<Bytes> {
        let (length, limit) = (self.0.length, self.0.memory_limit);
        if length > limit {
            let text = format!(
                "the body has {length} bytes, and a step that needs all of it takes at most {limit} (`body.memory_limit`)"
            );
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        self.read(0, usize::try_from(self.0.length).unwrap_or(usize::MAX))
    }

    /// Whether it is still what it was in the beginning.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> io::Result<()> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.is_still(&State::of(&self.0.file.metadata()?)) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the file of the body was changed while it was read"))
    }

    /// Has its owner move or delete the file, which changes it, but not what is in it.
    pub fn moving<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let now = || self.0.file.metadata().map(|metadata| State::of(&metadata));
        let unchanged = now().is_ok_and(|now| state.is_still(&now));
        let done = work();
        if let Ok(after) = now()
            && unchanged
            && state.changed.is_some()
            && (State { changed: None, ..*state }).is_still(&after)
        {
            *state = after;
        }
        done
    }

    /// Makes a file that was made for this body one that others see, at a place where nothing is, without a copy.
    /// `false`: it is not such a file, is seen elsewhere already, or is in another file system.
    ///
    /// From then on others may move and delete it. What they write to it is still an error for those who read this body.
    ///
    /// # Errors
    /// When something is at the place.
    pub fn link_to(&self, place: &Path) -> io::Result<bool> {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            return Ok(false);
        }
        let name = format!("/proc/self/fd/{}", self.0.file.as_raw_fd());
        match linkat(CWD, name, CWD, place, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
            // Not here: then it is copied, which says what is wrong if it cannot be.
            Err(_) => return Ok(false),
        }
        state.changed = None;
        *held = None;
        Ok(true)
    }
}

/// For what the kernel does with files. Call [`check`](Region::check) afterwards.
impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// Deletes its file.
    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn region(name: &str) -> (Place, Region) {
        let place = std::env::temp_dir().join(format!("bactrian-region-{name}-{}", std::process::id()));
        fs::write(&place, "0123456789").unwrap();
        let region = Region::of(File::open(&place).unwrap()).unwrap();
        // File systems note times in ticks.
        std::thread::park_timeout(Duration::from_millis(20));
        (Place(place), region)
    }

    #[test]
    fn a_region_is_read_from_the_beginning_as_often_as_wanted() {
        let (_place, region) = region("read");
        for _ in 0..2 {
            assert_eq!(region.read(0, 4).unwrap(), "0123");
            assert_eq!(region.read(4, 400).unwrap(), "456789");
            assert!(region.read(10, 4).unwrap().is_empty());
            assert_eq!(region.read_all().unwrap(), "0123456789");
        }
    }

    #[test]
    fn a_region_outlives_its_file() {
        let (place, region) = region("deleted");
        let clone = region.clone();
        region.moving(|| fs::remove_file(&place.0).unwrap());
        drop(region);
        assert_eq!(clone.read_all().unwrap(), "0123456789");
    }

    #[test]
    fn a_file_that_was_written_to_is_an_error_and_never_other_data() {
        let changes: [fn(&PathBuf); 3] = [
            |place| fs::write(place, "x").unwrap(),
            |place| fs::write(place, "0123456789more").unwrap(),
            |place| {
                // As `cp -p` does: the time of modification is that of before.
                let modified = fs::metadata(place).unwrap().modified().unwrap();
                fs::write(place, "abcdefghij").unwrap();
                File::options().append(true).open(place).unwrap().set_modified(modified).unwrap();
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (place, region) = region(&format!("changed-{index}"));
            change(&place.0);
            for error in [region.read(0, 4).unwrap_err(), region.read_all().unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(error.to_string().contains("was changed"), "{error}");
            }
            // Moving it does not make it good.
            region.moving(|| fs::remove_file(&place.0).unwrap());
            assert!(region.check().is_err());
        }
    }
}
