//! One object of the store may hold one session after the other.

mod support;

use cluster_lease::{Event, FenceCause, Key, Record, SessionId, SessionRecord};
use support::{Group, LOCK, Told};

#[test]
fn a_session_whose_object_now_holds_another_one_counts_as_deleted() {
    let mut group = Group::new(2);
    group.pass(1.0);
    let leader = group.active()[0];
    let standby = 1 - leader;
    let former = Key::Session(group.members[leader].core.session());
    let next = SessionId { incarnation: 99, generation: 0 };
    let record = Record::Session(SessionRecord { seq: 1, dead: None });
    group.replace(former, Key::Session(next), record);
    group.pass(0.1);
    assert!(matches!(group.members[leader].told[1], Told::Fence(_, FenceCause::SessionLost, _)));
    group.join_work(leader);
    group.cut(leader);
    group.pass(14.0);
    assert!(!group.leads(standby), "its holder may have been cut off");
    group.pass(1.5);
    assert!(group.leads(standby));
    assert_eq!(group.members[standby].core.holder(LOCK), Some(group.members[standby].core.session()));
}

#[test]
fn the_own_session_may_begin_in_the_object_of_another() {
    let mut group = Group::new(1);
    let own = group.members[0].core.session();
    let former = Key::Session(SessionId { incarnation: 99, generation: 0 });
    group.tell(0, Event::Tick);
    let (_, created) = group.records.remove(&Key::Session(own)).expect("the session was created");
    group.log.pop();
    group.replace(former, Key::Session(own), created);
    group.pass(1.0);
    assert!(group.leads(0), "the echo of its first heartbeat is the change that replaced the other");
}
