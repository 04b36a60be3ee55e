//! [`KubernetesOperator`]: what can be asked of pods from outside.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::LeaseOperator;
use router_core::cluster::{ClusterError, Handover, LockName, Operator, OperatorError};
use smol_str::SmolStr;

use crate::access;
use crate::clients::Clients;
use crate::codec::Codec;
use crate::place::{place_of, timing_of};
use crate::rules::{LEASES, Purpose, Rule};
use crate::settings::{KubernetesClusterSettings, Resource};
use crate::shared::Shared;
use crate::store::KubernetesStore;

/// What an operator does with Leases.
const REQUESTS: Rule = Rule {
    verbs: &["get", "list", "watch", "create", "delete"],
    purpose: Purpose::Election,
    why: "What is asked of members is a Lease, which is deleted when it is done.",
    ..LEASES
};

/// An [`Operator`] of a group of pods. What is asked is a Lease of its own, `bactrian.request.…`, which belongs
/// to the Pod that it is asked of and goes with it.
///
/// # Guarantees
/// No Lease of a lock or session is written. Members need no right for it that they do not have anyway.
///
/// # Assumptions
/// Whoever may make Leases in the namespace may ask.
#[derive(Debug)]
pub struct KubernetesOperator {
    operator: LeaseOperator,
    /// Where it looks: what is not there may be elsewhere.
    place: String,
}

impl KubernetesOperator {
    /// An operator of the group `settings.group`. It takes no part in any election.
    ///
    /// # Errors
    /// [`ClusterError::Unusable`] when there is no way to an API server, when the timing is not safe, or when
    /// rights are missing; the text says which.
    pub async fn open(settings: KubernetesClusterSettings) -> Result<Self, ClusterError> {
        if settings.resource == Resource::ConfigMap {
            let text = "members in the compatibility mode with Camel cannot be asked for anything: \
                        stop the one that leads instead";
            return Err(ClusterError::Unusable(text.into(), None));
        }
        let (config, _, namespace) = place_of(&settings).await?;
        let timing = timing_of(&settings)?;
        let place = format!("looked for in the namespace {namespace}, group {}", settings.group);
        let codec = Codec { group: settings.group, owner: None, takeover_wait_seconds: 0 };
        let shared = Arc::new(Shared::new(Clients::of_config(config, &timing), namespace, codec));
        if let Ok(client) = shared.clients.ordinary() {
            let missing = access::missing(&client, &shared.namespace, &REQUESTS, None).await;
            if !missing.is_empty() {
                let text = format!(
                    "you may not {} Leases in the namespace {}; your Role needs the rule {}",
                    missing.join(", "),
                    shared.namespace,
                    REQUESTS.yaml(&missing)
                );
                return Err(ClusterError::Unusable(text, None));
            }
        }
        Ok(Self { operator: LeaseOperator::new(KubernetesStore::new(shared), &timing), place })
    }

    /// The error, and where what it is about was looked for.
    fn there(&self, error: OperatorError) -> OperatorError {
        let with = |text: String| format!("{text} ({})", self.place);
        match error {
            OperatorError::NotAsked(text) => OperatorError::NotAsked(with(text)),
            OperatorError::NotDone(text) => OperatorError::NotDone(with(text)),
            other => other,
        }
    }
}

#[async_trait]
impl Operator for KubernetesOperator {
    async fn hand_over(&self, lock: &LockName, patience: Duration) -> Result<Handover, OperatorError> {
        self.operator.hand_over(lock, patience).await.map_err(|error| self.there(error))
    }

    async fn drain(&self, member: Option<&str>, patience: Duration) -> Result<SmolStr, OperatorError> {
        self.operator.drain(member, patience).await.map_err(|error| self.there(error))
    }

    async fn undrain(&self, member: Option<&str>) -> Result<SmolStr, OperatorError> {
        self.operator.undrain(member).await.map_err(|error| self.there(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn in_the_compatibility_mode_nothing_can_be_asked_of_a_member() {
        let settings = KubernetesClusterSettings {
            resource: Resource::ConfigMap,
            ..KubernetesClusterSettings::default()
        };
        let Err(error) = KubernetesOperator::open(settings).await else { panic!("it has no operator") };
        let text = error.to_string();
        assert!(text.contains("cannot be asked for anything: stop the one that leads instead"), "{text}");
    }
}
