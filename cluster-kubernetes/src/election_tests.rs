//! The election over a server with faults, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_lease::{
    Attempt, Death, LeaseCluster, LeaseClusterSettings, LeaseStore as _, LockRecord, Precondition,
    SessionRecord, Settings, StoreKey, StoreRecord, TokioClock, Write,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use router_core::cluster::{ClusterService as _, ClusterView, LockName, Member, Term};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::codec::{Codec, bare_lock};
use crate::fake_api_server::{FakeServer, Fault};
use crate::names::Group;
use crate::pod_observer::follow;
use crate::pods::{Pods, pod};
use crate::shared::Shared;
use crate::store::KubernetesStore;
use crate::test_support;

const LEASE: &str = "bactrian.lock.lock1";

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

/// A member, and its view of the one lock.
struct Contender {
    cluster: Arc<LeaseCluster>,
    view: ClusterView,
    crashed: Arc<AtomicBool>,
}

async fn contender(server: &Arc<FakeServer>, name: &str) -> Contender {
    contender_that(server, name, false, None).await
}

async fn contender_that(
    server: &Arc<FakeServer>,
    name: &str,
    may_delete: bool,
    owner: Option<OwnerReference>,
) -> Contender {
    let crashed = Arc::default();
    let codec = Codec { group: Group::default(), owner, takeover_wait_seconds: 15 };
    let shared = Arc::new(Shared::new(server.clients_until(&crashed), "shop".into(), codec));
    shared.may_delete.store(may_delete, Ordering::Relaxed);
    let settings = LeaseClusterSettings::new(Member {
        host: name.split('_').next().map(Into::into),
        ..Member::new(name)
    })
    .timing(Settings::default())
    .strict(false)
    .clock(Arc::new(TokioClock::default()));
    let cluster = LeaseCluster::start(KubernetesStore::new(shared), settings).unwrap();
    let view = cluster.view(&lock()).await.unwrap();
    Contender { cluster, view, crashed }
}

impl Contender {
    fn term(&self) -> Option<Term> {
        test_support::term(&self.view)
    }

    async fn leads(&self) -> Term {
        test_support::leads(&self.view).await
    }
}

/// A server with a lock that its last holder has given up.
async fn server() -> Arc<FakeServer> {
    let server = server_with(&bare_lock(&Group::default(), &lock())).await;
    let api = kube::Api::<Lease>::namespaced(server.client(), "shop");
    let made = api.get("bactrian.lock.lock1").await.unwrap();
    let record = StoreRecord::Lock { record: LockRecord::RELEASED, holder: None, term: None };
    let write = Write::new(StoreKey::Lock(lock()), Precondition::Absent, record);
    let codec = Codec { group: Group::default(), owner: None, takeover_wait_seconds: 15 };
    let released = codec.encode(&write, Some(&made), jiff::Timestamp::UNIX_EPOCH);
    api.replace("bactrian.lock.lock1", &kube::api::PostParams::default(), &released).await.unwrap();
    server
}

async fn server_with(lease: &Lease) -> Arc<FakeServer> {
    let server = FakeServer::new();
    let api = kube::Api::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), lease).await.unwrap();
    server
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_manifest_is_no_reason_to_lead_at_once() {
    let server = server_with(&bare_lock(&Group::default(), &lock())).await;
    let began = Instant::now();
    let _term = contender(&server, "pod-1_1").await.leads().await;
    let waited = began.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_secs(16)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_deleted_and_made_again_is_led_when_its_old_leader_has_ended() {
    let server = server().await;
    let old = contender(&server, "pod-1_1").await;
    let term = old.leads().await;
    old.crashed.store(true, Ordering::Relaxed);
    server.delete(LEASE);
    let api = kube::Api::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), &bare_lock(&Group::default(), &lock())).await.unwrap();
    let began = Instant::now();
    let next = contender(&server, "pod-2_1").await.leads().await;
    assert!(began.elapsed() > Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(next.number() > term.number());
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_format_is_left_alone() {
    let server = server().await;
    let mut lease = serde_json::from_value::<Lease>(server.lease(LEASE).unwrap()).unwrap();
    let annotations = lease.metadata.annotations.as_mut().unwrap();
    annotations.insert("bactrian/record".into(), "v=3 free=yes".into());
    lease.metadata.resource_version = None;
    let server = server_with(&lease).await;
    let one = contender(&server, "pod-1_1").await;
    sleep(Duration::from_secs(120)).await;
    assert!(one.term().is_none());
    let lease = server.lease(LEASE).unwrap();
    assert_eq!(lease["metadata"]["annotations"]["bactrian/record"], "v=3 free=yes");
}

#[tokio::test(start_paused = true)]
async fn a_free_lock_is_led_at_once_and_shown() {
    let server = server().await;
    let began = Instant::now();
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    let lease = server.lease(LEASE).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "pod-1_1");
    assert!(term.number() > 100, "the number of a term is a version of the server");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_fail_for_a_while_cost_nothing() {
    for fault in [
        Fault::Refuse(429, "TooManyRequests"),
        Fault::Refuse(500, "InternalError"),
        Fault::Stall,
        Fault::LoseAnswer,
        Fault::Garble("<html>"),
    ] {
        let server = server().await;
        let one = contender(&server, "pod-1_1").await;
        let term = one.leads().await;
        let asked = fault.clone();
        server.script(move |seen| if seen.is_heartbeat() { asked.clone() } else { Fault::None });
        sleep(Duration::from_secs(8)).await;
        assert!(term.is_valid(), "{fault:?}");
        server.script(|_| Fault::None);
        sleep(Duration::from_secs(60)).await;
        assert!(term.is_valid(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_go_on_failing_end_the_term_before_another_begins() {
    for fault in [Fault::Refuse(500, "InternalError"), Fault::Refuse(403, "Forbidden"), Fault::Stall] {
        let server = server().await;
        let one = contender(&server, "pod-1_1").await;
        let term = one.leads().await;
        let two = contender(&server, "pod-2_2").await;
        sleep(Duration::from_secs(10)).await;
        // Whatever is about the session of the leader, also its end.
        let session = term_session(&server);
        let asked = fault.clone();
        server.script(move |seen| if seen.path.contains(&session) { asked.clone() } else { Fault::None });
        let began = Instant::now();
        while term.is_valid() {
            assert!(two.term().is_none(), "{fault:?}: two leaders");
            sleep(Duration::from_millis(10)).await;
        }
        let ended = began.elapsed();
        assert!(ended <= Duration::from_millis(12_600), "{fault:?}: {ended:?}");
        server.script(|_| Fault::None);
        let next = tokio::select! {
            biased;
            next = two.leads() => next,
            next = one.leads() => next,
        };
        assert!(next.number() > term.number());
    }
}

/// The name of the session that the lock names.
fn term_session(server: &FakeServer) -> String {
    let lease = server.lease(LEASE).unwrap();
    let record = lease["metadata"]["annotations"]["bactrian/record"].as_str().unwrap();
    record.split(' ').find_map(|field| field.strip_prefix("holder=")).unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_left_for_a_new_one() {
    let server = server().await;
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    sleep(Duration::from_secs(5)).await;
    // Half open: whatever goes over the connections that exist now is never answered, heartbeats and
    // watch alike.
    let made = server.clients_made();
    server.script(move |seen| if seen.client < made { Fault::Stall } else { Fault::None });
    sleep(Duration::from_secs(120)).await;
    assert!(term.is_valid(), "a new connection would have done");
    assert!(server.clients_made() > made);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_costs_nothing_whatever_the_clock_shows() {
    let server = server().await;
    let (one, two) = (contender(&server, "pod-1_1").await, contender(&server, "pod-2_2").await);
    let term = tokio::select! {
        biased;
        term = one.leads() => term,
        term = two.leads() => term,
    };
    let (leader, standby) = if one.term().is_some() { (one, two) } else { (two, one) };
    // Clients that exist keep the old token, which the server refuses.
    let made = server.clients_made();
    server.script(move |seen| match seen.client < made {
        true => Fault::Refuse(401, "Unauthorized"),
        false => Fault::None,
    });
    sleep(Duration::from_secs(60)).await;
    assert!(term.is_valid());
    let made = server.clients_made();
    server.script(move |seen| match seen.client < made {
        true => Fault::Refuse(401, "Unauthorized"),
        false => Fault::None,
    });
    leader.crashed.store(true, Ordering::Relaxed);
    let crashed = Instant::now();
    standby.leads().await;
    assert!(crashed.elapsed() < Duration::from_secs(16), "{:?}", crashed.elapsed());
    assert!(server.clients_made() < made + 8, "one new client each, and not one for each request");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_with_growing_pauses() {
    for fault in [Fault::Stall, Fault::Refuse(503, "ServiceUnavailable")] {
        let server = server().await;
        let (one, two) = (contender(&server, "pod-1_1").await, contender(&server, "pod-2_2").await);
        sleep(Duration::from_secs(5)).await;
        let asked = fault.clone();
        server.script(move |_| asked.clone());
        // Until nothing is held any more.
        sleep(Duration::from_secs(60)).await;
        let before = server.seen.lock().unwrap().len();
        sleep(Duration::from_secs(60)).await;
        let requests = server.seen.lock().unwrap().len() - before;
        assert!(requests < 90, "{fault:?}: {requests} requests of two members in a minute");
        server.script(|_| Fault::None);
        let back = Instant::now();
        tokio::select! {
            biased;
            _ = one.leads() => {}
            _ = two.leads() => {}
        }
        assert!(back.elapsed() < Duration::from_secs(10), "{fault:?}: {:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_no_longer_kept_are_listed() {
    let server = server().await;
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    let (mut lists, mut watches) = (0, 0);
    for _ in 0..10 {
        server.compact();
        // The watch is refused as too old until it is opened after a list.
        server.script(|seen| if seen.watch { Fault::Refuse(410, "Expired") } else { Fault::None });
        sleep(Duration::from_secs(6)).await;
        server.script(|_| Fault::None);
        sleep(Duration::from_secs(6)).await;
        let seen = server.seen.lock().unwrap();
        lists = seen.iter().filter(|seen| seen.path.ends_with("/leases") && !seen.watch).count();
        watches = seen.iter().filter(|seen| seen.watch).count();
    }
    assert!(term.is_valid(), "lists are as good as the watch");
    println!("{lists} lists and {watches} watches in two minutes");
}

#[tokio::test(start_paused = true)]
async fn a_list_over_a_slow_line_takes_its_time_and_one_that_stands_still_ends() {
    for whole in [true, false] {
        let server = server().await;
        let slow = Fault::Trickle(Duration::from_secs(1), whole);
        server.script(move |seen| match seen.path.ends_with("/leases") && seen.method == http::Method::GET {
            true => slow.clone(),
            false => Fault::None,
        });
        let began = Instant::now();
        let one = contender(&server, "pod-1_1").await;
        if whole {
            let term = one.leads().await;
            assert!((20..25).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
            // Without its watch, it goes on by lists.
            server.script(|seen| if seen.watch { Fault::Refuse(410, "Expired") } else { Fault::None });
            sleep(Duration::from_secs(60)).await;
            assert!(term.is_valid());
        } else {
            sleep(Duration::from_secs(60)).await;
            assert!(one.term().is_none());
            let lists = server.seen.lock().unwrap().len();
            assert!(lists >= 2, "{lists}: it is asked for again");
            server.script(|_| Fault::None);
            one.leads().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_at_the_start_is_waited_for() {
    let server = server().await;
    server.script(|_| Fault::Stall);
    let one = contender(&server, "pod-1_1").await;
    sleep(Duration::from_secs(100)).await;
    assert!(one.term().is_none());
    server.script(|_| Fault::None);
    one.leads().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_resigns_hands_over_at_once() {
    let server = server().await;
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    let two = contender(&server, "pod-2_2").await;
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    one.view.resign(Duration::from_secs(5));
    let next = two.leads().await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(next.number() > term.number() && !term.is_valid());
    assert_eq!(server.lease(LEASE).unwrap()["spec"]["leaseTransitions"], 2);
}

fn sessions(server: &FakeServer) -> usize {
    let leases = server.objects("leases");
    leases.iter().filter(|lease| lease["metadata"]["labels"]["bactrian/kind"] == "session").count()
}

#[tokio::test(start_paused = true)]
async fn sessions_do_not_pile_up_where_they_may_be_deleted() {
    for may_delete in [true, false] {
        let server = server().await;
        let mut crashed = Vec::new();
        for round in 0..4 {
            let one = contender_that(&server, &format!("pod-1_{round}"), may_delete, None).await;
            one.leads().await;
            // The last one holds nothing when it ends, so nobody declares it dead.
            if round == 3 {
                one.view.resign(Duration::from_secs(1_000_000));
                sleep(Duration::from_secs(5)).await;
            }
            one.crashed.store(true, Ordering::Relaxed);
            crashed.push(one);
        }
        let two = contender_that(&server, "pod-2_0", may_delete, None).await;
        let term = two.leads().await;
        assert_eq!(sessions(&server), 5);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(sessions(&server), if may_delete { 2 } else { 5 }, "those that are dead for long");
        sleep(Duration::from_secs(1_500)).await;
        assert_eq!(sessions(&server), if may_delete { 1 } else { 5 }, "and those that are silent for longer");
        assert!(term.is_valid());
    }
}

/// A process of a pod with this uid.
async fn contender_of_pod(server: &Arc<FakeServer>, name: &str, uid: &str) -> Contender {
    let owner = OwnerReference { uid: uid.into(), ..OwnerReference::default() };
    contender_that(server, name, false, Some(owner)).await
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashes_again_and_again_reuses_the_leases_of_its_sessions() {
    let server = server().await;
    let mut last = 0;
    for (round, life) in (0..20).zip([0, 1, 16, 40].into_iter().cycle()) {
        let began = Instant::now();
        let one = contender_of_pod(&server, &format!("pod-1_{round}"), "pod").await;
        sleep(Duration::from_secs(life)).await;
        let term = one.leads().await;
        assert!(term.number() > last);
        if round > 0 {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(16 + life), "round {round}: {waited:?}");
        }
        last = term.number();
        sleep(Duration::from_millis(life * 100)).await;
        one.crashed.store(true, Ordering::Relaxed);
    }
    assert!(sessions(&server) <= 2, "{} sessions", sessions(&server));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_passes_over_the_slot_of_one_that_has_ended_for_sure_leads_at_once() {
    let server = server().await;
    let one = contender_of_pod(&server, "pod-1_a", "pod").await;
    let term = one.leads().await;
    one.crashed.store(true, Ordering::Relaxed);
    // Another member has the proof, says so in the session, and has no wish for the lock.
    let ended = one.cluster.sessions().borrow()[0].0;
    let codec = Codec { group: Group::default(), owner: None, takeover_wait_seconds: 15 };
    let witness = Arc::new(Shared::new(server.clients(), "shop".into(), codec));
    let store = KubernetesStore::new(witness);
    let listed = store.list().await.unwrap();
    let session = listed.entries.into_iter().find(|entry| entry.key == StoreKey::Session(ended)).unwrap();
    let StoreRecord::Session { record, member } = session.record else { panic!("it is a session") };
    let record =
        StoreRecord::Session { record: SessionRecord { dead: Some(Death::Proof), ..record }, member };
    let write = Write::new(session.key, Precondition::Version(session.version), record);
    store.write(write, Attempt::default()).await.unwrap();
    let began = Instant::now();
    let two = contender_of_pod(&server, "pod-1_b", "pod").await;
    let next = two.leads().await;
    assert!(next.number() > term.number());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(sessions(&server), 2, "it has the next slot");
    // Now no lock names the first one any more.
    two.cluster.close().await;
    let three = contender_of_pod(&server, "pod-1_c", "pod").await;
    three.leads().await;
    assert_eq!(sessions(&server), 2);
}

#[tokio::test(start_paused = true)]
async fn containers_of_one_pod_have_a_slot_each_and_others_are_left_alone() {
    let server = server().await;
    let one = contender_of_pod(&server, "pod-1_a", "pod").await;
    let term = one.leads().await;
    let two = contender_of_pod(&server, "pod-1_b", "pod").await;
    sleep(Duration::from_secs(1)).await;
    one.view.resign(Duration::from_secs(1_000_000));
    let next = two.leads().await;
    assert!(next.number() > term.number());
    assert_eq!(sessions(&server), 2, "the first one still lives");
    one.cluster.close().await;
    let three = contender_of_pod(&server, "pod-2_a", "other").await;
    two.view.resign(Duration::from_secs(1_000_000));
    three.leads().await;
    assert_eq!(sessions(&server), 3);
    // The slot of the one that has ended is free, and its session is gone to all.
    let four = contender_of_pod(&server, "pod-1_c", "pod").await;
    three.view.resign(Duration::from_secs(1_000_000));
    let last = four.leads().await;
    assert_eq!(sessions(&server), 3);
    sleep(Duration::from_secs(60)).await;
    assert!(last.is_valid());
    let mut members = three.view.members().into_iter().map(|member| member.id).collect::<Vec<_>>();
    members.sort();
    assert_eq!(members, ["pod-1_c", "pod-2_a"], "the others hold nothing");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_creation_was_not_answered_is_made_once() {
    for fault in [Fault::LoseAnswer, Fault::Stall] {
        let server = server().await;
        let mut made = 0;
        let asked = fault.clone();
        server.script(move |seen| {
            made += i32::from(seen.method == http::Method::POST);
            if seen.method == http::Method::POST && made < 3 { asked.clone() } else { Fault::None }
        });
        let one = contender_of_pod(&server, "pod-1_1", "pod").await;
        one.leads().await;
        assert_eq!(sessions(&server), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_stand_by_are_known_by_their_pods() {
    let server = server().await;
    let one = contender(&server, "pod-1_1").await;
    one.leads().await;
    let two = contender(&server, "pod-2_2").await;
    let mut pods = Pods::default();
    pods.replace(&[
        pod("pod-1", "Running", true),
        pod("pod-2", "Running", true),
        pod("pod-3", "Running", true),
    ]);
    let (seen, watched) = watch::channel(pods);
    #[expect(clippy::disallowed_methods, reason = "the runtime of the test is its supervisor")]
    tokio::spawn(follow(watched, Arc::clone(&two.cluster), false));
    sleep(Duration::from_secs(1)).await;
    let names = |contender: &Contender| {
        let mut names =
            contender.view.members().into_iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
        names.sort();
        names
    };
    assert_eq!(names(&two), ["pod-1_1", "pod-2_2", "pod-3"], "one with a session is known by it");
    assert_eq!(names(&one), ["pod-1_1"], "who does not see pods knows of sessions alone");
    seen.send_modify(|pods| pods.replace(&[pod("pod-2", "Running", true), pod("pod-3", "Running", false)]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(names(&two), ["pod-1_1", "pod-2_2"], "a session counts whatever its pod does");
}

/// As `kubectl label` does it.
fn relabel(server: &FakeServer, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let mut lease = server.lease(LEASE).unwrap();
    change(lease["metadata"]["labels"].as_object_mut().unwrap());
    server.put("leases", &lease);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_belongs_to_other_tools_may_have_any_value() {
    let server = server().await;
    relabel(&server, |labels| drop(labels.insert("app.kubernetes.io/managed-by".into(), "Helm".into())));
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    assert_eq!(server.lease(LEASE).unwrap()["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    relabel(&server, |labels| drop(labels.remove("app.kubernetes.io/managed-by")));
    sleep(Duration::from_secs(30)).await;
    assert!(term.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_group_label_is_removed_is_led_again_after_the_takeover_wait() {
    let server = server().await;
    let one = contender(&server, "pod-1_1").await;
    let term = one.leads().await;
    sleep(Duration::from_secs(5)).await;
    one.crashed.store(true, Ordering::Relaxed);
    relabel(&server, |labels| drop(labels.remove("bactrian/group")));
    // It starts afterwards, so the list shows it nothing.
    let (two, began) = (contender(&server, "pod-2_2").await, Instant::now());
    while two.term().is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "no member leads");
        assert!(!term.is_valid() || began.elapsed() < Duration::from_secs(13));
        sleep(Duration::from_millis(10)).await;
    }
    assert!(
        began.elapsed() >= Duration::from_secs(15),
        "its last leader may not know: {:?}",
        began.elapsed()
    );
    assert!(two.leads().await.number() > term.number());
    assert_eq!(server.lease(LEASE).unwrap()["metadata"]["labels"]["bactrian/group"], "bactrian");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_lease_is_left_alone_and_asked_for_with_growing_pauses() {
    let server = FakeServer::new();
    let foreign = serde_json::json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE}, "spec": {"holderIdentity": "other-program-0"}});
    server.put("leases", &foreign);
    let before = server.lease(LEASE).unwrap();
    let one = contender(&server, "pod-1_1").await;
    sleep(Duration::from_secs(300)).await;
    assert!(one.term().is_none());
    assert_eq!(server.lease(LEASE).unwrap(), before, "it is another program's");
    let posts = server.seen.lock().unwrap().iter().filter(|seen| seen.method == http::Method::POST).count();
    assert!(posts < 20, "{posts} tries in five minutes, the session's among them");
    server.delete(LEASE);
    one.leads().await;
}
