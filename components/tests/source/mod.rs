//! [`source`]: a component for a test, whose endpoints have the consumers that the test makes.

use std::sync::Arc;

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, Hold};
use router_core::error::ConfigErrors;
use router_core::options::{ComponentDescription, PathKind, path};
use router_core::uri::EndpointUri;

type MakeConsumer = dyn Fn(&str) -> Box<dyn Consumer> + Send + Sync;

struct Source {
    description: &'static ComponentDescription,
    consumer: Arc<MakeConsumer>,
}

/// The endpoint at a path.
struct At {
    path: String,
    consumer: Arc<MakeConsumer>,
}

/// A component with this scheme. Its endpoints are consumed by what `consumer` makes of their path.
pub(crate) fn source<C: Consumer + 'static>(
    scheme: &'static str,
    consumer: impl Fn(&str) -> C + Send + Sync + 'static,
) -> impl Component + 'static {
    let description = ComponentDescription {
        scheme,
        summary: "",
        syntax: "",
        path: path("", PathKind::Name),
        consumes: true,
        produces: false,
        options: &[],
    };
    let consumer = Arc::new(move |path: &str| Box::new(consumer(path)) as Box<dyn Consumer>);
    // One for each test, and for the life of its process.
    Source { description: Box::leak(Box::new(description)), consumer }
}

impl Component for Source {
    fn description(&self) -> &'static ComponentDescription {
        self.description
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        Ok(Box::new(At { path: uri.path().into(), consumer: Arc::clone(&self.consumer) }))
    }
}

#[async_trait]
impl Endpoint for At {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some((self.consumer)(&self.path))
    }

    /// At `unheld` it hangs, as that of a cluster can.
    async fn hold(&self) -> Option<Hold> {
        if self.path == "unheld" { std::future::pending().await } else { None }
    }
}
