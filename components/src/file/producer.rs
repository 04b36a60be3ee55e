//! Writing files.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use tracing::debug;

use super::jail::{self, Jail, failure};
use super::{Exist, Settings, blocking, changing};

#[derive(Clone)]
pub(super) struct FileProducer {
    pub(super) jail: Jail,
    pub(super) settings: Arc<Settings>,
}

#[async_trait]
impl Processor for FileProducer {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let name = exchange.message.headers.get("file.name").map(ToString::to_string);
        let name =
            name.or_else(|| self.settings.file_name.clone()).unwrap_or_else(|| exchange.id.to_string());
        let relative = jail::relative(&name)?;
        let content: Bytes = match &exchange.message.body {
            Body::Empty if !self.settings.allow_null_body => {
                return Err("an empty body makes no file, unless `allow_null_body=true`".into());
            }
            Body::Bytes(bytes) => bytes.clone(),
            other => other.to_string().into(),
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
        content: Bytes,
        exchange: &Exchange,
    ) -> Result<PathBuf, BoxError> {
        let temporary = format!("{}{}", self.settings.temp_prefix, exchange.id);
        let temporary = relative.with_file_name(temporary);
        let (producer, target) = (self.clone(), relative.to_owned());
        let written = blocking(move || {
            let place = producer.jail.make_parent(&target)?;
            let temporary = Temporary(producer.jail.place(&temporary));
            producer.write(&temporary.0, OpenOptions::new().write(true).create_new(true), &content)?;
            Ok((temporary, place))
        });
        let (temporary, place) = written.await?;
        if let Exist::Move(directory) = &self.settings.exist {
            let kept = relative.with_file_name(directory).join(relative.file_name().unwrap_or_default());
            let (producer, target, id) = (self.clone(), relative.to_owned(), exchange.id.to_string());
            changing(exchange.term.as_ref(), move || producer.keep(&target, &kept, &id)).await?;
        }
        // Writing goes on when this future is dropped, and may take longer than the term: the step that
        // others can see is done here, where the term can be asked.
        if let Some(term) = &exchange.term {
            term.check()?;
        }
        let placed = match self.settings.exist {
            Exist::Override | Exist::Append | Exist::Move(_) => fs::rename(&temporary.0, &place),
            // A link does not replace what is there, not even what came since a look.
            Exist::Fail | Exist::Ignore => fs::hard_link(&temporary.0, &place),
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
            drop(temporary);
            let place = producer.jail.place(&relative);
            producer.finish(&place)?;
            Ok(place)
        })
        .await
    }

    /// Gives what is at the place of a file, if there is something, a second place. It leaves the first one
    /// when the new file takes it, so that nobody ever finds none.
    fn keep(&self, relative: &Path, kept: &Path, id: &str) -> Result<(), BoxError> {
        let kept_place = self.jail.make_parent(kept)?;
        // Under another name first: a link replaces nothing.
        let temporary = Temporary(kept_place.with_file_name(format!("{}{id}", self.settings.temp_prefix)));
        match fs::hard_link(self.jail.place(relative), &temporary.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            linked => linked.and_then(|()| fs::rename(&temporary.0, &kept_place)),
        }
        .map_err(|error| failure("keeping what existed as", &kept_place, &error))?;
        self.sync(&kept_place)
    }

    fn append(&self, relative: &Path, content: &[u8]) -> Result<PathBuf, BoxError> {
        let place = self.jail.make_parent(relative)?;
        self.write(&place, OpenOptions::new().append(true).create(true), content)?;
        self.finish(&place)?;
        Ok(place)
    }

    fn write(&self, place: &Path, options: &mut OpenOptions, content: &[u8]) -> Result<(), BoxError> {
        let written = jail::open(place, options).and_then(|mut file| {
            file.write_all(content)?;
            if self.settings.force_writes { file.sync_all() } else { Ok(()) }
        });
        written.map_err(|error| failure("writing", place, &error))
    }

    /// Makes the place of a file durable, and says to those who wait that it is complete.
    fn finish(&self, place: &Path) -> Result<(), BoxError> {
        self.sync(place)?;
        if let Some(done) = &self.settings.done_file {
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            let done_file = place.with_file_name(done.name(&name));
            self.write(&done_file, OpenOptions::new().write(true).create(true).truncate(true), b"")?;
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
