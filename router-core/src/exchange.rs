//! [`Exchange`]: what travels through a route.

mod call;

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

pub use crate::body::{Body, BodyKind, Region};
use crate::cluster::{LeadershipLost, Term};
use crate::outcome::Exception;
use crate::value::ValueMap;
use call::CallContext;
pub(crate) use call::GivenUp;

/// One message on its way through a route, with what the route notes about it.
///
/// The pipeline owns it while it travels; steps see `&mut Exchange`. Fields are public where every
/// value is valid.
///
/// What becomes another exchange is made by [`fork`](Self::fork). A clone is the same exchange once more, for those
/// who keep it or look at it. What is moved stays what it is.
///
/// | | fork | clone | moved |
/// |---|---|---|---|
/// | `id` | a new one; `parent_id` is that of the original | the same | the same |
/// | `message`, `properties` | shared; of a file that was read, the file alone | shared | the same |
/// | every term | kept | kept | kept |
/// | the [error](Self::exception) that is handled | kept | kept | until it is handled |
/// | what was [lent](Self::lend), a transaction for example | no | no | until the lender takes it back |
/// | how deep in calls of routes it is | not at all | not at all | as before |
///
/// A processor changes the exchange that it is given. One that puts another in its place, also a clone, ends it with an
/// error that nothing handles: it would have lost its terms.
///
/// No copy counts as work under a term, and none is waited for at a shutdown: that is for those who run it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Which exchange this is, unique among all replicas.
    pub id: ExchangeId,
    /// The exchange that this one was made from.
    pub parent_id: Option<ExchangeId>,
    /// Headers and body.
    pub message: Message,
    /// Notes of the route about this exchange; they never leave the process.
    pub properties: ValueMap,
    /// Under whose authority this exchange runs: set by `master:` routes, asked before each side
    /// effect. `None` outside of them.
    pub term: Option<Term>,
    /// The terms of `master:` routes that called the one which set `term`, outermost first.
    pub(crate) outer_terms: Vec<Term>,
    /// The error that is being handled.
    exception: Option<Arc<Exception>>,
    call: CallContext,
}

impl Exchange {
    /// An exchange with the given body, no headers and no term.
    #[must_use]
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            id: ExchangeId::next(),
            parent_id: None,
            message: Message { headers: ValueMap::default(), body: body.into() },
            properties: ValueMap::default(),
            term: None,
            outer_terms: Vec::new(),
            exception: None,
            call: CallContext::default(),
        }
    }

    /// The error that is being handled: for the dead letter endpoint, and for what it makes of this exchange.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        self.exception.as_deref()
    }

    /// Sets the error that is being handled until the returned value is dropped.
    pub(crate) fn handle(&mut self, exception: Exception) -> Handled<'_> {
        let before = self.exception.replace(Arc::new(exception));
        Handled { exchange: self, before }
    }

    /// Another exchange, made from this one: with an id of its own, the same message and properties, and under every
    /// term of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut fork = Self { id: ExchangeId::next(), parent_id: Some(self.id), ..self.clone() };
        fork.message.body = self.message.body.fork();
        fork
    }

    /// Every term under which this exchange runs. A side effect needs all of them.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &Term> {
        self.outer_terms.iter().chain(&self.term)
    }

    /// The same, for one that outlives the use of the exchange. It allocates only where there are several.
    pub(crate) fn kept_terms(&self) -> Terms {
        Terms { outer: self.outer_terms.clone(), own: self.term.clone() }
    }

    /// Whether each of them is valid.
    pub(crate) fn check_terms(&self) -> Result<(), LeadershipLost> {
        self.terms().try_for_each(Term::check)
    }

    /// Waits, but not beyond the end of a term: there is nothing to wait for then.
    pub(crate) async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = any_expired(self.terms()) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Sets the term until the returned value is dropped.
    pub(crate) fn stamp(&mut self, term: Term) -> Stamped<'_> {
        let before = self.term.replace(term);
        let nested = before.is_some();
        self.outer_terms.extend(before);
        Stamped { exchange: self, nested }
    }
}

/// The terms of an exchange.
pub(crate) struct Terms {
    outer: Vec<Term>,
    own: Option<Term>,
}

impl Terms {
    /// Outermost first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Term> {
        self.outer.iter().chain(&self.own)
    }
}

/// An exchange with a term of its own. Dropping it gives the exchange back as it was.
pub(crate) struct Stamped<'a> {
    pub(crate) exchange: &'a mut Exchange,
    nested: bool,
}

impl Drop for Stamped<'_> {
    fn drop(&mut self) {
        self.exchange.term = if self.nested { self.exchange.outer_terms.pop() } else { None };
    }
}

/// An exchange whose error is being handled. Dropping it gives the exchange back as it was.
pub(crate) struct Handled<'a> {
    pub(crate) exchange: &'a mut Exchange,
    before: Option<Arc<Exception>>,
}

impl Drop for Handled<'_> {
    fn drop(&mut self) {
        self.exchange.exception = self.before.take();
    }
}

/// Completes when one of the terms has expired.
pub(crate) async fn any_expired(terms: impl Iterator<Item = &Term>) {
    let mut expired = terms.map(|term| Box::pin(term.expired())).collect::<Vec<_>>();
    poll_fn(|context| {
        let any = expired.iter_mut().any(|expired| expired.as_mut().poll(context).is_ready());
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Headers and body of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Named values beside the body; components read and write them.
    pub headers: ValueMap,
    /// The payload.
    pub body: Body,
}

/// A number that is unique in the process; its text adds a part drawn at random for each process, so
/// that replicas do not share ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(u64);

impl ExchangeId {
    /// The next unused id.
    #[must_use]
    pub fn next() -> Self {
        thread_local! {
            /// The unused rest of the block of numbers that this thread has drawn. One shared counter
            /// would make concurrent callers of a route wait for each other's cache line.
            static BLOCK: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
        }
        const BLOCK_SIZE: u64 = 1024;
        static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);

        BLOCK.with(|block| {
            let (mut next, mut end) = block.get();
            if next == end {
                next = NEXT_BLOCK.fetch_add(BLOCK_SIZE, Ordering::Relaxed);
                end = next + BLOCK_SIZE;
            }
            block.set((next + 1, end));
            Self(next)
        })
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        write!(formatter, "{:016x}-{:x}", *PROCESS, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Member;
    use crate::cluster::backend::TermControl;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn ids_of_all_threads_are_unique() {
        let draw = || (0..5_000).map(|_| ExchangeId::next()).collect::<Vec<_>>();
        let threads = [std::thread::spawn(draw), std::thread::spawn(draw)];
        let ids = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<HashSet<_>>();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn a_fork_is_another_exchange_and_a_clone_the_same_one_and_neither_is_lent_anything() {
        let mut exchange = Exchange::new("text");
        exchange.properties.set("a", 1);
        let transaction = Arc::new(7_u8);
        exchange.lend(&transaction);
        let entered = exchange.enter();
        let (fork, clone) = (entered.exchange.fork(), entered.exchange.clone());
        assert_eq!((fork.depth(), clone.depth(), entered.exchange.depth()), (0, 0, 1));
        drop(entered);
        assert_eq!((clone.id, clone.parent_id), (exchange.id, None));
        assert_ne!(fork.id, exchange.id);
        assert_eq!(fork.parent_id, Some(exchange.id));
        for copy in [&fork, &clone] {
            assert_eq!(copy.message.body, exchange.message.body);
            assert_eq!(copy.properties, exchange.properties);
            assert_eq!(copy.lent::<u8>().count(), 0);
        }
        let moved = std::mem::replace(&mut exchange, Exchange::new(()));
        assert_eq!(moved.lent::<u8>().map(|lent| *lent).collect::<Vec<_>>(), [7]);
        assert_eq!(moved.lent::<u16>().count(), 0);
        drop(transaction);
        assert_eq!(moved.lent::<u8>().count(), 0, "the lender has taken it back");
    }

    #[test]
    fn a_fork_and_a_clone_run_under_every_term() {
        let term = |lock: &str| {
            let lock = lock.parse().unwrap();
            TermControl::new(lock, 1, Member::new("a"), None).term().clone()
        };
        let mut exchange = Exchange::new(());
        let outer = exchange.stamp(term("outer"));
        let inner = outer.exchange.stamp(term("inner"));
        for copy in [inner.exchange.fork(), inner.exchange.clone()] {
            assert_eq!(copy.terms().map(|term| term.lock().as_str()).collect::<Vec<_>>(), ["outer", "inner"]);
        }
    }
}
