//! [`DynamicTarget`]: the endpoint of a `to_dynamic` step, whose URI each exchange decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use smol_str::{SmolStr, ToSmolStr};

use crate::cluster::ClusterService;
use crate::component::{BuildContext, Processor};
use crate::error::BoxError;
use crate::exchange::Exchange;
use crate::expression::{Expression, Scope};
use crate::registry::Registry;
use crate::source::SourceText;
use crate::uri::EndpointUri;

/// A URI expression, and the processors that were made for its values so far.
pub(crate) struct DynamicTarget {
    uri: Expression,
    registry: Arc<Registry>,
    cluster: Option<Arc<dyn ClusterService>>,
    processors: Mutex<HashMap<SmolStr, Arc<dyn Processor>>>,
}

impl DynamicTarget {
    /// How many processors are kept, as in Camel. When one more is needed, all are made anew: that is
    /// slow only for routes that never repeat a URI, which no cache would help.
    const CACHE_SIZE: usize = 1000;

    pub(crate) fn new(
        uri: Expression,
        registry: Arc<Registry>,
        cluster: Option<Arc<dyn ClusterService>>,
    ) -> Self {
        Self { uri, registry, cluster, processors: Mutex::default() }
    }

    /// The processor for this exchange.
    pub(crate) fn resolve(
        &self,
        exchange: &Exchange,
        scope: Scope<'_>,
    ) -> Result<Arc<dyn Processor>, BoxError> {
        let uri = self.uri.evaluate(exchange, scope).to_smolstr();
        let mut processors = self.processors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(processor) = processors.get(&uri) {
            return Ok(Arc::clone(processor));
        }
        let context = BuildContext { registry: &self.registry, cluster: self.cluster.as_ref() };
        let parsed = EndpointUri::parse(&SourceText::computed(uri.as_str()))?;
        let (_, processor) = context.sink(&parsed)?;
        if processors.len() >= Self::CACHE_SIZE {
            processors.clear();
        }
        processors.insert(uri, Arc::clone(&processor));
        Ok(processor)
    }
}
