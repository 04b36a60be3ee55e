//! What the election's loop is told by the rest of the process.

use std::time::Duration;

use router_core::cluster::backend::LeadershipPublisher;
use router_core::cluster::{LockName, Member};
use tokio::sync::oneshot;

use crate::record::{Death, LockRecord, SessionId};
use crate::rendezvous::Candidate;

pub(crate) enum Command {
    /// Somebody wants to lead a lock. The generation tells this participation from an earlier one of
    /// the same lock, whose end may be reported later than the beginning of this one.
    View {
        lock: LockName,
        generation: u64,
        publisher: LeadershipPublisher,
    },
    /// A participation has ended.
    Unview {
        lock: LockName,
        generation: u64,
    },
    Resign {
        lock: LockName,
        stay_out: Duration,
    },
    /// Give up all locks and take none; answered when that is done.
    Drain {
        done: oneshot::Sender<()>,
    },
    Undrain,
    /// Drain, then end.
    Close {
        done: Option<oneshot::Sender<()>>,
    },
    Candidates(Vec<Candidate>),
    /// Members that somebody else than the store knows of.
    Others(Vec<Member>),
    Evidence {
        session: SessionId,
        death: Death,
    },
    /// Whether a record that was just read names the present hold.
    Confirm {
        lock: LockName,
        term: u64,
        record: Option<LockRecord>,
        reply: oneshot::Sender<bool>,
    },
    /// Whether the loop still takes its turns.
    Ping {
        reply: oneshot::Sender<()>,
    },
    /// The sentinel has ended a term at its deadline.
    Lapsed {
        lock: LockName,
        term: u64,
    },
}
