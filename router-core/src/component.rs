//! The service-provider interface of components: all of it on this screen.
//!
//! A [`Component`] turns URIs into [`Endpoint`]s. An endpoint makes [`Consumer`]s (for `from`) and
//! [`Processor`]s (for `to`), as often as asked. See the `timer` component for a complete one.

mod registry;
mod uses;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use smol_str::SmolStr;

use crate::cluster::ClusterService;
pub use crate::directory::Taken;
use crate::error::{BoxError, ConfigError, ConfigErrors, Severity};
use crate::options::{ComponentDescription, Side};
use crate::panic::contain_panic;
use crate::pipeline::Pipeline;
use crate::readiness::Readiness;
use crate::spool::Spool;
use crate::stop::Stop;
use crate::uri::EndpointUri;

pub use crate::flight::Waiting;
pub use crate::processor::Processor;
pub use registry::Registry;
pub(crate) use uses::check as check_uses;

/// A kind of endpoint, found by the scheme of its URIs.
pub trait Component: Send + Sync {
    /// Its scheme, its options and what it is for.
    fn description(&self) -> &'static ComponentDescription;

    /// The endpoint at `uri`. All checking of the URI happens here, before anything runs; nothing is
    /// connected yet.
    ///
    /// # Errors
    /// Every error in the URI.
    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors>;
}

/// What a URI stands for: a factory that can be asked any number of times.
#[async_trait]
pub trait Endpoint: Send + Sync {
    /// A new source of exchanges, or `None` when this endpoint cannot be used in `from`.
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        None
    }

    /// A new sink of exchanges, or `None` when this endpoint cannot be used in `to`.
    fn processor(&self) -> Option<Arc<dyn Processor>> {
        None
    }

    /// The name under which consumers and producers of this process find each other, if they do that
    /// (`direct:a`). A `to` that no route consumes is a configuration error. Routes that consume such
    /// a name start before the others and stop after them, because the others call them.
    fn local_address(&self) -> Option<&str> {
        None
    }

    /// Whether what is sent to the local address has passed the route that consumes it when `process` returns, as with
    /// `direct:`. Routes that call each other so without a condition would never end, which is a configuration error.
    /// `under_term` tells whether the exchanges of the caller have a term.
    fn is_synchronous(&self, under_term: bool) -> bool {
        let _ = under_term;
        false
    }

    /// What all endpoints with this local address must agree on, where this one says it: an option, and its value. A
    /// disagreement is a configuration error.
    fn shared_option(&self) -> Option<(&'static str, SmolStr)> {
        None
    }

    /// Whether its consumer leaves a position that outlives the process: in a file, or with the lock where it consumes
    /// `below_lock`. The position is kept by the id of the route, so such a route needs one.
    fn keeps_state(&self, below_lock: bool) -> bool {
        let _ = below_lock;
        false
    }

    /// What its consumer takes from the file system, if others that consume the same would get only a part of it: two
    /// routes that do, and of which one does not say which part is for it, are a configuration error.
    fn takes(&self) -> Option<Taken> {
        None
    }

    /// Keeps the place of its consumer while one version of a route takes over from another: until the returned value is
    /// dropped, those who call it wait instead of failing, and a lock stays with this member.
    ///
    /// # Cancellation
    /// Safe.
    async fn hold(&self) -> Option<Hold> {
        None
    }

    /// Whether each exchange of its consumer has a term, as with `master:`.
    fn has_term(&self) -> bool {
        false
    }

    /// Takes what waits here for the consumer of this endpoint, in a queue of this process. To be called when there will
    /// be no consumer any more: each of these exchanges is dropped, and the router tells of it. By default none waits.
    fn abandon(&self) -> Vec<Waiting> {
        Vec::new()
    }
}

/// What keeps a place as long as it exists; see [`Endpoint::hold`].
pub type Hold = Box<dyn Any + Send>;

/// A source of exchanges.
///
/// The future is the lifetime: the consumer starts when `run` is first polled, and has stopped when it
/// returns or is dropped.
#[async_trait]
pub trait Consumer: Send {
    /// Says [`ready`](RouteHandle::ready) when it has started, sends exchanges into the pipeline until the stop is
    /// requested, and returns only after the exchange in hand is finished. Awaiting the pipeline is the back-pressure,
    /// its result the acknowledgement. May return early when there will be no more exchanges.
    ///
    /// # Errors
    /// When it cannot go on. The router then makes a new consumer, after a pause.
    ///
    /// # Cancellation
    /// The future is dropped when draining took too long. Tasks that it has spawned must end with it:
    /// keep them in a `JoinSet` of its own, each
    /// [tracked](Pipeline::track).
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError>;
}

/// What a consumer has of its route.
#[derive(Debug)]
pub struct RouteHandle {
    /// Where it sends exchanges.
    pub pipeline: Pipeline,
    /// The request to stop.
    pub stop: Stop,
    readiness: Readiness,
    /// Why the consumer before this one failed. It stands until this one is ready.
    earlier: Option<Box<str>>,
}

impl RouteHandle {
    /// A handle for a consumer that another one runs: it is ready, or not, for itself.
    #[must_use]
    pub fn new(pipeline: Pipeline, stop: Stop) -> Self {
        Self::with_readiness(pipeline, stop, Readiness::default())
    }

    pub(crate) fn with_readiness(pipeline: Pipeline, stop: Stop, readiness: Readiness) -> Self {
        let earlier = pipeline.note().map(Into::into);
        Self { pipeline, stop, readiness, earlier }
    }

    /// A handle for the consumer that does the work of this one, as that of `master:` while the member leads. It stops when
    /// this one is asked to. Once this one is [ready](Self::ready), its route is ready for probes; for
    /// [`Router::apply`] it is when the delegate is too, or [has ended](Self::end_delegate).
    ///
    /// [`Router::apply`]: crate::router::Router::apply
    #[must_use]
    pub fn delegate(&self, pipeline: Pipeline) -> Self {
        Self::with_readiness(pipeline, self.stop.child(), self.readiness.of_delegate())
    }

    /// Says that there is no [delegate](Self::delegate) now, and that this is as it should be.
    pub fn end_delegate(&self) {
        self.readiness.end_delegate();
    }

    /// Says that the consumer has started: what had to go well for that has gone well. A server has bound its port; a
    /// poller knows where to go on, and has reached what it cannot work without. Every consumer must say it, once is
    /// enough. Until then its route counts as not ready, for probes and for [`Router::apply`].
    ///
    /// It also tells two kinds of failures apart: the pauses before restarts grow as long as consumers fail before they
    /// were ready, and below `master:` the member resigns after so many of them.
    ///
    /// [`Router::apply`]: crate::router::Router::apply
    pub fn ready(&self) {
        if let Some(earlier) = self.earlier.as_deref().filter(|_| !self.readiness.is_ready()) {
            self.pipeline.clear_status_message_if(earlier);
        }
        self.readiness.set();
    }

    /// What the consumer says by [`ready`](Self::ready), for who runs it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }
}

/// Runs a consumer as [`Consumer::run`] does, and turns a panic of it into an error.
///
/// # Errors
/// As [`Consumer::run`], and when it panics.
///
/// # Cancellation
/// As [`Consumer::run`].
pub async fn run_contained(consumer: Box<dyn Consumer>, route: RouteHandle) -> Result<(), BoxError> {
    contain_panic(consumer.run(route)).await
}

/// What a component may use to build an endpoint.
#[derive(Clone, Copy)]
pub struct BuildContext<'a> {
    /// All components, for endpoints that wrap others.
    pub registry: &'a Registry,
    /// The cluster service of the router, if it has one.
    pub cluster: Option<&'a Arc<dyn ClusterService>>,
    /// Where bodies are kept that are too large for the memory.
    pub spool: &'a Spool,
    /// Whether the endpoint is to be consumed or sent to.
    pub side: Side,
    /// Whether a lock carries the position of the endpoint: it is the delegate of `master:`.
    pub(crate) below_lock: bool,
    /// What a secret is that is not there.
    pub(crate) missing_secrets: Severity,
    pub(crate) findings: &'a RefCell<Findings>,
}

/// What endpoints leave behind while they are built.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) warnings: ConfigErrors,
    /// What they do beyond themselves, when they are taken.
    pub(crate) effects: Vec<Effect>,
}

/// See [`BuildContext::when_taken`].
pub(crate) type Effect = Box<dyn FnOnce() + Send + Sync>;

impl Findings {
    /// Ends the building of what is taken.
    pub(crate) fn take(self) {
        self.warnings.log_warnings();
        self.run_effects();
    }

    /// The same where what there is to warn of was said before.
    pub(crate) fn run_effects(self) {
        self.effects.into_iter().for_each(|effect| effect());
    }
}

impl fmt::Debug for BuildContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildContext").finish_non_exhaustive()
    }
}

/// An endpoint, and what exchanges are sent to.
pub type Sink = (Box<dyn Endpoint>, Arc<dyn Processor>);

impl BuildContext<'_> {
    /// The context of an endpoint that runs under a lock, which carries its position.
    #[must_use]
    pub fn below_lock(self) -> Self {
        Self { below_lock: true, ..self }
    }

    /// Says something that keeps nothing from running.
    pub fn warn(&self, warning: ConfigError) {
        self.findings.borrow_mut().warnings.push(warning.severity(Severity::Warning));
    }

    /// Does something that is seen elsewhere than at the endpoint, once its route is one of the router. Building an
    /// endpoint must do nothing of that kind: with an error in any other route, it is dropped, and nothing has changed.
    pub fn when_taken(&self, effect: impl FnOnce() + Send + Sync + 'static) {
        self.findings.borrow_mut().effects.push(Box::new(effect));
    }

    /// The endpoint at `uri`, of whichever component has its scheme.
    fn endpoint(&self, uri: &EndpointUri, side: Side) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let component = self.registry.component(uri)?;
        let description = component.description();
        let uri = uri.with_path_beside(description.path.key)?;
        let mut errors = check_uses(description, &uri, side, self);
        let endpoint = errors.collect(component.endpoint(&uri, &BuildContext { side, ..*self }));
        // Components that take the path as it is written, such as `http:`, do not decode it.
        if endpoint.is_some() {
            errors.collect(uri.decoded_path().map(drop));
        }
        let warnings = errors.into_warnings()?;
        self.findings.borrow_mut().warnings.extend(warnings);
        Ok(endpoint.unwrap_or_else(|| unreachable!("what is missing is an error")))
    }

    /// The endpoint at `uri`, which can be consumed.
    ///
    /// # Errors
    /// Every error in the URI; an endpoint that cannot be used in `from`.
    pub fn source(&self, uri: &EndpointUri) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let endpoint = self.endpoint(uri, Side::From)?;
        match endpoint.consumer() {
            Some(_) => Ok(endpoint),
            None => Err(unusable(uri, "from")),
        }
    }

    /// The endpoint at `uri`, and what exchanges are sent to.
    ///
    /// # Errors
    /// Every error in the URI; an endpoint that cannot be used in `to`.
    pub fn sink(&self, uri: &EndpointUri) -> Result<Sink, ConfigErrors> {
        let endpoint = self.endpoint(uri, Side::To)?;
        match endpoint.processor() {
            Some(processor) => Ok((endpoint, processor)),
            None => Err(unusable(uri, "to")),
        }
    }
}

fn unusable(uri: &EndpointUri, place: &str) -> ConfigErrors {
    uri.error_in_scheme(format!("component `{}` cannot be used in `{place}`", uri.scheme())).into()
}
