//! What other elections get wrong, one scenario each, played against this one.

mod support;

use cluster_lease::{
    Death, Event, FenceCause, Identity, IdentityError, Key, LockRecord, Operation, Outcome, Precondition,
    Record, SessionId, Target,
};
use support::{Group, LOCK, Sent, Told, seconds};

/// A group of two in which member 0 leads.
fn led_by_the_first() -> Group {
    let mut group = Group::new(1);
    group.pass(1.0);
    group.join();
    group.pass(1.0);
    assert!(group.leads(0));
    group
}

/// Lets time pass until the member leads, and checks at every moment that nobody else works.
fn wait_until_led(group: &mut Group, member: usize, at_most: f64) -> f64 {
    let mut waited = 0.0;
    while !group.leads(member) {
        assert!(waited < at_most, "nobody leads after {waited} s");
        group.pass(0.05);
        waited += 0.05;
        assert!(group.active().len() <= 1, "two work at once: {:?}", group.active());
    }
    waited
}

#[test]
fn h1_the_deadline_counts_from_the_sending_of_a_heartbeat_whose_answer_was_late() {
    let mut group = led_by_the_first();
    for _ in 0..20 {
        group.join();
    }
    group.cut(0);
    while group.stranded.is_empty() {
        group.pass(0.05);
    }
    let (heartbeat, sent_at) = (group.stranded(Target::Heartbeat), group.now);
    // The store applies it at once, the member learns of it 4.9 s later, and then its link drops.
    assert!(matches!(group.apply(heartbeat), Outcome::Written { .. }));
    group.pass(4.9);
    while group.deliver_next(0) {}
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    assert_eq!(deadline, sent_at + seconds(12.5), "{deadline:?} from {sent_at:?}");
    while group.active() == [0] {
        group.pass(0.05);
        if group.now >= deadline {
            assert!(!group.leads(0));
        }
        if group.now >= deadline + seconds(2.0) {
            assert!(matches!(group.members[0].told.last(), Some(Told::Abort(_))));
            group.join_work(0);
        }
    }
    assert!(group.active().is_empty());
    group.pass(5.0);
    assert_eq!(group.active().len(), 1);
}

#[test]
fn h2_deleting_the_lock_deposes_its_leader_at_once_and_lets_nobody_lead_before_the_wait() {
    let mut group = led_by_the_first();
    group.delete(Key::Lock(LOCK));
    group.settle();
    assert!(matches!(group.members[0].told.last(), Some(Told::Fence(_, FenceCause::Deposed, _))));
    group.pass(1.9);
    group.join_work(0);
    group.pass(12.0);
    assert!(group.active().is_empty());
    group.pass(2.0);
    assert_eq!(group.active().len(), 1);
}

#[test]
fn h2_deleting_the_lock_of_a_leader_that_is_cut_off_gives_nobody_its_time() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.delete(Key::Lock(LOCK));
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    while group.now < deadline + seconds(2.0) {
        assert!(!group.leads(1));
        group.pass(0.05);
    }
    group.join_work(0);
    wait_until_led(&mut group, 1, 5.0);
}

#[test]
fn h3_a_release_that_is_late_does_not_wipe_the_successor() {
    let mut group = led_by_the_first();
    group.tell(0, Event::Unview { lock: LOCK });
    group.cut(0);
    group.join_work(0);
    group.pass(20.0);
    let release = group.stranded(Target::Lock(LOCK));
    assert!(group.leads(1));
    assert_eq!(group.apply(release), Outcome::Conflict);
    group.pass(5.0);
    assert!(group.leads(1));
    assert_eq!(group.terms(1).len(), 1);
}

#[test]
fn h4_a_leader_that_lost_is_fenced_before_anything_is_released() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.pass(13.0);
    assert!(matches!(group.members[0].told[1], Told::Fence(_, FenceCause::Deadline, _)));
    let released =
        |group: &Group| group.stranded.iter().any(|sent| sent.request.target == Target::Lock(LOCK));
    assert!(!released(&group));
    group.join_work(0);
    assert!(released(&group));
}

#[test]
fn h6_deleting_every_record_does_not_set_the_term_back() {
    let mut group = led_by_the_first();
    let first = group.terms(0)[0];
    let sessions: Vec<_> = group.records.keys().copied().collect();
    for key in sessions {
        group.delete(key);
    }
    group.settle();
    group.join_work(0);
    group.pass(17.0);
    let leader = group.active()[0];
    assert!(*group.terms(leader).last().unwrap() > first);
}

#[test]
fn h7_a_holder_whose_session_was_deleted_is_given_its_time() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.delete(Key::Session(group.members[0].core.session()));
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    while group.now < deadline + seconds(2.0) {
        group.pass(0.05);
        assert!(!group.leads(1));
    }
    group.join_work(0);
    wait_until_led(&mut group, 1, 5.0);
}

#[test]
fn h9_clocks_that_are_hours_apart_change_nothing() {
    let run = |offset: f64| {
        let mut group = Group::new(1);
        group.join_ahead(seconds(offset));
        group.pass(30.0);
        let leader = group.active()[0];
        group.cut(leader);
        let deadline = group.members[leader].core.guard(LOCK).unwrap().deadline;
        let left = deadline - group.now - group.members[leader].offset;
        group.pass(12.6);
        assert!(!group.leads(leader));
        group.join_work(leader);
        (left, wait_until_led(&mut group, 1 - leader, 5.0).to_bits())
    };
    assert_eq!(run(0.0), run(3600.0));
}

#[test]
fn h10_a_heartbeat_that_fails_in_any_way_is_followed_by_the_next_one() {
    let mut group = led_by_the_first();
    let sent = |group: &Group| {
        group
            .served
            .iter()
            .chain(&group.stranded)
            .filter(|sent| sent.request.target == Target::Heartbeat)
            .count()
    };
    group.cut(0);
    for outcome in [Outcome::Unknown, Outcome::Conflict] {
        let before = sent(&group);
        group.pass(4.0);
        assert!(sent(&group) > before);
        let request = group.stranded(Target::Heartbeat).request;
        group.tell(0, Event::Answer { request, outcome });
    }
    group.heal(0);
    group.pass(5.0);
    let before = sent(&group);
    group.pass(4.0);
    assert!(sent(&group) > before);
}

#[test]
fn h13_a_standby_whose_clock_is_ahead_takes_nothing() {
    let mut group = led_by_the_first();
    let ahead = group.join_ahead(seconds(20.0));
    group.pass(60.0);
    assert!(group.terms(ahead).is_empty());
    assert_eq!(group.active(), [0]);
}

#[test]
fn h14_a_store_that_never_answers_ends_leadership_at_the_deadline() {
    let mut group = led_by_the_first();
    let deadline = group.members[0].core.guard(LOCK).unwrap().deadline;
    group.cut(0);
    while group.now < deadline {
        assert!(group.leads(0));
        group.pass(0.05);
    }
    assert!(!group.leads(0));
    assert!(matches!(group.members[0].told.last(), Some(Told::Fence(_, FenceCause::Deadline, _))));
}

#[test]
fn h15_an_empty_identity_is_refused() {
    assert_eq!(Identity::new("", 1), Err(IdentityError::EmptyName));
    assert_eq!(Identity::new("  ", 1), Err(IdentityError::EmptyName));
    assert_eq!(Identity::new("pod-0", 0), Err(IdentityError::ZeroIncarnation));
}

#[test]
fn h15_two_processes_of_one_name_do_not_both_lead() {
    let mut group = Group::new(2);
    group.pass(60.0);
    assert_eq!(group.active().len(), 1);
    assert_eq!(group.terms(0).len() + group.terms(1).len(), 1);
}

#[test]
fn h16_one_conflict_or_one_error_is_not_a_loss() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.pass(3.2);
    // The heartbeat is applied, its answer is lost, and its repetition meets a conflict.
    let heartbeat = group.stranded(Target::Heartbeat);
    assert!(matches!(group.apply(heartbeat), Outcome::Written { .. }));
    group.pass(3.2);
    let again = group.stranded(Target::Heartbeat);
    assert_eq!(group.apply(again), Outcome::Conflict);
    group.tell(0, Event::Answer { request: again.request, outcome: Outcome::Conflict });
    assert!(group.leads(0));
    group.heal(0);
    group.pass(30.0);
    assert!(group.leads(0));
    assert_eq!(group.terms(0).len(), 1);
    assert_eq!(group.members[0].told.len(), 1);
}

#[test]
fn h18_a_release_by_a_candidate_that_lost_the_race_touches_nothing() {
    let mut group = Group::new(2);
    let is_claim = |sent: &Sent| sent.member == 1 && sent.request.target == Target::Lock(LOCK);
    // The second one's session is alive, and then its claim is long on its way.
    let session = group.members[1].core.session();
    while group.session_record(session).seq < 2 {
        assert!(group.deliver_next(1));
    }
    group.cut(1);
    while !group.stranded.iter().any(is_claim) {
        assert!(group.deliver_next(1));
    }
    group.pass(0.2);
    assert!(group.leads(0));
    let (version, record) = group.records[&Key::Lock(LOCK)];
    group.tell(1, Event::Unview { lock: LOCK });
    let late: Vec<Sent> = group.stranded.iter().copied().filter(is_claim).collect();
    assert!(!late.is_empty());
    for sent in late {
        assert_eq!(group.apply(sent), Outcome::Conflict);
        group.tell(1, Event::Answer { request: sent.request, outcome: Outcome::Conflict });
    }
    group.heal(1);
    group.pass(20.0);
    assert!(group.leads(0));
    assert_eq!(group.records[&Key::Lock(LOCK)], (version, record), "nobody has written it since");
    assert!(!group.served.iter().any(is_claim));
}

#[test]
fn h19_of_many_candidates_at_the_expiry_one_leads() {
    let mut group = led_by_the_first();
    for _ in 0..8 {
        group.join();
    }
    group.members[0].running = false;
    group.cut(0);
    group.pass(20.0);
    let led = (1..10).filter(|member| !group.terms(*member).is_empty()).count();
    assert_eq!(led, 1);
}

#[test]
fn h19_a_paused_leader_cannot_extend_what_another_holds() {
    let mut group = led_by_the_first();
    group.members[0].running = false;
    group.pass(20.0);
    let successor = group.members[1].core.session();
    assert_eq!(group.lock().holder, Some(successor));
    group.members[0].running = true;
    group.tell(0, Event::Tick);
    group.pass(5.0);
    assert_eq!(group.lock().holder, Some(successor));
    assert!(matches!(group.members[0].told[1], Told::Fence(..)));
}

#[test]
fn h20_no_write_is_without_a_precondition() {
    let mut group = Group::empty();
    group.join();
    group.join();
    group.pass(20.0);
    group.delete(Key::Lock(LOCK));
    group.pass(20.0);
    for sent in &group.served {
        if let Operation::Write { key, expect, .. } = sent.operation {
            let allowed = matches!(expect, Precondition::Version(version) if version > 0);
            assert!(allowed || expect == Precondition::Absent, "{key:?} {expect:?}");
        }
    }
}

#[test]
fn h21_a_stalled_attempt_does_not_use_up_the_deadline() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.pass(10.0);
    let attempts = group.stranded.iter().filter(|sent| sent.request.target == Target::Heartbeat).count();
    assert!(attempts >= 3, "{attempts} attempts");
    // The last one gets through just in time.
    let last = group.stranded(Target::Heartbeat);
    assert!(matches!(group.apply(last), Outcome::Written { .. }));
    group.heal(0);
    group.pass(30.0);
    assert!(group.leads(0));
    assert_eq!(group.terms(0).len(), 1);
}

#[test]
fn h22_after_a_long_pause_the_first_check_fails() {
    let mut group = led_by_the_first();
    group.members[0].running = false;
    group.pass(25.0);
    assert!(group.leads(1));
    // Nothing has told the core that it was away. The guard reads the clock itself.
    assert!(group.members[0].core.guard(LOCK).is_some_and(|guard| !guard.fenced));
    assert!(!group.may_step(0));
    group.members[0].running = true;
    group.tell(0, Event::Tick);
    assert!(matches!(group.members[0].told[1..], [Told::Fence(..), Told::Abort(_)]));
}

#[test]
fn h23_a_process_that_restarts_under_the_same_name_is_not_taken_for_the_old_one() {
    let mut group = led_by_the_first();
    group.members[0].running = false;
    group.cut(0);
    let restarted = group.join();
    group.pass(13.0);
    assert!(group.terms(restarted).is_empty());
    group.pass(5.0);
    assert_eq!(group.terms(1).len() + group.terms(restarted).len(), 1);
}

#[test]
fn h24_two_lost_sessions_in_a_row_leave_one_leader() {
    let mut group = Group::new(1);
    group.pass(1.0);
    for _ in 0..2 {
        let session = group.members[0].core.session();
        if group.records.contains_key(&Key::Session(session)) {
            group.delete(Key::Session(session));
        }
        group.settle();
        if group.members[0].core.guard(LOCK).is_some_and(|guard| guard.fenced) {
            group.join_work(0);
        }
        group.pass(0.5);
        assert!(group.active().len() <= 1);
    }
    group.join();
    group.pass(40.0);
    assert_eq!(group.active().len(), 1);
}

#[test]
fn h25_a_holder_that_was_edited_by_hand_fences_the_leader_at_once() {
    let mut group = led_by_the_first();
    let nobody = SessionId { incarnation: 99, generation: 0 };
    let edited = LockRecord { holder: Some(nobody), ..group.lock() };
    group.set(Key::Lock(LOCK), Record::Lock(edited));
    group.settle();
    assert!(matches!(group.members[0].told.last(), Some(Told::Fence(_, FenceCause::Deposed, _))));
}

#[test]
fn h26_a_release_waits_until_the_running_work_has_ended() {
    let mut group = led_by_the_first();
    group.tell(0, Event::Drain);
    assert!(matches!(group.members[0].told.last(), Some(Told::Drain(_))));
    group.pass(60.0);
    // Heartbeats go on, so the running work may finish; the successor waits as long as it takes.
    assert!(group.may_step(0));
    assert!(group.members[0].core.guard(LOCK).is_some_and(|guard| guard.draining));
    assert!(!group.leads(1));
    group.join_work(0);
    assert!(wait_until_led(&mut group, 1, 1.0) <= 0.2);
    assert!(group.members[0].core.is_idle());
}

#[test]
fn h27_no_step_starts_after_the_fence_whatever_is_buffered() {
    let mut group = led_by_the_first();
    group.cut(0);
    group.pass(12.6);
    assert!(group.members[0].core.guard(LOCK).is_some(), "work is still being ended");
    for _ in 0..100 {
        assert!(!group.may_step(0));
        group.now += seconds(0.01);
    }
}

#[test]
fn h28_missed_ticks_are_not_made_up_in_the_term_of_a_successor() {
    let mut group = led_by_the_first();
    group.members[0].running = false;
    group.pass(25.0);
    for _ in 0..125 {
        assert!(!group.may_step(0));
    }
}

#[test]
fn evidence_that_a_process_has_ended_saves_the_wait() {
    let mut group = led_by_the_first();
    group.members[0].running = false;
    group.cut(0);
    let session = group.members[0].core.session();
    group.tell(1, Event::Evidence { session, death: Death::Proof });
    group.join_work(0);
    assert!(wait_until_led(&mut group, 1, 1.0) <= 0.2);
}

#[test]
fn a_standby_sends_nothing() {
    let mut group = led_by_the_first();
    let before = group.served.len();
    group.pass(310.0);
    let requests = &group.served[before..];
    assert!(requests.iter().all(|sent| sent.member == 0), "{requests:?}");
    assert!((99..=101).contains(&requests.len()), "one heartbeat per period: {}", requests.len());
}

#[test]
fn confirming_needs_the_record_of_the_present_claim() {
    let group = led_by_the_first();
    let record = Record::Lock(group.lock());
    assert!(group.members[0].core.confirms(LOCK, Some(&record)));
    assert!(!group.members[0].core.confirms(LOCK, None));
    let other = Record::Lock(LockRecord { claim: 77, ..group.lock() });
    assert!(!group.members[0].core.confirms(LOCK, Some(&other)));
    assert!(!group.members[1].core.confirms(LOCK, Some(&record)));
}

#[test]
fn whoever_resigns_stays_out_for_as_long_as_it_said() {
    let mut group = Group::new(1);
    group.pass(1.0);
    group.tell(0, Event::Resign { lock: LOCK, stay_out: seconds(10.0) });
    group.join_work(0);
    group.pass(9.8);
    assert!(group.active().is_empty());
    group.pass(0.5);
    assert!(group.leads(0));
}
