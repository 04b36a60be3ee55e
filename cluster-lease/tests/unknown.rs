//! Records that no member of this version has written: made by somebody else, or by a newer version.

mod support;

use std::time::Duration;

use cluster_lease::{Action, Key, LockRecord, Record, WaitCause};
use support::{Group, LOCK};

#[test]
fn a_record_that_no_member_has_written_is_no_better_than_an_absent_one() {
    let mut group = Group::empty();
    group.set(Key::Lock(LOCK), Record::Lock(LockRecord::UNKNOWN));
    group.join();
    let waited = group.until_led(0);
    assert!((14.5..15.5).contains(&waited), "{waited} s");
    let why = group.members[0].actions.iter().find_map(|action| match action {
        Action::Wait { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why, Some(WaitCause::Unsealed));
    // Its own release is another matter.
    group.tell(0, cluster_lease::Event::Unview { lock: LOCK });
    group.join_work(0);
    let next = group.join();
    assert!(group.until_led(next) < 1.0);
}

#[test]
fn a_record_that_was_deleted_and_made_again_gives_the_old_leader_its_time() {
    let mut group = Group::new(1);
    group.pass(1.0);
    assert!(group.leads(0));
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    // What `kubectl delete -f` and `kubectl apply -f` do, while the leader is cut off.
    group.cut(0);
    group.delete(Key::Lock(LOCK));
    group.set(Key::Lock(LOCK), Record::Lock(LockRecord::UNKNOWN));
    let next = group.join();
    while group.now < deadline + support::seconds(2.0) {
        group.pass(0.05);
        assert!(!group.leads(next), "the old leader may still be working");
    }
    group.join_work(0);
    group.until_led(next);
}

#[test]
fn a_lock_of_a_newer_format_is_left_alone() {
    let mut group = Group::new(1);
    group.pass(1.0);
    group.set(Key::Lock(LOCK), Record::Newer);
    group.pass(1.0);
    assert!(!group.leads(0), "it is deposed");
    group.join_work(0);
    group.join();
    group.pass(100.0);
    assert_eq!(group.records[&Key::Lock(LOCK)].1, Record::Newer, "nothing was written to it");
    group.set(Key::Lock(LOCK), Record::Lock(LockRecord { term: group.version, ..LockRecord::RELEASED }));
    group.pass(1.0);
    assert_eq!(group.active().len(), 1);
}

#[test]
fn a_session_of_a_newer_format_is_alive() {
    let mut group = Group::new(1);
    group.pass(1.0);
    let session = group.members[0].core.session();
    group.members[0].running = false;
    group.set(Key::Session(session), Record::Newer);
    let next = group.join();
    group.tell(next, cluster_lease::Event::Evidence { session, death: cluster_lease::Death::Proof });
    group.pass(100.0);
    assert!(!group.leads(next));
    assert_eq!(group.lock().holder, Some(session));
    assert_eq!(group.records[&Key::Session(session)].1, Record::Newer, "it is not declared dead");
}

/// What `kubectl apply` of a Lease does that was saved while the lock was free: record and seal of a member, in the
/// object that is there.
#[test]
fn a_record_that_is_set_back_gives_the_leader_its_time() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let leader = group.active()[0];
    let saved = LockRecord { term: 1, ..LockRecord::RELEASED };
    group.tell(leader, cluster_lease::Event::Unview { lock: LOCK });
    group.join_work(leader);
    group.pass(1.0);
    let leader = group.active()[0];
    let next = 1 - leader;
    group.tell(next, cluster_lease::Event::View { lock: LOCK, name: 1 });
    let deadline = group.members[leader].core.guard(LOCK).unwrap().deadline;
    group.cut(leader);
    group.set(Key::Lock(LOCK), Record::Lock(saved));
    while group.now < deadline + support::seconds(2.0) {
        group.pass(0.05);
        assert!(!group.leads(next), "the leader may still be working");
    }
    let why = group.members[next].actions.iter().rev().find_map(|action| match action {
        Action::Wait { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why, Some(WaitCause::SetBack));
    group.join_work(leader);
    group.until_led(next);
    assert!(group.terms(next).last() > group.terms(leader).last());
}

/// The next member does not lead before the work of the leader, which is cut off, has had its time to end.
fn leads_only_after(group: &mut Group, next: usize, leader: usize, deadline: Duration) {
    while group.now < deadline + support::seconds(2.0) {
        group.pass(0.05);
        assert!(!group.leads(next), "the leader may still be working");
    }
    group.join_work(leader);
    group.until_led(next);
}

/// A member that starts now cannot know it. But one that stands by claims the lock at once, and says what is owed.
#[test]
fn a_member_that_starts_when_one_that_remembers_has_claimed_a_record_that_was_set_back_waits() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let leader = group.active()[0];
    let standby = 1 - leader;
    let deadline = group.members[leader].core.guard(LOCK).unwrap().deadline;
    group.cut(leader);
    group.set(Key::Lock(LOCK), Record::Lock(LockRecord { term: 1, ..LockRecord::RELEASED }));
    group.pass(1.0);
    assert!(!group.lock().settled, "claimed, with the wait that is owed");
    group.members[standby].running = false;
    group.cut(standby);
    let next = group.join();
    leads_only_after(&mut group, next, leader, deadline);
}

/// The same of one that names a holder: a member that has ended long ago, or one that lives and does not hold it.
#[test]
fn a_record_that_is_set_back_to_an_earlier_holder_says_nothing_of_the_present_one() {
    for alive in [false, true] {
        let mut group = Group::new(3);
        group.pass(1.0);
        let first = group.active()[0];
        let saved = group.records[&Key::Lock(LOCK)].1;
        if alive {
            group.tell(first, cluster_lease::Event::Unview { lock: LOCK });
            group.join_work(first);
        } else {
            group.members[first].running = false;
            group.cut(first);
        }
        group.pass(20.0);
        let led = group.active().into_iter().filter(|member| *member != first).collect::<Vec<_>>();
        let [leader] = led[..] else { panic!("{led:?} lead") };
        let next = 3 - first - leader;
        let deadline = group.members[leader].core.guard(LOCK).unwrap().deadline;
        group.cut(leader);
        group.set(Key::Lock(LOCK), saved);
        while group.now < deadline + support::seconds(2.0) {
            group.pass(0.05);
            assert!(!group.leads(next), "the leader may still be working; {alive}");
        }
        group.join_work(leader);
        group.until_led(next);
    }
}

#[test]
fn the_earlier_holder_of_a_record_that_was_set_back_does_not_give_it_up_as_if_none_had_led_since() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let first = group.active()[0];
    let saved = group.records[&Key::Lock(LOCK)].1;
    group.tell(first, cluster_lease::Event::Unview { lock: LOCK });
    group.join_work(first);
    group.pass(1.0);
    let leader = 1 - first;
    assert!(group.leads(leader));
    let deadline = group.members[leader].core.guard(LOCK).unwrap().deadline;
    group.cut(leader);
    group.set(Key::Lock(LOCK), saved);
    group.pass(0.5);
    assert_eq!((group.lock().holder, group.lock().settled), (None, false));
    let next = group.join();
    leads_only_after(&mut group, next, leader, deadline);
}
