//! What the process wants of the election. It outlives the loop that carries it out.

use std::collections::HashMap;
use std::time::Duration;

use router_core::cluster::backend::LeadershipPublisher;
use router_core::cluster::{LockName, Member};
use tokio::sync::oneshot;

use crate::rendezvous::Candidate;

#[derive(Default)]
pub(crate) struct DesiredState {
    pub(crate) participations: HashMap<LockName, Participation>,
    pub(crate) candidates: Vec<Candidate>,
    /// Members that somebody else than the store knows of.
    pub(crate) others: Vec<Member>,
    /// The program wants it drained.
    pub(crate) draining: bool,
    /// An operator does.
    pub(crate) drained_by_operator: bool,
    pub(crate) closing: bool,
    /// Until when, by the leader's clock, whoever waits is at least given the chance that the store
    /// answers.
    pub(crate) patience: Duration,
    /// Who waits until nothing is held.
    pub(crate) waiting: Vec<oneshot::Sender<()>>,
}

pub(crate) struct Participation {
    pub(crate) generation: u64,
    pub(crate) publisher: LeadershipPublisher,
}

impl DesiredState {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining || self.drained_by_operator || self.closing
    }

    pub(crate) fn publisher(&self, lock: &LockName) -> Option<&LeadershipPublisher> {
        self.participations.get(lock).map(|participation| &participation.publisher)
    }
}
