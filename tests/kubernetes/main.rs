//! Several processes and a real API server: exactly one runs the route, whatever happens to them.
//!
//! `tests/kubernetes/api-server` finds or builds the server. Each test has a namespace, and each member a
//! way to the server of its own, which can be spoilt.
//!
//! `tests/run` runs the quick set, `tests/long` the long one, `tests/peers` the comparison with other crates.
//! `KUBERNETES_ROUNDS=50` repeats what is measured fifty times as often; use it with a filter:
//! `cargo test --all-features --test kubernetes -- --ignored --nocapture ends::`. Random choices are those of
//! `KUBERNETES_SEED`, which each run prints.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod api_server;
mod by_hand;
#[path = "../../cluster-kubernetes/src/config_map/tests/camel.rs"]
mod camel;
mod clocks;
mod command_line;
mod config_map;
mod events;
mod evidence;
mod faults;
mod gateway;
mod handover;
mod image;
mod judge;
mod labels;
mod leader_ends;
mod leaders;
mod load;
mod long;
mod manifest;
mod member;
mod members;
mod operator;
mod peers;
mod pods;
mod positions;
mod proxy;
mod quickstart;
mod rights;
mod scenario_table;
mod scenarios;
mod seed;
mod sessions;
mod stage;
mod work;

/// Looking again costs a moment; what is looked for is in a file or a server.
#[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(2));
}

/// How often to do what is done this often in the quick set.
fn rounds(quick: usize) -> usize {
    let times = std::env::var("KUBERNETES_ROUNDS").ok().and_then(|times| times.parse::<usize>().ok());
    quick * times.unwrap_or(1)
}
