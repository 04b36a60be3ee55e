//! The driver: carries the core's requests to a store and its decisions to the rest of the process.
//!
//! One task, the election's loop (`election.rs`, `actions.rs`), owns the core. Around it are the requests,
//! each a task; the watcher, which turns lists and watches into one ordered stream; and the holds with
//! their sentinel, which end work in time even if all of the former stand still.

mod actions;
mod alarm;
mod clock;
mod cluster;
mod command;
mod deadline;
mod desired;
mod directory;
mod election;
mod holds;
mod metrics;
mod operators;
mod requests;
mod sentinel;
mod settings;
mod standings;
mod states;
mod supervisor;
mod transition;
mod warn_limiter;
mod watcher;

pub use clock::{Clock, SystemClock, TokioClock};
pub use cluster::LeaseCluster;
pub use metrics::METRICS;
pub use settings::{LeaseClusterError, LeaseClusterSettings, Timing, TimingError};
pub use transition::{Transition, TransitionKind};
