//! [`Region`]: the content of a file, which is not read before it is needed.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

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
    known: RwLock<Known>,
}

/// What is known of the file.
struct Known {
    state: State,
    /// A descriptor that knows where the file is, if the one that is read does not: it was opened before there was a name.
    named: Option<File>,
    /// It was seen to have changed. Nothing makes that good.
    has_changed: bool,
}

/// What shows that a file was written to. Its device and inode are those of the descriptor.
#[derive(PartialEq, Eq)]
struct State {
    length: u64,
    modified: (i64, i64),
    /// Of the inode: no program can set it, but not only writing changes it.
    changed: (i64, i64),
    /// What else changes the time before: moving, linking and deleting the file, and giving it to others.
    explanation: Explanation,
}

#[derive(PartialEq, Eq)]
struct Explanation {
    /// `None` where the system does not say it.
    place: Option<PathBuf>,
    links: u64,
    mode: u32,
    owner: (u32, u32),
}

/// What a look at a file says of its content.
enum Look {
    Same,
    /// The same as well: something else has happened to the file.
    Moved(State),
    /// Nothing explains why a time has changed. Where the file is being moved, the explanation comes a moment later.
    Unexplained,
    Changed,
}

impl Known {
    fn look(&self, file: &File) -> io::Result<Look> {
        let now = State::of(file, self.named.as_ref())?;
        let before = &self.state;
        Ok(match () {
            () if self.has_changed => Look::Changed,
            () if (before.length, before.modified) != (now.length, now.modified) => Look::Changed,
            () if before.changed == now.changed => Look::Same,
            () if before.explanation != now.explanation => Look::Moved(now),
            () => Look::Unexplained,
        })
    }

    /// As [`Region::moving`].
    fn moving<T>(&mut self, file: &File, work: impl FnOnce(&mut Self) -> T) -> T {
        let is_same = |look| matches!(look, Ok(Look::Same | Look::Moved(_)));
        self.has_changed |= !is_same(self.look(file));
        let done = work(self);
        if let Ok(now) = State::of(file, self.named.as_ref()) {
            self.has_changed |= (self.state.length, self.state.modified) != (now.length, now.modified);
            self.state = now;
        }
        done
    }
}

impl State {
    fn of(file: &File, named: Option<&File>) -> io::Result<Self> {
        // First where it is: it is not moved there before the time is set.
        let place = std::fs::read_link(descriptor(named.unwrap_or(file))).ok();
        let metadata = file.metadata()?;
        let owner = (metadata.uid(), metadata.gid());
        Ok(Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            explanation: Explanation { place, links: metadata.nlink(), mode: metadata.mode(), owner },
        })
    }
}

/// Where the kernel shows a descriptor of this process.
fn descriptor(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
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
        let state = State::of(&file, None)?;
        let (length, held) = (state.length, Mutex::new(held));
        let known = RwLock::new(Known { state, named: None, has_changed: false });
        Ok(Self(Arc::new(Inner { file, length, memory_limit, held, known })))
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
    /// A write sets the time of modification and the time of change of the inode. Where only the second one differs, the
    /// file is the same if its place, its links or its rights differ as well, because they set it too. If they do not,
    /// the file was written to, and the first one set back.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> io::Result<()> {
        /// How often the explanation of a time is looked for.
        const LOOKS: u32 = 3;
        let Inner { file, known, .. } = &*self.0;
        for look in 0..LOOKS {
            if matches!(known.read().unwrap_or_else(PoisonError::into_inner).look(file)?, Look::Same) {
                return Ok(());
            }
            if look > 0 {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
            match known.look(file)? {
                Look::Same => return Ok(()),
                Look::Moved(now) => {
                    known.state = now;
                    return Ok(());
                }
                Look::Unexplained if look + 1 < LOOKS => {}
                Look::Unexplained | Look::Changed => {
                    known.has_changed = true;
                    break;
                }
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the file of the body was changed while it was read"))
    }

    /// Has its owner move or delete the file, which changes it, but not what is in it.
    pub fn moving<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        known.moving(&self.0.file, |_| work())
    }

    /// Makes a file that was made for this body one that others see, at a place where nothing is, without a copy.
    /// `false`: it is not such a file, is seen elsewhere already, or is in another file system.
    ///
    /// From then on others may move and delete it. What they write to it is still an error for those who read this body.
    ///
    /// # Errors
    /// When something is at the place.
    pub fn link_to(&self, place: &Path) -> io::Result<bool> {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            return Ok(false);
        }
        let file = &self.0.file;
        known.moving(file, |known| {
            match linkat(CWD, descriptor(file), CWD, place, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
                // Not here: then it is copied, which says what is wrong if it cannot be.
                Err(_) => return Ok(false),
            }
            // Where it is not there any more, that others have moved it counts as a change.
            known.named = File::open(place).ok().filter(|named| is_same_file(named, file));
            *held = None;
            Ok(true)
        })
    }
}

fn is_same_file(one: &File, other: &File) -> bool {
    let inode = |file: &File| file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    inode(one) == inode(other)
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
    use std::os::unix::fs::PermissionsExt;

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

    /// Writes as `cp -p` does: the time of modification is that of before.
    fn write_unseen(place: &Path) {
        // File systems note times in ticks.
        std::thread::park_timeout(Duration::from_millis(20));
        let modified = fs::metadata(place).unwrap().modified().unwrap();
        fs::write(place, "abcdefghij").unwrap();
        File::options().append(true).open(place).unwrap().set_modified(modified).unwrap();
    }

    fn is_changed(read: io::Result<Bytes>) {
        let error = read.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("was changed"), "{error}");
    }

    #[test]
    fn what_others_do_to_a_file_but_for_writing_is_no_change() {
        /// What is done with the file at three places.
        type Change = fn(&Path, &Path, &Path);
        let (place, region) = region("moved");
        let (next, folder) = (place.0.with_extension("next"), place.0.with_extension("folder"));
        let (next, folder) = (Place(next), Place(folder));
        let steps: [(&PathBuf, Change); 5] = [
            (&next.0, |place, next, _| fs::rename(place, next).unwrap()),
            (&place.0, |place, next, _| fs::hard_link(next, place).unwrap()),
            (&next.0, |place, _, _| fs::remove_file(place).unwrap()),
            (&next.0, |_, next, _| fs::set_permissions(next, PermissionsExt::from_mode(0o600)).unwrap()),
            // Over another one.
            (&folder.0, |_, next, folder| {
                fs::write(folder, "other").unwrap();
                fs::rename(next, folder).unwrap();
            }),
        ];
        for (at, step) in steps {
            step(&place.0, &next.0, &folder.0);
            assert_eq!(region.read_all().unwrap(), "0123456789", "{}", at.display());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        // And a write is one after all of that.
        write_unseen(&folder.0);
        is_changed(region.read_all());
        fs::remove_file(&folder.0).unwrap();
        is_changed(region.read_all());
    }

    #[test]
    fn a_file_can_be_read_while_others_move_it() {
        const MOVES: u32 = 2_000;
        let (place, region) = region("moving");
        let done = std::sync::atomic::AtomicBool::new(false);
        let at = |number: u32| place.0.with_extension(number.to_string());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                fs::rename(&place.0, at(0)).unwrap();
                for number in 0..MOVES {
                    fs::rename(at(number), at(number + 1)).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(region.read(0, 4).unwrap(), "0123");
            }
        });
        fs::remove_file(at(MOVES)).unwrap();
        assert_eq!(region.read_all().unwrap(), "0123456789");
    }

    #[test]
    fn a_file_that_was_written_to_is_an_error_and_never_other_data() {
        let changes: [fn(&PathBuf); 3] = [
            |place| fs::write(place, "x").unwrap(),
            |place| fs::write(place, "0123456789more").unwrap(),
            |place| write_unseen(place),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (place, region) = region(&format!("changed-{index}"));
            change(&place.0);
            is_changed(region.read(0, 4));
            is_changed(region.read_all());
            // Moving it does not make it good.
            region.moving(|| fs::remove_file(&place.0).unwrap());
            assert!(region.check().is_err());
        }
    }
}
