//! What `bactrian kubernetes manifest` prints, applied to a server that enforces it.

use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::operator::{Operator, succeeded};
use super::pause;

const ROUTES: &str = r#"
[cluster]
service = "auto"

[cluster.kubernetes]
profile = "fast"
cluster_labels = "app=clock"

[[route]]
id = "clock"
from = "master:manifest:timer:clock?delay=0&period=20ms"
steps = [{ log = "Hello in term ${term}!" }]
"#;

/// The terms in a log, each once, in their order.
fn terms(log: &str) -> Vec<u64> {
    let terms = log.split("Hello in term ").skip(1);
    let mut terms = terms.map(|rest| rest.split('!').next().unwrap().parse().unwrap()).collect::<Vec<_>>();
    terms.dedup();
    terms
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn members_run_with_the_rights_of_the_manifest_and_applying_it_again_changes_nothing() {
    let operator = Operator::new("manifest", ROUTES, &[]);
    let manifest = operator.manifest();
    operator.apply(&manifest);
    let replicas = (0..3).map(|number| operator.start(&manifest, number)).collect::<Vec<_>>();
    let led = operator.wait_for("manifest", "a leader", |lock| lock["state"] == "led");
    let leader = replicas.iter().find(|replica| led["holder"] == replica.name.as_str()).unwrap();
    leader.wait_for("Hello");
    // Nobody but the leader, after one wait: the Lease of the manifest says nothing about who leads.
    assert!(leader.log().contains("was not written by a member"), "{}", leader.log());
    assert_eq!((&led["routes"], led["standbys"].as_array().unwrap().len()), (&json!(["clock"]), 2));
    assert_eq!(terms(&leader.log()), [led["term"].as_u64().unwrap()]);

    let lease =
        || operator.stage.block(async { operator.stage.leases().get("bactrian.lock.manifest").await });
    let before = lease().unwrap();
    operator.apply(&manifest);
    assert_eq!(lease().unwrap(), before, "applied by the server");
    // As kubectl does it by default: the difference to what was applied last.
    let file = operator.stage.path("manifest.yaml");
    std::fs::write(&file, operator.for_server(&manifest)).unwrap();
    let kubectl = || operator.command("kubectl", &["apply", "-f", &file.display().to_string()]).output();
    if kubectl().is_ok() {
        // The first time it notes what it has applied, the second time there is nothing to do.
        let printed = succeeded(kubectl().unwrap());
        assert!(printed.contains("bactrian.lock.manifest unchanged"), "{printed}");
        println!("applied by kubectl:\n{printed}");
    }
    // A lock that changes while it is led, because another route uses it now.
    operator.apply(&manifest.replace("bactrian/routes: clock", "bactrian/routes: clock, report"));
    let ticks = leader.log().matches("Hello").count();
    let patience = Instant::now() + Duration::from_secs(20);
    // Over more than two heartbeats.
    while leader.log().matches("Hello").count() < ticks + 120 {
        assert!(Instant::now() < patience, "{}", leader.log());
        pause();
    }
    let after = lease().unwrap();
    assert_eq!(after.spec, before.spec);
    assert_eq!(terms(&leader.log()), [led["term"].as_u64().unwrap()], "the same leader in the same term");
    let notes = after.metadata.annotations.unwrap();
    assert_eq!(notes["bactrian/routes"], "clock, report");
    assert_eq!(notes["bactrian/record"], before.metadata.annotations.unwrap()["bactrian/record"]);
    let others = replicas.iter().filter(|replica| replica.name != leader.name);
    assert!(others.map(|replica| terms(&replica.log())).all(|terms| terms.is_empty()));
}

/// The rules of the Role, as they are printed.
fn rules(manifest: &str) -> Vec<Value> {
    let documents = serde_saphyr::from_multiple::<Value>(manifest).unwrap();
    let role = documents.iter().find(|document| document["kind"] == "Role").unwrap();
    role["rules"].as_array().unwrap().clone()
}

/// The manifest without one verb of one resource.
fn without(manifest: &str, resource: &str, verb: &str) -> String {
    let start = manifest.find(&format!("  resources:\n  - {resource}\n")).unwrap();
    let end = start + manifest[start..].find("\n#").unwrap_or(manifest[start..].find("\n---").unwrap());
    let rule = manifest[start..end].replace(&format!("\n  - {verb}"), "");
    format!("{}{rule}{}", &manifest[..start], &manifest[end..])
}

/// Waits until the server knows its own rules.
fn wait_until_forbidden(operator: &Operator, rule: &Value, verb: &str) {
    let reviews = Api::<SubjectAccessReview>::all(operator.stage.admin.clone());
    let namespace = &operator.stage.namespace;
    let review = json!({"metadata": {}, "spec": {"user": format!("system:serviceaccount:{namespace}:routes"), "resourceAttributes": {
        "group": rule["apiGroups"][0], "resource": rule["resources"][0], "verb": verb, "namespace": namespace,
    }}});
    let review = serde_json::from_value::<SubjectAccessReview>(review).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    let allowed = || {
        let answer = operator.stage.block(async { reviews.create(&PostParams::default(), &review).await });
        answer.unwrap().status.unwrap().allowed
    };
    while allowed() {
        assert!(Instant::now() < patience, "{verb} stays allowed");
        pause();
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn every_verb_of_the_role_is_needed_and_its_absence_is_named() {
    let operator = Operator::new("verbs", ROUTES, &[]);
    let manifest = operator.manifest();
    let mut number = 0;
    for rule in rules(&manifest) {
        let (group, resource) =
            (rule["apiGroups"][0].as_str().unwrap(), rule["resources"][0].as_str().unwrap());
        for verb in rule["verbs"].as_array().unwrap() {
            let verb = verb.as_str().unwrap();
            let reduced = without(&manifest, resource, verb);
            assert_eq!(reduced.len(), manifest.len() - verb.len() - 5);
            operator.apply(&reduced);
            wait_until_forbidden(&operator, &rule, verb);
            let mut replica = operator.start(&reduced, number);
            number += 1;
            let missing = format!(
                "needs the rule {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [{verb:?}]}}"
            );
            replica.wait_for(&missing);
            println!("without `{verb}` on {resource}: {missing}");
            let mut process = replica.process.take().unwrap();
            if (resource, verb) == ("leases", "watch") {
                let guide = include_str!("../../docs/src/kubernetes.md");
                let error = replica.log();
                let error = error.lines().last().unwrap().replace(&operator.stage.namespace, "time");
                assert!(guide.contains(&error), "the guide does not show what is printed:\n{error}");
            }
            if resource == "leases" {
                assert_eq!(process.0.wait().unwrap().code(), Some(1), "{}", replica.log());
            }
        }
    }
    assert_eq!(number, 9);
}
