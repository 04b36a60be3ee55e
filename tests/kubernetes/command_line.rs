//! The command line tool, as it runs in a pod.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::api_server::ApiServer;
use super::member::Running;
use super::pause;
use super::proxy::Proxy;
use super::stage::Stage;

const ROUTES: &str = r#"
[cluster]
service = "auto"

[cluster.kubernetes]
profile = "fast"

[[route]]
id = "clock"
from = "master:lock1:timer:clock?period=50ms"
steps = [{ log = "Hello World!" }]
"#;

async fn ask(address: &str, path: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let (head, body) =
        client.get(format!("http://{address}/{path}").parse().unwrap()).await.unwrap().into_parts();
    (head.status.as_u16(), String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// What the admin listener of a pod says, by the address in its log.
async fn assert_tells_the_truth(log: &str, leads: bool) {
    let address = log.split("are at http://").nth(1).unwrap().split('"').next().unwrap();
    let get = async |path: &str| ask(address, path).await;
    for path in ["startupz", "livez", "readyz"] {
        assert_eq!(get(path).await, (200, "ok".into()), "{path}");
    }
    assert_eq!(get("leaderz/lock1").await.0, if leads { 200 } else { 503 });
    let (_, metrics) = get("metrics").await;
    let value = |series: &str| {
        let line = metrics.lines().find(|line| line.starts_with(series)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("bactrian_leader{lock=\"lock1\"}"), f64::from(u8::from(leads)));
    assert!(value("bactrian_leader_term{lock=\"lock1\"}") > 0.0);
    // A standby may have sent some too, when it was a candidate.
    for series in ["bactrian_lease_renew_seconds_count", "bactrian_lease_deadline_seconds_count"] {
        assert!(value(series) > 0.0 || !leads, "{series}");
    }
}

/// Starts a pod whose log is the file `log-tool-USER`.
fn start(stage: &Stage, port: u16, user: usize) -> Running {
    let kubeconfig = stage.path(&format!("kubeconfig-tool-{user}"));
    std::fs::write(&kubeconfig, stage.server.kubeconfig(port, user, &stage.namespace)).unwrap();
    let log = std::fs::File::create(stage.path(&format!("log-tool-{user}"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command
        .arg("run")
        .arg(stage.path("routes.toml"))
        .args(["--set", "admin.listen=127.0.0.1:0"])
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBECONFIG", kubeconfig)
        .env("POD_NAME", format!("clock-{user}"))
        .env("POD_NAMESPACE", &stage.namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Running(command.spawn().unwrap())
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn while_the_server_is_away_each_pod_says_since_when_and_for_how_long() {
    let stage = Stage::on(Arc::new(ApiServer::start()), "away");
    std::fs::write(stage.path("routes.toml"), ROUTES).unwrap();
    let pods = (0..2).map(|user| start(&stage, stage.server.port(), user)).collect::<Vec<_>>();
    let log = |user: usize| std::fs::read_to_string(stage.path(&format!("log-tool-{user}"))).unwrap();
    let wait = |what: &str, mut wanted: Box<dyn FnMut() -> bool + '_>| {
        let patience = Instant::now() + Duration::from_secs(60);
        while !wanted() {
            assert!(Instant::now() < patience, "waited for {what}:\n{}\n{}", log(0), log(1));
            pause();
        }
    };
    wait(
        "a leader, and one that knows it",
        Box::new(|| {
            let leads = (0..2).filter(|user| log(*user).contains("Hello World!")).count();
            leads == 1 && (0..2).any(|user| log(user).contains("standing by for `lock1` in the namespace "))
        }),
    );
    stage.server.kill_server();
    for user in 0..2 {
        wait("a warning", Box::new(|| log(user).contains("`lock1`: no leader is known for ")));
        let address = log(user).split("are at http://").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let (ready, metrics) = stage
            .block(async { (ask(&address, "readyz?verbose").await.1, ask(&address, "metrics").await.1) });
        let line = ready
            .lines()
            .find(|line| line.contains("lock lock1 ok: standby, no leader is known for"))
            .unwrap();
        assert!(line.contains(" since 20") && line.contains("cannot be "), "{line}");
        println!("{line}");
        let series = "bactrian_lock_without_leader_seconds{lock=\"lock1\"} ";
        let seconds = metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap();
        assert!(seconds.parse::<f64>().unwrap() > 5.0, "{seconds}");
    }
    let before = log(0).matches("Hello World!").count() + log(1).matches("Hello World!").count();
    stage.server.start_server();
    wait(
        "work",
        Box::new(|| log(0).matches("Hello World!").count() + log(1).matches("Hello World!").count() > before),
    );
    drop(pods);
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_tool_runs_a_route_in_one_of_three_pods_and_lets_go_of_it() {
    let stage = Stage::new("tool");
    std::fs::write(stage.path("routes.toml"), ROUTES).unwrap();
    let proxies = (0..3).map(|_| Proxy::start(&stage.runtime, stage.server.port())).collect::<Vec<_>>();
    let mut pods = (0..3).map(|user| Some(start(&stage, proxies[user].port, user))).collect::<Vec<_>>();
    let hellos = |user: usize| {
        let log = std::fs::read_to_string(stage.path(&format!("log-tool-{user}"))).unwrap();
        log.matches("Hello World!").count()
    };
    let patience = Instant::now() + Duration::from_secs(30);
    let mut leaders = Vec::new();
    while pods.iter().any(Option::is_some) {
        let leader = (0..3).find(|user| pods[*user].is_some() && hellos(*user) > 5);
        if let Some(leader) = leader {
            let others = (0..3).filter(|user| *user != leader && pods[*user].is_some());
            assert!(others.map(hellos).all(|count| count == 0), "two pods say hello");
            leaders.push(leader);
            for user in (0..3).filter(|user| pods[*user].is_some()) {
                let log = std::fs::read_to_string(stage.path(&format!("log-tool-{user}"))).unwrap();
                stage.block(assert_tells_the_truth(&log, user == leader));
            }
            pods[leader].take().unwrap().stop();
        }
        assert!(Instant::now() < patience, "led by {leaders:?}");
        pause();
    }
    println!("the tool: led by pods {leaders:?}, one after the other");
    let lock = stage.block(async { stage.leases().get("bactrian.lock.lock1").await }).unwrap();
    assert_eq!(lock.spec.unwrap().holder_identity, None, "the last one let go as well");
}
