//! [`Spool`]: where bodies are kept that are too large for the memory, and how much of them.

mod account;
mod anonymous;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::body::Region;
use crate::failure::Failure;
use account::{Account, Reservation};

/// What bodies may take. The defaults are those of the settings in the table `[body]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// How many bytes a body has in memory before it goes to a file.
    pub threshold: u64,
    /// The directory of these files. They have no names in it.
    pub directory: PathBuf,
    /// How many bytes all of them have together.
    pub max_bytes: u64,
    /// How many there are.
    pub max_files: usize,
    /// How long a body waits for room.
    pub max_wait: Duration,
    /// How many bytes a body has that is read from a file, put together by an expression, or made of rows.
    pub memory_limit: u64,
    /// Whether JSON is refused in which an object has a key twice. Otherwise the last value of the key counts.
    pub unique_keys: bool,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            threshold: 1 << 20,
            directory: ".bactrian/spool".into(),
            max_bytes: 4 << 30,
            max_files: 256,
            max_wait: Duration::from_secs(30),
            memory_limit: Region::DEFAULT_MEMORY_LIMIT,
            unique_keys: false,
        }
    }
}

/// Where bodies are kept that grow beyond what belongs into memory: in files without a name, which end with the last
/// body that has them, or with the process, however it ends. Clones share the room for them.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    settings: SpoolSettings,
    account: Arc<Account>,
    /// Whether anything in this process writes bodies here.
    is_used: AtomicBool,
    /// Whether it is known if the files are in memory.
    is_looked_at: AtomicBool,
}

impl Default for Spool {
    fn default() -> Self {
        Self::new(SpoolSettings::default())
    }
}

impl Spool {
    /// A spool with these settings. Nothing is made before a body needs it.
    #[must_use]
    pub fn new(settings: SpoolSettings) -> Self {
        let account = Arc::new(Account::new(settings.max_bytes, settings.max_files, settings.max_wait));
        Self(Arc::new(Inner {
            settings,
            account,
            is_used: AtomicBool::new(false),
            is_looked_at: AtomicBool::new(false),
        }))
    }

    /// What it may take.
    #[must_use]
    pub fn settings(&self) -> &SpoolSettings {
        &self.0.settings
    }

    /// How many bytes are spooled or reserved now, and in how many files.
    #[must_use]
    pub fn used(&self) -> (u64, usize) {
        self.0.account.used()
    }

    /// The whole content of a file that was not made here.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn region(&self, file: File) -> io::Result<Region> {
        Region::with_limit(file, self.0.settings.memory_limit)
    }

    /// Says that bodies will be written here, so that what is wrong with the directory is of interest when the router starts.
    pub fn expect_use(&self) {
        self.0.is_used.store(true, Ordering::Relaxed);
    }

    /// Warns of what is wrong with the directory, if bodies will be written there. Nothing waits for it.
    pub(crate) fn check(&self) {
        if self.0.is_used.load(Ordering::Relaxed) {
            let spool = self.clone();
            tokio::task::spawn_blocking(move || {
                spool.warn_if_in_memory();
                if let Some(why) = spool.cannot_be_used() {
                    warn!("{why}");
                }
            });
        }
    }

    fn cannot_be_used(&self) -> Option<String> {
        let error = anonymous::create(&self.0.settings.directory).err()?;
        let threshold = self.0.settings.threshold;
        Some(format!("{}: bodies of more than {threshold} bytes will fail", self.unusable(&error)))
    }

    /// Warns once: when the router starts, or with the first body of a route that nobody expected to have large ones.
    fn warn_if_in_memory(&self) {
        let directory = &self.0.settings.directory;
        if !self.0.is_looked_at.swap(true, Ordering::Relaxed) && anonymous::is_in_memory(directory) {
            warn!(
                "`body.spool_dir` is `{}`, whose files are in memory: large bodies take memory there",
                directory.display()
            );
        }
    }

    /// Begins a body. An exchange that has one already, of which it waits for the next, says so: waiting for the room that
    /// it takes itself would have no end.
    #[must_use]
    pub fn writer(&self, held: Option<&Region>) -> SpoolWriter {
        SpoolWriter {
            spool: self.clone(),
            held: held.cloned(),
            pending: BytesMut::new(),
            spooled: None,
            length: 0,
        }
    }

    fn unusable(&self, error: &io::Error) -> String {
        format!(
            "`body.spool_dir` is `{}`, which cannot be used: {error}",
            self.0.settings.directory.display()
        )
    }

    /// Whatever is wrong with the spool, it is not the message, and the next try may go otherwise.
    fn failed(&self, error: &io::Error) -> Failure {
        Failure::unavailable(self.unusable(error))
    }

    /// Runs something that blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(io::Error::other).flatten().map_err(|error| self.failed(&error))
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.settings.fmt(formatter)
    }
}

/// A body that is being written, in memory as long as it is small.
pub struct SpoolWriter {
    spool: Spool,
    held: Option<Region>,
    /// What is in memory.
    pending: BytesMut,
    spooled: Option<Spooled>,
    /// How many bytes were given.
    length: u64,
}

impl fmt::Debug for SpoolWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolWriter").finish_non_exhaustive()
    }
}

/// The file of a body that is being written.
struct Spooled {
    file: Arc<File>,
    reservation: Arc<Reservation>,
    /// How many bytes were written, or are being written.
    offset: u64,
    writing: Option<JoinHandle<io::Result<()>>>,
}

/// A body that was written.
#[derive(Debug)]
pub enum Written {
    /// It was small.
    Memory(Bytes),
    /// It was large.
    File(Region),
}

impl SpoolWriter {
    /// So much is gathered in memory before it is written, while as much is being written.
    const WRITE_BYTES: usize = 512 << 10;

    /// Makes room for a body of this length at once. Bodies that say how long they are do not wait for each other half
    /// written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancellation
    /// As there.
    pub async fn expect(&mut self, length: u64) -> Result<(), Failure> {
        match length <= self.spool.0.settings.threshold {
            true => self.pending.reserve(usize::try_from(length).unwrap_or(0)),
            false => self.reserve(length).await?,
        }
        Ok(())
    }

    /// Adds a part; waits while there is no room, or the disk is slower than who gives it.
    ///
    /// # Errors
    /// Of the kind `data` when all of it is more than may be spooled; `unavailable` when there was no room in time, or the
    /// disk is full.
    ///
    /// # Cancellation
    /// The body is of no use then. Its room is free when the writer was dropped.
    pub async fn write(&mut self, part: &[u8]) -> Result<(), Failure> {
        self.length += part.len() as u64;
        if self.spooled.is_none() && self.length > self.spool.0.settings.threshold {
            self.reserve(self.length).await?;
        }
        self.pending.extend_from_slice(part);
        if self.spooled.is_some() && self.pending.len() >= Self::WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Has room for `length` bytes and a file for them.
    async fn reserve(&mut self, length: u64) -> Result<(), Failure> {
        let (spool, held) = (self.spool.clone(), self.held.as_ref().and_then(Reservation::of));
        let account = &spool.0.account;
        match &self.spooled {
            Some(spooled) => account.grow(&spooled.reservation, length, held.as_deref()).await,
            None => {
                let reservation = account.reserve(length, held.as_deref()).await?;
                let of_file = spool.clone();
                let create = move || {
                    let file = anonymous::create(&of_file.0.settings.directory)?;
                    of_file.warn_if_in_memory();
                    Ok(file)
                };
                let file = spool.blocking(create).await?;
                let (file, reservation) = (Arc::new(file), Arc::new(reservation));
                self.spooled = Some(Spooled { file, reservation, offset: 0, writing: None });
                Ok(())
            }
        }
    }

    /// Writes what is in memory, when what was written before is on its way to the disk.
    async fn flush(&mut self) -> Result<(), Failure> {
        self.settle().await?;
        self.reserve(self.length).await?;
        let Some(spooled) = &mut self.spooled else { return Ok(()) };
        let part = self.pending.split().freeze();
        let (file, reservation, offset) =
            (Arc::clone(&spooled.file), Arc::clone(&spooled.reservation), spooled.offset);
        spooled.offset += part.len() as u64;
        spooled.writing = Some(tokio::task::spawn_blocking(move || {
            // It takes room as long as it is written, also when the writer was dropped.
            let _reservation = reservation;
            file.write_all_at(&part, offset)
        }));
        Ok(())
    }

    /// Waits for what is being written.
    async fn settle(&mut self) -> Result<(), Failure> {
        if let Some(spooled) = &mut self.spooled
            && let Some(writing) = &mut spooled.writing
        {
            let written = writing.await.map_err(io::Error::other).flatten();
            spooled.writing = None;
            written.map_err(|error| self.spool.failed(&error))?;
        }
        Ok(())
    }

    /// The body, all of it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancellation
    /// As there.
    pub async fn finish(mut self) -> Result<Written, Failure> {
        if self.spooled.is_none() {
            return Ok(Written::Memory(self.pending.freeze()));
        }
        self.flush().await?;
        self.settle().await?;
        let Some(Spooled { file, reservation, offset, .. }) = self.spooled else {
            unreachable!("it was there before");
        };
        reservation.shrink_to(offset);
        let limit = self.spool.0.settings.memory_limit;
        let file = Arc::into_inner(file).ok_or_else(|| io::Error::other("it is still being written"));
        let region = file.and_then(|file| Region::owned(file, limit, reservation));
        region.map(Written::File).map_err(|error| self.spool.failed(&error))
    }
}

#[cfg(test)]
mod tests;
