//! Objects that hold one session after the other.
//!
//! A session is of one process and is never used again, but its Lease is: a pod that keeps crashing would
//! leave one behind each time. The Leases of a pod's sessions are called by its uid and a small number, its slots.
//! A process takes the lowest slot that is free: one that does not exist, or whose session is dead, or silent for
//! longer than the takeover wait, and holds no lock. To the election the former session is deleted then, and that is safe at any time.
//!
//! A slot whose session is still named by a lock stays as it is, and the process takes the next one. How that session
//! ended decides how long the lock rests: after `dead=proof` it does not rest at all, while a session that is gone
//! costs the whole takeover wait. Writing over it would lose that, and copying it into each of its locks first would be
//! writes that can fail on the way, by a member that may not want those locks. Nothing waits for such a slot: there
//! are more, and it is free again when its last lock is taken. A pod has at most one for each lock that its processes
//! held when they ended, beside those of its living processes, and all go with the pod.
//!
//! The Lease of a slot, and that of a lock that its session holds, name the slot where a session is named
//! otherwise, and the session itself in one more annotation. Programs that do not know it see one session that
//! lives again after its death: they leave a lock alone while its holder's slot is alive, as they should.

use std::time::Duration;

use cluster_lease::{LockRecord, SessionId, StoreError, StoreKey, StoreRecord, Write};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::cache::Cache;
use crate::codec::{Codec, Decoded};
use crate::names::{INCARNATION_ANNOTATION, RECORD_ANNOTATION, hash, parse_session};

impl Codec {
    /// The Lease that a write makes of the one before, where the session that it is about, or that it makes
    /// the holder of a lock, has this slot.
    pub(crate) fn lease_of(
        &self,
        write: &Write,
        slot: SessionId,
        before: Option<&Lease>,
        now: Timestamp,
    ) -> Lease {
        let mut named = write.clone();
        let session = match (&mut named.key, &mut named.record) {
            (StoreKey::Session(session), _) => Some(std::mem::replace(session, slot)),
            (StoreKey::Lock(_), StoreRecord::Lock { record: LockRecord { holder, .. }, .. }) => {
                holder.as_mut().map(|holder| std::mem::replace(holder, slot))
            }
            _ => None,
        };
        let mut lease = self.encode(&named, before, now);
        let name = lease.metadata.name.clone().unwrap_or_default();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match session.filter(|session| *session != slot) {
            Some(session) => {
                let record = annotations.get(RECORD_ANNOTATION).map_or("", String::as_str);
                let seal = seal(&write.key, &name, record, session);
                annotations.insert(INCARNATION_ANNOTATION.into(), format!("{session} {seal}"));
            }
            None => drop(annotations.remove(INCARNATION_ANNOTATION)),
        }
        lease
    }

    /// What a Lease says; `None`: it belongs to nothing of the group.
    pub(crate) fn record_of(&self, lease: &Lease) -> Result<Option<Decoded>, StoreError> {
        let Some(mut decoded) = self.decode(lease)? else { return Ok(None) };
        let session = sealed(&decoded.key, lease);
        match (&mut decoded.key, &mut decoded.record, session) {
            (StoreKey::Session(slot), _, Some(session)) => *slot = session,
            (StoreKey::Lock(_), Some(StoreRecord::Lock { record, .. }), Some(session)) => {
                record.holder = record.holder.map(|_| session);
            }
            _ => {}
        }
        Ok(Some(decoded))
    }

    /// The lowest slot of the own pod that a session may take, and the Lease to be written over, if it exists;
    /// `None`: sessions have Leases of their own.
    pub(crate) fn free_slot(&self, cache: &Cache) -> Option<(SessionId, Option<Lease>)> {
        let incarnation = self.pod_number()?;
        (0..=u32::MAX).find_map(|generation| self.take_slot(cache, SessionId { incarnation, generation }))
    }

    /// This slot, if it is free.
    pub(crate) fn take_slot(&self, cache: &Cache, slot: SessionId) -> Option<(SessionId, Option<Lease>)> {
        let name = self.group.session_lease(slot);
        let Some(lease) = cache.lease(&name, None) else { return Some((slot, None)) };
        let Ok(Some(Decoded { key: StoreKey::Session(session), record, .. })) = self.record_of(&lease) else {
            return None;
        };
        // What is in it is not overwritten where it cannot be read.
        let Some(StoreRecord::Session { record, .. }) = record else { return None };
        // A process that crashed before it took a lock is never declared dead.
        let wait = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let wait =
            Duration::from_secs(u64::try_from(wait.max(self.takeover_wait_seconds)).unwrap_or_default());
        let ended = record.dead.is_some() || cache.unchanged_for(&name) > wait;
        (ended && !cache.holders(self).contains(&session)).then_some((slot, Some(lease)))
    }

    /// Whether this is what a member has left behind that no pod owns, so that it neither goes nor is used again.
    pub(crate) fn is_left_over(&self, lease: &Lease) -> bool {
        let owned = lease.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        let record = self.record_of(lease).ok().flatten().and_then(|decoded| decoded.record);
        let dead = matches!(record, Some(StoreRecord::Session { record, .. }) if record.dead.is_some());
        dead && !owned
    }

    /// The uid of the own pod, where it owns its sessions.
    fn pod_number(&self) -> Option<u128> {
        let uid = &self.owner.as_ref()?.uid;
        let digits = uid.replace('-', "");
        let digits = if digits.len() == 32 { digits } else { hash(uid, 32) };
        u128::from_str_radix(&digits, 16).or_else(|_| u128::from_str_radix(&hash(uid, 32), 16)).ok()
    }
}

/// The session that a Lease names beside the slot, unless it was edited since.
fn sealed(key: &StoreKey, lease: &Lease) -> Option<SessionId> {
    let annotations = lease.metadata.annotations.as_ref()?;
    let (session, found) = annotations.get(INCARNATION_ANNOTATION)?.split_once(' ')?;
    let session = parse_session(session)?;
    let record = annotations.get(RECORD_ANNOTATION)?;
    (found == seal(key, lease.metadata.name.as_deref()?, record, session)).then_some(session)
}

/// That of a lock is over its record, too: a program that does not know the annotation leaves it as it is when it
/// takes the lock. In a session such a program changes only the record.
fn seal(key: &StoreKey, name: &str, record: &str, session: SessionId) -> String {
    let record = if matches!(key, StoreKey::Lock(_)) { record } else { "" };
    hash(&format!("{name}\n{record}\n{session}"), 8)
}

#[cfg(test)]
mod tests {
    use cluster_lease::{Death, Precondition, SessionRecord};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use router_core::cluster::Member;

    use super::*;
    use crate::names::Group;

    const SLOT: SessionId = SessionId { incarnation: 0xb0d, generation: 0 };
    const FIRST: SessionId = SessionId { incarnation: 7, generation: 0 };
    const SECOND: SessionId = SessionId { incarnation: 8, generation: 0 };

    fn codec() -> Codec {
        let uid = "00000000-0000-0000-0000-000000000b0d".to_owned();
        let owner = Some(OwnerReference { uid, ..OwnerReference::default() });
        Codec { group: Group::default(), owner, takeover_wait_seconds: 15 }
    }

    fn stored(write: &Write, before: Option<&Lease>, version: u64) -> Lease {
        let mut lease = codec().lease_of(write, SLOT, before, Timestamp::UNIX_EPOCH);
        lease.metadata.resource_version = Some(version.to_string());
        lease
    }

    fn session(id: SessionId, dead: Option<Death>) -> Write {
        let record = StoreRecord::Session {
            record: SessionRecord { seq: 3, dead, limits: None },
            member: Member::new("a_1"),
        };
        Write::new(StoreKey::Session(id), Precondition::Absent, record)
    }

    fn lock(holder: SessionId) -> Write {
        let record = LockRecord { holder: Some(holder), term: 4, claim: 1, ..LockRecord::RELEASED };
        let record = StoreRecord::Lock { record, holder: Some("a_1".into()), term: None };
        Write::new(StoreKey::Lock("lock1".parse().unwrap()), Precondition::Absent, record)
    }

    #[test]
    fn records_in_slots_come_back_as_they_were_written() {
        let mut before = None;
        for id in [FIRST, SECOND, SLOT] {
            for write in [session(id, None), lock(id)] {
                let of_lock = matches!(write.key, StoreKey::Lock(_));
                let lease = stored(&write, before.as_ref().filter(|_| of_lock), 9);
                let decoded = codec().record_of(&lease).unwrap().unwrap();
                assert_eq!((decoded.key, decoded.record), (write.key, Some(write.record)));
                before = of_lock.then_some(lease);
            }
        }
    }

    /// As the program reads it that knows nothing of slots: the lock's holder is a session that exists.
    #[test]
    fn to_a_program_without_slots_the_slot_is_the_session() {
        let (session, lock) = (stored(&session(SECOND, None), None, 9), stored(&lock(SECOND), None, 10));
        let decoded = codec().decode(&session).unwrap().unwrap();
        assert_eq!(decoded.key, StoreKey::Session(SLOT));
        assert!(decoded.record.is_some());
        let Some(StoreRecord::Lock { record, .. }) = codec().decode(&lock).unwrap().unwrap().record else {
            panic!()
        };
        assert_eq!(record.holder, Some(SLOT));
        // It takes the lock, and leaves the annotation as it is.
        let other = SessionId { incarnation: 9, generation: 0 };
        let mut taken = codec().encode(&self::lock(other), Some(&lock), Timestamp::UNIX_EPOCH);
        taken.metadata.resource_version = Some("11".into());
        let Some(StoreRecord::Lock { record, .. }) = codec().record_of(&taken).unwrap().unwrap().record
        else {
            panic!()
        };
        assert_eq!(record.holder, Some(other));
    }

    #[test]
    fn an_annotation_that_was_edited_makes_it_another_session() {
        for write in [session(FIRST, None), lock(FIRST)] {
            let mut lease = stored(&write, None, 9);
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            let edited = annotations[INCARNATION_ANNOTATION].replace(&FIRST.to_string(), &SECOND.to_string());
            annotations.insert(INCARNATION_ANNOTATION.into(), edited);
            match codec().record_of(&lease).unwrap().unwrap() {
                Decoded { key: StoreKey::Session(session), .. } => assert_eq!(session, SLOT),
                Decoded { record: Some(StoreRecord::Lock { record, .. }), .. } => {
                    assert_eq!(record.holder, Some(SLOT));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_free_after_a_silence_that_no_living_session_keeps() {
        let (codec, cache) = (codec(), Cache::default());
        let slot = |cache: &Cache| codec.free_slot(cache).unwrap().0.generation;
        for beat in 1..5 {
            cache.note(&codec, &stored(&session(FIRST, None), None, beat)).unwrap();
            tokio::time::advance(Duration::from_secs(14)).await;
            assert_eq!(slot(&cache), 1);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(slot(&cache), 0);
        cache.note(&codec, &stored(&lock(FIRST), None, 9)).unwrap();
        assert_eq!(slot(&cache), 1, "it holds a lock, and how it ended decides how long that rests");
    }

    #[test]
    fn only_a_slot_whose_session_is_dead_and_holds_nothing_is_free() {
        let (codec, cache) = (codec(), Cache::default());
        let slot =
            |cache: &Cache| codec.free_slot(cache).map(|(slot, lease)| (slot.generation, lease.is_some()));
        assert_eq!(slot(&cache), Some((0, false)));
        cache.note(&codec, &stored(&session(FIRST, None), None, 1)).unwrap();
        assert_eq!(slot(&cache), Some((1, false)), "another container of the pod may live");
        cache.note(&codec, &stored(&session(FIRST, Some(Death::Expired)), None, 2)).unwrap();
        assert_eq!(slot(&cache), Some((0, true)));
        cache.note(&codec, &stored(&lock(FIRST), None, 3)).unwrap();
        assert_eq!(slot(&cache), Some((1, false)), "how it died decides how long its lock rests");
        cache.note(&codec, &stored(&lock(SECOND), None, 4)).unwrap();
        assert_eq!(slot(&cache), Some((0, true)));
    }

    #[test]
    fn slots_that_locks_name_are_passed_over_and_are_as_many_as_those_locks_at_most() {
        let (codec, cache) = (codec(), Cache::default());
        let session = |number: u32| SessionId { incarnation: u128::from(number) + 100, generation: 0 };
        let slot = |number| SessionId { generation: number, ..SLOT };
        let note = |write: &Write, slot, version: u64| {
            let mut lease = codec.lease_of(write, slot, None, Timestamp::UNIX_EPOCH);
            lease.metadata.resource_version = Some(version.to_string());
            cache.note(&codec, &lease).unwrap();
        };
        let lock = |number: u32, holder| {
            let name = format!("lock{number}").parse().unwrap();
            Write { key: StoreKey::Lock(name), ..self::lock(holder) }
        };
        // Each process ends with proof while it holds a lock that no other member wants.
        let mut version = 0;
        for number in 0..5 {
            let (free, before) = codec.free_slot(&cache).unwrap();
            assert_eq!((free, before), (slot(number), None), "the next process has a slot at once");
            for write in [self::session(session(number), Some(Death::Proof)), lock(number, session(number))] {
                version += 1;
                note(&write, free, version);
            }
        }
        // They crash on without holding anything, and no more are used.
        for number in 5..10 {
            let (free, _) = codec.free_slot(&cache).unwrap();
            assert_eq!(free, slot(5));
            version += 1;
            note(&self::session(session(number), Some(Death::Proof)), free, version);
        }
        // When a lock is taken, its slot is free again.
        note(&lock(2, SECOND), SECOND, version + 1);
        assert_eq!(codec.free_slot(&cache).unwrap().0, slot(2));
    }
}
