//! Who leads, and when.

use super::camel::{Camel, Periods};
use super::*;
use crate::test_support;
use serde_json::json;

/// A member of ours, and its view of the one lock.
pub(super) struct Contender {
    pub(super) cluster: Arc<LeaseCluster>,
    pub(super) view: ClusterView,
    pub(super) cut_off: Arc<AtomicBool>,
    _pods: tokio_util::sync::DropGuard,
}

/// Camel's defaults.
pub(super) const PERIODS: Periods =
    Periods { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };

pub(super) fn start(camel: &Arc<Camel>) -> tokio::task::AbortHandle {
    #[expect(clippy::disallowed_methods, reason = "the runtime of the test is its supervisor")]
    tokio::spawn(Arc::clone(camel).run()).abort_handle()
}

const NO_FAULT: fn(&crate::fake_api_server::Seen) -> Fault = |_| Fault::None;

pub(super) async fn contender(server: &Arc<FakeServer>, pod: &str) -> Contender {
    contender_with(server, pod, Arc::new(TokioClock::default())).await
}

pub(super) async fn contender_with(server: &Arc<FakeServer>, pod: &str, clock: Arc<TokioClock>) -> Contender {
    let (seen, pods) = watch::channel(Pods::default());
    let cut_off = Arc::default();
    let (clients, namespace) = (server.clients_until(&cut_off), "shop".to_owned());
    let watching = PodWatch {
        clients: clients.clone(),
        namespace: namespace.clone(),
        labels: String::new(),
        without: "",
        seen,
    };
    let quit = tokio_util::sync::CancellationToken::new();
    let quitting = quit.clone();
    #[expect(clippy::disallowed_methods, reason = "the runtime of the test is its supervisor")]
    tokio::spawn(async move { quitting.run_until_cancelled(watching.run()).await });
    let place = (namespace, "leaders".to_owned(), pod.to_owned());
    let store = ConfigMapStore::new(clients, place, Settings::default().heartbeat(), pods);
    let settings =
        LeaseClusterSettings::new(Member { host: Some(pod.into()), ..Member::new(format!("{pod}_1")) })
            .timing(Settings::default())
            .strict(false)
            .clock(clock);
    let cluster = LeaseCluster::start(store, settings).unwrap();
    let view = cluster.view(&lock()).await.unwrap();
    Contender { cluster, view, cut_off, _pods: quit.drop_guard() }
}

impl Contender {
    pub(super) fn term(&self) -> Option<Term> {
        test_support::term(&self.view)
    }

    pub(super) async fn leads(&self) -> Term {
        test_support::leads(&self.view).await
    }
}

pub(super) fn server(pods: &[&str]) -> Arc<FakeServer> {
    let server = FakeServer::new();
    for name in pods {
        server.put("pods", &pod(name, "Running", true));
    }
    server
}

pub(super) fn leader(server: &FakeServer) -> String {
    let config_map = server.object("configmaps", "leaders").unwrap();
    config_map["data"]["leader.pod.lock1"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn change(
    server: &FakeServer,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) {
    let mut config_map = server.object("configmaps", "leaders").unwrap();
    change(config_map["data"].as_object_mut().unwrap());
    server.put("configmaps", &config_map);
}

/// Watches until `two` leads, and asserts that no other member does then.
pub(super) async fn until(mut one: impl FnMut() -> bool, mut two: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !two() {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody takes over");
        sleep(Duration::from_millis(10)).await;
        assert!(!(one() && two()), "two leaders after {:?}", began.elapsed());
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_never_led_is_led_after_the_takeover_wait() {
    let server = server(&["clock-0"]);
    let began = Instant::now();
    let one = contender(&server, "clock-0").await;
    let term = one.leads().await;
    assert!(began.elapsed() >= Duration::from_secs(15), "H7: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
    assert_eq!(leader(&server), "clock-0");
    assert!((100..1_000).contains(&term.number()), "a term's number is a resourceVersion: {}", term.number());
    sleep(Duration::from_secs(120)).await;
    assert!(term.is_valid());
}

#[tokio::test(start_paused = true)]
async fn states_go_over_to_the_next_leader_and_the_last_one_stores_no_more() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let term = one.leads().await;
    let old = term.states();
    for position in 0..3 {
        old.store("poll", &json!(position)).await.unwrap();
    }
    // Other locks change in between; this one does not.
    change(&server, |data| drop(data.insert("leader.pod.other".into(), "java-0".into())));
    old.store("poll", &json!(3)).await.unwrap();
    assert!(term.is_valid());
    let two = contender(&server, "clock-1").await;
    sleep(Duration::from_secs(5)).await;
    one.cut_off.store(true, std::sync::atomic::Ordering::Relaxed);
    server.put("pods", &pod("clock-0", "Running", false));
    until(|| term.is_valid(), || two.term().is_some()).await;
    let new = two.leads().await;
    assert!(new.number() > term.number());
    assert_eq!(new.states().load("poll").await.unwrap(), Some(json!(3)));
    new.states().store("poll", &json!(4)).await.unwrap();
    one.cut_off.store(false, std::sync::atomic::Ordering::Relaxed);
    let refused = old.store("poll", &json!(0)).await;
    assert!(matches!(refused, Err(router_core::state::StateError::Deposed(_))), "{refused:?}");
    assert_eq!(new.states().load("poll").await.unwrap(), Some(json!(4)));
    assert!(new.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_state_that_arrives_after_a_takeover_changes_nothing() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let term = one.leads().await;
    let old = term.states();
    old.store("poll", &json!(1)).await.unwrap();
    // Somebody else takes the lock, and this member has not looked since.
    change(&server, |data| drop(data.insert("leader.pod.lock1".into(), "clock-1".into())));
    let before = server.object("configmaps", "leaders").unwrap();
    let refused = old.store("poll", &json!(2)).await;
    assert!(matches!(refused, Err(router_core::state::StateError::Deposed(_))), "{refused:?}");
    assert_eq!(server.object("configmaps", "leaders").unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_given_up_in_good_order_is_led_at_the_next_look() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let term = one.leads().await;
    let two = contender(&server, "clock-1").await;
    sleep(Duration::from_secs(5)).await;
    let left = async { one.cluster.close().await };
    let taken = async {
        let began = Instant::now();
        (two.leads().await, began.elapsed())
    };
    let ((), (next, time)) = tokio::join!(left, taken);
    assert!(time < Duration::from_secs(4), "{time:?}");
    assert!(next.number() > term.number());
    assert!(!term.is_valid());
}

#[tokio::test(start_paused = true)]
async fn states_travel_with_the_lock_and_a_former_leader_cannot_change_them() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let former = one.leads().await.states();
    assert_eq!(former.load("orders").await.unwrap(), None);
    for cursor in [1, 2] {
        former.store("orders", &json!(cursor)).await.unwrap();
    }
    former.store("nightly", &json!("03:00")).await.unwrap();
    let two = contender(&server, "clock-1").await;
    sleep(Duration::from_secs(5)).await;
    one.cluster.close().await;
    let next = two.leads().await.states();
    assert_eq!(next.load("orders").await.unwrap(), Some(json!(2)));
    next.store("orders", &json!(3)).await.unwrap();
    former.store("orders", &json!(1)).await.unwrap_err();
    assert_eq!(next.load("orders").await.unwrap(), Some(json!(3)));
    assert_eq!(next.load("nightly").await.unwrap(), Some(json!("03:00")));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_pod_is_gone_is_replaced_after_the_claim_was_seen_and_the_wait() {
    for (gone, cut_off) in [(true, false), (false, false), (true, true), (false, true)] {
        let server = server(&["clock-0", "clock-1"]);
        let one = contender(&server, "clock-0").await;
        let term = one.leads().await;
        let two = contender(&server, "clock-1").await;
        sleep(Duration::from_secs(5)).await;
        // It lives on, whatever is said of its pod: its own looks end it, or its deadline.
        if cut_off {
            one.cut_off.store(true, Ordering::Relaxed);
        }
        match gone {
            true => server.delete_object("pods", "clock-0"),
            false => server.put("pods", &pod("clock-0", "Running", false)),
        }
        let time = until(|| one.term().is_some(), || two.term().is_some()).await;
        assert!((15..19).contains(&time.as_secs()), "{time:?}");
        assert!(two.term().unwrap().number() > term.number());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_steps_down_and_comes_back() {
    for fault in [Fault::Stall, Fault::Refuse(403, "Forbidden"), Fault::Refuse(500, "InternalError")] {
        let server = server(&["clock-0", "clock-1"]);
        let one = contender(&server, "clock-0").await;
        let term = one.leads().await;
        sleep(Duration::from_secs(5)).await;
        let asked = fault.clone();
        server.script(move |_| asked.clone());
        let began = Instant::now();
        while term.is_valid() {
            sleep(Duration::from_millis(10)).await;
        }
        let ended = began.elapsed();
        assert!(ended <= Duration::from_millis(12_600), "{fault:?}: {ended:?}");
        assert!(ended > Duration::from_secs(9), "{fault:?}: one lost look must not end a term: {ended:?}");
        server.script(NO_FAULT);
        assert!(one.leads().await.number() > term.number());
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_deleted_or_edited_end_a_term_and_cost_the_wait() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let two = contender(&server, "clock-1").await;
    let first = tokio::select! {
        biased;
        term = one.leads() => term,
        term = two.leads() => term,
    };
    let leads = || [one.term(), two.term()].into_iter().flatten().collect::<Vec<_>>();
    let edits: [fn(&FakeServer); 3] = [
        |server| change(server, |data| drop(data.remove("leader.pod.lock1"))),
        |server| server.delete_object("configmaps", "leaders"),
        |server| change(server, |data| drop(data.insert("leader.pod.lock1".into(), json!("nobody-9")))),
    ];
    let mut last = first.number();
    for edit in edits {
        sleep(Duration::from_secs(5)).await;
        edit(&server);
        let began = Instant::now();
        while leads().first().is_none_or(|term| term.number() == last) {
            assert!(leads().len() < 2 && began.elapsed() < Duration::from_secs(60));
            sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() >= Duration::from_secs(15), "{:?}", began.elapsed());
        let number = leads()[0].number();
        assert!(number > last);
        last = number;
    }
}

#[tokio::test(start_paused = true)]
async fn other_entries_may_change_at_any_time() {
    let server = server(&["clock-0"]);
    let one = contender(&server, "clock-0").await;
    sleep(Duration::from_secs(5)).await;
    for round in 0..200 {
        change_or_make(&server, round);
        sleep(Duration::from_millis(100)).await;
    }
    let term = one.term().expect("another lock's entry must not begin the wait anew");
    for round in 0..200 {
        change_or_make(&server, round);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(term.is_valid(), "another lock's entry cost leadership");
}

fn change_or_make(server: &FakeServer, round: usize) {
    change(server, |data| drop(data.insert("leader.pod.lock2".into(), json!(format!("java-{round}")))));
}

#[tokio::test(start_paused = true)]
async fn who_is_no_member_takes_nothing() {
    let server = server(&["clock-1"]);
    let one = contender(&server, "clock-0").await;
    sleep(Duration::from_secs(60)).await;
    assert!(one.term().is_none());
    assert_eq!(server.object("configmaps", "leaders"), None);
    server.put("pods", &pod("clock-0", "Running", true));
    one.leads().await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_found_out_by_looking() {
    let server = server(&["clock-0"]);
    let mut lost = 0;
    server.script(move |seen| {
        let writes = seen.path.contains("/configmaps") && seen.method != http::Method::GET;
        lost += usize::from(writes);
        if writes && lost % 2 == 1 { Fault::LoseAnswer } else { Fault::None }
    });
    let one = contender(&server, "clock-0").await;
    let term = one.leads().await;
    sleep(Duration::from_secs(30)).await;
    assert!(term.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_camels_is_let_be_and_replaced_when_its_pod_is_gone() {
    let server = server(&["java-0", "clock-0"]);
    let camel = Camel::new(server.client(), "shop", "java-0", PERIODS);
    let task = start(&camel);
    let one = contender(&server, "clock-0").await;
    sleep(Duration::from_secs(60)).await;
    assert!(camel.leads().is_some() && one.term().is_none());
    let shown = one.view.leadership();
    assert!(matches!(shown, Leadership::Follower { leader } if leader.member.id == "java-0"));
    // Cut off and thought dead, it leads on for as long as it may.
    server.delete_object("pods", "java-0");
    let client_of_camel = 0;
    server.script(move |seen| if seen.client == client_of_camel { Fault::Stall } else { Fault::None });
    let time = until(|| camel.leads().is_some(), || one.term().is_some()).await;
    assert!((15..19).contains(&time.as_secs()), "{time:?}");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn camel_replaces_a_leader_of_ours_when_its_pod_is_gone_or_it_gives_up() {
    for gives_up in [true, false] {
        let server = server(&["java-0", "clock-0"]);
        let one = contender(&server, "clock-0").await;
        one.leads().await;
        let camel = Camel::new(server.client(), "shop", "java-0", PERIODS);
        let task = start(&camel);
        sleep(Duration::from_secs(30)).await;
        assert!(camel.leads().is_none());
        if gives_up {
            one.view.resign(Duration::from_secs(300));
            let time = until(|| one.term().is_some(), || camel.leads().is_some()).await;
            assert!(time < Duration::from_secs(4), "Camel leads at its next look: {time:?}");
        } else {
            // Cut off from everything but Camel's own way.
            server.put("pods", &pod("clock-0", "Running", false));
            let of_camel = server.clients_made() - 1;
            server.script(move |seen| if seen.client == of_camel { Fault::None } else { Fault::Stall });
            let time = until(|| one.term().is_some(), || camel.leads().is_some()).await;
            assert!((15..19).contains(&time.as_secs()), "{time:?}");
        }
        // And not again before Camel is gone.
        server.script(NO_FAULT);
        sleep(Duration::from_secs(60)).await;
        assert!(camel.leads().is_some() && one.term().is_none());
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_waits_passes_its_wait_on() {
    let server = server(&["java-0", "clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    one.leads().await;
    server.delete_object("pods", "clock-0");
    // It is cut off and leads on, while another claims its lock, and gives up before it has led.
    one.cut_off.store(true, Ordering::Relaxed);
    let two = contender(&server, "clock-1").await;
    while leader(&server) != "clock-1" {
        sleep(Duration::from_millis(10)).await;
    }
    two.view.resign(Duration::from_secs(300));
    let camel = Camel::new(server.client(), "shop", "java-0", PERIODS);
    let task = start(&camel);
    let time = until(|| one.term().is_some(), || camel.leads().is_some()).await;
    assert!(time >= Duration::from_secs(15), "Camel led at once what was never given up: {time:?}");
    task.abort();
}
