//! What `Router::apply` promises: from the routes that run to those that shall, under paused time.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

mod below_lock;
mod callers;
mod changes;
mod model;
mod readiness;
#[path = "../source/mod.rs"]
mod source;
mod support;
