//! Tests of the manifest that need no server.

use serde_json::Value;

use super::*;
use crate::names::ROUTES_ANNOTATION;
use crate::settings::Resource;

fn manifest() -> Manifest {
    Manifest {
        name: "clock".into(),
        namespace: "time".into(),
        image: "clock:1".into(),
        replicas: 3,
        files: vec![("clock.toml".into(), "# on\n".into())],
        variables: Vec::new(),
        secret: false,
        probes: Some(9876),
        spool: ("/spool".into(), 1 << 30),
        drain: Duration::from_secs(45),
        election: Some(Election {
            resource_name: None,
            group: Group::default(),
            locks: vec![("lock1".parse().unwrap(), vec!["clock".into()])],
            cluster_labels: None,
            resource: Resource::Lease,
        }),
    }
}

fn parsed(manifest: &Manifest) -> Vec<Value> {
    let documents = manifest.documents().unwrap();
    documents
        .iter()
        .flat_map(|document| serde_saphyr::from_multiple::<Value>(&document.text).unwrap())
        .collect()
}

fn find(documents: &[Value], kind: &str) -> Value {
    documents.iter().find(|document| document["kind"] == kind).cloned().unwrap_or(Value::Null)
}

#[track_caller]
fn refused(change: impl Fn(&mut Manifest)) -> String {
    let mut manifest = manifest();
    change(&mut manifest);
    manifest.documents().unwrap_err().to_string()
}

#[test]
fn names_that_kubernetes_does_not_take_are_refused() {
    for name in ["", "Clock", "a.b", "-a", "a-", &"a".repeat(64)] {
        assert!(refused(|manifest| manifest.name = name.into()).contains("RFC 1123"), "{name}");
        assert!(refused(|manifest| manifest.namespace = name.into()).contains("the namespace"));
    }
    for image in ["", "a b", "a\nb", "--privileged"] {
        assert!(refused(|manifest| manifest.image = image.into()).contains("is no image"), "{image}");
    }
    for name in ["", ".hidden.toml", "a b.toml", "ä.toml", "a/b.toml"] {
        assert!(refused(|manifest| manifest.files[0].0 = name.into()).contains("ConfigMap"), "{name}");
    }
    assert!(refused(|manifest| manifest.files.push(manifest.files[0].clone())).contains("two files"));
    assert!(refused(|manifest| manifest.files[0].1 = "x".repeat(1_000_001)).contains("1000001 bytes"));
    let labels = |labels: &'static str| {
        refused(move |manifest| manifest.election.as_mut().unwrap().cluster_labels = Some(labels.into()))
    };
    for selector in ["app", "app in (a,b)", "app!=clock", "-a=b", "a=b c", "A/b=c"] {
        assert!(labels(selector).contains("app=clock,tier=back"), "{selector}");
    }
    assert!(labels("app.kubernetes.io/name=other").contains("the pods have app.kubernetes.io/name=clock"));
}

#[test]
fn text_stays_text_whatever_it_looks_like() {
    let odd = [
        "on",
        "no",
        "~",
        "null",
        "1",
        "1e3",
        "0123",
        "1:30",
        "0x1f",
        "- a",
        "a: b",
        "# a",
        "'",
        "\"",
        "\\",
        "",
        " a ",
        "a\n\n b\n",
        "\ta\n",
        "a\r\nb",
        "---\na\n",
        "{{ .Values.a }}",
        "${env:A}",
        "ü\u{85}\u{2028}\0",
        "a long line of words that some would fold, because it has far more characters than eighty, or a hundred",
    ];
    for odd in odd {
        let mut manifest = manifest();
        manifest.files[0].1 = odd.into();
        manifest.variables = vec![("A".into(), odd.into())];
        let documents = parsed(&manifest);
        assert_eq!(find(&documents, "ConfigMap")["data"]["clock.toml"], odd, "{odd:?}");
        let deployment = find(&documents, "Deployment");
        let variable = &deployment["spec"]["template"]["spec"]["containers"][0]["env"][3];
        assert_eq!(variable["value"], odd, "{odd:?}");
    }
}

#[test]
fn variables_are_not_replaced_by_kubernetes() {
    let mut manifest = manifest();
    manifest.variables = vec![("A".into(), "$(POD_NAME)".into())];
    assert!(manifest.documents().unwrap().iter().any(|document| document.text.contains("$$(POD_NAME)")));
}

#[test]
fn other_files_are_another_config_map() {
    let name = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        let documents = parsed(&manifest);
        let pod = &find(&documents, "Deployment")["spec"]["template"]["spec"];
        let map = find(&documents, "ConfigMap")["metadata"]["name"].clone();
        assert_eq!(pod["volumes"][0]["configMap"]["name"], map);
        map
    };
    assert_eq!(name(&|_| {}), name(&|manifest| manifest.replicas = 1));
    assert_ne!(name(&|_| {}), name(&|manifest| manifest.files[0].1.push('\n')));
    assert_ne!(name(&|_| {}), name(&|manifest| manifest.files[0].0 = "other.toml".into()));
}

#[test]
fn rights_are_those_of_the_features_in_use() {
    let resources = |manifest: &Manifest| {
        let rules = find(&parsed(manifest), "Role")["rules"].clone();
        let rules = rules.as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| rule["resources"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(resources(&manifest()), ["leases", "events"]);
    let mut proof = manifest();
    proof.election.as_mut().unwrap().cluster_labels = Some("app=clock, tier==back".into());
    assert_eq!(resources(&proof), ["leases", "pods", "events"]);
    let labels = find(&parsed(&proof), "Deployment")["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!((&labels["app"], &labels["tier"]), (&"clock".into(), &"back".into()));
    let nothing = Manifest { election: None, ..manifest() };
    let documents = parsed(&nothing);
    assert_eq!((find(&documents, "Role"), find(&documents, "Lease")), (Value::Null, Value::Null));
    let pod = &find(&documents, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[test]
fn kubernetes_waits_longer_than_the_drain_takes() {
    let mut manifest = manifest();
    manifest.drain = Duration::from_millis(90_500);
    let deployment = find(&parsed(&manifest), "Deployment");
    assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 106);
}

#[test]
fn a_lock_has_neither_a_holder_nor_a_label_of_the_deployment() {
    let lock = find(&parsed(&manifest()), "Lease");
    assert_eq!(lock["spec"], serde_json::json!({}));
    assert_eq!(lock["metadata"]["labels"]["app.kubernetes.io/name"], Value::Null);
    assert_eq!(lock["metadata"]["annotations"][ROUTES_ANNOTATION], "clock");
}
