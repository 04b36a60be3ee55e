//! Where the records are, who this process is, and its timing: what settings say, and the environment where they do not.

use cluster_lease::Settings;
use kube::Config;
use router_core::cluster::ClusterError;

use crate::identity::PodIdentity;
use crate::settings::{KubernetesClusterSettings, Resource};

async fn config_of(settings: &KubernetesClusterSettings) -> Result<Config, ClusterError> {
    match settings.api_server.clone() {
        Some(config) => Ok(config),
        None => Config::infer().await.map_err(|error| {
            let text = "there is no API server of Kubernetes to be found: this is no pod with a service account, \
                        and neither KUBECONFIG nor ~/.kube/config names one";
            ClusterError::Unusable(text.into(), Some(error.into()))
        }),
    }
}

/// # Errors
/// When the timing is not safe.
pub(crate) fn timing_of(settings: &KubernetesClusterSettings) -> Result<Settings, ClusterError> {
    let refused = |error: Box<_>| ClusterError::Unusable("the timing is refused".into(), Some(error));
    let timing = settings.timing.settings().map_err(|error| refused(error.into()))?;
    if settings.resource == Resource::ConfigMap {
        settings.camel.check(&timing).map_err(|error| refused(error.into()))?;
    }
    Ok(timing)
}

/// The way to the API server, who this process is, and the namespace of the records.
pub(crate) async fn place_of(
    settings: &KubernetesClusterSettings,
) -> Result<(Config, PodIdentity, String), ClusterError> {
    let config = config_of(settings).await?;
    let identity = settings.identity.clone().unwrap_or_else(PodIdentity::of_process);
    let of_pod = identity.namespace.as_ref().map(ToString::to_string).filter(|name| !name.is_empty());
    let namespace = settings.namespace.clone().or(of_pod);
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    Ok((config, identity, namespace))
}
