//! The command line tool, as it runs in a pod.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::pause;
use super::proxy::Proxy;
use super::stage::Stage;

const ROUTES: &str = r#"
[cluster]
service = "auto"
profile = "fast"

[[route]]
id = "clock"
from = "master:lock1:timer:clock?period=50ms"
steps = [{ log = "Hello World!" }]
"#;

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_tool_runs_a_route_in_one_of_three_pods_and_lets_go_of_it() {
    let stage = Stage::new("tool");
    std::fs::write(stage.path("routes.toml"), ROUTES).unwrap();
    let proxies = (0..3).map(|_| Proxy::start(&stage.runtime, stage.server.port())).collect::<Vec<_>>();
    let pods = (0..3).map(|user| {
        let kubeconfig = stage.path(&format!("kubeconfig-tool-{user}"));
        let text = stage.server.kubeconfig(proxies[user].port, user, &stage.namespace);
        std::fs::write(&kubeconfig, text).unwrap();
        let log = std::fs::File::create(stage.path(&format!("log-tool-{user}"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command
            .arg("run")
            .arg(stage.path("routes.toml"))
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", format!("clock-{user}"))
            .env("POD_NAMESPACE", &stage.namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Some(super::member::Running(command.spawn().unwrap()))
    });
    let mut pods = pods.collect::<Vec<_>>();
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
            pods[leader].take().unwrap().stop();
        }
        assert!(Instant::now() < patience, "led by {leaders:?}");
        pause();
    }
    println!("the tool: led by pods {leaders:?}, one after the other");
    let lock = stage.block(async { stage.leases().get("bactrian.lock.lock1").await }).unwrap();
    assert_eq!(lock.spec.unwrap().holder_identity, None, "the last one let go as well");
}
