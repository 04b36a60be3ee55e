//! `bactrian leaders`, on pods that come and go.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use bactrian::cluster_kubernetes::{Group, bare_lock};
use serde_json::{Value, json};

use super::member::Running;
use super::operator::{Operator, succeeded};

const ROUTES: &str = r#"
[cluster]
service = "auto"

[cluster.kubernetes]
profile = "fast"

[[route]]
id = "clock"
from = "master:a:timer:clock?delay=0&period=20ms"
steps = [{ log = "Hello" }]

[[route]]
id = "late"
from = "master:b:master:never led:timer:clock?delay=0&period=20ms"
steps = [{ log = "Hello" }]
"#;

/// A lock without a record: there is no Lease, or one of another program.
fn missing_records_are_told_apart(operator: &Operator) {
    let lease = bare_lock(&Group::default(), &"b".parse().unwrap()).metadata.name.unwrap();
    let leases = operator.stage.leases();
    let gone = kube::api::DeleteParams::default();
    operator.stage.block(async { leases.delete(&lease, &gone).await }).unwrap();
    let why = operator.lock("b")["reason"].as_str().unwrap().to_owned();
    assert_eq!(why, "it has no Lease: no member has led it yet, or it was deleted");
    let foreign = json!({"metadata": {"name": lease}, "spec": {"holderIdentity": "other-program-0"}});
    let foreign = serde_json::from_value(foreign).unwrap();
    operator.stage.block(async { leases.create(&kube::api::PostParams::default(), &foreign).await }).unwrap();
    let why = operator.lock("b")["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("its holder is `other-program-0`: another program may use it"), "{why}");
    operator.stage.block(async { leases.delete(&lease, &gone).await }).unwrap();
}

/// Nothing is there, because it is elsewhere.
fn another_namespace_is_named(operator: &Operator) {
    let mut command = operator.command(env!("CARGO_BIN_EXE_bactrian"), &["leaders", "-n", "default"]);
    let output = command.args(["--set", "cluster.service=kubernetes", "routes.toml"]).output().unwrap();
    let (rows, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(rows.contains("it has no Lease: no member has led it yet, or it was deleted"), "{rows}");
    assert!(!notes.contains("there are no locks"), "the file names some: {notes}");
    let mut command = operator.command(env!("CARGO_BIN_EXE_bactrian"), &["leaders", "-n", "default"]);
    std::fs::write(operator.stage.path("none.toml"), "[cluster]\nservice = \"kubernetes\"\n").unwrap();
    let output = command.arg("none.toml").output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    let place =
        "there are no locks of the group bactrian in the namespace default; `-n` names another namespace";
    assert!(output.status.success() && notes.contains(place), "{notes}");
}

/// The leader has written down what it lives by, and so has a member that tried to lead at the same time. Of the others
/// nothing is known but that they are there.
fn what_the_leader_lives_by_is_shown(operator: &Operator, led: &Value) {
    let seen = operator.leaders();
    let timing =
        |row: &Value| ["deadline_seconds", "stop_seconds", "clock_error_percent"].map(|key| row[key].clone());
    let fast = [json!(3.8), json!(1.0), json!(1.0)];
    assert_eq!(
        timing(seen["locks"].as_array().unwrap().iter().find(|lock| lock["lock"] == "a").unwrap()),
        fast
    );
    let members = seen["members"].as_array().unwrap();
    let (told, others) = members.iter().partition::<Vec<_>, _>(|member| member["host"] == led["holder"]);
    assert_eq!(
        (timing(told[0]), &told[0]["member"], told.len(), others.len()),
        (fast.clone(), &led["member"], 1, 2)
    );
    for other in others {
        let expected = if other["member"].is_null() { [const { Value::Null }; 3] } else { fast.clone() };
        assert_eq!(timing(other), expected, "{other}");
    }
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn who_leads_who_stands_by_and_every_change() {
    let operator = Operator::new("leaders", ROUTES, &[]);
    let manifest = operator.manifest();
    operator.apply(&manifest);
    let free = operator.lock("a");
    assert_eq!(
        (&free["state"], &free["holder"], &free["standbys"]),
        (&json!("free"), &Value::Null, &json!([]))
    );

    missing_records_are_told_apart(&operator);
    another_namespace_is_named(&operator);

    let mut watch = operator.command(env!("CARGO_BIN_EXE_bactrian"), &["leaders", "--watch", "-o", "json"]);
    watch.args(["--set", "cluster.service=kubernetes", "routes.toml"]).stdout(Stdio::piped());
    let mut watch = Running(watch.spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    // Reading waits for the next change.
    let mut next_of = |lock: &str| loop {
        let line = serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        if line["lock"] == lock {
            return line;
        }
    };
    assert_eq!(next_of("a")["state"], "free");

    let mut replicas = (0..3).map(|number| operator.start(&manifest, number)).collect::<Vec<_>>();
    let led = std::iter::repeat_with(|| next_of("a")).find(|lock| lock["state"] == "led").unwrap();
    let seen = operator.wait_for("a", "all members", |lock| lock["standbys"].as_array().unwrap().len() == 2);
    let keys = ["state", "holder", "member", "term", "held_since", "routes"];
    for key in keys {
        assert_eq!(seen[key], led[key], "{key}");
    }
    assert!(seen["member"].as_str().unwrap().starts_with(&format!("{}_", led["holder"].as_str().unwrap())));
    // Longer than a silent member would be believed, so heartbeats are seen to come.
    let seen = operator.wait_for("a", "a long term", |lock| lock["held_seconds"].as_u64() >= Some(7));
    assert_eq!((&seen["state"], &seen["member"]), (&json!("led"), &led["member"]), "{seen}");
    assert!(seen["heartbeat_age_seconds"].as_u64().unwrap() <= 3, "{seen}");

    what_the_leader_lives_by_is_shown(&operator, &led);

    // As kubectl calls it: the name is enough, in the namespace of the context.
    let plugin = operator.stage.path("kubectl-bactrian");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bactrian"), &plugin).unwrap();
    std::fs::rename(operator.stage.path("routes.toml"), operator.stage.path("elsewhere.toml")).unwrap();
    let plugin = plugin.display().to_string();
    let table = succeeded(operator.command(&plugin, &["leaders"]).output().unwrap());
    println!("{table}");
    let row =
        table.lines().find(|line| line.starts_with("a ")).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!((row[1], row[2], row[6], row[7]), ("led", led["holder"].as_str().unwrap(), "2", "clock"));
    let holders = succeeded(operator.command(&plugin, &["leaders", "-o", "holder"]).output().unwrap());
    assert!(holders.lines().any(|holder| led["holder"] == holder), "{holders}");
    std::fs::rename(operator.stage.path("elsewhere.toml"), operator.stage.path("routes.toml")).unwrap();

    // The leader is killed, and its kubelet says so.
    let index = replicas.iter().position(|replica| led["holder"] == replica.name.as_str()).unwrap();
    let killed = replicas.swap_remove(index);
    drop(killed.process);
    operator.set_status(&killed.name, &json!({"terminated": {"exitCode": 137}}));
    let next = std::iter::repeat_with(|| next_of("a"));
    let next = next.filter(|lock| lock["holder"] != killed.name.as_str());
    let next = next.into_iter().find(|lock| lock["state"] == "led").unwrap();
    assert!(next["term"].as_u64() > led["term"].as_u64(), "{next}");
    let seen = operator.lock("a");
    assert_eq!((&seen["holder"], seen["standbys"].as_array().unwrap().len()), (&next["holder"], 1), "{seen}");
    watch.stop();

    // Without pods, sessions tell, as far as they have led; an old one is no standby, and no holder.
    let pods = operator.stage.pods();
    let delete = kube::api::DeleteParams::default().grace_period(0);
    for replica in &replicas {
        operator.stage.block(async { pods.delete(&replica.name, &delete).await }).unwrap();
    }
    drop(replicas);
    let alone = |lock: &Value| lock["state"] == "silent" && lock["standbys"] == json!([]);
    let silent = operator.wait_for("a", "a silent holder and nobody else", alone);
    assert_eq!(silent["holder"], next["holder"]);
}
