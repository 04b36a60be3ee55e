//! [`TermNumbers`]: numbers for terms that only ever grow.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use router_core::cluster::{ClusterError, HIGHEST_TERM};
use router_core::state::FileLock;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::kernel_locks::{self, Snapshot};
use crate::lock_file::{create, is_at, open, read};
use crate::prepared::Prepared;
use crate::record::{Found, LOCK_SUFFIX, LeaderRecord, holders, is_locked};
use crate::root::cannot_use;
use crate::states;

/// The file of the high-water mark.
pub(crate) const MARK: &str = "terms";
/// Held locked while the mark is changed. A file of its own, because the mark is replaced by renaming.
pub(crate) const MARK_LOCK: &str = ".terms-lock";
/// A process that dies leaves a gap of at most this many numbers.
const MAX_BLOCK: u64 = 1024;
/// For how long a candidate waits for the lock on the mark, and how often it tries.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(2);
/// For how long a block is good for locks whose last terms are unknown: less than a candidate waits for a leader of
/// another file. So locks that are new or lost together need one block.
const FRESH: Duration = Duration::from_secs(1);
/// What follows from another process having it.
const NO_TERM: &str = "no term can begin until that one unlocks it or ends";

/// This process's supply of numbers.
///
/// The file `terms` holds the highest number that any process may have used. A process reserves a block
/// of numbers by raising the mark, and syncs it to the disk *before* it uses the first of them: one
/// sync per block, none per lock. The first block is as large as the process has locks, later ones
/// double, up to 1024. Standbys have a block in hand, so a fail-over normally waits for no disk.
///
/// A block begins above the mark, and above the present time in microseconds. Terms are not counted as fast, even if
/// members that start in a circle reserve a block each time, and until the year 2255 a number of JSON holds it exactly.
///
/// Why the numbers of one lock grow strictly, although blocks of different processes interleave:
/// - After a loss of power no process lives, so all blocks are gone, and new ones lie above the synced
///   mark, which is above every number ever used.
/// - While processes live, the next leader of a lock finds the last term in the lock's file, and takes a
///   new block if its number is not greater.
/// - If there is no such record (the file is new, or was deleted), the last term may be known to its leader alone: the
///   mark may be gone or be in a directory that was moved away, and the leader may be stopped. The number is good if our
///   block was reserved just now, after that term began, and the mark is still its end: then all other blocks lie below.
///   Otherwise a new block is taken.
/// - If `terms` is deleted, it begins again above all records, all states of routes and our own numbers.
/// - If it is deleted or replaced by an older one while a member lives, that member raises it within a second
///   above all that it remembers, unless it is stopped.
///
/// So terms grow even if nothing of the directory is left, unless the clock of the host shows an earlier time by then. The
/// file is one number, which is its whole format.
pub(crate) struct TermNumbers {
    root: PathBuf,
    block: Mutex<Block>,
    /// Since when the lock on the mark could not be had, over all that have waited for it since.
    locked_since: std::sync::Mutex<Option<Instant>>,
    /// The present time, in microseconds.
    clock: fn() -> u64,
}

/// The numbers that are reserved and not used, `next..=end`.
struct Block {
    next: u64,
    end: u64,
    size: u64,
    /// When they were reserved.
    at: Instant,
}

impl Block {
    fn take(&mut self, last: Last) -> u64 {
        let number = self.above(last.floor());
        self.next = number + 1;
        number
    }

    /// The lowest number that is not used, also above `floor`. Numbers that come from files are far below the end
    /// of what a `u64` can be, see [`HIGHEST_TERM`].
    fn above(&self, floor: u64) -> u64 {
        self.next.max(floor.saturating_add(1))
    }
}

/// What is known about the last term of a lock.
#[derive(Clone, Copy)]
pub(crate) enum Last {
    /// This number.
    Known(u64),
    /// It is at least this number.
    AtLeast(u64),
}

impl Last {
    /// It is also at least this number.
    pub(crate) fn and_above(self, number: u64) -> Self {
        match self {
            Self::Known(last) => Self::Known(last.max(number)),
            Self::AtLeast(last) => Self::AtLeast(last.max(number)),
        }
    }

    fn floor(&self) -> u64 {
        let (Self::Known(floor) | Self::AtLeast(floor)) = self;
        *floor
    }
}

impl TermNumbers {
    pub(crate) fn new(root: &Path) -> Self {
        Self::with_clock(root, present_time)
    }

    fn with_clock(root: &Path, clock: fn() -> u64) -> Self {
        let block = Block { next: 1, end: 0, size: 0, at: Instant::now() };
        Self {
            root: root.to_owned(),
            block: Mutex::new(block),
            locked_since: std::sync::Mutex::default(),
            clock,
        }
    }

    /// A number greater than `last`, for a process that wants `locks` locks. It may wait for the disk, and for a
    /// process that has the mark locked.
    ///
    /// # Cancellation
    /// Safe: at worst a block of numbers is left unused.
    pub(crate) async fn take(&self, last: Last, locks: usize) -> Result<u64, ClusterError> {
        // Held across the sync: the others would only ask for blocks of their own.
        let mut block = self.block.lock().await;
        if !self.is_good(&block, last)? {
            self.renew(&mut block, last.floor(), locks).await?;
        }
        Ok(block.take(last))
    }

    /// A number greater than `last` that is at hand; `None`: there is none. It does not wait.
    pub(crate) fn at_hand(&self, last: Last) -> Result<Option<u64>, ClusterError> {
        // While a block is reserved there is nothing at hand either.
        let Ok(mut block) = self.block.try_lock() else { return Ok(None) };
        if !self.is_good(&block, last)? {
            return Ok(None);
        }
        Ok(Some(block.take(last)))
    }

    /// Brings a number to hand; it may wait, as [`take`](Self::take). When that one is to be used, another process
    /// may have reserved a block meanwhile, and then it is not good for a lock without a history.
    ///
    /// # Cancellation
    /// Safe, as [`take`](Self::take).
    pub(crate) async fn fetch(&self, last: Last, locks: usize) -> Result<(), ClusterError> {
        let mut block = self.block.lock().await;
        if self.is_good(&block, last)? { Ok(()) } else { self.renew(&mut block, last.floor(), locks).await }
    }

    fn is_good(&self, block: &Block, last: Last) -> Result<bool, ClusterError> {
        let enough = block.above(last.floor()) <= block.end;
        Ok(enough
            && match last {
                Last::Known(_) => true,
                Last::AtLeast(_) => block.at.elapsed() < FRESH && read_mark(&self.root)? == Some(block.end),
            })
    }

    /// Makes sure that `locks` numbers above `floor` are at hand, so that a fail-over need not wait for
    /// the disk.
    ///
    /// # Cancellation
    /// Safe, as [`take`](Self::take).
    pub(crate) async fn prepare(&self, floor: u64, locks: usize) -> Result<(), ClusterError> {
        let mut block = self.block.lock().await;
        let left = (block.end + 1).saturating_sub(block.above(floor));
        if left < (locks as u64).min(MAX_BLOCK) { self.renew(&mut block, floor, locks).await } else { Ok(()) }
    }

    /// Makes sure that the mark is not below `floor` or our own numbers, as it is when it was deleted or
    /// replaced by an older one: a member that comes now knows nothing else.
    ///
    /// # Cancellation
    /// Safe, as [`take`](Self::take).
    pub(crate) async fn guard(&self, floor: u64) -> Result<(), ClusterError> {
        let block = self.block.lock().await;
        let floor = floor.max(block.end);
        if floor == 0 || read_mark(&self.root)?.is_some_and(|mark| mark >= floor) {
            return Ok(());
        }
        let mark = self.reserve(floor, 0).await?;
        warn!(
            "`{}` was deleted, or replaced by an older one; it says {mark} now, so that terms go on above what this \
             member remembers",
            self.root.join(MARK).display()
        );
        Ok(())
    }

    async fn renew(&self, block: &mut Block, floor: u64, locks: usize) -> Result<(), ClusterError> {
        let at = Instant::now();
        let floor = floor.max(block.end).max((self.clock)());
        let size = block.size.saturating_mul(2).max(locks as u64).clamp(1, MAX_BLOCK);
        let end = self.reserve(floor, size).await?;
        *block = Block { next: end - size + 1, end, size, at };
        Ok(())
    }

    /// Raises the mark, to at least `floor + size`, and returns it: the last `size` numbers up to it are ours.
    /// It waits for the lock on the mark with a bound, and outside of the kernel: its holder may be stopped.
    async fn reserve(&self, floor: u64, size: u64) -> Result<u64, ClusterError> {
        let path = self.root.join(MARK_LOCK);
        let begun = Instant::now();
        let locked_since = || self.locked_since.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let root = self.root.clone();
            // In a thread, because it syncs.
            let reserving = tokio::task::spawn_blocking(move || try_reserve(&root, floor, size));
            let reserved = reserving.await.map_err(|error| {
                ClusterError::Unusable("no number for a new term is available".into(), Some(error.into()))
            })??;
            if let Some(mark) = reserved {
                *locked_since() = None;
                return Ok(mark);
            }
            let waited = locked_since().get_or_insert(begun).elapsed();
            if begun.elapsed() >= PATIENCE {
                let holders = fs::metadata(&path).map(|file| kernel_locks::snapshot().of(&file));
                let who = kernel_locks::named(&holders.unwrap_or_default());
                let text =
                    format!("`{}` has been locked for {waited:.0?} by {who}: {NO_TERM}", path.display());
                return Err(ClusterError::Unusable(text, None));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it only names a number; a jump back leaves what is remembered"
)]
fn present_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(0)
}

/// Who has the lock on the mark now, in words, unless it is a member that is about to give it back.
pub(crate) fn locked_by(root: &Path, locks: &Snapshot) -> Option<String> {
    let path = root.join(MARK_LOCK);
    let holders = holders(&open(&path).ok()?, locks).ok()?;
    let members = locks.of(&fs::metadata(root).ok()?);
    let lasts = |holder: &u32| !members.contains(holder) || kernel_locks::is_stopped(*holder);
    let who = kernel_locks::named(&holders);
    holders.iter().any(lasts).then(|| format!("`{}` is locked by {who}: {NO_TERM}", path.display()))
}

/// Raises the mark; `None`: another process was faster, or has it locked.
///
/// The new mark is on the disk before the lock is taken, which then is held for a look and a renaming: a process
/// that is stopped just then keeps all others from new numbers.
fn try_reserve(root: &Path, floor: u64, size: u64) -> Result<Option<u64>, ClusterError> {
    let (path, mark_file) = (root.join(MARK_LOCK), root.join(MARK));
    // A process that has it for long must not make all others write to the disk with each try.
    if open(&path).is_ok_and(|lock| is_locked(&lock).unwrap_or(false)) {
        return Ok(None);
    }
    let before = read_mark(root)?;
    let mark = match before {
        Some(mark) => mark,
        None => highest_on_disk(root)?,
    };
    let highest = mark.max(floor);
    let Some(mark) = highest.checked_add(size).filter(|mark| *mark <= HIGHEST_TERM) else {
        let text = format!("there is no number for a term above {highest}: {}", damaged(&mark_file));
        return Err(ClusterError::Unusable(text, None));
    };
    let prepared = Prepared::new(root, format!("{mark}\n").as_bytes());
    let prepared = prepared.map_err(|error| cannot_use(&mark_file, error))?;
    let lock = || {
        create(&path)?;
        let lock = FileLock::try_new(open(&path)?)?;
        // A lock on a file that was deleted meanwhile keeps no other process away.
        Ok(lock.filter(|lock| is_at(lock, &path)))
    };
    let Some(lock) = lock().map_err(|error| cannot_use(&path, error))? else { return Ok(None) };
    if read_mark(root)? != before {
        return Ok(None);
    }
    let renamed = prepared.rename(&mark_file);
    drop(lock);
    let synced = renamed.and_then(|()| File::open(root)?.sync_all());
    synced.map_err(|error| cannot_use(&mark_file, error))?;
    Ok(Some(mark))
}

/// The mark; `None` when there is no file.
fn read_mark(root: &Path) -> Result<Option<u64>, ClusterError> {
    let path = root.join(MARK);
    match read(&path) {
        Ok(text) => {
            let number = str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            match number.filter(|mark| *mark <= HIGHEST_TERM) {
                Some(mark) => Ok(Some(mark)),
                None => Err(ClusterError::Unusable(damaged(&path), None)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_use(&path, error)),
    }
}

fn damaged(mark_file: &Path) -> String {
    format!(
        "`{}` is damaged, or was written by a newer version of this program: it should hold one number, of at most \
         {HIGHEST_TERM}. Write a number into it that is greater than every term so far",
        mark_file.display()
    )
}

/// The highest term in any record, and in any state that a route has stored: where to begin when there is no
/// mark.
fn highest_on_disk(root: &Path) -> Result<u64, ClusterError> {
    let mut highest = states::highest_term(root)?;
    let entries = fs::read_dir(root).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(|error| cannot_use(root, error))? {
        let path = entry.path();
        if !path.to_string_lossy().ends_with(LOCK_SUFFIX) {
            continue;
        }
        match open(&path).and_then(|file| LeaderRecord::read(&file)) {
            Ok(Found::Record(record)) => highest = highest.max(record.term),
            Ok(Found::Nothing) => {}
            Ok(Found::Refused(refusal)) => {
                return Err(ClusterError::Unusable(refusal.about(&path), None));
            }
            Err(error) => return Err(cannot_use(&path, error)),
        }
    }
    if highest > 0 {
        warn!("`{}` is missing; terms go on above {highest}", root.join(MARK).display());
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a host whose clock begins with each start, so that numbers can be told.
    fn counted(root: &Path) -> TermNumbers {
        TermNumbers::with_clock(root, || 0)
    }

    #[tokio::test]
    async fn a_block_is_reserved_on_disk_before_its_first_number_is_used_and_blocks_double() {
        let root = tempfile::tempdir().unwrap();
        let numbers = counted(root.path());
        let mut marks = Vec::new();
        for number in 1..=8 {
            assert_eq!(numbers.take(Last::AtLeast(0), 1).await.unwrap(), number);
            marks.push(read_mark(root.path()).unwrap().unwrap());
        }
        assert_eq!(marks, [1, 3, 3, 7, 7, 7, 7, 15]);
    }

    #[tokio::test]
    async fn a_process_that_wants_many_locks_syncs_once() {
        let root = tempfile::tempdir().unwrap();
        let numbers = counted(root.path());
        assert_eq!(numbers.take(Last::Known(0), 700).await.unwrap(), 1);
        assert_eq!(read_mark(root.path()).unwrap(), Some(700));
        assert_eq!(counted(root.path()).take(Last::Known(0), 5000).await.unwrap(), 701);
        assert_eq!(read_mark(root.path()).unwrap(), Some(700 + MAX_BLOCK));
    }

    #[tokio::test]
    async fn a_number_is_greater_than_the_last_one_of_its_lock_whatever_block_it_came_from() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (counted(root.path()), counted(root.path()));
        assert_eq!(a.take(Last::AtLeast(0), 10).await.unwrap(), 1);
        assert_eq!(b.take(Last::AtLeast(0), 10).await.unwrap(), 11);
        assert_eq!(a.take(Last::Known(1), 10).await.unwrap(), 2, "the block is good for this lock");
        assert_eq!(a.take(Last::Known(11), 10).await.unwrap(), 21, "the block lies below the last term");
        assert_eq!(b.take(Last::AtLeast(0), 10).await.unwrap(), 41, "another member may have used 21 for it");
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_begin_above_the_present_time_and_only_a_new_one_is_good_for_an_unknown_last_term() {
        let root = tempfile::tempdir().unwrap();
        let numbers = TermNumbers::with_clock(root.path(), || 1_000_000);
        assert_eq!(numbers.take(Last::Known(7), 10).await.unwrap(), 1_000_001);
        assert_eq!(numbers.take(Last::AtLeast(7), 10).await.unwrap(), 1_000_002, "it is new");
        tokio::time::advance(FRESH).await;
        assert_eq!(numbers.at_hand(Last::AtLeast(7)).unwrap(), None, "the clock may have gone on");
        assert_eq!(numbers.take(Last::Known(7), 10).await.unwrap(), 1_000_003);
        assert_eq!(numbers.take(Last::AtLeast(7), 10).await.unwrap(), 1_000_011);
        let behind = counted(root.path());
        assert_eq!(behind.take(Last::AtLeast(0), 1).await.unwrap(), 1_000_031, "the clock was set back");
    }

    #[tokio::test]
    async fn a_standby_prepares_numbers_above_those_of_the_leader_once() {
        let root = tempfile::tempdir().unwrap();
        let numbers = counted(root.path());
        numbers.prepare(41, 3).await.unwrap();
        numbers.prepare(41, 3).await.unwrap();
        assert_eq!(read_mark(root.path()).unwrap(), Some(44));
        fs::remove_file(root.path().join(MARK)).unwrap();
        assert_eq!(numbers.take(Last::Known(41), 3).await.unwrap(), 42, "without a look at the disk");
        numbers.prepare(42, 3).await.unwrap();
        assert_eq!(read_mark(root.path()).unwrap(), Some(50), "begun again above our own numbers");
    }

    #[test]
    fn nothing_is_written_while_another_process_has_the_mark() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(MARK_LOCK);
        fs::write(&path, "").unwrap();
        let lock = open(&path).unwrap();
        lock.lock().unwrap();
        let changed = || fs::metadata(root.path()).unwrap().modified().unwrap();
        let before = changed();
        for _ in 0..100 {
            assert_eq!(try_reserve(root.path(), 0, 1).unwrap(), None);
        }
        assert_eq!(changed(), before);
        lock.unlock().unwrap();
        assert_eq!(try_reserve(root.path(), 0, 1).unwrap(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_the_mark_is_locked_is_told_as_the_whole_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(MARK_LOCK);
        fs::write(&path, "").unwrap();
        let lock = open(&path).unwrap();
        lock.lock().unwrap();
        let numbers = counted(root.path());
        for told in ["for 2s", "for 34s"] {
            let error = numbers.take(Last::Known(0), 1).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        lock.unlock().unwrap();
        numbers.take(Last::Known(0), 1).await.unwrap();
        lock.lock().unwrap();
        let error = numbers.take(Last::Known(u64::from(u32::MAX)), 1).await.unwrap_err().to_string();
        assert!(error.contains("for 2s"), "{error}");
    }

    #[tokio::test]
    async fn numbers_that_are_lost_begin_again_above_those_in_the_states() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("states")).unwrap();
        fs::write(root.path().join("states/l1.json"), r#"{"term":40,"routes":{}}"#).unwrap();
        assert_eq!(counted(root.path()).take(Last::Known(0), 1).await.unwrap(), 41);
    }

    #[tokio::test]
    async fn a_damaged_mark_is_an_error_and_not_a_new_beginning() {
        let root = tempfile::tempdir().unwrap();
        let mark = root.path().join(MARK);
        let numbers =
            [HIGHEST_TERM, HIGHEST_TERM + 1, u64::MAX - 1, u64::MAX].map(|number| number.to_string());
        let texts = numbers.iter().map(String::as_bytes);
        for text in texts.chain([&b""[..], b"-1", b"18446744073709551616", b"\xff"]) {
            fs::write(&mark, text).unwrap();
            let numbers = counted(root.path());
            for done in [
                numbers.take(Last::Known(7), 1).await.map(drop),
                numbers.fetch(Last::AtLeast(0), 1).await,
                numbers.prepare(7, 1).await,
            ] {
                let error = done.unwrap_err().to_string();
                let way_out = "Write a number into it that is greater than every term so far";
                assert!(
                    error.contains(way_out) && error.contains(mark.to_str().unwrap()),
                    "{text:?}: {error}"
                );
            }
            assert_eq!(fs::read(&mark).unwrap(), text, "left as it is");
        }
    }

    #[tokio::test]
    async fn a_number_that_no_member_wrote_is_no_place_to_begin() {
        for number in [HIGHEST_TERM + 1, u64::MAX] {
            let last = counted(tempfile::tempdir().unwrap().path());
            assert!(last.at_hand(Last::Known(number)).unwrap().is_none());
            let (states, record) = (r#"{"term":N,"routes":{}}"#, r#"{"lock":"l1","term":N}"#);
            for (file, text) in [("states/l1.json", states), ("l1.lock", record)] {
                let root = tempfile::tempdir().unwrap();
                fs::create_dir(root.path().join("states")).unwrap();
                let path = root.path().join(file);
                fs::write(&path, text.replace('N', &number.to_string())).unwrap();
                let error = counted(root.path()).take(Last::Known(0), 1).await.unwrap_err().to_string();
                assert!(error.contains(path.to_str().unwrap()), "{error}");
                assert!(error.contains(&format!("term is {number}")), "{error}");
            }
        }
    }
}
