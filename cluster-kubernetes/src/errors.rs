//! What the API server's answers mean to the election, and to whoever reads the log.

use cluster_lease::StoreError;
use kube::core::Status;

use crate::rules::Rule;

/// What was asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestContext<'a> {
    pub(crate) verb: &'static str,
    pub(crate) rule: &'a Rule,
    pub(crate) namespace: &'a str,
    /// The object, where there is only one.
    pub(crate) object: Option<&'a str>,
    pub(crate) by: Who,
}

/// Who asks, and reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A member, in its log.
    Member,
    /// A person with a tool, who is no member.
    Person,
}

impl RequestContext<'_> {
    fn missing_rule(&self) -> String {
        let Self { verb, rule, namespace, object, by } = self;
        let (who, whose) = match by {
            Who::Member => ("this member", "its"),
            Who::Person => ("you", "your"),
        };
        format!(
            "{who} may not {verb} {} in the namespace {namespace}; {whose} Role needs the rule {}",
            rule.resource,
            rule.yaml_of(&[verb], *object)
        )
    }

    /// Whether a refusal is about rights: quotas, admission and the security of pods are 403 as well, and no rule
    /// of a Role helps there. Every authorizer of the API server is quoted in these words.
    fn lacks_right(&self, status: &Status) -> bool {
        status.code == 403 && status.message.contains(&format!(" cannot {} resource \"", self.verb))
    }
}

/// The error of a request.
pub(crate) fn error(asked: RequestContext<'_>, error: kube::Error) -> StoreError {
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
pub(crate) fn refusal(asked: RequestContext<'_>, status: &Status) -> StoreError {
    match (status.code, status.reason.as_str()) {
        (409, "Conflict" | "AlreadyExists") | (404, "NotFound") if asked.writes() => StoreError::Conflict,
        _ if asked.lacks_right(status) => {
            StoreError::unknown(format!("{}; the API server: {}", asked.missing_rule(), status.message))
        }
        (401, _) => StoreError::unknown(format!(
            "the API server does not accept the credentials, and those that were read anew neither: 401 {}",
            status.message
        )),
        (code, reason) => StoreError::unknown(format!(
            "the API server did not {} {}: {code} {reason}: {}",
            asked.verb, asked.rule.resource, status.message
        )),
    }
}

impl RequestContext<'_> {
    fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "delete")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::LEASES;

    const UPDATE: RequestContext<'_> =
        RequestContext { verb: "update", rule: &LEASES, namespace: "shop", object: None, by: Who::Member };

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
        let list = RequestContext { verb: "list", ..UPDATE };
        assert!(matches!(refusal(list, &status(404, "NotFound")), StoreError::Unknown(..)));
    }

    #[test]
    fn a_missing_right_names_the_rule() {
        let mut forbidden = status(403, "Forbidden");
        forbidden.message =
            "leases.coordination.k8s.io \"l\" is forbidden: User \"u\" cannot update resource \"leases\" in \
                             API group \"coordination.k8s.io\" in the namespace \"shop\""
                .into();
        let text = refusal(UPDATE, &forbidden).to_string();
        let rule = r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["update"]}"#;
        assert!(text.contains(rule) && text.contains("namespace shop"), "{text}");
        assert!(text.starts_with("this member may not") && text.ends_with(&forbidden.message), "{text}");
        let text = refusal(RequestContext { by: Who::Person, ..UPDATE }, &forbidden).to_string();
        assert!(text.starts_with("you may not update") && text.contains("your Role needs"), "{text}");
    }

    #[test]
    fn another_refusal_names_no_rule() {
        let mut full = status(403, "Forbidden");
        full.message = "leases \"l\" is forbidden: exceeded quota: leases, requested: count/leases=1".into();
        let text = refusal(UPDATE, &full).to_string();
        assert!(text.contains(&full.message) && !text.contains("Role"), "{text}");
    }
}
