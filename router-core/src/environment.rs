//! [`Environment`]: what all routes of a router are compiled with.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use smol_str::SmolStr;

use crate::cluster::ClusterService;
use crate::component::{BuildContext, Findings, Registry};
use crate::error::Severity;
use crate::flight::Dropped;
use crate::options::Side;
use crate::spool::Spool;

/// What all routes of a router are compiled with.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) registry: Arc<Registry>,
    pub(crate) cluster: Option<Arc<dyn ClusterService>>,
    pub(crate) node: SmolStr,
    pub(crate) dropped: Dropped,
    /// What it is when a secret, or the directory of a position, is not there.
    pub(crate) missing_secrets: Severity,
    /// Where large bodies are kept.
    pub(crate) spool: Spool,
    /// What the routes consume that others call, at present.
    pub(crate) consumed: Arc<RwLock<HashSet<SmolStr>>>,
}

impl Environment {
    /// Whether a route of this process consumes `address`.
    pub(crate) fn is_consumed(&self, address: &str) -> bool {
        self.consumed.read().unwrap_or_else(PoisonError::into_inner).contains(address)
    }

    pub(crate) fn context<'a>(&'a self, findings: &'a RefCell<Findings>) -> BuildContext<'a> {
        BuildContext {
            registry: &self.registry,
            cluster: self.cluster.as_ref(),
            side: Side::Both,
            below_lock: false,
            missing_secrets: self.missing_secrets,
            spool: &self.spool,
            findings,
        }
    }
}
