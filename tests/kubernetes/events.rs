//! Changes of leadership as Events, read back from the server.

use std::time::{Duration, Instant};

use bactrian::cluster_kubernetes::{Resource, rules};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rustix::process::Signal;

use super::proxy::Fault;
use super::stage::{Stage, take_leader};

fn events(stage: &Stage) -> Vec<Event> {
    let api = Api::<Event>::namespaced(stage.admin.clone(), &stage.namespace);
    stage.block(async { api.list(&ListParams::default()).await }).unwrap().items
}

/// Waits for an event of this kind about a term, and returns its note.
pub(crate) fn wait_for(stage: &Stage, reason: &str, term: u64) -> Event {
    let patience = Instant::now() + Duration::from_secs(30);
    let about = format!("term {term}:");
    loop {
        let all = events(stage);
        let found = |event: &&Event| {
            event.reason.as_deref() == Some(reason)
                && event.note.as_deref().is_some_and(|note| note.contains(&about))
        };
        if let Some(event) = all.iter().find(found) {
            return event.clone();
        }
        if Instant::now() >= patience {
            stage.show_logs();
            panic!("waited 30 s for {reason} of term {term}; there are {all:#?}");
        }
        super::pause();
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn every_change_of_leadership_is_an_event_of_its_lease() {
    let stage = Stage::new("events");
    let rules = rules(Resource::Lease).iter();
    stage.grant(&rules.map(|rule| (rule.api_group, rule.resource, rule.verbs)).collect::<Vec<_>>());
    stage.let_pass(Duration::from_millis(500));
    let mut members = stage.members();
    let first = stage.wait_for_term_after(0);
    let elected = wait_for(&stage, "LeaderElected", first.term);
    let regarding = elected.regarding.unwrap();
    assert_eq!(
        (regarding.kind.as_deref(), regarding.name.as_deref()),
        (Some("Lease"), Some("bactrian.lock.lock1"))
    );
    assert_eq!(elected.type_.as_deref(), Some("Normal"));

    let leader = take_leader(&mut members, &first);
    assert!(elected.note.unwrap().starts_with(&format!("{}_", leader.settings.pod)));
    leader.signal(Signal::TERM);
    let second = stage.wait_for_term_after(first.term);
    assert!(leader.wait().success());
    let released = wait_for(&stage, "LeaderReleased", first.term);
    println!("{}", released.note.unwrap());
    wait_for(&stage, "LeaderElected", second.term);

    // Who is cut off tells when it is back.
    let leader = take_leader(&mut members, &second);
    leader.proxy.set(Fault::BlackHole);
    let third = stage.wait_for_term_after(second.term);
    leader.proxy.set(Fault::None);
    let lost = wait_for(&stage, "LeaderLost", second.term);
    assert_eq!(lost.type_.as_deref(), Some("Warning"));
    println!("{}", lost.note.unwrap());
    wait_for(&stage, "LeaderElected", third.term);
    stage.judge();
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn without_the_right_there_is_one_line_and_no_event() {
    let stage = Stage::new("no-events");
    let mut members = stage.members();
    let first = stage.wait_for_term_after(0);
    let leader = take_leader(&mut members, &first);
    leader.signal(Signal::TERM);
    stage.wait_for_term_after(first.term);
    let log = leader.log();
    assert!(leader.wait().success());
    assert!(events(&stage).is_empty());
    assert_eq!(log.matches("told as Events").count(), 1, "{log}");
    assert!(
        log.replace('\\', "")
            .contains(r#"{apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"]}"#),
        "{log}"
    );
    stage.judge();
}
