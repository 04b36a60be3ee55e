//! What the API server's answers mean to the election, and to whoever reads the log.

use cluster_lease::StoreError;
use kube::core::Status;

/// What was asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    pub(crate) verb: &'static str,
    pub(crate) rule: &'a Rule,
    pub(crate) namespace: &'a str,
}

/// A right that a Role gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) api_group: &'static str,
    pub(crate) resource: &'static str,
}

pub(crate) const LEASES: Rule = Rule { api_group: "coordination.k8s.io", resource: "leases" };
pub(crate) const PODS: Rule = Rule { api_group: "", resource: "pods" };

impl Rule {
    /// The rule as it has to stand in the Role.
    pub(crate) fn yaml(&self, verbs: &[&str]) -> String {
        let verbs = verbs.iter().map(|verb| format!("{verb:?}")).collect::<Vec<_>>().join(", ");
        format!("{{apiGroups: [{:?}], resources: [{:?}], verbs: [{verbs}]}}", self.api_group, self.resource)
    }
}

impl Asked<'_> {
    fn missing_rule(&self) -> String {
        let Self { verb, rule, namespace } = self;
        format!(
            "this member may not {verb} {} in the namespace {namespace}; its Role needs the rule {}",
            rule.resource,
            rule.yaml(&[verb])
        )
    }
}

/// The error of a request.
pub(crate) fn error(asked: Asked<'_>, error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) => refusal(asked, &status),
        other => StoreError::Unknown(
            format!("the API server did not {} {}", asked.verb, asked.rule.resource),
            Some(other.into()),
        ),
    }
}

/// An answer that is not what was asked for.
///
/// Only what the server itself says about the state of the object is a conflict: that it has changed, that
/// it exists already, or that it is gone. All else may be the word of a proxy or of an overloaded server,
/// and the write may still be applied.
pub(crate) fn refusal(asked: Asked<'_>, status: &Status) -> StoreError {
    match (status.code, status.reason.as_str()) {
        (409, "Conflict" | "AlreadyExists") | (404, "NotFound") if asked.writes() => StoreError::Conflict,
        (403, _) => StoreError::unknown(asked.missing_rule()),
        (code, reason) => StoreError::unknown(format!(
            "the API server did not {} {}: {code} {reason}: {}",
            asked.verb, asked.rule.resource, status.message
        )),
    }
}

impl Asked<'_> {
    fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: Asked<'_> = Asked { verb: "update", rule: &LEASES, namespace: "shop" };

    fn status(code: u16, reason: &str) -> Status {
        Status { code, reason: reason.into(), message: "because".into(), ..Status::default() }
    }

    #[test]
    fn only_the_state_of_the_object_is_a_conflict() {
        for (code, reason) in [(409, "Conflict"), (409, "AlreadyExists"), (404, "NotFound")] {
            assert!(
                matches!(refusal(UPDATE, &status(code, reason)), StoreError::Conflict),
                "{code} {reason}"
            );
        }
        for (code, reason) in
            [(409, ""), (404, ""), (429, "TooManyRequests"), (500, "InternalError"), (504, "Timeout")]
        {
            assert!(
                matches!(refusal(UPDATE, &status(code, reason)), StoreError::Unknown(..)),
                "{code} {reason}"
            );
        }
        let list = Asked { verb: "list", ..UPDATE };
        assert!(matches!(refusal(list, &status(404, "NotFound")), StoreError::Unknown(..)));
    }

    #[test]
    fn a_missing_right_names_the_rule() {
        let text = refusal(UPDATE, &status(403, "Forbidden")).to_string();
        let rule = r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["update"]}"#;
        assert!(text.contains(rule) && text.contains("namespace shop"), "{text}");
    }
}
