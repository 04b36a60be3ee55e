//! The cluster backends of this project: the one list of them. What is written here of a backend is its name, its
//! feature and when `auto` stands for it; all else is in its crate.

use router_core::cluster::MemoryBackend;
#[cfg(feature = "cli")]
use router_core::cluster::backend::{OptionDescription, OptionKind, option};
use router_core::component::Registry;

/// A backend of this project, which may be built into this program or not.
struct Known {
    name: &'static str,
    feature: &'static str,
    /// Whether `service = "auto"` stands for it inside of pods, or outside.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only settings say `auto`"))]
    auto_in_pods: bool,
}

const KNOWN: [Known; 2] = [
    Known { name: "file", feature: "cluster-file", auto_in_pods: false },
    Known { name: "kubernetes", feature: "cluster-kubernetes", auto_in_pods: true },
];

/// Adds every backend that is compiled in, and names the others.
pub(crate) fn register(registry: &mut Registry) {
    for Known { name, feature, .. } in KNOWN {
        registry.add_missing_backend(name, crate::build_with(feature));
    }
    #[cfg(feature = "cluster-file")]
    registry.add_backend(cluster_file::FileBackend);
    #[cfg(feature = "cluster-kubernetes")]
    registry.add_backend(cluster_kubernetes::KubernetesBackend);
    registry.add_backend(MemoryBackend);
}

/// The setting that names a backend.
#[cfg(feature = "cli")]
pub(crate) const SERVICE: OptionDescription = option(
    "service",
    OptionKind::Text,
    None,
    "what decides who leads; `auto`: `kubernetes` inside a pod, else `file`",
);

/// The name that stands for one of several backends.
#[cfg(feature = "cli")]
pub(crate) const AUTO: &str = "auto";

/// The backend that [`AUTO`] stands for.
#[cfg(feature = "cli")]
pub(crate) fn auto(in_pod: bool) -> &'static str {
    KNOWN.into_iter().find(|known| known.auto_in_pods == in_pod).map_or("memory", |known| known.name)
}

/// Whether [`AUTO`] can stand for this backend somewhere.
#[cfg(feature = "cli")]
pub(crate) fn is_auto(name: &str) -> bool {
    KNOWN.iter().any(|known| known.name == name)
}

/// Their crates; that of `memory` is always there.
pub(crate) mod crates {
    #[cfg(feature = "cluster-file")]
    pub use cluster_file;
    #[cfg(feature = "cluster-kubernetes")]
    pub use cluster_kubernetes;
    pub use router_core as core;
}

/// What of them is in the prelude.
pub(crate) mod prelude {
    #[cfg(feature = "cluster-file")]
    pub use cluster_file::{FileCluster, FileClusterSettings};
    #[cfg(feature = "cluster-kubernetes")]
    pub use cluster_kubernetes::{KubernetesCluster, KubernetesClusterSettings};
    pub use router_core::cluster::MemoryCluster;
}
