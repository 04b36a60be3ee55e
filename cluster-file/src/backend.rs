//! [`FileBackend`]: the cluster service `file`, as it is named in settings.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use router_core::cluster::backend::{
    BackendDescription, BackendSettings, ClusterBackend, OptionKind, Purpose, flag, option,
};
use router_core::cluster::{ClusterService, Operator, Survey};
use router_core::directory;
use router_core::error::{BoxError, ConfigErrors};
use tracing::info;

use crate::cluster::FileCluster;
use crate::file_system;
use crate::operator::FileOperator;
use crate::settings::FileClusterSettings;
use crate::surveyor::Surveyor;

/// The cluster service `file`: [`FileCluster`].
#[derive(Debug)]
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
        let takes_part = purpose == Purpose::TakePart;
        let checked = directory::check(&file.root, takes_part).and_then(|()| {
            // What else it needs, it says itself: the right to read is enough to see who leads.
            if !takes_part || file.allow_network_file_system {
                return Ok(());
            }
            file_system::check(&file.root).map_err(|refused| refused.to_string())
        });
        let mut errors = ConfigErrors::default();
        errors.collect(checked.map_err(|refused| settings.error("root", refused)));
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
