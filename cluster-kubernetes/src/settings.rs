//! How a member is set up.

use std::path::PathBuf;
use std::time::Duration;

use cluster_lease::Timing;
use kube::Config;

use crate::identity::PodIdentity;
use crate::names::Group;

/// How to open a [`KubernetesCluster`](crate::KubernetesCluster).
#[derive(Clone, Debug, Default)]
pub struct KubernetesClusterSettings {
    /// The namespace of the records; by default that of the pod, or of the context in KUBECONFIG.
    pub namespace: Option<String>,
    /// The group of members that share their locks.
    pub group: Group,
    /// What the records are kept in.
    pub resource: Resource,
    /// The name of the ConfigMap, for [`Resource::ConfigMap`]; by default `leaders`.
    pub resource_name: Option<String>,
    /// The timing of the members that are Camel's, for [`Resource::ConfigMap`].
    pub camel: CamelTiming,
    /// The timing. Where members differ, a takeover takes as long as the holder's records say.
    pub timing: Timing,
    /// The labels of the members' pods, as `app=clock,tier=back`. With them, and with the right to list and
    /// watch pods, the end of a container is proof that its member has ended, and its locks are taken at
    /// once; [`members`](router_core::cluster::ClusterView::members) shows those that stand by; and candidates
    /// try in an order that spreads the locks. Without them a takeover after a crash takes the takeover wait.
    /// With [`Resource::ConfigMap`], a leader whose pod is not among the ready ones is replaced; without
    /// labels these are all pods of the namespace.
    pub cluster_labels: Option<String>,
    /// Who this member is; by default as the environment says, see [`PodIdentity::of_process`].
    pub identity: Option<PodIdentity>,
    /// How to reach the API server; by default KUBECONFIG or `~/.kube/config` where they exist, else the
    /// service account of the pod.
    pub api_server: Option<Config>,
    /// The file for the last words of the container, as `terminationMessagePath` has it; by default
    /// `/dev/termination-log`.
    pub termination_log: Option<PathBuf>,
}

/// What the records of the election are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resource {
    /// A Lease for each lock and each session.
    #[default]
    Lease,
    /// The compatibility mode: one ConfigMap for all locks, in the layout of Camel since 2.20, shared with
    /// members that are Camel's. Weaker and slower; see [`KubernetesCluster`](crate::KubernetesCluster).
    ConfigMap,
}

/// The timing of the members of a compatibility cluster that are Camel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamelTiming {
    /// Their `leaseDurationMillis`: how long one that takes over waits.
    pub lease_duration: Duration,
    /// Their `renewDeadlineMillis`: how long after a look one may lead.
    pub renew_deadline: Duration,
}

impl Default for CamelTiming {
    fn default() -> Self {
        Self { lease_duration: Duration::from_secs(15), renew_deadline: Duration::from_secs(10) }
    }
}
