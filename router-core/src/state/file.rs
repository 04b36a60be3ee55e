//! [`FileState`]: the state of one route in a file of its own, for routes without a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{StateError, StateKeeper};

/// Keeps the state of one route in a file, which is replaced as a whole.
///
/// # Guarantees
/// After a crash or a loss of power, the file holds the last value that was stored, or the one before it
/// if the store had not returned.
///
/// # Assumptions
/// One process at a time uses the file. Several that shall share a position need a lock: `master:`.
pub struct FileState {
    path: PathBuf,
}

impl FileState {
    /// The file at `path`. Nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn unusable(&self, error: impl Into<crate::error::BoxError>) -> StateError {
        let text = format!("the state in `{}` cannot be used", self.path.display());
        StateError::Unusable(text, Some(error.into()))
    }
}

#[async_trait]
impl StateKeeper for FileState {
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || fs::read(path));
        let text = match reading.await.map_err(|error| self.unusable(error))? {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(error)),
        };
        let mut stored: Value = serde_json::from_slice(&text).map_err(|error| self.unusable(error))?;
        // Two routes with one file would take turns in forgetting what the other one has done.
        match stored["route"].as_str() {
            Some(owner) if owner == route => Ok(Some(stored["state"].take())),
            Some(owner) => Err(self.unusable(format!("it belongs to the route `{owner}`"))),
            None => Err(self.unusable("it names no route")),
        }
    }

    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        let text = format!("{}\n", json!({ "route": route, "state": value }));
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || replace_file(&path, text.as_bytes()));
        writing.await.map_err(|error| self.unusable(error))?.map_err(|error| self.unusable(error))
    }
}

/// Replaces the file at `path`, so that the old or the new content is there whenever the power fails,
/// and the new one is there when this returns. It blocks. Two of these at once for one path must not be.
///
/// # Errors
/// Those of the file system. The old content is then still there, or the new one is.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("this is no path of a file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The name is part of the directory, which has to reach the disk too.
    File::open(folder)?.sync_all()
}
