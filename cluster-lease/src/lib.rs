//! Leader election over any store that can read consistently, compare and swap, and watch in order.
//!
//! The heart is [`Core`], a pure state machine: it is told what happened and what time it is, and answers
//! with what to do. It does no I/O, owns no clock, spawns nothing and draws no random number, so the code
//! that runs in production is the code that the simulator and the model checker run.
//!
//! In words: a process that holds or wants to take something keeps one *session* record alive by a
//! heartbeat. Each lock has one small record that names the session of its holder. A leader may work until
//! its deadline, which it counts from the *sending* of the newest heartbeat whose effect it has *seen* on
//! the ordered watch. A standby first declares a silent session dead, which no heartbeat survives, and only
//! then takes its locks.
//!
//! # Guarantees
//!
//! No two members run guarded work of one lock at the same time, and the terms of a lock rise with every
//! term, even when records are deleted.
//!
//! # Assumptions
//!
//! The store is linearizable per record and its versions order all changes of a group; clock rates err by
//! less than [`Settings::rate_error_ppm`], offsets do not matter; guarded work ends within
//! [`Settings::stop`] after its deadline or is killed; nobody else writes a record with its seal; the store's
//! history is not rolled back, and when it is, members notice, wait and go on. A step that is already past its check when its process is suspended may
//! still finish: only a sink that compares terms closes that gap.
//!
//! `PROOF.md` beside this crate says how far these words were put to the test.

#[macro_use]
mod mutant;

mod action;
mod clocks;
mod context;
mod core;
mod driver;
mod event;
mod hold;
mod lock;
mod memory;
mod operator;
mod outlook;
mod record;
mod release;
mod rendezvous;
mod request;
mod session;
mod settings;
mod store;
mod takeover;
mod tenure;
mod view;

/// What `driver/deadline.rs` is made of. `tests/loom.rs` includes that file with those of loom instead.
mod sync {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use action::{Action, Actions, FenceCause, Operation, RequestId, SessionLoss, Target, WaitCause};
pub use clocks::Clocks;
pub use core::{Core, Guard, Identity, IdentityError};
pub use driver::{
    Clock, LeaseCluster, LeaseClusterError, LeaseClusterSettings, METRICS, SystemClock, Timing, TimingError,
    TokioClock, Transition, TransitionKind,
};
pub use event::{Event, Outcome};
pub use memory::{Backup, Faults, Link, MemoryHandle, MemoryStore, Requests, Span};
#[cfg(feature = "mutants")]
pub use mutant::{Branch, Mutant};
pub use operator::LeaseOperator;
pub use outlook::Outlook;
pub use record::{
    Death, Entry, Key, Limits, LockId, LockRecord, Precondition, Record, SessionId, SessionRecord, Version,
};
pub use rendezvous::{Candidate, name_hash};
pub use request::Request;
pub use settings::{LONGEST_WAIT, Settings, SettingsError};
pub use store::{
    Attempt, Change, LeaseStore, LeaseWatch, Listing, LockEntry, StoreEntry, StoreError, StoreKey,
    StoreRecord, Write,
};
pub use tenure::Tenure;
