//! What pods that crash leave behind, and tokens that are replaced.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::leader_ends::TAKEOVER;
use super::member::{Member, MemberSettings};
use super::proxy::Proxy;
use super::stage::{Stage, between, take_leader};

/// How often the pod restarts.
const RESTARTS: usize = 20;

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_crash_loop_leaves_a_few_leases_and_takes_no_other_member_s() {
    let stage = Stage::new("crashes");
    stage.make_locks(2);
    let uid = |digit: &str| Some(format!("{0}{0}{0}{0}{0}{0}{0}{0}-0000-4000-8000-000000000000", digit));
    let other = stage.member_with(1, MemberSettings { pod_uid: uid("b"), ..stage.settings.clone() });
    let led = stage.wait_for_term_after(0);
    let session = stage.session_of(&other);
    let looping = MemberSettings { pod_uid: uid("a"), locks: 2, ..stage.settings.clone() };
    let (mut terms, mut most) = (0, 0);
    for round in 0..RESTARTS {
        let member = stage.member_with(0, looping.clone());
        if round % 3 == 0 {
            let id = member.id();
            stage.wait("the second lock to be led", |records| {
                records.iter().any(|record| record.lock == "lock2" && record.member == id)
            });
            terms += 1;
        } else {
            stage.let_pass(Duration::from_millis(fastrand::u64(0..2_000)));
        }
        member.kill();
        most = most.max(stage.sessions().len());
    }
    println!(
        "{RESTARTS} crashes in {terms} terms of one pod: at most {most} Leases of sessions, another's among them"
    );
    assert!(most <= 4, "{most} Leases of sessions");
    let after = stage.session_of(&other);
    assert_eq!(
        (after.uid(), after.annotations()["bactrian/session"].as_str()),
        (session.uid(), session.annotations()["bactrian/session"].as_str())
    );
    assert_eq!(stage.wait_for_work().term, led.term, "the other member leads on");
    stage.judge();
}

/// Kubernetes' garbage collector deletes what is owned by an object that its own namespace does not have. The control
/// plane of these tests has no kube-controller-manager, so what it would go by is looked at.
#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn sessions_in_another_namespace_than_the_pod_s_have_no_owner_that_a_garbage_collector_could_miss() {
    let stage = Stage::new("elsewhere");
    let owners = |member: &Member| {
        let session = stage.session_of(member);
        println!("{} in {}: owners {:?}", session.name_any(), stage.namespace, session.owner_references());
        session.owner_references().to_vec()
    };
    let uid = |digit: &str| Some(format!("{0}{0}{0}{0}{0}{0}{0}{0}-0000-4000-8000-000000000000", digit));
    let here = MemberSettings { pod_uid: uid("c"), ..stage.settings.clone() };
    let elsewhere = MemberSettings {
        pod_uid: uid("d"),
        namespace: "of-the-pod".into(),
        variables: vec![("MEMBER_CLUSTER_NAMESPACE", stage.namespace.clone())],
        ..stage.settings.clone()
    };
    let first = stage.member_with(0, here);
    let led = stage.wait_for_term_after(0);
    assert_eq!(owners(&first)[0].uid, uid("c").unwrap());
    first.kill();
    let second = stage.member_with(1, elsewhere);
    let led = stage.wait_for_term_after(led.term);
    assert_eq!(led.member, second.id());
    assert_eq!(owners(&second), []);
    stage.judge();
}

/// A token of a service account that ends with a pod, and that pod.
fn token(stage: &Stage, pod: &str) -> String {
    let object = json!({"metadata": {"name": pod}, 
        "spec": {"serviceAccountName": "clock", "containers": [{"name": "c", "image": "c"}]}});
    let object = serde_json::from_value::<Pod>(object).unwrap();
    let made = stage.block(async { stage.pods().create(&PostParams::default(), &object).await }).unwrap();
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/clock/token", stage.namespace);
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": made.uid()});
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "boundObjectRef": bound}});
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    let answer = stage.block(stage.admin.request::<TokenRequest>(request)).unwrap();
    answer.status.unwrap().token
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_token_that_was_replaced_does_not_delay_a_takeover() {
    let stage = Stage::new("token");
    let account = serde_json::from_value::<ServiceAccount>(json!({"metadata": {"name": "clock"}})).unwrap();
    let binding = json!({"metadata": {"name": "clock"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "members"},
        "subjects": [{"kind": "ServiceAccount", "name": "clock", "namespace": stage.namespace}]});
    let binding = serde_json::from_value::<RoleBinding>(binding).unwrap();
    stage.block(async {
        let accounts = Api::<ServiceAccount>::namespaced(stage.admin.clone(), &stage.namespace);
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let bindings = Api::<RoleBinding>::namespaced(stage.admin.clone(), &stage.namespace);
        bindings.create(&PostParams::default(), &binding).await.unwrap();
    });
    let file = stage.path("token");
    std::fs::write(&file, token(&stage, "first")).unwrap();
    let mut members = (0..2).map(|user| member(&stage, user)).collect::<Vec<_>>();
    let led = stage.wait_for_term_after(0);
    std::fs::write(&file, token(&stage, "second")).unwrap();
    let delete = DeleteParams::default().grace_period(0);
    stage.block(async { stage.pods().delete("first", &delete).await }).unwrap();
    // The server believes a token for some seconds more; the client reads its file once a minute.
    stage.let_pass(Duration::from_secs(20));
    assert_eq!(stage.wait_for_work().term, led.term, "the leader found the new token");
    let killed = take_leader(&mut members, &led).kill();
    let next = stage.wait_for_term_after(led.term);
    let time = between(killed, next.start);
    println!("token replaced, then kill -9: to the next leader's first exchange {time:?}");
    assert!(time < TAKEOVER, "{time:?}");
    stage.judge();
}

/// A member whose token is in a file.
fn member(stage: &Stage, user: usize) -> Member {
    let proxy = Proxy::start(&stage.runtime, stage.server.port());
    let kubeconfig = stage.path(&format!("kubeconfig-token-{user}"));
    let text = stage.server.kubeconfig_with(proxy.port, "TOKEN", &stage.namespace);
    let file = format!("tokenFile: {:?}", stage.path("token").display().to_string());
    std::fs::write(&kubeconfig, text.replace("token: TOKEN", &file)).unwrap();
    let (pod, log) = (format!("pod-{user}"), stage.path(&format!("log-pod-{user}")));
    Member::start(MemberSettings { pod, kubeconfig, log, ..stage.settings.clone() }, proxy)
}
