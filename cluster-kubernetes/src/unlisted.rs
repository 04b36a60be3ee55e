//! A Lease that has the name of a lock's but not the label of the group, or not the name of the lock that it is of,
//! so that no list shows it as the record of the lock.
//!
//! The label may have been removed, the Lease may have been made by hand, or it may belong to another program.
//! To the election the lock has no record; it is the creation of one that says that the name is taken.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cluster_lease::StoreRecord;
use k8s_openapi::api::coordination::v1::Lease;
use router_core::backoff::Backoff;
use tokio::time::Instant;

use crate::codec::{Codec, Decoded, holder};
use crate::names::GROUP_LABEL;

/// Annotations of the group, and of a tool that writes down what it has applied.
const HARMLESS: &[&str] = &["bactrian/", "kubectl.kubernetes.io/"];

/// The pause before a foreign Lease is looked at again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is done about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// It is of the group: the view will show it.
    Listed,
    /// A claim may be written over it, with the labels of the group. The claim is one of a lock without a
    /// record, so it owes the whole takeover wait, whatever the Lease says.
    Adopt,
    /// It is left alone. The text says why, and what to do.
    Foreign(String),
}

impl Unlisted {
    /// Adopted is what a member wrote, and what belongs to no other program as far as can be seen: it has
    /// neither a holder nor annotations of others.
    pub(crate) fn of(codec: &Codec, lease: &Lease, namespace: &str) -> Self {
        // One of a lock whose name cannot be guessed needs the annotation with it, too.
        if codec.is_listed(lease) && matches!(codec.record_of(lease), Ok(Some(_)) | Err(_)) {
            return Self::Listed;
        }
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        if let Ok(Some(Decoded { record: Some(StoreRecord::Newer { format }), .. })) = codec.record_of(lease)
        {
            return Self::Foreign(format!(
                "the Lease {name} in the namespace {namespace} has lost the label {GROUP_LABEL}={}, and its record has \
                 the format {format}, which only a newer version of this program reads: update this member, or set the \
                 label again",
                codec.group
            ));
        }
        if codec.is_sealed(lease) {
            return Self::Adopt;
        }
        let annotations = lease.metadata.annotations.iter().flatten().map(|(key, _)| key);
        let foreign = annotations.into_iter().find(|key| HARMLESS.iter().all(|ours| !key.starts_with(ours)));
        let sign = match (holder(lease), foreign) {
            (Some(holder), _) => format!("its holder is `{holder}`"),
            (None, Some(key)) => format!("it has the annotation `{key}`"),
            (None, None) => return Self::Adopt,
        };
        Self::Foreign(format!(
            "the Lease {name} in the namespace {namespace} has the name of this lock but not the label \
             {GROUP_LABEL}={} with a record of it, and {sign}: another program may use it for its own election, so it is left alone \
             and no member leads the lock; choose another lock name or `cluster.kubernetes.group`, or delete that Lease",
            codec.group,
        ))
    }
}

/// The foreign Leases that were met, by name: each is asked for with pauses that grow.
#[derive(Default)]
pub(crate) struct ForeignLeases(Mutex<HashMap<String, Met>>);

struct Met {
    text: String,
    backoff: Backoff,
    until: Instant,
}

impl ForeignLeases {
    /// What was wrong with it, while it is too soon to look again.
    pub(crate) fn met(&self, name: &str) -> Option<String> {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.get(name).filter(|met| Instant::now() < met.until).map(|met| met.text.clone())
    }

    pub(crate) fn note(&self, name: &str, text: &str) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = met.remove(name).map(|met| met.backoff);
        let mut backoff = known.unwrap_or_else(|| Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        let until = Instant::now() + backoff.next(None);
        met.insert(name.to_owned(), Met { text: text.to_owned(), backoff, until });
    }

    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use cluster_lease::{LockRecord, Precondition, SessionId, StoreKey, StoreRecord, Write};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::names::Group;

    fn codec() -> Codec {
        Codec { group: Group::default(), owner: None, takeover_wait_seconds: 15 }
    }

    fn lease(annotations: &serde_json::Value, holder: &str) -> Lease {
        let lease = json!({
            "metadata": {"name": "bactrian.lock.lock1", "annotations": annotations, "resourceVersion": "7"},
            "spec": {"holderIdentity": holder},
        });
        serde_json::from_value(lease).unwrap()
    }

    /// As a leader wrote it.
    fn led() -> Lease {
        let holder = Some(SessionId { incarnation: 7, generation: 0 });
        let record = LockRecord { holder, term: 3, claim: 1, ..LockRecord::RELEASED };
        let record = StoreRecord::Lock { record, holder: Some("pod-1_1".into()), term: None };
        let write = Write::new(StoreKey::Lock("lock1".parse().unwrap()), Precondition::Absent, record);
        let mut lease = codec().encode(&write, None, Timestamp::UNIX_EPOCH);
        lease.metadata.resource_version = Some("7".into());
        lease
    }

    #[test]
    fn what_belongs_to_no_other_program_is_adopted() {
        let of = |lease: &Lease| Unlisted::of(&codec(), lease, "shop");
        assert_eq!(of(&led()), Unlisted::Listed);
        let mut stripped = led();
        stripped.metadata.labels.as_mut().unwrap().remove(GROUP_LABEL);
        assert_eq!(of(&stripped), Unlisted::Adopt, "its seal shows that a member wrote it");
        assert_eq!(of(&lease(&json!({}), "")), Unlisted::Adopt);
        let mut nameless = led();
        nameless.metadata.name = Some("bactrian.lock.lock-1-0123456789abcdef".into());
        nameless.metadata.annotations = None;
        nameless.spec = None;
        assert_eq!(of(&nameless), Unlisted::Adopt, "it says of no lock that it is its record");
        let applied =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "bactrian/lock": "lock1"});
        assert_eq!(of(&lease(&applied, "")), Unlisted::Adopt);
    }

    #[test]
    fn what_a_newer_version_has_written_is_left_alone() {
        let mut newer = led();
        newer.metadata.labels.as_mut().unwrap().remove(GROUP_LABEL);
        let annotations = newer.metadata.annotations.as_mut().unwrap();
        annotations.insert("bactrian/record".into(), "v=99 something=else".into());
        let Unlisted::Foreign(text) = Unlisted::of(&codec(), &newer, "shop") else { panic!("taken over") };
        assert!(text.contains("the format 99"), "{text}");
    }

    #[test]
    fn what_another_program_may_use_is_named_and_left_alone() {
        for (annotations, holder, sign) in [
            (json!({}), "other-0", "its holder is `other-0`"),
            (json!({"example.com/owner": "x"}), "", "it has the annotation `example.com/owner`"),
            // Edited by hand, so the seal does not fit.
            (json!({"bactrian/record": "epoch=3 claim=1 settled=true", "bactrian/seal": "0"}), "me", "`me`"),
        ] {
            let Unlisted::Foreign(text) = Unlisted::of(&codec(), &lease(&annotations, holder), "shop") else {
                panic!("{annotations} {holder}")
            };
            assert!(
                text.contains(sign) && text.contains("bactrian.lock.lock1 in the namespace shop"),
                "{text}"
            );
            assert!(text.contains("`cluster.kubernetes.group`"), "{text}");
        }
    }
}
