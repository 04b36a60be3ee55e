//! [`read`]: a file of a name that a user gave, which may be anything.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a regular file of at most `limit` bytes, or a link to one. A device has no end and a pipe no beginning: they
/// are not opened.
///
/// # Errors
/// Those of the file system, and one for what is too long or no regular file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut content = Vec::new();
    // What the metadata say of the length may have changed, and files of `/proc` have none.
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let message = format!("it has more than {} KiB", limit >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}
