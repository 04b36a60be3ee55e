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
//! | `bactrian.session.<pod>-<number>` | one per process of a pod that leads or takes something; renewed by heartbeats, owned by the Pod, and used again when its process has ended. Without such a Pod: `<incarnation>-<generation>`, one for each process that leads or has led |
//! | `bactrian.request.<...>` | what an operator asks of a member: to hand a lock over, or to hold none |
//!
//! All carry the labels `bactrian/group`, by which they are found, and `bactrian/kind`. Lock names that are no DNS labels are escaped; the annotation `bactrian/lock` has them unchanged.
//!
//! The rights that a member needs, and those that it can use, are [`rules`]. With them, a container that has
//! terminated is proof that its member has ended, members that stand by are known, sessions are removed, and
//! changes of leadership are Events.
//!
//! [`Resource::ConfigMap`] is the compatibility mode with Apache Camel.
//!
//! For operators, [`Manifest`] makes what a cluster needs to run members, and [`Survey`] tells who leads.
//!
//! Architecture invariant: this is the only crate that names `kube`. What a term is, who may claim a lock
//! and when is decided in `cluster_lease`.

mod access;
mod backend;
mod cache;
mod clients;
mod cluster;
mod codec;
mod config_map;
#[cfg(test)]
mod election_tests;
mod errors;
mod events;
#[cfg(test)]
mod fake_api_server;
mod fields;
mod gate;
mod identity;
mod join;
mod list;
mod manifest;
mod names;
mod operator;
mod place;
mod pod_observer;
mod pods;
mod requests;
mod rules;
mod settings;
mod shared;
mod slots;
mod store;
#[cfg(test)]
mod store_tests;
mod survey;
mod surveyor;
mod termination_message;
#[cfg(test)]
mod test_support;
mod unlisted;
mod watch;

pub use backend::KubernetesBackend;
pub use cluster::KubernetesCluster;
pub use cluster_lease::{Limits, Timing};
pub use codec::bare_lock;
pub use config_map::CamelTimingError;
pub use identity::PodIdentity;
pub use kube::Config;
pub use manifest::{Document, Election, InvalidManifest, MANIFEST_MARK, Manifest};
pub use names::{
    GROUP_LABEL, Group, HOST_ANNOTATION, INCARNATION_ANNOTATION, InvalidGroup, KIND_LABEL, LOCK_ANNOTATION,
    MANAGED_BY, MANAGED_BY_LABEL, PID_ANNOTATION, RECORD_ANNOTATION, REQUEST_ANNOTATION, ROUTES_ANNOTATION,
    SEAL_ANNOTATION, SESSION_ANNOTATION, STATES_ANNOTATION, TERM_ANNOTATION,
};
pub use operator::KubernetesOperator;
pub use rules::{Purpose, Rule, rules};
pub use settings::{CamelTiming, KubernetesClusterSettings, Resource};
pub use survey::{LockHolder, LockStatus, Seen, Survey};
