//! The three errors that earlier drafts of the rules contained, and those that were found since.

mod support;

use cluster_lease::{Event, FenceCause, Key, LockRecord, Outcome, Record, SessionId, SessionRecord, Target};
use support::{Group, LOCK, Told, seconds};

#[test]
fn a_late_wake_up_does_not_grant_the_stop_time_again() {
    let mut group = Group::new(1);
    group.pass(1.0);
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    group.now = deadline + seconds(1.5);
    group.tell(0, Event::Tick);
    let abort_at = deadline + seconds(2.0);
    assert!(matches!(group.members[0].told[1], Told::Fence(_, FenceCause::Deadline, at) if at == abort_at));
    group.now = abort_at;
    group.tell(0, Event::Tick);
    assert!(matches!(group.members[0].told[2], Told::Abort(_)));
}

#[test]
fn a_wake_up_after_the_stop_time_aborts_at_once() {
    let mut group = Group::new(1);
    group.pass(1.0);
    group.now += seconds(20.0);
    group.tell(0, Event::Tick);
    assert!(matches!(group.members[0].told[1..], [Told::Fence(..), Told::Abort(_)]));
}

#[test]
fn a_wait_that_a_dead_claimant_owed_is_inherited() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let leader = group.active()[0];
    let standby = 1 - leader;
    // The leader is cut off while the record of its session is deleted; the standby claims and waits.
    group.cut(leader);
    group.delete(Key::Session(group.members[leader].core.session()));
    group.pass(0.2);
    assert_eq!(group.lock().holder, Some(group.members[standby].core.session()));
    assert!(!group.lock().settled);
    // The standby is proven dead while it still owes the wait. Whoever comes next must not start at once.
    let dead = group.members[standby].core.session();
    group.members[standby].running = false;
    let third = group.join();
    group.tell(third, Event::Evidence { session: dead, death: cluster_lease::Death::Proof });
    group.pass(10.0);
    assert_eq!(group.lock().holder, Some(group.members[third].core.session()));
    assert!(!group.leads(third), "the first leader may still be working");
    group.pass(6.0);
    assert!(group.leads(third));
    assert!(group.lock().settled);
}

#[test]
fn a_claim_is_granted_once() {
    let mut group = Group::new(1);
    group.pass(1.0);
    let (version, record) = group.records[&Key::Lock(LOCK)];
    let claim = *group.served.iter().find(|sent| sent.request.target == Target::Lock(LOCK)).unwrap();
    // The deadline passes, the work ends, and then a heartbeat gets through again.
    group.cut(0);
    group.pass(13.0);
    group.join_work(0);
    group.heal(0);
    // Late copies of the old answer and of the old event arrive.
    group.tell(0, Event::Answer { request: claim.request, outcome: Outcome::Written { version } });
    group.tell(0, Event::Changed { version, key: Key::Lock(LOCK), record: Some(record) });
    assert!(!group.leads(0));
    // The record still names this session. It is released and claimed anew, with a greater term.
    group.pass(5.0);
    let terms = group.terms(0);
    assert_eq!(terms.len(), 2, "{terms:?}");
    assert!(terms[0] < terms[1]);
}

#[test]
fn a_session_made_again_by_a_late_copy_of_its_creation_is_lost() {
    let mut group = Group::new(1);
    group.pass(8.0);
    let session = group.members[0].core.session();
    let create = *group.served.iter().find(|sent| sent.request.target == Target::Heartbeat).unwrap();
    // The watch has a gap in which the record is deleted and the copy of the creation is applied.
    group.delete(Key::Session(session));
    assert!(matches!(group.apply(create), Outcome::Written { .. }));
    group.list(0);
    assert!(matches!(group.members[0].told[1], Told::Fence(_, FenceCause::SessionLost, _)));
    assert_ne!(group.members[0].core.session(), session);
}

#[test]
fn a_lock_made_again_by_a_late_copy_of_its_creation_is_lost() {
    let mut group = Group::empty();
    group.join();
    group.pass(16.0);
    assert!(group.leads(0));
    let create = *group.served.iter().find(|sent| sent.request.target == Target::Lock(LOCK)).unwrap();
    group.delete(Key::Lock(LOCK));
    assert!(matches!(group.apply(create), Outcome::Written { .. }));
    group.list(0);
    assert!(matches!(group.members[0].told[1], Told::Fence(_, FenceCause::Deposed, _)));
}

#[test]
fn a_claim_confirmed_by_the_list_that_shows_the_session_dead_is_not_granted() {
    let mut group = Group::new(1);
    group.tell(0, Event::Tick);
    // The session is alive and the claim is sent, but the watch stands still before it shows the claim.
    while group.served.iter().all(|sent| sent.request.target != Target::Lock(LOCK)) {
        assert!(group.deliver_next(0));
    }
    let session = group.members[0].core.session();
    let dead = SessionRecord { seq: 2, dead: Some(cluster_lease::Death::Weak), limits: None };
    group.set(Key::Session(session), Record::Session(dead));
    assert_eq!(group.lock().holder, Some(session));
    group.list(0);
    assert_eq!(group.members[0].told, []);
    assert_ne!(group.members[0].core.session(), session);
}

#[test]
fn after_a_gap_the_wait_for_a_weak_death_counts_from_the_death() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let leader = group.active()[0];
    let standby = 1 - leader;
    let session = group.members[leader].core.session();
    // The standby's watch stands still while the leader goes on with its heartbeats, then somebody
    // declares the leader dead on weak evidence, and the standby learns of it by a list.
    group.cut(standby);
    group.pass(14.0);
    let seq = group.session_record(session).seq;
    group.cut(leader);
    group.set(
        Key::Session(session),
        Record::Session(SessionRecord { seq, dead: Some(cluster_lease::Death::Weak), limits: None }),
    );
    group.members[standby].connected = true;
    group.list(standby);
    group.pass(10.0);
    assert!(
        !group.leads(standby),
        "the last live version that the standby saw is 14 s older than the last one"
    );
    group.pass(6.0);
    assert!(group.leads(standby));
}

#[test]
fn a_hold_that_a_list_deposes_ends_by_the_deadline_of_before_the_list() {
    let mut group = Group::new(1);
    group.pass(7.0);
    let before = group.members[0].core.guard(LOCK).unwrap().deadline;
    // The watch is down; a heartbeat that was sent after the lock's deletion is echoed by the same list.
    group.tell(0, Event::WatchLost);
    group.delete(Key::Lock(LOCK));
    group.now += seconds(2.5);
    group.tell(0, Event::Tick);
    let fence = group.members[0].told[1];
    assert!(
        matches!(fence, Told::Fence(_, FenceCause::Deposed, at) if at == before + seconds(2.0)),
        "{fence:?}"
    );
    assert!(group.members[0].core.guard(LOCK).is_some_and(|guard| guard.fenced));
}

#[test]
fn terms_rise_even_when_the_store_counts_from_the_beginning_again() {
    let mut group = Group::empty();
    let record = LockRecord { term: 41_000, ..LockRecord::RELEASED };
    group.set(Key::Lock(LOCK), Record::Lock(record));
    group.join();
    group.pass(1.0);
    group.join();
    for _ in 0..2 {
        let leader = group.active()[0];
        group.tell(leader, Event::Resign { lock: LOCK, stay_out: seconds(0.5) });
        group.join_work(leader);
        group.pass(1.0);
    }
    let mut terms = [group.terms(0), group.terms(1)].concat();
    terms.sort_unstable();
    assert_eq!(terms.len(), 3);
    assert!(terms[0] > 41_000);
    assert!(terms.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_holder_that_is_another_incarnation_of_the_same_name_is_a_stranger() {
    let stranger = SessionId { incarnation: 77, generation: 0 };
    let mut group = Group::empty();
    group.set(Key::Session(stranger), Record::Session(SessionRecord { seq: 5, dead: None, limits: None }));
    let held = LockRecord { holder: Some(stranger), term: 3, claim: 1, ..LockRecord::RELEASED };
    group.set(Key::Lock(LOCK), Record::Lock(held));
    group.join();
    group.pass(14.0);
    assert!(!group.leads(0));
    assert_eq!(group.lock().holder, Some(stranger));
}

#[test]
fn a_heartbeat_that_this_process_never_sent_costs_it_its_session() {
    let mut group = Group::new(1);
    group.pass(8.0);
    let session = group.members[0].core.session();
    let seq = group.session_record(session).seq;
    // A copy of this very process sends the next one.
    group.set(
        Key::Session(session),
        Record::Session(SessionRecord { seq: seq + 1, dead: None, limits: None }),
    );
    group.settle();
    assert!(matches!(group.members[0].told[1], Told::Fence(_, FenceCause::SessionLost, _)));
    assert_ne!(group.members[0].core.session(), session);
}

#[test]
fn the_end_of_an_earlier_term_that_is_told_late_or_twice_is_not_that_of_the_present_one() {
    let mut group = Group::new(1);
    group.pass(1.0);
    let first = group.terms(0)[0];
    group.tell(0, Event::Resign { lock: LOCK, stay_out: seconds(0.5) });
    group.join_work(0);
    group.pass(2.0);
    group.tell(0, Event::Resign { lock: LOCK, stay_out: seconds(0.5) });
    group.tell(0, Event::Joined { lock: LOCK, term: first });
    assert!(group.members[0].core.guard(LOCK).is_some(), "the work of the second term is running");
    assert_eq!(group.lock().holder, Some(group.members[0].core.session()));
    group.join_work(0);
    assert_eq!(group.lock().holder, None);
}
