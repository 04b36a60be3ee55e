//! [`check`]: what keeps a directory from being used, found before anything runs.

use std::path::Path;

use rustix::fs::Access;

/// What keeps a directory from being made and, with `writes`, from being written to, as far as that can be told without
/// doing it.
///
/// # Errors
/// A sentence that names the directory, or the one above it in which it would be made.
pub fn check(directory: &Path, writes: bool) -> Result<(), String> {
    // Itself, or the nearest folder above it, in which it will be made.
    let mut above =
        directory.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(nearest) = above.find(|path| path.symlink_metadata().is_ok()) else { return Ok(()) };
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

/// Whether a directory is in `/proc`, `/sys` and the like.
fn is_of_the_kernel(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs.
        const KINDS: [i64; 7] =
            [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673];
        rustix::fs::statfs(directory).is_ok_and(|found| KINDS.contains(&found.f_type))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}
