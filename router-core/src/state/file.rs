//! [`FileState`]: the state of one route in a file of its own, for routes without a lock.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{FileLock, StateError, StateKeeper};
use crate::bounded_file;
use crate::directory;
use crate::error::BoxError;

/// Far more than any position has.
const MAX_BYTES: u64 = 16 << 20;

/// Keeps the state of one route in a file, which is replaced as a whole.
///
/// # Guarantees
/// After a crash or a loss of power, the file holds the last value that was stored, or the one before it
/// if the store had not returned.
///
/// One at a time uses the file, from the first load or store on: it holds a lock on the file `.NAME.lock`
/// beside it, and everybody else gets an error. Several processes that shall share a position need
/// `master:`.
pub struct FileState {
    place: Arc<Place>,
}

impl fmt::Debug for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileState").finish_non_exhaustive()
    }
}

struct Place {
    path: PathBuf,
    /// What is locked, once there is something. Whoever works on the file has the mutex.
    lock: Mutex<Option<FileLock>>,
}

impl FileState {
    /// The file at `path`. Nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { place: Arc::new(Place { path: path.to_owned(), lock: Mutex::default() }) }
    }

    /// What keeps the state of `route` from being kept in the file at `path`, as far as that can be told without doing it.
    ///
    /// # Errors
    /// A sentence that names the file or its directory.
    pub(crate) fn check(path: &Path, route: &str) -> Result<(), String> {
        let lock = beside(path, ".lock").map_err(|error| error.to_string())?;
        let folder = lock.parent().unwrap_or(Path::new("."));
        if folder.symlink_metadata().is_err() {
            return Err(format!("there is no directory `{}`", folder.display()));
        }
        directory::check(folder, true)?;
        match lock.symlink_metadata() {
            Ok(found) if !found.is_file() => return Err(format!("`{}` is no regular file", lock.display())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("opening `{}` failed: {error}", lock.display()));
            }
            _ => {}
        }
        match read(path, route) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the state in `{}` cannot be used: {error}", path.display())),
        }
    }

    /// Does `work` on the path, in a thread that may block, while the file is ours.
    async fn locked<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, StateError> {
        let place = Arc::clone(&self.place);
        let working = spawn_blocking(move || {
            let mut lock = place.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if lock.is_none() {
                *lock = Some(place.try_lock()?);
            }
            work(&place.path)
        });
        working.await.unwrap_or_else(|error| Err(error.into())).map_err(|error| {
            let text = format!("the state in `{}` cannot be used", self.place.path.display());
            StateError::Unusable(text, Some(error))
        })
    }
}

impl Place {
    fn try_lock(&self) -> Result<FileLock, BoxError> {
        let path = beside(&self.path, ".lock")?;
        let file = open_or_create(&path);
        let file = file.map_err(|error| format!("opening `{}` failed: {error}", path.display()))?;
        match FileLock::try_new(file) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(
                "another process or route uses it: give each a file of its own, or share a lock by `master:`"
                    .into(),
            ),
            Err(error) => Err(format!("locking `{}` failed: {error}", path.display()).into()),
        }
    }
}

#[async_trait]
impl StateKeeper for FileState {
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError> {
        let route = route.to_owned();
        self.locked(move |path| read(path, &route)).await
    }

    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        let text = format!("{}\n", json!({ "route": route, "state": value }));
        self.locked(move |path| Ok(replace_file(path, text.as_bytes())?)).await
    }
}

/// What is stored at `path` for `route`.
fn read(path: &Path, route: &str) -> Result<Option<Value>, BoxError> {
    let text = match bounded_file::read(path, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut stored: Value =
        serde_json::from_slice(&text).map_err(|error| format!("it is no JSON: {error}"))?;
    // Two routes with one file would take turns in forgetting what the other one has done.
    match stored["route"].as_str() {
        Some(owner) if owner == route => Ok(Some(stored["state"].take())),
        Some(owner) => Err(format!("it belongs to the route `{owner}`").into()),
        None => Err("it names no route".into()),
    }
}

/// The file `.NAME` with this ending, in the directory of the file `NAME`.
fn beside(path: &Path, ending: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("this is no path of a file"))?;
    Ok(directory::of_file(path).join(format!(".{}{ending}", name.to_string_lossy())))
}

/// Opens the file at `path` to lock it. A link is not followed, and a pipe would keep us waiting.
fn open_or_create(path: &Path) -> io::Result<File> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    OpenOptions::new().write(true).open(path)
}

/// Replaces the file at `path`, so that the old or the new content is there whenever the power fails,
/// and the new one is there when this returns. It blocks. Two of these at once for one path must not be.
///
/// # Errors
/// Those of the file system. The old content is then still there, or the new one is.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new")?;
    // What a process left that was killed, or anything else of that name: a link would be followed, and a pipe would
    // keep us waiting.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The name is part of the directory, which has to reach the disk too.
    File::open(temporary.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_no_regular_file_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("state"), folder.path().join("victim"));
        fs::write(&victim, "untouched").unwrap();
        let make_pipe = |path: &Path| {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        let make_link = |path: &Path| std::os::unix::fs::symlink(&victim, path).unwrap();
        for make in [&make_pipe as &dyn Fn(&Path), &make_link] {
            make(&beside(&path, ".new").unwrap());
            FileState::new(&path).store("a", &json!(1)).await.unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            let lock = beside(&path, ".lock").unwrap();
            fs::remove_file(&lock).unwrap();
            make(&lock);
            let error = FileState::new(&path).load("a").await.unwrap_err();
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains("no regular file"), "{why}");
            fs::remove_file(&lock).unwrap();
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    }

    #[test]
    fn a_file_that_has_another_name_is_replaced_and_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let [path, victim, backup] = ["state", "victim", "backup"].map(|name| folder.path().join(name));
        fs::write(&victim, "untouched").unwrap();
        fs::hard_link(&victim, beside(&path, ".new").unwrap()).unwrap();
        replace_file(&path, b"first").unwrap();
        fs::hard_link(&path, &backup).unwrap();
        replace_file(&path, b"second").unwrap();
        let said = [&victim, &backup, &path].map(|file| fs::read_to_string(file).unwrap());
        assert_eq!(said, ["untouched", "first", "second"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left beside them");
    }

    #[tokio::test]
    async fn one_at_a_time_uses_a_file() {
        let name = format!("bactrian-state-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let (first, second) = (FileState::new(&path), FileState::new(&path));
        first.store("a", &json!(1)).await.unwrap();
        for result in [second.load("a").await.map(drop), second.store("a", &json!(2)).await] {
            let error = result.unwrap_err();
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains("another process or route uses it"), "{error}: {why}");
        }
        assert_eq!(first.load("a").await.unwrap(), Some(json!(1)));
        drop(first);
        assert_eq!(second.load("a").await.unwrap(), Some(json!(1)));
        assert!(second.load("b").await.is_err(), "it belongs to another route");
        fs::write(&path, "{").unwrap();
        assert!(second.load("a").await.is_err(), "it is damaged");
        for left in [path.clone(), beside(&path, ".lock").unwrap()] {
            fs::remove_file(left).unwrap();
        }
    }
}
