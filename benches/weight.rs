//! What the library weighs: `cargo bench --bench weight`. Builds a timer-to-log application with the
//! smallest features and the same program on bare tokio, and prints, side by side: crates, size of the
//! stripped program, resident memory after the first line, and the time from the start of the process
//! to its first line (the median of many runs).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 50;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Builds a package as it is shipped and returns its program.
fn build(package: &str) -> PathBuf {
    cargo(&["build", "--profile", "dist", "--quiet", "--package", package]);
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("dist").join(package)
}

fn crates(package: &str) -> usize {
    let tree = cargo(&["tree", "--package", package, "--edges", "normal", "--prefix", "none"]);
    // A line is `name version (remarks)`.
    let mut names = tree.lines().map(|line| line.split(" (").next()).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    names.len()
}

/// Starts the program and returns when it has written a line.
fn first_line(program: &Path) -> (Duration, Child) {
    let start = Instant::now();
    let mut child = Command::new(program).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut reader = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("tick") {
        line.clear();
        reader.read_line(&mut line).expect("it writes");
    }
    (start.elapsed(), child)
}

fn stop(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// Resident bytes of a process.
fn resident_bytes(child: &Child) -> u64 {
    let statm =
        std::fs::read_to_string(format!("/proc/{}/statm", child.id())).expect("this bench needs /proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

struct Weight {
    crates: usize,
    bytes: u64,
    resident: u64,
    start: Duration,
}

fn main() {
    let programs = ["weight-app", "weight-bare"].map(|package| (package, build(package)));
    let mut times = [Vec::new(), Vec::new()];
    // Taken in turns, so that both meet the same moods of the machine.
    for _ in 0..RUNS {
        for ((_, program), times) in programs.iter().zip(&mut times) {
            let (time, child) = first_line(program);
            stop(child);
            times.push(time);
        }
    }
    let [app, bare] = [0, 1].map(|index| {
        let (package, program) = &programs[index];
        let (_, child) = first_line(program);
        let resident = resident_bytes(&child);
        stop(child);
        times[index].sort_unstable();
        let start = times[index][RUNS / 2];
        let bytes = std::fs::metadata(program).expect("it was built").len();
        Weight { crates: crates(package), bytes, resident, start }
    });
    #[expect(clippy::cast_precision_loss, reason = "the ratio is for people")]
    let ratio = |app: u64, bare: u64| app as f64 / bare as f64;
    println!("                     bactrian   bare tokio   ratio");
    println!("crates             {:>10} {:>12}", app.crates, bare.crates);
    let size = ratio(app.bytes, bare.bytes);
    println!("program, bytes     {:>10} {:>12} {size:>7.2}", app.bytes, bare.bytes);
    let memory = ratio(app.resident, bare.resident);
    println!("resident, bytes    {:>10} {:>12} {memory:>7.2}", app.resident, bare.resident);
    let start = app.start.as_secs_f64() / bare.start.as_secs_f64();
    println!("first line, us     {:>10} {:>12} {start:>7.2}", app.start.as_micros(), bare.start.as_micros());
}
