//! What `LeaseCluster` promises, under paused time, each promise by name. `hNN` are the holes of other
//! elections that can only be seen with a driver around the core.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_lease::{
    Attempt, Clock, Clocks, Death, Faults, LeaseCluster, LeaseClusterSettings, LeaseStore, MemoryStore,
    Precondition, Span, StoreKey, StoreRecord, TokioClock, Write,
};
use process::{Process, lock, seconds, store};
use router_core::cluster::{ClusterError, ClusterService, Leader, Leadership, LockName, Member};
use tokio::time::{Instant, sleep, timeout};

const X: Duration = Duration::from_secs(15);
const Y: Duration = Duration::from_millis(12_500);
const T: Duration = Duration::from_millis(3_100);

#[tokio::test(start_paused = true)]
async fn one_leads_at_once_and_the_other_knows_by_name() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let start = Instant::now();
    let scope = a.lead().await;
    assert!(start.elapsed() < Duration::from_millis(10), "a free lock is led at once");
    let mut view = b.view().await;
    let leader = loop {
        if let Leadership::Follower { leader } = view.changed().await.unwrap() {
            break leader;
        }
    };
    let (member, term) = (Member::new("a"), scope.term().number());
    assert_eq!(leader, Leader { member, term, why: leader.why.clone() });
    let members: Vec<_> = view.members().into_iter().map(|member| member.id).collect();
    assert_eq!(members, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_view_tells_of_members_that_come_and_go() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    // Of another lock: this one is for the other member alone.
    let mut view = b.cluster.view(&"lock2".parse().unwrap()).await.unwrap();
    let mut told = async |wanted: &[&str]| {
        loop {
            let members = timeout(X + X, view.members_changed()).await.unwrap().unwrap();
            if members.iter().map(|member| member.id.as_str()).eq(wanted.iter().copied()) {
                return;
            }
        }
    };
    told(&["b"]).await;
    let scope = a.lead().await;
    told(&["b", "a"]).await;
    drop(scope);
    a.cluster.close().await;
    told(&["b"]).await;
    b.cluster.close().await;
    assert!(matches!(view.members_changed().await, Err(ClusterError::Closed)));
}

/// The number of the leader's term, as a member sees it that starts now.
async fn number_for_a_newcomer(store: &MemoryStore, name: &str) -> (Process, u64) {
    let newcomer = Process::start(store, name);
    let mut view = newcomer.view().await;
    loop {
        if let Leadership::Follower { leader } = view.changed().await.unwrap() {
            return (newcomer, leader.term);
        }
    }
}

/// The version of a claim is its number until anything else is written into the record.
#[tokio::test(start_paused = true)]
async fn members_that_start_later_tell_the_number_of_the_term_as_its_leader_does() {
    for waits in [true, false] {
        let store = if waits { MemoryStore::new() } else { store() };
        let a = Process::start(&store, "a");
        let scope = a.lead().await;
        let number = scope.term().number();
        sleep(seconds(1)).await;
        let (_b, seen) = number_for_a_newcomer(&store, "b").await;
        assert_eq!(seen, number, "after the wait, if there was one: {waits}");
        // Another writer changes something else about the record, in which the number stands only if the leader has settled.
        let hand = store.handle(9);
        let entry = hand.read(&lock()).await.unwrap().unwrap();
        let term = waits.then_some(number);
        let record = StoreRecord::Lock { record: entry.record, holder: Some("a".into()), term };
        let edit = Write::new(StoreKey::Lock(lock()), Precondition::Version(entry.version), record);
        hand.write(edit, Attempt::default()).await.unwrap();
        sleep(seconds(1)).await;
        let (_c, seen) = number_for_a_newcomer(&store, "c").await;
        assert_eq!(seen, number, "after a change in passing; it waited: {waits}");
        scope.term().states().store("poll", &serde_json::json!(1)).await.unwrap();
        let (_d, seen) = number_for_a_newcomer(&store, "d").await;
        assert_eq!(seen, number, "after a state; it waited: {waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_without_a_record_rests_for_the_takeover_wait_once() {
    let store = MemoryStore::new();
    let a = Process::start(&store, "a");
    let start = Instant::now();
    let scope = a.lead().await;
    assert!((X..X + seconds(1)).contains(&start.elapsed()));
    drop(scope);
    a.cluster.close().await;
    let b = Process::start(&store, "b");
    let start = Instant::now();
    b.lead().await;
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_standby_sends_nothing_and_a_leader_one_heartbeat_per_period() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let _scope = a.lead().await;
    let _standing_by = b.view().await;
    sleep(seconds(60)).await;
    let before = (a.handle.link().requests(), b.handle.link().requests());
    sleep(T * 100).await;
    assert_eq!(b.handle.link().requests(), before.1);
    let sent = a.handle.link().requests().total() - before.0.total();
    assert!((99..=101).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_given_up_is_led_by_the_next_at_once_and_its_numbers_rise() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let first = a.lead().await;
    let (view, standing_by) = (a.view().await, b.view().await);
    view.resign(seconds(30));
    first.term().lost().await;
    let given_up = Instant::now();
    let number = first.term().number();
    drop(first);
    let second = standing_by.lead().await.unwrap();
    let Leadership::Follower { leader } = view.leadership() else { panic!("a knows no leader") };
    assert_eq!((leader.member.id.as_str(), leader.why.as_str()), ("b", "it was released"));
    assert!(given_up.elapsed() < Duration::from_millis(10));
    assert!(second.term().number() > number);
    assert_eq!(second.term().holder().id, "b");
}

#[tokio::test(start_paused = true)]
async fn who_stays_out_for_ever_does() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let view = a.view().await;
    let scope = view.lead().await.unwrap();
    let next = b.view().await;
    view.resign(Duration::MAX);
    scope.term().lost().await;
    drop(scope);
    drop(timeout(seconds(1), next.lead()).await.expect("the other one leads").unwrap());
    b.cluster.close().await;
    sleep(seconds(100)).await;
    assert!(matches!(view.leadership(), Leadership::Vacant(_)), "nobody else is there");
}

#[tokio::test(start_paused = true)]
async fn a_resignation_without_staying_out_ends_the_term_too() {
    let store = store();
    let a = Process::start(&store, "a");
    let view = a.view().await;
    let first = view.lead().await.unwrap();
    view.resign(Duration::ZERO);
    first.term().lost().await;
    let number = first.term().number();
    drop(first);
    assert!(timeout(seconds(1), view.lead()).await.unwrap().unwrap().term().number() > number);
}

#[tokio::test(start_paused = true)]
async fn work_has_all_the_time_it_needs_while_a_lock_is_given_up() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let standing_by = b.view().await;
    let closing = tokio::spawn({
        let cluster = a.cluster.clone();
        async move { cluster.close().await }
    });
    scope.term().lost().await;
    // Far longer than the deadline: heartbeats go on.
    for _ in 0..300 {
        assert!(scope.term().check().is_ok(), "running work still has its term");
        assert!(scope.term().admit().is_err(), "new work does not start");
        assert!(timeout(seconds(1), standing_by.lead()).await.is_err());
    }
    let unfinished = scope.term().clone();
    drop(scope);
    let next = timeout(Duration::from_millis(10), standing_by.lead()).await.unwrap().unwrap();
    assert!(unfinished.check().is_err(), "what kept the term beyond its scope cannot act on it");
    assert!(next.term().check().is_ok());
    closing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn h14_h17_a_store_that_never_answers_ends_the_term_on_time() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let standing_by = b.view().await;
    sleep(seconds(100)).await;
    a.handle.link().cut();
    let cut = Instant::now();
    scope.term().lost().await;
    let elapsed = cut.elapsed();
    assert!(Y - T <= elapsed && elapsed <= Y, "{elapsed:?}");
    assert!(!scope.term().is_valid());
    scope.term().expired().await;
    let expired = cut.elapsed();
    assert!(expired - elapsed <= seconds(2));
    // Not even now does the other wait for this scope to end: it waits for x, counted from the last
    // heartbeat.
    let next = standing_by.lead().await.unwrap();
    assert!(cut.elapsed() > expired && cut.elapsed() <= X + seconds(1), "{:?}", cut.elapsed());
    assert!(next.term().number() > scope.term().number());
}

#[tokio::test(start_paused = true)]
async fn h1_a_late_answer_does_not_make_the_deadline_later() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    sleep(seconds(100)).await;
    // Answers and changes now take almost as long as an attempt may; then nothing comes any more.
    let late = Span::exactly(Duration::from_millis(2_900));
    a.handle.link().set(Faults { answer_delay: late, watch_delay: late, ..Faults::default() });
    let before = a.handle.link().requests().writes;
    while a.handle.link().requests().writes == before {
        sleep(Duration::from_millis(1)).await;
    }
    let sent = Instant::now();
    sleep(seconds(3)).await;
    a.handle.link().cut();
    scope.term().lost().await;
    assert!(sent.elapsed() <= Y, "{:?}", sent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn h21_a_stalled_heartbeat_is_followed_by_another_on_a_fresh_connection() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    sleep(seconds(100)).await;
    for _ in 0..20 {
        a.handle.link().set(Faults { lose_request: 100, ..Faults::default() });
        // One attempt is due and stalls in this time.
        sleep(T).await;
        a.handle.link().set(Faults::default());
        sleep(seconds(3) + T).await;
    }
    assert!(scope.term().is_valid());
    assert!(a.handle.link().requests().fresh_connections >= 20);
}

#[tokio::test(start_paused = true)]
async fn h16_an_error_is_not_a_loss() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    for _ in 0..20 {
        // Every request fails, half of them though they are applied.
        a.handle.link().set(Faults { fail_early: 100, lose_request: 50, ..Faults::default() });
        sleep(seconds(6)).await;
        a.handle.link().set(Faults::default());
        sleep(seconds(6)).await;
        assert!(scope.term().is_valid());
    }
}

#[tokio::test(start_paused = true)]
async fn h2_h7_a_deleted_record_gives_the_lock_to_nobody_before_the_old_leader_has_stopped() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let standing_by = b.view().await;
    sleep(seconds(100)).await;
    // The leader sees nothing of it.
    a.handle.link().stall_watch(true);
    assert!(store.delete(&StoreKey::Lock(lock())));
    let deleted = Instant::now();
    let term = scope.term().clone();
    let old = tokio::spawn(async move {
        scope.term().expired().await;
        (Instant::now(), scope)
    });
    let next = standing_by.lead().await.unwrap();
    let (ended, _scope) = timeout(Duration::ZERO, old).await.expect("two work at once").unwrap();
    assert!(ended < Instant::now());
    assert!(deleted.elapsed() >= X);
    assert!(next.term().number() > term.number(), "numbers survive a deletion");
}

#[tokio::test(start_paused = true)]
async fn h15_two_processes_of_one_name_are_two() {
    let store = store();
    let (a, b) = (Process::start(&store, "same"), Process::start(&store, "same"));
    let _scope = a.lead().await;
    assert!(timeout(seconds(300), b.view().await.lead()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_silently_stops_is_noticed() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    let standing_by = b.view().await;
    a.handle.link().stall_watch(true);
    sleep(seconds(300)).await;
    assert!(scope.term().is_valid(), "lists serve as the echo");
    let watches = a.handle.link().requests().watches;
    assert!(watches > 1, "the watch is opened again");
    a.handle.link().stall_watch(false);
    b.handle.link().stall_watch(true);
    drop(scope);
    a.cluster.close().await;
    timeout(seconds(60), standing_by.lead()).await.expect("a standby with a dead watch leads too").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_term_is_confirmed_by_the_store_even_where_no_clock_tells() {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let scope = a.lead().await;
    scope.term().confirm().await.unwrap();
    let standing_by = b.view().await;
    // A virtual machine that is paused: its clocks stand still.
    a.handle.link().cut();
    a.clock.skew(-1_000_000);
    let _next = standing_by.lead().await.unwrap();
    assert!(scope.term().check().is_ok(), "this is what no clock can tell");
    a.handle.link().stall_watch(true);
    a.handle.link().mend();
    scope.term().confirm().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_confirms_nothing() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    a.handle.link().cut();
    let asked = Instant::now();
    scope.term().confirm().await.unwrap_err();
    assert!(asked.elapsed() <= seconds(3));
    assert!(scope.term().check().is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_nothing_starts_before_anybody_has_looked_at_a_clock() {
    let store = store();
    let a = Process::start(&store, "a");
    let scope = a.lead().await;
    a.clock.jump(Y);
    assert!(scope.term().check().is_err(), "no task has run since");
}

#[tokio::test(start_paused = true)]
async fn a_drained_member_leads_nothing_until_it_is_undrained() {
    let store = store();
    let a = Process::start(&store, "a");
    let view = a.view().await;
    let scope = view.lead().await.unwrap();
    let (drained, ()) = tokio::join!(timeout(seconds(10), a.cluster.drain()), async {
        scope.term().lost().await;
        drop(scope);
    });
    drained.unwrap();
    assert!(timeout(seconds(100), view.lead()).await.is_err());
    a.cluster.undrain();
    timeout(seconds(1), view.lead()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_closing_views_say_so_and_nothing_is_held() {
    let store = store();
    let a = Process::start(&store, "a");
    let view = a.view().await;
    drop(view.lead().await.unwrap());
    a.cluster.close().await;
    assert!(matches!(view.lead().await, Err(ClusterError::Closed)));
    assert!(matches!(a.cluster.view(&lock()).await, Err(ClusterError::Closed)));
    a.cluster.close().await;
    let b = Process::start(&store, "b");
    assert!(timeout(seconds(1), b.view().await.lead()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_reached_the_store_closes_at_once() {
    let store = store();
    let a = Process::start(&store, "a");
    a.handle.link().cut();
    let view = a.view().await;
    assert!(timeout(seconds(100), view.lead()).await.is_err());
    timeout(seconds(1), a.cluster.close()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_dropped_gives_its_locks_back() {
    let store = store();
    let a = Process::start(&store, "a");
    drop(a.lead().await);
    drop(a);
    let b = Process::start(&store, "b");
    timeout(seconds(1), b.view().await.lead()).await.unwrap().unwrap();
}

/// How long after the death of the leader the other one leads, if it is told so after two seconds.
async fn taken_over_after(death: Death) -> Duration {
    let store = store();
    let (a, b) = (Process::start(&store, "a"), Process::start(&store, "b"));
    let _scope = a.lead().await;
    let standing_by = b.view().await;
    sleep(seconds(10)).await;
    a.handle.link().cut();
    let cut = Instant::now();
    sleep(seconds(2)).await;
    let session = b.cluster.sessions().borrow().iter().find(|(_, member)| member.id == "a").unwrap().0;
    b.cluster.report(session, death);
    timeout(seconds(60), standing_by.lead()).await.unwrap().unwrap();
    cut.elapsed()
}

#[tokio::test(start_paused = true)]
async fn proof_of_its_end_makes_a_leaders_locks_free_at_once_and_a_rumour_does_not() {
    assert!(taken_over_after(Death::Proof).await < seconds(3));
    let after = taken_over_after(Death::Weak).await;
    assert!(X - T <= after && after <= X, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn locks_spread_over_the_members_by_their_weights() {
    let store = MemoryStore::new();
    let locks: Vec<LockName> = (0..60).map(|lock| format!("lock{lock}").parse().unwrap()).collect();
    locks.iter().for_each(|lock| store.create_free(lock));
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let settings = LeaseClusterSettings::new(Member::new(name))
            .clock(Arc::new(TokioClock::default()))
            .candidates([("a".into(), 2), ("b".into(), 1), ("c".into(), 0)]);
        let cluster = LeaseCluster::start(store.handle(1), settings).unwrap();
        let mut views = Vec::new();
        for lock in &locks {
            views.push(cluster.view(lock).await.unwrap());
        }
        members.push((cluster, views));
    }
    sleep(seconds(1)).await;
    let led: Vec<_> = members
        .iter()
        .map(|(_, views)| views.iter().filter(|v| matches!(v.leadership(), Leadership::Leader(_))).count())
        .collect();
    assert_eq!(led.iter().sum::<usize>(), 60);
    assert!((30..50).contains(&led[0]) && led[2] == 0, "{led:?}");
}

/// A clock that can be made to panic in the election's loop.
#[derive(Default)]
struct Bomb {
    clock: TokioClock,
    armed: AtomicBool,
}

impl Clock for Bomb {
    fn now(&self) -> Clocks {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the clock explodes");
        self.clock.now()
    }

    fn leader(&self) -> Duration {
        self.clock.leader()
    }

    fn follows_tokio(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_election_ends_all_terms_and_it_begins_anew() {
    let store = store();
    let clock = Arc::new(Bomb::default());
    let settings = LeaseClusterSettings::new(Member::new("a")).clock(clock.clone()).strict(false);
    let cluster = LeaseCluster::start(store.handle(1), settings).unwrap();
    let view = cluster.view(&lock()).await.unwrap();
    let first = view.lead().await.unwrap();
    clock.armed.store(true, Ordering::SeqCst);
    let armed = Instant::now();
    first.term().lost().await;
    assert!(armed.elapsed() <= T);
    let number = first.term().number();
    assert!(first.term().check().is_err());
    // The lock is not led anew while work of the old term is there.
    assert!(timeout(seconds(100), view.lead()).await.is_err());
    drop(first);
    let second = timeout(X + seconds(5), view.lead()).await.unwrap().unwrap();
    assert!(second.term().number() > number);
    drop(second);
    cluster.close().await;
}
