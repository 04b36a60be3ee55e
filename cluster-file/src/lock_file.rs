//! [`Held`]: the lock of the kernel on the file of one lock.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use router_core::state::FileLock;
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};

use crate::record::{Found, LeaderRecord, modified_ms};

/// A lock on the file that is at its path now, or was when we looked.
///
/// The lock belongs to a handle that cannot write. So standbys can try, and close their handles, without
/// causing the event "closed after writing", which is what they sleep on. See [`Held::signal`].
pub(crate) struct Held {
    /// First in the struct, so that it is given back first: those that `signal` wakes find the lock free.
    lock: FileLock,
    /// Open for writing from when we lead until we end, however we end: the kernel itself closes it
    /// after `kill -9`, and so wakes the standbys.
    signal: Option<File>,
    identity: (u64, u64),
}

/// What a file is, whatever it is called: device and inode.
pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A file as it was at one time: it changes when the file is written to, moved, linked or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    pub(crate) identity: (u64, u64),
    changed: (i64, i64),
}

impl FileVersion {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { identity: identity(metadata), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

impl Held {
    /// Tries to lock the file at `path`, which is made when it is missing; `None`: another process has it.
    pub(crate) fn try_new(path: &Path) -> io::Result<Option<Self>> {
        // Each round is lost only to a process that deletes or replaces the file in just this moment.
        for _ in 0..8 {
            let lock = match open(path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create(path)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(lock) = FileLock::try_new(lock)? else { return Ok(None) };
            let metadata = lock.metadata()?;
            let held = Self { lock, signal: None, identity: identity(&metadata) };
            if present(path)?.is_some_and(|present| present.identity == held.identity) {
                return Ok(Some(held));
            }
        }
        Err(io::Error::other("the file is replaced all the time"))
    }

    /// Opens the handle whose end wakes the standbys.
    pub(crate) fn signal(&mut self, path: &Path) -> io::Result<()> {
        let signal = open_to_write(path)?;
        if identity(&signal.metadata()?) != self.identity {
            return Err(io::Error::other("the file was replaced"));
        }
        self.signal = Some(signal);
        Ok(())
    }

    /// What the kernel knows of the file.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.lock.metadata()
    }

    /// What the last leader left in the file.
    pub(crate) fn record(&self) -> io::Result<Found> {
        LeaderRecord::read(&self.lock)
    }

    /// Writes the record in place. It is not synced: after a loss of power no member leads, and the numbers
    /// of terms do not depend on it.
    pub(crate) fn write(&self, record: &mut LeaderRecord) -> io::Result<()> {
        let Some(signal) = &self.signal else { return Err(io::Error::other("not open for writing")) };
        // The clock is that of the file system, whatever that of this process says.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        futimens(signal, &Timestamps { last_access: now, last_modification: now })?;
        record.written_ms = Some(modified_ms(&signal.metadata()?));
        let line = record.to_line()?;
        signal.write_all_at(&line, 0)?;
        let length = line.len() as u64;
        if signal.metadata()?.len() > length { signal.set_len(length) } else { Ok(()) }
    }
}

/// The file that is at `path` now; `None`: there is none. A lock on another one protects nothing.
pub(crate) fn present(path: &Path) -> io::Result<Option<FileVersion>> {
    match path.symlink_metadata() {
        Ok(present) => Ok(Some(FileVersion::of(&present))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `file` is the one that is at `path` now.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = || Ok::<_, io::Error>(identity(&file.metadata()?) == identity(&path.symlink_metadata()?));
    same().unwrap_or(false)
}

/// Opens a file to read or lock it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_file(path, OpenOptions::new().read(true))
}

/// Opens a file to write to it.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    open_file(path, OpenOptions::new().write(true))
}

/// What is in the file at `path`.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.read_to_end(&mut text)?;
    Ok(text)
}

/// Opens what is a file. Anything else is an error: a pipe or a device would keep us waiting, and a link leads to
/// a file that others replace or lock by another name.
fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path);
    let metadata = match &opened {
        Ok(file) => file.metadata(),
        Err(_) => path.symlink_metadata(),
    };
    let kind = match metadata.map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_dir() => "a directory",
        Ok(kind) if kind.is_symlink() => "a symbolic link",
        Ok(kind) if kind.is_fifo() => "a FIFO",
        Ok(kind) if kind.is_socket() => "a socket",
        Ok(kind) if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => return opened,
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, and no regular file")))
}

/// Makes a folder in the root directory, with the rights of that one, unless it is there.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let rights = folder.parent().map(std::fs::metadata).transpose()?.map(|root| root.permissions());
    std::fs::create_dir_all(folder)?;
    rights.map_or(Ok(()), |rights| std::fs::set_permissions(folder, rights))
}

/// Makes the file at `path`, unless another process was faster. Where the group of the directory may write to
/// it, the group may write to the file.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    };
    let shared =
        path.parent().map(std::fs::metadata).transpose()?.is_some_and(|folder| folder.mode() & 0o020 != 0);
    if shared { file.set_permissions(PermissionsExt::from_mode(0o660)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        mknodat(CWD, at("FIFO"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("symbolic link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for kind in ["FIFO", "directory", "symbolic link", "socket"] {
            let opened =
                [open(&at(kind)).map(drop), open_to_write(&at(kind)).map(drop), read(&at(kind)).map(drop)];
            for result in opened {
                assert_eq!(result.unwrap_err().to_string(), format!("it is a {kind}, and no regular file"));
            }
        }
        assert_eq!(
            open(Path::new("/dev/null")).unwrap_err().to_string(),
            "it is a device, and no regular file"
        );
        assert_eq!(read(&at("file")).unwrap(), b"text");
        assert_eq!(read(&at("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
