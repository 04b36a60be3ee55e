//! [`Rule`]: the rights that a member needs, as one list. What is asked of the API server at the start, what a
//! manifest gives, and what an error names come from here.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::settings::Resource;

/// A right that a Role gives in the namespace of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// The API group; empty: the core one.
    pub api_group: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// For what they are needed.
    pub purpose: Purpose,
    /// Why it is needed: the lines of a comment in the Role.
    pub why: &'static str,
}

/// For what a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For the election: without it a member does not start.
    Election,
    /// For what is known of the members by their pods, where `cluster_labels` are set. Optional.
    Pods,
    /// To leave no sessions behind. Optional.
    CleanUp,
    /// To tell of changes of leadership by Events. Optional.
    Events,
}

pub(crate) const LEASES: Rule = Rule {
    api_group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "list", "watch", "create", "update"],
    purpose: Purpose::Election,
    why: "\
Locks and sessions. get: a critical step asks whether its term still holds. list, watch: who holds
what. create: a lock that is new, and the session of a pod. update: heartbeats, and taking and
giving up locks. The Leases cannot be named here, because a session is named by its pod.
No delete: a session is owned by its pod, goes with it, and is used again when the pod restarts.",
};

pub(crate) const DELETE_LEASES: Rule = Rule {
    verbs: &["delete"],
    purpose: Purpose::CleanUp,
    why: "Sessions that ended long ago, and those of a member that leaves, are removed.",
    ..LEASES
};

pub(crate) const PODS: Rule = Rule {
    api_group: "",
    resource: "pods",
    verbs: &["list", "watch"],
    purpose: Purpose::Pods,
    why: "\
A container that has ended is proof that its member has, so its locks are taken at once. Members that
stand by are known by their pods.",
};

pub(crate) const EVENTS: Rule = Rule {
    api_group: "events.k8s.io",
    resource: "events",
    verbs: &["create", "patch"],
    purpose: Purpose::Events,
    why: "Who was elected, and why, is told in the events of a lock. patch: one that repeats is counted.",
};

pub(crate) const CONFIG_MAPS: Rule = Rule {
    api_group: "",
    resource: "configmaps",
    verbs: &["get", "create", "update"],
    purpose: Purpose::Election,
    why: "In the compatibility mode with Camel the locks are entries of one ConfigMap.",
};

/// In the compatibility mode nobody leads without a look at the pods.
pub(crate) const PODS_OF_CAMEL: Rule = Rule {
    verbs: &["get", "list", "watch"],
    purpose: Purpose::Election,
    why: "In the compatibility mode with Camel a leader whose pod is gone or not ready is replaced.",
    ..PODS
};

static WITH_LEASES: &[Rule] = &[LEASES, DELETE_LEASES, PODS, EVENTS];
static WITH_CONFIG_MAP: &[Rule] = &[CONFIG_MAPS, PODS_OF_CAMEL, EVENTS];

/// All rights that a member can use, with those that it cannot do without.
#[must_use]
pub fn rules(resource: Resource) -> &'static [Rule] {
    match resource {
        Resource::Lease => WITH_LEASES,
        Resource::ConfigMap => WITH_CONFIG_MAP,
    }
}

impl Rule {
    /// The rule as it has to stand in the Role, with these verbs.
    #[must_use]
    pub fn yaml(&self, verbs: &[&str]) -> String {
        self.yaml_of(verbs, None)
    }

    /// The same for the one object with this name, where there is only one.
    #[must_use]
    pub fn yaml_of(&self, verbs: &[&str], object: Option<&str>) -> String {
        let rules = split(verbs, object).into_iter().map(|(verbs, object)| {
            let name = object.map(|name| format!("resourceNames: [{name:?}], ")).unwrap_or_default();
            let verbs = verbs.iter().map(|verb| format!("{verb:?}")).collect::<Vec<_>>().join(", ");
            format!(
                "{{apiGroups: [{:?}], resources: [{:?}], {name}verbs: [{verbs}]}}",
                self.api_group, self.resource
            )
        });
        rules.collect::<Vec<_>>().join(" and ")
    }

    /// The rule as objects of a Role.
    pub(crate) fn policy_rules(&self, object: Option<&str>) -> Vec<PolicyRule> {
        let rules = split(self.verbs, object).into_iter().map(|(verbs, object)| PolicyRule {
            api_groups: Some(vec![self.api_group.into()]),
            resources: Some(vec![self.resource.into()]),
            resource_names: object.map(|name| vec![name.to_owned()]),
            verbs: verbs.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        });
        rules.collect()
    }
}

/// Verbs for the object with this name, and those that no name limits: what is created has no name yet.
fn split<'a>(verbs: &[&'a str], object: Option<&'a str>) -> Vec<(Vec<&'a str>, Option<&'a str>)> {
    let (unnamed, named) =
        verbs.iter().copied().partition::<Vec<_>, _>(|verb| object.is_none() || *verb == "create");
    let rules = [(named, object), (unnamed, None)];
    rules.into_iter().filter(|(verbs, _)| !verbs.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stands_in_a_role_as_it_is_named() {
        assert_eq!(
            CONFIG_MAPS.yaml(CONFIG_MAPS.verbs),
            r#"{apiGroups: [""], resources: ["configmaps"], verbs: ["get", "create", "update"]}"#
        );
        assert_eq!(
            CONFIG_MAPS.yaml_of(CONFIG_MAPS.verbs, Some("leaders")),
            r#"{apiGroups: [""], resources: ["configmaps"], resourceNames: ["leaders"], verbs: ["get", "update"]} and {apiGroups: [""], resources: ["configmaps"], verbs: ["create"]}"#
        );
        for resource in [Resource::Lease, Resource::ConfigMap] {
            assert!(rules(resource).iter().any(|rule| rule.purpose == Purpose::Election));
        }
    }
}
