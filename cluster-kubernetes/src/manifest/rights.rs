//! What a member may do, and why: one row per rule of its Role.

use super::Election;
use crate::access::{LEASE_VERBS, POD_VERBS};
use crate::errors::{LEASES, PODS, Rule};

const EVENTS: Rule = Rule { api_group: "events.k8s.io", resource: "events" };
const EVENT_VERBS: &[&str] = &["create", "patch"];

/// One rule of the Role.
pub(super) struct Right {
    pub(super) rule: &'static Rule,
    pub(super) verbs: &'static [&'static str],
    /// Lines of a comment.
    pub(super) why: &'static [&'static str],
}

/// The rules that the features in use need, and nothing more.
pub(super) fn of(election: &Election) -> Vec<Right> {
    let mut rights = vec![Right {
        rule: &LEASES,
        verbs: LEASE_VERBS,
        why: &[
            "Locks and sessions. get: a critical step asks whether its term still holds. list, watch: who holds",
            "what. create: each start of a member is a session of its own. update: heartbeats, and taking and",
            "giving up locks. The Leases cannot be named here, because a session is named when it starts.",
            "No delete: a session is owned by its pod, and goes with it.",
        ],
    }];
    if election.pod_labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
        rights.push(Right {
            rule: &PODS,
            verbs: POD_VERBS,
            why: &[
                "A container that has ended is proof that its member has, so its locks are taken at once.",
            ],
        });
    }
    rights.push(Right {
        rule: &EVENTS,
        verbs: EVENT_VERBS,
        why: &[
            "Who was elected, and why, is told in the events of a lock. patch: one that repeats is counted.",
        ],
    });
    rights
}
