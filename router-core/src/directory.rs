//! [`check`]: what keeps a directory from being used, found before anything runs.

#[cfg(target_os = "linux")]
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Access;

/// What keeps a directory from being made and, with `writes`, from being written to, as far as that can be told without
/// doing it.
///
/// # Errors
/// A sentence that names the directory, or the one above it in which it would be made.
pub fn check(directory: &Path, writes: bool) -> Result<(), String> {
    // Itself, or the nearest folder above it, in which it will be made.
    let directory = &as_made(directory);
    let Some(nearest) = nearest(directory) else { return Ok(()) };
    let shown = nearest.display();
    if !nearest.is_dir() {
        return Err(format!("`{shown}` is not a directory"));
    }
    if !writes {
        return Ok(());
    }
    if is_of_the_kernel(nearest) {
        // Where root may write all, and make nothing.
        return Err(format!("`{shown}` belongs to the kernel, which makes no files there"));
    }
    rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        format!("the directory `{shown}` cannot be written: {}", std::io::Error::from(error))
    })
}

/// What a consumer takes away; see [`Endpoint::takes`](crate::component::Endpoint::takes).
#[derive(Debug)]
pub struct Taken {
    /// The directory, by its one name.
    pub directory: PathBuf,
    /// Whether it says which part of it is for it.
    pub is_part: bool,
}

/// The one name of a directory, however it is written and whether it is there already or will be made.
#[must_use]
pub fn canonical(directory: &Path) -> PathBuf {
    let directory = as_made(directory);
    let known = upwards(&directory).find_map(|known| Some((known, known.canonicalize().ok()?)));
    let Some((above, known)) = known else { return directory };
    directory.strip_prefix(above).map_or_else(|_| known.join(&directory), |rest| known.join(rest))
}

/// Whether a directory is one in which the kernel makes the files, and no program does: `/proc`, `/sys` and the like.
#[must_use]
pub fn belongs_to_kernel(directory: &Path) -> bool {
    let directory = as_made(directory);
    nearest(&directory).is_some_and(is_of_the_kernel)
}

/// A directory, or the nearest one above it, that is there.
fn nearest(directory: &Path) -> Option<&Path> {
    upwards(directory).find(|path| path.symlink_metadata().is_ok())
}

/// A path without the directories that will be made only for a `..` behind them: `/new/../old` is `/old` then.
fn as_made(directory: &Path) -> PathBuf {
    let mut made = PathBuf::new();
    for part in directory.components() {
        let is_new = !made.as_os_str().is_empty() && made.symlink_metadata().is_err();
        if part == Component::ParentDir && is_new {
            made.pop();
        } else {
            made.push(part);
        }
    }
    made
}

/// A directory and those above it, the nearest first; a relative path ends with the current directory.
pub(crate) fn upwards(directory: &Path) -> impl Iterator<Item = &Path> {
    directory.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path })
}

/// The directory that a file is in.
pub(crate) fn of_file(path: &Path) -> &Path {
    upwards(path).nth(1).unwrap_or(path)
}

/// The kind of the file system at `path`: its magic number, as `linux/magic.h` has it.
///
/// # Errors
/// When it cannot be looked at.
#[cfg(target_os = "linux")]
pub fn file_system(path: &Path) -> io::Result<u32> {
    // Magic numbers have 32 bits; the field is wider, and signed on some processors.
    let kind = rustix::fs::statfs(path)?.f_type & 0xffff_ffff;
    Ok(u32::try_from(kind).unwrap_or_default())
}

/// Whether a directory is in `/proc`, `/sys` and the like.
fn is_of_the_kernel(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs.
        const KINDS: [u32; 7] =
            [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673];
        file_system(directory).is_ok_and(|kind| KINDS.contains(&kind))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}
