//! What Leases are called, and the labels and annotations that they carry.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use cluster_lease::{SessionId, StoreKey};
use router_core::cluster::LockName;
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

/// The label that says which program made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "bactrian";
/// The label that names the group of members.
pub const GROUP_LABEL: &str = "bactrian/group";
/// The label that tells what a Lease is: `lock`, `session` or `request`.
pub const KIND_LABEL: &str = "bactrian/kind";
/// The annotation with the name of a lock as the routes write it.
pub const LOCK_ANNOTATION: &str = "bactrian/lock";
/// The annotation with the routes that use a lock, as a manifest knows them.
pub const ROUTES_ANNOTATION: &str = "bactrian/routes";
/// The annotation with the number of the term, from the first write of whoever leads in it.
pub const TERM_ANNOTATION: &str = "bactrian/term";
/// The annotation with what the election reads.
pub const RECORD_ANNOTATION: &str = "bactrian/record";
/// The annotation that shows whether a Lease was edited by hand.
pub const SEAL_ANNOTATION: &str = "bactrian/seal";
/// The annotation with the states of the routes under a lock: JSON, by the ids of the routes.
pub const STATES_ANNOTATION: &str = "bactrian/states";
/// The annotation with what an operator asks.
pub const REQUEST_ANNOTATION: &str = "bactrian/request";
/// The annotation with the session of a member.
pub const SESSION_ANNOTATION: &str = "bactrian/session";
/// The annotation with the session that is in the Lease of a slot, or that holds a lock from there.
pub const INCARNATION_ANNOTATION: &str = "bactrian/incarnation";
/// The annotation with the host or pod of a member.
pub const HOST_ANNOTATION: &str = "bactrian/host";
/// The annotation with the process id of a member.
pub const PID_ANNOTATION: &str = "bactrian/pid";

/// Longer lock names are cut, and told apart by their hash.
const MAX_PLAIN_BYTES: usize = 150;
const HASH_DIGITS: usize = 16;

/// The name of a group of members that share their locks: a label of DNS, as `bactrian` or `orders-eu`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group(SmolStr);

/// What is wrong with the name of a group.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group has 1 to 63 of the characters a-z, 0-9 and `-`, and begins and ends with a letter or digit")]
pub struct InvalidGroup;

impl FromStr for Group {
    type Err = InvalidGroup;

    fn from_str(name: &str) -> Result<Self, InvalidGroup> {
        if name.len() <= 63 && is_dns_label(name) { Ok(Self(name.into())) } else { Err(InvalidGroup) }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self("bactrian".into())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Group {
    /// The selector of all Leases of the group. It asks for no label that other tools set to values of
    /// their own, as Helm and kustomize do with `app.kubernetes.io/managed-by`.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{GROUP_LABEL}={}", self.0)
    }

    /// The name of the Lease of a lock, for example `bactrian.lock.lock1`. Locks whose names differ in any
    /// byte have Leases whose names differ.
    #[must_use]
    pub fn lock_lease(&self, lock: &LockName) -> String {
        format!("{}.lock.{}", self.0, escape(lock.as_str()))
    }

    /// The name of the Lease of a session.
    #[must_use]
    pub fn session_lease(&self, session: SessionId) -> String {
        format!("{}.session.{session}", self.0)
    }

    pub(crate) fn lease(&self, key: &StoreKey) -> String {
        match key {
            StoreKey::Session(session) => self.session_lease(*session),
            StoreKey::Lock(lock) => self.lock_lease(lock),
            StoreKey::Request(name) => self.request_lease(name),
        }
    }

    /// The name of the Lease of a request, for example `bactrian.request.drain-pod-1-9f86d081884c7d65`.
    #[must_use]
    pub fn request_lease(&self, name: &str) -> String {
        format!("{}.request.{}", self.0, escape(name))
    }

    /// The request whose Lease has this name, if the annotation fits.
    pub(crate) fn request_of(&self, lease: &str, annotation: Option<&str>) -> Option<SmolStr> {
        annotation.filter(|name| self.request_lease(name) == lease).map(Into::into)
    }

    /// The session whose Lease has this name.
    pub(crate) fn session_of(&self, lease: &str) -> Option<SessionId> {
        parse_session(lease.strip_prefix(self.0.as_str())?.strip_prefix(".session.")?)
    }

    /// The lock whose Lease has this name, where the annotation that has its own name is missing or is
    /// that of another lock. Names that were escaped cannot be guessed.
    pub(crate) fn lock_of(&self, lease: &str, annotation: Option<&str>) -> Option<LockName> {
        let annotated = annotation.and_then(|name| name.parse::<LockName>().ok());
        if let Some(lock) = annotated.filter(|lock| self.lock_lease(lock) == lease) {
            return Some(lock);
        }
        let plain = lease.strip_prefix(self.0.as_str())?.strip_prefix(".lock.")?;
        plain.parse().ok().filter(|lock: &LockName| self.lock_lease(lock) == lease)
    }
}

/// The inverse of the display of a session.
pub(crate) fn parse_session(text: &str) -> Option<SessionId> {
    let (incarnation, generation) = text.split_once('-')?;
    let canonical = incarnation.len() == 32 && !incarnation.starts_with('+');
    let incarnation = u128::from_str_radix(incarnation, 16).ok().filter(|_| canonical)?;
    let session = SessionId { incarnation, generation: generation.parse().ok()? };
    (session.to_string() == text).then_some(session)
}

/// A lock name as a part of a Lease name. What is no label of DNS is made one and gets a hash of the
/// whole name; a name that only looks as if it had such a hash gets one too, so that no two meet.
fn escape(name: &str) -> String {
    if name.len() <= MAX_PLAIN_BYTES && is_dns_label(name) && !ends_like_a_hash(name) {
        return name.to_owned();
    }
    let mut escaped = String::new();
    for character in name.chars().take(MAX_PLAIN_BYTES - HASH_DIGITS) {
        match character.to_ascii_lowercase() {
            sound @ ('a'..='z' | '0'..='9') => escaped.push(sound),
            _ if escaped.is_empty() || escaped.ends_with('-') => {}
            _ => escaped.push('-'),
        }
    }
    let escaped = escaped.trim_end_matches('-');
    let escaped = if escaped.is_empty() { "x" } else { escaped };
    format!("{escaped}-{}", hash(name, HASH_DIGITS))
}

pub(crate) fn is_dns_label(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (name.bytes().next(), name.bytes().last()) else { return false };
    sound(first) && sound(last) && name.bytes().all(|byte| sound(byte) || byte == b'-')
}

fn ends_like_a_hash(name: &str) -> bool {
    let Some((_, end)) = name.rsplit_once('-') else { return false };
    end.len() == HASH_DIGITS && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first digits of the SHA-256 of a text.
pub(crate) fn hash(text: &str, digits: usize) -> String {
    let mut hash = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string does not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash.truncate(digits);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str) -> String {
        Group::default().lock_lease(&name.parse().unwrap())
    }

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(lease("lock1"), "bactrian.lock.lock1");
        assert_eq!(lease("orders-eu"), "bactrian.lock.orders-eu");
    }

    #[test]
    fn names_that_differ_in_any_byte_have_leases_that_differ() {
        let long = "x".repeat(1024);
        let longer = format!("{}y", "x".repeat(1023));
        let escaped = lease("Lock_1").strip_prefix("bactrian.lock.").unwrap().to_owned();
        let names = [
            "lock-1", "Lock_1", "lock_1", "LOCK-1", "lock.1", "lock--1", "ü", "ö", "-", "_", "x", &long,
            &longer, &escaped,
        ];
        let mut leases = names.map(lease).to_vec();
        for lease in &leases {
            assert!(lease.len() <= 253, "{lease}");
            assert!(lease.split('.').all(is_dns_label), "{lease}");
        }
        leases.sort();
        leases.dedup();
        assert_eq!(leases.len(), names.len());
    }

    #[test]
    fn groups_do_not_meet() {
        let (one, two) = ("a".parse::<Group>().unwrap(), "a-lock-b".parse::<Group>().unwrap());
        assert_ne!(one.lock_lease(&"b-lock-c".parse().unwrap()), two.lock_lease(&"c".parse().unwrap()));
        for name in ["", "A", "a.b", "-a", "a-", &"a".repeat(64)] {
            assert_eq!(name.parse::<Group>(), Err(InvalidGroup), "{name}");
        }
    }

    #[test]
    fn a_lease_names_its_lock_or_session() {
        let group = Group::default();
        for name in ["lock1", "Lock_1"] {
            assert_eq!(group.lock_of(&lease(name), Some(name)).unwrap().as_str(), name);
        }
        assert_eq!(group.lock_of(&lease("lock1"), Some("lock2")).unwrap().as_str(), "lock1");
        assert_eq!(group.lock_of(&lease("Lock_1"), None), None);
        assert_eq!(group.lock_of("other.lock.lock1", Some("lock1")), None);
        let session = SessionId { incarnation: 7, generation: 2 };
        assert_eq!(group.session_of(&group.session_lease(session)), Some(session));
        assert_eq!(parse_session("7-2"), None);
        assert_eq!(parse_session("00000000000000000000000000000007-02"), None);
    }
}
