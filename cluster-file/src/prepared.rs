//! [`Prepared`]: a file that is complete before it gets its name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::root::remove;

/// How the names of files begin that have not yet got theirs.
const PREFIX: &str = ".new.";

/// A file in the root directory that is on the disk under a name of its own, whichever process prepares one for the
/// same place; removed if it does not get there.
pub(crate) struct Prepared(PathBuf);

impl Prepared {
    pub(crate) fn new(root: &Path, content: &[u8]) -> io::Result<Self> {
        let prepared = Self(root.join(format!("{PREFIX}{:016x}", getrandom::u64()?)));
        let mut file = File::create_new(&prepared.0)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(prepared)
    }

    /// Puts it in the place of the file at `path`. That is on the disk once the directory is synced.
    pub(crate) fn rename(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes what was prepared by processes that were killed. To be called by a member that is alone.
pub(crate) fn remove_leftovers(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let leftovers = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    leftovers.for_each(|entry| remove(&entry.path()));
}
