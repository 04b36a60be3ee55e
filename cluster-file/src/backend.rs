//! [`FileBackend`]: the cluster service `file`, as it is named in settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use router_core::cluster::backend::{
    BackendDescription, BackendSettings, ClusterBackend, OptionKind, Purpose, flag, option,
};
use router_core::cluster::{ClusterService, Operator, Survey};
use router_core::error::{BoxError, ConfigErrors};
use rustix::fs::Access;
use tracing::info;

use crate::cluster::FileCluster;
use crate::file_system;
use crate::operator::FileOperator;
use crate::settings::FileClusterSettings;
use crate::surveyor::Surveyor;

/// The cluster service `file`: [`FileCluster`].
pub struct FileBackend;

static DESCRIPTION: BackendDescription = BackendDescription {
    name: "file",
    summary: "processes on one host, which share a directory",
    options: &[
        option("root", OptionKind::Text, Some(".bactrian/locks"), "the directory of the lock files"),
        flag(
            "allow_network_file_system",
            "false",
            "whether `root` may be on a file system whose locks may not exclude other hosts",
        ),
        flag(
            "share_with_group",
            "false",
            "whether other users of the group of `root` take part; otherwise `root` is made for this user alone",
        ),
    ],
    metrics: &[],
};

#[async_trait]
impl ClusterBackend for FileBackend {
    fn description(&self) -> &'static BackendDescription {
        &DESCRIPTION
    }

    /// What keeps the root from being the directory of lock files, as far as that can be told without making it.
    fn check(&self, settings: &BackendSettings, purpose: Purpose) -> ConfigErrors {
        let file = settings_of(settings);
        let mut errors = ConfigErrors::default();
        let mut error = |message: String| errors.push(settings.error("root", message));
        // The root itself, or the nearest folder above it, in which it will be made.
        let above = file.root.ancestors();
        let above = above.map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
        let Some(nearest) = above.into_iter().find(|path| path.symlink_metadata().is_ok()) else {
            return errors;
        };
        if !nearest.is_dir() {
            error(format!("`{}` is not a directory", nearest.display()));
        } else if purpose == Purpose::Look {
            // What else it needs, it says itself: the right to read is enough to see who leads.
        } else if is_of_the_kernel(nearest) {
            // Where root may write all, and make nothing.
            error(format!("`{}` belongs to the kernel, which makes no files there", nearest.display()));
        } else if let Err(refused) = rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
            let refused = std::io::Error::from(refused);
            error(format!("the directory `{}` cannot be written: {refused}", nearest.display()));
        } else if !file.allow_network_file_system
            && let Err(refused) = file_system::check(&file.root)
        {
            error(refused.to_string());
        }
        errors
    }

    async fn open(&self, settings: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError> {
        let file = settings_of(settings);
        // Members that were started in different directories are in different clusters: say which this is.
        let root = std::path::absolute(&file.root)?;
        info!(root = %root.display(), "the members of this cluster share the directory {}", root.display());
        Ok(FileCluster::open(file).await?)
    }

    async fn operator(&self, settings: &BackendSettings) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(FileOperator::open(absolute_root(settings)?)?))
    }

    async fn survey(&self, settings: &BackendSettings) -> Result<Box<dyn Survey>, BoxError> {
        Ok(Box::new(Surveyor::open(absolute_root(settings)?)?))
    }
}

fn settings_of(settings: &BackendSettings) -> FileClusterSettings {
    let options = settings.options();
    FileClusterSettings {
        member: settings.given_member().cloned(),
        allow_network_file_system: options.boolean("allow_network_file_system"),
        share_with_group: options.boolean("share_with_group"),
        ..FileClusterSettings::new(options.text("root").unwrap_or_default())
    }
}

fn absolute_root(settings: &BackendSettings) -> std::io::Result<PathBuf> {
    std::path::absolute(settings_of(settings).root)
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
