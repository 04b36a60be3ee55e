//! Several processes and a real API server: exactly one runs the route, whatever happens to them.
//!
//! `tests/kubernetes/api-server` finds or builds the server. Each test has a namespace, and each member a
//! way to the server of its own, which can be spoilt.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod api_server;
mod by_hand;
mod ends;
mod faults;
mod judge;
mod load;
mod member;
mod pods;
mod proxy;
mod rights;
mod stage;
mod tool;
mod work;

/// Looking again costs a moment; what is looked for is in a file or a server.
#[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(2));
}
