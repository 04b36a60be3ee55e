//! The admin listener: probes and metrics over HTTP. It only reads.
//!
//! | path | response |
//! |---|---|
//! | `/livez` | 200 while the loops of this process run, whatever the servers do that it talks to; else 503 |
//! | `/readyz` | 200 while the consumers of all started routes are ready, also on a standby; 503 otherwise, and while the process stops |
//! | `/startupz` | 200 from when all of them have been ready |
//! | `/leaderz/LOCK` | 200 where this process leads, else 503 with the leader's name; 404 where the lock is not wanted |
//! | `/metrics` | the metrics in the text format of Prometheus |
//!
//! The first three list what they have looked at with `?verbose`, or when something is wrong.
//!
//! ```no_run
//! use bactrian::admin::AdminListener;
//! use bactrian::prelude::*;
//!
//! # async fn example() -> Result<(), BoxError> {
//! // First of all: what is built from now on is measured.
//! let listener = AdminListener::bind(AdminListener::ADDRESS)?;
//! let router = bactrian::router().route(from("timer:clock").log("tick")).build()?;
//! // Until the routes have stopped, so that somebody can see them stop.
//! let _admin = listener.serve(&router)?;
//! let _ = bactrian::run(&router).await;
//! # Ok(())
//! # }
//! ```
//!
//! The listener has a thread of its own, so that it can tell when the runtime of the routes is blocked.

#[cfg(feature = "cli")]
mod configured;
mod exporter;
mod http;
mod report;
mod server;

#[cfg(feature = "cli")]
pub use configured::listen;
pub use exporter::metrics;
pub use server::{AdminListener, AdminServer};
