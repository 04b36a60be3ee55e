//! `mock:name`: keeps the exchanges it gets, for tests.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `expected_count` | integer |  | how many exchanges are expected |
//! | `result_wait_time` | duration | `10s` | how long an assertion waits for them |
//!
//! ```
//! # use components::MockComponent;
//! # use router_core::{builder::{from, Steps}, router::RouterBuilder};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let mock = MockComponent::default();
//! let result = mock.endpoint("result");
//! result.expect_bodies(["tick 1", "tick 2"]);
//! let router = RouterBuilder::new()
//!     .component(components::TimerComponent)
//!     .component(mock)
//!     .route(
//!         from("timer:t?delay=0&period=1ms&repeat_count=2")
//!             .set_body("tick ${header.timer.counter}")
//!             .to("mock:result"),
//!     )
//!     .build()
//!     .unwrap();
//! let _ = router.run_until(result.assert_satisfied()).await;
//! # });
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Endpoint, Processor};
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::options::{ComponentDescription, OptionKind, PathKind, option, path};
use router_core::uri::EndpointUri;
use smol_str::SmolStr;
use tokio::sync::watch;

/// The component. Clones share their endpoints: keep one to look at what arrived.
#[derive(Clone, Default, Debug)]
pub struct MockComponent {
    endpoints: Arc<Mutex<HashMap<SmolStr, Arc<MockEndpoint>>>>,
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "mock",
    summary: "keeps the exchanges it gets, for tests",
    syntax: "mock:name",
    path: path("name", PathKind::Name),
    consumes: false,
    produces: true,
    options: &[
        option("expected_count", OptionKind::Integer, None, "how many exchanges are expected"),
        option("result_wait_time", OptionKind::Duration, Some("10s"), "how long an assertion waits for them"),
    ],
};

impl MockComponent {
    /// The endpoint of that name, the same one as in `mock:name`.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Arc<MockEndpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(endpoints.entry(name.into()).or_insert_with(|| Arc::new(MockEndpoint::new(name))))
    }
}

impl Component for MockComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a mock needs a name: `mock:result`"));
        errors.into_result()?;
        let name = name.unwrap_or_default();
        let endpoint = Self::endpoint(self, &name);
        let (count, wait) = (options.integer("expected_count"), options.duration("result_wait_time"));
        let of_route = Arc::clone(&endpoint);
        context.when_taken(move || {
            if let Some(count) = count {
                of_route.expect_count(usize::try_from(count).unwrap_or(usize::MAX));
            }
            of_route.expectations().wait = wait;
        });
        Ok(Box::new(Mock(endpoint)))
    }
}

struct Mock(Arc<MockEndpoint>);

impl Endpoint for Mock {
    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(self.0.clone())
    }
}

/// What arrived at a mock, and what is expected to arrive.
pub struct MockEndpoint {
    name: SmolStr,
    received: watch::Sender<Vec<Exchange>>,
    expectations: Mutex<Expectations>,
}

impl fmt::Debug for MockEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockEndpoint").finish_non_exhaustive()
    }
}

struct Expectations {
    count: Option<usize>,
    bodies: Option<Vec<String>>,
    wait: Duration,
}

impl MockEndpoint {
    fn new(name: &str) -> Self {
        let expectations = Expectations { count: None, bodies: None, wait: Duration::from_secs(10) };
        Self {
            name: name.into(),
            received: watch::Sender::new(Vec::new()),
            expectations: expectations.into(),
        }
    }

    /// Expects this many exchanges.
    pub fn expect_count(&self, count: usize) {
        self.expectations().count = Some(count);
    }

    /// Expects exchanges with these bodies, in this order, and no others.
    pub fn expect_bodies(&self, bodies: impl IntoIterator<Item = impl Into<String>>) {
        self.expectations().bodies = Some(bodies.into_iter().map(Into::into).collect());
    }

    /// Copies of the exchanges that have arrived so far.
    #[must_use]
    pub fn received(&self) -> Vec<Exchange> {
        self.received.borrow().clone()
    }

    /// Waits until at least `count` exchanges have arrived.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn wait_for(&self, count: usize) {
        // The sender lives in this endpoint: the wait cannot fail.
        let _ = self.received.subscribe().wait_for(|received| received.len() >= count).await;
    }

    /// Waits until what is expected has arrived.
    ///
    /// # Panics
    /// When it has not arrived in time, or something else has.
    pub async fn assert_satisfied(&self) {
        let wait = self.expectations().wait;
        let mut received = self.received.subscribe();
        let satisfied = received.wait_for(|received| self.missing(received).is_none());
        let in_time = tokio::time::timeout(wait, satisfied).await.is_ok();
        if !in_time && let Some(missing) = self.missing(&self.received()) {
            panic!("mock:{} is not satisfied after {wait:?}: {missing}", self.name);
        }
    }

    /// What is not as expected.
    fn missing(&self, received: &[Exchange]) -> Option<String> {
        let expectations = self.expectations();
        if let Some(count) = expectations.count.filter(|count| *count != received.len()) {
            return Some(format!("expected {count} exchanges, got {}", received.len()));
        }
        let expected = expectations.bodies.as_ref()?;
        let bodies = received.iter().map(|exchange| exchange.message.body.to_string()).collect::<Vec<_>>();
        (*expected != bodies).then(|| format!("expected bodies {expected:?}, got {bodies:?}"))
    }

    fn expectations(&self) -> std::sync::MutexGuard<'_, Expectations> {
        self.expectations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Processor for MockEndpoint {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        self.received.send_modify(|received| received.push(exchange.clone()));
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}
