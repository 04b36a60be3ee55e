//! The compatibility mode over a server with faults, in virtual time, beside a member that does as Camel does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_lease::{
    Attempt, Death, LeaseCluster, LeaseClusterSettings, LeaseStore as _, Limits, LockRecord, Precondition,
    SessionId, SessionRecord, Settings, StoreKey, StoreRecord, TokioClock, Write,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use router_core::cluster::{ClusterService as _, ClusterView, Leadership, LockName, Member, Term};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::judge::Judge;
use super::layout::{
    Claim, LeaderState, Words, check_lock, check_room, encode, put_question, question, states,
};
use super::rivals::{Question, Rivals};
use super::store::ConfigMapStore;
use crate::fake_api_server::{FakeServer, Fault};
use crate::pods::{PodWatch, Pods, pod};

mod camel;
mod copies;
mod election;
mod namesakes;
mod seeds;

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

/// As Camel writes it when it creates the ConfigMap.
const OF_CAMEL: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": "leaders", "labels": {"provider": "camel", "kind": "locks"}},
    "data": {"leader.pod.lock1": "java-0", "leader.local.timestamp.lock1": "2026-01-31T09:00:00Z"}}"#;

fn of_camel() -> ConfigMap {
    serde_json::from_str(OF_CAMEL).unwrap()
}

fn claim(settled: bool) -> LockRecord {
    let holder = Some(SessionId { incarnation: 7, generation: 0 });
    LockRecord { holder, term: 101, claim: 1, settled, ..LockRecord::UNKNOWN }
}

#[test]
fn a_new_config_map_is_as_camel_makes_it() {
    let now: Timestamp = "2026-01-31T09:00:00.123Z".parse().unwrap();
    let mut made = encode(None, ("leaders", "java-0"), &lock(), (claim(true), None, None), now);
    assert_eq!(made.metadata.annotations.take().unwrap().len(), 1, "ours, which Camel does not read");
    assert_eq!(serde_json::to_value(&made).unwrap(), serde_json::to_value(of_camel()).unwrap());
}

#[test]
fn what_others_have_put_there_stays() {
    let mut before = of_camel();
    let data = before.data.as_mut().unwrap();
    data.insert("leader.pod.lock2".into(), "java-1".into());
    data.insert("colour".into(), "blue".into());
    before.metadata.annotations = Some([("team".to_owned(), "a".to_owned())].into());
    let now = Timestamp::now();
    let taken = encode(Some(&before), ("leaders", "clock-0"), &lock(), (claim(false), None, None), now);
    let given_up =
        encode(Some(&taken), ("leaders", "clock-0"), &lock(), (LockRecord::RELEASED, None, None), now);
    for after in [&taken, &given_up] {
        assert_eq!(after.data.as_ref().unwrap()["leader.pod.lock2"], "java-1");
        assert_eq!(after.data.as_ref().unwrap()["colour"], "blue");
        assert_eq!(after.metadata.annotations.as_ref().unwrap()["team"], "a");
    }
    let annotations = given_up.metadata.annotations.unwrap();
    assert_eq!(annotations.len(), 2, "that of others, and that the lock was given up: {annotations:?}");
}

/// The lines of a text as a ConfigMap: `uid VALUE`, `data KEY VALUE`, and what else there is an annotation.
fn of_lines(text: &str) -> ConfigMap {
    let mut config_map = ConfigMap::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            // The server gives it, and it is one word.
            "uid" => config_map.metadata.uid = Some(key.into()),
            "data" => drop(config_map.data.get_or_insert_default().insert(key.into(), value.into())),
            _ => {
                drop(config_map.metadata.annotations.get_or_insert_default().insert(key.into(), value.into()))
            }
        }
    }
    config_map
}

/// Whatever stands there: a claim that is written is read, and nothing else that is said of a lock changes.
#[test]
fn fuzz_config_maps() {
    testkit::fuzz::fuzz(include_str!("../../corpus/config_map.txt"), |text| {
        let before = of_lines(text);
        let judge = |config_map: &ConfigMap, lock: &LockName| {
            let own = SessionId { incarnation: 7, generation: 0 };
            let (sessions, incarnations) = ([own].into(), [own.incarnation].into());
            let (pods, rivals) = (Pods::default(), Rivals::new(Duration::from_secs(2)));
            let judge = Judge {
                pod: "clock-0",
                pods: &pods,
                sessions: &sessions,
                incarnations: &incarnations,
                rivals: &rivals,
            };
            judge.judge(lock, &Words::of(Some(config_map), lock), false).record
        };
        let others = |config_map: &ConfigMap| {
            let locks = super::layout::locks(config_map).into_iter().filter(|other| *other != lock());
            let said = locks.map(|other| {
                let words = Words::of(Some(config_map), &other);
                let states = states(Some(config_map), &other).map(str::to_owned);
                (
                    format!("{:?}", words.said(&other)),
                    format!("{:?}", judge(config_map, &other)),
                    states,
                    other,
                )
            });
            said.collect::<Vec<_>>()
        };
        let now = Timestamp::UNIX_EPOCH;
        for record in [claim(true), claim(false), LockRecord::RELEASED, LockRecord::UNKNOWN] {
            let after =
                encode(Some(&before), ("leaders", "clock-0"), &lock(), (record, Some(105), Some("{}")), now);
            let words = Words::of(Some(&after), &lock());
            match words.said(&lock()) {
                LeaderState::Pod("clock-0", Some(read)) => {
                    assert_eq!((read.record, read.term), (record, Some(105)))
                }
                LeaderState::Released(term) => {
                    assert_eq!((record.holder, record.settled, record.term), (None, true, term))
                }
                said => {
                    assert!(
                        record.holder.is_none() && !record.settled && said == LeaderState::Vacant,
                        "{said:?}"
                    )
                }
            }
            assert_eq!(states(Some(&after), &lock()), Some("{}"));
            assert_eq!(others(&after), others(&before));
        }
        judge(&before, &lock());
        super::layout::question(&before, &lock(), SessionId { incarnation: 7, generation: 0 });
    });
}

#[test]
fn what_is_written_is_read() {
    let now = Timestamp::now();
    let said = |config_map: &ConfigMap| {
        let words = Words::of(Some(config_map), &lock());
        match words.said(&lock()) {
            LeaderState::Pod(pod, claim) => format!("{pod} {}", claim.is_some()),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(said(&of_camel()), "java-0 false");
    let mut before = of_camel();
    before.metadata.uid = Some("4711".into());
    let names = ("leaders", "clock-0");
    let taken = encode(Some(&before), names, &lock(), (claim(false), Some(105), None), now);
    let words = Words::of(Some(&taken), &lock());
    let written = Claim { record: claim(false), term: Some(105), is_of_this_object: true, is_copy: false };
    assert_eq!(words.said(&lock()), LeaderState::Pod("clock-0", Some(written)));
    let mut copied = taken.clone();
    copied.metadata.uid = Some("4712".into());
    let copy = Claim { is_of_this_object: false, is_copy: true, ..written };
    assert_eq!(Words::of(Some(&copied), &lock()).said(&lock()), LeaderState::Pod("clock-0", Some(copy)));
    let given_up =
        encode(Some(&taken), ("leaders", "clock-0"), &lock(), (LockRecord::RELEASED, None, None), now);
    assert_eq!(said(&given_up), "Released(0)");
    let mut saved = given_up.clone();
    saved.metadata.uid = Some("4712".into());
    assert_eq!(said(&saved), "Vacant", "it was saved and applied again");
    assert!(!given_up.data.as_ref().unwrap().contains_key("leader.pod.lock1"), "to Camel there is no leader");
    let unserved = LockRecord { settled: false, ..LockRecord::RELEASED };
    let left = encode(Some(&taken), ("leaders", "clock-0"), &lock(), (unserved, None, None), now);
    assert_eq!(said(&left), "Vacant");
    assert_eq!(left.data.as_ref().unwrap()["leader.pod.lock1"], "-", "to Camel there is one, and it is gone");
    // Whoever deletes an entry by hand does not make a lock that was given up in good order.
    let mut deleted = of_camel();
    deleted.data.as_mut().unwrap().remove("leader.pod.lock1");
    assert_eq!(said(&deleted), "Vacant");
    // A leader of Camel's that comes after one of ours leaves our annotation where it is.
    let mut camel = taken;
    camel.data.as_mut().unwrap().insert("leader.pod.lock1".into(), "java-1".into());
    assert!(said(&camel).starts_with("java-1"));
}

#[test]
fn only_the_own_claim_a_clean_end_and_a_ready_pod_are_records() {
    let mut pods = Pods::default();
    let own = SessionId { incarnation: 7, generation: 0 };
    let judge = |pods: &Pods, own: SessionId, config_map: &ConfigMap| {
        let (words, sessions) = (Words::of(Some(config_map), &lock()), [own].into());
        let incarnations = &[own.incarnation].into();
        let rivals = &Rivals::new(Duration::from_secs(2));
        let judge = Judge { pod: "clock-0", pods, sessions: &sessions, incarnations, rivals };
        judge.judge(&lock(), &words, false).record
    };
    let (names, now) = (("leaders", "clock-0"), Timestamp::now());
    let mut before = of_camel();
    before.metadata.uid = Some("4711".into());
    let taken = encode(Some(&before), names, &lock(), (claim(false), None, None), now);
    assert_eq!(judge(&pods, own, &taken), Some(claim(false)));
    // An earlier session of this process, and another process with the name of this pod.
    assert_eq!(judge(&pods, SessionId { generation: 1, ..own }, &taken), None);
    let rival = judge(&pods, SessionId { incarnation: 8, ..own }, &taken).unwrap();
    assert!(rival.holder.is_some() && !rival.settled, "it is asked whether it is alive: {rival:?}");
    let given_up = encode(Some(&taken), names, &lock(), (LockRecord::RELEASED, None, None), now);
    assert_eq!(judge(&pods, own, &given_up), Some(LockRecord::RELEASED));
    // What is not known of pods is no evidence.
    assert!(judge(&pods, own, &of_camel()).unwrap().holder.is_some());
    pods.replace(&[pod("java-0", "Running", true)]);
    assert!(judge(&pods, own, &of_camel()).unwrap().holder.is_some());
    pods.replace(&[pod("java-0", "Failed", true)]);
    assert_eq!(judge(&pods, own, &of_camel()), None);
}

#[test]
fn states_leave_room_for_the_claims_of_all_locks() {
    let (names, now) = (("leaders", "clock-0"), Timestamp::now());
    let other: LockName = "lock2".parse().unwrap();
    let (large, small) = ("x".repeat(120 * 1024), "x".repeat(100 * 1024));
    let with = |before: Option<&ConfigMap>, lock: &LockName, states: &str| {
        encode(before, names, lock, (claim(true), None, Some(states)), now)
    };
    let one = with(None, &lock(), &large);
    assert_eq!(check_room(None, &one), Ok(()));
    let two = with(Some(&one), &other, &large);
    let error = check_room(Some(&one), &two).unwrap_err();
    assert!(error.contains("196608 bytes together"), "{error}");
    // Whoever makes them smaller may, and so may whoever claims a lock.
    assert_eq!(check_room(Some(&two), &with(Some(&two), &other, &small)), Ok(()));
    let claimed = encode(Some(&two), names, &other, (claim(true), None, None), now);
    assert_eq!(check_room(Some(&two), &claimed), Ok(()));
}

#[test]
fn locks_that_cannot_stand_in_a_key_are_refused() {
    for sound in ["lock1", "Lock_1.a-b", &"x".repeat(230)] {
        assert!(check_lock(&sound.parse().unwrap()).is_ok(), "{sound}");
    }
    for odd in ["a b", "a/b", "ü", &"x".repeat(231)] {
        let error = check_lock(&odd.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("rename it"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_this_process_that_has_ended_leaves_its_claims_open() {
    let server = FakeServer::new();
    let mut pods = Pods::default();
    pods.replace(&[pod("clock-0", "Running", true)]);
    let (_seen, pods) = watch::channel(pods);
    let place = ("shop".to_owned(), "leaders".to_owned(), "clock-0".to_owned());
    let store = ConfigMapStore::new(server.clients(), place, Duration::from_secs(1), pods);
    let session = |record| Write {
        key: StoreKey::Session(SessionId { incarnation: 7, generation: 0 }),
        expect: Precondition::Absent,
        record: StoreRecord::Session { record, member: Member::new("clock-0_7") },
        states: None,
    };
    let heartbeat = Attempt { heartbeat: true, fresh_connection: false };
    let alive = SessionRecord { seq: 1, dead: None, limits: None };
    store.write(session(alive), heartbeat).await.unwrap();
    let record = StoreRecord::Lock { record: claim(false), holder: None, term: None };
    let write = Write::new(StoreKey::Lock(lock()), Precondition::Absent, record);
    let shown = store.write(write, Attempt::default()).await.unwrap();
    let listing = store.list().await.unwrap();
    assert!(listing.version >= shown && listing.entries.len() == 2, "{listing:?}");
    let dead = SessionRecord { dead: Some(Death::Expired), ..alive };
    let shown = store.write(session(dead), Attempt::default()).await.unwrap();
    let listing = store.list().await.unwrap();
    assert!(listing.version >= shown && listing.entries.is_empty(), "{listing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_pod_is_not_ready_claims_nothing_and_says_why() {
    let server = FakeServer::new();
    let mut pods = Pods::default();
    pods.replace(&[pod("clock-0", "Running", false)]);
    let (seen, pods) = watch::channel(pods);
    let place = ("shop".to_owned(), "leaders".to_owned(), "clock-0".to_owned());
    let store = ConfigMapStore::new(server.clients(), place, Duration::from_secs(1), pods);
    let record = StoreRecord::Lock { record: claim(false), holder: None, term: None };
    let write = || Write::new(StoreKey::Lock(lock()), Precondition::Absent, record.clone());
    let refused = store.write(write(), Attempt::default()).await.unwrap_err().to_string();
    let why = "this member takes no locks for now: clock-0 is not among the ready pods with the labels of the members";
    assert!(refused.contains(why), "{refused}");
    seen.send_modify(|pods| pods.replace(&[pod("clock-0", "Running", true)]));
    store.write(write(), Attempt::default()).await.unwrap();
}

const SAMPLED: SessionId =
    SessionId { incarnation: 0x1a2b_3c4d_0000_4000_8000_0000_0000_0001, generation: 0 };

fn led(limits: Option<Limits>) -> LockRecord {
    LockRecord { holder: Some(SAMPLED), term: 40, claim: 1, limits, ..LockRecord::RELEASED }
}

/// The first programs that wrote the format 2 did not say the uid of the object that a claim was written into, nor the
/// term. They, and those of the format 1, asked nothing, and left no claim at a lock that was released.
#[test]
fn every_format_that_was_ever_written_is_read() {
    let own = Some(Settings::default().limits());
    for (text, limits, is_of_this_object, is_newest) in [
        (include_str!("samples/1.json"), None, true, false),
        (include_str!("samples/2-without-uid.json"), own, false, false),
        (include_str!("samples/2.json"), own, true, true),
    ] {
        let config_map: ConfigMap = serde_json::from_str(text).unwrap();
        let said = |name: &str| {
            let lock = name.parse().unwrap();
            format!("{:?}", Words::of(Some(&config_map), &lock).said(&lock))
        };
        let term = is_newest.then_some(40);
        let claim = Claim { record: led(limits), term, is_of_this_object, is_copy: false };
        assert_eq!(said("lock1"), format!("{:?}", LeaderState::Pod("clock-0", Some(claim))));
        assert_eq!(said("lock2"), if is_newest { "Released(30)" } else { "Vacant" });
        assert_eq!(said("lock3"), format!("{:?}", LeaderState::Pod("camel-0", None)));
        assert_eq!(said("lock4"), "Vacant", "it was given up while a wait was owed");
        assert_eq!(states(Some(&config_map), &lock()), Some(r#"{"poll":7}"#));
        let asked = Question { of: SAMPLED, number: 7, answered: 6 };
        let asked = if is_newest { asked } else { Question::none(SAMPLED) };
        assert_eq!(question(&config_map, &lock(), SAMPLED), asked);
    }
}

/// A change of what is written gets a sample of its own.
#[test]
fn what_is_written_is_the_newest_sample() {
    let newest: ConfigMap = serde_json::from_str(include_str!("samples/2.json")).unwrap();
    let mut written = newest.clone();
    written.metadata.annotations = None;
    written.data.as_mut().unwrap().retain(|key, _| key.ends_with("lock3"));
    let (names, now) = (("leaders", "clock-0"), "2026-11-29T12:00:00Z".parse().unwrap());
    let released = LockRecord { term: 30, claim: 1, ..LockRecord::RELEASED };
    let claimed = (led(Some(Settings::default().limits())), Some(40), Some(r#"{"poll":7}"#));
    for (lock, what) in [
        ("lock1", claimed),
        ("lock2", (released, None, None)),
        ("lock4", (LockRecord { settled: false, ..released }, None, None)),
    ] {
        written = encode(Some(&written), names, &lock.parse().unwrap(), what, now);
    }
    put_question(&mut written, &lock(), Question { of: SAMPLED, number: 7, answered: 6 });
    assert_eq!(written, newest);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_newer_format_is_alive_though_its_pod_is_gone() {
    let server = FakeServer::new();
    let text = include_str!("samples/2.json").replace("v=2 ", "v=3 ").replace(r#""41""#, "null");
    let config_map: ConfigMap = serde_json::from_str(&text).unwrap();
    let api = kube::Api::<ConfigMap>::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), &config_map).await.unwrap();
    let (_seen, pods) = watch::channel(Pods::default());
    let place = ("shop".to_owned(), "leaders".to_owned(), "clock-1".to_owned());
    let store = ConfigMapStore::new(server.clients(), place, Duration::from_secs(1), pods);
    let listing = store.list().await.unwrap();
    let entry = listing.entries.iter().find(|entry| entry.key == StoreKey::Lock(lock())).unwrap();
    assert_eq!(entry.record, StoreRecord::Newer { format: "3".into() });
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_that_is_gone_lived_by_is_known_from_its_claim() {
    let server = FakeServer::new();
    let text = include_str!("samples/2.json").replace("y=12500", "y=48000").replace(r#""41""#, "null");
    let config_map: ConfigMap = serde_json::from_str(&text).unwrap();
    let api = kube::Api::<ConfigMap>::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), &config_map).await.unwrap();
    let mut pods = Pods::default();
    pods.replace(&[pod("clock-1", "Running", true)]);
    let (_seen, pods) = watch::channel(pods);
    let place = ("shop".to_owned(), "leaders".to_owned(), "clock-1".to_owned());
    let store = ConfigMapStore::new(server.clients(), place, Duration::from_secs(1), pods);
    let listing = store.list().await.unwrap();
    assert!(listing.entries.iter().all(|entry| entry.key != StoreKey::Lock(lock())), "it may be claimed");
    let known = listing.entries.iter().find_map(|entry| match &entry.record {
        StoreRecord::Session { record, member } if member.host.as_deref() == Some("clock-0") => Some(*record),
        _ => None,
    });
    let known = known.unwrap();
    assert_eq!((known.dead, known.limits.unwrap().deadline), (Some(Death::Weak), Duration::from_secs(48)));
}
