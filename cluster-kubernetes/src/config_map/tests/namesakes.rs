//! Processes that have the name of one pod.

use super::election::{contender, leader, server, until};
use super::*;

/// Three looks for an answer, and one to see that there is none.
const PATIENCE: Duration = Duration::from_secs(8);

fn why_vacant(view: &ClusterView) -> String {
    match view.leadership() {
        Leadership::Vacant(vacancy) => vacancy.why().to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_finds_its_name_with_a_living_leader_stands_by_from_the_start_and_says_so() {
    let server = server(&["clock-0"]);
    let one = contender(&server, "clock-0").await;
    let first = one.leads().await;
    let two = contender(&server, "clock-0").await;
    sleep(Duration::from_secs(3)).await;
    let why = why_vacant(&two.view);
    assert!(why.contains("under the name of this pod, clock-0: it is asked whether it is alive"), "{why}");
    sleep(Duration::from_secs(600)).await;
    assert!(first.is_valid() && two.term().is_none(), "the leader was disturbed");
    let Leadership::Follower { leader } = two.view.leadership() else { panic!("no leader is known") };
    assert!(leader.member.id.starts_with("clock-0_"), "{leader:?}");
    assert!(leader.why.contains("it is alive, so this one stands by"), "{leader:?}");
    assert_eq!(leader.term, first.number());
    // It is asked again, so its end is noticed, though the name of the pod lives on.
    drop(one);
    let began = Instant::now();
    let next = two.leads().await;
    assert!(next.number() > first.number());
    assert!(began.elapsed() < Duration::from_secs(15) + 2 * PATIENCE + PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_started_again_takes_over_from_the_process_before_it() {
    for cut_off in [true, false] {
        let server = server(&["clock-0"]);
        let one = contender(&server, "clock-0").await;
        let term = one.leads().await;
        // One that is only cut off is as silent, and leads until its deadline.
        one.cut_off.store(true, Ordering::Relaxed);
        let two = contender(&server, "clock-0").await;
        let led = move || cut_off && one.term().is_some();
        let time = until(led, || two.term().is_some()).await;
        assert!((Duration::from_secs(15)..Duration::from_secs(17) + PATIENCE).contains(&time), "{time:?}");
        assert!(two.term().unwrap().number() > term.number());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_a_namesake_gives_up_is_led_at_the_next_look() {
    let server = server(&["clock-0", "clock-1"]);
    let one = contender(&server, "clock-0").await;
    one.leads().await;
    let (two, third) = (contender(&server, "clock-0").await, contender(&server, "clock-1").await);
    sleep(Duration::from_secs(60)).await;
    one.cluster.close().await;
    let began = Instant::now();
    while two.term().is_none() && third.term().is_none() {
        assert!(began.elapsed() < Duration::from_secs(5), "it was given up gracefully");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(leader(&server).starts_with("clock-"));
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_the_name_of_one_pod_that_start_together_settle_on_one() {
    let server = server(&["clock-0"]);
    let (one, two) = (contender(&server, "clock-0").await, contender(&server, "clock-0").await);
    sleep(Duration::from_secs(60)).await;
    let terms = [one.term(), two.term()];
    assert_eq!(terms.iter().flatten().count(), 1, "one of them leads");
    let term = terms.into_iter().flatten().next().unwrap();
    sleep(Duration::from_secs(600)).await;
    assert!(term.is_valid());
}
