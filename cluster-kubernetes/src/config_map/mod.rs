//! The compatibility mode: locks as entries of the ConfigMap that Camel has used since 2.20.
//!
//! The election is the same as with Leases, over a store that tells it less. `layout.rs` is what stands in
//! the ConfigMap, `judge.rs` what it means to this member, `rivals.rs` finds out whether another process with the name
//! of this pod is alive, `store.rs` brings it there and back, and `timing.rs` says with which numbers it is safe next
//! to Camel.

mod judge;
mod layout;
mod rivals;
mod store;
#[cfg(test)]
mod tests;
mod timing;

pub(crate) use layout::{RESOURCE_NAME, check_lock};
pub(crate) use store::ConfigMapStore;
pub use timing::CamelTimingError;
