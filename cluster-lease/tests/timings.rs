//! Members with different timings: what the holder lives by counts, and every wait that is owed is passed on.

mod support;

use cluster_lease::{Death, Event, Key, Record, SessionRecord, Settings};
use support::{Group, LOCK, seconds};

/// A group in which the first member, of this timing, leads.
fn led_by(settings: Settings) -> Group {
    let mut group = Group::new(0);
    group.join_with(settings);
    group.pass(1.0);
    assert!(group.leads(0));
    group
}

/// Cuts the first member off and lets the other take over. No matter when it was: not before the work of the
/// first one must have ended.
fn takes_over_in_time(group: &mut Group, next: usize) -> f64 {
    let deadline = group.members[0].core.guard(LOCK).expect("it leads").deadline;
    let stop = group.members[0].core.settings().stop();
    group.cut(0);
    while group.now < deadline + stop {
        group.pass(0.05);
        assert!(
            !group.leads(next),
            "the first member works until {:?}, and it is {:?}",
            deadline + stop,
            group.now
        );
    }
    group.join_work(0);
    let after = group.until_led(next);
    assert!(after < 5.0, "{after} s too late");
    (group.now - deadline).as_secs_f64()
}

#[test]
fn a_silent_holder_is_given_the_time_that_its_session_says() {
    let mut group = led_by(Settings::relaxed());
    let next = group.join_with(Settings::fast());
    group.pass(30.0);
    assert!(group.leads(0), "a healthy leader is not declared dead between two heartbeats");
    takes_over_in_time(&mut group, next);
}

#[test]
fn the_larger_takeover_wait_alone_is_not_enough() {
    // 15 s by a clock that may run 10 % fast are 13.6 s, and the work of the holder takes up to 14.6 s.
    let mut group = led_by(Settings::default());
    let next = group.join_with(Settings::slewed_clock());
    let session = group.members[0].core.session();
    group.cut(0);
    let version = |group: &Group| group.records[&Key::Session(session)].0;
    let (silent, since) = (version(&group), group.now);
    while version(&group) == silent {
        group.pass(0.05);
    }
    let watched = (group.now - since).as_secs_f64();
    assert!(watched > 16.0, "declared dead after {watched} s");
    let _ = next;
}

#[test]
fn a_holder_that_was_reported_gone_is_given_the_time_that_it_says() {
    let mut group = led_by(Settings::relaxed());
    let next = group.join_with(Settings::fast());
    let session = group.members[0].core.session();
    group.cut(0);
    // An older version of the program declares it dead, and leaves out what it lives by.
    let SessionRecord { seq, .. } = group.session_record(session);
    let dead = SessionRecord { seq, dead: Some(Death::Weak), limits: None };
    group.set(Key::Session(session), Record::Session(dead));
    takes_over_in_time(&mut group, next);
}

#[test]
fn the_lock_says_what_its_holder_lives_by_when_the_session_is_gone() {
    let mut group = led_by(Settings::relaxed());
    group.cut(0);
    group.delete(Key::Session(group.members[0].core.session()));
    let next = group.join_with(Settings::fast());
    takes_over_in_time(&mut group, next);
}

#[test]
fn an_absent_lock_is_given_the_time_of_the_slowest_session() {
    let mut group = led_by(Settings::relaxed());
    group.cut(0);
    group.delete(Key::Lock(LOCK));
    let next = group.join_with(Settings::fast());
    takes_over_in_time(&mut group, next);
}

#[test]
fn an_absent_lock_is_given_the_time_of_what_is_remembered() {
    let mut group = led_by(Settings::relaxed());
    let next = group.join_with(Settings::fast());
    group.cut(0);
    group.delete(Key::Session(group.members[0].core.session()));
    group.delete(Key::Lock(LOCK));
    takes_over_in_time(&mut group, next);
}

#[test]
fn a_claim_passes_on_the_longest_wait_that_is_owed() {
    let mut group = led_by(Settings::relaxed());
    group.cut(0);
    let first = group.join_with(Settings::fast());
    group.delete(Key::Session(group.members[0].core.session()));
    group.delete(Key::Lock(LOCK));
    group.pass(1.0);
    let claimant = group.members[first].core.session();
    assert_eq!(group.lock().holder, Some(claimant));
    // It dies while it waits. Whoever comes next has never seen a record of the first leader.
    group.members[first].running = false;
    let next = group.join_with(Settings::fast());
    group.tell(next, Event::Evidence { session: claimant, death: Death::Proof });
    takes_over_in_time(&mut group, next);
}

#[test]
fn a_claimant_that_gives_up_passes_its_own_wait_on() {
    let mut group = Group::empty();
    let slow = group.join_with(Settings::relaxed());
    group.pass(1.0);
    group.tell(slow, Event::Unview { lock: LOCK });
    group.pass(1.0);
    assert_eq!((group.lock().holder, group.lock().settled), (None, false));
    let next = group.join_with(Settings::fast());
    let waited = group.until_led(next);
    assert!((59.0..61.0).contains(&waited), "{waited} s: the slow one knew that sixty seconds are owed");
}

#[test]
fn a_lock_that_was_given_up_owes_nothing() {
    let mut group = led_by(Settings::relaxed());
    let next = group.join_with(Settings::fast());
    group.tell(0, Event::Unview { lock: LOCK });
    group.join_work(0);
    assert!(group.until_led(next) < 1.0);
    assert_eq!(group.lock().limits, Some(Settings::fast().limits()));
}

#[test]
fn a_record_that_does_not_say_it_is_given_the_longest_time_that_was_seen() {
    let mut group = led_by(Settings::relaxed());
    let (_, record) = group.records[&Key::Lock(LOCK)];
    let Record::Lock(record) = record else { panic!("not a lock") };
    let next = group.join_with(Settings::fast());
    group.cut(0);
    // As an older version of the program would have written it.
    group.set(Key::Lock(LOCK), Record::Lock(cluster_lease::LockRecord { limits: None, ..record }));
    group.delete(Key::Session(group.members[0].core.session()));
    takes_over_in_time(&mut group, next);
}

#[test]
fn a_wait_is_never_shorter_than_the_own_one() {
    let mut group = led_by(Settings::fast());
    let next = group.join_with(Settings::relaxed());
    group.cut(0);
    let waited = group.until_led(next);
    assert!(waited > 55.0, "{waited} s");
    assert!(group.now > seconds(1000.0));
}
