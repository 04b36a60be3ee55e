//! Positions that travel with the lock: what a leader has done, the next one does not do again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bactrian::cluster_kubernetes::{PodIdentity, STATES_ANNOTATION, Timing};
use bactrian::core::state::StateError;
use bactrian::prelude::*;
use kube::ResourceExt as _;
use rustix::process::Signal;
use serde_json::json;
use testkit::TelegramServer;

use super::judge::{Note, now};
use super::member::MemberSettings;
use super::rounds;
use super::stage::{Stage, number, take_leader};

pub(crate) const TOKEN: &str = "123:test";

/// The route of a member: it writes down each update that is done.
pub(crate) fn poller(bot: &str, records: &Path, work: Duration) -> RouteBuilder {
    let records = records.to_owned();
    let uri = format!(
        "master:lock1:telegram:bots?authorization_token=env:MEMBER_TOKEN&base_uri={bot}&dedupe=true&limit=20"
    );
    from(uri).id("bot").process_async(move |exchange| {
        let update = exchange.message.headers.get("telegram.update_id").unwrap().clone();
        let term = exchange.term.as_ref().unwrap().number();
        let (note, done) = (Note::begin(&records, "lock1", term), done_file(&records));
        Box::pin(async move {
            tokio::time::sleep(work).await;
            let mut file = OpenOptions::new().append(true).create(true).open(done).unwrap();
            file.write_all(format!("{} {term} {update}\n", std::process::id()).as_bytes())?;
            drop(note);
            Ok(())
        })
    })
}

fn done_file(records: &Path) -> PathBuf {
    records.with_extension("done")
}

/// Process, term and update of all that is done, in order.
fn done(stage: &Stage) -> Vec<(u32, u64, i64)> {
    let text = std::fs::read_to_string(done_file(&stage.settings.records)).unwrap_or_default();
    let read = |line: &str| {
        let fields = line.split(' ').collect::<Vec<_>>();
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
    };
    text.lines().map(read).collect()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn leaders_that_are_killed_stopped_and_paused_hand_over_how_far_they_have_come() {
    let stage = Stage::new("positions");
    let server = stage.block(TelegramServer::start(TOKEN)).unwrap();
    let settings = MemberSettings { bot: Some(server.base_uri()), ..stage.settings.clone() };
    let start = |user| stage.member_with(user, settings.clone());
    let mut members = vec![start(0), start(1), start(2)];
    let mut updates = 0;
    let mut receive = |count: usize| {
        for _ in 0..count {
            updates += 1;
            server.receive_text(1, &format!("update {updates}")).unwrap();
        }
    };
    let (mut disturbed, mut paused) = (BTreeMap::<u32, usize>::new(), Vec::new());
    let mut term = 0;
    for round in 0..rounds(6) {
        receive(200);
        let led = stage.wait_for_term_after(term);
        term = led.term;
        // In the middle of its work.
        stage.let_pass(Duration::from_millis(100 + fastrand::u64(0..200)));
        let leader = take_leader(&mut members, &led);
        let user = number(&leader);
        match round % 3 {
            0 => {
                *disturbed.entry(leader.id()).or_default() += 1;
                leader.kill();
                members.push(start(user));
            }
            1 => {
                leader.signal(Signal::TERM);
                assert!(leader.wait().success());
                members.push(start(user));
            }
            _ => {
                *disturbed.entry(leader.id()).or_default() += 1;
                paused.push((leader.id(), stage.pause(&leader)));
                // Until another leads, and has come further.
                let before = done(&stage).len();
                stage.wait_for_term_after(term);
                stage.wait("work of the next leader", |_| done(&stage).len() > before + 5);
                leader.signal(Signal::CONT);
                members.push(leader);
            }
        }
    }
    receive(50);
    stage.wait("all updates", |_| server.unacknowledged().is_empty());
    for mut member in members {
        // One that was paused in the middle of its work may have been ended by its sentinel.
        let was_paused = paused.iter().any(|(id, _)| *id == member.id());
        if was_paused && member.has_ended() {
            continue;
        }
        member.signal(Signal::TERM);
        assert!(member.wait().success() || was_paused);
    }
    stage.judge();
    judge_updates(&done(&stage), updates, &disturbed);
    let lock = stage.block(async { stage.leases().get("bactrian.lock.lock1").await }).unwrap();
    let states: serde_json::Value = serde_json::from_str(&lock.annotations()[STATES_ANNOTATION]).unwrap();
    println!("the Lease of the lock carries {states}");
    assert!(states["bot"].is_object() || states["bot"].is_number(), "{states}");
}

/// Nothing is lost, and what came again had been done by a process that was disturbed: at most one update each
/// time.
fn judge_updates(done: &[(u32, u64, i64)], updates: usize, disturbed: &BTreeMap<u32, usize>) {
    let all = done.iter().map(|(.., update)| *update).collect::<BTreeSet<_>>();
    assert_eq!(all.len(), updates, "an update was lost");
    let mut last: BTreeMap<i64, u32> = BTreeMap::new();
    let mut repeated: BTreeMap<u32, usize> = BTreeMap::new();
    for (member, _, update) in done {
        if let Some(earlier) = last.insert(*update, *member) {
            *repeated.entry(earlier).or_default() += 1;
        }
    }
    println!(
        "{updates} updates, {} done: came again, by the process that had done them: {repeated:?}",
        done.len()
    );
    for (member, count) in &repeated {
        // What a process had done and not yet stored when it was disturbed comes again.
        let allowed = disturbed.get(member).copied().unwrap_or_default();
        assert!(*count <= allowed, "{repeated:?}, disturbed were {disturbed:?}");
    }
}

/// A member in this process.
fn member(stage: &Stage, name: &str) -> KubernetesClusterSettings {
    KubernetesClusterSettings {
        namespace: Some(stage.namespace.clone()),
        timing: Timing { profile: Some("fast".into()), ..Timing::default() },
        identity: Some(PodIdentity { name: Some(name.into()), ..PodIdentity::default() }),
        api_server: Some(stage.server.admin()),
        ..KubernetesClusterSettings::default()
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_store_of_a_leader_that_was_deposed_is_refused() {
    let stage = Stage::new("refused");
    stage.block(async {
        let a = KubernetesCluster::open(member(&stage, "a")).await.unwrap();
        let b = KubernetesCluster::open(member(&stage, "b")).await.unwrap();
        let lock = "lock1".parse().unwrap();
        let (mut times, mut last) = (Vec::new(), json!(null));
        for round in 0..rounds(5) {
            let (old, new) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let view = old.view(&lock).await.unwrap();
            let scope = view.lead().await.unwrap();
            let states = scope.term().states();
            assert_eq!(states.load("poll").await.unwrap().unwrap_or_default(), last);
            for position in 0..20 {
                let before = now();
                states.store("poll", &json!([round, position])).await.unwrap();
                times.push(Duration::from_nanos(now() - before));
            }
            let next = new.view(&lock).await.unwrap();
            view.resign(Duration::from_secs(1));
            scope.term().lost().await;
            // Given up, and not yet free.
            states.store("poll", &json!([round, "at the release"])).await.unwrap();
            drop((scope, view));
            let scope = next.lead().await.unwrap();
            last = json!([round, "at the release"]);
            assert_eq!(scope.term().states().load("poll").await.unwrap().unwrap(), last);
            let refused = states.store("poll", &json!("too late")).await;
            assert!(matches!(refused, Err(StateError::Deposed(_))), "{refused:?}");
            assert_eq!(scope.term().states().load("poll").await.unwrap().unwrap(), last);
        }
        super::stage::report("one store", times);
        a.close().await;
        b.close().await;
    });
}
