//! A router with the components of the tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use components::{DirectComponent, MasterComponent, MockComponent, SedaComponent, TimerComponent};
use router_core::cluster::{ClusterService, MemoryCluster};
use router_core::component::{Consumer, RouteHandle};
use router_core::definition::RouteDefinition;
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::router::{Changes, Router, RouterBuilder, RouterError};

use crate::source::source;

pub(crate) struct Setup {
    pub(crate) router: Router,
    pub(crate) mock: MockComponent,
    pub(crate) cluster: Arc<MemoryCluster>,
}

pub(crate) fn setup<R: Into<RouteDefinition>>(routes: impl IntoIterator<Item = R>) -> Setup {
    let (mock, cluster) = (MockComponent::default(), MemoryCluster::new("a"));
    let router = RouterBuilder::new()
        .component(TimerComponent)
        .component(DirectComponent::default())
        .component(SedaComponent::default())
        .component(MasterComponent::default())
        .component(mock.clone())
        .component(source("case", Case::of_name))
        .cluster(Arc::clone(&cluster) as Arc<dyn ClusterService>)
        .ready_timeout(Duration::from_secs(10))
        .routes(routes)
        .build()
        .unwrap();
    Setup { router, mock, cluster }
}

impl Setup {
    /// Runs the router in the background.
    pub(crate) fn start(self) -> Self {
        let router = self.router.clone();
        tokio::spawn(async move { router.run_until(std::future::pending()).await });
        self
    }

    pub(crate) async fn apply<R: Into<RouteDefinition>>(
        &self,
        routes: impl IntoIterator<Item = R>,
    ) -> Result<Changes, RouterError> {
        self.router.apply(routes).await
    }

    /// The bodies that have arrived at `mock:NAME`.
    pub(crate) fn bodies(&self, name: &str) -> Vec<String> {
        let received = self.mock.endpoint(name).received();
        received.iter().map(|exchange| exchange.message.body.to_string()).collect()
    }

    pub(crate) async fn send(&self, uri: &str, body: &str) -> Result<(), String> {
        let producer = self.router.producer(uri).unwrap();
        producer.process(&mut Exchange::new(body)).await.map_err(|error| error.to_string())
    }
}

/// `case:NAME`: a consumer that never is ready, whose place cannot be held, that ends before it is, or that counts its runs in its state.
struct Case(&'static str);

impl Case {
    fn of_name(name: &str) -> Self {
        let names = ["ready", "unheld", "never", "ends", "fails", "counts"];
        Self(names.into_iter().find(|known| *known == name).unwrap())
    }
}

#[async_trait]
impl Consumer for Case {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        match self.0 {
            "ready" | "unheld" => route.ready(),
            "ends" => return Ok(()),
            "fails" => return Err("the port is taken".into()),
            "counts" => {
                let state = route.pipeline.state(None);
                let runs = state.load().await?.and_then(|runs| runs.as_u64()).unwrap_or_default() + 1;
                state.store(&runs.into()).await?;
                route.ready();
                route.pipeline.process(&mut Exchange::new(runs.to_string())).await?;
            }
            _ => {}
        }
        route.stop.requested().await;
        Ok(())
    }
}
