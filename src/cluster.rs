//! The cluster service that the settings name.

use std::path::Path;
use std::sync::Arc;

use router_core::cluster::{ClusterService, MemoryCluster, Operator};
use router_core::error::{BoxError, ConfigError, ConfigErrors};
use rustix::fs::Access;

use crate::settings::{Environment, Resolved, Service, Settings};

/// What a process does with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is a member.
    TakePart,
    /// It looks at the cluster or asks its members for something, and makes nothing that they do not share already.
    Look,
}

/// The service that `cluster.service` stands for in this process, if its settings can be used for that purpose.
///
/// # Errors
/// When that service is not compiled in; every error in its settings, and every setting that it does not use.
pub fn service(
    resolved: &Resolved,
    environment: &Environment,
    purpose: Purpose,
) -> Result<Option<Service>, ConfigErrors> {
    let service = match resolved.settings.cluster.service {
        Some(Service::Auto) if environment.is_pod() => Some(Service::Kubernetes),
        Some(Service::Auto) => Some(Service::File),
        named => named,
    };
    let mut errors = resolved.ignored();
    match service {
        Some(Service::Kubernetes) if cfg!(not(feature = "cluster-kubernetes")) => {
            errors.push(not_built_in("kubernetes", resolved, environment));
        }
        Some(Service::File) if cfg!(not(feature = "cluster-file")) => {
            errors.push(not_built_in("file", resolved, environment));
        }
        Some(Service::Kubernetes) => errors.extend(kubernetes::check(resolved)),
        Some(Service::File) => errors.extend(check_root(resolved, purpose)),
        _ => {}
    }
    errors.into_result().map(|()| service)
}

fn not_built_in(service: &str, resolved: &Resolved, environment: &Environment) -> ConfigError {
    let reason = match resolved.settings.cluster.service {
        Some(Service::Auto) => format!(
            ", which `auto` stands for here, as this is {}a pod,",
            if environment.is_pod() { "" } else { "not " }
        ),
        _ => String::new(),
    };
    let message = format!("the cluster service `{service}`{reason} is not built into this program");
    let built = built_in().join(", ");
    let error = resolved.error("cluster.service", message);
    error.help(format!("built in: {built}; {}", crate::build_with(&format!("cluster-{service}"))))
}

/// What keeps the root from being the directory of lock files, as far as that can be told without making it.
fn check_root(resolved: &Resolved, purpose: Purpose) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let root = &resolved.settings.cluster.root;
    let mut error = |message: String| errors.push(resolved.error("cluster.root", message));
    if let Err(problem) = check_directory(root, purpose) {
        error(problem);
    } else if purpose == Purpose::TakePart {
        #[cfg(feature = "cluster-file")]
        if !resolved.settings.cluster.allow_network_file_system
            && let Err(problem) = cluster_file::check_file_system(root)
        {
            error(problem.to_string());
        }
    }
    errors
}

/// What keeps a directory from being made and written to, as far as that can be told without doing it.
pub(crate) fn check_directory(directory: &Path, purpose: Purpose) -> Result<(), String> {
    // Itself, or the nearest folder above it, in which it will be made.
    let mut above =
        directory.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(nearest) = above.find(|path| path.symlink_metadata().is_ok()) else { return Ok(()) };
    let shown = nearest.display();
    if !nearest.is_dir() {
        return Err(format!("`{shown}` is not a directory"));
    }
    if purpose == Purpose::Look {
        // What else it needs, it says itself: the right to read is enough to see who leads.
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

/// The names of the services that are compiled in.
fn built_in() -> Vec<&'static str> {
    let optional =
        [(cfg!(feature = "cluster-file"), "file"), (cfg!(feature = "cluster-kubernetes"), "kubernetes")];
    let optional = optional.into_iter().filter(|(built_in, _)| *built_in).map(|(_, name)| name);
    optional.chain(["memory"]).collect()
}

/// Opens the service: from here on, this process takes part in the cluster.
///
/// # Errors
/// When the service cannot be used.
pub async fn open(service: Service, settings: &Settings) -> Result<Arc<dyn ClusterService>, BoxError> {
    match service {
        Service::File | Service::Auto => open_file(settings).await,
        Service::Memory => Ok(MemoryCluster::new(settings.member())),
        Service::Kubernetes => kubernetes::open(settings).await,
    }
}

/// How a process that takes no part in the election finds its records, for the service `kubernetes`.
///
/// # Errors
/// When the group has no valid name.
#[cfg(feature = "cluster-kubernetes")]
pub fn kubernetes_settings(
    settings: &Settings,
) -> Result<cluster_kubernetes::KubernetesClusterSettings, BoxError> {
    kubernetes::of(settings)
}

/// Whoever asks the members of the cluster for something, without being one of them.
///
/// # Errors
/// When there is no such cluster, it cannot be reached, or nobody can be asked in it.
pub async fn operator(service: Service, settings: &Settings) -> Result<Box<dyn Operator>, BoxError> {
    match service {
        Service::File | Service::Auto => file_operator(settings),
        Service::Memory => {
            Err("the cluster `memory` is inside of one process: nobody else can ask it for anything".into())
        }
        Service::Kubernetes => kubernetes::operator(settings).await,
    }
}

#[cfg(feature = "cluster-file")]
fn file_operator(settings: &Settings) -> Result<Box<dyn Operator>, BoxError> {
    let root = std::path::absolute(&settings.cluster.root)?;
    match cluster_file::FileOperator::open(root) {
        Ok(operator) => Ok(Box::new(operator)),
        Err(error) if settings.cluster.service == Some(Service::Auto) => {
            let hint = "`auto` means files outside of a pod; for pods say `--set cluster.service=kubernetes`";
            Err(format!("{error} ({hint})").into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(feature = "cluster-file"))]
fn file_operator(_settings: &Settings) -> Result<Box<dyn Operator>, BoxError> {
    Err(format!(
        "the cluster service `file` is not built into this program: {}",
        crate::build_with("cluster-file")
    )
    .into())
}

#[cfg(feature = "cluster-file")]
async fn open_file(settings: &Settings) -> Result<Arc<dyn ClusterService>, BoxError> {
    let cluster = &settings.cluster;
    // Members that were started in different directories are in different clusters: say which this is.
    let root = std::path::absolute(&cluster.root)?;
    tracing::info!(root = %root.display(), "the members of this cluster share the directory {}", root.display());
    let file = cluster_file::FileClusterSettings {
        member: cluster.member.as_deref().map(Into::into),
        allow_network_file_system: cluster.allow_network_file_system,
        share_with_group: cluster.share_with_group,
        ..cluster_file::FileClusterSettings::new(&cluster.root)
    };
    Ok(cluster_file::FileCluster::open(file).await?)
}

#[cfg(not(feature = "cluster-file"))]
async fn open_file(_settings: &Settings) -> Result<Arc<dyn ClusterService>, BoxError> {
    Err(format!(
        "the cluster service `file` is not built into this program: {}",
        crate::build_with("cluster-file")
    )
    .into())
}

#[cfg(feature = "cluster-kubernetes")]
mod kubernetes {
    use cluster_kubernetes::{
        CamelTiming, Group, KubernetesCluster, KubernetesClusterSettings, KubernetesOperator, PodIdentity,
        Resource, Timing,
    };

    use super::*;
    use crate::settings::ClusterSettings;

    /// What can be said against the settings before anything runs.
    pub(super) fn check(resolved: &Resolved) -> ConfigErrors {
        let cluster = &resolved.settings.cluster;
        let mut errors = ConfigErrors::default();
        if let Err(error) = cluster.group.parse::<Group>() {
            errors.push(resolved.error("cluster.group", error.to_string()));
        }
        let timing = timing(cluster).settings().map_err(|error| error.to_string());
        let checked = timing.and_then(|timing| match resource(cluster) {
            Resource::ConfigMap => camel(cluster).check(&timing).map_err(|error| error.to_string()),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            let numbers = [
                ("cluster.stop", cluster.stop.is_some()),
                ("cluster.deadline", cluster.deadline.is_some()),
                ("cluster.heartbeat", cluster.heartbeat.is_some()),
                ("cluster.takeover_wait", cluster.takeover_wait.is_some()),
            ];
            let set = numbers.iter().find(|(_, set)| *set).map_or("cluster.profile", |(path, _)| path);
            errors.push(resolved.error(set, error));
        }
        errors
    }

    fn resource(cluster: &ClusterSettings) -> Resource {
        match cluster.resource {
            crate::settings::Resource::Lease => Resource::Lease,
            crate::settings::Resource::ConfigMap => Resource::ConfigMap,
        }
    }

    fn camel(cluster: &ClusterSettings) -> CamelTiming {
        CamelTiming {
            lease_duration: cluster.camel_lease_duration,
            renew_deadline: cluster.camel_renew_deadline,
        }
    }

    pub(super) async fn open(settings: &Settings) -> Result<Arc<dyn ClusterService>, BoxError> {
        Ok(KubernetesCluster::open(of(settings)?).await?)
    }

    pub(super) async fn operator(settings: &Settings) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(KubernetesOperator::open(of(settings)?).await?))
    }

    pub(super) fn of(settings: &Settings) -> Result<KubernetesClusterSettings, BoxError> {
        let cluster = &settings.cluster;
        let mut identity = PodIdentity::of_process();
        if let Some(member) = &cluster.member {
            identity.name = Some(member.as_str().into());
            // What belongs to a pod of another name than its own would be removed as an orphan.
            identity.uid = None;
        }
        Ok(KubernetesClusterSettings {
            namespace: cluster.namespace.clone(),
            group: cluster.group.parse()?,
            resource: resource(cluster),
            resource_name: Some(cluster.resource_name.clone()),
            camel: camel(cluster),
            timing: timing(cluster),
            cluster_labels: cluster.cluster_labels.clone(),
            identity: Some(identity),
            ..KubernetesClusterSettings::default()
        })
    }

    fn timing(cluster: &ClusterSettings) -> Timing {
        Timing {
            profile: Some(cluster.profile.clone()),
            takeover_wait: cluster.takeover_wait,
            deadline: cluster.deadline,
            stop: cluster.stop,
            heartbeat: cluster.heartbeat,
            rate_error_ppm: None,
        }
    }
}

#[cfg(not(feature = "cluster-kubernetes"))]
mod kubernetes {
    use super::*;

    pub(super) fn check(_resolved: &Resolved) -> ConfigErrors {
        ConfigErrors::default()
    }

    pub(super) async fn open(_settings: &Settings) -> Result<Arc<dyn ClusterService>, BoxError> {
        Err(missing())
    }

    pub(super) async fn operator(_settings: &Settings) -> Result<Box<dyn Operator>, BoxError> {
        Err(missing())
    }

    fn missing() -> BoxError {
        let build = crate::build_with("cluster-kubernetes");
        format!("the cluster service `kubernetes` is not built into this program: {build}").into()
    }
}
