//! [`Processor`]: what works on an exchange. It is below everything that runs one.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::exchange::Exchange;

/// A step or sink that works on an exchange.
#[async_trait]
pub trait Processor: Send + Sync {
    /// Works on the exchange. It may change all of it, but not put another in its place.
    ///
    /// # Errors
    /// Any error; the route's error handler takes it from there. [`Failure`](crate::failure::Failure) says of which
    /// kind it is.
    ///
    /// # Cancellation
    /// The future may be dropped at any await when the route is aborted.
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError>;

    /// Whether it takes a body that is [the content of a file](crate::exchange::Body::as_file) as it is, of any size.
    /// For others, the content is read into memory before; a file that is too large for that is an error.
    fn takes_files(&self) -> bool {
        false
    }
}

/// Has a processor work on an exchange whose body it takes. The future is that of the processor, unless a file is read
/// before.
pub(crate) fn process<'a>(processor: &'a dyn Processor, exchange: &'a mut Exchange) -> ProcessFuture<'a> {
    if exchange.message.body.as_file().is_none() || processor.takes_files() {
        return processor.process(exchange);
    }
    Box::pin(async move {
        exchange.message.body.load().await?;
        processor.process(exchange).await
    })
}

/// A function that works on an exchange.
pub type ProcessFunction = Arc<dyn Fn(&mut Exchange) -> Result<(), BoxError> + Send + Sync>;

/// The future of an asynchronous processing function.
pub type ProcessFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// A function that returns a boxed future, as a processor.
pub(crate) struct AsyncFunction<F>(pub(crate) F);

#[async_trait]
impl<F> Processor for AsyncFunction<F>
where
    F: for<'a> Fn(&'a mut Exchange) -> ProcessFuture<'a> + Send + Sync,
{
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        (self.0)(exchange).await
    }
}
