//! A cluster whose records are the Lease objects of Kubernetes.
//!
//! [`KubernetesCluster`] is the cluster service. The election itself is `cluster_lease`; this crate brings
//! its records to and from an API server, and adds what Kubernetes knows: who a member is, and proof that
//! it has ended.
//!
//! What lies in the namespace, for the group `bactrian`:
//!
//! | Lease | what it is |
//! |---|---|
//! | `bactrian.lock.<lock>` | one per lock; its holder is the member that leads, as pod name and incarnation |
//! | `bactrian.session.<incarnation>-<generation>` | one per process that leads or has led; renewed by heartbeats, owned by its Pod |
//!
//! Both carry the labels `app.kubernetes.io/managed-by=bactrian`, `bactrian/group` and `bactrian/kind`. Lock
//! names that are no DNS labels are escaped; the annotation `bactrian/lock` has them unchanged.
//!
//! Rights that a member needs on `leases.coordination.k8s.io` of its namespace: get, list, watch, create and
//! update. With delete, a member that leaves takes its sessions along. With list and watch on pods, a
//! container that has terminated is proof that its member has ended.
//!
//! Architecture invariant: this is the only crate that names `kube`. What a term is, who may claim a lock
//! and when is decided in `cluster_lease`.

mod access;
mod cache;
mod clients;
mod cluster;
mod codec;
#[cfg(test)]
mod election_tests;
mod errors;
#[cfg(test)]
mod fake;
mod identity;
mod last_words;
mod names;
mod pods;
mod settings;
mod store;
#[cfg(test)]
mod store_tests;
mod watch;

pub use cluster::KubernetesCluster;
pub use cluster_lease::{METRICS, Timing};
pub use codec::free_lock;
pub use identity::PodIdentity;
pub use kube::Config;
pub use names::{
    GROUP_LABEL, Group, HOST_ANNOTATION, InvalidGroup, KIND_LABEL, LOCK_ANNOTATION, MANAGED_BY,
    MANAGED_BY_LABEL, PID_ANNOTATION, RECORD_ANNOTATION, SEAL_ANNOTATION, SESSION_ANNOTATION,
};
pub use settings::KubernetesClusterSettings;
