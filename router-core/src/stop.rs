//! [`Stop`]: how a consumer is asked to stop.

use tokio_util::sync::CancellationToken;

/// The request to stop taking new work and finish what is in hand (drain). There is no second request:
/// when draining takes too long, the consumer's future is dropped (abort).
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// A request that nobody has made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the request; once is enough.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether the request was made.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the request is made.
    ///
    /// # Cancellation
    /// Safe: nothing is lost when the future is dropped.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// A stop that is requested together with this one, and can also be requested alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }
}
