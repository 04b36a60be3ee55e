//! [`CallContext`]: what an exchange has only as long as it is in the hands of those who call each other with it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::{Exchange, ExchangeId};

/// The part of an exchange that belongs to the present calls. A clone and a fork have none of it.
#[derive(Default)]
pub(super) struct CallContext {
    /// How many routes the exchange is in, one calling the other.
    depth: u16,
    /// Whether the step that made this exchange has given it up.
    given_up: Option<Arc<GivenUp>>,
    /// What was lent. Held by the lender: when it lets go, there is nothing here any more.
    lent: Vec<Weak<dyn Any + Send + Sync>>,
}

/// Set when a step gives up its forks, as after a timeout: that they are dropped then is no loss to be told of.
#[derive(Default)]
pub(crate) struct GivenUp {
    is_set: AtomicBool,
    /// That of the exchange which was forked.
    outer: Option<Arc<Self>>,
}

impl GivenUp {
    /// For the forks of an exchange.
    pub(crate) fn within(outer: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { is_set: AtomicBool::new(false), outer })
    }

    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) || self.outer.as_ref().is_some_and(|outer| outer.is_set())
    }
}

impl Clone for CallContext {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CallContext").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Lends something to the steps that this very exchange passes, also in routes that it is passed to by
    /// `direct:`, for as long as the caller keeps the `Arc`: a transaction, for example. No clone and no fork has
    /// it, because they may outlive it.
    pub fn lend<T: Any + Send + Sync>(&mut self, resource: &Arc<T>) {
        let resource: Arc<dyn Any + Send + Sync> = Arc::clone(resource) as _;
        self.call.lent.push(Arc::downgrade(&resource));
    }

    /// What was lent to the steps of this exchange, of this type, and was not taken back.
    pub fn lent<T: Any + Send + Sync>(&self) -> impl Iterator<Item = Arc<T>> {
        self.call.lent.iter().filter_map(Weak::upgrade).filter_map(|resource| resource.downcast().ok())
    }

    /// By this it is known that no other exchange was put in the place of this one: it would run under no term of this
    /// one, and could call routes in a circle for ever.
    pub(crate) fn identity(&self) -> (ExchangeId, u16) {
        (self.id, self.call.depth)
    }

    /// How many routes this exchange is in, one calling the other.
    pub(crate) fn depth(&self) -> u16 {
        self.call.depth
    }

    /// A fork that this exchange waits for: it counts as a call of a route, so that a circle through forks ends too,
    /// before it has used the stack.
    pub(crate) fn fork_inside(&self) -> Self {
        let mut fork = self.fork();
        fork.call.depth = self.call.depth + 1;
        fork.call.given_up.clone_from(&self.call.given_up);
        fork
    }

    /// Has this exchange be no loss when it is dropped after it was given up.
    pub(crate) fn may_be_given_up(&mut self, given_up: &Arc<GivenUp>) {
        self.call.given_up = Some(Arc::clone(given_up));
    }

    /// Whether it, or an exchange that it was forked from, is given up.
    pub(crate) fn given_up(&self) -> Option<Arc<GivenUp>> {
        self.call.given_up.clone()
    }

    /// Counts a call, until the returned value is dropped: also when the call is.
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        let outside = self.call.depth;
        self.call.depth += 1;
        Entered { exchange: self, outside }
    }
}

/// An exchange in one more route.
pub(crate) struct Entered<'a> {
    pub(crate) exchange: &'a mut Exchange,
    outside: u16,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // Another exchange that was put in the place of this one stays known as that.
        if self.exchange.call.depth == self.outside + 1 {
            self.exchange.call.depth = self.outside;
        }
    }
}
