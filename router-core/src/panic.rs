//! [`contain_panic`]: a panic of code that is not ours becomes an error.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs a future and turns a panic of it into an error: user code may break its exchange, not its
/// route.
pub(crate) async fn contain_panic<T, E: From<Panicked>>(
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // Unwind safety: after a panic the future is not polled again. What it had borrowed is an
        // exchange, whose fields are all valid in any combination, or a consumer that is made anew.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(Panicked(panic_message(&*panic)).into())),
        }
    })
    .await
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
