//! Which file systems may carry the root directory: those whose locks this kernel decides alone.

use std::path::Path;

use router_core::cluster::ClusterError;
#[cfg(target_os = "linux")]
use router_core::directory;

/// Refuses file systems on which other hosts could lock the same files, and those we do not know. Nothing is made.
///
/// # Errors
/// What to do instead.
#[cfg(target_os = "linux")]
pub fn check(root: &Path) -> Result<(), ClusterError> {
    // The root may not exist yet; nothing is made on a file system that is refused.
    // And the ancestors of a relative path end before the current directory.
    let root = &std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    let magic = directory::file_system(existing)
        .map_err(|error| crate::unusable(format!("cannot look at `{}`", existing.display()), error))?;
    if LOCAL.contains(&magic) {
        return Ok(());
    }
    let name = match REFUSED.iter().find(|(refused, _)| *refused == magic) {
        Some((_, name)) => format!("on {name}"),
        None => format!("on a file system that is not known to be local (type {magic:#x})"),
    };
    Err(ClusterError::Unusable(
        format!(
            "the root `{}` of the file cluster is {name}, where a lock does not stop other hosts for sure. \
             Use a directory on a local disk, or another cluster service for more than one host; or, if \
             only processes of this host use the directory, set `allow_network_file_system = true`",
            root.display()
        ),
        None,
    ))
}

/// Elsewhere the numbers mean something else, or nothing: the operator has to know.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn check(_root: &Path) -> Result<(), ClusterError> {
    Ok(())
}

/// From `linux/magic.h` and the sources of the file systems that keep theirs to themselves.
#[cfg(target_os = "linux")]
const LOCAL: [u32; 15] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x8584_58f6, // ramfs
    0x3153_464a, // jfs
    0x5265_4973, // reiserfs
    0x0000_3434, // nilfs2
    0x0000_4d44, // vfat
    0x2011_bab0, // exfat
    0x2405_1905, // ubifs
];

#[cfg(target_os = "linux")]
const REFUSED: [(u32, &str); 15] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "SMB/CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x6573_5546, "FUSE (or virtiofs)"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
];

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn local_file_systems_are_fine_even_where_the_root_does_not_exist_yet() {
        let directory = tempfile::tempdir().unwrap();
        check(&directory.path().join("not/yet")).unwrap();
    }

    #[test]
    fn an_unknown_file_system_is_refused_with_what_to_do() {
        let text = check(Path::new("/proc/self")).unwrap_err().to_string();
        for part in ["/proc/self", "0x9fa0", "local disk", "allow_network_file_system"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
