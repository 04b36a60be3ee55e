//! [`Root`]: the directory, and the presence of its members.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use router_core::cluster::ClusterError;
use tracing::warn;

use crate::lock_file::identity;
use crate::members::DIRECTORY;

/// How often a lock that others hold for microseconds only is tried, a millisecond apart.
pub(crate) const PRESENCE_ATTEMPTS: u32 = 2000;

/// The root directory, held open: it may be renamed, deleted or replaced under us, and then no file in
/// it protects anything.
pub(crate) struct Root {
    path: PathBuf,
    /// Held locked, shared with all other members, from [`join`](Self::join) on. The lock is on the
    /// directory itself, so that the members are known to exist even if all files are deleted.
    directory: File,
    identity: (u64, u64),
}

impl Root {
    /// Opens the directory, and makes it when it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, ClusterError> {
        let open = || {
            let path = std::path::absolute(path)?;
            DirBuilder::new().recursive(true).mode(0o755).create(path.join(DIRECTORY))?;
            let directory = File::open(&path)?;
            let identity = identity(&directory.metadata()?);
            Ok(Self { path, directory, identity })
        };
        open().map_err(|error| cannot_use(path, error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn members(&self) -> PathBuf {
        self.path.join(DIRECTORY)
    }

    /// Shows that this member is there until it ends or [`leave`](Self::leave)s, and says whether nobody
    /// else was. Whoever comes at the same time may hear the same: neither has led anything yet.
    pub(crate) async fn join(&self) -> Result<bool, ClusterError> {
        let mut alone = self.directory.try_lock().is_ok();
        for _ in 0..PRESENCE_ATTEMPTS {
            // This gives up the exclusive lock before it gets the shared one. Somebody who slips in
            // between finds nobody there, which is true: we lead nothing before we have joined.
            match self.directory.try_lock_shared() {
                Ok(()) => return Ok(alone),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(TryLockError::Error(error)) => return Err(cannot_use(&self.path, error)),
            }
            alone = false;
        }
        let text = format!("another program keeps the directory `{}` locked", self.path.display());
        Err(ClusterError::Unusable(text, None))
    }

    /// The opposite of [`join`](Self::join).
    pub(crate) fn leave(&self) {
        if let Err(error) = self.directory.unlock() {
            warn!("cannot unlock `{}`: {error}", self.path.display());
        }
    }

    /// Why the directory at the path is not the one we joined, if so. Members that come now would look
    /// into another one.
    pub(crate) fn lost(&self) -> Option<String> {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(present) if identity(&present) == self.identity => None,
            Ok(_) => Some(format!("the directory `{path}` was replaced by another one")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("the directory `{path}` was deleted or moved away"))
            }
            Err(error) => Some(format!("the directory `{path}` is out of reach: {error}")),
        }
    }

    /// The error for candidates when the directory is [`lost`](Self::lost).
    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        match self.lost() {
            None => Ok(()),
            Some(why) => {
                Err(ClusterError::Unusable(format!("{why}; put it back, or restart this process"), None))
            }
        }
    }
}

/// What to do about an error of the operating system in the root directory.
pub(crate) fn cannot_use(path: &Path, error: io::Error) -> ClusterError {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "give this user the right to write there, or set another `root`",
        io::ErrorKind::ReadOnlyFilesystem => "it cannot be written; set another `root`",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there, or set another `root`",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is a file; set another `root`"
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "this process has too many files open, and two are needed for each lock it leads: raise \
             `ulimit -n`"
        }
        _ => "set a `root` that is a local directory which this user may write",
    };
    crate::unusable(format!("the file cluster cannot use `{}`: {advice}", path.display()), error)
}

/// Removes a file that need not be there any more; if that fails it is in nobody's way.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("cannot remove `{}`: {error}", path.display());
    }
}
