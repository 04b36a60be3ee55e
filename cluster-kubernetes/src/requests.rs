//! What operators ask, as Leases.

use cluster_lease::Request;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::fields::{FORMAT, fields};
use crate::names::parse_session;

const HAND_OVER: &str = "handover ";
const DRAIN: &str = "drain ";

/// The holder is the member of which something is asked, where the request names one.
pub(crate) fn spec(before: LeaseSpec, request: &Request, now: Timestamp) -> LeaseSpec {
    let member = match request {
        Request::HandOver { .. } => None,
        Request::Drain { member, .. } => Some(member.to_string()),
    };
    LeaseSpec {
        holder_identity: member,
        acquire_time: before.acquire_time.or(Some(MicroTime(now))),
        ..before
    }
}

/// What its name does not say.
pub(crate) fn text(request: &Request) -> String {
    let text = match request {
        Request::HandOver { holder, claim, .. } => format!("holder={holder} claim={claim}"),
        Request::Drain { done_by: None, .. } => "asked".into(),
        Request::Drain { done_by: Some(member), .. } => format!("done-by={member}"),
    };
    format!("v={FORMAT} {text}")
}

/// The request with this name.
pub(crate) fn parse(name: &str, text: &str) -> Option<Request> {
    let fields = fields(text);
    if let Some(lock) = name.strip_prefix(HAND_OVER) {
        let holder = parse_session(fields.get("holder")?)?;
        return Some(Request::HandOver {
            lock: lock.parse().ok()?,
            holder,
            claim: fields.get("claim")?.parse().ok()?,
        });
    }
    let member = name.strip_prefix(DRAIN)?.into();
    Some(Request::Drain { member, done_by: fields.get("done-by").map(|member| (*member).into()) })
}

#[cfg(test)]
mod tests {
    use cluster_lease::SessionId;

    use super::*;

    #[test]
    fn requests_come_back_as_they_were_written() {
        let holder = SessionId { incarnation: 7, generation: 1 };
        let requests = [
            Request::HandOver { lock: "two words".parse().unwrap(), holder, claim: 3 },
            Request::Drain { member: "pod-1".into(), done_by: None },
            Request::Drain { member: "pod-1".into(), done_by: Some("pod-1_00000007".into()) },
        ];
        for request in requests {
            assert_eq!(parse(&request.name(), &text(&request)), Some(request));
        }
        assert_eq!(parse("handover lock1", "claim=3"), None);
        assert_eq!(parse("restart pod-1", "asked"), None);
    }
}
