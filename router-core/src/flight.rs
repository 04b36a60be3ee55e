//! [`Flight`]: an exchange on its way through a route. One that is dropped there is told, and counted.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;
use smol_str::SmolStr;
use tracing::warn;

use crate::exchange::{ExchangeId, GivenUp, Terms};

/// How many exchanges were dropped on their way, by all routes of a router.
#[derive(Clone, Default)]
pub(crate) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Counts one.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// An exchange that waits for a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its id.
    pub exchange: ExchangeId,
    /// Since when.
    pub since: Instant,
}

/// How many exchanges of one queue have a line each; of more there is one line with their number.
const MOST_LINES: usize = 100;

/// Tells of the exchanges that wait for a route in `queue` when that ends, and counts them.
pub(crate) fn abandon(route: &SmolStr, queue: &str, waiting: &[Waiting], dropped: &Dropped) {
    dropped.0.fetch_add(waiting.len() as u64, Ordering::AcqRel);
    let (told, more) = waiting.split_at(waiting.len().min(MOST_LINES));
    for Waiting { exchange, since } in told {
        let waited = since.elapsed();
        warn!(
            %route,
            %exchange,
            queue,
            seconds = waited.as_secs_f64(),
            "route `{route}` dropped the exchange {exchange}, which had waited in `{queue}` for {waited:.1?}: the \
             route ends"
        );
    }
    if let Some(longest) = more.iter().map(|waiting| waiting.since.elapsed()).max() {
        let count = more.len();
        warn!(
            %route,
            queue,
            count,
            "route `{route}` dropped {count} more exchanges, which had waited in `{queue}` for up to {longest:.1?}: \
             the route ends"
        );
    }
}

thread_local! {
    /// The exchange that was told last, if no other work was done here since: where routes have called each other, all of
    /// them are dropped at once, and the innermost one tells of it.
    static TOLD: Cell<Option<ExchangeId>> = const { Cell::new(None) };
}

/// An exchange that is on its way through a route.
pub(crate) struct Flight<'a> {
    route: &'a SmolStr,
    exchange: ExchangeId,
    /// The terms that the exchange runs under.
    terms: Terms,
    dropped: &'a Dropped,
    /// Whether it is in a block of the step, whose own flight tells of it.
    inside: &'a AtomicBool,
    /// Whether a step has given it up, which is no loss.
    given_up: Option<Arc<GivenUp>>,
    /// The step that it is in.
    step: Option<&'a str>,
    /// Read when it first waits for something: an exchange that never does cannot be dropped, and need not pay for
    /// a look at the clock.
    since: Option<Instant>,
}

impl<'a> Flight<'a> {
    pub(crate) fn new(
        route: &'a SmolStr,
        dropped: &'a Dropped,
        exchange: ExchangeId,
        terms: Terms,
        inside: &'a AtomicBool,
    ) -> Self {
        Self { route, exchange, terms, dropped, inside, given_up: None, step: None, since: None }
    }

    /// A step that owns the exchange may set this, and drop it then.
    pub(crate) fn may_be_given_up(&mut self, given_up: Option<Arc<GivenUp>>) {
        self.given_up = given_up;
    }

    /// What it does in `step`.
    pub(crate) fn through<'f, F: Future>(&'f mut self, step: &'a str, work: F) -> Through<'f, 'a, F> {
        self.step = Some(step);
        Through { flight: self, work }
    }
}

pin_project! {
    /// A type of its own for the reason that `Contained` is one.
    pub(crate) struct Through<'f, 'a, F> {
        flight: &'f mut Flight<'a>,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Through<'_, '_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        TOLD.set(None);
        let poll = this.work.poll(context);
        match &poll {
            Poll::Ready(_) => this.flight.step = None,
            Poll::Pending if this.flight.since.is_none() => this.flight.since = Some(Instant::now()),
            Poll::Pending => {}
        }
        poll
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let (Some(step), Some(since)) = (self.step, self.since) else { return };
        let given_up = self.given_up.as_ref().is_some_and(|given_up| given_up.is_set());
        if given_up || self.inside.load(Ordering::Relaxed) || TOLD.get() == Some(self.exchange) {
            return;
        }
        TOLD.set(Some(self.exchange));
        self.dropped.note();
        let (route, exchange, ran) = (self.route, self.exchange, since.elapsed());
        let why = match self.terms.iter().find_map(|term| term.check().err()) {
            Some(lost) => lost.to_string(),
            None => "its time to stop was over, or its consumer ended".into(),
        };
        warn!(
            %route,
            %exchange,
            step,
            seconds = ran.as_secs_f64(),
            "route `{route}` dropped the exchange {exchange} in {step}, after {ran:.1?}: {why}"
        );
    }
}
