//! [`contain_panic`]: a panic of code that is not ours becomes an error.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Runs a future and turns a panic of it into an error: user code may break its exchange, not its
/// route.
pub(crate) fn contain_panic<F: Future>(future: F) -> Contained<F> {
    Contained { future }
}

pin_project! {
    /// A type of its own, because an `async fn` would keep the future twice, as its argument and where it is pinned: each
    /// exchange of each route has this one.
    pub(crate) struct Contained<F> {
        #[pin]
        future: F,
    }
}

impl<T, E: From<Panicked>, F: Future<Output = Result<T, E>>> Future for Contained<F> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        // Unwind safety: after a panic the future is not polled again. What it had borrowed is an
        // exchange, whose fields are all valid in any combination, or a consumer that is made anew.
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(Panicked(panic_message(&*panic)).into())),
        }
    }
}

/// User code has panicked.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(pub(crate) String);

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
