//! [`KubernetesBackend`]: the cluster service `kubernetes`, as it is named in settings.

use std::sync::Arc;

use async_trait::async_trait;
use cluster_lease::{METRICS, SettingsError, Timing};
use router_core::cluster::backend::{
    BackendDescription, BackendSettings, ClusterBackend, OptionDescription, OptionKind, Purpose, option,
};
use router_core::cluster::{ClusterService, Operator, Survey};
use router_core::error::{BoxError, ConfigErrors};

use crate::cluster::KubernetesCluster;
use crate::config_map::CamelTimingError;
use crate::identity::PodIdentity;
use crate::manifest::selected_labels;
use crate::names::{Group, InvalidGroup, is_dns_label};
use crate::operator::KubernetesOperator;
use crate::settings::{CamelTiming, KubernetesClusterSettings, Resource};
use crate::surveyor::Surveyor;

/// The cluster service `kubernetes`: [`KubernetesCluster`].
#[derive(Debug)]
pub struct KubernetesBackend;

static DESCRIPTION: BackendDescription = BackendDescription {
    name: "kubernetes",
    summary: "pods, which share Leases",
    options: OPTIONS,
    metrics: METRICS,
};

const OPTIONS: &[OptionDescription] = &[
    option(
        "namespace",
        OptionKind::Text,
        None,
        "the namespace of the Leases; where unset, that of the pod or of the context",
    ),
    option("group", OptionKind::Text, Some("bactrian"), "the group of members that share their locks"),
    option(
        "resource",
        OptionKind::Choice(&["lease", "configmap"]),
        Some("lease"),
        "what the locks are kept in; `configmap`: the compatibility mode with Camel",
    ),
    option("resource_name", OptionKind::Text, Some("leaders"), "the name of the ConfigMap, for `configmap`"),
    option(
        "camel_lease_duration",
        OptionKind::Duration,
        Some("15s"),
        "the `leaseDurationMillis` of the members of Camel, for `configmap`",
    ),
    option(
        "camel_renew_deadline",
        OptionKind::Duration,
        Some("10s"),
        "the `renewDeadlineMillis` of the members of Camel, for `configmap`",
    ),
    option(
        "cluster_labels",
        OptionKind::Text,
        None,
        "the labels of the members' pods: with them, a container that has ended is replaced at once, and members \
         that stand by are known; for `configmap`, whose pods are members",
    ),
    option(
        "profile",
        OptionKind::Choice(&["fast", "default", "relaxed", "slewed-clock"]),
        Some("default"),
        "the timing of the election; takeovers take as long as the slowest member says",
    ),
    option(
        "takeover_wait",
        OptionKind::Duration,
        None,
        "overrides the profile: how long a silent leader is watched before it is replaced",
    ),
    option(
        "deadline",
        OptionKind::Duration,
        None,
        "overrides the profile: how long after a heartbeat its sender may lead",
    ),
    option(
        "stop",
        OptionKind::Duration,
        None,
        "overrides the profile: how long after the deadline running exchanges may take to end",
    ),
    option("heartbeat", OptionKind::Duration, None, "overrides the profile: the period of the heartbeat"),
];

#[async_trait]
impl ClusterBackend for KubernetesBackend {
    fn description(&self) -> &'static BackendDescription {
        &DESCRIPTION
    }

    fn check(&self, settings: &BackendSettings, _: Purpose) -> ConfigErrors {
        let mut errors = ConfigErrors::default();
        let options = settings.options();
        if let Err(error) = options.text("group").unwrap_or_default().parse::<Group>() {
            errors.push(settings.error("group", error.to_string()));
        }
        if options.text("namespace").is_some_and(|name| name.len() > 63 || !is_dns_label(&name)) {
            let message = "a namespace has 1 to 63 of the characters a-z, 0-9 and `-`, and begins and ends with a letter \
                           or digit";
            errors.push(settings.error("namespace", message.to_owned()));
        }
        if options
            .text("resource_name")
            .is_some_and(|name| name.len() > 253 || !name.split('.').all(is_dns_label))
        {
            let message = "the name of a ConfigMap has 1 to 253 of the characters a-z, 0-9, `-` and `.`, and each part \
                           between dots begins and ends with a letter or digit";
            errors.push(settings.error("resource_name", message.to_owned()));
        }
        let kubernetes = KubernetesClusterSettings::in_group(settings, Group::default());
        if let Some(labels) = options.text("cluster_labels")
            && let Err(error) = selected_labels(&labels)
        {
            errors.push(settings.error("cluster_labels", error.to_string()));
        }
        for (names, error) in timing_errors(&kubernetes) {
            // A profile has its numbers, and those of Camel have defaults: what is set is the cause.
            let set = names.iter().find(|name| options.is_given(name));
            errors.push(settings.error(set.unwrap_or(&"profile"), error));
        }
        if kubernetes.resource != Resource::ConfigMap {
            for name in ["resource_name", "camel_lease_duration", "camel_renew_deadline"] {
                if settings.is_set_beside(name, "resource") {
                    let message = format!(
                        "setting `cluster.kubernetes.{name}` has no effect: `cluster.kubernetes.resource` is not \
                         `configmap`"
                    );
                    let help = "remove it, or keep the locks in a ConfigMap, as Camel does: `resource = \"configmap\"`";
                    errors.push(settings.error(name, message).help(help));
                }
            }
        }
        errors
    }

    async fn open(&self, settings: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError> {
        Ok(KubernetesCluster::open(KubernetesClusterSettings::of(settings)?).await?)
    }

    async fn operator(&self, settings: &BackendSettings) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(KubernetesOperator::open(KubernetesClusterSettings::of(settings)?).await?))
    }

    async fn survey(&self, settings: &BackendSettings) -> Result<Box<dyn Survey>, BoxError> {
        Ok(Box::new(Surveyor::open(KubernetesClusterSettings::of(settings)?).await?))
    }
}

/// What is wrong with the timing: which settings each error is about, the likeliest first, and its text.
fn timing_errors(kubernetes: &KubernetesClusterSettings) -> Vec<(&'static [&'static str], String)> {
    let timing = match kubernetes.timing.unchecked() {
        Ok(timing) => timing,
        Err(error) => return vec![(&["profile"], error.to_string())],
    };
    let mut errors = Vec::<(&'static [&'static str], String)>::new();
    for error in timing.errors() {
        let names: &[_] = match error {
            SettingsError::Overlap { .. } => &["stop", "deadline", "takeover_wait"],
            SettingsError::Heartbeat { .. } => &["heartbeat", "deadline"],
            SettingsError::Endless(_) => &["takeover_wait"],
            SettingsError::Rate(_) => &[],
        };
        errors.push((names, error.to_string()));
    }
    if kubernetes.resource == Resource::ConfigMap {
        for error in kubernetes.camel.errors(&timing) {
            let names: &[_] = match error {
                CamelTimingError::TakeoverWait { .. } => {
                    &["takeover_wait", "camel_renew_deadline", "camel_lease_duration"]
                }
                CamelTimingError::Deadline { .. } => &["deadline", "stop", "camel_lease_duration"],
            };
            errors.push((names, error.to_string()));
        }
    }
    errors
}

impl KubernetesClusterSettings {
    /// What the settings of the backend say.
    ///
    /// # Errors
    /// When the group has no valid name.
    pub fn of(settings: &BackendSettings) -> Result<Self, InvalidGroup> {
        let group = settings.options().text("group").unwrap_or_default().parse::<Group>()?;
        Ok(Self::in_group(settings, group))
    }

    fn in_group(settings: &BackendSettings, group: Group) -> Self {
        let options = settings.options();
        let mut identity = PodIdentity::of_process();
        if let Some(member) = settings.given_member() {
            identity.name = Some(member.clone());
            // What belongs to a pod of another name than its own would be removed as an orphan.
            identity.uid = None;
        }
        Self {
            namespace: options.text("namespace"),
            group,
            resource: match options.text("resource").as_deref() {
                Some("configmap") => Resource::ConfigMap,
                _ => Resource::Lease,
            },
            resource_name: options.text("resource_name"),
            camel: CamelTiming {
                lease_duration: options.duration("camel_lease_duration"),
                renew_deadline: options.duration("camel_renew_deadline"),
            },
            timing: Timing {
                profile: options.text("profile"),
                takeover_wait: options.optional_duration("takeover_wait"),
                deadline: options.optional_duration("deadline"),
                stop: options.optional_duration("stop"),
                heartbeat: options.optional_duration("heartbeat"),
                rate_error_ppm: None,
            },
            cluster_labels: options.text("cluster_labels"),
            identity: Some(identity),
            ..Self::default()
        }
    }
}
