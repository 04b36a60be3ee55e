//! [`Root`]: the directory, and the presence of its members.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use router_core::cluster::ClusterError;
use tracing::warn;

use crate::kernel_locks;
use crate::lock_file::identity;

/// The folder of the members' files.
pub(crate) const MEMBERS: &str = "members";

/// How often a lock that others hold for microseconds only is tried, a millisecond apart.
pub(crate) const PRESENCE_ATTEMPTS: u32 = 2000;

/// The root directory, held open: it may be renamed, deleted or replaced under us, and then no file in
/// it protects anything.
pub(crate) struct Root {
    place: Arc<Place>,
    /// Held locked, shared with all other members, from [`join`](Self::join) on. The lock is on the
    /// directory itself, so that the members are known to exist even if all files are deleted.
    directory: File,
}

/// Where a directory was when it was opened.
pub(crate) struct Place {
    path: PathBuf,
    identity: (u64, u64),
}

impl Root {
    /// Opens the directory, and makes it when it is missing: for this user alone, or with `shared` for its
    /// group too. A lock needs only the right to read.
    pub(crate) fn open(path: &Path, shared: bool) -> Result<Self, ClusterError> {
        let open = || {
            let path = std::path::absolute(path)?;
            let mode = if shared { 0o2770 } else { 0o700 };
            path.parent().map(fs::create_dir_all).transpose()?;
            for directory in [&path, &path.join(MEMBERS)] {
                if !directory.is_dir() {
                    DirBuilder::new().recursive(true).mode(mode).create(directory)?;
                    // The process may have a mask that takes rights from the group.
                    fs::set_permissions(directory, PermissionsExt::from_mode(mode))?;
                }
            }
            let directory = File::open(&path)?;
            let metadata = directory.metadata()?;
            let place = Arc::new(Place { path, identity: identity(&metadata) });
            Ok((Self { place, directory }, metadata.mode()))
        };
        let (root, mode) = open().map_err(|error| cannot_use(path, error))?;
        root.check_mode(mode, shared)?;
        Ok(root)
    }

    /// Refuses a directory that the group cannot use as it should, and warns of one that others can use as
    /// they should not.
    fn check_mode(&self, mode: u32, shared: bool) -> Result<(), ClusterError> {
        let path = self.path().display();
        if shared && mode & 0o070 != 0o070 {
            let text = format!(
                "the group of the root `{path}` may not use it, and `cluster.file.share_with_group` is set: run \
                 `chmod -R g+rwX {path}` and `chmod g+s {path}`, or unset it"
            );
            return Err(ClusterError::Unusable(text, None));
        }
        // To lock a file one needs a way to it, and the right to read it.
        let others = mode & 0o001 != 0 || (!shared && mode & 0o010 != 0);
        if others {
            warn!(
                "the root `{path}` is open to other users, who can lock its files and so keep every member from \
                 leading: run `chmod 700 {path}`, or set `cluster.file.share_with_group` and run `chmod 2770 {path}`"
            );
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    pub(crate) fn members(&self) -> PathBuf {
        self.path().join(MEMBERS)
    }

    /// A handle of the same directory, wherever it is now, without the lock of this one.
    pub(crate) fn another_handle(&self) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags, openat};
        Ok(openat(&self.directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
            .into())
    }

    /// The processes that are members, as far as this one can see.
    pub(crate) fn processes(&self, locks: &kernel_locks::Snapshot) -> Vec<u32> {
        self.directory.metadata().map(|metadata| locks.of(&metadata)).unwrap_or_default()
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
                Err(TryLockError::Error(error)) => return Err(cannot_use(self.path(), error)),
            }
            alone = false;
        }
        let holders = kernel_locks::named(&self.processes(&kernel_locks::snapshot()));
        let text = format!(
            "the directory `{}` is locked by {holders}, which is no member: it must end before a member can join",
            self.path().display()
        );
        Err(ClusterError::Unusable(text, None))
    }

    /// The opposite of [`join`](Self::join).
    pub(crate) fn leave(&self) -> io::Result<()> {
        self.directory.unlock()
    }
}

impl Drop for Root {
    /// Leaves also where no one asked it to. What closes the directory alone may leave it locked for a moment: see
    /// [`FileLock`](router_core::state::FileLock).
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

impl Place {
    /// Why the directory at the path is not the one that was opened, if so. Members that come now would look
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
}

/// What to do about an error of the operating system in the root directory.
pub(crate) fn cannot_use(path: &Path, error: io::Error) -> ClusterError {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "give this user the right to write there, or set another `root`",
        io::ErrorKind::ReadOnlyFilesystem => "it cannot be written; set another `root`",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there, or set another `root`",
        io::ErrorKind::InvalidInput => "move it away",
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
