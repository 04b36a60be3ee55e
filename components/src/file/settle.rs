//! [`Identity`]: which file it was that was read; and how a file is taken away only if it still is that one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use router_core::source::floor_char_boundary;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file and its content, as far as the file system tells them apart. Every write changes `changed`, if it
/// comes a [tick](TICK) after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Of the inode: no program can set it, unlike the time of modification, but moving a file changes it.
    changed: (i64, i64),
}

/// File systems note times in ticks, of ten milliseconds at most on Linux.
pub(super) const TICK: std::time::Duration = std::time::Duration::from_millis(20);

/// How the private names begin under which files are settled. Such files are not read.
const PRIVATE_PREFIX: &str = ".settling-";

/// The directory, beside a file, that holds it while it is settled if its name leaves no room for the prefix.
const PRIVATE_FOLDER: &str = ".settling";

/// How many bytes a name can have.
pub(super) const LONGEST_NAME: usize = 255;

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of what is at a place, not following a link; `None`: nothing.
    pub(super) fn at(place: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(place) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is the same but for having been moved.
    fn was_moved_from(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self } == *other
    }
}

/// Gives a file a private name, if it is the one of that identity: what replaces it from then on is not
/// touched. `None`: it is another one, or was written to, and is where it was.
pub(super) fn take(place: &Path, seen: &Identity) -> io::Result<Option<PathBuf>> {
    if Identity::at(place)?.as_ref() != Some(seen) {
        return Ok(None);
    }
    let private = private(place)?;
    match move_to_free(place, &private) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        moved => moved?,
    }
    // It may have been replaced or written to between the look and the move.
    if Identity::at(&private)?.is_some_and(|now| now.was_moved_from(seen)) {
        return Ok(Some(private));
    }
    keep(&private, place)?;
    Ok(None)
}

/// The private place of a file.
fn private(place: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(PRIVATE_PREFIX);
    let original = place.file_name().unwrap_or_default();
    if name.len() + original.len() <= LONGEST_NAME {
        name.push(original);
        return Ok(place.with_file_name(name));
    }
    let folder = place.with_file_name(PRIVATE_FOLDER);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not a link, which would lead out of the directory.
    match fs::symlink_metadata(&folder)?.is_dir() {
        true => Ok(folder.join(original)),
        false => Err(ErrorKind::NotADirectory.into()),
    }
}

/// The place of a file that has a private one, which this is.
pub(super) fn original(private: &Path) -> Option<PathBuf> {
    let (folder, name) = (private.parent()?, private.file_name()?);
    if folder.file_name().is_some_and(|name| is_private_folder(name.as_ref())) {
        return Some(folder.with_file_name(name));
    }
    let original = name.to_str()?.strip_prefix(PRIVATE_PREFIX).filter(|name| !name.is_empty())?;
    Some(private.with_file_name(original))
}

/// Whether a directory of this name holds files that are settled.
pub(super) fn is_private_folder(name: &Path) -> bool {
    name == Path::new(PRIVATE_FOLDER)
}

/// Moves a file to a place where nothing is. Fails if something is there, also if it came just now.
pub(super) fn move_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot do it. A link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        moved => Ok(moved?),
    }
}

/// Moves a file to a place, or, where something is, to one with a number beside it: `a-1.txt` for `a.txt`.
/// Returns where it is.
pub(super) fn keep(from: &Path, place: &Path) -> io::Result<PathBuf> {
    let mut to = place.to_owned();
    loop {
        match move_to_free(from, &to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => to = free(place),
            moved => return moved.map(|()| to),
        }
    }
}

/// A place with a number at which nothing is. There may be many: it doubles the number until one is free, and
/// halves the distance to the last one that is not.
fn free(place: &Path) -> PathBuf {
    let is_taken = |number| fs::symlink_metadata(numbered(place, number)).is_ok();
    let (mut taken, mut free) = (0_u64, 1);
    while is_taken(free) {
        (taken, free) = (free, free * 2);
    }
    while free - taken > 1 {
        let middle = taken.midpoint(free);
        if is_taken(middle) { taken = middle } else { free = middle }
    }
    numbered(place, free)
}

fn numbered(place: &Path, number: u64) -> PathBuf {
    let mut end = OsString::from(format!("-{number}"));
    if let Some(extension) = place.extension() {
        end.push(".");
        end.push(extension);
    }
    let mut name = place.file_stem().unwrap_or_default().to_owned();
    if name.len() + end.len() > LONGEST_NAME {
        // The beginning of the name is what can be spared. An extension that leaves no room for any of it is cut too.
        let cut = |text: &OsStr, length: usize| {
            let text = text.to_string_lossy();
            OsString::from(&text[..floor_char_boundary(&text, length)])
        };
        end = cut(&end, LONGEST_NAME - 1);
        name = cut(&name, LONGEST_NAME - end.len());
    }
    name.push(end);
    place.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_only_as_it_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.txt");
        let look = || Identity::at(&place).unwrap().unwrap();
        fs::write(&place, "one").unwrap();
        let seen = look();
        // Another one of the same length, whose time of modification says that it is older.
        fs::write(folder.path().join("b"), "two").unwrap();
        let old = std::time::UNIX_EPOCH;
        let set = |path: &Path, time| fs::File::open(path).unwrap().set_modified(time).unwrap();
        set(&folder.path().join("b"), old);
        fs::rename(folder.path().join("b"), &place).unwrap();
        assert_eq!(take(&place, &seen).unwrap(), None);
        // The same one, written to, with its time set back.
        let seen = look();
        std::thread::park_timeout(TICK);
        fs::write(&place, "tri").unwrap();
        set(&place, old);
        assert_eq!(take(&place, &seen).unwrap(), None);
        assert_eq!(fs::read_to_string(&place).unwrap(), "tri");
        let taken = take(&place, &look()).unwrap().unwrap();
        assert_eq!(taken, folder.path().join(".settling-a.txt"));
        assert!(!place.exists());
        // What came meanwhile is not replaced when it goes back.
        fs::write(&place, "new").unwrap();
        assert_eq!(keep(&taken, &place).unwrap(), folder.path().join("a-1.txt"));
        assert_eq!(fs::read_to_string(&place).unwrap(), "new");
    }

    #[test]
    fn the_next_number_is_found_among_many() {
        let folder = tempfile::tempdir().unwrap();
        for (name, first) in [("a.tar.gz", "a.tar-1.gz"), ("plain", "plain-1"), ("-x", "-x-1")] {
            let place = folder.path().join(name);
            fs::write(&place, "0").unwrap();
            assert_eq!(free(&place), folder.path().join(first));
            for number in 1..=40_u64 {
                fs::write(folder.path().join("new"), number.to_string()).unwrap();
                assert_eq!(keep(&folder.path().join("new"), &place).unwrap(), numbered(&place, number));
            }
        }
    }
}
