//! Records as Leases, and back.
//!
//! The fields of a Lease are for humans and for other tools: who holds, since when. What the election
//! reads is one annotation, with a seal over it and over the holder. What routes keep with a lock is another
//! one. A Lease without a record, or whose seal does not fit, was made or edited outside of the election. Then
//! nothing in it can be relied on, and it counts as what is safe: a session as deleted, a lock as one that any
//! member may lead.
//!
//! # Formats
//!
//! A record says its format, `v=2`, and one that says none has the format 1, which had no timings. A record of a
//! format that is not known here counts as written by a member that is alive, whatever its seal.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_lease::{
    Death, LONGEST_WAIT, Limits, LockRecord, Precondition, SessionRecord, StoreError, StoreKey, StoreRecord,
    Version, Write,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use router_core::cluster::{HIGHEST_TERM, Member};
use smol_str::SmolStr;

use crate::fields::{FORMAT, fields};
use crate::names::{
    GROUP_LABEL, Group, HOST_ANNOTATION, KIND_LABEL, LOCK_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL,
    PID_ANNOTATION, RECORD_ANNOTATION, REQUEST_ANNOTATION, SEAL_ANNOTATION, SESSION_ANNOTATION,
    STATES_ANNOTATION, TERM_ANNOTATION, hash, parse_session,
};
use crate::requests;

/// What a Lease shows without a seal is believed up to this: another program may have written it.
const LONGEST_UNSEALED_WAIT: Duration = Duration::from_secs(3600);

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) version: Version,
    pub(crate) key: StoreKey,
    /// `None`: a session or a request that was edited by hand.
    pub(crate) record: Option<StoreRecord>,
}

/// Makes Leases of records.
pub(crate) struct Codec {
    pub(crate) group: Group,
    /// The own Pod: when it goes, its sessions go.
    pub(crate) owner: Option<OwnerReference>,
    /// The takeover wait, for humans.
    pub(crate) takeover_wait_seconds: i32,
}

impl Codec {
    /// The Lease that a write makes of the one before. What others have put on it stays. A session goes with
    /// its Pod, and so does what is asked of it.
    pub(crate) fn encode(&self, write: &Write, before: Option<&Lease>, now: Timestamp) -> Lease {
        let mut lease = before.cloned().unwrap_or_default();
        let name = self.group.lease(&write.key);
        if before.is_none() && matches!(write.key, StoreKey::Session(_)) {
            lease.metadata.owner_references = self.owner.clone().map(|owner| vec![owner]);
        }
        let spec = lease.spec.take().unwrap_or_default();
        let (spec, kind, text) = match &write.record {
            StoreRecord::Session { record, member } => {
                (self.session_spec(spec, member, now), "session", session_text(*record))
            }
            StoreRecord::Lock { record, holder, .. } => {
                // Its object has a uid once it exists.
                let uid = lease.metadata.uid.as_ref().map(|uid| format!(" uid={uid}")).unwrap_or_default();
                (lock_spec(spec, holder.as_deref(), now), "lock", lock_text(*record) + &uid)
            }
            StoreRecord::Request(request) => {
                (requests::spec(spec, request, now), "request", requests::text(request))
            }
            StoreRecord::Newer { format } => unreachable!("a record of format {format} is never written"),
        };
        let labels = lease.metadata.labels.get_or_insert_default();
        // A tool that has put its own name there would put it back.
        labels.entry(MANAGED_BY_LABEL.into()).or_insert_with(|| MANAGED_BY.into());
        labels.insert(GROUP_LABEL.into(), self.group.to_string());
        labels.insert(KIND_LABEL.into(), kind.into());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match (&write.key, &write.record) {
            (StoreKey::Session(session), StoreRecord::Session { member, .. }) => {
                annotations.insert(SESSION_ANNOTATION.into(), session.to_string());
                note(annotations, HOST_ANNOTATION, member.host.as_ref());
                note(annotations, PID_ANNOTATION, member.pid.as_ref());
            }
            (StoreKey::Lock(lock), StoreRecord::Lock { term, .. }) => {
                annotations.insert(LOCK_ANNOTATION.into(), lock.to_string());
                note(annotations, TERM_ANNOTATION, term.as_ref());
            }
            (StoreKey::Request(name), _) => {
                annotations.insert(REQUEST_ANNOTATION.into(), name.to_string());
            }
            _ => {}
        }
        // Where the write says nothing of states, those of the Lease that it starts from stay.
        if let Some(states) = &write.states {
            annotations.insert(STATES_ANNOTATION.into(), states.clone());
        }
        annotations.insert(SEAL_ANNOTATION.into(), seal(&name, &text, spec.holder_identity.as_deref()));
        annotations.insert(RECORD_ANNOTATION.into(), text);
        lease.metadata.name = Some(name);
        // The server keeps its own account of who wrote which field.
        lease.metadata.managed_fields = None;
        lease.spec = Some(spec);
        lease
    }

    fn session_spec(&self, before: LeaseSpec, member: &Member, now: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(member.id.to_string()),
            acquire_time: before.acquire_time.or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_duration_seconds: Some(self.takeover_wait_seconds),
            ..before
        }
    }

    /// Whether the Lease has the label by which the group is listed and watched.
    pub(crate) fn is_listed(&self, lease: &Lease) -> bool {
        let label = lease.metadata.labels.as_ref().and_then(|labels| labels.get(GROUP_LABEL));
        label.is_some_and(|group| *group == self.group.to_string())
    }

    /// Whether a member wrote what the Lease says, and no one has changed it since.
    pub(crate) fn is_sealed(&self, lease: &Lease) -> bool {
        let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        let text = annotation(RECORD_ANNOTATION);
        text.is_some_and(|text| annotation(SEAL_ANNOTATION) == Some(&seal(name, text, holder(lease))))
    }

    /// What a Lease says; `None`: it belongs to nothing of the group.
    pub(crate) fn decode(&self, lease: &Lease) -> Result<Option<Decoded>, StoreError> {
        let version = version(&lease.metadata)?;
        let Some(name) = lease.metadata.name.as_deref() else { return Ok(None) };
        let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let holder = holder(lease);
        let text = annotation(RECORD_ANNOTATION);
        let newer = text.and_then(newer_format).map(|format| StoreRecord::Newer { format });
        let sealed = text.filter(|_| self.is_sealed(lease));
        if let Some(session) = self.group.session_of(name) {
            let record = sealed.and_then(parse_session_record).zip(holder).map(|(mut record, holder)| {
                record.limits = record.limits.or_else(|| self.limits_of_old(lease.spec.as_ref()));
                let host = annotation(HOST_ANNOTATION).map(Into::into);
                let pid = annotation(PID_ANNOTATION).and_then(|pid| pid.parse().ok());
                StoreRecord::Session { record, member: Member { id: holder.into(), host, pid } }
            });
            return Ok(Some(Decoded { version, key: StoreKey::Session(session), record: newer.or(record) }));
        }
        if let Some(request) = self.group.request_of(name, annotation(REQUEST_ANNOTATION)) {
            let record = sealed.and_then(|text| requests::parse(&request, text)).map(StoreRecord::Request);
            return Ok(Some(Decoded { version, key: StoreKey::Request(request), record: newer.or(record) }));
        }
        let Some(lock) = self.group.lock_of(name, annotation(LOCK_ANNOTATION)) else { return Ok(None) };
        let sealed = sealed.filter(|text| is_of_this_object(text, lease.metadata.uid.as_deref()));
        let record = sealed.and_then(parse_lock_record).unwrap_or(LockRecord::UNKNOWN);
        let term = record.holder.and(annotation(TERM_ANNOTATION)).and_then(parse_number);
        let record = newer.unwrap_or(StoreRecord::Lock { record, holder: holder.map(Into::into), term });
        Ok(Some(Decoded { version, key: StoreKey::Lock(lock), record: Some(record) }))
    }

    /// A session of the format 1 does not say what its member lives by. Its Lease shows the takeover wait, to
    /// which the rest must fit, but without a seal: so it only ever makes the wait longer.
    fn limits_of_old(&self, spec: Option<&LeaseSpec>) -> Option<Limits> {
        let shown = spec?.lease_duration_seconds.filter(|shown| *shown > self.takeover_wait_seconds)?;
        let deadline = Duration::from_secs(u64::try_from(shown).ok()?).min(LONGEST_UNSEALED_WAIT);
        Some(Limits { deadline, stop: Duration::ZERO, rate_error_ppm: 0 })
    }
}

/// Whether the record of a lock was written into this very object. One that was saved and applied again, by a backup
/// for example, has its seal, but is no better than an empty one: meanwhile another member may lead. The record with
/// which an object is made cannot say its uid, and never says that a wait was served.
pub(crate) fn is_of_this_object(text: &str, uid: Option<&str>) -> bool {
    let fields = fields(text);
    // Records of the format 1 do not say it.
    let (Some(uid), true) = (uid, fields.contains_key("v")) else { return true };
    match fields.get("uid") {
        Some(said) => *said == uid,
        None => fields.get("settled") == Some(&"false"),
    }
}

/// Whom the Lease shows as its holder.
pub(crate) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The states that are kept with a lock.
pub(crate) fn states(lease: &Lease) -> Option<String> {
    lease.metadata.annotations.as_ref()?.get(STATES_ANNOTATION).cloned()
}

/// The Lease of a lock as a manifest prints it, so that `kubectl get lease` shows the lock and its routes from the
/// beginning. It has no record: to the election it says as little as a missing one, because it cannot be told from
/// one that was deleted and made again. And so applying the manifest again changes nothing.
#[must_use]
pub fn bare_lock(group: &Group, lock: &router_core::cluster::LockName) -> Lease {
    let labels = [
        (MANAGED_BY_LABEL, MANAGED_BY.to_owned()),
        (GROUP_LABEL, group.to_string()),
        (KIND_LABEL, "lock".into()),
    ];
    let annotations = [(LOCK_ANNOTATION, lock.to_string())];
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    Lease {
        metadata: ObjectMeta {
            name: Some(group.lock_lease(lock)),
            labels: Some(labels.into_iter().map(owned).collect()),
            annotations: Some(annotations.into_iter().map(owned).collect()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    }
}

/// A lock has no duration and is not renewed, so those fields stay empty: what is renewed is the session.
fn lock_spec(before: LeaseSpec, holder: Option<&str>, now: Timestamp) -> LeaseSpec {
    let former = before.holder_identity.as_deref().filter(|holder| !holder.is_empty());
    let taken = holder.is_some() && holder != former;
    let transitions = before.lease_transitions.unwrap_or(0).saturating_add(i32::from(taken));
    LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        acquire_time: if taken {
            Some(MicroTime(now))
        } else {
            before.acquire_time.filter(|_| holder.is_some())
        },
        lease_transitions: Some(transitions),
        renew_time: None,
        lease_duration_seconds: None,
        ..before
    }
}

/// The resourceVersion as a number.
pub(crate) fn version(metadata: &ObjectMeta) -> Result<Version, StoreError> {
    parse_version(metadata.resource_version.as_deref().unwrap_or_default())
}

pub(crate) fn parse_version(text: &str) -> Result<Version, StoreError> {
    parse_number(text)
        .ok_or_else(|| StoreError::unknown(format!("the resourceVersion {text:?} is not a number")))
}

/// The version that a write expects; `None`: that there is no record.
pub(crate) fn expected(write: &Write) -> Option<Version> {
    if let Precondition::Version(version) = write.expect { Some(version) } else { None }
}

fn note(annotations: &mut BTreeMap<String, String>, key: &str, value: Option<&impl ToString>) {
    match value {
        Some(value) => annotations.insert(key.into(), value.to_string()),
        None => annotations.remove(key),
    };
}

/// Not a secret: it protects from errors, not from malice.
fn seal(lease: &str, record: &str, holder: Option<&str>) -> String {
    hash(&format!("{lease}\n{record}\n{}", holder.unwrap_or_default()), 8)
}

/// The format that a record says, if this program does not know it.
pub(crate) fn newer_format(text: &str) -> Option<SmolStr> {
    let format = *fields(text).get("v")?;
    (format != FORMAT).then(|| format.into())
}

fn session_text(record: SessionRecord) -> String {
    let dead = match record.dead {
        None => "",
        Some(Death::Weak) => " dead=weak",
        Some(Death::Expired) => " dead=expired",
        Some(Death::Proof) => " dead=proof",
    };
    format!("v={FORMAT} seq={}{}{dead}", record.seq, limits_text(record.limits))
}

fn parse_session_record(text: &str) -> Option<SessionRecord> {
    let fields = fields(text);
    let dead = match fields.get("dead") {
        None => None,
        Some(&"weak") => Some(Death::Weak),
        Some(&"expired") => Some(Death::Expired),
        Some(&"proof") => Some(Death::Proof),
        Some(_) => return None,
    };
    Some(SessionRecord { seq: parse_number(fields.get("seq")?)?, dead, limits: parse_limits(&fields)? })
}

pub(crate) fn lock_text(record: LockRecord) -> String {
    let LockRecord { holder, term, claim, settled, limits, owed } = record;
    let holder = holder.map(|holder| format!("holder={holder} ")).unwrap_or_default();
    let limits = limits_text(limits);
    let owed = owed.map(|owed| format!(" owed={}", millis(owed))).unwrap_or_default();
    format!("v={FORMAT} {holder}epoch={term} claim={claim} settled={settled}{limits}{owed}")
}

pub(crate) fn parse_lock_record(text: &str) -> Option<LockRecord> {
    if newer_format(text).is_some() {
        return None;
    }
    let fields = fields(text);
    let holder = match fields.get("holder") {
        None => None,
        Some(holder) => Some(parse_session(holder)?),
    };
    let owed = match fields.get("owed") {
        None => None,
        Some(owed) => Some(parse_span(owed)?),
    };
    Some(LockRecord {
        holder,
        term: parse_number(fields.get("epoch")?)?,
        claim: fields.get("claim")?.parse().ok()?,
        settled: fields.get("settled")?.parse().ok()?,
        limits: parse_limits(&fields)?,
        owed,
    })
}

/// In milliseconds, and millionths.
fn limits_text(limits: Option<Limits>) -> String {
    let Some(Limits { deadline, stop, rate_error_ppm }) = limits else { return String::new() };
    format!(" y={} stop={} rho={rate_error_ppm}", millis(deadline), millis(stop))
}

/// `None`: they are not as this program writes them.
#[expect(clippy::option_option, reason = "that there are none is one of the things that a record can say")]
fn parse_limits(fields: &BTreeMap<&str, &str>) -> Option<Option<Limits>> {
    let Some(deadline) = fields.get("y") else { return Some(None) };
    Some(Some(Limits {
        deadline: parse_span(deadline)?,
        stop: parse_span(fields.get("stop")?)?,
        rate_error_ppm: fields.get("rho")?.parse().ok().filter(|rho| *rho < 1_000_000)?,
    }))
}

/// Milliseconds. No member lives by more than the longest wait, and a record that says so must not keep all others
/// waiting for ever.
fn parse_span(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis).filter(|span| *span <= LONGEST_WAIT)
}

/// Rounded up: what is waited for may only become longer.
fn millis(span: Duration) -> u128 {
    span.as_nanos().div_ceil(1_000_000)
}

/// A number that is counted on from: at the end of what a `u64` can be there would be none above it.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number <= HIGHEST_TERM)
}

#[cfg(test)]
mod tests;
