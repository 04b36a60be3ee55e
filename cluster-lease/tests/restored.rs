//! A store that was restored from a backup: its history goes back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{
    Action, Event, FenceCause, Key, LeaseCluster, LeaseClusterSettings, LockRecord, MemoryStore, Operation,
    Record, Settings, StoreKey, StoreRecord, Target, TokioClock, Version,
};
use router_core::cluster::{ClusterService as _, Leadership, LockName, Member};
use support::{Group, LOCK, Told, seconds};
use tokio::time::{Instant, sleep};

/// The list that a store gives which was set back to this version.
fn old_list(group: &mut Group, member: usize, version: Version) {
    let asked = group.members[member].core.known_version();
    group.tell(member, Event::OldList { version, asked });
}

fn says_that_history_is_back(group: &Group, member: usize) -> bool {
    group.members[member].actions.iter().any(|action| matches!(action, Action::HistoryBack { .. }))
}

/// How many lists a member has asked for.
fn lists(group: &Group, member: usize) -> usize {
    let is_list = |action: &&Action| matches!(action, Action::Send { operation: Operation::List, .. });
    group.members[member].actions.iter().filter(is_list).count()
}

/// A group of one that leads, cut off from a store that was set back to before its term.
fn led_before() -> Group {
    let mut group = Group::new(1);
    group.pass(7.0);
    assert!(group.leads(0));
    group.cut(0);
    group
}

/// Time passes, and every list that is asked for is old.
fn pass_with_old_lists(group: &mut Group, time: f64) {
    let until = group.now + seconds(time);
    let mut answered = lists(group, 0);
    while group.now < until {
        group.pass(0.05);
        if lists(group, 0) > answered {
            answered = lists(group, 0);
            old_list(group, 0, 1);
        }
    }
}

#[test]
fn a_history_that_has_gone_back_is_believed_after_the_wait_and_led_after_another() {
    let mut group = led_before();
    let (term, seen) = (group.terms(0)[0], group.version);
    old_list(&mut group, 0, 1);
    let before = lists(&group, 0);
    pass_with_old_lists(&mut group, 14.5);
    assert!(!says_that_history_is_back(&group, 0));
    assert!(lists(&group, 0) - before < 12, "{} lists in 14.5 s", lists(&group, 0) - before);
    pass_with_old_lists(&mut group, 1.0);
    assert!(says_that_history_is_back(&group, 0));
    assert!(group.members[0].core.takes(1, seen, true) && !group.members[0].core.takes(1, seen, false));
    assert!(group.members[0].told.iter().any(|told| matches!(told, Told::Fence(_, FenceCause::Deadline, _))));
    group.join_work(0);
    // The store as the backup has it: the lock was never led.
    group.records.clear();
    group.log.clear();
    group.version = 0;
    group.set(Key::Lock(LOCK), Record::Lock(LockRecord::RELEASED));
    group.heal(0);
    group.list(0);
    group.settle();
    assert!(group.lock().term >= term, "those who remember write the terms down: {:?}", group.lock());
    let waited = group.until_led(0);
    assert!((14.5..16.0).contains(&waited), "{waited} s");
    assert!(group.terms(0)[1] > term);
}

#[test]
fn a_leader_that_notices_it_is_fenced() {
    let mut group = led_before();
    old_list(&mut group, 0, 1);
    pass_with_old_lists(&mut group, 16.0);
    group.members[0].told.clear();
    let session = group.members[0].core.session();
    group.version = 2;
    group.records.clear();
    group.list(0);
    assert_ne!(group.members[0].core.session(), session, "nothing goes on with what is no more");
}

#[test]
fn a_list_that_lacks_what_was_answered_is_a_sign_though_it_is_not_older_than_the_view() {
    let mut group = led_before();
    let view = group.members[0].core.view_version();
    // A heartbeat is applied and answered, and the watch does not tell of it before the store is set back.
    group.pass(4.0);
    let sent = group.stranded(Target::Heartbeat);
    let outcome = group.apply(sent);
    group.tell(0, Event::Answer { request: sent.request, outcome });
    let core = &group.members[0].core;
    assert_eq!((core.view_version(), core.known_version()), (view, group.version));
    assert!(group.version > view);
    assert!(!core.takes(view, group.version, true), "it lacks the heartbeat");
    assert!(core.takes(view, view, true), "it was asked for before");
    old_list(&mut group, 0, view);
    assert!(group.members[0].core.doubts());
    pass_with_old_lists(&mut group, 16.0);
    assert!(says_that_history_is_back(&group, 0));
    assert!(group.members[0].core.takes(view, group.version, true));
    group.join_work(0);
    let session = group.members[0].core.session();
    let restored = group.log.iter().take_while(|(version, ..)| *version <= view).copied();
    group.log = restored.collect();
    group.records = group
        .log
        .iter()
        .filter_map(|(version, key, record, _)| Some((*key, (*version, (*record)?))))
        .collect();
    group.version = view;
    group.heal(0);
    group.list(0);
    group.settle();
    assert_ne!(group.members[0].core.session(), session, "the one whose heartbeat is no more has ended");
    let waited = group.until_led(0);
    assert!((14.5..16.0).contains(&waited), "{waited} s");
}

#[test]
fn a_list_that_is_only_late_is_no_sign() {
    let mut group = led_before();
    for _ in 0..40 {
        group.tell(0, Event::OldList { version: 1, asked: 1 });
        group.pass(1.0);
    }
    assert!(!says_that_history_is_back(&group, 0));
}

#[test]
fn one_list_that_is_not_old_clears_the_doubt() {
    let mut group = led_before();
    old_list(&mut group, 0, 1);
    pass_with_old_lists(&mut group, 10.0);
    group.heal(0);
    group.list(0);
    group.cut(0);
    old_list(&mut group, 0, 1);
    pass_with_old_lists(&mut group, 10.0);
    assert!(!says_that_history_is_back(&group, 0), "the time counts anew");
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

fn member(store: &MemoryStore, name: &str, seed: u64) -> Arc<LeaseCluster> {
    let settings = LeaseClusterSettings::new(Member::new(name))
        .timing(Settings::fast())
        .strict(false)
        .clock(Arc::new(TokioClock::default()));
    LeaseCluster::start(store.handle(seed), settings).unwrap()
}

async fn led(view: &router_core::cluster::ClusterView) -> router_core::cluster::Term {
    loop {
        if let Leadership::Leader(term) = view.leadership()
            && term.is_valid()
        {
            return term;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_go_on_in_a_store_that_was_restored() {
    let store = MemoryStore::new();
    store.create_free(&lock());
    let backup = store.backup();
    let (one, two) = (member(&store, "one", 1), member(&store, "two", 2));
    let view = one.view(&lock()).await.unwrap();
    let term = led(&view).await;
    let standby = two.view(&lock()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(term.is_valid());
    store.restore(&backup);
    let restored = Instant::now();
    while term.is_valid() {
        sleep(Duration::from_millis(10)).await;
    }
    let next = tokio::select! {
        biased;
        term = led(&view) => term,
        term = led(&standby) => term,
    };
    let waited = restored.elapsed();
    assert!(waited > Duration::from_secs(10) && waited < Duration::from_secs(20), "{waited:?}");
    assert!(next.number() > term.number(), "{} after {}", next.number(), term.number());
    // One that starts now remembers nothing, and the record tells it.
    let listing = store.listing();
    let entry = listing.entries.iter().find(|entry| entry.key == StoreKey::Lock(lock())).unwrap();
    let StoreRecord::Lock { record, .. } = &entry.record else { panic!() };
    assert!(record.term >= term.number());
}

#[test]
fn while_it_is_in_doubt_changes_of_the_watch_are_not_applied() {
    let mut group = led_before();
    let stranger = cluster_lease::SessionId { incarnation: 77, generation: 0 };
    old_list(&mut group, 0, 1);
    let version = group.version + 10;
    let held = LockRecord { holder: Some(stranger), term: 3, claim: 1, ..LockRecord::RELEASED };
    let changed = Event::Changed { version, key: Key::Lock(LOCK), record: Some(Record::Lock(held)) };
    group.tell(0, changed);
    assert_eq!(group.members[0].core.holder(LOCK), Some(group.members[0].core.session()));
    // A list that is not old ends the doubt, and a new watch begins, because changes were passed over.
    group.tell(0, Event::OldList { version, asked: 1 });
    assert!(group.members[0].actions.contains(&Action::Relist));
}

#[test]
fn those_who_remember_write_the_terms_down_also_while_another_leads() {
    let mut group = led_before();
    let term = group.terms(0)[0];
    old_list(&mut group, 0, 1);
    pass_with_old_lists(&mut group, 16.0);
    group.join_work(0);
    group.records.clear();
    group.log.clear();
    group.version = 0;
    // One that started after the restore, and remembers nothing.
    let other = cluster_lease::SessionId { incarnation: 77, generation: 0 };
    let alive = cluster_lease::SessionRecord { seq: 5, dead: None, limits: None };
    group.set(Key::Session(other), Record::Session(alive));
    let held = LockRecord { holder: Some(other), term: 1, claim: 1, ..LockRecord::RELEASED };
    group.set(Key::Lock(LOCK), Record::Lock(held));
    group.heal(0);
    group.list(0);
    group.settle();
    assert!(group.lock().term >= term, "{:?}", group.lock());
    assert_eq!((group.lock().holder, group.lock().claim, group.lock().settled), (Some(other), 1, true));
}

/// What a view says, for as long as there is no leader after a restore: one vacancy, and nothing of the former history.
#[tokio::test(start_paused = true)]
async fn a_record_of_the_former_history_names_no_leader_and_the_vacancy_goes_on() {
    let store = MemoryStore::new();
    store.create_free(&lock());
    let first = member(&store, "first", 1);
    let before = first.view(&lock()).await.unwrap();
    let former = led(&before).await.number();
    sleep(Duration::from_secs(10)).await;
    let backup = store.backup();
    drop(before);
    first.close().await;
    let one = member(&store, "one", 2);
    let view = one.view(&lock()).await.unwrap();
    let term = led(&view).await;
    let two = member(&store, "two", 3);
    let standby = two.view(&lock()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    store.restore(&backup);
    while term.is_valid() {
        sleep(Duration::from_millis(10)).await;
    }
    let (mut said, mut longest) = (Vec::<String>::new(), Duration::ZERO);
    loop {
        sleep(Duration::from_millis(50)).await;
        match (view.leadership(), standby.leadership()) {
            (Leadership::Leader(next), _) | (_, Leadership::Leader(next)) => {
                assert!(next.number() > term.number());
                break;
            }
            (now, on_standby) => {
                for leadership in [&now, &on_standby] {
                    if let Leadership::Follower { leader } = leadership {
                        assert_eq!(
                            (leader.member.id.as_str(), leader.term),
                            ("one", term.number()),
                            "{said:#?}"
                        );
                        assert_ne!(leader.term, former);
                    }
                }
                let Leadership::Vacant(vacancy) = now else { continue };
                assert!(vacancy.lasts() >= longest, "the vacancy began anew: {said:#?}");
                longest = vacancy.lasts();
                if said.last().is_none_or(|last| *last != vacancy.why()) {
                    said.push(vacancy.why().to_string());
                }
            }
        }
    }
    let told = |text: &str| said.iter().any(|why| why.contains(text));
    assert!(told("are older than what this member knows of them"), "{said:#?}");
    assert!(told("that first led it says nothing about now; this member waits until 2"), "{said:#?}");
}
