//! Reading files.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use router_core::component::Consumer;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use router_core::pipeline::Pipeline;
use router_core::stop::Stop;
use tokio::time::sleep;
use tracing::warn;

use super::jail::{self, Jail, failure};
use super::{After, Settings, blocking, changing};

#[derive(Clone)]
pub(super) struct FileConsumer {
    pub(super) jail: Jail,
    pub(super) settings: Arc<Settings>,
    pub(super) remembered: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A file that a poll has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Relative to the starting directory.
    path: PathBuf,
    length: u64,
    modified: SystemTime,
}

#[async_trait]
impl Consumer for FileConsumer {
    async fn run(self: Box<Self>, pipeline: Pipeline, stop: Stop) -> Result<(), BoxError> {
        let mut pause = self.settings.initial_delay;
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = self.settings.delay;
            for file in self.poll(&stop).await? {
                if stop.is_requested() {
                    return Ok(());
                }
                self.consume(file, &pipeline).await?;
            }
        }
    }
}

impl FileConsumer {
    /// The files to read now, in order.
    async fn poll(&self, stop: &Stop) -> Result<Vec<Found>, BoxError> {
        let scan = || {
            let consumer = self.clone();
            blocking(move || consumer.scan())
        };
        let mut files = scan().await?;
        if let Some(interval) = self.settings.unchanged_for.filter(|_| !files.is_empty()) {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(Vec::new()),
                () = sleep(interval) => {}
            }
            let unchanged = scan().await?;
            files.retain(|file| unchanged.contains(file));
        }
        files.truncate(self.settings.max_messages_per_poll);
        Ok(files)
    }

    fn scan(&self) -> Result<Vec<Found>, BoxError> {
        self.jail.make_root()?;
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let place = self.jail.place(&folder);
            let entries = match fs::read_dir(&place) {
                Ok(entries) => entries,
                // One bad directory must not stop the others, and one that has gone meanwhile is not there.
                Err(error) if !folder.as_os_str().is_empty() => {
                    if error.kind() != ErrorKind::NotFound {
                        warn!("reading the directory `{}` failed: {error}", place.display());
                    }
                    continue;
                }
                Err(error) => return Err(failure("reading the directory", &place, &error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failure("reading the directory", &place, &error))?;
                let (path, name) = (folder.join(entry.file_name()), entry.file_name());
                // A link is neither a directory nor a file here. What has gone meanwhile is not there.
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() && self.enters(Path::new(&name)) {
                    folders.push(path);
                } else if kind.is_file()
                    && self.wants(&name.to_string_lossy(), &path)
                    && let Ok(metadata) = entry.metadata()
                {
                    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
                    found.push(Found { path, length: metadata.len(), modified });
                }
            }
        }
        if self.settings.by_modified {
            found.sort_by(|left, right| (left.modified, &left.path).cmp(&(right.modified, &right.path)));
        } else {
            found.sort_by(|left, right| left.path.cmp(&right.path));
        }
        self.without_remembered(&mut found);
        Ok(found)
    }

    /// Whether the files of this directory are read. Those to which read files are moved are not.
    fn enters(&self, name: &Path) -> bool {
        let settings = &self.settings;
        let moved = match &settings.after {
            After::Move(directory) => Some(directory),
            After::Remember | After::Delete => None,
        };
        let targets = moved.into_iter().chain(&settings.move_failed);
        settings.recursive
            && !name.to_string_lossy().starts_with('.')
            && !targets.into_iter().any(|target| target.starts_with(name))
    }

    fn wants(&self, name: &str, path: &Path) -> bool {
        let settings = &self.settings;
        !name.starts_with('.')
            && !name.starts_with(&settings.temp_prefix)
            && settings.include.as_ref().is_none_or(|pattern| pattern.is_match(name))
            && !settings.exclude.as_ref().is_some_and(|pattern| pattern.is_match(name))
            && settings.file_name.as_ref().is_none_or(|only| path == Path::new(only))
            && settings.done_file.as_ref().is_none_or(|done| {
                let done_file = self.jail.place(&path.with_file_name(done.name(name)));
                !done.matches(name) && fs::symlink_metadata(done_file).is_ok()
            })
    }

    /// Leaves out what was read, and forgets what does not exist any more.
    fn without_remembered(&self, found: &mut Vec<Found>) {
        let mut remembered = self.remembered();
        if remembered.is_empty() {
            return;
        }
        let present = found.iter().map(|file| &file.path).collect::<HashSet<_>>();
        remembered.retain(|path| present.contains(path));
        found.retain(|file| !remembered.contains(&file.path));
    }

    fn remembered(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one file through the route, and settles what becomes of it.
    async fn consume(&self, file: Found, pipeline: &Pipeline) -> Result<(), BoxError> {
        let Some(mut exchange) = self.read(&file).await? else { return Ok(()) };
        let (consumer, path) = (self.clone(), file.path.clone());
        blocking(move || consumer.check_settling(&path)).await?;
        let result = pipeline.process(&mut exchange).await;
        let done = match result {
            Ok(()) => true,
            // Left as it is, for the next leader.
            Err(error) if error.is_leadership_lost() => return Ok(()),
            Err(_) => false,
        };
        let consumer = self.clone();
        changing(pipeline.term(), move || consumer.settle(&file.path, done)).await
    }

    /// The exchange of a file, `None` when it has gone meanwhile or cannot be read. The next poll tries
    /// again; one bad file must not stop the others.
    async fn read(&self, file: &Found) -> Result<Option<Exchange>, BoxError> {
        let place = self.jail.place(&file.path);
        let path = place.clone();
        let content = blocking(move || {
            let mut content = Vec::new();
            let opened = jail::open(&path, OpenOptions::new().read(true));
            match opened.and_then(|mut file| file.read_to_end(&mut content)) {
                Ok(_) => Ok(Some(content)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => {
                    warn!("reading `{}` failed: {error}", path.display());
                    Ok(None)
                }
            }
        });
        let Some(content) = content.await? else { return Ok(None) };
        let mut exchange = Exchange::new(match String::from_utf8(content) {
            Ok(text) => Body::from(text),
            Err(error) => Body::from(Bytes::from(error.into_bytes())),
        });
        let modified = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let headers = &mut exchange.message.headers;
        headers.set("file.name", file.path.to_string_lossy().into_owned());
        headers.set("file.path", place.to_string_lossy().into_owned());
        headers.set("file.length", file.length);
        headers.set("file.last_modified", u64::try_from(modified.as_millis()).unwrap_or(u64::MAX));
        Ok(Some(exchange))
    }

    /// What becomes of a file after its exchange. It was worked on: what fails here must not have it
    /// worked on without a word, so it ends the consumer, and the router says why.
    fn settle(&self, path: &Path, done: bool) -> Result<(), BoxError> {
        match (&self.settings.after, &self.settings.move_failed) {
            (After::Remember, _) if done => {
                self.remembered().insert(path.to_owned());
                return Ok(());
            }
            (After::Delete, _) if done => {
                let place = self.jail.place(path);
                fs::remove_file(&place).map_err(|error| failure("deleting", &place, &error))?;
            }
            (After::Move(directory), _) if done => self.move_beside(path, directory)?,
            (_, Some(directory)) => self.move_beside(path, directory)?,
            // The next poll tries again.
            (_, None) => return Ok(()),
        }
        self.remove_done_file(path);
        Ok(())
    }

    /// Asked before a file is worked on: one that could not be settled would be worked on again and again.
    fn check_settling(&self, path: &Path) -> Result<(), BoxError> {
        let place = self.jail.place(path);
        match &self.settings.after {
            After::Remember => Ok(()),
            After::Delete => jail::check_moving(&place, None),
            After::Move(directory) => {
                jail::check_moving(&place, Some(&self.jail.make_parent(&beside(path, directory))?))
            }
        }
    }

    fn move_beside(&self, path: &Path, directory: &Path) -> Result<(), BoxError> {
        self.jail.rename(path, &beside(path, directory))
    }

    fn remove_done_file(&self, path: &Path) {
        let Some(done) = &self.settings.done_file else { return };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = self.jail.place(&path.with_file_name(done.name(&name)));
        if let Err(error) = fs::remove_file(&place) {
            warn!("deleting `{}` failed: {error}", place.display());
        }
    }
}

/// The place of a file in a directory beside it.
fn beside(path: &Path, directory: &Path) -> PathBuf {
    path.with_file_name(directory).join(path.file_name().unwrap_or_default())
}
