//! Tests of the codec.

use cluster_lease::SessionId;

use super::*;
use crate::names::INCARNATION_ANNOTATION;

fn codec() -> Codec {
    Codec { group: Group::default(), owner: None, takeover_wait_seconds: 15 }
}

fn session() -> SessionId {
    SessionId { incarnation: 0x1a2b_3c4d << 96, generation: 1 }
}

fn lock_write(record: LockRecord, holder: Option<&str>) -> Write {
    let key = StoreKey::Lock("Lock_1".parse().unwrap());
    Write::new(
        key,
        Precondition::Absent,
        StoreRecord::Lock { record, holder: holder.map(Into::into), term: None },
    )
}

fn stored(write: &Write, before: Option<&Lease>, version: u64) -> Lease {
    let mut lease = codec().encode(write, before, Timestamp::UNIX_EPOCH);
    lease.metadata.resource_version = Some(version.to_string());
    lease
}

const LED: LockRecord = LockRecord { term: 4, claim: u64::MAX, ..LockRecord::RELEASED };

fn limits() -> Limits {
    cluster_lease::Settings::default().limits()
}

#[test]
fn records_come_back_as_they_were_written() {
    for dead in [None, Some(Death::Weak), Some(Death::Expired), Some(Death::Proof)] {
        let member = Member { id: "pod-1_1a2b3c4d".into(), host: Some("pod-1".into()), pid: Some(7) };
        let record =
            StoreRecord::Session { record: SessionRecord { seq: 3, dead, limits: Some(limits()) }, member };
        let write = Write::new(StoreKey::Session(session()), Precondition::Absent, record);
        let decoded = codec().decode(&stored(&write, None, 9)).unwrap().unwrap();
        assert_eq!((decoded.version, decoded.key, decoded.record), (9, write.key, Some(write.record)));
    }
    let waiting = LockRecord { settled: false, owed: Some(Duration::from_millis(14_852)), ..LED };
    for record in [LED, waiting, LockRecord { holder: Some(session()), limits: Some(limits()), ..waiting }] {
        let write = lock_write(record, record.holder.map(|_| "pod-1_1a2b3c4d"));
        let decoded = codec().decode(&stored(&write, None, 9)).unwrap().unwrap();
        assert_eq!((decoded.key, decoded.record), (write.key, Some(write.record)));
    }
}

/// Whatever a sealed record says: what is read of it is written as something that is read as the same. A text of the
/// corpus is the name of a Lease, its holder, and its record.
#[test]
fn fuzz_records() {
    testkit::fuzz::fuzz(include_str!("../../corpus/lease.txt"), |text| {
        let mut lines = text.splitn(3, '\n');
        let (Some(name), Some(holder), Some(record)) = (lines.next(), lines.next(), lines.next()) else {
            return;
        };
        let request = name.contains(' ').then_some(name);
        let name = request.map_or(name.to_owned(), |request| codec().group.request_lease(request));
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.clone());
        lease.metadata.resource_version = Some("9".into());
        lease.spec.get_or_insert_default().holder_identity = Some(holder.into());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(RECORD_ANNOTATION.into(), record.into());
        note(annotations, REQUEST_ANNOTATION, request.as_ref());
        annotations.insert(
            SEAL_ANNOTATION.into(),
            seal(&name, record, Some(holder).filter(|holder| !holder.is_empty())),
        );
        let Ok(Some(decoded)) = codec().decode(&lease) else { return };
        let limits = match &decoded.record {
            None | Some(StoreRecord::Newer { .. } | StoreRecord::Request(_)) => None,
            Some(StoreRecord::Session { record, .. }) => record.limits,
            Some(StoreRecord::Lock { record, .. }) => record.limits,
        };
        // The election adds and scales them.
        let _ = limits.map(|limits| limits.rest());
        let Some(record) = decoded.record.filter(|record| !matches!(record, StoreRecord::Newer { .. }))
        else {
            return;
        };
        let write = Write::new(decoded.key, Precondition::Absent, record);
        let again = codec().decode(&stored(&write, None, 9)).unwrap().unwrap();
        assert_eq!((again.key, again.record), (write.key, Some(write.record)));
    });
}

#[test]
fn a_lock_shows_its_holder_and_counts_transitions() {
    let held = lock_write(LockRecord { holder: Some(session()), ..LED }, Some("pod-1_1a2b3c4d"));
    let first = stored(&held, None, 1);
    let spec = first.spec.clone().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("pod-1_1a2b3c4d"));
    assert_eq!((spec.lease_transitions, spec.renew_time), (Some(1), None));
    let free = stored(&lock_write(LED, None), Some(&first), 2);
    assert_eq!(free.spec.as_ref().unwrap().holder_identity, None);
    assert_eq!(free.spec.as_ref().unwrap().lease_transitions, Some(1));
    let again = stored(&held, Some(&free), 3);
    assert_eq!(again.spec.unwrap().lease_transitions, Some(2));
}

#[test]
fn a_lock_shows_its_term_once_somebody_who_leads_has_written_it() {
    let term = |lease: &Lease| lease.metadata.annotations.as_ref().unwrap().get(TERM_ANNOTATION).cloned();
    let claim = LockRecord { holder: Some(session()), claim: 1, settled: false, ..LED };
    let claimed = stored(&lock_write(claim, Some("pod-1_1a2b3c4d")), None, 9);
    assert_eq!(term(&claimed), None);
    let settled = LockRecord { term: 9, settled: true, ..claim };
    let mut write = lock_write(settled, Some("pod-1_1a2b3c4d"));
    if let StoreRecord::Lock { term, .. } = &mut write.record {
        *term = Some(9);
    }
    let settled = stored(&write, Some(&claimed), 12);
    assert_eq!(term(&settled).as_deref(), Some("9"));
    let Some(StoreRecord::Lock { term: said, .. }) = codec().decode(&settled).unwrap().unwrap().record else {
        panic!("it is a lock")
    };
    assert_eq!(said, Some(9));
    for next in [LED, LockRecord { claim: 2, term: 10, ..claim }] {
        assert_eq!(term(&stored(&lock_write(next, None), Some(&settled), 13)), None);
    }
}

#[test]
fn what_others_put_on_a_lease_stays() {
    let mut before = stored(&lock_write(LED, None), None, 1);
    before.metadata.uid = Some("u".into());
    before.metadata.labels.get_or_insert_default().insert("team".into(), "a".into());
    let after = stored(&lock_write(LED, None), Some(&before), 2);
    assert_eq!(after.metadata.labels.unwrap()["team"], "a");
    assert_eq!(after.metadata.uid.as_deref(), Some("u"));
}

#[test]
fn nothing_is_known_of_a_lock_that_was_edited_by_hand() {
    let held = lock_write(LockRecord { holder: Some(session()), ..LED }, Some("pod-1_1a2b3c4d"));
    let lease = stored(&held, None, 1);
    let mut edits = vec![lease.clone(), lease.clone(), lease.clone(), lease.clone()];
    edits[0].spec.as_mut().unwrap().holder_identity = None;
    edits[1].spec.as_mut().unwrap().holder_identity = Some("me".into());
    edits[2].metadata.annotations.as_mut().unwrap().insert(RECORD_ANNOTATION.into(), lock_text(LED));
    edits[3].metadata.annotations.as_mut().unwrap().remove(RECORD_ANNOTATION);
    for edit in edits {
        let decoded = codec().decode(&edit).unwrap().unwrap();
        let Some(StoreRecord::Lock { record, .. }) = decoded.record else { panic!() };
        assert_eq!(record, LockRecord::UNKNOWN);
    }
}

#[test]
fn a_session_that_was_edited_by_hand_counts_as_deleted() {
    let record = StoreRecord::Session {
        record: SessionRecord { seq: 3, dead: None, limits: None },
        member: Member::new("a_1"),
    };
    let write = Write::new(StoreKey::Session(session()), Precondition::Absent, record);
    let mut lease = stored(&write, None, 1);
    lease.metadata.annotations.as_mut().unwrap().insert(RECORD_ANNOTATION.into(), "seq=4".into());
    assert_eq!(codec().decode(&lease).unwrap().unwrap().record, None);
}

#[test]
fn nothing_is_known_of_a_lock_that_a_manifest_made() {
    let mut lease = bare_lock(&Group::default(), &"Lock_1".parse().unwrap());
    lease.metadata.resource_version = Some("1".into());
    let decoded = codec().decode(&lease).unwrap().unwrap();
    assert_eq!(
        decoded.record,
        Some(StoreRecord::Lock { record: LockRecord::UNKNOWN, holder: None, term: None })
    );
}

/// What was stored by the programs that wrote a format. Those of `2-without-uid` were the first that wrote the format
/// 2, and did not say the uid of the object that a record was written into.
fn sample(format: &str) -> Vec<Lease> {
    let text = match format {
        "1" => include_str!("samples/1.json"),
        "2-without-uid" => include_str!("samples/2-without-uid.json"),
        "2" => include_str!("samples/2.json"),
        other => panic!("no program has written {other}"),
    };
    serde_json::from_value(serde_json::from_str::<serde_json::Value>(text).unwrap()["items"].take()).unwrap()
}

const SAMPLED: SessionId =
    SessionId { incarnation: 0x1a2b_3c4d_0000_4000_8000_0000_0000_0001, generation: 0 };
/// Where that session is in the samples that have it in a slot.
const SLOT: SessionId = SessionId { incarnation: 0x9f8e_7d6c_5b4a_4039_8281_706f_5e4d_3c2b, generation: 0 };

/// What a sample says: alive, ended, claimed, led, released, and a request; the other ways to have ended, and the other
/// requests; alive, ended, claimed and led with the session in a slot.
fn said_by_samples(limits: Option<Limits>, owed: Option<Duration>) -> Vec<StoreRecord> {
    let id = "clock-0_1a2b3c4d";
    let member = Member { id: id.into(), host: Some("clock-0".into()), pid: Some(7) };
    let alive = |dead| StoreRecord::Session {
        record: SessionRecord { seq: 7, dead, limits },
        member: member.clone(),
    };
    let released = LockRecord { term: 40, claim: 1, ..LockRecord::RELEASED };
    let led = LockRecord { holder: Some(SAMPLED), limits, ..released };
    let lock = |record: LockRecord| StoreRecord::Lock {
        record,
        holder: record.holder.map(|_| id.into()),
        // The leader writes it down when it settles its claim.
        term: record.holder.filter(|_| record.settled).map(|_| 40),
    };
    let drain = |done_by| cluster_lease::Request::Drain { member: "clock-0".into(), done_by };
    let hand_over =
        cluster_lease::Request::HandOver { lock: "lock1".parse().unwrap(), holder: SAMPLED, claim: 1 };
    let claimed = lock(LockRecord { settled: false, owed, ..led });
    vec![
        alive(None),
        alive(Some(Death::Expired)),
        claimed.clone(),
        lock(led),
        lock(released),
        StoreRecord::Request(drain(None)),
        alive(Some(Death::Weak)),
        alive(Some(Death::Proof)),
        StoreRecord::Request(drain(Some(id.into()))),
        StoreRecord::Request(hand_over),
        alive(None),
        alive(Some(Death::Expired)),
        claimed,
        lock(led),
    ]
}

fn decoded(leases: &[Lease]) -> Vec<StoreRecord> {
    let decoded = leases.iter().map(|lease| codec().record_of(lease).unwrap().unwrap());
    let check = |decoded: &Decoded| match &decoded.key {
        StoreKey::Session(session) => assert_eq!(*session, SAMPLED),
        StoreKey::Lock(lock) => assert_eq!(lock.as_str(), "lock1"),
        StoreKey::Request(_) => {}
    };
    decoded.inspect(check).map(|decoded| decoded.record.unwrap()).collect()
}

#[test]
fn every_format_that_was_ever_written_is_read() {
    assert_eq!(decoded(&sample("1")), said_by_samples(None, None));
    let owed = Duration::from_millis(14_852);
    let said = said_by_samples(Some(limits()), Some(owed));
    assert_eq!(decoded(&sample("2")), said);
    // Where it is not known whether the record was written into this object, no wait was served for sure.
    let doubtful = said.into_iter().map(|record| match record {
        StoreRecord::Lock { record: LockRecord { settled: true, .. }, holder, .. } => {
            StoreRecord::Lock { record: LockRecord::UNKNOWN, holder, term: None }
        }
        certain => certain,
    });
    assert_eq!(decoded(&sample("2-without-uid")), doubtful.collect::<Vec<_>>());
}

/// A change of what is written is a new format: it gets a number and a sample of its own.
#[test]
fn what_is_written_is_the_newest_sample() {
    for (lease, record) in sample("2").iter().zip(decoded(&sample("2"))) {
        let key = codec().record_of(lease).unwrap().unwrap().key;
        let annotations = lease.metadata.annotations.as_ref().unwrap();
        let slot = if annotations.contains_key(INCARNATION_ANNOTATION) { SLOT } else { SAMPLED };
        // The object that is there, as far as it matters.
        let mut before = Lease::default();
        before.metadata.uid = lease.metadata.uid.clone();
        let write = Write { states: states(lease), ..Write::new(key, Precondition::Version(1), record) };
        let written = codec().lease_of(&write, slot, Some(&before), Timestamp::UNIX_EPOCH);
        let shown = |lease: &Lease| {
            let ObjectMeta { name, labels, annotations, .. } = lease.metadata.clone();
            (name, labels, annotations, holder(lease).map(str::to_owned))
        };
        assert_eq!(shown(&written), shown(lease));
    }
}

#[test]
fn a_session_of_the_first_format_is_given_the_wait_that_its_lease_shows() {
    let mut lease = sample("1").remove(0);
    let limits = |lease: &Lease| match codec().decode(lease).unwrap().unwrap().record {
        Some(StoreRecord::Session { record, .. }) => record.limits,
        other => panic!("{other:?}"),
    };
    assert_eq!(limits(&lease), None, "as long as the own one");
    lease.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
    assert_eq!(limits(&lease).unwrap().rest(), Duration::from_secs(60));
}

#[test]
fn a_newer_format_is_alive_whatever_its_seal() {
    for mut lease in sample("2") {
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(RECORD_ANNOTATION.into(), "v=3 what this says is not known here".into());
        let record = codec().decode(&lease).unwrap().unwrap().record;
        assert_eq!(record, Some(StoreRecord::Newer { format: "3".into() }));
    }
}

#[test]
fn odd_versions_are_errors_and_strangers_are_none() {
    let mut lease = stored(&lock_write(LED, None), None, 1);
    lease.metadata.name = Some("something-else".into());
    assert_eq!(codec().decode(&lease).unwrap(), None);
    lease.metadata.resource_version = Some("1-2".into());
    assert!(codec().decode(&lease).is_err());
}

#[test]
fn states_stay_with_a_lock_whoever_writes_it() {
    let held = lock_write(LockRecord { holder: Some(session()), ..LED }, Some("pod-1_1a2b3c4d"));
    let storing = Write { states: Some(r#"{"poll":7}"#.into()), ..held.clone() };
    let mut lease = stored(&storing, Some(&stored(&held, None, 1)), 2);
    let settled = codec().decode(&lease).unwrap().unwrap();
    assert_eq!(settled.record, Some(held.record.clone()), "it is the same record");
    for (version, write) in [(3, held), (4, lock_write(LED, None)), (5, lock_write(LED, Some("pod-2_1")))] {
        lease = stored(&write, Some(&lease), version);
        assert_eq!(states(&lease).as_deref(), Some(r#"{"poll":7}"#));
    }
}

#[test]
fn a_record_that_was_saved_and_applied_again_says_nothing() {
    let key = StoreKey::Lock("lock1".parse().unwrap());
    let record = LockRecord { term: 7, claim: 1, ..LockRecord::RELEASED };
    let write =
        Write::new(key, Precondition::Version(1), StoreRecord::Lock { record, holder: None, term: None });
    let mut made = Lease::default();
    made.metadata.uid = Some("one".into());
    let mut lease = codec().encode(&write, Some(&made), Timestamp::UNIX_EPOCH);
    lease.metadata.resource_version = Some("2".into());
    let said = |lease: &Lease| match codec().decode(lease).unwrap().unwrap().record {
        Some(StoreRecord::Lock { record, .. }) => record,
        other => panic!("{other:?}"),
    };
    assert_eq!(said(&lease), record);
    lease.metadata.uid = Some("two".into());
    assert_eq!(said(&lease), LockRecord::UNKNOWN, "its seal fits, but it is of another object");
}

#[test]
fn a_number_above_which_there_is_none_was_not_written_by_a_member() {
    for term in [HIGHEST_TERM + 1, u64::MAX] {
        let lease = stored(&lock_write(LockRecord { term, ..LED }, None), None, 9);
        let Some(StoreRecord::Lock { record, .. }) = codec().decode(&lease).unwrap().unwrap().record else {
            panic!("it is a lock")
        };
        assert_eq!(record, LockRecord::UNKNOWN);
        let error = codec().decode(&stored(&lock_write(LED, None), None, term)).unwrap_err();
        assert!(error.to_string().contains(&format!("{term}")), "{error}");
    }
    let lease = stored(&lock_write(LockRecord { term: HIGHEST_TERM, ..LED }, None), None, HIGHEST_TERM);
    assert!(codec().decode(&lease).unwrap().is_some());
}

#[test]
fn a_time_that_no_member_lives_by_is_not_believed() {
    let record = "v=2 epoch=4 claim=9 settled=false y=12500 stop=2000 rho=10000 owed=15000";
    assert!(parse_lock_record(record).is_some());
    for (said, corrupt) in [("y=12500", "y="), ("stop=2000", "stop="), ("owed=15000", "owed=")] {
        let record = record.replace(said, &format!("{corrupt}{}", u64::MAX));
        assert_eq!(parse_lock_record(&record), None, "{record}");
    }
}
