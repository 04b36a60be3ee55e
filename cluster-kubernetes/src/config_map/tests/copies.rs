//! A ConfigMap that was saved, and is applied again after a deletion.

use super::election::{contender, server, until};
use super::*;

const NAME: &str = "leaders";

async fn apply_again(server: &Arc<FakeServer>, saved: serde_json::Value) {
    server.delete_object("configmaps", NAME);
    let mut saved = serde_json::from_value::<ConfigMap>(saved).unwrap();
    saved.metadata.resource_version = None;
    let api = kube::Api::<ConfigMap>::namespaced(server.client(), "shop");
    api.create(&kube::api::PostParams::default(), &saved).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn that_a_lock_was_given_up_is_not_believed_of_a_copy() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    let first = one.leads().await;
    one.view.resign(Duration::from_secs(3));
    first.lost().await;
    sleep(Duration::from_secs(1)).await;
    let saved = server.object("configmaps", NAME).unwrap();
    let second = one.leads().await;
    // The leader is cut off, and works for as long as it may.
    one.cut_off.store(true, Ordering::Relaxed);
    apply_again(&server, saved).await;
    let two = contender(&server, "clock-1").await;
    let time = until(|| second.is_valid(), || two.term().is_some()).await;
    assert!(time >= Duration::from_secs(15), "{time:?}");
    assert!(two.term().unwrap().number() > second.number());
}

#[tokio::test(start_paused = true)]
async fn a_claim_in_a_copy_is_nothing_that_its_member_could_give_up() {
    let server = server(&["clock-0", "clock-1", "clock-2"]);
    let one = contender(&server, "clock-0").await;
    let first = one.leads().await;
    sleep(Duration::from_secs(5)).await;
    let saved = server.object("configmaps", NAME).unwrap();
    // Another one leads, and the first has seen that.
    one.view.resign(Duration::from_secs(300));
    first.lost().await;
    let two = contender(&server, "clock-1").await;
    let second = two.leads().await;
    sleep(Duration::from_secs(5)).await;
    two.cut_off.store(true, Ordering::Relaxed);
    apply_again(&server, saved).await;
    let third = contender(&server, "clock-2").await;
    let time = until(|| second.is_valid(), || third.term().is_some() || one.term().is_some()).await;
    assert!(time >= Duration::from_secs(15), "{time:?}");
}

/// Other locks are in the same object, so its version says nothing of when a lock was claimed.
#[tokio::test(start_paused = true)]
async fn all_members_tell_the_same_number_of_a_term() {
    let server = server(&["clock-0", "clock-1", "clock-2"]);
    let one = contender(&server, "clock-0").await;
    let two = contender(&server, "clock-1").await;
    for _ in 0..2 {
        one.leads().await;
        one.view.resign(Duration::from_secs(2));
        sleep(Duration::from_secs(1)).await;
        super::election::change(&server, |data| {
            drop(data.insert("leader.pod.other".into(), "java-0".into()))
        });
        let led = two.leads().await;
        super::election::change(&server, |data| {
            drop(data.insert("leader.pod.other".into(), "java-1".into()))
        });
        let three = contender(&server, "clock-2").await;
        sleep(Duration::from_secs(5)).await;
        for view in [&one.view, &three.view] {
            let Leadership::Follower { leader } = view.leadership() else { panic!("no leader is known") };
            let now = server.object("configmaps", NAME).unwrap();
            assert_eq!(leader.term, led.number(), "{leader:?} {now:#}");
        }
        three.cluster.close().await;
        two.view.resign(Duration::from_secs(2));
        sleep(Duration::from_secs(1)).await;
    }
}
