//! Writing files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Exchange, Region};
use router_core::failure::Failure;
use rustix::fs::{CWD, RenameFlags, copy_file_range, renameat_with};
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
        let header = || exchange.message.headers.get("file.name").map(ToString::to_string);
        let name = self.settings.file_name.clone().or_else(header).unwrap_or_else(|| exchange.id.to_string());
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
            let mut file = jail::open(&temporary, OpenOptions::new().write(true).create_new(true))
                .map_err(|error| failure("writing", &temporary, &error))?;
            // Only now it is ours to delete.
            let temporary = Temporary(temporary);
            producer.fill(&mut file, &content).map_err(|error| failure("writing", &temporary.0, &error))?;
            Ok((temporary, place))
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
        self.write(&place, OpenOptions::new().append(true).create(true), content)?;
        self.finish(&place)?;
        Ok(place)
    }

    fn write(&self, place: &Path, options: &mut OpenOptions, content: &Content) -> Result<(), BoxError> {
        let written = jail::open(place, options).and_then(|mut file| self.fill(&mut file, content));
        written.map_err(|error| failure("writing", place, &error))
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
            self.write(
                &done_file,
                OpenOptions::new().write(true).create(true).truncate(true),
                &Content::Memory(Bytes::new()),
            )?;
            self.sync(place)?;
        }
        Ok(())
    }

    /// Makes the entries beside a file durable, where that is asked for.
    fn sync(&self, place: &Path) -> Result<(), BoxError> {
        match self.settings.force_writes {
            true => jail::sync_directory(place).map_err(|error| failure("writing", place, &error)),
            false => Ok(()),
        }
    }
}
