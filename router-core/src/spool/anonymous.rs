//! Files without a name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a file in `directory` that has no name there, and ends with its last descriptor. The directory is made where it is
/// missing, for this user alone.
pub(super) fn create(directory: &Path) -> io::Result<File> {
    match create_in(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            create_in(directory)
        }
        created => created,
    }
}

fn create_in(directory: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, open};
        use rustix::io::Errno;

        // With the mode of any new file, because one that gets a name later is one.
        let mode = Mode::from_raw_mode(0o666);
        match open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(file) => return Ok(file.into()),
            // Not every kernel and file system can do it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    create_and_unlink(directory)
}

/// The same in two steps. A process that ends between them leaves an empty file.
fn create_and_unlink(directory: &Path) -> io::Result<File> {
    /// As many names as are tried. They are drawn at random, so that one is taken says that something is wrong.
    const TRIES: u32 = 10;
    let mut tries = 0;
    loop {
        let place = directory.join(format!(".spool-{:016x}", RandomState::new().hash_one(tries)));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&place) {
            Ok(file) => return fs::remove_file(&place).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether what is written to `directory`, or to the nearest one above it that is there, stays in memory.
pub(super) fn is_in_memory(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use crate::directory::{file_system, upwards};

        /// tmpfs, ramfs.
        const KINDS: [u32; 2] = [0x0102_1994, 0x8584_58f6];
        let found = upwards(directory).find_map(|path| file_system(path).ok());
        found.is_some_and(|kind| KINDS.contains(&kind))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_file_without_a_name_is_in_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        // Neither is there.
        let directory = folder.path().join("a/b");
        for create in [create, create_and_unlink] {
            let mut file = create(&directory).unwrap();
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
            file.write_all(b"text").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_told_from_a_disk() {
        assert!(is_in_memory(Path::new("/dev/shm/not/there")));
        assert!(!is_in_memory(Path::new("/proc/not/there")));
    }
}
