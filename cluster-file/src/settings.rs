//! [`FileClusterSettings`]: how a member is set up.

use std::path::PathBuf;

use smol_str::SmolStr;

use crate::timing::Timing;

/// How to open a [`FileCluster`](crate::FileCluster).
#[derive(Clone, Debug)]
pub struct FileClusterSettings {
    /// The directory that all members share. Made when it is missing; its parents too.
    pub root: PathBuf,
    /// The id of this member, unique among those that live; by default `<host>-<process id>-<random>`.
    pub member: Option<SmolStr>,
    /// Also use file systems on which other hosts could lock the same files, and unknown ones. Safe if
    /// all members run on this host, or if the file system carries `flock` to all hosts at any time; then
    /// fail-over takes up to a second, because events stay on one host.
    pub allow_network_file_system: bool,
    /// Whether other users of the group of `root` take part. Otherwise what is made is for this user alone: a
    /// process needs no more than the right to read a file to lock it, and so to keep all members from leading.
    pub share_with_group: bool,
    /// Polls, as where there is no inotify. For tests.
    #[doc(hidden)]
    pub without_events: bool,
    /// Other times than all other members have. For tests.
    #[doc(hidden)]
    pub timing: Timing,
}

impl FileClusterSettings {
    /// The defaults, for the directory `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            member: None,
            allow_network_file_system: false,
            share_with_group: false,
            without_events: false,
            timing: Timing::default(),
        }
    }

    /// With this member id.
    #[must_use]
    pub fn member(mut self, id: impl Into<SmolStr>) -> Self {
        self.member = Some(id.into());
        self
    }
}
