//! The compatibility mode: locks as entries of Camel's ConfigMap, with members of ours and one of Camel's.

use std::sync::Arc;
use std::time::Duration;

use bactrian::cluster_kubernetes::{Resource, Rule, rules};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rustix::process::Signal;
use serde_json::json;

use super::camel::{Camel, Periods};
use super::judge::{Note, now};
use super::member::{FAST_CAMEL, Member, MemberSettings};
use super::pods::patch_status;
use super::proxy::{Fault, Proxy};
use super::rounds;
use super::stage::{Stage, between, report, take_leader};

/// x of the profile `fast`, a look of those who stand by, and the answers to the claim.
const TAKEOVER: Duration = Duration::from_millis(8_000);
/// x of the profile `fast`.
const WAIT: Duration = Duration::from_millis(4_900);

fn stage(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.settings.config_map = true;
    grant(&stage, rules(Resource::ConfigMap));
    stage
}

fn grant(stage: &Stage, rules: &[Rule]) {
    let rules = rules.iter().map(|rule| (rule.api_group, rule.resource, rule.verbs)).collect::<Vec<_>>();
    stage.grant(&rules);
    // The server needs a moment to know its own rules.
    stage.let_pass(Duration::from_millis(500));
}

fn ready(ready: bool) -> serde_json::Value {
    let status = if ready { "True" } else { "False" };
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]})
}

pub(crate) fn make_pod(stage: &Stage, name: &str) -> Pod {
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "clock"}},
        "spec": {"containers": [{"name": "clock", "image": "clock"}]},
    });
    let pod = serde_json::from_value::<Pod>(pod).unwrap();
    let pod = stage.block(async { stage.pods().create(&PostParams::default(), &pod).await }).unwrap();
    patch_status(stage, name, &ready(true));
    pod
}

fn delete_pod(stage: &Stage, name: &str) -> u64 {
    let at = now();
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    stage.block(async { stage.pods().delete(name, &params).await }).unwrap();
    at
}

/// A ready pod, and the member that runs in it.
fn member(stage: &Stage, user: usize, round: usize) -> Member {
    let name = format!("clock-{round}-{user}");
    let pod = make_pod(stage, &name);
    let settings = MemberSettings {
        pod: name,
        pod_uid: pod.uid(),
        cluster_labels: Some("app=clock".into()),
        ..stage.settings.clone()
    };
    stage.member_with(user, settings)
}

fn number(member: &Member) -> usize {
    super::stage::number(member)
}

fn config_maps(stage: &Stage) -> Api<ConfigMap> {
    Api::namespaced(stage.admin.clone(), &stage.namespace)
}

fn leaders(stage: &Stage) -> ConfigMap {
    stage.block(async { config_maps(stage).get("leaders").await }).unwrap()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_crashed_is_replaced_when_its_pod_is_gone() {
    let stage = stage("map-crash");
    let mut members = (0..3).map(|user| member(&stage, user, 0)).collect::<Vec<_>>();
    let mut led = stage.wait_for_term_after(0);
    let mut times = Vec::new();
    for round in 1..=rounds(2) {
        stage.let_pass(Duration::from_millis(fastrand::u64(0..1_000)));
        let leader = take_leader(&mut members, &led);
        let (user, pod) = (number(&leader), leader.settings.pod.clone());
        leader.kill();
        // The kubelet has noticed, or the pod was deleted.
        let gone =
            if round % 2 == 1 { delete_pod(&stage, &pod) } else { patch_status(&stage, &pod, &ready(false)) };
        members.push(member(&stage, user, round));
        led = stage.wait_for_term_after(led.term);
        times.push(between(gone, led.start));
    }
    stage.judge();
    assert!(times.iter().all(|time| (WAIT..TAKEOVER).contains(time)), "{times:?}");
    report("ConfigMap, crash: from the end of the pod to the next leader's first exchange", times);
    let leaders = leaders(&stage);
    assert_eq!(leaders.labels()["provider"], "camel");
    let data = leaders.data.unwrap();
    let leader = members.iter().find(|member| member.id() == led.member).unwrap();
    assert_eq!(data["leader.pod.lock1"], leader.settings.pod);
    assert_eq!(data.len(), 2, "{data:?}");
    assert!(data["leader.local.timestamp.lock1"].ends_with('Z'));
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_is_asked_to_stop_hands_over_at_the_next_look() {
    let stage = stage("map-graceful");
    let mut members = (0..3).map(|user| member(&stage, user, 0)).collect::<Vec<_>>();
    let mut led = stage.wait_for_term_after(0);
    let mut times = Vec::new();
    for round in 1..=rounds(4) {
        stage.let_pass(Duration::from_millis(500));
        let leader = take_leader(&mut members, &led);
        let (user, pod) = (number(&leader), leader.settings.pod.clone());
        let asked = leader.signal(Signal::TERM);
        led = stage.wait_for_term_after(led.term);
        times.push(between(asked, led.start));
        assert!(leader.wait().success());
        delete_pod(&stage, &pod);
        members.push(member(&stage, user, round));
    }
    stage.judge();
    let elected = super::events::wait_for(&stage, "LeaderElected", led.term);
    println!("{}", elected.note.unwrap());
    let regarding = elected.regarding.unwrap();
    assert_eq!((regarding.kind.as_deref(), regarding.name.as_deref()), (Some("ConfigMap"), Some("leaders")));
    assert!(times.iter().all(|time| *time < Duration::from_secs(3)), "{times:?}");
    report("ConfigMap, graceful: from SIGTERM to the next leader's first exchange", times);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_leader_that_is_cut_off_has_stopped_before_another_starts() {
    let stage = stage("map-cut");
    let mut members = (0..3).map(|user| member(&stage, user, 0)).collect::<Vec<_>>();
    let mut led = stage.wait_for_term_after(0);
    for fault in [Fault::BlackHole, Fault::Cut] {
        stage.let_pass(Duration::from_millis(500));
        let leader = take_leader(&mut members, &led);
        let cut = now();
        leader.proxy.set(fault);
        patch_status(&stage, &leader.settings.pod, &ready(false));
        let next = stage.wait_for_term_after(led.term);
        let last = stage
            .records()
            .iter()
            .filter(|record| record.term == led.term)
            .filter_map(|record| record.end)
            .max();
        println!(
            "ConfigMap, {fault:?}: the last exchange ended after {:?}, the next one began after {:?}",
            between(cut, last.unwrap()),
            between(cut, next.start)
        );
        assert!(between(cut, last.unwrap()) < Duration::from_millis(4_800));
        leader.proxy.set(Fault::None);
        patch_status(&stage, &leader.settings.pod, &ready(true));
        members.push(leader);
        led = next;
    }
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn an_entry_that_is_deleted_while_its_leader_is_cut_off_costs_the_wait() {
    let stage = stage("map-deleted");
    let mut members = (0..3).map(|user| member(&stage, user, 0)).collect::<Vec<_>>();
    let led = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &led);
    leader.proxy.set(Fault::BlackHole);
    let deleted = now();
    let patch = json!({"data": {"leader.pod.lock1": null}});
    let params = PatchParams::default();
    stage.block(async { config_maps(&stage).patch("leaders", &params, &Patch::Merge(patch)).await }).unwrap();
    let next = stage.wait_for_term_after(led.term);
    let time = between(deleted, next.start);
    println!("ConfigMap, entry deleted (H7): the next exchange after {time:?}");
    assert!(time > WAIT, "{time:?}");
    let deleted = now();
    stage.block(async { config_maps(&stage).delete("leaders", &DeleteParams::default()).await }).unwrap();
    let last = stage.wait_for_term_after(next.term);
    println!("ConfigMap deleted: the next exchange after {:?}", between(deleted, last.start));
    leader.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

/// A member of Camel in a pod of its own. It works whenever it leads, in this process.
struct JavaMember {
    pod: &'static str,
    proxy: Proxy,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl JavaMember {
    fn start(stage: &Stage, pod: &'static str) -> Self {
        make_pod(stage, pod);
        let proxy = Proxy::start(&stage.runtime, stage.server.port());
        let periods = Periods {
            lease: FAST_CAMEL.lease_duration,
            renew: FAST_CAMEL.renew_deadline,
            retry: Duration::from_millis(600),
        };
        let mut config = stage.server.admin();
        config.cluster_url = format!("https://127.0.0.1:{}", proxy.port).parse().unwrap();
        let camel = stage.block(async {
            Camel::new(kube::Client::try_from(config).unwrap(), &stage.namespace, pod, periods)
        });
        let (records, working) = (stage.settings.records.clone(), Arc::clone(&camel));
        let work = async move {
            loop {
                if let Some(term) = working.leads() {
                    drop(Note::begin(&records, "lock1", term));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let tasks = vec![stage.runtime.spawn(camel.run()), stage.runtime.spawn(work)];
        Self { pod, proxy, tasks }
    }
}

impl Drop for JavaMember {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn members_of_camel_and_of_ours_take_turns() {
    let stage = stage("map-camel");
    let java = JavaMember::start(&stage, "java-0");
    let of_java = std::process::id();
    let first = stage.wait_for_term_after(0);
    assert_eq!(first.member, of_java, "a lock that nobody has led is Camel's at once");
    let ours = (0..2).map(|user| member(&stage, user, 0)).collect::<Vec<_>>();
    stage.let_pass(Duration::from_secs(3));
    assert!(stage.records().iter().all(|record| record.member == of_java), "it is let be");

    // Camel is cut off, and its pod is said to be gone while it still leads.
    java.proxy.set(Fault::BlackHole);
    let cut = delete_pod(&stage, java.pod);
    let second = stage.wait_for_term_after(first.term);
    println!("Camel cut off and its pod gone: the next exchange after {:?}", between(cut, second.start));
    assert!(between(cut, second.start) > WAIT);
    java.proxy.set(Fault::None);
    make_pod(&stage, java.pod);
    stage.let_pass(Duration::from_secs(2));
    assert!(stage.records().iter().all(|record| record.term <= second.term), "nor does it come back at once");

    // Both of ours leave in good order, so that Camel has it again.
    let mut ours = ours;
    let leader = take_leader(&mut ours, &second);
    let standby = ours.pop().unwrap();
    standby.signal(Signal::TERM);
    assert!(standby.wait().success());
    let asked = leader.signal(Signal::TERM);
    let third = stage.wait_for_term_after(second.term);
    println!("ours gave the lock up: Camel's first exchange after {:?}", between(asked, third.start));
    assert_eq!(third.member, of_java);
    assert!(between(asked, third.start) < Duration::from_secs(3));
    assert!(leader.wait().success());

    // Camel ends with its pod; one of ours takes over, is cut off, and Camel's next member takes over from it.
    let one = member(&stage, 0, 1);
    stage.let_pass(Duration::from_secs(1));
    delete_pod(&stage, java.pod);
    drop(java);
    let fourth = stage.wait_for_term_after(third.term);
    assert_eq!(fourth.member, one.id());
    let _java = JavaMember::start(&stage, "java-1");
    stage.let_pass(Duration::from_secs(1));
    one.proxy.set(Fault::BlackHole);
    let cut = patch_status(&stage, &one.settings.pod, &ready(false));
    let fifth = stage.wait_for_term_after(fourth.term);
    println!("ours cut off and not ready: Camel's first exchange after {:?}", between(cut, fifth.start));
    assert_eq!(fifth.member, of_java);
    one.proxy.set(Fault::None);
    stage.let_pass(Duration::from_secs(1));
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_member_without_a_right_of_this_mode_does_not_start_and_names_the_rule() {
    let stage = stage("map-right");
    let needed = &rules(Resource::ConfigMap)[..2];
    for rule in needed {
        for verb in rule.verbs {
            let left = rule.verbs.iter().filter(|other| *other != verb).copied().collect::<Vec<_>>();
            let others = needed.iter().filter(|other| other.resource != rule.resource);
            let mut granted =
                others.map(|rule| (rule.api_group, rule.resource, rule.verbs)).collect::<Vec<_>>();
            granted.push((rule.api_group, rule.resource, &left));
            stage.grant(&granted);
            stage.let_pass(Duration::from_millis(500));
            let mut member = stage.member(0);
            let patience = std::time::Instant::now() + Duration::from_secs(20);
            while !member.has_ended() {
                assert!(std::time::Instant::now() < patience, "without `{verb}`: {}", member.log());
                super::pause();
            }
            let object = Some("leaders").filter(|_| rule.resource == "configmaps");
            let named = rule.yaml_of(&[verb], object);
            assert!(member.log().replace('\\', "").contains(&named), "{named}: {}", member.log());
        }
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn of_two_processes_in_one_pod_one_leads_and_the_other_says_why_it_does_not() {
    let stage = stage("map-twins");
    let first = member(&stage, 0, 0);
    let led = stage.wait_for_term_after(0);
    let (user, settings) = (number(&first), first.settings.clone());
    let second = stage.member_with(user, settings);
    // It asks whether the other one is alive, which answers.
    stage.let_pass(Duration::from_secs(20));
    assert_eq!(
        stage.records().iter().map(|record| record.term).max(),
        Some(led.term),
        "the leader was disturbed"
    );
    assert_eq!(stage.wait_for_work().member, first.id());
    // Both write into one log. The line that says who leads has the reason, too.
    let said = second.log().matches("it is alive, so this one stands by; Camel").count();
    assert_eq!(said, 1, "{}", second.log());
    // A killed one does not answer.
    first.kill();
    let next = stage.wait_for_term_after(led.term);
    assert_eq!(next.member, second.id());
    stage.judge();
}
