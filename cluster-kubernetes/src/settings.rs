//! How a member is set up.

use std::path::PathBuf;

use cluster_lease::Timing;
use kube::Config;

use crate::identity::PodIdentity;
use crate::names::Group;

/// How to open a [`KubernetesCluster`](crate::KubernetesCluster).
#[derive(Clone, Debug, Default)]
pub struct KubernetesClusterSettings {
    /// The namespace of the Leases; by default that of the pod, or of the context in KUBECONFIG.
    pub namespace: Option<String>,
    /// The group of members that share their locks.
    pub group: Group,
    /// The timing; the same on all members.
    pub timing: Timing,
    /// The labels of the members' pods, as `app=clock,tier=back`. With them, and with the right to list and
    /// watch pods, the end of a container is proof that its member has ended, and its locks are taken at
    /// once. Without them a takeover after a crash takes the takeover wait.
    pub pod_labels: Option<String>,
    /// Who this member is; by default as the environment says, see [`PodIdentity::of_process`].
    pub identity: Option<PodIdentity>,
    /// How to reach the API server; by default KUBECONFIG or `~/.kube/config` where they exist, else the
    /// service account of the pod.
    pub api_server: Option<Config>,
    /// The file for the last words of the container, as `terminationMessagePath` has it; by default
    /// `/dev/termination-log`.
    pub termination_log: Option<PathBuf>,
}
