//! The quickstart, as `examples/kubernetes` has it: three replicas of a clock, and a service of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::operator::{Operator, Replica};
use super::pause;

const CLOCK: &str = "Hello World!";
const SINGLETON: &str = "the singleton works in term ";

/// The program of the example, beside the tests. A run of these tests alone does not build it.
fn program() -> std::path::PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "bactrian", "--example", "kubernetes", "--all-features"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success(), "the example cannot be built");
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/kubernetes")
}

/// Stops the one that does this work; the others must not have done any.
fn stop_who_does(work: &str, replicas: &mut Vec<Replica>) -> String {
    let patience = Instant::now() + Duration::from_secs(30);
    let does = |replica: &Replica| replica.log().contains(work);
    while !replicas.iter().any(does) {
        assert!(Instant::now() < patience, "nobody does `{work}`");
        pause();
    }
    assert_eq!(replicas.iter().filter(|replica| does(replica)).count(), 1, "`{work}` is done twice");
    let mut leader = replicas.remove(replicas.iter().position(does).unwrap());
    leader.process.take().unwrap().stop();
    leader.name
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn a_clock_and_a_service_of_its_own_each_run_in_one_of_three_pods() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes");
    let routes = std::fs::read_to_string(folder.join("clock.toml")).unwrap();
    let shown = std::fs::read_to_string(folder.join("manifest.yaml")).unwrap();
    let operator = Operator::new("quickstart", &routes, &[]).program(program());
    let manifest =
        shown.replace("namespace: default\n", &format!("namespace: {}\n", operator.stage.namespace));
    operator.dry_run(&manifest);
    operator.apply(&manifest);
    for work in [CLOCK, SINGLETON] {
        // Each time with new pods, so that whoever did this before is gone.
        let first = if work == CLOCK { 0 } else { 10 };
        let mut replicas =
            (first..first + 3).map(|number| operator.start(&manifest, number)).collect::<Vec<_>>();
        let mut stopped = Vec::new();
        while !replicas.is_empty() {
            stopped.push(stop_who_does(work, &mut replicas));
        }
        println!("`{work}` was done by {stopped:?}, one after the other");
    }
}
