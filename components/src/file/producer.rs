//! Writing files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Exchange, Region};
use router_core::failure::Failure;
use rustix::fs::{
    CWD, FlockOperation, RenameFlags, Timespec, Timestamps, UTIME_NOW, copy_file_range, flock, fsync,
    futimens, getxattr, renameat_with,
};
use rustix::io::Errno;
use tracing::debug;

use super::jail::{self, Jail, failure};
use super::settle;
use super::{Exist, Settings, blocking, changing};

#[derive(Clone)]
pub(super) struct FileProducer {
    pub(super) jail: Jail,
    pub(super) settings: Arc<Settings>,
}

#[async_trait]
impl Processor for FileProducer {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let name = match (&self.settings.file_name, exchange.message.headers.get("file.name")) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) if !name.has_exact_text() => {
                return Err(
                    Failure::data("the header `file.name` is no text: its bytes are not UTF-8").into()
                );
            }
            (None, Some(name)) => name.to_string(),
            (None, None) => exchange.id.to_string(),
        };
        let relative = jail::relative(&name)?;
        if exchange.message.body.is_empty() && !self.settings.allow_null_body {
            let error = "an empty body makes no file, unless `allow_null_body=true`";
            return Err(Failure::data(error).into());
        }
        let content = match exchange.message.body.as_file() {
            Some(region) => Content::File(region.clone()),
            None => Content::Memory(exchange.message.body.to_bytes()?),
        };
        let place = if self.settings.exist == Exist::Append {
            let producer = self.clone();
            changing(exchange.term.as_ref(), move || producer.append(&relative, &content)).await?
        } else {
            self.replace(&relative, content, exchange).await?
        };
        exchange.message.headers.set("file.name_produced", place.to_string_lossy().into_owned());
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}

/// What is written.
enum Content {
    Memory(Bytes),
    /// Of another file, which the kernel copies.
    File(Region),
}

impl Content {
    fn write_to(&self, file: &mut File) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => file.write_all(bytes),
            Self::File(region) => copy(region, file),
        }
    }
}

/// Copies a file. Where both are on one file system that can share their content, nothing is copied at all.
fn copy(region: &Region, to: &mut File) -> io::Result<()> {
    /// As much as the kernel takes at once.
    const MOST: usize = 1 << 30;
    /// What is in memory where the kernel cannot do it.
    const CHUNK_BYTES: usize = 1 << 20;
    let mut offset = 0;
    while offset < region.length() {
        match copy_file_range(region, Some(&mut offset), &*to, None, MOST) {
            Ok(copied) if copied > 0 => {}
            // Between some file systems, and at the end of a file that is only appended to. An error that is not of
            // that kind comes again.
            _ => {
                let chunk = region.read(offset, CHUNK_BYTES)?;
                to.write_all(&chunk)?;
                offset += chunk.len() as u64;
            }
        }
    }
    region.check()
}

/// Waits until no other writer appends to a file.
fn lock(file: &File) -> io::Result<()> {
    /// A process that holds the lock for longer does not append, but keeps others out.
    const LONGEST_WAIT: Duration = Duration::from_secs(20);
    let begun = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LONGEST_WAIT => {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(ErrorKind::ResourceBusy, "another process has locked it"));
            }
            // Not every file system has locks. Then there is one who appends, or the parts are mixed.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a file that is made at this place is like one that is made anywhere else: its directory gives it neither a group
/// nor a list of who may use it. A file that was made elsewhere would lack them.
fn makes_files_as_anywhere(place: &Path) -> bool {
    const SET_GROUP: u32 = 0o2000;
    let Some(folder) = place.parent() else { return false };
    let gives_group = fs::metadata(folder).is_ok_and(|folder| folder.mode() & SET_GROUP != 0);
    // No list has room in one byte.
    let list = getxattr(folder, "system.posix_acl_default", &mut [0_u8; 1]);
    !gives_group && list != Err(Errno::RANGE)
}

/// A file with a temporary name, which is deleted unless it has got its place.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Where it was renamed, there is nothing to delete.
        let _ = fs::remove_file(&self.0);
    }
}

impl FileProducer {
    /// Writes a file under a temporary name, and gives it its place in one step.
    async fn replace(
        &self,
        relative: &Path,
        content: Content,
        exchange: &Exchange,
    ) -> Result<PathBuf, BoxError> {
        let temporary = format!("{}{}", self.settings.temp_prefix, exchange.id);
        let temporary = relative.with_file_name(temporary);
        let (producer, target) = (self.clone(), relative.to_owned());
        let written = blocking(move || {
            let place = producer.jail.make_parent(&target)?;
            jail::check_regular(&place).map_err(|error| failure("writing", &place, &error))?;
            let temporary = producer.jail.place(&temporary);
            let made = producer.make(temporary, &content);
            Ok((made.map_err(|(place, error)| failure("writing", &place, &error))?, place))
        });
        let (temporary, place) = written.await?;
        // Writing goes on when this future is dropped, and may take longer than the term: the step that
        // others can see is done here, where the term can be asked.
        if let Some(term) = &exchange.term {
            term.check()?;
        }
        let placed = match &self.settings.exist {
            Exist::Override | Exist::Append => fs::rename(&temporary.0, &place),
            // Nothing is replaced, not even what came since a look.
            Exist::Fail | Exist::Ignore => settle::move_to_free(&temporary.0, &place),
            Exist::Move(directory) => {
                let kept = relative.with_file_name(directory).join(relative.file_name().unwrap_or_default());
                let (producer, place) = (self.clone(), place.clone());
                let move_both = move || producer.keep_and_place(temporary, &place, &kept);
                changing(exchange.term.as_ref(), move_both).await?;
                Ok(())
            }
        };
        match placed {
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists && self.settings.exist == Exist::Ignore =>
            {
                debug!("`{}` exists already, nothing is written", place.display());
                return Ok(place);
            }
            placed => placed.map_err(|error| failure("writing", &place, &error))?,
        }
        let (producer, relative) = (self.clone(), relative.to_owned());
        blocking(move || {
            let place = producer.jail.place(&relative);
            producer.finish(&place)?;
            Ok(place)
        })
        .await
    }

    /// Makes a file with a temporary name and this content. What was spooled gets the name, where it can: nothing is copied
    /// then.
    fn make(&self, place: PathBuf, content: &Content) -> Result<Temporary, (PathBuf, io::Error)> {
        if let Content::File(region) = content
            && makes_files_as_anywhere(&place)
        {
            match region.link_to(&place) {
                Ok(true) => {
                    let temporary = Temporary(place);
                    let synced = if self.settings.force_writes { fsync(region) } else { Ok(()) };
                    return match synced.map_err(io::Error::from).and_then(|()| region.check()) {
                        Ok(()) => Ok(temporary),
                        Err(error) => Err((temporary.0.clone(), error)),
                    };
                }
                Ok(false) => {}
                Err(error) => return Err((place, error)),
            }
        }
        match jail::open(&place, OpenOptions::new().write(true).create_new(true)) {
            // Only now it is ours to delete.
            Ok(mut file) => {
                let temporary = Temporary(place);
                match self.fill(&mut file, content) {
                    Ok(()) => Ok(temporary),
                    Err(error) => Err((temporary.0.clone(), error)),
                }
            }
            Err(error) => Err((place, error)),
        }
    }

    /// Gives a new file its place, and what was there one in another directory. The two change places in one step,
    /// so each of several writers keeps what the one before it has written, and there is a file at any time.
    fn keep_and_place(&self, temporary: Temporary, place: &Path, kept: &Path) -> Result<(), BoxError> {
        let (kept, new) = (self.jail.make_parent(kept)?, temporary.0.clone());
        loop {
            match settle::move_to_free(&new, place) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                moved => return moved.map_err(|error| failure("writing", place, &error)),
            }
            match renameat_with(CWD, &new, CWD, place, RenameFlags::EXCHANGE) {
                Ok(()) => break,
                // It has gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    return self.link_and_replace(&new, place, &kept);
                }
                Err(error) => return Err(failure("writing", place, &error.into())),
            }
        }
        // What has the temporary name now is not ours to delete.
        std::mem::forget(temporary);
        if let Err(error) = settle::keep(&new, &kept) {
            let error = failure("keeping what existed as", &kept, &error);
            let beside = settle::keep(&new, place);
            let beside = beside.map_err(|error| failure("keeping what existed as", &new, &error))?;
            return Err(format!("{error}; it is `{}`", beside.display()).into());
        }
        self.sync(&kept)
    }

    /// The same for file systems in which two files cannot change places: a file that another writer puts there
    /// between the two steps is replaced.
    fn link_and_replace(&self, new: &Path, place: &Path, kept: &Path) -> Result<(), BoxError> {
        let mut name = new.file_name().unwrap_or_default().to_owned();
        name.push("-kept");
        let second = Temporary(kept.with_file_name(name));
        let linked = fs::hard_link(place, &second.0).and_then(|()| settle::keep(&second.0, kept).map(drop));
        linked.map_err(|error| failure("keeping what existed as", kept, &error))?;
        fs::rename(new, place).map_err(|error| failure("writing", place, &error))?;
        self.sync(kept)
    }

    fn append(&self, relative: &Path, content: &Content) -> Result<PathBuf, BoxError> {
        let place = self.jail.make_parent(relative)?;
        let appended = jail::open(&place, OpenOptions::new().append(true).create(true))
            .and_then(|mut file| self.append_to(&mut file, content));
        appended.map_err(|error| failure("writing", &place, &error))?;
        self.finish(&place)?;
        Ok(place)
    }

    /// All of it, or nothing: what was appended by half is cut off again. Those who append to one file do it one after the
    /// other, because a large content is written in parts.
    fn append_to(&self, file: &mut File, content: &Content) -> io::Result<()> {
        lock(file)?;
        let before = file.metadata()?.len();
        let appended = self.fill(file, content);
        // Behind what was written here. Where others have written more, who keep to no lock, nothing of theirs is cut off.
        let end = file.stream_position()?;
        if appended.is_err() && end > before && file.metadata()?.len() == end {
            file.set_len(before)?;
        }
        appended
    }

    fn fill(&self, file: &mut File, content: &Content) -> io::Result<()> {
        content.write_to(file)?;
        if self.settings.force_writes { file.sync_all() } else { Ok(()) }
    }

    /// Makes the place of a file durable, and says to those who wait that it is complete.
    fn finish(&self, place: &Path) -> Result<(), BoxError> {
        self.sync(place)?;
        if let Some(done) = &self.settings.done_file {
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            let done_file = place.with_file_name(done.name(&name));
            self.touch(&done_file).map_err(|error| failure("writing", &done_file, &error))?;
            self.sync(place)?;
        }
        Ok(())
    }

    /// Makes a file, or gives it the present time. Nothing is taken from one that has content: its name may be that of
    /// another file.
    fn touch(&self, place: &Path) -> io::Result<()> {
        let file = jail::open(place, OpenOptions::new().write(true).create(true).truncate(false))?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        futimens(&file, &Timestamps { last_access: now, last_modification: now })?;
        if self.settings.force_writes { file.sync_all() } else { Ok(()) }
    }

    /// Makes the entries beside a file durable, where that is asked for.
    fn sync(&self, place: &Path) -> Result<(), BoxError> {
        match self.settings.force_writes {
            true => jail::sync_directory(place).map_err(|error| failure("writing", place, &error)),
            false => Ok(()),
        }
    }
}
