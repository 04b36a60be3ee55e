//! [`Account`]: how much room spooled bodies take, and who waits for some.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::body::Region;
use crate::failure::Failure;

/// The room for spooled bodies.
///
/// Who waits for room may have some already: the part of a body that was written, or the body that an exchange has while it
/// waits for the next one. So they could wait for each other without end. Three rules keep them from it. What can never fit
/// is an error at once. A body that is begun waits behind those that are half written. And when all room belongs to those
/// who wait, the one that sees it fails, which makes room for the others. What else may never come free, for example while
/// a queue is full of bodies, is waited for only so long.
pub(super) struct Account {
    max_bytes: u64,
    max_files: usize,
    max_wait: Duration,
    books: Mutex<Books>,
    /// Told whenever there may be room.
    freed: Notify,
}

#[derive(Default)]
struct Books {
    next: u64,
    bytes: u64,
    entries: HashMap<u64, Entry>,
    /// How many half written bodies wait.
    growing: usize,
}

/// The room of one body.
struct Entry {
    bytes: u64,
    /// How many of those who wait have it, so that it cannot come free before.
    pins: usize,
}

/// The room that one body takes, as long as this exists.
pub(super) struct Reservation {
    account: Arc<Account>,
    id: u64,
}

impl Reservation {
    /// That of a region, where it is spooled.
    pub(super) fn of(region: &Region) -> Option<Arc<Self>> {
        region.held()?.downcast().ok()
    }

    /// Gives back what is more than `bytes`.
    pub(super) fn shrink_to(&self, bytes: u64) {
        let mut books = self.account.books();
        if let Some(entry) = books.entries.get_mut(&self.id) {
            let freed = entry.bytes.saturating_sub(bytes);
            entry.bytes -= freed;
            books.bytes -= freed;
        }
        drop(books);
        self.account.freed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut books = self.account.books();
        if let Some(entry) = books.entries.remove(&self.id) {
            books.bytes -= entry.bytes;
        }
        drop(books);
        self.account.freed.notify_waiters();
    }
}

/// Counts who waits, also when the future that waits is dropped.
struct Waiting<'a> {
    account: &'a Account,
    own: Option<u64>,
    pinned: Vec<u64>,
}

impl<'a> Waiting<'a> {
    fn new(account: &'a Account, own: Option<u64>, held: Option<u64>) -> Self {
        let pinned = own.into_iter().chain(held).collect::<Vec<_>>();
        let mut books = account.books();
        books.growing += usize::from(own.is_some());
        books.pin(&pinned, |pins| pins + 1);
        drop(books);
        Self { account, own, pinned }
    }

    /// Whether all room belongs to those who wait, and this one is the first to see it: it waits no longer, so it is the
    /// only one that fails.
    fn gives_way(&mut self) -> bool {
        let mut books = self.account.books();
        let stuck = !self.pinned.is_empty() && books.entries.values().all(|entry| entry.pins > 0);
        if stuck {
            books.pin(&std::mem::take(&mut self.pinned), |pins| pins - 1);
        }
        stuck
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut books = self.account.books();
        books.growing -= usize::from(self.own.is_some());
        books.pin(&self.pinned, |pins| pins - 1);
        drop(books);
        // Those who have begun nothing may be next.
        self.account.freed.notify_waiters();
    }
}

impl Books {
    fn pin(&mut self, pinned: &[u64], change: impl Fn(usize) -> usize) {
        for id in pinned {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.pins = change(entry.pins);
            }
        }
    }

    fn bytes_of(&self, id: Option<u64>) -> u64 {
        id.and_then(|id| self.entries.get(&id)).map_or(0, |entry| entry.bytes)
    }
}

impl Account {
    pub(super) fn new(max_bytes: u64, max_files: usize, max_wait: Duration) -> Self {
        Self { max_bytes, max_files, max_wait, books: Mutex::default(), freed: Notify::new() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn used(&self) -> (u64, usize) {
        let books = self.books();
        (books.bytes, books.entries.len())
    }

    /// Room for a new body of `bytes`. The exchange that it is for has `held` meanwhile.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        held: Option<&Reservation>,
    ) -> Result<Reservation, Failure> {
        let id = self.take(None, bytes, held.map(|held| held.id)).await?;
        Ok(Reservation { account: Arc::clone(self), id })
    }

    /// Room for a body that has some already, so that it is `bytes` altogether.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn grow(
        &self,
        own: &Reservation,
        bytes: u64,
        held: Option<&Reservation>,
    ) -> Result<(), Failure> {
        self.take(Some(own.id), bytes, held.map(|held| held.id)).await.map(drop)
    }

    async fn take(&self, own: Option<u64>, bytes: u64, held: Option<u64>) -> Result<u64, Failure> {
        if let Some(id) = self.try_take(own, bytes, held)? {
            return Ok(id);
        }
        let mut waiting = Waiting::new(self, own, held);
        let until = Instant::now() + self.max_wait;
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on nothing is missed.
            freed.as_mut().enable();
            if let Some(id) = self.try_take(own, bytes, held)? {
                return Ok(id);
            }
            if waiting.gives_way() {
                return Err(self.full("all bodies there wait for it too"));
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(
                    self.full(&format!("none came free in {:?} (`body.max_spool_wait`)", self.max_wait))
                );
            }
        }
    }

    /// Takes the room if there is some. `None`: not yet.
    fn try_take(&self, own: Option<u64>, bytes: u64, held: Option<u64>) -> Result<Option<u64>, Failure> {
        let mut books = self.books();
        let more = bytes.saturating_sub(books.bytes_of(own));
        let with_held = bytes.saturating_add(books.bytes_of(held));
        if with_held > self.max_bytes {
            let max = self.max_bytes;
            let text = match bytes > max {
                true => format!("the body has more than {max} bytes, which is all that is spooled"),
                false => format!(
                    "the body has {bytes} bytes, and the exchange has a spooled one already: both are more than {max}, which is all that is spooled"
                ),
            };
            return Err(Failure::data(format!("{text} (`body.max_spooled_bytes`)")));
        }
        let fits = more <= self.max_bytes.saturating_sub(books.bytes);
        let admitted = own.is_some() || (books.growing == 0 && books.entries.len() < self.max_files);
        if !(more == 0 && own.is_some() || fits && admitted) {
            return Ok(None);
        }
        books.bytes += more;
        let id = own.unwrap_or(books.next);
        books.next += u64::from(own.is_none());
        books.entries.entry(id).or_insert(Entry { bytes: 0, pins: 0 }).bytes += more;
        Ok(Some(id))
    }

    fn full(&self, why: &str) -> Failure {
        let (bytes, files) = self.used();
        Failure::unavailable(format!(
            "there is no room for a large body: {bytes} bytes in {files} files are spooled, of at most {} \
             (`body.max_spooled_bytes`) in {} (`body.max_spooled_files`); {why}",
            self.max_bytes, self.max_files
        ))
    }
}
