//! A simulator of the election of Bactrian, for the proof that stands in `cluster-lease/PROOF.md`.
//!
//! It runs the shipped state machine, not a copy, in schedules that are drawn from a seed: partitions,
//! messages that are late, lost, doubled or out of order, requests that are applied after their sender
//! died, pauses, crashes, deletions, wrong evidence, and clocks at the edge of what is allowed. A judge
//! that knows true time and the store's whole history holds the invariants against every schedule.

pub mod clock;
mod driver;
pub mod exhaustive;
mod faults;
pub mod judge;
mod keeping;
pub mod plan;
pub mod process;
pub mod runs;
pub mod shrink;
pub mod store;
pub mod world;
