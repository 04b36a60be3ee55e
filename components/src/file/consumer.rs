//! Reading files.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use router_core::component::{Consumer, RouteHandle};
use router_core::directory;
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange, Region};
use router_core::pipeline::Pipeline;
use router_core::spool::Spool;
use router_core::stop::Stop;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::jail::{self, Jail, failure};
use super::memory::Memory;
use super::settle::{self, Identity, TICK};
use super::{After, Settings, blocking, changing};

#[derive(Clone)]
pub(super) struct FileConsumer {
    pub(super) jail: Jail,
    pub(super) settings: Arc<Settings>,
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) spool: Spool,
}

/// A file that a poll has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Relative to the starting directory. Text: other names are refused.
    path: PathBuf,
    identity: Identity,
    modified: SystemTime,
    length: u64,
    /// The file that says that this one is complete, where one has to.
    done_file: Option<(PathBuf, Identity)>,
}

/// What became of a file after its exchange.
enum Settled {
    /// It is where it belongs.
    Yes,
    /// It stays, to be read again.
    Stays,
    /// It is not the file any more that was read, so it stays too.
    Changed,
    /// It could not be moved or deleted, and is now this one.
    Failed(BoxError, Option<Identity>),
}

#[async_trait]
impl Consumer for FileConsumer {
    async fn run(mut self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        let directory = directory::canonical(&self.jail.place(Path::new("")));
        self.memory = pipeline.memory(&directory.to_string_lossy());
        let consumer = self.clone();
        blocking(move || consumer.check_root()).await?;
        route.ready();
        let mut pause = self.settings.initial_delay;
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = self.settings.delay;
            for file in self.poll(stop).await? {
                if stop.is_requested() {
                    return Ok(());
                }
                self.consume(file, pipeline).await?;
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
        if files.is_empty() {
            return Ok(files);
        }
        // A file is read a tick after the look at least: whatever is written to it then shows.
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(Vec::new()),
            () = sleep(self.settings.unchanged_for.unwrap_or_default().max(TICK)) => {}
        }
        if self.settings.unchanged_for.is_some() {
            let unchanged = scan().await?;
            files.retain(|file| unchanged.contains(file));
            files.truncate(self.settings.max_messages_per_poll);
        }
        Ok(files)
    }

    /// Whether the directory can be read.
    fn check_root(&self) -> Result<(), BoxError> {
        self.jail.make_root()?;
        let root = self.jail.place(Path::new(""));
        fs::read_dir(&root).map(drop).map_err(|error| failure("reading the directory", &root, &error))
    }

    fn scan(&self) -> Result<Vec<Found>, BoxError> {
        self.jail.make_root()?;
        let (mut paths, mut folders) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(folder) = folders.pop() {
            let place = self.jail.place(&folder);
            let private = folder.file_name().is_some_and(|name| settle::is_private_folder(name.as_ref()));
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
                if kind.is_dir() && !private && self.enters(Path::new(&name)) {
                    folders.push(path);
                } else if kind.is_file() && !private && self.wants(&name.to_string_lossy(), &path) {
                    paths.push(path);
                } else if kind.is_file() {
                    self.recover(&path);
                }
            }
        }
        paths.sort();
        let mut memory = self.memory();
        memory.retain(&paths);
        // Files that failed come after the others: with a small number of files a poll, they would keep those waiting.
        paths.sort_by_key(|path| memory.knows(path));
        drop(memory);
        let settings = &self.settings;
        // Where all must be looked at to know which are the first, or which rest, the number is no limit here.
        let limit = match settings.by_modified || settings.unchanged_for.is_some() {
            true => usize::MAX,
            false => settings.max_messages_per_poll,
        };
        let mut found = paths.iter().filter_map(|path| self.find(path)).take(limit).collect::<Vec<_>>();
        if settings.by_modified {
            let memory = self.memory();
            found.sort_by_cached_key(|file| (memory.knows(&file.path), file.modified, file.path.clone()));
        }
        if settings.unchanged_for.is_none() {
            found.truncate(settings.max_messages_per_poll);
        }
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
        if settle::is_private_folder(name) {
            return true;
        }
        settings.recursive
            && !name.to_string_lossy().starts_with('.')
            && !targets.into_iter().any(|target| target.starts_with(name))
    }

    /// Whether files of this name are read.
    fn wants(&self, name: &str, path: &Path) -> bool {
        let settings = &self.settings;
        !name.starts_with('.')
            && !name.starts_with(&settings.temp_prefix)
            && settings.include.as_ref().is_none_or(|pattern| pattern.is_match(name))
            && !settings.exclude.as_ref().is_some_and(|pattern| pattern.is_match(name))
            && settings.file_name.as_ref().is_none_or(|only| path == Path::new(only))
            && !settings.done_file.as_ref().is_some_and(|done| done.matches(name))
    }

    /// Gives a file its name back that has kept a private one: the process that settled it has ended. How
    /// far it came is not known, so the file is read again.
    fn recover(&self, path: &Path) {
        let Some(original) = settle::original(path) else { return };
        let text = original.file_name().unwrap_or_default().to_string_lossy();
        if !self.wants(&text, &original) {
            return;
        }
        match settle::keep(&self.jail.place(path), &self.jail.place(&original)) {
            Ok(place) => {
                warn!("`{}` is read again: the process that worked on it has ended", place.display())
            }
            // Another consumer has settled it.
            Err(error) => debug!("`{}` did not get its name back: {error}", path.display()),
        }
    }

    /// A file that is to be read now.
    fn find(&self, path: &Path) -> Option<Found> {
        let place = self.jail.place(path);
        // What has gone meanwhile is not there.
        let metadata = fs::symlink_metadata(&place).ok()?;
        let identity = Identity::of(&metadata);
        let mut memory = self.memory();
        if memory.excludes(path, || Some(identity)) {
            return None;
        }
        let Some(name) = path.to_str().and_then(|_| path.file_name()?.to_str()) else {
            memory.refuse(path);
            let place = place.display();
            warn!(
                "`{place}` is not read: its name is not UTF-8, and another one could look the same. Rename it"
            );
            return None;
        };
        let done_file = match &self.settings.done_file {
            None => None,
            Some(done) => {
                let done_file = self.jail.place(&path.with_file_name(done.name(name)));
                let identity = Identity::at(&done_file).ok()??;
                Some((done_file, identity))
            }
        };
        Some(Found {
            path: path.to_owned(),
            identity,
            modified: metadata.modified().unwrap_or(UNIX_EPOCH),
            length: metadata.len(),
            done_file,
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn postpone(&self, file: &Found, identity: Option<Identity>, unsettled: Option<bool>) {
        self.memory().postpone(&file.path, identity, unsettled, self.settings.delay);
    }

    /// Sends one file through the route, and settles what becomes of it.
    async fn consume(&self, file: Found, pipeline: &Pipeline) -> Result<(), BoxError> {
        let unsettled = self.memory().unsettled(&file.path, &file.identity);
        let (done, region) = match unsettled {
            Some(done) => (done, None),
            None => match self.work(&file, pipeline).await? {
                Some(worked) => worked,
                None => return Ok(()),
            },
        };
        let (consumer, settled) = (self.clone(), file.clone());
        let settle = move || match region {
            // Others may read it still.
            Some(region) => region.moving(|| consumer.settle(&settled, done)),
            None => consumer.settle(&settled, done),
        };
        let settled = changing(pipeline.term(), move || Ok(settle())).await?;
        match settled {
            Settled::Yes => {
                if self.memory().knows(&file.path) {
                    pipeline.clear_status_message();
                    self.memory().forgive(&file.path);
                }
            }
            Settled::Stays => self.postpone(&file, Some(file.identity), None),
            Settled::Changed => {
                let place = self.jail.place(&file.path);
                match fs::symlink_metadata(&place) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        warn!("`{}` was moved or deleted while it was worked on", place.display());
                    }
                    _ => {
                        warn!(
                            "`{}` has changed while it was worked on, and stays to be read again",
                            place.display()
                        );
                    }
                }
                self.postpone(&file, None, None);
            }
            Settled::Failed(error, identity) => {
                self.report(&file, &*error, pipeline);
                self.postpone(&file, identity, identity.map(|_| done));
            }
        }
        Ok(())
    }

    /// Sends one file through the route; tells whether it was done, and where its content is in no memory, what is read
    /// of it. `None`: it was not begun with, or is left as it is for the next leader.
    async fn work(
        &self,
        file: &Found,
        pipeline: &Pipeline,
    ) -> Result<Option<(bool, Option<Region>)>, BoxError> {
        let Some(mut exchange) = self.read(file).await? else { return Ok(None) };
        let region = exchange.message.body.as_file().cloned();
        let (consumer, path) = (self.clone(), file.path.clone());
        let checked = blocking(move || Ok(consumer.check_settling(&path))).await?;
        if let Err(error) = checked {
            self.report(file, &*error, pipeline);
            self.postpone(file, None, None);
            return Ok(None);
        }
        match pipeline.process(&mut exchange).await {
            Ok(_) => Ok(Some((true, region))),
            Err(error) if error.is_leadership_lost() => Ok(None),
            Err(_) => Ok(Some((false, region))),
        }
    }

    /// Says that a file cannot be settled, to those who look at the route too.
    fn report(&self, file: &Found, error: &(dyn std::error::Error + Send + Sync), pipeline: &Pipeline) {
        let place = self.jail.place(&file.path);
        let text = format!("`{}` waits: {error}", place.display());
        warn!(route = pipeline.route_id(), "{text}");
        pipeline.set_status_message(text);
    }

    /// The exchange of a file, `None` when it has changed or gone meanwhile or cannot be read. A later poll
    /// tries again; one bad file must not stop the others.
    async fn read(&self, file: &Found) -> Result<Option<Exchange>, BoxError> {
        let place = self.jail.place(&file.path);
        let (path, identity, spool) = (place.clone(), file.identity, self.spool.clone());
        let content = blocking(move || match read(&path, &identity, &spool) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!("reading `{}` failed: {error}", path.display());
                Ok(Err(()))
            }
            content => Ok(Ok(content.ok().flatten())),
        });
        let content = match content.await? {
            Ok(Some(content)) => content,
            // It is being written: the next poll finds it.
            Ok(None) => return Ok(None),
            Err(()) => {
                self.postpone(file, Some(file.identity), None);
                return Ok(None);
            }
        };
        let mut exchange = Exchange::new(content);
        let modified = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let headers = &mut exchange.message.headers;
        headers.set("file.name", file.path.to_string_lossy().into_owned());
        headers.set("file.path", place.to_string_lossy().into_owned());
        headers.set("file.length", file.length);
        headers.set("file.last_modified", u64::try_from(modified.as_millis()).unwrap_or(u64::MAX));
        Ok(Some(exchange))
    }

    /// What becomes of a file after its exchange: only the file that was read is moved or deleted, and it replaces
    /// none.
    fn settle(&self, file: &Found, done: bool) -> Settled {
        let directory = match (&self.settings.after, &self.settings.move_failed) {
            (After::Remember, _) if done => {
                self.memory().mark_read(&file.path);
                return Settled::Yes;
            }
            (After::Delete, _) if done => None,
            (After::Move(directory), _) if done => Some(directory),
            (_, Some(directory)) => Some(directory),
            (_, None) => return Settled::Stays,
        };
        let place = self.jail.place(&file.path);
        let taken = match settle::take(&place, &file.identity) {
            Ok(Some(taken)) => taken,
            Ok(None) => return Settled::Changed,
            Err(error) => {
                let identity = Identity::at(&place).ok().flatten().filter(|now| *now == file.identity);
                return Settled::Failed(failure("moving a file to a private name", &place, &error), identity);
            }
        };
        let settled = match directory {
            None => fs::remove_file(&taken).map_err(|error| failure("deleting", &place, &error)),
            Some(directory) => self.jail.make_parent(&beside(&file.path, directory)).and_then(|target| {
                let moved = settle::keep(&taken, &target);
                moved.map(drop).map_err(|error| failure("moving a file to", &target, &error))
            }),
        };
        if let Err(error) = settled {
            // Back, so that it is where people look for it. It was read, and is the same but for the moves.
            let back = settle::keep(&taken, &place).and_then(|back| Identity::at(&back));
            return Settled::Failed(error, back.ok().flatten());
        }
        self.remove_done_file(file);
        Settled::Yes
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

    /// Deletes the file that said that this one is complete, unless it says so of another one by now.
    fn remove_done_file(&self, file: &Found) {
        let Some((place, identity)) = &file.done_file else { return };
        let removed = settle::take(place, identity).and_then(|taken| taken.map_or(Ok(()), fs::remove_file));
        if let Err(error) = removed {
            warn!("deleting `{}` failed: {error}", place.display());
        }
    }
}

/// The content of a file, if it is the one of that identity, and still is when it has been read. A large one is not read:
/// the body is the file itself.
fn read(place: &Path, identity: &Identity, spool: &Spool) -> io::Result<Option<Body>> {
    let mut file = jail::open_to_read(place)?;
    let metadata = file.metadata()?;
    if Identity::of(&metadata) != *identity {
        return Ok(None);
    }
    if metadata.len() > spool.settings().threshold {
        let region = spool.region(file.try_clone()?)?;
        return Ok((Identity::of(&file.metadata()?) == *identity).then(|| Body::file(region)));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok((Identity::of(&file.metadata()?) == *identity).then(|| match String::from_utf8(content) {
        Ok(text) => Body::text(text),
        Err(error) => Body::bytes(error.into_bytes()),
    }))
}

/// The place of a file in a directory beside it.
fn beside(path: &Path, directory: &Path) -> PathBuf {
    path.with_file_name(directory).join(path.file_name().unwrap_or_default())
}
