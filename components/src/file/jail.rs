//! [`Jail`]: the starting directory, and how nothing gets out of it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use router_core::error::BoxError;
use router_core::failure::{ErrorKind, Failure};
use rustix::fs::{Access, OFlags};

/// A directory, and the operations in it that follow no symbolic link below it.
#[derive(Clone)]
pub(super) struct Jail {
    root: Arc<Path>,
}

/// A path that cannot lead out of the directory that it is relative to, links apart.
pub(super) fn relative(name: &str) -> Result<PathBuf, Failure> {
    let sound = !name.is_empty()
        && !name.ends_with('/')
        && !name.contains('\0')
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if sound {
        Ok(name.into())
    } else {
        Err(Failure::data(format!("`{}` is not a name inside of the directory", name.escape_debug())))
    }
}

impl Jail {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
    }

    /// The place of a relative path. It is a place inside only where [`make_parent`](Self::make_parent)
    /// or a scan has looked at the directories on the way.
    pub(super) fn place(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Makes the starting directory where it does not exist.
    pub(super) fn make_root(&self) -> Result<(), BoxError> {
        if self.root.is_dir() {
            return Ok(());
        }
        let made = fs::create_dir_all(&self.root).and_then(|()| sync_directory(&self.root));
        made.map_err(|error| failure("making the directory", &self.root, &error))
    }

    /// Makes the directories above `relative` where they do not exist, and returns its place.
    pub(super) fn make_parent(&self, relative: &Path) -> Result<PathBuf, BoxError> {
        self.make_root()?;
        let mut place = self.root.to_path_buf();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            place.push(part);
            let made = match fs::create_dir(&place) {
                Ok(()) => sync_directory(&place),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            };
            made.map_err(|error| failure("making the directory", &place, &error))?;
            // Not following links, unlike what `create_dir_all` would do.
            let kind = fs::symlink_metadata(&place).map_err(|error| failure("looking at", &place, &error))?;
            if !kind.is_dir() {
                return Err(format!("`{}` is no directory of its own", place.display()).into());
            }
        }
        Ok(self.place(relative))
    }
}

/// Checks that files can be taken out of the directory of `from` and, where there is one, put into that of
/// `to`: in one step, so not into another file system.
pub(super) fn check_moving(from: &Path, to: Option<&Path>) -> Result<(), BoxError> {
    let mut device = None;
    for folder in [Some(from), to].into_iter().flatten().filter_map(Path::parent) {
        let allowed = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
        let metadata = allowed.and_then(|()| fs::metadata(folder));
        let metadata = metadata.map_err(|error| failure("using the directory", folder, &error))?;
        if folder.join(from.file_name().unwrap_or_default()) == *from && is_protected(from, &metadata) {
            return Err(format!("`{}` belongs to another user in a sticky directory", from.display()).into());
        }
        if *device.get_or_insert(metadata.dev()) != metadata.dev() {
            let folder = folder.display();
            return Err(format!(
                "`{folder}` is in another file system: files cannot be moved there in one step"
            )
            .into());
        }
    }
    Ok(())
}

/// Whether the file of another user stays in a directory that everybody may write (`+t`, as `/tmp`).
fn is_protected(file: &Path, folder: &Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let user = rustix::process::geteuid();
    let owns = |owner: u32| user.is_root() || owner == user.as_raw();
    folder.mode() & STICKY != 0
        && !owns(folder.uid())
        && fs::symlink_metadata(file).is_ok_and(|metadata| !owns(metadata.uid()))
}

/// Opens a file to read it, unless the last part of its path is a symbolic link. What is not a file any more, but a
/// pipe, must not block.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens a file to write it, unless the last part of its path is a symbolic link. What is no file must not block.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    check_regular(path)?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    // It may have come since the look.
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

/// Checks that what is at a place, if anything, is a file or a link, and no pipe, socket or device: those are neither
/// written to nor replaced.
pub(super) fn check_regular(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(found) if !(found.is_file() || found.is_symlink() || found.is_dir()) => Err(no_file()),
        // Opening it ends with the same error.
        _ => Ok(()),
    }
}

fn no_file() -> io::Error {
    io::Error::other("it is no regular file")
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// An error that names what was done to which file.
pub(super) fn failure(doing: &str, path: &Path, error: &io::Error) -> BoxError {
    let text = format!("{doing} `{}` failed: {error}", path.display());
    Failure::new(ErrorKind::of(error), text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_inside_are_names() {
        for name in ["a", "a.txt", "sub/a", ".done", "..a", "a..b/c"] {
            assert!(relative(name).is_ok(), "{name}");
        }
        for name in ["", "/etc/passwd", "..", "../a", "a/../b", "a/..", "./a", "a/", "a\0b"] {
            assert!(relative(name).is_err(), "{name:?}");
        }
    }
}
