//! A cluster on one host whose arbiter is the kernel: who has the lock on a file leads.
//!
//! [`FileCluster`] needs a directory and nothing else. A lock is held by a process, so `kill -9` frees
//! it at once and a pause does not; there is no heartbeat, no time-out and no clock that could be wrong.
//! See [`FileCluster`] for what exactly is promised.
//!
//! What lies in the directory:
//!
//! | path | what it is |
//! |---|---|
//! | `<lock>.lock` | the file that the leader of a lock holds locked, and in it one line of JSON: who leads, in which term ([`LeaderRecord`]) |
//! | `members/<id>` | one file per member, held locked while the member lives |
//! | `states/<lock>.json` | how far the routes under a lock have come, for the next leader |
//! | `states/.<lock>.lock` | held locked while that is read or written |
//! | `<lock>.handover` | an operator asks the leader to give the lock up |
//! | `<id>.drain` | an operator asks a member to hold no lock, as long as it is there |
//! | `terms` | the highest number that was handed out for terms |
//! | `.terms-lock` | held locked while `terms` is changed |
//! | `.new.<random>` | the next `terms` or a request, before it is in its place |
//!
//! `<lock>` and `<id>` are escaped so that different names are different files, also on file systems
//! that ignore case.
//!
//! Architecture invariant: this crate knows files. What a term is, who may work under it and when a
//! lock may be given back is decided in `router_core::cluster`.

mod arbiter;
mod backend;
mod cluster;
mod escape;
mod file_system;
mod footing;
mod history;
mod inotify;
mod kernel_locks;
mod lock_file;
mod lock_table;
mod members;
mod obstacles;
mod operator;
mod prepared;
mod record;
mod reminder;
mod requests;
mod root;
mod roster;
mod seat;
mod settings;
mod states;
mod survey;
mod surveyor;
mod terms;
mod timing;
mod watch;

pub use backend::FileBackend;
pub use cluster::FileCluster;
pub use file_system::check as check_file_system;
pub use members::members;
pub use operator::FileOperator;
pub use record::LeaderRecord;
pub use requests::drained;
pub use settings::FileClusterSettings;
pub use survey::{Survey, Unled, Unreadable, leaders, locks, survey};
#[doc(hidden)]
pub use timing::Timing;

use router_core::cluster::ClusterError;

/// An error of the operating system, and the sentence that says what was tried and what to do.
fn unusable(text: String, error: std::io::Error) -> ClusterError {
    ClusterError::Unusable(text, Some(error.into()))
}
